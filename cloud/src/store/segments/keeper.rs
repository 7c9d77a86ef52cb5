//! The keeper: what has to be done beside writing, on a thread of its own. When a segment is full, the index is made durable, so that
//! a start has little to replay; when something was removed, space is given back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use robustmq_common::limits;

use super::collect::{CollectError, Collected, Collector};
use super::index::Position;
use crate::store::{StoreError, WriteBatch};

/// What the keeper does next.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// The index is made durable.
    flushes: bool,
    /// Space is looked for.
    collects: bool,
}

/// When it was last counted what lives, and how long that took: it takes its share of the time and no more.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Instant,
    took: Duration,
}

impl Counted {
    /// When it may be counted again. While segments fill, the share is larger: dead bytes come quickly then.
    fn next(&self, has_grown: bool) -> Instant {
        let pause = match has_grown {
            true => self.took * limits::STORE_GROWING_COUNT_SHARE,
            false => limits::STORE_COUNT_INTERVAL.max(self.took * limits::STORE_COUNT_SHARE),
        };
        self.at + pause
    }
}

/// What the writer tells the keeper.
pub(super) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// A segment is full.
    rolled: bool,
    /// That was so since it was last looked for space.
    grown: bool,
    /// Something was removed since then.
    removed: bool,
    closing: bool,
    /// The segment that is written to is to be sealed, so that its dead bytes can be given back.
    seal: bool,
}

impl Default for Signals {
    /// Those of a store that was just opened: what was removed before may not have been given back.
    fn default() -> Self {
        let state = State { removed: true, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
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

    pub(super) fn rolled(&self, is_full: bool) {
        self.change(|state| {
            state.rolled = true;
            // One that was sealed early is looked at in its turn.
            state.grown |= is_full;
            state.removed |= !is_full;
        });
    }

    pub(super) fn removed(&self) {
        self.change(|state| state.removed = true);
    }

    pub(super) fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// What was not done is to be done after a while, or the store closes.
    fn again(&self, work: Work) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rolled |= work.flushes;
        state.removed |= work.collects;
        let until = Instant::now() + limits::STORE_COUNT_INTERVAL;
        while !state.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for work, and takes it. `None`: the store is closing.
    fn next(&self, counted: Counted) -> Option<Work> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_idle = false;
        loop {
            if state.closing {
                return None;
            }
            let is_wanted = state.grown || state.removed;
            let wait = counted.next(state.grown).saturating_duration_since(Instant::now());
            let collects = is_wanted && wait.is_zero();
            if state.rolled || collects || (is_idle && !is_wanted) {
                let flushes = std::mem::take(&mut state.rolled);
                if collects {
                    (state.grown, state.removed) = (false, false);
                }
                return Some(Work { flushes, collects });
            }
            let wait = if is_wanted { wait } else { limits::STORE_COUNT_INTERVAL };
            let waited = self.changed.wait_timeout(state, wait);
            let (waited, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            (state, is_idle) = (waited, timeout.timed_out());
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
        let mut counted = Counted { at: Instant::now(), took: Duration::ZERO };
        while let Some(work) = self.signals.next(counted) {
            let is_short = self.collector.commits.is_short_of_room();
            let is_full = is_short && self.collector.commits.stats().no_space.is_some();
            if !work.flushes && !work.collects && !is_full {
                continue;
            }
            if let Err(error) = self.flush() {
                // Everything is in the segments; they are kept, and replayed at the next start.
                tracing::warn!(%error, "the store's index could not be made durable; it is tried again");
                self.signals.again(work);
                continue;
            }
            if !work.collects && !is_full {
                continue;
            }
            let mut took = Duration::ZERO;
            match self.collect() {
                Ok(Collected { removed_segments, moved_bytes, wants_seal, counting }) => {
                    took = counting;
                    tracing::debug!(removed_segments, moved_bytes, ?counting, "space given back");
                    if wants_seal {
                        self.seal();
                    }
                }
                Err(CollectError::Store(StoreError::Closed | StoreError::Poisoned(_))) => {}
                Err(error) => {
                    tracing::warn!(%error, "space could not be given back; it is tried again");
                    self.signals.again(Work { flushes: false, collects: true });
                }
            }
            counted = Counted { at: Instant::now(), took };
        }
    }

    /// Has the segment that is written to sealed. While the disk is full nobody else may write, so this does; if others fail with it, the
    /// next write seals it.
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
    pub(super) fn collect(&self) -> Result<Collected, CollectError> {
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        self.collector.collect(self.durable.load(Ordering::Acquire))
    }
}
