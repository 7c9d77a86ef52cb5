//! What retention and compaction share: writes that no append makes, and closing the open chunk before it is full.
//!
//! Both go through closed chunks. A partition that takes little may have one open chunk for months, so it is closed when
//! its records are old enough for either, as Apache Kafka rolls its active segment.

use std::sync::Arc;

use robustmq_common::ids::Offset;

use super::Partition;
use crate::store::keys::partition::{Chunk, LogEnd};
use crate::store::{Patience, StoreError, WriteBatch};

/// Why a write was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MaintenanceError {
    #[error("the topic was deleted")]
    Dropped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Partition {
    /// Writes unless the topic was deleted, and waits until it is durable. After the range deletion that removes a topic, a
    /// write would leave keys for ever.
    pub(super) async fn write_unless_dropped(
        &self,
        write: WriteBatch,
    ) -> Result<(), MaintenanceError> {
        let mut patience = Patience::default();
        loop {
            self.store().ready().await?;
            let submitted = {
                // The partition is closed under this lock, and the range deletion submitted after that.
                let sequencer = self.sequencer();
                if sequencer.closed {
                    return Err(MaintenanceError::Dropped);
                }
                self.store().submit(write.again())
            };
            match submitted {
                Err(StoreError::Busy { .. }) if patience.wait().await => {}
                submitted => return Ok(submitted?.await?),
            }
        }
    }

    /// Closes the open chunk if it holds anything and `is_due` says so; appends go on in a new one. Returns its
    /// last offset, once that is durable.
    ///
    /// # Errors
    /// [`MaintenanceError`]; [`StoreError::StaleEra`] after a failed write, then wait for [`Partition::ready`].
    pub(super) async fn close_open_chunk(
        self: &Arc<Self>,
        is_due: impl FnOnce(&Chunk) -> bool,
    ) -> Result<Option<Offset>, MaintenanceError> {
        // The log's start is durable while this is held.
        let _no_deletion = self.maintenance.lock().await;
        let log_start = self.log_start();
        self.store().ready().await?;
        let (pending, last) = {
            // As in an append: decided, submitted and remembered under one lock.
            let mut sequencer = self.sequencer();
            if sequencer.is_volatile() {
                self.settle(&mut sequencer);
                if sequencer.writing.is_some() {
                    // Its outcome decides what the end is; there is another look.
                    return Ok(None);
                }
            }
            let LogEnd { next_offset, leader_epoch, open_chunk } = sequencer.end;
            if open_chunk.bytes == 0 || !is_due(&open_chunk) {
                return Ok(None);
            }
            if sequencer.closed {
                return Err(MaintenanceError::Dropped);
            }
            let Some(last) = next_offset.checked_add(-1) else { return Ok(None) };
            let end = LogEnd { next_offset, leader_epoch, open_chunk: Chunk::empty(next_offset) };
            let mut write = WriteBatch::new();
            // Where all of it was deleted there is nothing to find, and its bytes are not to be counted any more.
            if last >= log_start {
                write.put(self.keys().chunk(last), open_chunk.encode());
            }
            write.put(self.keys().end(), end.encode());
            // It changes nothing. What can be deleted only when this is done is to be deleted on a full disk too, which takes deletions.
            write.delete_range(self.keys().chunk(log_start)..self.keys().chunk(log_start));
            sequencer.put_epoch(self.keys(), &mut write);
            let pending = match sequencer.is_volatile() {
                true => self.submit_closed_chunk(&mut sequencer, write, end)?,
                false => {
                    let pending = self.store().submit(write.in_era(sequencer.era))?;
                    sequencer.end = end;
                    pending
                }
            };
            (pending, last)
        };
        pending.await?;
        Ok(Some(last))
    }
}
