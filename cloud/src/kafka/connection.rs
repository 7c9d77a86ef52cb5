//! One client's connection: frames in, answers out, in order.
//!
//! A reader and a writer. The reader begins each request and hands what will answer it to the writer through a bounded
//! queue; the writer awaits and sends the answers in that order. Only a Produce is answered later than it is begun: its
//! offsets are assigned before the next request is read, its durability is awaited in the writer. Everything else is
//! answered before the next request is begun, as in Apache Kafka.
//!
//! **Invariant:** at most [`limits::KAFKA_PIPELINED_REQUESTS`] requests wait in the writer's queue, and at most
//! [`limits::KAFKA_QUEUED_ANSWER_BYTES`] of answers beyond the one being queued.
//! **Invariant:** whatever a client sends, it ends at most its own connection.
//!
//! A handler is dropped where it waits when its client takes no answers any more, so that a Fetch or a JoinGroup does not wait for
//! nobody. What must not end halfway is not a handler's to do step by step: changes of topics and deletions of records go on
//! ([`crate::log::Log::finish`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use robustmq_common::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::api::{self, Answer, Begun};
use super::frame::{self, FrameError};
use super::memory::{Budget, Charge};
use super::read::{ReadError, read_frame};
use super::{Kafka, Peer};
use crate::group::shared::members::ConnectionId;

/// Connections so far: each has a number of its own.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Why a connection was closed from this side.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("malformed request: {0}")]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Request(#[from] api::RequestError),
    #[error("the client does not take its answers")]
    Writer,
}

/// Serves one client until it leaves, misbehaves, or `shutdown`.
pub(super) async fn serve<S>(
    kafka: Arc<Kafka>,
    stream: S,
    peer: SocketAddr,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let connection = ConnectionId(CONNECTIONS.fetch_add(1, Ordering::Relaxed));
    let (read, write) = tokio::io::split(stream);
    let (queue, queued) = mpsc::channel(limits::KAFKA_PIPELINED_REQUESTS);
    // Told when the writer ends, so that a reader that waits for a slow handler ends too.
    let gone = CancellationToken::new();
    let writer =
        tokio::spawn(write_answers(write, queued, kafka.clone(), gone.clone().drop_guard()));
    let mut reader = Reader {
        kafka: kafka.clone(),
        peer: Peer { address: peer, connection },
        stream: BufReader::new(read),
        queue,
        room: Arc::new(Semaphore::new(limits::KAFKA_QUEUED_ANSWER_BYTES)),
        shutdown,
    };
    let ended = tokio::select! {
        ended = reader.run() => ended,
        () = gone.cancelled() => Err(Closed::Writer),
    };
    drop(reader);
    kafka.shared.connection_closed(connection);
    match ended {
        Ok(()) => tracing::debug!("connection ended"),
        Err(Closed::Read(ReadError::Io(error))) => tracing::debug!(%error, "connection broke"),
        Err(closed) => {
            kafka.metrics.kafka_connections_refused.inc();
            tracing::debug!(reason = %closed, "connection closed");
        }
    }
    // What was begun is still answered: the drain of a shutdown waits for this.
    if let Err(error) = writer.await {
        tracing::error!(%error, "a connection's writer failed");
    }
}

/// What the writer has to send next.
struct Queued {
    answer: BoxFuture<'static, Result<Answer, api::RequestError>>,
    /// When a Produce had arrived.
    produced: Option<std::time::Instant>,
    /// Held until the answer is sent.
    _request: Charge,
    _room: Option<OwnedSemaphorePermit>,
}

struct Reader<R> {
    kafka: Arc<Kafka>,
    peer: Peer,
    stream: BufReader<R>,
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(&mut self) -> Result<(), Closed> {
        loop {
            // A place in the queue first: what cannot be queued is not read.
            let slot = self.queue.clone().reserve_owned().await.map_err(|_| Closed::Writer)?;
            let kafka = &self.kafka;
            let frame = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                frame = read_frame(
                    &mut self.stream,
                    &kafka.request_memory,
                    kafka.settings.frame_bytes,
                    kafka.settings.idle,
                ) => frame?,
            };
            let Some((frame, charge)) = frame else { return Ok(()) };
            slot.send(self.begin(frame, charge).await?);
        }
    }

    /// Begins one request.
    async fn begin(&mut self, bytes: Bytes, mut charge: Charge) -> Result<Queued, Closed> {
        let arrived = std::time::Instant::now();
        let frame = match frame::check(&bytes) {
            Ok(frame) => frame,
            Err(error) => match api::answer_unsupported(&error) {
                Some(answer) => return self.queue_ready(answer?, charge).await,
                None => return Err(error.into()),
            },
        };
        if frame.shape.elements > limits::KAFKA_FREE_FRAME_ELEMENTS {
            let decoded_bytes = frame.shape.elements.saturating_mul(limits::KAFKA_ELEMENT_BYTES);
            let memory = &self.kafka.request_memory;
            let more = memory.charge(decoded_bytes, limits::KAFKA_MEMORY_WAIT).await;
            charge.merge(more.map_err(ReadError::from)?);
        }
        self.kafka.metrics.kafka_request(frame.api.key);
        let span = tracing::debug_span!(
            "request",
            api = ?frame.api.key,
            version = frame.version,
            id = frame.correlation_id
        );
        match api::begin(&self.kafka, &self.peer, frame).instrument(span).await? {
            Begun::Ready(answer) => self.queue_ready(answer, charge).await,
            Begun::Later(answer) => {
                Ok(Queued { answer, produced: Some(arrived), _request: charge, _room: None })
            }
        }
    }

    async fn queue_ready(&self, answer: Answer, request: Charge) -> Result<Queued, Closed> {
        let bytes = answer.bytes.remaining().min(limits::KAFKA_QUEUED_ANSWER_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(permits).await;
        let room = room.map_err(|_| Closed::Writer)?;
        let answer = Box::pin(async move { Ok(answer) });
        Ok(Queued { answer, produced: None, _request: request, _room: Some(room) })
    }
}

async fn write_answers(
    mut stream: impl AsyncWrite + Unpin + Send,
    mut queued: mpsc::Receiver<Queued>,
    kafka: Arc<Kafka>,
    _gone: tokio_util::sync::DropGuard,
) {
    while let Some(next) = queued.recv().await {
        let mut answer = match next.answer.await {
            Ok(answer) => answer,
            Err(error @ api::RequestError::Unanswerable { .. }) => {
                tracing::debug!(%error, "connection closed");
                break;
            }
            Err(error) => {
                tracing::error!(%error, "an answer could not be encoded");
                break;
            }
        };
        if !answer.bytes.has_remaining() {
            continue; // Produce with acks=0: there is no answer.
        }
        if let Err(error) = send(&mut stream, &mut answer.bytes, &kafka.answer_memory).await {
            tracing::debug!(%error, "an answer could not be sent");
            break;
        }
        if let Some(arrived) = next.produced {
            kafka.metrics.kafka_produce_seconds.observe_since(arrived);
        }
    }
    // The peer may be gone already.
    let _ = stream.shutdown().await;
}

/// Sends an answer to a client that goes on taking it, however slow its link: what counts is that something is taken within
/// [`limits::KAFKA_SEND_TIMEOUT`], or [`limits::KAFKA_SEND_TIMEOUT_SHORT`] while answers have taken most of `memory`, and all of it at
/// [`limits::KAFKA_FRAME_BYTES_PER_SECOND`].
async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &mut impl Buf,
    memory: &Budget,
) -> io::Result<()> {
    let seconds = answer.remaining() / limits::KAFKA_FRAME_BYTES_PER_SECOND;
    let all = Instant::now() + limits::KAFKA_SEND_TIMEOUT + Duration::from_secs(seconds as u64);
    while answer.has_remaining() {
        // The kernel's buffer is full when nothing is taken.
        let until = all.min(Instant::now() + limits::KAFKA_SEND_TIMEOUT);
        let taken = loop {
            let look = until.min(Instant::now() + limits::KAFKA_SEND_TIMEOUT_SHORT);
            match timeout_at(look, stream.write_buf(answer)).await {
                Ok(taken) => break taken?,
                Err(late) if look == until || memory.is_short() => return Err(late.into()),
                Err(_) => {}
            }
        };
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use bytes::Bytes;
    use robustmq_common::limits;
    use tokio::io::AsyncReadExt as _;
    use tokio::time::Instant;

    use super::{Budget, send};

    const ANSWER_BYTES: usize = 16 * 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_all_of_an_answer_that_takes_long() {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let client = tokio::spawn(async move {
            let mut part = vec![0; 64 * 1024];
            let mut taken = 0;
            while taken < ANSWER_BYTES {
                tokio::time::sleep(Duration::from_secs(1)).await;
                taken += theirs.read(&mut part).await.expect("an open pipe");
            }
            taken
        });
        let started = Instant::now();
        let mut answer = Bytes::from(vec![7; ANSWER_BYTES]);
        send(&mut ours, &mut answer, &Budget::new(1)).await.expect("a client that goes on reading");
        assert!(started.elapsed() > Duration::from_secs(200));
        assert_eq!(client.await.expect("no panic"), ANSWER_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stalls_or_trickles_is_given_up() {
        let never = Duration::from_secs(3600);
        for (pause, is_short, expected) in [
            (never, false, limits::KAFKA_SEND_TIMEOUT),
            (never, true, limits::KAFKA_SEND_TIMEOUT_SHORT),
            (Duration::from_secs(10), false, Duration::from_secs(1144)),
        ] {
            let memory = Budget::new(100);
            let _used = is_short.then(|| memory.try_charge(80).expect("it is free"));
            let started = Instant::now();
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            let client = tokio::spawn(async move {
                let mut part = [0; 1024];
                while theirs.read(&mut part).await.is_ok_and(|taken| taken > 0) {
                    tokio::time::sleep(pause).await;
                }
            });
            let mut answer = Bytes::from(vec![7; ANSWER_BYTES]);
            let ended = send(&mut ours, &mut answer, &memory).await;
            assert_eq!(ended.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
            assert_eq!(started.elapsed(), expected);
            client.abort();
        }
    }
}
