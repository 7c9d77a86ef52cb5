//! Writing what is in memory only: behind the acknowledgement in `hybrid`, at a stop, and when the mode changes.
//!
//! **Invariant:** one such write of a partition at a time. In `hybrid` it is all that the partition holds: batches, time index,
//! producers, origins and end are durable together or not at all.
//! **Invariant:** a write that failed is tried again with all that it had; nothing leaves the memory before it is durable.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use robustmq_common::ids::Offset;
use robustmq_common::limits;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::append::put_batch;
use super::mode::StorageMode;
use super::partition::Partition;
use super::sequencer::{Changed, Sequencer, Writing};
use super::unstored::Held;
use crate::store::keys::partition::{Chunk, Kind, LogEnd, encode_offset, encode_origin};
use crate::store::{PendingWrite, StoreError, WriteBatch};

/// Which partitions are to be written when.
#[derive(Default)]
pub(super) struct WriteBehind {
    due: Mutex<Due>,
    wake: Notify,
}

#[derive(Default)]
struct Due {
    partitions: BTreeMap<(Instant, u64), Weak<Partition>>,
    number: u64,
}

impl WriteBehind {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, at: Instant, partition: Weak<Partition>) {
        let mut due = self.lock();
        due.number += 1;
        let key = (at, due.number);
        due.partitions.insert(key, partition);
        let is_first = due.partitions.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(due);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Takes what is due, and says when the next one is.
    fn take_due(&self, now: Instant) -> (Vec<Arc<Partition>>, Option<Instant>) {
        let mut due = self.lock();
        let later = due.partitions.split_off(&(now, u64::MAX));
        let taken = std::mem::replace(&mut due.partitions, later);
        let next = due.partitions.first_key_value().map(|((at, _), _)| *at);
        (taken.into_values().filter_map(|partition| partition.upgrade()).collect(), next)
    }

    /// Writes what is due, forever. All that is due at once shares a sync.
    pub(super) async fn run(&self) {
        loop {
            let (due, next) = self.take_due(Instant::now());
            for partition in due {
                partition.write_what_is_due();
            }
            match next {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = self.wake.notified() => {}
                },
                None => self.wake.notified().await,
            }
        }
    }
}

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `hybrid` writes what it acknowledged.
    Behind,
    /// A part of a ring is written before its mode changes.
    Ahead,
    /// The partition stops being used: no offset is to be wasted, and a ring's records go.
    Stop,
    /// As `Stop`, for now, so that it can be given back: where a ring has records nothing is done, since they stay.
    Rest,
    /// The mode changes to this one, and no append comes between.
    Leave(StorageMode),
}

/// How far a write got.
enum Step {
    /// The store has everything.
    Done,
    /// Somebody else's write has to end first.
    Wait,
    /// It is submitted; with `last` nothing is left.
    Submitted { write: PendingWrite, last: bool },
}

impl Partition {
    /// Has the partition written some time.
    pub(super) fn queue_write_behind(self: &Arc<Self>, delay: Duration) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.shared.write_behind.push(Instant::now() + delay, Arc::downgrade(self));
        }
    }

    /// Has it written now: somebody waits.
    pub(super) fn hurry_write_behind(self: &Arc<Self>) {
        if !self.is_urgent.swap(true, Ordering::AcqRel) {
            self.shared.write_behind.push(Instant::now(), Arc::downgrade(self));
        }
    }

    fn write_what_is_due(self: &Arc<Self>) {
        self.is_queued.store(false, Ordering::Release);
        self.is_urgent.store(false, Ordering::Release);
        let mut sequencer = self.sequencer();
        let mut step = self.submit_unstored(&mut sequencer, Purpose::Behind);
        if matches!(step, Ok(Step::Wait)) {
            // Its completion looks at this, unless it came just before.
            self.is_urgent.store(true, Ordering::Release);
            step = self.submit_unstored(&mut sequencer, Purpose::Behind);
            if !matches!(step, Ok(Step::Wait)) {
                self.is_urgent.store(false, Ordering::Release);
            }
        }
        drop(sequencer);
        // Until the store takes it again: nobody else would ask.
        if let Err(StoreError::Busy { .. } | StoreError::NoSpace(_) | StoreError::Unavailable(_)) =
            step
        {
            self.queue_write_behind(limits::WRITE_BEHIND_RETRY);
        }
    }

    /// Writes what the store does not have, and waits until it is durable. In `memory` nothing is ever written so, unless the
    /// mode changes.
    pub(super) async fn write_out(self: &Arc<Self>, purpose: Purpose) -> Result<(), StoreError> {
        loop {
            let mut changes = self.stored.subscribe();
            changes.mark_unchanged();
            let step = {
                let mut sequencer = self.sequencer();
                self.submit_unstored(&mut sequencer, purpose)
            };
            match step {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Submitted { write, last }) => {
                    write.await?;
                    if last || purpose == Purpose::Ahead {
                        return Ok(());
                    }
                }
                Ok(Step::Wait) => changes.changed().await.map_err(|_| StoreError::Closed)?,
                Err(StoreError::Busy { .. }) => self.store().ready().await?,
                Err(error) => return Err(error),
            }
        }
    }

    fn submit_unstored(
        self: &Arc<Self>,
        sequencer: &mut Sequencer,
        purpose: Purpose,
    ) -> Result<Step, StoreError> {
        if sequencer.closed {
            return Err(StoreError::Closed);
        }
        self.settle(sequencer);
        let is_ring = matches!(sequencer.mode, Some(StorageMode::Memory { .. }));
        let purpose = match purpose {
            // An append came between the look for idle partitions and this one. Were its record counted as written, a change of the
            // mode would leave it out.
            Purpose::Rest if is_ring && self.has_ring() => return Ok(Step::Done),
            Purpose::Rest => Purpose::Stop,
            purpose => purpose,
        };
        let ends = matches!(purpose, Purpose::Stop | Purpose::Leave(_));
        // A reservation on its way would undo what the last write says of reservations.
        if sequencer.writing.is_some() || (ends && self.reserving.load(Ordering::Acquire)) {
            return Ok(Step::Wait);
        }
        let from = sequencer.end.next_offset;
        let (batches, until) = match (sequencer.mode, purpose) {
            (Some(StorageMode::Persistent | StorageMode::Tiered) | None, _) => {
                return Ok(Step::Done);
            }
            (Some(StorageMode::Memory { .. }), Purpose::Stop) => (Vec::new(), None),
            (Some(StorageMode::Memory { .. }), Purpose::Behind) => return Ok(Step::Done),
            (Some(StorageMode::Memory { .. }), _) => {
                self.unstored.from(from, limits::WRITE_OUT_BYTES)
            }
            (Some(StorageMode::Hybrid { .. }), _) => self.unstored.from(from, usize::MAX),
        };
        let last = until.is_none();
        let through = until.unwrap_or(sequencer.next_offset);
        if through == from && !(ends && last) {
            return Ok(Step::Done);
        }
        let write = self.submit_through(sequencer, &batches, through, last.then_some(purpose))?;
        Ok(Step::Submitted { write, last })
    }

    /// Submits `batches` as the log up to `through`; with `last` that is all there is, and the state goes with it.
    fn submit_through(
        self: &Arc<Self>,
        sequencer: &mut Sequencer,
        batches: &[Held],
        through: Offset,
        last: Option<Purpose>,
    ) -> Result<PendingWrite, StoreError> {
        let keys = *self.keys();
        let mut write = WriteBatch::new();
        let mut end = sequencer.end;
        let log_start = self.log_start();
        for batch in batches.iter().filter(|batch| batch.next > log_start) {
            put_batch(&mut write, &keys, &mut end, batch);
        }
        end.next_offset = through;
        if let Some(Purpose::Leave(StorageMode::Memory { .. })) = last
            && end.open_chunk.bytes > 0
        {
            // No more comes to it, and so it can go when it is old.
            write.put(keys.chunk(Offset(through.0 - 1)), end.open_chunk.encode());
            end.open_chunk = Chunk::empty(through);
        }
        write.put(keys.end(), end.encode());
        sequencer.put_epoch(&keys, &mut write);
        if last.is_some() {
            self.put_state(&mut write, sequencer, last);
        }
        match last {
            Some(Purpose::Stop) => {
                write.put(keys.reserved(), encode_offset(through));
            }
            Some(Purpose::Leave(StorageMode::Persistent | StorageMode::Tiered)) => {
                write.delete(keys.reserved());
                // Nothing will tell any more that what was before it is gone. Retention waits while the mode changes.
                write.put(keys.log_start(), encode_offset(log_start));
            }
            _ => {}
        }
        let ring = matches!(sequencer.mode, Some(StorageMode::Memory { .. }));
        let records = !(ring && last == Some(Purpose::Stop));
        let completed = Arc::clone(self);
        let write = write.on_complete(move |outcome| completed.written(outcome, through, records));
        let pending = self.submit_end(sequencer, write, end)?;
        if last == Some(Purpose::Stop) {
            // Whoever appends after this reserves anew.
            self.reserved.store(through.0, Ordering::Release);
        }
        if last.is_some()
            && let Some(writing) = &mut sequencer.writing
        {
            writing.changed = std::mem::take(&mut sequencer.changed);
        }
        Ok(pending)
    }

    /// Submits what moves the end to `end`, and remembers where it was.
    fn submit_end(
        &self,
        sequencer: &mut Sequencer,
        write: WriteBatch,
        end: LogEnd,
    ) -> Result<PendingWrite, StoreError> {
        let (writes, failures) = {
            let stored = self.stored.borrow();
            (stored.writes, stored.failures)
        };
        let pending = self.store().submit(write)?;
        let before = std::mem::replace(&mut sequencer.end, end);
        let changed = Changed::default();
        sequencer.writing = Some(Writing { writes, failures, before, changed });
        Ok(pending)
    }

    /// Closes the open chunk of a volatile mode by `write`, which makes `end` the end. No write may be on its way.
    pub(super) fn submit_closed_chunk(
        self: &Arc<Self>,
        sequencer: &mut Sequencer,
        write: WriteBatch,
        end: LogEnd,
    ) -> Result<PendingWrite, StoreError> {
        let (completed, through) = (Arc::clone(self), end.next_offset);
        let write = write.on_complete(move |outcome| completed.written(outcome, through, true));
        self.submit_end(sequencer, write, end)
    }

    /// The producers and origins as they are after all that was assigned.
    fn put_state(&self, write: &mut WriteBatch, sequencer: &Sequencer, last: Option<Purpose>) {
        let keys = self.keys();
        let Sequencer { producers, origins, changed, .. } = sequencer;
        match (sequencer.mode, last) {
            (Some(StorageMode::Hybrid { .. }), _) => {
                for id in &changed.producers {
                    match producers.get(*id) {
                        Some(entry) => write.put(keys.producer(*id), entry.encode()),
                        None => write.delete(keys.producer(*id)),
                    };
                }
                for key in &changed.origins {
                    if let Some((Some(applied), _)) = origins.get(key) {
                        let key = keys.origin(&key.edge, key.incarnation, key.lane);
                        write.put(key, encode_origin(applied));
                    }
                }
            }
            (_, Some(Purpose::Stop | Purpose::Leave(_))) => {
                write.delete_range(keys.kind_range(Kind::Producer));
                for (id, entry) in producers.iter() {
                    write.put(keys.producer(*id), entry.encode());
                }
                for (key, applied) in origins.iter() {
                    let key = keys.origin(&key.edge, key.incarnation, key.lane);
                    write.put(key, encode_origin(applied));
                }
            }
            _ => {}
        }
    }

    /// Called by the store's writer: takes no lock that is held around a submit.
    fn written(self: &Arc<Self>, outcome: &Result<(), StoreError>, through: Offset, records: bool) {
        if outcome.is_ok() && records {
            self.unstored.set_stored(through);
        }
        self.tell_stored(outcome, through);
        // Whoever wants to be next from now on says so again.
        let is_urgent = self.is_urgent.swap(false, Ordering::AcqRel);
        let behind = Duration::from_millis(self.write_behind_ms.load(Ordering::Acquire));
        if behind.is_zero() || self.unstored.bytes() == 0 {
            return;
        }
        match outcome {
            Ok(()) if is_urgent => self.hurry_write_behind(),
            Ok(()) => self.queue_write_behind(behind),
            // Nothing was written, and there may be room next time.
            Err(StoreError::NoSpace(_) | StoreError::StaleEra | StoreError::Busy { .. }) => {
                self.queue_write_behind(limits::WRITE_BEHIND_RETRY);
            }
            // The store takes nothing any more, and said so.
            Err(_) => {}
        }
    }

    /// Looks how the last write ended.
    pub(super) fn settle(&self, sequencer: &mut Sequencer) {
        let Some(writing) = sequencer.writing.take() else { return };
        let stored = self.stored.borrow();
        if stored.writes == writing.writes {
            sequencer.writing = Some(writing);
        } else if stored.failures != writing.failures {
            sequencer.end = writing.before;
            sequencer.changed.merge(writing.changed);
        }
    }

    /// Writes what `hybrid` holds, and waits until it is durable.
    ///
    /// # Errors
    /// [`StoreError`]; it is tried again then.
    pub async fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        self.write_out(Purpose::Behind).await
    }

    /// Ends the use of a volatile mode, for good ([`Purpose::Stop`]) or for now ([`Purpose::Rest`]): what `hybrid` holds is written, and
    /// no offset is wasted.
    pub(super) async fn stop(self: &Arc<Self>, purpose: Purpose) -> Result<(), StoreError> {
        let _one_at_a_time = self.maintenance.lock().await;
        if self.is_at_rest() {
            return Ok(());
        }
        self.write_out(purpose).await
    }

    /// Nothing would be lost, and no offset wasted, if it were unloaded.
    pub(super) fn is_at_rest(&self) -> bool {
        let mut sequencer = self.sequencer();
        self.settle(&mut sequencer);
        !sequencer.is_volatile()
            || (sequencer.end.next_offset == sequencer.next_offset
                && self.reserved.load(Ordering::Acquire) == sequencer.next_offset.0
                && !self.reserving.load(Ordering::Acquire)
                && sequencer.writing.is_none()
                && !self.has_ring())
    }

    /// There are records that will never be written.
    pub(super) fn has_ring(&self) -> bool {
        self.unstored.ring_bytes() > 0
    }
}
