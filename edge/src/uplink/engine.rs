//! The uplink's life: say hello, send all lanes until something asks for another hello, and again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use robustmq_common::ids::{CloudGeneration, EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::{Heartbeat, LaneState, Outcome, Refusal, Rejected, SessionId, StoreId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, BacklogError, Piece};
use super::dead_letter::{DeadLetter, DeadLetters};
use super::greet::Greeted;
use super::metrics::UplinkMetrics;
use super::pacing::{Backoff, Jitter, TokenBucket};
use super::sender::LaneSender;
use super::status::{Status, UplinkStatus};
use super::transport::{Call, Transport, TransportError, exchange};

/// How the uplink sends.
#[derive(Debug, Clone)]
pub struct UplinkSettings {
    /// A batch is cut when it has this many bytes of records, before compression.
    pub batch_bytes: usize,
    /// A batch is cut when it has this many records.
    pub batch_records: usize,
    /// How long a batch that is not full waits for more records.
    pub linger: Duration,
    /// Batches of one lane that may be under way at once.
    pub window: usize,
    /// How often the cloud hears that this edge is alive.
    pub heartbeat: Duration,
    /// The limit of the first pause after a failure; it doubles with each further one.
    pub backoff: Duration,
    /// The limit of the longest pause.
    pub max_backoff: Duration,
    /// The most that is sent, over all lanes; `None` for as much as the link takes.
    pub bytes_per_second: Option<u64>,
}

impl Default for UplinkSettings {
    fn default() -> Self {
        Self {
            batch_bytes: limits::UPLINK_BATCH_BYTES,
            batch_records: limits::UPLINK_BATCH_RECORDS,
            linger: Duration::from_millis(limits::UPLINK_LINGER_MS),
            window: limits::UPLINK_WINDOW,
            heartbeat: limits::UPLINK_HEARTBEAT,
            backoff: limits::UPLINK_BACKOFF,
            max_backoff: limits::UPLINK_MAX_BACKOFF,
            bytes_per_second: None,
        }
    }
}

/// What an uplink is made of.
pub struct UplinkParts {
    /// The queue.
    pub backlog: Arc<dyn Backlog>,
    /// The way to the cloud.
    pub transport: Arc<dyn Transport>,
    /// Where rejected records go.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// How it sends.
    pub settings: UplinkSettings,
    /// Random, made at the process's start.
    pub session: SessionId,
    /// Random fractions for the pauses.
    pub jitter: Jitter,
    /// What it counts.
    pub metrics: UplinkMetrics,
}

/// Replicates a queue to a cloud. Cheap to clone; the clones are one uplink.
#[derive(Clone)]
pub struct Uplink {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub backlog: Arc<dyn Backlog>,
    pub transport: Arc<dyn Transport>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub settings: UplinkSettings,
    pub session: SessionId,
    pub jitter: Jitter,
    pub metrics: UplinkMetrics,
    pub status: Status,
    pub bucket: Option<TokenBucket>,
}

/// Why a hello or a batch got nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Backlog(#[from] BacklogError),
    #[error("{}", describe(.0))]
    Refused(Refusal),
    #[error("the cloud's answer does not belong to the request")]
    OtherAnswer,
    #[error("a rejected record cannot be kept in the dead-letter file: {0}")]
    DeadLetters(std::io::Error),
    #[error("a batch cannot be made: {0}")]
    Batch(String),
}

impl Trouble {
    /// The least time to wait before trying again.
    pub fn floor(&self) -> Duration {
        match self {
            Self::Refused(
                Refusal::Conflict { retry_after_ms } | Refusal::Overloaded { retry_after_ms },
            ) => Duration::from_millis(u64::from(*retry_after_ms)).min(limits::UPLINK_MAX_BACKOFF),
            Self::Refused(Refusal::Unauthorised | Refusal::UnknownEdge | Refusal::Malformed) => {
                limits::UPLINK_REFUSED_PAUSE
            }
            _ => Duration::ZERO,
        }
    }
}

impl Trouble {
    /// Whether nothing can be sent while it lasts: the cloud is not reached, or does not take this edge.
    pub fn disconnects(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Refused(refusal) => matches!(
                refusal,
                Refusal::Unauthorised
                    | Refusal::UnknownEdge
                    | Refusal::Conflict { .. }
                    | Refusal::Malformed
            ),
            _ => false,
        }
    }
}

fn describe(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Conflict { .. } => {
            "another gateway with this edge id is connected; give each gateway an id of its own"
                .to_owned()
        }
        Refusal::Unauthorised => {
            "the cloud does not accept the token; issue one with `robustmq-cloud edge add`"
                .to_owned()
        }
        Refusal::UnknownEdge => {
            "the cloud has no edge with this id; add it with `robustmq-cloud edge add`".to_owned()
        }
        Refusal::Overloaded { .. } => "the cloud is overloaded".to_owned(),
        refusal => format!("the cloud refused: {}", refusal.as_str()),
    }
}

/// Why all lanes stop sending.
pub(super) enum Exit {
    /// Only another hello can say how to go on.
    Hello(&'static str),
}

impl Uplink {
    /// An uplink that does nothing yet; see [`Self::run`].
    #[must_use]
    pub fn new(parts: UplinkParts) -> Self {
        let UplinkParts { backlog, transport, dead_letters, settings, session, jitter, metrics } =
            parts;
        let now = Instant::now();
        let bucket = settings.bytes_per_second.map(|rate| TokenBucket::new(rate, now));
        let status = Status::default();
        Self {
            shared: Arc::new(Shared {
                backlog,
                transport,
                dead_letters,
                settings,
                session,
                jitter,
                metrics,
                status,
                bucket,
            }),
        }
    }

    /// How the uplink stands.
    #[must_use]
    pub fn status(&self) -> UplinkStatus {
        self.shared.status.snapshot(self.shared.backlog.as_ref(), Instant::now())
    }

    /// Replicates until `shutdown`. What is under way then is given up: the cloud answers for it after the next start.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.shared.forever() => {}
        }
    }
}

impl Shared {
    pub fn backoff(&self) -> Backoff {
        let UplinkSettings { backoff, max_backoff, .. } = self.settings;
        Backoff::new(backoff, max_backoff, Arc::clone(&self.jitter))
    }

    async fn forever(&self) {
        let mut backoff = self.backoff();
        loop {
            let pause = match self.greet().await {
                Ok(greeted) => {
                    let before = self.status.acknowledged();
                    self.connected();
                    self.status.mended();
                    let Exit::Hello(reason) = self.send(&greeted).await;
                    tracing::info!(reason, "saying hello to the cloud again");
                    if self.status.acknowledged() != before {
                        backoff.succeeded();
                    }
                    backoff.failed(Duration::ZERO)
                }
                Err(trouble) => {
                    self.failed(&trouble, true);
                    backoff.failed(trouble.floor())
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends all lanes, and heartbeats, until one of them needs another hello.
    async fn send(&self, greeted: &Greeted) -> Exit {
        let mut lanes: FuturesUnordered<_> = greeted
            .lanes
            .iter()
            .map(|state| LaneSender::new(self, greeted.incarnation, state).run())
            .collect();
        tokio::select! {
            biased;
            exit = lanes.next() => exit.unwrap_or(Exit::Hello("no lane is left")),
            exit = self.heartbeats(greeted.store, greeted.incarnation) => exit,
        }
    }

    async fn heartbeats(&self, store: StoreId, incarnation: Incarnation) -> Exit {
        let heartbeat = Heartbeat { session: self.session, store, incarnation };
        loop {
            let frame = heartbeat.encode().into();
            match exchange(self.transport.as_ref(), Call::Heartbeat, frame).await {
                Ok(answer) => {
                    self.heard(answer.generation);
                    match answer.outcome {
                        Outcome::Heartbeat => self.connected(),
                        Outcome::Refused(Refusal::Fenced { .. }) => {
                            return Exit::Hello("the incarnation was fenced");
                        }
                        Outcome::Refused(refusal) => {
                            let trouble = Trouble::Refused(refusal);
                            self.failed(&trouble, trouble.disconnects());
                        }
                        Outcome::Hello { .. } | Outcome::Lane(_) => {
                            self.failed(&Trouble::OtherAnswer, false);
                        }
                    }
                }
                Err(error) => self.failed(&Trouble::Transport(error), true),
            }
            tokio::time::sleep(self.settings.heartbeat).await;
        }
    }

    /// Something went wrong that trying again may mend; `disconnected` if nothing can be sent for now.
    pub fn failed(&self, trouble: &Trouble, disconnected: bool) {
        self.metrics.failed();
        if self.status.failed(trouble.to_string(), disconnected, Instant::now()) {
            tracing::warn!(%trouble, "the uplink is interrupted");
        }
    }

    /// The cloud takes what is sent.
    pub fn connected(&self) {
        if self.status.connected(Instant::now()) {
            tracing::info!("the uplink is connected");
        }
    }

    /// The cloud answered.
    pub fn heard(&self, generation: CloudGeneration) {
        if self.status.heard(generation) {
            tracing::warn!(%generation, "the cloud's store is another one, or was restored to an earlier state");
        }
    }

    /// Keeps rejected records, then lets the queue trim what the cloud has.
    pub async fn take_in(
        &self,
        incarnation: Incarnation,
        known: EdgeSeq,
        state: &LaneState,
    ) -> Result<(), Trouble> {
        let through = state.acknowledged_through;
        let news = |rejected: &&Rejected| rejected.seq > known && rejected.seq <= through;
        let mut letters = Vec::new();
        for Rejected { seq, reason } in state.rejected.iter().filter(news).copied() {
            let body = self.body_of(state.lane, seq).await?;
            tracing::warn!(lane = %state.lane, %seq, reason = reason.as_str(), "the cloud rejected a record for good");
            letters.push(DeadLetter { incarnation, lane: state.lane, seq, reason, body });
        }
        if !letters.is_empty() {
            // Counted when they are kept: with a full disk this is tried again and again.
            let count = letters.len() as u64;
            self.dead_letters.keep(letters).await.map_err(Trouble::DeadLetters)?;
            self.metrics.dead_lettered(count);
        }
        if through > known {
            self.backlog.acknowledge(state.lane, through)?;
            self.metrics.acknowledged(through.0 - known.0);
        }
        self.status.acknowledge(state.lane, through);
        Ok(())
    }

    async fn body_of(
        &self,
        lane: LaneId,
        seq: EdgeSeq,
    ) -> Result<Option<bytes::Bytes>, BacklogError> {
        let chunk = self.backlog.read(lane, seq, 1, 1).await?;
        Ok(match chunk.pieces.into_iter().next() {
            Some(Piece::Record { body, .. }) => Some(body),
            Some(Piece::Skip { .. }) | None => None,
        })
    }
}
