//! The newest batches of one partition, in memory: no store, no clock.
//!
//! In `memory` this is the log. In `hybrid` it holds at least what is not written yet. In `persistent` it is a cache: batches
//! stand in it before they are durable, and readers are kept from those by the high watermark.
//!
//! **Invariant:** every batch of the log from [`Recent::read`]'s floor on is here; those below it are in the store.
//! **Invariant:** what leaves is durable, or of a ring, or removed from the log; a ring's log start moves with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::RecordBatch;

use super::memory::Memory;

/// One batch, as it is sent to readers and written.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub next: Offset,
    pub max_timestamp: i64,
    pub bytes: Bytes,
}

impl Held {
    pub(super) fn of(batch: &RecordBatch) -> Self {
        Self {
            next: batch.next_offset(),
            max_timestamp: batch.max_timestamp(),
            bytes: batch.as_bytes().clone(),
        }
    }

    fn size(&self) -> usize {
        self.bytes.len() + limits::LOG_BATCH_OVERHEAD_BYTES
    }
}

/// What happens to batches that the store does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unstored {
    /// Their write is on its way (`persistent`).
    Submitted,
    /// They wait for the next write (`hybrid`).
    Waits,
    /// They stay until there is no room (`memory`).
    Ring,
}

/// Which batches [`Memory`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victims {
    /// Those that the store has.
    Stored,
    /// Those that are nowhere else, of rings.
    Ring,
}

#[derive(Debug)]
pub(super) struct Recent {
    memory: Arc<Memory>,
    /// The first readable offset, as it is told.
    log_start: AtomicI64,
    /// Reads from here to the log start are in a hole that a crash or a stop has left, not out of range.
    hole_start: AtomicI64,
    /// The budget knows of it: from the first batch on.
    is_registered: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    batches: VecDeque<Held>,
    bytes: usize,
    /// Of the batches that the store does not have.
    unstored_bytes: usize,
    floor: Offset,
    /// The store has everything below it.
    stored: Offset,
    unstored: Unstored,
}

impl Recent {
    /// Nothing in memory: what there is below `floor` is in the store.
    pub(super) fn new(memory: Arc<Memory>, log_start: Offset, floor: Offset) -> Self {
        let inner = Inner {
            batches: VecDeque::new(),
            bytes: 0,
            unstored_bytes: 0,
            floor,
            stored: floor,
            unstored: Unstored::Submitted,
        };
        Self {
            memory,
            log_start: AtomicI64::new(log_start.0),
            hole_start: AtomicI64::new(i64::MAX),
            is_registered: AtomicBool::new(false),
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first readable offset. Takes no lock.
    pub(super) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// Readers below it have missed something from now on.
    pub(super) fn move_log_start(&self, to: Offset) {
        self.hole_start.store(i64::MAX, Ordering::Release);
        self.log_start.fetch_max(to.0, Ordering::AcqRel);
    }

    /// Takes back a move that could not be made durable.
    pub(super) fn restore_log_start(&self, to: Offset) {
        self.log_start.store(to.0, Ordering::Release);
    }

    /// What was between `from` and `log_start` went with a crash or a stop: nobody is told that it is out of range.
    pub(super) fn open_hole(&self, from: Offset, log_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
        self.hole_start.store(from.0, Ordering::Release);
    }

    /// Whether a reader may stand there, as far as the start of the log is concerned.
    pub(super) fn may_be_read(&self, from: Offset) -> bool {
        from >= self.log_start() || from.0 >= self.hole_start.load(Ordering::Acquire)
    }

    /// Adds the batch that comes next. A ring keeps at most `ring_bytes`.
    pub(super) fn push(self: &Arc<Self>, batch: &RecordBatch, ring_bytes: Option<u64>) {
        let held = Held::of(batch);
        let size = held.size();
        // Before the lock is taken: whoever makes room holds the budget's and then takes this one.
        if !self.is_registered.swap(true, Ordering::AcqRel) {
            self.memory.register(self);
        }
        let mut inner = self.lock();
        inner.batches.push_back(held);
        inner.bytes += size;
        self.memory.charge(size);
        inner.unstored_bytes += size;
        match inner.unstored {
            Unstored::Waits => self.memory.charge_unwritten(size),
            Unstored::Ring => {
                if let Some(most) = ring_bytes {
                    let most = usize::try_from(most).unwrap_or(usize::MAX);
                    self.cut_ring(&mut inner, most.max(size));
                }
            }
            Unstored::Submitted => {}
        }
    }

    /// Whole batches from the one that holds `from` on, that end below or at `to`: at most `max_bytes`, and with `at_least_one`
    /// one if there is one.
    ///
    /// # Errors
    /// The floor, if `from` is below it: what is before it is in the store.
    pub(super) fn read(
        &self,
        from: Offset,
        to: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Vec<Bytes>, Offset> {
        let inner = self.lock();
        if from < inner.floor {
            return Err(inner.floor);
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for held in inner.batches.range(inner.first_after(from)..) {
            bytes += held.bytes.len();
            let room = bytes <= max_bytes || (at_least_one && found.is_empty());
            if held.next > to || !room {
                break;
            }
            found.push(held.bytes.clone());
        }
        Ok(found)
    }

    /// The batches from `from` on, at most `max_bytes` (and at least one), and where they end; `None` if that is all.
    pub(super) fn from(&self, from: Offset, max_bytes: usize) -> (Vec<Held>, Option<Offset>) {
        let inner = self.lock();
        let mut bytes = 0;
        let mut found: Vec<Held> = Vec::new();
        for held in inner.batches.range(inner.first_after(from)..) {
            bytes += held.bytes.len();
            if bytes > max_bytes
                && let Some(last) = found.last()
            {
                let end = last.next;
                return (found, Some(end));
            }
            found.push(held.clone());
        }
        (found, None)
    }

    /// The store has everything below `stored`.
    pub(super) fn set_stored(&self, stored: Offset) {
        let mut inner = self.lock();
        if stored <= inner.stored {
            return;
        }
        let range = inner.first_after(inner.stored)..inner.first_after(stored);
        let bytes: usize = inner.batches.range(range).map(Held::size).sum();
        inner.stored = stored;
        inner.unstored_bytes -= bytes;
        if inner.unstored == Unstored::Waits {
            self.memory.release_unwritten(bytes);
        }
        // Enough for those who read the tail.
        while inner.bytes - inner.unstored_bytes > limits::LOG_TAIL_BYTES {
            if self.drop_first(&mut inner).is_none() {
                break;
            }
        }
    }

    /// What becomes of what the store does not have, and of what comes. Everything else stays.
    pub(super) fn set_unstored(&self, unstored: Unstored) {
        let mut inner = self.lock();
        if inner.unstored == Unstored::Waits {
            self.memory.release_unwritten(inner.unstored_bytes);
        }
        inner.unstored = unstored;
        if unstored == Unstored::Waits {
            self.memory.charge_unwritten(inner.unstored_bytes);
        }
    }

    /// Bytes that are in memory only.
    pub(super) fn unstored_bytes(&self) -> usize {
        self.lock().unstored_bytes
    }

    /// Takes back what was pushed from `from` on: its write failed.
    pub(super) fn truncate(&self, from: Offset) {
        let mut inner = self.lock();
        while inner.batches.back().is_some_and(|last| last.next > from) {
            let Some(last) = inner.batches.pop_back() else { break };
            self.forget(&mut inner, &last);
        }
    }

    /// Drops the batches that end at or before `before`, which are deleted.
    pub(super) fn drop_before(&self, before: Offset) {
        let mut inner = self.lock();
        while inner.batches.front().is_some_and(|first| first.next <= before) {
            if self.drop_first(&mut inner).is_none() {
                break;
            }
        }
    }

    /// Drops everything: the topic is gone.
    pub(super) fn clear(&self) {
        self.drop_before(Offset(i64::MAX));
    }

    /// Where a ring starts when batches older than `oldest_kept`, and `excess` bytes, are gone; `None` for no change. The newest
    /// batch stays while it is young.
    pub(super) fn expired(&self, oldest_kept: Option<i64>, mut excess: u64) -> Option<Offset> {
        let inner = self.lock();
        let mut keep_from = None;
        let ring = inner.batches.range(inner.first_after(inner.stored)..);
        for held in ring.filter(|_| inner.unstored == Unstored::Ring) {
            let expired =
                oldest_kept.is_some_and(|oldest| (0..oldest).contains(&held.max_timestamp));
            let bytes = held.bytes.len() as u64;
            if !expired && bytes > excess {
                break;
            }
            excess = excess.saturating_sub(bytes);
            keep_from = Some(held.next);
        }
        keep_from
    }

    /// Bytes of batches, as they are sent, that are not in the store.
    pub(super) fn unstored_batch_bytes(&self) -> u64 {
        let inner = self.lock();
        let unstored = inner.batches.range(inner.first_after(inner.stored)..);
        unstored.map(|held| held.bytes.len() as u64).sum()
    }

    pub(super) fn bytes_of(&self, victims: Victims) -> usize {
        let inner = self.lock();
        match victims {
            Victims::Stored => inner.bytes - inner.unstored_bytes,
            Victims::Ring if inner.unstored == Unstored::Ring => inner.unstored_bytes,
            Victims::Ring => 0,
        }
    }

    /// Drops the oldest `victims` until at most `kept` bytes of them are left.
    pub(super) fn cut(&self, victims: Victims, kept: usize) {
        let mut inner = self.lock();
        match victims {
            Victims::Stored => {
                while inner.bytes - inner.unstored_bytes > kept {
                    if self.drop_first(&mut inner).is_none() {
                        break;
                    }
                }
            }
            Victims::Ring if inner.unstored == Unstored::Ring => self.cut_ring(&mut inner, kept),
            Victims::Ring => {}
        }
    }

    fn cut_ring(&self, inner: &mut Inner, kept: usize) {
        while inner.unstored_bytes > kept {
            let Some(first) = self.drop_first(inner) else { break };
            if first.next > inner.stored {
                // Told before it is gone for a reader that comes between.
                self.move_log_start(first.next);
            }
        }
    }

    fn drop_first(&self, inner: &mut Inner) -> Option<Held> {
        let first = inner.batches.pop_front()?;
        self.forget(inner, &first);
        inner.floor = inner.floor.max(first.next);
        Some(first)
    }

    fn forget(&self, inner: &mut Inner, held: &Held) {
        let size = held.size();
        inner.bytes -= size;
        self.memory.release(size);
        if held.next > inner.stored {
            inner.unstored_bytes -= size;
            if inner.unstored == Unstored::Waits {
                self.memory.release_unwritten(size);
            }
        }
    }
}

impl Inner {
    /// The index of the first batch that ends after `offset`.
    fn first_after(&self, offset: Offset) -> usize {
        self.batches.partition_point(|held| held.next <= offset)
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.clear();
    }
}
