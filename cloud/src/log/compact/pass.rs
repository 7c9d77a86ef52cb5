//! One pass over a partition: the map, then chunk by chunk.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::RecordBatch;

use super::map::OffsetMap;
use super::rewrite::{Decision, Rewritten, rewrite};
use super::{CompactError, CompactionRules};
use crate::log::{Partition, after};
use crate::store::keys::partition::{Chunk, Cleaned, Kind};
use crate::store::{ScanLimit, StoreError, WriteBatch};

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassSummary {
    /// There was something to do.
    pub was_due: bool,
    /// Bytes that batches take less.
    pub removed_bytes: u64,
    /// More is to be done than the map had room for.
    pub is_partial: bool,
}

/// Where a pass is.
struct Pass {
    decision: Arc<Decision>,
    progress: Cleaned,
    /// The chunk before the next one and its last offset, if it is known.
    before: Option<(Chunk, Offset)>,
    removed_bytes: u64,
}

/// A batch's key, and the batch.
type Stored = (Bytes, RecordBatch);

impl Partition {
    /// Compacts the partition if that is due: one pass, over as much of the dirty part as `map_bytes` hold the keys of.
    /// Appends, reads and deletions go on meanwhile.
    ///
    /// # Errors
    /// [`CompactError`]; the next call goes on where this one ended.
    pub async fn compact(
        self: &Arc<Self>,
        rules: &CompactionRules,
        now_ms: i64,
        map_bytes: usize,
    ) -> Result<PassSummary, CompactError> {
        let _one_at_a_time = self.compaction.lock().await;
        self.close_what_lags(rules, now_ms).await?;
        let assessed = self.assess_compaction(rules, now_ms).await?;
        if !assessed.is_due {
            return Ok(PassSummary::default());
        }
        let (cleaned, first_dirty) = (assessed.cleaned, assessed.first_dirty);
        let (to, next, horizon_ms) = match cleaned.is_complete() {
            true => (assessed.cleanable_to, self.local_start(), i64::MAX),
            // What was rewritten before has been decided by a map of these offsets: it takes the same ones again.
            false => (cleaned.pass_end.max(first_dirty), cleaned.next, cleaned.horizon_ms),
        };
        let (last_offsets, end) = self.last_offsets(first_dirty, to, map_bytes).await?;
        let new_horizon_ms = now_ms.saturating_add(rules.delete_retention_ms);
        let mut pass = Pass {
            decision: Arc::new(Decision { last_offsets, end, now_ms, new_horizon_ms }),
            progress: Cleaned { first_dirty, pass_end: end, next, horizon_ms },
            before: None,
            removed_bytes: 0,
        };
        let mut resume = self.keys().chunks_from(next);
        'pages: while !resume.is_empty() {
            for (chunk, last) in self.chunk_page(&mut resume).await? {
                if chunk.base_offset >= end {
                    break 'pages;
                }
                while !self.compact_chunk(chunk, last, &mut pass).await? {}
            }
        }
        let horizon_ms = pass.progress.horizon_ms;
        let done = Cleaned { first_dirty: end, pass_end: end, next: end, horizon_ms };
        if done != cleaned {
            let mut write = WriteBatch::new();
            write.put(self.keys().cleaned(), done.encode());
            self.write_unless_dropped(write).await?;
        }
        Ok(PassSummary {
            was_due: true,
            removed_bytes: pass.removed_bytes,
            is_partial: end < assessed.cleanable_to,
        })
    }

    /// Closes the open chunk if a record in it is as old as `max.compaction.lag.ms` allows.
    async fn close_what_lags(
        self: &Arc<Self>,
        rules: &CompactionRules,
        now_ms: i64,
    ) -> Result<(), CompactError> {
        if rules.max_lag_ms == i64::MAX {
            return Ok(());
        }
        let open_from = self.open_from();
        let first_ms = self.first_timestamp(open_from).await?;
        if first_ms >= 0 && first_ms.saturating_add(rules.max_lag_ms) <= now_ms {
            self.close_open_chunk(|open| open.base_offset == open_from).await?;
        }
        Ok(())
    }

    /// The last offset of each key from `from` on: up to `to`, or to where the map is full. Returns where it ends.
    async fn last_offsets(
        &self,
        from: Offset,
        to: Offset,
        map_bytes: usize,
    ) -> Result<(OffsetMap, Offset), CompactError> {
        let mut map = OffsetMap::new(map_bytes);
        if from >= to {
            return Ok((map, to));
        }
        // The batch that holds `to` may end behind it.
        let mut range = self.keys().batch(from)..self.keys().kind_range(Kind::Batch).end;
        loop {
            let limit = ScanLimit::bytes(limits::LOG_CHUNK_BYTES);
            let page = self.store().scan(range.clone(), limit).await?;
            let batches = parse(page.items, from)?;
            let is_last = batches.last().is_none_or(|(_, batch)| batch.next_offset() >= to);
            let full_at;
            (map, full_at) = blocking(move || note(map, &batches, from, to)).await??;
            if let Some(full_at) = full_at {
                return Ok((map, full_at));
            }
            match page.resume {
                Some(resume) if !is_last => range.start = resume,
                _ => return Ok((map, to)),
            }
        }
    }

    /// Rewrites a chunk, its entry in the index and the position of the pass. Returns `false` if the log's start has moved
    /// meanwhile: nothing was written then, and the chunk is to be looked at again.
    async fn compact_chunk(
        &self,
        chunk: Chunk,
        last: Offset,
        pass: &mut Pass,
    ) -> Result<bool, CompactError> {
        let log_start = self.local_start();
        if last < log_start {
            pass.before = None;
            return Ok(true);
        }
        let from = chunk.base_offset.max(log_start);
        let batches = self.batches_of_chunk(from, last).await?;
        let is_empty = |chunk: &Rewritten| chunk.bytes == 0;
        let kept_empty = self.kept_empty(&batches);
        let decision = Arc::clone(&pass.decision);
        let rewritten = blocking(move || rewrite(batches, &decision, &kept_empty)).await??;

        let mut write = WriteBatch::new();
        let keys = self.keys();
        let now = Chunk {
            base_offset: chunk.base_offset,
            bytes: rewritten.bytes,
            max_timestamp: rewritten.max_timestamp,
        };
        let before = pass.before.map(|(left, left_last)| (joined(left, now), left_last));
        let index = match before {
            Some((Some(both), left_last)) => {
                write.delete(keys.chunk(left_last));
                write.put(keys.chunk(last), both.encode());
                Some((both, last))
            }
            _ if is_empty(&rewritten) => {
                write.delete(keys.chunk(last));
                None
            }
            _ => {
                if now != chunk {
                    write.put(keys.chunk(last), now.encode());
                }
                Some((now, last))
            }
        };
        for (key, batch) in rewritten.changes {
            match batch {
                Some(bytes) => write.put(key, bytes),
                None => write.delete(key),
            };
        }
        let progress = Cleaned {
            next: after(last),
            horizon_ms: pass.progress.horizon_ms.min(rewritten.horizon_ms),
            ..pass.progress
        };
        if !write.is_empty() {
            write.put(keys.cleaned(), progress.encode());
            // Until it is durable nothing is deleted: what is put here must not bring back what a deletion removes.
            let _no_deletion = self.maintenance.lock().await;
            if self.local_start() != log_start {
                pass.before = None;
                return Ok(false);
            }
            let written = self.write_unless_dropped(write).await;
            self.rewrites.fetch_add(1, Ordering::AcqRel);
            written?;
        }
        pass.progress = progress;
        pass.before = index;
        pass.removed_bytes += rewritten.removed_bytes;
        Ok(true)
    }

    async fn batches_of_chunk(
        &self,
        from: Offset,
        last: Offset,
    ) -> Result<Vec<Stored>, CompactError> {
        let mut range = self.keys().batches(from, after(last));
        let mut batches = Vec::new();
        loop {
            // A chunk is a megabyte and what its last batch has beyond it.
            let page = self.store().scan(range.clone(), ScanLimit::bytes(usize::MAX)).await?;
            batches.append(&mut parse(page.items, from)?);
            match page.resume {
                Some(resume) => range.start = resume,
                None => return Ok(batches),
            }
        }
    }

    /// The last offsets of those batches that stay even if no record of them does.
    fn kept_empty(&self, batches: &[Stored]) -> HashSet<Offset> {
        let high_watermark = self.visible().high_watermark;
        let sequencer = self.sequencer();
        let stays = |batch: &RecordBatch| {
            let holds_sequence = batch.producer().is_some_and(|producer| {
                sequencer.producers.last_offset(producer.id) == Some(batch.last_offset())
            });
            // A reader that waits below the high watermark has to get past it.
            holds_sequence || batch.next_offset() >= high_watermark
        };
        let kept = batches.iter().filter(|(_, batch)| stays(batch));
        kept.map(|(_, batch)| batch.last_offset()).collect()
    }
}

/// Both chunks as one, if that is not larger than chunks are.
fn joined(left: Chunk, right: Chunk) -> Option<Chunk> {
    let bytes = left.bytes.saturating_add(right.bytes);
    let fits = right.bytes == 0 || bytes <= limits::LOG_CHUNK_BYTES as u64;
    let max_timestamp = left.max_timestamp.max(right.max_timestamp);
    fits.then_some(Chunk { base_offset: left.base_offset, bytes, max_timestamp })
}

fn parse(items: Vec<(Bytes, Bytes)>, from: Offset) -> Result<Vec<Stored>, CompactError> {
    let parse_one = |(key, bytes)| match RecordBatch::from_store(bytes) {
        Ok(batch) => Ok((key, batch)),
        Err(source) => Err(CompactError::Batch { base_offset: from, source }),
    };
    items.into_iter().map(parse_one).collect()
}

/// Puts the keys of `from..to` into the map. Returns the offset of the first record that found no room.
fn note(
    mut map: OffsetMap,
    batches: &[Stored],
    from: Offset,
    to: Offset,
) -> Result<(OffsetMap, Option<Offset>), CompactError> {
    for (_, batch) in batches {
        if batch.base_offset() >= to || batch.attributes().is_control() {
            continue;
        }
        let failed = |source| CompactError::Batch { base_offset: batch.base_offset(), source };
        for record in batch.records(limits::DECOMPRESSED_BATCH_BYTES).map_err(failed)? {
            let record = record.map_err(failed)?;
            if record.offset < from || record.offset >= to {
                continue;
            }
            if let Some(key) = &record.key
                && !map.insert(key, record.offset)
            {
                return Ok((map, Some(record.offset)));
            }
        }
    }
    Ok((map, None))
}

/// Runs what takes its time where it does not keep connections waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CompactError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Read(format!("compaction was interrupted: {error}")).into())
}
