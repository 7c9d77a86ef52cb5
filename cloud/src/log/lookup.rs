//! ListOffsets by time, and the end of a leader epoch.
//!
//! Timestamps are not ordered (backfill makes that normal), so the first record at or after a time is found by going through
//! the time index in offset order, then through the batches of one chunk, then through the records of one batch.

use bytes::Bytes;
use robustmq_common::ids::{LeaderEpoch, Offset};
use robustmq_common::limits;
use robustmq_common::record::{BatchError, Record, RecordBatch};

use super::decompress::look_into;
use super::partition::Offsets;
use super::{Partition, after};
use crate::store::keys::damaged;
use crate::store::keys::partition::{Chunk, Kind, decode_offset, trailing_epoch, trailing_number};
use crate::store::{ScanLimit, StoreError};

/// A record found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The partition's leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Why a look-up failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// A stored batch cannot be decoded.
    #[error("the batch at offset {base_offset} cannot be decoded: {source}")]
    Batch {
        /// Its first offset.
        base_offset: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A closed chunk and its last offset.
type ClosedChunk = (Chunk, Offset);

impl Partition {
    /// The first record, by offset, whose timestamp is at least `timestamp_ms`.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn offset_for_time(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<FoundOffset>, LookupError> {
        if let Some(source) = self.source() {
            return self.source_offset_for_time(source, timestamp_ms).await;
        }
        let offsets = self.offsets();
        let mut from = offsets.log_start_offset;
        let mut resume = self.keys().chunks_from(from);
        loop {
            let page = self.chunk_page(&mut resume).await?;
            let last_page = resume.is_empty();
            for (chunk, last) in page {
                if chunk.max_timestamp >= timestamp_ms
                    && let Some(found) =
                        self.first_at_or_after(timestamp_ms, from, after(last), offsets).await?
                {
                    return Ok(Some(found));
                }
                from = from.max(after(last));
            }
            if last_page {
                break;
            }
        }
        // What is not in a closed chunk yet: about a megabyte.
        self.first_at_or_after(timestamp_ms, from, offsets.high_watermark, offsets).await
    }

    /// The first record that has the largest timestamp (ListOffsets with -3, KIP-734).
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn offset_for_max_timestamp(&self) -> Result<Option<FoundOffset>, LookupError> {
        if let Some(source) = self.source() {
            return self.source_offset_for_time(source, i64::MAX).await;
        }
        let offsets = self.offsets();
        let start = offsets.log_start_offset;
        let mut from = start;
        let mut max = None;
        let mut resume = self.keys().chunks_from(from);
        loop {
            let page = self.chunk_page(&mut resume).await?;
            let last_page = resume.is_empty();
            for (chunk, last) in page {
                // The chunk that holds the log start may owe its maximum to a record that is gone.
                let chunk_max = match chunk.base_offset < start {
                    true => self.max_timestamp(from, after(last), offsets).await?,
                    false => Some(chunk.max_timestamp),
                };
                max = max.max(chunk_max);
                from = from.max(after(last));
            }
            if last_page {
                break;
            }
        }
        max = max.max(self.max_timestamp(from, offsets.high_watermark, offsets).await?);
        match max {
            Some(max) => self.offset_for_time(max).await,
            None => Ok(None),
        }
    }

    /// The end of `epoch` (KIP-101, OffsetForLeaderEpoch): the largest epoch that is not after it, and the offset at which
    /// the next one starts; `None` if there is no such epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_of_epoch(
        &self,
        epoch: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, StoreError> {
        let Offsets { leader_epoch, .. } = self.offsets();
        // After a crash the store is told of the new epoch by its first reservation.
        let (unstored_epoch, started) = {
            let sequencer = self.sequencer();
            (!sequencer.epoch_stored, sequencer.epoch_start)
        };
        // The hole that a crash has left belongs to the epoch before.
        let high_watermark = self.offsets().high_watermark.max(started);
        if epoch > leader_epoch || epoch.0 < 0 {
            return Ok(None);
        }
        let range = self.keys().kind_range(Kind::Epoch);
        let page = self.store().scan(range, ScanLimit::items(usize::MAX)).await?;
        let mut found = None;
        for (key, value) in &page.items {
            let known = trailing_epoch(key).map_err(|error| damaged(key, error))?;
            let start = decode_offset(value).map_err(|error| damaged(key, error))?;
            match known > epoch {
                true => return Ok(found.map(|(before, _)| (before, start))),
                false => found = Some((known, high_watermark)),
            }
        }
        Ok(match found {
            Some((before, _)) if unstored_epoch && epoch < leader_epoch => Some((before, started)),
            Some(found) if !unstored_epoch => Some(found),
            _ => Some((leader_epoch, high_watermark)),
        })
    }

    /// The next page of the time index; `resume` becomes empty at its end.
    pub(super) async fn chunk_page(
        &self,
        resume: &mut std::ops::Range<Bytes>,
    ) -> Result<Vec<ClosedChunk>, StoreError> {
        self.chunks(resume, usize::MAX).await
    }

    /// As [`Partition::chunk_page`], of few chunks, for those who hardly ever need more.
    pub(super) async fn few_chunks(
        &self,
        resume: &mut std::ops::Range<Bytes>,
    ) -> Result<Vec<ClosedChunk>, StoreError> {
        self.chunks(resume, limits::FEW_CHUNKS).await
    }

    async fn chunks(
        &self,
        resume: &mut std::ops::Range<Bytes>,
        items: usize,
    ) -> Result<Vec<ClosedChunk>, StoreError> {
        let page = self.store().scan(resume.clone(), ScanLimit::items(items)).await?;
        resume.start = page.resume.unwrap_or_else(|| resume.end.clone());
        page.items
            .iter()
            .map(|(key, value)| {
                let last = trailing_number(key).map_err(|error| damaged(key, error))?;
                let chunk = Chunk::decode(value).map_err(|error| damaged(key, error))?;
                Ok((chunk, Offset(last)))
            })
            .collect()
    }

    /// The batches that hold `from` to `to`, a page at a time.
    async fn batch_page(
        &self,
        from: &mut Offset,
        to: Offset,
    ) -> Result<Vec<RecordBatch>, LookupError> {
        if *from >= to {
            return Ok(Vec::new());
        }
        let page = self.batches(*from, to, limits::LOG_CHUNK_BYTES).await?;
        let mut batches = Vec::with_capacity(page.len());
        for bytes in page {
            let batch = RecordBatch::from_store(bytes)
                .map_err(|source| LookupError::Batch { base_offset: *from, source })?;
            *from = batch.next_offset();
            batches.push(batch);
        }
        Ok(batches)
    }

    async fn first_at_or_after(
        &self,
        timestamp_ms: i64,
        mut from: Offset,
        to: Offset,
        offsets: Offsets,
    ) -> Result<Option<FoundOffset>, LookupError> {
        loop {
            let batches = self.batch_page(&mut from, to).await?;
            if batches.is_empty() {
                return Ok(None);
            }
            for batch in batches.iter().filter(|batch| batch.max_timestamp() >= timestamp_ms) {
                let found = of_records(batch, |times| {
                    for time in times {
                        let (offset, time) = time?;
                        if time >= timestamp_ms && offset >= offsets.log_start_offset {
                            return Ok(Some((offset, time)));
                        }
                    }
                    Ok(None)
                });
                if let Some((offset, time)) = found.await? {
                    let leader_epoch = offsets.leader_epoch;
                    return Ok(Some(FoundOffset { offset, timestamp_ms: time, leader_epoch }));
                }
            }
        }
    }

    async fn max_timestamp(
        &self,
        mut from: Offset,
        to: Offset,
        offsets: Offsets,
    ) -> Result<Option<i64>, LookupError> {
        let start = offsets.log_start_offset;
        let mut max = None;
        loop {
            let batches = self.batch_page(&mut from, to).await?;
            if batches.is_empty() {
                return Ok(max);
            }
            for batch in &batches {
                let batch_max = match batch.base_offset() < start {
                    true => {
                        let latest = of_records(batch, |times| {
                            let mut latest = None;
                            for time in times {
                                let (offset, time) = time?;
                                latest = latest.max((offset >= start).then_some(time));
                            }
                            Ok(latest)
                        });
                        latest.await?
                    }
                    false => Some(batch.max_timestamp()),
                };
                max = max.max(batch_max);
            }
        }
    }
}

/// Offset and timestamp of each record.
type RecordTimes<'a> = dyn Iterator<Item = Result<(Offset, i64), LookupError>> + 'a;

/// Goes through a batch's records.
async fn of_records<T>(
    batch: &RecordBatch,
    look: impl FnOnce(&mut RecordTimes<'_>) -> Result<T, LookupError>,
) -> Result<T, LookupError> {
    let failed = |source| LookupError::Batch { base_offset: batch.base_offset(), source };
    let looked = look_into(batch, |records| {
        let time = |record: Record| (record.offset, record.timestamp_ms);
        look(&mut records.map(|record| record.map(time).map_err(failed)))
    });
    looked.await?.map_err(failed)?
}
