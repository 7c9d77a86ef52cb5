//! Appends of the volatile modes: taken into memory, with offsets that were reserved before.
//!
//! **Invariant:** an offset is given only below a reservation that is durable, so none is given twice whatever crashes.
//! **Invariant:** what is taken is readable at once, and acknowledged at once (an edge's batch in `hybrid`: when it is written).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::RecordBatch;

use super::LogError;
use super::append::{AppendContext, AppendError, Place, Wait};
use super::partition::Partition;
use super::sequencer::Sequencer;
use crate::store::keys::partition::encode_offset;
use crate::store::{PendingWrite, StoreError, WriteBatch};

/// How long a batch stays in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// While there is room for it: at most so many bytes of the partition.
    Ring(Option<u64>),
    /// At least until it is written.
    UntilWritten,
}

impl Partition {
    /// Takes a batch that has its place into memory.
    pub(super) fn take(
        self: &Arc<Self>,
        sequencer: &mut Sequencer,
        batch: &RecordBatch,
        place: Place,
        context: &AppendContext,
        kept: Kept,
    ) -> Result<Wait, AppendError> {
        let reserved = Offset(self.reserved.load(Ordering::Acquire));
        if place.next > reserved {
            sequencer.wanted = place.next;
            return Err(AppendError::NotReady);
        }
        if kept == Kept::UntilWritten && !self.has_room(sequencer) {
            return Err(AppendError::NotReady);
        }
        // The first reservation carried it.
        sequencer.epoch_stored = true;
        if reserved.0 - place.next.0 < limits::OFFSET_BLOCK / 2 {
            // In advance. If it cannot be submitted now, an append that needs it says why.
            drop(self.submit_reservation(sequencer));
        }
        let producer = sequencer.producer_after(batch, place, context);
        let forgotten = sequencer.producers.choose_forgotten(batch, context.now_ms);
        sequencer.producers.forget(&forgotten);
        let id = producer.as_ref().map(|(id, _)| *id);
        if let Some((id, entry)) = producer {
            sequencer.producers.insert(id, entry);
        }
        let origin = context.origin.as_ref();
        if let Some(origin) = origin {
            // Those whose records are gone go first: nothing of theirs can be on its way for long.
            let kept_from = match kept {
                Kept::Ring(_) => self.log_start(),
                Kept::UntilWritten => self.stored.borrow().through,
            };
            sequencer.origins.record(origin, place.last, kept_from);
        }
        sequencer.next_offset = place.next;
        self.measure(sequencer);
        let ring_bytes = match kept {
            Kept::Ring(bytes) => bytes,
            Kept::UntilWritten => None,
        };
        self.unstored.push(batch, ring_bytes);
        self.show(place.next);
        if kept != Kept::UntilWritten {
            return Ok(Wait::Nothing);
        }
        sequencer.changed.producers.extend(forgotten.into_iter().chain(id));
        sequencer.changed.origins.extend(origin.map(|origin| origin.key.clone()));
        if origin.is_none() {
            self.queue_write_behind(Duration::from_millis(
                self.write_behind_ms.load(Ordering::Acquire),
            ));
            return Ok(Wait::Nothing);
        }
        let mut stored = self.stored.subscribe();
        let failures = stored.borrow_and_update().failures;
        self.hurry_write_behind();
        Ok(Wait::WriteBehind { stored, failures })
    }

    /// `hybrid` holds less than it may; the other modes hold what they must.
    pub(super) fn has_room(&self, sequencer: &Sequencer) -> bool {
        let waits = matches!(sequencer.mode, Some(super::StorageMode::Hybrid { .. }));
        !waits
            || (self.unstored.bytes() < limits::WRITE_BEHIND_BYTES
                && self.shared.unstored.takes_unwritten())
    }

    /// Waits until `hybrid` has written something.
    ///
    /// # Errors
    /// Why it cannot write.
    pub(super) async fn wait_for_room(self: &Arc<Self>) -> Result<(), LogError> {
        let mut room = std::pin::pin!(self.shared.unstored.room.notified());
        room.as_mut().enable();
        let mut stored = self.stored.subscribe();
        let failures = stored.borrow_and_update().failures;
        if self.has_room(&self.sequencer()) {
            return Ok(());
        }
        if let Some(error) = self.stored.borrow().error.clone() {
            return Err(error.into());
        }
        if self.unstored.bytes() > 0 {
            self.hurry_write_behind();
        }
        tokio::select! {
            () = room => Ok(()),
            // Others hold what there is, and cannot write it.
            () = tokio::time::sleep(limits::WRITE_BEHIND_WAIT) => {
                let queued_bytes = self.unstored.bytes();
                Err(StoreError::Busy { queued_bytes }.into())
            }
            seen = stored.wait_for(|now| now.failures != failures) => {
                let error = seen.ok().and_then(|seen| seen.error.clone());
                Err(error.unwrap_or(StoreError::Closed).into())
            }
        }
    }

    /// Has the offsets that the next append needs.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be reserved.
    pub(super) async fn reserve(self: &Arc<Self>) -> Result<(), LogError> {
        let mut changes = self.stored.subscribe();
        changes.mark_unchanged();
        let submitted = {
            let mut sequencer = self.sequencer();
            self.submit_reservation(&mut sequencer)
        };
        match submitted {
            Ok(Some(pending)) => Ok(pending.await?),
            // Somebody else's is on its way.
            Ok(None) => changes.changed().await.map_err(|_| StoreError::Closed.into()),
            Err(StoreError::Busy { .. }) => Ok(self.store().ready().await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Submits the next reservation, unless one is on its way.
    fn submit_reservation(
        self: &Arc<Self>,
        sequencer: &mut Sequencer,
    ) -> Result<Option<PendingWrite>, StoreError> {
        if sequencer.closed {
            return Err(StoreError::Closed);
        }
        if self.reserving.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let from = sequencer.next_offset.max(sequencer.wanted).0;
        let until = Offset(from.saturating_add(limits::OFFSET_BLOCK));
        let keys = self.keys();
        let mut write = WriteBatch::new();
        write.put(keys.reserved(), encode_offset(until));
        if !sequencer.epoch_stored {
            sequencer.put_epoch(keys, &mut write);
            write.put(keys.end(), sequencer.end.encode());
        }
        let completed = Arc::clone(self);
        let write = write.on_complete(move |outcome| {
            if outcome.is_ok() {
                completed.reserved.fetch_max(until.0, Ordering::AcqRel);
            }
            completed.reserving.store(false, Ordering::Release);
            // Wakes whoever waits for it.
            completed.stored.send_modify(|_| {});
        });
        match self.store().submit(write) {
            Ok(pending) => {
                sequencer.has_reservation = true;
                Ok(Some(pending))
            }
            Err(error) => {
                self.reserving.store(false, Ordering::Release);
                Err(error)
            }
        }
    }
}
