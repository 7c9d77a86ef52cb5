//! What is known of each edge: its durable record, who is connected under its id, and its lanes as far as they are loaded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use robustmq_common::ids::{ChainDigest, EdgeId, EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits;
use robustmq_common::sync::{NO_INCARNATION, SessionId, StoreId};
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, watch};
use tokio::time::Instant;

use super::lane::LaneRecord;
use crate::store::keys::{damaged, lane as keys};
use crate::store::{Store, StoreError};

/// What is kept of an edge (`edge_key`), as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EdgeRecord {
    /// The current incarnation, 0 before the first.
    pub incarnation: Incarnation,
    /// The queue store that it was issued to, in hexadecimal.
    pub store: String,
    /// Topics that the edge brought into being.
    pub topics_created: u64,
    /// Records that the edge had trimmed and this cloud does not have any more.
    pub lost_records: u64,
}

impl Default for EdgeRecord {
    fn default() -> Self {
        let (incarnation, store) = (NO_INCARNATION, String::new());
        Self { incarnation, store, topics_created: 0, lost_records: 0 }
    }
}

impl EdgeRecord {
    /// Whether the current incarnation is this one, and was issued to this store.
    pub fn is_current(&self, incarnation: Incarnation, store: StoreId) -> bool {
        self.incarnation == incarnation
            && incarnation != NO_INCARNATION
            && self.store == store.to_string()
    }

    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self)
            .map_err(|error| damaged(b"", format!("an edge's record cannot be written: {error}")))
    }
}

/// Who was last heard of under an edge's id.
#[derive(Debug, Clone, Copy)]
struct Connected {
    session: SessionId,
    seen: Instant,
}

/// One edge. Batches hold `state` for reading while they are applied; opening an incarnation holds it for writing.
pub(super) struct Edge {
    pub state: RwLock<EdgeState>,
    connected: Mutex<Option<Connected>>,
}

/// What an incarnation's opening changes.
pub(super) struct EdgeState {
    pub record: EdgeRecord,
    topics_created: AtomicU64,
    lanes: Mutex<HashMap<LaneId, Arc<Lane>>>,
}

/// One lane of the current incarnation.
pub(super) struct Lane {
    /// `None` until it is loaded, and after a write whose outcome is not known.
    pub record: tokio::sync::Mutex<Option<LaneRecord>>,
    /// `acknowledged_through`, for batches that wait for their predecessor.
    pub advanced: watch::Sender<EdgeSeq>,
}

impl EdgeState {
    fn new(record: EdgeRecord) -> Self {
        let topics_created = AtomicU64::new(record.topics_created);
        Self { record, topics_created, lanes: Mutex::default() }
    }

    /// Takes one of the topics that the edge may bring into being, if one is left.
    pub fn may_create_topic(&self, limit: u64) -> bool {
        let take = |created: u64| Some(created + 1).filter(|created| *created <= limit);
        self.topics_created.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives back what [`Self::may_create_topic`] took: the topic did not come into being.
    pub fn topic_not_created(&self) {
        let give_back = |created: u64| created.checked_sub(1);
        let _ = self.topics_created.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give_back);
    }

    /// The record with the present count of topics.
    pub fn record_now(&self) -> EdgeRecord {
        let topics_created = self.topics_created.load(Ordering::Relaxed);
        EdgeRecord { topics_created, ..self.record.clone() }
    }

    /// The lane, made when it is first asked for. Lane ids are bounded by the caller.
    pub fn lane(&self, lane: LaneId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let (advanced, _) = watch::channel(EdgeSeq(0));
            Arc::new(Lane { record: tokio::sync::Mutex::default(), advanced })
        };
        Arc::clone(lanes.entry(lane).or_insert_with(make))
    }

    /// Takes over a record that was made durable under a new incarnation: what was loaded of the old one is forgotten.
    pub fn reopen(&mut self, record: EdgeRecord) {
        *self = Self::new(record);
    }
}

impl Edge {
    /// Notes that `session` was heard of and has shown the history that the cloud has.
    pub fn touch(&self, session: SessionId, now: Instant) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        *connected = Some(Connected { session, seen: now });
    }

    /// How long `session` has to wait before it may have a new incarnation: another one is connected.
    pub fn conflict(
        &self,
        session: SessionId,
        now: Instant,
        timeout: Duration,
    ) -> Option<Duration> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let other = connected.filter(|connected| connected.session != session)?;
        let quiet = now.saturating_duration_since(other.seen);
        timeout.checked_sub(quiet).filter(|rest| !rest.is_zero())
    }

    /// How long ago anything was heard, if ever since the start.
    pub fn last_seen(&self, now: Instant) -> Option<Duration> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.map(|connected| now.saturating_duration_since(connected.seen))
    }
}

/// All edges that were heard of since the start, at most [`limits::UPLINK_EDGES`].
pub(super) struct Edges {
    store: Arc<dyn Store>,
    loaded: Mutex<HashMap<EdgeId, Arc<Edge>>>,
}

impl Edges {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, loaded: Mutex::default() }
    }

    fn loaded(&self, id: &EdgeId) -> Option<Arc<Edge>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The edge, if something was heard of it since the start.
    pub fn known(&self, id: &EdgeId) -> Option<Arc<Edge>> {
        self.loaded(id)
    }

    /// Who was heard of within so long, in no order.
    pub fn heard_within(&self, past: Duration, now: Instant) -> Vec<EdgeId> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |edge: &Edge| edge.last_seen(now).is_some_and(|quiet| quiet < past);
        loaded.iter().filter(|(_, edge)| heard(edge)).map(|(id, _)| id.clone()).collect()
    }

    /// The edge, loaded when it is first asked for. `None`: too many edges are in use at once.
    pub async fn get(&self, id: &EdgeId) -> Result<Option<Arc<Edge>>, StoreError> {
        if let Some(edge) = self.loaded(id) {
            return Ok(Some(edge));
        }
        let record = load_edge(self.store.as_ref(), id).await?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(edge) = loaded.get(id) {
            return Ok(Some(Arc::clone(edge)));
        }
        if loaded.len() >= limits::UPLINK_EDGES {
            let now = Instant::now();
            // Whoever is not used by a request and was quiet for long is loaded again when it comes back.
            loaded.retain(|_, edge| {
                let quiet = edge.last_seen(now).is_none_or(|quiet| quiet > limits::UPLINK_IDLE);
                Arc::strong_count(edge) > 1 || !quiet
            });
        }
        if loaded.len() >= limits::UPLINK_EDGES {
            return Ok(None);
        }
        let state = RwLock::new(EdgeState::new(record));
        let edge = Arc::new(Edge { state, connected: Mutex::default() });
        loaded.insert(id.clone(), Arc::clone(&edge));
        Ok(Some(edge))
    }
}

/// The durable record of an edge; a fresh one if there is none.
pub(super) async fn load_edge(store: &dyn Store, id: &EdgeId) -> Result<EdgeRecord, StoreError> {
    let key = keys::edge_key(id);
    match store.get(&key).await? {
        None => Ok(EdgeRecord::default()),
        Some(value) => serde_json::from_slice(&value).map_err(|error| damaged(&key, error)),
    }
}

/// The durable record of a lane, if there is one.
pub(super) async fn load_lane(
    store: &dyn Store,
    id: &EdgeId,
    incarnation: Incarnation,
    lane: LaneId,
) -> Result<Option<LaneRecord>, StoreError> {
    let key = keys::lane_key(id, incarnation, lane);
    let value = store.get(&key).await?;
    value.map(|value| LaneRecord::decode(&value).map_err(|error| damaged(&key, error))).transpose()
}

/// A lane's record, or a lane that begins where the edge says it begins.
pub(super) async fn load_or_begin(
    store: &dyn Store,
    id: &EdgeId,
    incarnation: Incarnation,
    lane: LaneId,
    digest_at_zero: ChainDigest,
) -> Result<LaneRecord, StoreError> {
    let loaded = load_lane(store, id, incarnation, lane).await?;
    Ok(loaded.unwrap_or_else(|| LaneRecord::at(EdgeSeq(0), digest_at_zero)))
}
