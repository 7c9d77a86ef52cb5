//! Whether a partition is to be compacted now, from its chunk index.

use robustmq_common::ids::Offset;
use robustmq_common::record::RecordBatch;

use crate::log::{Partition, after};
use crate::store::keys::damaged;
use crate::store::keys::partition::Cleaned;
use crate::store::{ScanLimit, StoreError};

/// What a topic's configuration asks of compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionRules {
    /// `min.cleanable.dirty.ratio`, in millionths.
    pub min_dirty_millionths: u32,
    /// `min.compaction.lag.ms`: younger records are left alone.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`: a record is compacted at the latest when it is so old.
    pub max_lag_ms: i64,
    /// `delete.retention.ms`: tombstones stay this long after their first compaction.
    pub delete_retention_ms: i64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assessment {
    /// Compaction has something to do now.
    pub is_due: bool,
    /// Which of several partitions comes first: the largest. The dirty part in millionths, more where a time has come.
    pub urgency: u32,
    /// When it has something to do though nothing is appended, milliseconds since 1970; `i64::MAX` for never.
    pub due_ms: i64,
    /// Where the dirty part begins.
    pub(super) first_dirty: Offset,
    /// Up to where it may be compacted now.
    pub(super) cleanable_to: Offset,
    /// What the last pass wrote down.
    pub(super) cleaned: Cleaned,
}

/// What counts.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    clean_bytes: u64,
    dirty_bytes: u64,
    /// The timestamp of the dirty part's first record, -1 for none.
    earliest_dirty_ms: i64,
    /// The largest timestamp of the first chunk that is too young.
    too_young_ms: Option<i64>,
    /// The earliest delete horizon of a tombstone.
    horizon_ms: i64,
    /// A pass was interrupted.
    is_interrupted: bool,
}

const WHOLE: u32 = 1_000_000;

impl Facts {
    fn dirty_millionths(&self) -> u32 {
        let all = u128::from(self.clean_bytes) + u128::from(self.dirty_bytes);
        let dirty = u128::from(self.dirty_bytes) * u128::from(WHOLE);
        dirty.checked_div(all).and_then(|ratio| u32::try_from(ratio).ok()).unwrap_or(0)
    }

    /// Whether it is due, how urgent it is, and when a time comes.
    fn decide(&self, rules: &CompactionRules, now_ms: i64) -> (bool, u32, i64) {
        let ratio = self.dirty_millionths();
        let lag_ends_ms = match self.earliest_dirty_ms {
            ..0 => i64::MAX,
            earliest => earliest.saturating_add(rules.max_lag_ms),
        };
        let young_until_ms =
            self.too_young_ms.map_or(i64::MAX, |young| young.saturating_add(rules.min_lag_ms));
        // The oldest dirty record may be in a chunk that is too young as a whole.
        let may_lag = self.dirty_bytes > 0 || self.too_young_ms.is_none();
        let time_has_come =
            self.is_interrupted || self.horizon_ms <= now_ms || (may_lag && lag_ends_ms <= now_ms);
        let is_dirty = self.dirty_bytes > 0 && ratio > rules.min_dirty_millionths;
        let urgency = if time_has_come { WHOLE + ratio } else { ratio };
        let lag_ends_ms = if may_lag { lag_ends_ms } else { i64::MAX };
        let due_ms = lag_ends_ms.min(young_until_ms).min(self.horizon_ms);
        (is_dirty || time_has_come, urgency, due_ms)
    }
}

impl Partition {
    /// Whether compaction has something to do at `now_ms`. Reads the chunk index, and a batch where there is a
    /// `max.compaction.lag.ms`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn assess_compaction(
        &self,
        rules: &CompactionRules,
        now_ms: i64,
    ) -> Result<Assessment, StoreError> {
        let cleaned = self.cleaned().await?;
        let log_start = self.local_start();
        let first_dirty = cleaned.first_dirty.max(log_start);
        let mut facts = Facts {
            horizon_ms: cleaned.horizon_ms,
            is_interrupted: !cleaned.is_complete(),
            earliest_dirty_ms: -1,
            ..Facts::default()
        };
        let mut cleanable_to = first_dirty;
        let is_young = |max_timestamp: i64| {
            rules.min_lag_ms > 0 && max_timestamp > now_ms.saturating_sub(rules.min_lag_ms)
        };
        let mut resume = self.keys().chunks_from(log_start);
        'pages: while !resume.is_empty() {
            for (chunk, last) in self.chunk_page(&mut resume).await? {
                if last < first_dirty {
                    facts.clean_bytes = facts.clean_bytes.saturating_add(chunk.bytes);
                    continue;
                }
                if is_young(chunk.max_timestamp) {
                    facts.too_young_ms = Some(chunk.max_timestamp);
                    break 'pages;
                }
                facts.dirty_bytes = facts.dirty_bytes.saturating_add(chunk.bytes);
                cleanable_to = after(last);
            }
        }
        let open = self.sequencer().end.open_chunk;
        if facts.too_young_ms.is_none() && open.bytes > 0 && is_young(open.max_timestamp) {
            facts.too_young_ms = Some(open.max_timestamp);
        }
        if rules.max_lag_ms < i64::MAX {
            facts.earliest_dirty_ms = self.first_timestamp(first_dirty).await?;
        }
        let (is_due, urgency, due_ms) = facts.decide(rules, now_ms);
        Ok(Assessment { is_due, urgency, due_ms, first_dirty, cleanable_to, cleaned })
    }

    /// What the last pass wrote down.
    async fn cleaned(&self) -> Result<Cleaned, StoreError> {
        let key = self.keys().cleaned();
        match self.store().get(&key).await? {
            Some(value) => Cleaned::decode(&value).map_err(|error| damaged(&key, error)),
            None => Ok(Cleaned::NEVER),
        }
    }

    /// The timestamp of the first record of the first batch at or after `from`, milliseconds since 1970; -1 for none.
    pub(super) async fn first_timestamp(&self, from: Offset) -> Result<i64, StoreError> {
        let range = self.keys().batches(from, self.offsets().high_watermark);
        if range.start >= range.end {
            return Ok(-1);
        }
        let page = self.store().scan(range, ScanLimit::bytes(0)).await?;
        let Some((key, bytes)) = page.items.into_iter().next() else { return Ok(-1) };
        let batch = RecordBatch::from_store(bytes).map_err(|error| damaged(&key, error))?;
        // The base timestamp may be a delete horizon, or the producer's where the broker's counts.
        let attributes = batch.attributes();
        Ok(match attributes.is_log_append_time() || attributes.has_delete_horizon() {
            true => batch.max_timestamp(),
            false => batch.header().base_timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CompactionRules, Facts, WHOLE};

    #[test]
    fn what_is_dirty_enough_or_whose_time_has_come_is_due() {
        let rules = CompactionRules {
            min_dirty_millionths: 500_000,
            min_lag_ms: 100,
            max_lag_ms: 1000,
            delete_retention_ms: 0,
        };
        let none = Facts { earliest_dirty_ms: -1, horizon_ms: i64::MAX, ..Facts::default() };
        let mixed = |clean_bytes, dirty_bytes| Facts { clean_bytes, dirty_bytes, ..none };
        // At 5000: (facts) -> due, urgency, next time
        let cases = [
            (none, (false, 0, i64::MAX)),
            (mixed(1, 1), (false, 500_000, i64::MAX)),
            (mixed(1, 3), (true, 750_000, i64::MAX)),
            (mixed(0, 1), (true, WHOLE, i64::MAX)),
            (Facts { is_interrupted: true, ..none }, (true, WHOLE, i64::MAX)),
            (Facts { horizon_ms: 5000, ..mixed(4, 0) }, (true, WHOLE, 5000)),
            (Facts { horizon_ms: 5001, ..mixed(4, 0) }, (false, 0, 5001)),
            (Facts { earliest_dirty_ms: 4001, ..mixed(3, 1) }, (false, 250_000, 5001)),
            (Facts { earliest_dirty_ms: 4000, ..mixed(3, 1) }, (true, WHOLE + 250_000, 5000)),
            // Only the open chunk is dirty: it is closed, unless it is too young.
            (Facts { earliest_dirty_ms: 4000, ..none }, (true, WHOLE, 5000)),
            (Facts { earliest_dirty_ms: 4000, too_young_ms: Some(4950), ..none }, (false, 0, 5050)),
        ];
        for (facts, expected) in cases {
            assert_eq!(facts.decide(&rules, 5000), expected, "{facts:?}");
        }
    }
}
