//! Whether the cache holds what readers of a topic need at the same time. Where it does not, objects are fetched again and again, and nothing
//! fails: it has to be said.

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::Cache;
use robustmq_dataset::epochs::Shuffle;
use robustmq_dataset::format::Format;

use super::{Datasets, Listed};
use crate::topics::SourceConfig;

/// A topic, and what there is for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    shuffle: Shuffle,
    partitions: u64,
    /// Bytes of all objects, and of one of them, about.
    bytes: u64,
    object_bytes: u64,
    /// Bytes of a record, about, where that is known.
    record_bytes: Option<u64>,
    /// What the cache holds in memory and on SSD, and what of its memory is for reading ahead.
    cache_bytes: u64,
    ahead_bytes: u64,
    /// Bytes of an extent, about.
    extent_bytes: u64,
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

impl Fit {
    /// Of a topic whose records that are counted have `counted` bytes, and so many they are.
    pub fn new(
        cache: &Cache,
        config: &SourceConfig,
        partitions: i32,
        listed: &Listed,
        counted: (u64, u64),
    ) -> Self {
        let object_bytes = listed.bytes / listed.objects.max(1);
        let (bytes, records) = counted;
        // What is no archive is one record.
        let whole = (config.format == Some(Format::Object)).then_some(object_bytes);
        Self {
            shuffle: config.shuffle,
            partitions: u64::from(partitions.max(1).cast_unsigned()).min(listed.objects.max(1)),
            bytes: listed.bytes,
            object_bytes,
            record_bytes: bytes.checked_div(records).or(whole),
            cache_bytes: (cache.memory_bytes() as u64).saturating_add(cache.ssd_budget_bytes()),
            ahead_bytes: cache.ahead_bytes() as u64,
            extent_bytes: cache.extent_bytes() as u64,
        }
    }

    /// What does not fit, and what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        // What is all there is fetched once.
        if self.bytes <= self.cache_bytes {
            return Vec::new();
        }
        self.windows().into_iter().chain(self.read_ahead()).collect()
    }

    fn windows(&self) -> Option<String> {
        let Shuffle::Window(records) = self.shuffle else { return None };
        let all = u64::from(records).saturating_mul(self.partitions);
        let (cache, partitions) = (megabytes(self.cache_bytes), self.partitions);
        let otherwise = "an object is fetched again for almost each of its records. Take smaller windows, fewer partitions, or a larger \
                         [cache] memory_bytes";
        let Some(record_bytes) = self.record_bytes else {
            let most = self.cache_bytes / all;
            return (most < limits::FIRST_EXTENT_BYTES as u64).then(|| {
                format!(
                    "windows of {records} records in {partitions} partitions fit the cache, {cache}, where records have up to {most} bytes on \
                     average; where they have more, {otherwise}"
                )
            });
        };
        let needed = all.saturating_mul(record_bytes).min(self.bytes);
        (needed > self.cache_bytes).then(|| {
            format!(
                "windows of {records} records in {partitions} partitions are {} together, more than the cache, {cache}: with all of them read at \
                 once, {otherwise}",
                megabytes(needed)
            )
        })
    }

    fn read_ahead(&self) -> Option<String> {
        // One that is read and one that comes after it.
        let extents = 2 * self.object_bytes.clamp(1, self.extent_bytes);
        let partitions = self.partitions;
        let fit = self.ahead_bytes / extents;
        (fit < partitions).then(|| {
            format!(
                "what is read ahead has {} of the cache, enough for {fit} partitions that are read at the same time: with all {partitions}, objects \
                 are fetched again for each read. Read fewer at a time, or take a larger [cache] memory_bytes",
                megabytes(self.ahead_bytes)
            )
        })
    }
}

impl Datasets {
    /// What whoever creates a topic should know of the cache, since nothing fails by it.
    #[must_use]
    pub fn warnings(&self, config: &SourceConfig, partitions: i32, listed: &Listed) -> Vec<String> {
        Fit::new(&self.cache, config, partitions, listed, (0, 0)).warnings()
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, Shuffle};

    const MB: u64 = 1_000_000;

    /// A topic of 8 partitions, of shards of 100 MB, and a cache of 1 GB.
    const LARGE: Fit = Fit {
        shuffle: Shuffle::Shards,
        partitions: 8,
        bytes: 10_000 * MB,
        object_bytes: 100 * MB,
        record_bytes: None,
        cache_bytes: 1000 * MB,
        ahead_bytes: 150 * MB,
        extent_bytes: 8 << 20,
    };

    fn check(fit: Fit, said: &[&str]) {
        let warnings = fit.warnings();
        assert_eq!(warnings.len(), said.len(), "{fit:?}: {warnings:?}");
        for (warning, said) in warnings.iter().zip(said) {
            assert!(warning.contains(said), "{warning}");
        }
    }

    #[test]
    fn what_has_to_be_there_together_is_told_where_it_does_not_fit() {
        check(LARGE, &[]);
        let windows = Fit { shuffle: Shuffle::Window(10_000), ..LARGE };
        check(
            windows,
            &["where records have up to 12500 bytes on average; where they have more, an object"],
        );
        check(Fit { record_bytes: Some(12_500), ..windows }, &[]);
        let large = Fit { record_bytes: Some(50_000), ..windows };
        check(
            large,
            &[
                "windows of 10000 records in 8 partitions are 4000 MB together, more than the cache, 1000 MB",
            ],
        );
        // All of it fits, however large the windows are.
        check(Fit { bytes: 1000 * MB, ..large }, &[]);
        check(Fit { shuffle: Shuffle::Window(100), ..LARGE }, &[]);
        let many = Fit { partitions: 16, ..LARGE };
        check(many, &["has 150 MB of the cache, enough for 8 partitions"]);
        check(Fit { object_bytes: MB, ..many }, &[]);
        check(Fit { partitions: 64, ..large }, &["are 10000 MB together", "with all 64, objects"]);
    }
}
