//! Reads: archived batches from object storage, the newest ones of volatile modes from memory, the others from the store.

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::record::WireBatch;

use super::Partition;
use super::partition::{Offsets, ReadError, ReadResult};
use crate::store::{ScanLimit, StoreError};

impl Partition {
    /// Whole batches from the one that holds `from` on: at most `max_bytes`, but at least one batch if there is one.
    /// Nothing if `from` is the high watermark, or in a hole with nothing behind it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self, from: Offset, max_bytes: usize) -> Result<ReadResult, ReadError> {
        self.read_to(from, Offset(i64::MAX), max_bytes).await
    }

    /// As [`Partition::read`], for somebody who sends the batches on: they may be in pieces.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_wire(
        &self,
        from: Offset,
        max_bytes: usize,
    ) -> Result<ReadResult<WireBatch>, ReadError> {
        self.read_wire_to(from, Offset(i64::MAX), max_bytes).await
    }

    /// As [`Partition::read`], for somebody who has no use for what is at `to` and behind: where batches are made as they are read, they end
    /// there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_to(
        &self,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<ReadResult, ReadError> {
        self.read_wire_to(from, to, max_bytes).await.map(ReadResult::from)
    }

    async fn read_wire_to(
        &self,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<ReadResult<WireBatch>, ReadError> {
        if self.visible().closed {
            return Err(ReadError::Dropped);
        }
        if let Some(source) = self.source() {
            return self.read_source(source, from..to, max_bytes).await;
        }
        let offsets = self.offsets();
        let Offsets { log_start_offset, high_watermark, .. } = offsets;
        let too_early = !self.unstored.may_be_read(from);
        if too_early || from > high_watermark {
            let end = self.sequencer().next_offset.max(high_watermark);
            if too_early || from > end {
                return Err(ReadError::OutOfRange { from, log_start_offset, end });
            }
        }
        match self.batches(from, high_watermark, max_bytes).await {
            Ok(batches) => {
                let batches = batches.into_iter().map(WireBatch::from).collect();
                Ok(ReadResult { batches, offsets })
            }
            // Deleted, with its object, while it was read.
            Err(_) if !self.unstored.may_be_read(from) => {
                let (log_start_offset, end) = (self.log_start(), high_watermark);
                Err(ReadError::OutOfRange { from, log_start_offset, end })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The batches from the one that holds `from` on, that end at or below `to`.
    pub(super) async fn batches(
        &self,
        mut from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let mut batches: Vec<Bytes> = Vec::new();
        let mut left = max_bytes;
        while from < to {
            let archived_to = self.archived_to();
            if from < archived_to {
                let (found, next, is_full) = self.cold(from, left, batches.is_empty()).await?;
                left = left.saturating_sub(found.iter().map(Bytes::len).sum());
                batches.extend(found);
                if is_full || left == 0 {
                    break;
                }
                from = next;
                continue;
            }
            let floor = match self.unstored.read(from, to, left, batches.is_empty()) {
                Ok(newest) => {
                    batches.extend(newest);
                    break;
                }
                Err(floor) => floor.min(to),
            };
            let range = self.keys().batches(from, floor);
            let page = self.store().scan(range, ScanLimit::bytes(left)).await?;
            if self.archived_to() > from {
                // What was to be read may have left the store in between.
                continue;
            }
            let found = batches.len();
            batches.extend(page.items.into_iter().map(|(_, batch)| batch));
            let bytes: usize = batches.iter().skip(found).map(Bytes::len).sum();
            if page.resume.is_some() || bytes >= left {
                break;
            }
            // Everything below the floor; what follows is in memory, or was when it was asked.
            left -= bytes;
            from = floor;
        }
        Ok(batches)
    }
}
