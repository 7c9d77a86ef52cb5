//! The keeper: what has to be done beside writing, on a thread of its own. When a segment is full, the index is made durable, so that
//! a start has little to replay; when something was removed, space is given back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use robustmq_common::limits;

use super::collect::{Collected, Collector};
use super::index::Position;
use crate::store::{StoreError, WriteBatch};

/// What the writer tells the keeper.
#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// A segment is full.
    rolled: bool,
    /// Something was removed.
    removed: bool,
    closing: bool,
    /// The segment that is written to is to be sealed, so that its dead bytes can be given back.
    seal: bool,
}

impl Signals {
    /// Whether a new segment is to be begun. Asked by the writer before each group.
    pub(super) fn takes_seal(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.seal)
    }

    fn seal(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seal = true;
    }

    pub(super) fn rolled(&self) {
        self.change(|state| state.rolled = true);
    }

    pub(super) fn removed(&self) {
        self.change(|state| state.removed = true);
    }

    pub(super) fn close(&self) {
        self.change(|state| state.closing = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for work, and takes it; for what was removed not before `not_before`. `None`: the store is closing.
    fn next(&self, not_before: Instant) -> Option<State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.closing {
                return None;
            }
            let wait = not_before.saturating_duration_since(Instant::now());
            if state.rolled || (state.removed && wait.is_zero()) {
                let seal = state.seal;
                return Some(std::mem::replace(&mut *state, State { seal, ..State::default() }));
            }
            let wait = if state.removed { wait } else { limits::STORE_COUNT_INTERVAL };
            let waited = self.changed.wait_timeout(state, wait);
            let (waited, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if timeout.timed_out() && !state.removed && !state.rolled && !state.closing {
                return Some(State::default());
            }
        }
    }
}

pub(super) struct Keeper {
    pub collector: Collector,
    pub signals: Arc<Signals>,
    /// Segments below it are never replayed again.
    pub durable: AtomicU32,
    pub one_at_a_time: Mutex<()>,
}

impl Keeper {
    /// Runs until the store closes.
    pub(super) fn run(&self) {
        let mut not_before = Instant::now();
        while let Some(work) = self.signals.next(not_before) {
            let is_short = self.collector.commits.is_short_of_room();
            let is_full = is_short && self.collector.commits.stats().no_space.is_some();
            if !work.removed && !work.rolled && !is_full {
                continue;
            }
            if is_full || (is_short && work.removed) {
                self.seal();
            }
            if let Err(error) = self.flush() {
                // Everything is in the segments; they are kept, and replayed at the next start.
                tracing::warn!(%error, "the store's index could not be made durable; it is tried again");
                continue;
            }
            let mut counting = Duration::ZERO;
            match self.collect() {
                Ok(collected) => {
                    let Collected { removed_segments, moved_bytes, .. } = collected;
                    counting = collected.counting;
                    tracing::debug!(removed_segments, moved_bytes, "space given back");
                }
                Err(StoreError::Closed) => {}
                Err(error) => {
                    tracing::warn!(%error, "space could not be given back; it is tried again");
                }
            }
            not_before = Instant::now() + pause_after(counting);
        }
    }

    /// Has the segment that is written to sealed. While the disk is full nobody else may write, so this does; if others fail with it, it is
    /// tried again.
    fn seal(&self) {
        self.signals.seal();
        let mut nothing = WriteBatch::new();
        nothing.delete_range(Bytes::new()..Bytes::new());
        drop(self.collector.commits.submit(nothing));
    }

    /// Makes the index durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let index = &self.collector.index;
        let told = Position::read(&**index)?;
        index.flush()?;
        if let Some(told) = told {
            self.durable.fetch_max(told.segment, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Gives space back.
    pub(super) fn collect(&self) -> Result<Collected, StoreError> {
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        self.collector.collect(self.durable.load(Ordering::Acquire))
    }
}

/// Counting takes its share of the time and no more.
fn pause_after(took: Duration) -> Duration {
    limits::STORE_COUNT_INTERVAL.max(took * limits::STORE_COUNT_SHARE)
}
