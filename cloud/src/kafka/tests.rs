//! The APIs over a real socket, against a store in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes,
};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};
use robustmq_dataset::cache::{Cache, CacheSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::memory::Budget;
use super::{Kafka, KafkaSettings, serve};
use crate::dataset::Datasets;
use crate::group::coordinator::Coordinator;
use crate::group::machine::Timing;
use crate::group::shared::coordinator::SharedGroups;
use crate::log::{Log, ProducerIds};
use crate::metrics::Metrics;
use crate::store::{MemoryStore, Store};
use crate::topics::Catalogue;

mod consumer_protocol;
mod datasets;
mod frames;
mod full_disk;
mod groups;
mod large_answers;
mod modes;
mod records;
mod share;
mod shared;
mod tiered;
mod topics;
mod traffic;

/// A listener over an empty store. Ends with the test's runtime.
struct Broker {
    address: std::net::SocketAddr,
    store: Arc<MemoryStore>,
    kafka: Arc<Kafka>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Broker {
    async fn start() -> Self {
        Self::start_with(KafkaSettings::default()).await
    }

    async fn start_with(settings: KafkaSettings) -> Self {
        Self::start_with_memory(settings, 1 << 30).await
    }

    async fn start_with_memory(settings: KafkaSettings, answer_bytes: usize) -> Self {
        Self::start_over(Arc::new(MemoryStore::new()), settings, answer_bytes).await
    }

    /// Another broker over the same store, as after a crash.
    async fn start_again(&self) -> Self {
        Self::start_over(self.store.clone(), KafkaSettings::default(), 1 << 30).await
    }

    async fn start_over(
        memory: Arc<MemoryStore>,
        settings: KafkaSettings,
        answer_bytes: usize,
    ) -> Self {
        let log = Arc::new(Log::new(memory.clone() as Arc<dyn Store>));
        Self::start_with_log(memory, log, settings, answer_bytes).await
    }

    async fn start_with_log(
        memory: Arc<MemoryStore>,
        log: Arc<Log>,
        settings: KafkaSettings,
        answer_bytes: usize,
    ) -> Self {
        let store: Arc<dyn Store> = memory.clone();
        tokio::spawn({
            let log = log.clone();
            async move { log.write_behind().await }
        });
        let topics = Arc::new(Catalogue::new(log.clone()));
        let shutdown = CancellationToken::new();
        let cache = CacheSettings { memory_bytes: limits::dataset::CACHE_BYTES_MIN, ssd: None };
        let cache = Cache::open(cache).expect("enough memory");
        let datasets = Datasets::start(store.clone(), &topics, cache, None, shutdown.clone());
        let datasets = datasets.await.expect("an empty store");
        log.set_sources(datasets.clone());
        let timing = Timing { initial_delay: Duration::from_millis(20), ..Timing::default() };
        let shared = SharedGroups::new(log.clone(), timing, None);
        tokio::spawn({
            let (shared, shutdown) = (shared.clone(), shutdown.clone());
            async move { shared.run(shutdown).await }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let kafka = Arc::new(Kafka {
            topics,
            log,
            datasets,
            groups: Coordinator::start(store.clone(), timing, shutdown.clone())
                .with_shared(shared.clone()),
            shared,
            producer_ids: ProducerIds::new(store),
            settings: KafkaSettings { advertised_port: address.port(), ..settings },
            metrics: Arc::new(Metrics::default()),
            traffic: Arc::default(),
            request_memory: Budget::new(1 << 30),
            listings: Default::default(),
            patterns: Default::default(),
            answer_memory: Budget::new(answer_bytes),
            shutdown: shutdown.clone(),
        });
        let served = tokio::spawn(serve(listener, kafka.clone(), shutdown.clone()));
        Self { address, store: memory, kafka, shutdown, served }
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("a listening broker");
        Client { stream, next_id: 1 }
    }
}

/// One connection.
struct Client {
    stream: TcpStream,
    next_id: i32,
}

impl Client {
    async fn send_raw(&mut self, frame: &[u8]) {
        let size = i32::try_from(frame.len()).expect("a small frame");
        self.stream.write_all(&size.to_be_bytes()).await.expect("an open connection");
        self.stream.write_all(frame).await.expect("an open connection");
    }

    /// The next answer without its size, or `None` when the broker closed the connection.
    async fn receive_raw(&mut self) -> Option<Bytes> {
        let read = async {
            let size = self.stream.read_i32().await.ok()?;
            let mut frame = vec![0; usize::try_from(size).expect("a size")];
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        };
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("an answer or the end")
    }

    async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(text("test")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, R::header_version(version)).expect("a header");
        request.encode(&mut frame, version).expect("a request");
        self.send_raw(&frame).await;
        id
    }

    async fn receive<R: Request>(&mut self, version: i16, id: i32) -> R::Response {
        let mut frame = self.receive_raw().await.expect("an answer");
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version));
        assert_eq!(header.expect("a header").correlation_id, id, "answers come in order");
        let response = R::Response::decode(&mut frame, version).expect("an answer that decodes");
        assert!(frame.is_empty(), "{} bytes are left", frame.len());
        response
    }

    async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request).await;
        self.receive::<R>(version, id).await
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn code(error: ResponseError) -> i16 {
    error.code()
}

/// One batch of records with these values.
fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (value, number) in values.iter().zip(0..) {
        let record = NewRecord {
            timestamp_ms: 1_000 + number,
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("a batch").into_bytes()
}
