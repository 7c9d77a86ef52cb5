//! What the writer has to do next, and when.

use std::sync::PoisonError;
use std::time::Duration;

use robustmq_common::ids::LaneId;
use robustmq_common::limits::QUEUE_PENDING_BYTES;

use super::state::{Group, Issued, Shared, State, StoredTicket};
use super::types::QueueSettings;

/// What there is to do.
pub(super) struct Job {
    pub groups: Vec<(LaneId, Group)>,
    pub flush: Option<StoredTicket>,
    pub identity: bool,
    pub issued: Option<Issued>,
    pub purge: bool,
    pub closing: bool,
}

/// Waits for something to do. If that is an append after a pause, those that follow it within `gather` come along.
pub(super) fn wait_for_job(shared: &Shared, gather: Duration) -> Job {
    let mut state = shared.lock();
    let mut paused = false;
    let mut gather_until = None;
    loop {
        let now = shared.clock.now().uptime;
        let Some(mut wait) = state.next_duty(now, &shared.settings) else {
            paused = true;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if wait.is_zero() && paused && state.may_gather() {
            let until = *gather_until.get_or_insert(now.saturating_add(gather));
            wait = until.saturating_sub(now);
        }
        if wait.is_zero() {
            return take_job(&mut state);
        }
        paused |= gather_until.is_none();
        let waited = shared.work.wait_timeout(state, wait);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

pub(super) fn take_job(state: &mut State) -> Job {
    let mut groups = Vec::new();
    for lane in &mut state.lanes {
        if !lane.group.bytes.is_empty() {
            let next = Group::new(std::mem::take(&mut lane.spare));
            groups.push((lane.id, std::mem::replace(&mut lane.group, next)));
        }
    }
    Job {
        groups,
        flush: state.flush.take(),
        identity: std::mem::take(&mut state.identity_dirty),
        issued: state.issued.take(),
        purge: std::mem::take(&mut state.purge_wanted),
        closing: state.closing,
    }
}

impl State {
    /// Whether nobody asked for more than that appends become durable soon.
    fn may_gather(&self) -> bool {
        !self.closing && !self.is_asked() && self.pending_bytes < QUEUE_PENDING_BYTES / 2
    }

    /// Whether somebody waits for something to be durable, besides appends.
    fn is_asked(&self) -> bool {
        self.flush.is_some() || self.issued.is_some()
    }

    /// How long until there is something to do: zero for now, `None` if only something new can bring work.
    fn next_duty(&self, now: Duration, settings: &QueueSettings) -> Option<Duration> {
        let groups = self.lanes.iter().any(|lane| !lane.group.bytes.is_empty());
        if self.closing || self.is_asked() || groups {
            return Some(Duration::ZERO);
        }
        if self.poisoned.is_some() {
            return None;
        }
        let upkeep = match self.identity_dirty || self.purge_wanted {
            true => Some(Duration::ZERO),
            false => self.lanes.iter().filter_map(|lane| lane.next_duty(now, settings)).min(),
        };
        let not_before = self.retry_at.map_or(Duration::ZERO, |at| at.saturating_sub(now));
        upkeep.map(|wait| wait.max(not_before))
    }
}
