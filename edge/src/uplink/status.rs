//! How the uplink stands, for an operator.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use robustmq_common::ids::{CloudGeneration, EdgeSeq, Incarnation, LaneId};
use serde::Serialize;
use tokio::time::Instant;

use super::backlog::Backlog;

/// How one lane stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneLag {
    /// The lane.
    pub lane: LaneId,
    /// The last sequence that the cloud has.
    pub acknowledged_through: EdgeSeq,
    /// The last sequence that is on disk.
    pub synced_through: EdgeSeq,
    /// Sequences between the two.
    pub lag_records: u64,
}

/// How the uplink stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UplinkStatus {
    /// Whether the cloud takes what is sent.
    pub connected: bool,
    /// For how many seconds that has been so.
    pub seconds: u64,
    /// What went wrong last, and is not known to be over.
    pub last_error: Option<String>,
    /// The incarnation that the cloud issued, 0 before the first.
    pub incarnation: Incarnation,
    /// The cloud's generation, once it has answered.
    pub cloud_generation: Option<CloudGeneration>,
    /// Each lane.
    pub lanes: Vec<LaneLag>,
}

#[derive(Default)]
struct State {
    connected: bool,
    since: Option<Instant>,
    last_error: Option<String>,
    incarnation: Incarnation,
    generation: Option<CloudGeneration>,
    acknowledged: BTreeMap<LaneId, EdgeSeq>,
}

impl State {
    fn turn(&mut self, connected: bool, now: Instant) {
        if self.connected != connected || self.since.is_none() {
            self.connected = connected;
            self.since = Some(now);
        }
    }
}

#[derive(Default)]
pub(super) struct Status(Mutex<State>);

impl Status {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cloud answered, whatever it said. Says whether it is in another generation than before.
    pub fn heard(&self, generation: CloudGeneration) -> bool {
        let before = self.lock().generation.replace(generation);
        before.is_some_and(|before| before != generation)
    }

    /// The cloud takes what is sent; what kept it from that is over. Says whether it did not before.
    pub fn connected(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let news = !state.connected;
        if news {
            state.last_error = None;
        }
        state.turn(true, now);
        news
    }

    /// Both sides agree, or something went through: whatever was wrong is over.
    pub fn mended(&self) {
        self.lock().last_error = None;
    }

    /// Something went wrong; `disconnected` if nothing can be sent for now. Says whether it is another thing than last time.
    pub fn failed(&self, error: String, disconnected: bool, now: Instant) -> bool {
        let mut state = self.lock();
        if disconnected {
            state.turn(false, now);
        }
        let news = state.last_error.as_ref() != Some(&error);
        state.last_error = Some(error);
        news
    }

    pub fn incarnation(&self, incarnation: Incarnation) {
        self.lock().incarnation = incarnation;
    }

    pub fn acknowledge(&self, lane: LaneId, through: EdgeSeq) {
        let mut state = self.lock();
        if state.acknowledged.insert(lane, through) != Some(through) {
            state.last_error = None;
        }
    }

    pub fn acknowledged(&self) -> BTreeMap<LaneId, EdgeSeq> {
        self.lock().acknowledged.clone()
    }

    pub fn snapshot(&self, backlog: &dyn Backlog, now: Instant) -> UplinkStatus {
        let lag = |lane: LaneId| {
            let position = backlog.position(lane).ok()?.lane;
            let synced_through = EdgeSeq(position.next_seq.0.saturating_sub(1));
            let acknowledged_through = position.acknowledged_through;
            let lag_records = synced_through.0.saturating_sub(acknowledged_through.0);
            Some(LaneLag { lane, acknowledged_through, synced_through, lag_records })
        };
        let lanes = backlog.lanes().into_iter().filter_map(lag).collect();
        let state = self.lock();
        let since = state.since.map(|since| now.saturating_duration_since(since));
        UplinkStatus {
            connected: state.connected,
            seconds: since.map_or(0, |since| since.as_secs()),
            last_error: state.last_error.clone(),
            incarnation: state.incarnation,
            cloud_generation: state.generation,
            lanes,
        }
    }
}
