//! Closing the open chunk before it is full.
//!
//! Retention and compaction go through closed chunks. A partition that takes little may have one open chunk for months, so
//! it is closed when its records are old enough for either, as Apache Kafka rolls its active segment.

use robustmq_common::ids::Offset;

use super::Partition;
use crate::store::keys::partition::{Chunk, LogEnd};
use crate::store::{StoreError, WriteBatch};

impl Partition {
    /// Closes the open chunk if it holds anything and `is_due` says so; appends go on in a new one. Returns its
    /// last offset, once that is durable.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::StaleEra`] after a failed write, or when the topic was deleted.
    pub(super) async fn close_open_chunk(
        &self,
        is_due: impl FnOnce(&Chunk) -> bool,
    ) -> Result<Option<Offset>, StoreError> {
        let (pending, last) = {
            // As in an append: decided, submitted and remembered under one lock.
            let mut sequencer = self.sequencer();
            let LogEnd { next_offset, leader_epoch, open_chunk } = sequencer.end;
            if open_chunk.bytes == 0 || !is_due(&open_chunk) {
                return Ok(None);
            }
            if sequencer.closed {
                return Err(StoreError::StaleEra);
            }
            let Some(last) = next_offset.checked_add(-1) else { return Ok(None) };
            let end = LogEnd { next_offset, leader_epoch, open_chunk: Chunk::empty(next_offset) };
            let mut write = WriteBatch::new();
            write.put(self.keys().chunk(last), open_chunk.encode());
            write.put(self.keys().end(), end.encode());
            let pending = self.store().submit(write.in_era(sequencer.era))?;
            sequencer.end = end;
            (pending, last)
        };
        pending.await?;
        Ok(Some(last))
    }
}
