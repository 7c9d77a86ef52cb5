//! The start of the log: DeleteRecords and retention. When retention is enforced is decided elsewhere ([`super::Upkeep`]).

use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::Offset;

use super::Partition;
use super::after;
use super::maintenance::MaintenanceError;
use crate::store::keys::damaged;
use crate::store::keys::partition::{Chunk, encode_offset};
use crate::store::{ScanLimit, StoreError, WriteBatch};

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
    /// The topic was deleted. Kafka: UNKNOWN_TOPIC_OR_PARTITION.
    #[error("the topic was deleted")]
    Dropped,
    /// The store failed. Kafka: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MaintenanceError> for DeleteRecordsError {
    fn from(error: MaintenanceError) -> Self {
        match error {
            MaintenanceError::Dropped => Self::Dropped,
            MaintenanceError::Store(error) => Self::Store(error),
        }
    }
}

/// What a topic keeps. Whole chunks (about a megabyte) go; the newest, open one goes by age only.
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
        self.set_log_start(before);
        if let Err(error) = self.write_unless_dropped(write).await {
            self.set_log_start(offsets.log_start_offset);
            return Err(error.into());
        }
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
        let expired = |chunk: &Chunk| {
            // Records without a timestamp have no age.
            oldest_kept.is_some_and(|oldest| (0..oldest).contains(&chunk.max_timestamp))
        };
        let mut keep_from = start;
        let mut resume = self.keys().chunks_from(start);
        let mut all_go = true;
        'pages: while !resume.is_empty() {
            for (chunk, last) in self.chunk_page(&mut resume).await? {
                if !expired(&chunk) && chunk.bytes > excess {
                    all_go = false;
                    break 'pages;
                }
                excess = excess.saturating_sub(chunk.bytes);
                keep_from = after(last);
            }
        }
        // What is in the open chunk may have been there for months, where little is appended.
        if all_go && let Some(last) = self.close_open_chunk(expired).await? {
            keep_from = after(last);
        }
        // A chunk's last offset may be durable a moment before readers are told of it.
        let keep_from = keep_from.min(self.offsets().high_watermark);
        if keep_from <= start {
            return Ok(start);
        }
        self.delete_records(Some(keep_from)).await
    }

    /// When the oldest chunk will be older than `age`, milliseconds since 1970; `None` if there is none that has an age.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expires_ms(&self, age: Duration) -> Result<Option<i64>, StoreError> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let range = self.keys().chunks_from(self.offsets().log_start_offset);
        let page = self.store().scan(range, ScanLimit::items(1)).await?;
        let oldest = match page.items.first() {
            Some((key, value)) => Chunk::decode(value).map_err(|error| damaged(key, error))?,
            None => self.sequencer().end.open_chunk,
        };
        let has_age = oldest.max_timestamp >= 0;
        Ok(has_age.then(|| oldest.max_timestamp.saturating_add(age).saturating_add(1)))
    }

    /// Where the open chunk begins: it moves when a chunk is closed, and only then is there more for retention and
    /// compaction to do.
    #[must_use]
    pub fn open_from(&self) -> Offset {
        self.sequencer().end.open_chunk.base_offset
    }

    /// Bytes of the partition's batches, from its time index: exact to about a chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn size_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = self.sequencer().end.open_chunk.bytes;
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
