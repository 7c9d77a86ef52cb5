//! What one chunk becomes. No store, no clock; may take its time.

use std::collections::HashSet;

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::{CompactBatch, Compacted, Record, RecordBatch};

use super::CompactError;
use super::map::OffsetMap;

/// What a pass knows.
#[derive(Debug)]
pub(super) struct Decision {
    /// The last offsets of the keys of the dirty part.
    pub(super) last_offsets: OffsetMap,
    /// Where that part ends: what is at or after it is left alone.
    pub(super) end: Offset,
    /// When the pass began, milliseconds since 1970.
    pub(super) now_ms: i64,
    /// The delete horizon of tombstones that have none yet.
    pub(super) new_horizon_ms: i64,
}

impl Decision {
    fn keeps(&self, record: &Record, horizon_ms: Option<i64>) -> bool {
        if record.offset >= self.end {
            return true;
        }
        let Some(key) = &record.key else { return false };
        let is_superseded = self.last_offsets.last(key).is_some_and(|last| last > record.offset);
        let may_stay = record.value.is_some() || horizon_ms.is_none_or(|end| self.now_ms < end);
        !is_superseded && may_stay
    }
}

/// A chunk as it is to be.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// Batches that change: key, and bytes; `None` where a batch goes.
    pub(super) changes: Vec<(Bytes, Option<Bytes>)>,
    /// Bytes of the batches that stay.
    pub(super) bytes: u64,
    /// Their largest timestamp, -1 for none.
    pub(super) max_timestamp: i64,
    /// The earliest delete horizon of a tombstone that stays.
    pub(super) horizon_ms: i64,
    /// Bytes that it takes less than before.
    pub(super) removed_bytes: u64,
}

/// Decides over a chunk's batches. `kept_empty` holds the last offsets of batches that stay even without records.
pub(super) fn rewrite(
    batches: Vec<(Bytes, RecordBatch)>,
    decision: &Decision,
    kept_empty: &HashSet<Offset>,
) -> Result<Rewritten, CompactError> {
    let mut chunk = Rewritten {
        changes: Vec::new(),
        bytes: 0,
        max_timestamp: -1,
        horizon_ms: i64::MAX,
        removed_bytes: 0,
    };
    for (key, batch) in batches {
        let before = batch.size() as u64;
        let Some(stays) = rewrite_batch(&batch, decision, kept_empty, &mut chunk.horizon_ms)?
        else {
            chunk.changes.push((key, None));
            chunk.removed_bytes += before;
            continue;
        };
        let after = stays.size() as u64;
        chunk.bytes += after;
        chunk.max_timestamp = chunk.max_timestamp.max(stays.max_timestamp());
        chunk.removed_bytes += before.saturating_sub(after);
        if stays != batch {
            chunk.changes.push((key, Some(stays.into_bytes())));
        }
    }
    Ok(chunk)
}

fn rewrite_batch(
    batch: &RecordBatch,
    decision: &Decision,
    kept_empty: &HashSet<Offset>,
    earliest_horizon_ms: &mut i64,
) -> Result<Option<RecordBatch>, CompactError> {
    let horizon_ms = batch.delete_horizon_ms();
    if batch.base_offset() >= decision.end || batch.attributes().is_control() {
        // It may hold tombstones.
        *earliest_horizon_ms = horizon_ms.unwrap_or(i64::MAX).min(*earliest_horizon_ms);
        return Ok(Some(batch.clone()));
    }
    let how = CompactBatch {
        max_bytes: limits::DECOMPRESSED_BATCH_BYTES,
        new_horizon_ms: decision.new_horizon_ms,
        keeps_empty: kept_empty.contains(&batch.last_offset()),
    };
    let (outcome, horizon) = batch
        .compact(how, |record| decision.keeps(record, horizon_ms))
        .map_err(|source| CompactError::Batch { base_offset: batch.base_offset(), source })?;
    *earliest_horizon_ms = horizon.unwrap_or(i64::MAX).min(*earliest_horizon_ms);
    Ok(match outcome {
        Compacted::Unchanged => Some(batch.clone()),
        Compacted::Changed(changed) => Some(changed),
        Compacted::Gone => None,
    })
}
