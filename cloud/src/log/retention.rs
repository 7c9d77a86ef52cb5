//! The start of the log: DeleteRecords and retention.

use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::Offset;

use super::Partition;
use super::after;
use crate::store::keys::partition::encode_offset;
use crate::store::{self, StoreError, WriteBatch};

/// Why records were not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteRecordsError {
    /// Kafka: OFFSET_OUT_OF_RANGE.
    #[error("offset {before} is past the high watermark {high_watermark}")]
    OutOfRange {
        /// The offset asked for.
        before: Offset,
        /// The offset after the last durable record.
        high_watermark: Offset,
    },
    /// The store failed. Kafka: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a topic keeps. Whole chunks (about a megabyte) go, and the newest, open one always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Records older than this may go (`retention.ms`).
    pub age: Option<Duration>,
    /// The bytes to keep at least (`retention.bytes`).
    pub bytes: Option<u64>,
}

impl Partition {
    /// Makes everything before `before` unreadable and removes it (DeleteRecords, KIP-107); `None` means the high
    /// watermark. Returns the log start offset, once that is durable. Never moves it back.
    ///
    /// # Errors
    /// [`DeleteRecordsError`].
    pub async fn delete_records(
        &self,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteRecordsError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let offsets = self.offsets();
        let high_watermark = offsets.high_watermark;
        let before = before.unwrap_or(high_watermark);
        if before > high_watermark || before.0 < 0 {
            return Err(DeleteRecordsError::OutOfRange { before, high_watermark });
        }
        if before <= offsets.log_start_offset {
            return Ok(offsets.log_start_offset);
        }
        let keys = self.keys();
        let mut write = WriteBatch::new();
        write.put(keys.log_start(), encode_offset(before));
        write.delete_range(keys.batches(Offset(0), before));
        write.delete_range(keys.chunk(Offset(0))..keys.chunk(before));
        // Readers are told before the records go, so that none sees a hole where it may not be.
        self.recent.move_log_start(before);
        let written = store::write(self.store(), write).await;
        if let Err(error) = written {
            self.recent.restore_log_start(offsets.log_start_offset);
            return Err(error.into());
        }
        self.recent.drop_before(before);
        Ok(before)
    }

    /// Deletes the chunks that `retention` lets go. Returns the log start offset.
    ///
    /// # Errors
    /// [`DeleteRecordsError`].
    pub async fn enforce_retention(
        &self,
        retention: Retention,
        now_ms: i64,
    ) -> Result<Offset, DeleteRecordsError> {
        let start = self.offsets().log_start_offset;
        let mut excess = match retention.bytes {
            Some(kept) => self.size_bytes().await?.saturating_sub(kept),
            None => 0,
        };
        let oldest_kept = retention
            .age
            .map(|age| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        let mut keep_from = start;
        let mut is_empty = true;
        let mut resume = self.keys().chunks_from(start);
        'pages: while !resume.is_empty() {
            for (chunk, last) in self.chunk_page(&mut resume).await? {
                // Records without a timestamp have no age.
                let expired =
                    oldest_kept.is_some_and(|oldest| (0..oldest).contains(&chunk.max_timestamp));
                if !expired && chunk.bytes > excess {
                    is_empty = false;
                    break 'pages;
                }
                excess = excess.saturating_sub(chunk.bytes);
                keep_from = after(last);
            }
        }
        // Of a ring that comes after nothing in the store, single batches go.
        if is_empty && let Some(ring_start) = self.recent.expired(oldest_kept, excess) {
            keep_from = keep_from.max(ring_start);
        }
        // A chunk's last offset may be durable a moment before readers are told of it.
        let keep_from = keep_from.min(self.offsets().high_watermark);
        if keep_from <= start {
            return Ok(start);
        }
        self.delete_records(Some(keep_from)).await
    }

    /// Bytes of the partition's batches, from its time index and what is in memory only: exact to about a chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn size_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = self.recent.unstored_batch_bytes();
        {
            let sequencer = self.sequencer();
            bytes = bytes.saturating_add(sequencer.end.open_chunk.bytes);
        }
        let mut resume: std::ops::Range<Bytes> =
            self.keys().chunks_from(self.offsets().log_start_offset);
        while !resume.is_empty() {
            for (chunk, _) in self.chunk_page(&mut resume).await? {
                bytes = bytes.saturating_add(chunk.bytes);
            }
        }
        Ok(bytes)
    }
}
