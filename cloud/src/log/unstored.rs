//! The batches of one partition that the store does not have: no store, no clock.
//!
//! In `memory` this is the log, a ring. In `hybrid` it is what waits to be written. In `persistent` nothing is here: batches become
//! readable when the store has them.
//!
//! **Invariant:** every batch of the log from [`Unstored::read`]'s floor on is here; those below it are in the store.
//! **Invariant:** what leaves is durable, or of a ring, or removed from the log; a ring's log start moves with it.
//! **Invariant:** what is here holds its own bytes and nothing else of the request that they came in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::RecordBatch;

use super::unstored_memory::UnstoredMemory;

/// One batch, as it is sent to readers and written.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub next: Offset,
    pub max_timestamp: i64,
    pub records: u32,
    pub bytes: Bytes,
}

impl Held {
    pub(super) fn of(batch: &RecordBatch) -> Self {
        Self {
            next: batch.next_offset(),
            max_timestamp: batch.max_timestamp(),
            records: batch.records_count().unsigned_abs(),
            bytes: batch.as_bytes().clone(),
        }
    }

    fn size(&self) -> usize {
        self.bytes.len() + limits::UNSTORED_BATCH_OVERHEAD_BYTES
    }
}

/// What becomes of batches that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They go to the store at once (`persistent`).
    Stored,
    /// They wait for the next write (`hybrid`).
    Waits,
    /// They stay until there is no room (`memory`).
    Ring,
}

#[derive(Debug)]
pub(super) struct Unstored {
    memory: Arc<UnstoredMemory>,
    /// The first readable offset, as it is told.
    log_start: AtomicI64,
    /// The log start that the store has.
    durable_start: AtomicI64,
    /// Reads from here to the log start are in a hole that a crash or a stop has left, not out of range.
    hole_start: AtomicI64,
    /// The budget knows of it: from the first batch on.
    is_registered: AtomicBool,
    /// Records that went for want of room.
    pushed_out: AtomicU64,
    inner: Mutex<Inner>,
}

const NO_HOLE: i64 = i64::MAX;

/// A move of the log start, to be taken back if it fails.
#[derive(Debug, Clone, Copy)]
#[must_use = "a move that fails is taken back"]
pub(super) struct StartMove {
    before: i64,
    to: i64,
    hole_start: i64,
}

#[derive(Debug)]
struct Inner {
    batches: VecDeque<Held>,
    bytes: usize,
    floor: Offset,
    fate: Fate,
}

impl Unstored {
    /// Nothing in memory: what there is below `floor` is in the store.
    pub(super) fn new(memory: Arc<UnstoredMemory>, log_start: Offset, floor: Offset) -> Self {
        let inner = Inner { batches: VecDeque::new(), bytes: 0, floor, fate: Fate::Stored };
        Self {
            memory,
            log_start: AtomicI64::new(log_start.0),
            durable_start: AtomicI64::new(log_start.0),
            hole_start: AtomicI64::new(NO_HOLE),
            is_registered: AtomicBool::new(false),
            pushed_out: AtomicU64::new(0),
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

    /// Readers below it have missed something from now on. Returns what [`Unstored::restore_log_start`] needs.
    pub(super) fn move_log_start(&self, to: Offset) -> StartMove {
        let hole_start = self.hole_start.swap(NO_HOLE, Ordering::AcqRel);
        let before = self.log_start.fetch_max(to.0, Ordering::AcqRel);
        StartMove { before, to: to.0, hole_start }
    }

    /// Takes back a move that could not be made durable, unless a ring has moved on since.
    pub(super) fn restore_log_start(&self, moved: StartMove) {
        let StartMove { before, to, hole_start } = moved;
        let (ordering, failure) = (Ordering::AcqRel, Ordering::Acquire);
        if self.log_start.compare_exchange(to, before, ordering, failure).is_ok() {
            self.hole_start.store(hole_start, Ordering::Release);
        }
    }

    /// The store has this log start.
    pub(super) fn set_durable_start(&self, start: Offset) {
        self.durable_start.fetch_max(start.0, Ordering::AcqRel);
    }

    /// The log start, if a ring has moved it past records that the store still has below `stored_to`.
    pub(super) fn evicted_to(&self, stored_to: Offset) -> Option<Offset> {
        let start = self.log_start();
        let durable = self.durable_start.load(Ordering::Acquire);
        let is_hole = self.hole_start.load(Ordering::Acquire) != NO_HOLE;
        (!is_hole && durable < start.min(stored_to).0).then_some(start)
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
        // The request that it came in may be a hundred times as large.
        let bytes = Bytes::copy_from_slice(batch.as_bytes());
        let held = Held { bytes, ..Held::of(batch) };
        let size = held.size();
        // Before the lock is taken: whoever makes room holds the budget's and then takes this one.
        if !self.is_registered.swap(true, Ordering::AcqRel) {
            self.memory.register(self);
        }
        let mut inner = self.lock();
        inner.batches.push_back(held);
        inner.bytes += size;
        self.memory.charge(size);
        match inner.fate {
            Fate::Waits => self.memory.charge_unwritten(size),
            Fate::Ring => {
                if let Some(most) = ring_bytes {
                    let most = usize::try_from(most).unwrap_or(usize::MAX);
                    self.cut(&mut inner, most.max(size));
                }
            }
            Fate::Stored => {}
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
        self.drop_before(stored);
        let mut inner = self.lock();
        inner.floor = inner.floor.max(stored);
    }

    /// What becomes of the batches that are here, and of those that come.
    pub(super) fn set_fate(&self, fate: Fate) {
        let mut inner = self.lock();
        if inner.fate == Fate::Waits {
            self.memory.release_unwritten(inner.bytes);
        }
        inner.fate = fate;
        if fate == Fate::Waits {
            self.memory.charge_unwritten(inner.bytes);
        }
    }

    /// Bytes of memory that the batches take.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Of a ring; else 0.
    pub(super) fn ring_bytes(&self) -> usize {
        let inner = self.lock();
        if inner.fate == Fate::Ring { inner.bytes } else { 0 }
    }

    /// Bytes of the batches, as they are sent.
    pub(super) fn batch_bytes(&self) -> u64 {
        let inner = self.lock();
        let overhead = inner.batches.len() * limits::UNSTORED_BATCH_OVERHEAD_BYTES;
        inner.bytes.saturating_sub(overhead) as u64
    }

    /// The largest timestamp of the oldest batch, milliseconds since 1970.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.lock().batches.front().map(|first| first.max_timestamp)
    }

    /// Drops the batches that end at or before `before`: they are deleted, or stored.
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
        for held in inner.batches.iter().filter(|_| inner.fate == Fate::Ring) {
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

    /// Drops the oldest batches of a ring until at most `kept` bytes of it are left, since there is no room for them.
    pub(super) fn cut_ring(&self, kept: usize) {
        let mut inner = self.lock();
        if inner.fate == Fate::Ring {
            let (records, bytes) = self.cut(&mut inner, kept);
            self.pushed_out.fetch_add(records, Ordering::Relaxed);
            self.memory.pushed_out(records, bytes);
        }
    }

    /// Records that went for want of room since this was loaded.
    pub(super) fn pushed_out(&self) -> u64 {
        self.pushed_out.load(Ordering::Relaxed)
    }

    /// Returns the records and bytes that go.
    fn cut(&self, inner: &mut Inner, kept: usize) -> (u64, u64) {
        let (mut records, mut bytes) = (0, 0);
        while inner.bytes > kept {
            let Some(first) = self.drop_first(inner) else { break };
            records += u64::from(first.records);
            bytes += first.bytes.len() as u64;
            // Told before a reader that comes between can find it gone.
            let _for_good = self.move_log_start(first.next);
        }
        (records, bytes)
    }

    fn drop_first(&self, inner: &mut Inner) -> Option<Held> {
        let first = inner.batches.pop_front()?;
        let size = first.size();
        inner.bytes -= size;
        self.memory.release(size);
        if inner.fate == Fate::Waits {
            self.memory.release_unwritten(size);
        }
        inner.floor = inner.floor.max(first.next);
        Some(first)
    }
}

impl Inner {
    /// The index of the first batch that ends after `offset`.
    fn first_after(&self, offset: Offset) -> usize {
        self.batches.partition_point(|held| held.next <= offset)
    }
}

impl Drop for Unstored {
    fn drop(&mut self) {
        self.clear();
    }
}
