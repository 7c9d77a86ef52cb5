//! The start of the log: DeleteRecords and retention. When retention is enforced is decided elsewhere ([`super::Upkeep`]).

use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::Offset;

use super::maintenance::MaintenanceError;
use super::mode::StorageMode;
use super::totals::Part;
use super::upkeep::Growth;
use super::{Partition, after};
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
    /// watermark. Returns the log start offset, once that is durable. Never moves it back. What was begun is carried out, also if
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// [`DeleteRecordsError`].
    pub async fn delete_records(
        self: &Arc<Self>,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteRecordsError> {
        let this = Arc::clone(self);
        self.shared.finisher.finish(async move { this.remove_before(before).await }).await
    }

    pub(super) async fn remove_before(
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
        let write = self.removal_before(before).await?;
        // Readers are told before the records go, so that none sees a hole where it may not be.
        let moved = self.unstored.move_log_start(before);
        if let Err(error) = self.write_unless_dropped(write).await {
            self.unstored.restore_log_start(moved);
            self.restore_totals().await;
            return Err(error.into());
        }
        self.unstored.set_durable_start(before);
        self.unstored.drop_before(before);
        Ok(before)
    }

    async fn removal_before(&self, before: Offset) -> Result<WriteBatch, StoreError> {
        let keys = self.keys();
        self.leave_totals(before).await?;
        let mut write = WriteBatch::new();
        write.put(keys.log_start(), encode_offset(before));
        write.delete_range(keys.batches(Offset(0), before));
        write.delete_range(keys.chunk(Offset(0))..keys.chunk(before));
        self.doom_before(before, &mut write).await?;
        Ok(write)
    }

    /// What a ring has given up of records that the store has from an earlier mode is removed there too: a crash is not to bring
    /// them back.
    async fn remove_evicted(&self) -> Result<(), DeleteRecordsError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let stored_to = {
            let sequencer = self.sequencer();
            let is_ring = matches!(sequencer.mode, Some(StorageMode::Memory { .. }));
            is_ring.then_some(sequencer.end.next_offset)
        };
        if let Some(start) = stored_to.and_then(|to| self.unstored.evicted_to(to)) {
            let write = self.removal_before(start).await?;
            if let Err(error) = self.write_unless_dropped(write).await {
                self.restore_totals().await;
                return Err(error.into());
            }
            self.unstored.set_durable_start(start);
        }
        Ok(())
    }

    /// Deletes the chunks that `retention` lets go. Returns the log start offset.
    ///
    /// # Errors
    /// [`DeleteRecordsError`].
    pub async fn enforce_retention(
        self: &Arc<Self>,
        retention: Retention,
        now_ms: i64,
    ) -> Result<Offset, DeleteRecordsError> {
        self.remove_evicted().await?;
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
            for (chunk, last) in self.few_chunks(&mut resume).await? {
                if !expired(&chunk) && chunk.bytes > excess {
                    all_go = false;
                    break 'pages;
                }
                excess = excess.saturating_sub(chunk.bytes);
                keep_from = after(last);
            }
        }
        // What is in the open chunk may have been there for months, where little is appended.
        let mut not_closed = Ok(());
        if all_go {
            match self.close_open_chunk(expired).await {
                Ok(closed) => keep_from = closed.map_or(keep_from, after),
                // The others can go all the same.
                Err(error) => not_closed = Err(error),
            }
        }
        // Of a ring that comes after nothing in the store, single batches go.
        if all_go && let Some(ring_start) = self.unstored.expired(oldest_kept, excess) {
            keep_from = keep_from.max(ring_start);
        }
        // A chunk's last offset may be durable a moment before readers are told of it.
        let keep_from = keep_from.min(self.offsets().high_watermark);
        let start = match keep_from > start {
            true => self.remove_before(Some(keep_from)).await?,
            false => start,
        };
        not_closed?;
        Ok(start)
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
        let oldest_ms = match oldest.max_timestamp {
            // Nothing is stored: what a ring has is the oldest.
            ..0 => self.unstored.oldest_ms().filter(|oldest| *oldest >= 0),
            oldest => Some(oldest),
        };
        Ok(oldest_ms.map(|oldest| oldest.saturating_add(age).saturating_add(1)))
    }

    /// Where the open chunk begins: it moves when a chunk is closed. Of a ring, the end: batches come of age one by one.
    #[must_use]
    pub(super) fn open_from(&self) -> Offset {
        let sequencer = self.sequencer();
        match sequencer.mode {
            Some(StorageMode::Memory { .. }) => sequencer.next_offset,
            _ => sequencer.end.open_chunk.base_offset,
        }
    }

    /// What changes when there is more for retention, compaction and archiving to do.
    #[must_use]
    pub fn growth(&self) -> Growth {
        let open_from = self.open_from();
        Growth(open_from, self.sequencer().end.open_chunk.bytes > 0)
    }

    /// Bytes of the partition's batches, from its time index: exact to about a chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn size_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = self.unstored.batch_bytes();
        {
            let sequencer = self.sequencer();
            bytes = bytes.saturating_add(sequencer.end.open_chunk.bytes);
        }
        Ok(bytes.saturating_add(self.closed_bytes(Part::Whole).await?))
    }
}
