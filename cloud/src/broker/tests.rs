use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::{CloudGeneration, KafkaTopic};
use robustmq_common::telemetry::{LogLevel, LogSettings, subscriber};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Broker, start};
use crate::log::Log;
use crate::settings::Settings;
use crate::store::MemoryStore;
use crate::store::keys::system::StoreIdentity;
use crate::topics::{Catalogue, NewTopic};

fn log_level() -> LogLevel {
    let (_subscriber, level) =
        subscriber(&LogSettings::default(), false, std::io::sink).expect("the default level");
    level
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.kafka.listen.set_port(0);
    settings.uplink.listen.set_port(0);
    settings.admin.listen.set_port(0);
    settings
}

async fn running(shutdown: &CancellationToken) -> Broker {
    let store = Arc::new(MemoryStore::new());
    start(&settings(), store, log_level(), shutdown.clone()).await.expect("free ports")
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a listening broker");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer that is text");
    answer
}

#[tokio::test]
async fn a_started_broker_answers_on_its_listeners_and_stops_when_told() {
    let shutdown = CancellationToken::new();
    let broker = running(&shutdown).await;
    for (path, expected) in [
        ("/live", "live"),
        ("/ready", "ready"),
        ("/metrics", "robustmq_cloud_kafka_connections"),
        ("/metrics", "robustmq_cloud_topics_active 0"),
        ("/v1/topics", r#"{"topics":[],"next":null}"#),
        ("/v1/groups", "[]"),
        ("/v1/store", r#""engine":"memory""#),
        ("/v1/edges", "[]"),
    ] {
        let answer = get(broker.admin, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    for path in ["/v1/groups/none", "/v1/topics/none", "/v1/topics/not%20legal"] {
        let missing = get(broker.admin, path).await;
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    }
    // ApiVersions 0 without a client id.
    let mut client = TcpStream::connect(broker.kafka).await.expect("a listening broker");
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    client.write_all(&request).await.expect("an open connection");
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer[4..], [0, 0, 0, 7]);
    assert!(get(broker.admin, "/metrics").await.contains(r#"requests_total{api="ApiVersions"} 1"#));
    TcpStream::connect(broker.uplink).await.expect("a listening broker");
    shutdown.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(20), broker.stopped());
    stopped.await.expect("the drain is bounded").expect("the store closes");
}

#[tokio::test]
async fn any_topic_is_shown_by_its_name() {
    let store = Arc::new(MemoryStore::new());
    let identity = StoreIdentity::load_or_create(&*store, CloudGeneration(1)).await;
    identity.expect("a fresh store");
    let topics = Catalogue::new(Arc::new(Log::new(store.clone())));
    let name = KafkaTopic::new("plant.line-1").expect("a legal name");
    let new = NewTopic { name, partitions: 2, overrides: Default::default() };
    topics.create(vec![new], false, 7).await.remove(0).expect("created");
    let shutdown = CancellationToken::new();
    let broker = start(&settings(), store, log_level(), shutdown.clone()).await;
    let broker = broker.expect("free ports");
    let answer = get(broker.admin, "/v1/topics/plant.line-1").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for expected in [
        r#""name":"plant.line-1""#,
        r#""created_ms":7"#,
        r#""active":false"#,
        r#""backlog":null"#,
        r#""log":[{"partition":0,"log_start_offset":0,"high_watermark":0,"leader_epoch":0,"bytes":0},"#,
    ] {
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    shutdown.cancel();
    broker.stopped().await.expect("the store closes");
}

#[tokio::test]
async fn a_wider_address_without_authentication_is_refused() {
    let mut settings = settings();
    settings.kafka.listen = "0.0.0.0:0".parse().expect("an address");
    settings.kafka.advertise = Some("localhost:9092".to_owned());
    let store = Arc::new(MemoryStore::new());
    let refused = start(&settings, store.clone(), log_level(), CancellationToken::new()).await;
    let refused = refused.err().expect("the loopback rule");
    assert!(refused.to_string().contains("[kafka] listen"), "{refused}");
    settings.insecure = true;
    let shutdown = CancellationToken::new();
    let broker = start(&settings, store, log_level(), shutdown.clone()).await;
    let broker = broker.expect("insecure says so");
    shutdown.cancel();
    broker.stopped().await.expect("the store closes");
}
