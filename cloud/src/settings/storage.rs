//! `[storage]`: what batches in memory may take, and how the segment files in `data_dir` are cut and given back.

use robustmq_common::config::Invalid;
use robustmq_common::limits;
use serde::{Deserialize, Serialize};

use super::millis;

/// `[storage]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// What batches that are in memory only may take, of all partitions: all of `memory` topics, what `hybrid` has not written.
    pub memory_bytes: usize,
    /// How often partitions in memory are asked whether retention, compaction or archiving has something to do
    /// (`log.retention.check.interval.ms`).
    pub upkeep_interval_ms: u64,
    /// The size at which a new segment file is begun. A start reads about one of them again.
    pub segment_bytes: u64,
    /// Bytes of what was deleted that may stay on the disk, besides a fifth of what lives, before what lives is moved out of between.
    pub dead_bytes: u64,
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            memory_bytes: limits::UNSTORED_BYTES,
            upkeep_interval_ms: millis(limits::UPKEEP_INTERVAL),
            segment_bytes: limits::STORE_SEGMENT_BYTES,
            dead_bytes: limits::STORE_DEAD_BYTES,
        }
    }
}

impl StorageSection {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let (ms, least) = (self.upkeep_interval_ms, limits::UPKEEP_INTERVAL_MIN_MS);
        if ms < least {
            let why = format!("{ms} is below {least}");
            return Err(Invalid::new("storage.upkeep_interval_ms", why));
        }
        let (bytes, least) = (self.memory_bytes, limits::UNSTORED_BYTES_MIN);
        if bytes < least {
            return Err(Invalid::new("storage.memory_bytes", format!("{bytes} is below {least}")));
        }
        let (bytes, range) = (self.segment_bytes, limits::STORE_SEGMENT_BYTES_RANGE);
        if !range.contains(&bytes) {
            let why = format!("{bytes} is not within {} and {}", range.start(), range.end());
            return Err(Invalid::new("storage.segment_bytes", why));
        }
        Ok(())
    }
}
