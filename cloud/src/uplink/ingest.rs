//! The ingest itself, without HTTP: hellos, batches and heartbeats in, answers out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::{CloudGeneration, EdgeId, Incarnation, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::{
    Answer, Batch, DecodeError, Heartbeat, Hello, LaneState, Outcome, Refusal,
};
use tokio::time::Instant;

use super::edges::{Edge, Edges, load_lane};
use super::log::IngestLog;
use super::metrics::UplinkMetrics;
use super::refused::{RefusedEdges, Why};
use super::rights::Rights;
use crate::store::keys::lane as keys;
use crate::store::{ScanLimit, Store, StoreError};

/// How ingest is set up.
#[derive(Clone)]
pub struct IngestSettings {
    /// An edge that was quiet for so long is taken for gone, and another gateway may have its id.
    pub session_timeout: Duration,
    /// How long a batch that came before its predecessor waits for it.
    pub gap_wait: Duration,
    /// What an edge is told to wait when the cloud cannot take a batch.
    pub retry_after: Duration,
    /// Topics that one edge may bring into being; further ones go to the overflow topic.
    pub topics_per_edge: u64,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            session_timeout: limits::UPLINK_SESSION_TIMEOUT,
            gap_wait: limits::UPLINK_GAP_WAIT,
            retry_after: limits::UPLINK_RETRY_AFTER,
            topics_per_edge: limits::UPLINK_TOPICS_PER_EDGE,
            wall_clock: Arc::new(system_wall_clock),
        }
    }
}

fn system_wall_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// Takes in what edges send. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn IngestLog>,
    pub generation: CloudGeneration,
    pub settings: IngestSettings,
    pub metrics: UplinkMetrics,
    pub edges: Edges,
    pub refused: RefusedEdges,
}

/// Why a request cannot be answered as it should: told to the edge as overload, since trying again is all it can do.
#[derive(Debug, thiserror::Error)]
pub(super) enum IngestError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the log refused: {0}")]
    Log(String),
    #[error("too many edges are connected")]
    TooManyEdges,
    #[error("too many rejections wait for the edge to confirm them")]
    TooManyRejections,
}

/// What is known of one edge, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EdgeStatus {
    /// Its current incarnation, 0 before the first.
    pub incarnation: Incarnation,
    /// Seconds since it was last heard of; `None` if not since the start.
    pub seen_seconds_ago: Option<u64>,
    /// Whether it was heard of within the session timeout, and not refused since.
    pub connected: bool,
    /// Topics that it brought into being.
    pub topics_created: u64,
    /// Records that it had trimmed and this cloud does not have: the cloud was restored to an earlier state.
    pub lost_records: u64,
    /// Each lane and what is acknowledged of it.
    pub lanes: Vec<(LaneId, u64)>,
}

impl Ingest {
    /// Ingest into `log`, with its own state in `store`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        log: Arc<dyn IngestLog>,
        generation: CloudGeneration,
        settings: IngestSettings,
        metrics: UplinkMetrics,
    ) -> Self {
        let edges = Edges::new(Arc::clone(&store));
        let refused = RefusedEdges::default();
        let shared = Shared { store, log, generation, settings, metrics, edges, refused };
        Self { shared: Arc::new(shared) }
    }

    /// Answers a hello. The work goes on if the caller goes away.
    pub async fn hello(&self, edge: &EdgeId, frame: &[u8]) -> Answer {
        let hello = match Hello::decode(frame) {
            Ok(hello) => hello,
            Err(error) => return self.unreadable(edge, &error),
        };
        let (shared, id) = (Arc::clone(&self.shared), edge.clone());
        self.answer(edge, async move { shared.hello(&id, &hello).await }).await
    }

    /// Answers a batch for `lane`. The work goes on if the caller goes away, so that nothing stays half applied.
    pub async fn batch(
        &self,
        edge: &EdgeId,
        rights: &Rights,
        lane: LaneId,
        frame: &[u8],
    ) -> Answer {
        self.batch_holding(edge, rights, lane, frame, ()).await
    }

    /// As [`Self::batch`]; `held` is let go when the work is over, not when the caller goes away.
    pub async fn batch_holding<H: Send + 'static>(
        &self,
        edge: &EdgeId,
        rights: &Rights,
        lane: LaneId,
        frame: &[u8],
        held: H,
    ) -> Answer {
        let batch = match Batch::decode(frame) {
            Ok(batch) if batch.header().lane == lane => batch,
            Ok(_) => return self.unreadable(edge, &DecodeError::Invalid { field: "lane" }),
            Err(error) => return self.unreadable(edge, &error),
        };
        let (shared, id, rights) = (Arc::clone(&self.shared), edge.clone(), rights.clone());
        let work = async move {
            let _held = held;
            shared.batch(&id, &rights, &batch).await
        };
        self.answer(edge, work).await
    }

    /// Answers a heartbeat.
    pub async fn heartbeat(&self, edge: &EdgeId, frame: &[u8]) -> Answer {
        let heartbeat = match Heartbeat::decode(frame) {
            Ok(heartbeat) => heartbeat,
            Err(error) => return self.unreadable(edge, &error),
        };
        let (shared, id) = (Arc::clone(&self.shared), edge.clone());
        self.answer(edge, async move { shared.heartbeat(&id, &heartbeat).await }).await
    }

    /// What is known of an edge.
    ///
    /// # Errors
    /// What the store says.
    pub async fn status(&self, id: &EdgeId) -> Result<EdgeStatus, StoreError> {
        let shared = &self.shared;
        let record = super::edges::load_edge(shared.store.as_ref(), id).await?;
        let (now, past) = (Instant::now(), shared.settings.session_timeout);
        let seen = shared.edges.known(id).and_then(|edge| edge.last_seen(now));
        let refused = shared.refused.since(id, past, now);
        let refused = refused.map(|since| now.saturating_duration_since(since));
        let is_let_in = |seen| refused.is_none_or(|refused| seen < refused);
        let range = keys::lanes_range(id, record.incarnation);
        let page = shared.store.scan(range, ScanLimit::items(limits::SYNC_LANES)).await?;
        let lane = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
            let keys::LaneKey::Lane(_, _, lane) = keys::LaneKey::parse(key).ok()? else {
                return None;
            };
            let record = super::lane::LaneRecord::decode(value).ok()?;
            Some((lane, record.acknowledged_through.0))
        };
        Ok(EdgeStatus {
            incarnation: record.incarnation,
            seen_seconds_ago: seen.map(|seen| seen.as_secs()),
            connected: seen.is_some_and(|seen| seen < past && is_let_in(seen)),
            topics_created: record.topics_created,
            lost_records: record.lost_records,
            lanes: page.items.iter().filter_map(lane).collect(),
        })
    }

    /// Who is connected: was heard of within the session timeout.
    pub(super) fn connected(&self) -> BTreeSet<EdgeId> {
        let past = self.shared.settings.session_timeout;
        self.shared.edges.heard_within(past, Instant::now()).into_iter().collect()
    }

    /// Who was refused within the session timeout, and why.
    pub(super) fn refused(&self) -> BTreeMap<EdgeId, Why> {
        self.shared.refused.within(self.shared.settings.session_timeout, Instant::now())
    }

    /// An edge is not let in. The first time is logged.
    pub(super) fn refuse_edge(&self, edge: &EdgeId, peer: SocketAddr, why: Why) -> Refusal {
        if self.shared.refused.note(edge, why, Instant::now()) {
            tracing::warn!(
                %edge, %peer, reason = %why,
                "refused an edge; that is said once, `robustmq-cloud edge list` shows who is refused"
            );
        }
        why.refusal()
    }

    /// An answer with a refusal.
    #[must_use]
    pub fn refuse(&self, refusal: Refusal) -> Answer {
        self.shared.metrics.refused(&refusal);
        Answer { generation: self.shared.generation, outcome: Outcome::Refused(refusal) }
    }

    /// Counts a frame of a request.
    pub(super) fn received(&self, bytes: usize) {
        self.shared.metrics.received(bytes);
    }

    /// What an edge is told when the cloud cannot take something now.
    #[must_use]
    pub fn overloaded(&self) -> Refusal {
        self.shared.overloaded()
    }

    fn unreadable(&self, edge: &EdgeId, error: &DecodeError) -> Answer {
        tracing::warn!(%edge, %error, "an edge sent something that cannot be read");
        let limit_bytes = u32::try_from(limits::SYNC_FRAME_BYTES).unwrap_or(u32::MAX);
        self.refuse(match error {
            DecodeError::TooLong { field: "batch frame", .. } => Refusal::TooLarge { limit_bytes },
            _ => Refusal::Malformed,
        })
    }

    async fn answer<F>(&self, edge: &EdgeId, work: F) -> Answer
    where
        F: Future<Output = Result<Outcome, IngestError>> + Send + 'static,
    {
        let outcome = match tokio::spawn(work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::warn!(%edge, %error, "an edge's request could not be carried out");
                Outcome::Refused(self.shared.overloaded())
            }
            Err(error) => {
                tracing::error!(%edge, %error, "an edge's request ended early");
                Outcome::Refused(self.shared.overloaded())
            }
        };
        if let Outcome::Refused(refusal) = &outcome {
            self.shared.metrics.refused(refusal);
        }
        Answer { generation: self.shared.generation, outcome }
    }
}

impl Shared {
    pub fn overloaded(&self) -> Refusal {
        let wait = self.settings.retry_after.as_millis();
        Refusal::Overloaded { retry_after_ms: u32::try_from(wait).unwrap_or(u32::MAX) }
    }

    pub async fn edge(&self, id: &EdgeId) -> Result<Arc<Edge>, IngestError> {
        self.edges.get(id).await?.ok_or(IngestError::TooManyEdges)
    }

    async fn heartbeat(&self, id: &EdgeId, heartbeat: &Heartbeat) -> Result<Outcome, IngestError> {
        let edge = self.edge(id).await?;
        let state = edge.state.read().await;
        if !state.record.is_current(heartbeat.incarnation, heartbeat.store) {
            let current = state.record.incarnation;
            return Ok(Outcome::Refused(Refusal::Fenced { current, lanes: Vec::new() }));
        }
        edge.touch(heartbeat.session, Instant::now());
        Ok(Outcome::Heartbeat)
    }

    /// What is durable of the lanes of an incarnation.
    pub async fn lane_states(
        &self,
        id: &EdgeId,
        incarnation: Incarnation,
        lanes: &[LaneId],
    ) -> Result<Vec<LaneState>, StoreError> {
        let mut states = Vec::new();
        for lane in lanes.iter().copied() {
            let record = load_lane(self.store.as_ref(), id, incarnation, lane).await?;
            states.extend(record.map(|record| record.state(lane)));
        }
        Ok(states)
    }
}
