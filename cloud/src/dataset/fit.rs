//! What a topic's settings do not bring about, where nothing fails by it, so that it has to be said: whether the cache holds what readers need at
//! the same time, else objects are fetched again and again; and whether there is something to shuffle.

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::Cache;
use robustmq_dataset::epochs::Shuffle;
use robustmq_dataset::format::Format;

use super::partition::Opened;
use super::{Datasets, Listed};
use crate::topics::SourceConfig;

/// Row groups of a topic's objects, which are in memory beside extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowGroups {
    /// They are no tables, or it is not known.
    None,
    /// They may be of any size.
    Some,
    /// They have so many bytes, about.
    Of(u64),
}

/// What counting has come to know of a topic.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Bytes of the records that are counted, and how many they are.
    pub bytes: u64,
    pub records: u64,
    /// Bytes of a row group, about, where objects are tables.
    pub group_bytes: Option<u64>,
}

/// A topic, and what there is for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    shuffle: Shuffle,
    partitions: u64,
    objects: u64,
    /// Bytes of all objects, and of one of them, about.
    bytes: u64,
    object_bytes: u64,
    /// Bytes of a record, about, where that is known.
    record_bytes: Option<u64>,
    /// What the cache has of memory, and of SSD.
    memory_bytes: u64,
    ssd_bytes: u64,
    row_groups: RowGroups,
    /// Bytes of an extent, about.
    extent_bytes: u64,
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

impl Fit {
    /// What does not fit, and what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        self.order().into_iter().chain(self.misfits()).collect()
    }

    fn order(&self) -> Option<String> {
        let Self { objects, partitions, .. } = self;
        (self.shuffle == Shuffle::Shards && objects <= partitions).then(|| {
            format!(
                "robustmq.source.shuffle = shards has the objects of each partition in another order each epoch: with {objects} of them in \
                 {partitions} partitions there is no other order. Take fewer partitions, or window:RECORDS"
            )
        })
    }

    fn misfits(&self) -> Vec<String> {
        // What is all there is fetched once.
        if self.bytes <= self.memory_bytes.saturating_add(self.ssd_bytes) {
            return Vec::new();
        }
        self.windows().into_iter().chain(self.read_ahead()).collect()
    }

    /// What is left of memory for extents beside row groups, where so many bytes of records are read at the same time.
    fn extents_bytes(&self, read_bytes: u64) -> u64 {
        let most = self.memory_bytes / 4 * limits::PARQUET_HELD_QUARTERS;
        let held = match self.row_groups {
            RowGroups::None => 0,
            RowGroups::Some => most,
            RowGroups::Of(bytes) => {
                bytes.saturating_mul(self.partitions).saturating_add(read_bytes)
            }
        };
        let left = self.memory_bytes - held.min(most);
        left.max(limits::CACHE_BYTES_MIN as u64).min(self.memory_bytes)
    }

    /// The cache, or what of it is left beside row groups.
    fn named(&self, bytes: u64) -> String {
        let beside = if self.row_groups == RowGroups::None {
            "the cache"
        } else {
            "what the cache has beside row groups"
        };
        format!("{beside}, {}", megabytes(bytes))
    }

    fn windows(&self) -> Option<String> {
        let Shuffle::Window(records) = self.shuffle else { return None };
        let all = u64::from(records).saturating_mul(self.partitions);
        let partitions = self.partitions;
        let otherwise = "an object is fetched again for almost each of its records. Take smaller windows, fewer partitions, or a larger \
                         [cache] memory_bytes";
        let Some(record_bytes) = self.record_bytes else {
            let room = self.extents_bytes(0).saturating_add(self.ssd_bytes);
            let most = room / all;
            return (most < limits::FIRST_EXTENT_BYTES as u64).then(|| {
                format!(
                    "windows of {records} records in {partitions} partitions fit {}, where records have up to {most} bytes on average; where they \
                     have more, {otherwise}",
                    self.named(room)
                )
            });
        };
        let needed = all.saturating_mul(record_bytes).min(self.bytes);
        let room = self.extents_bytes(needed).saturating_add(self.ssd_bytes);
        (needed > room).then(|| {
            format!(
                "windows of {records} records in {partitions} partitions are {} together, more than {}: with all of them read at once, {otherwise}",
                megabytes(needed),
                self.named(room)
            )
        })
    }

    fn read_ahead(&self) -> Option<String> {
        // One that is read and one that comes after it.
        let extents = 2 * self.object_bytes.clamp(1, self.extent_bytes);
        let partitions = self.partitions;
        let bytes = match self.row_groups {
            // Of most tables they take little.
            RowGroups::Some => self.memory_bytes,
            RowGroups::None | RowGroups::Of(_) => self.extents_bytes(0),
        };
        let ahead_bytes = Cache::ahead_bytes_of(bytes);
        let fit = ahead_bytes / extents;
        (fit < partitions).then(|| {
            format!(
                "what is read ahead has {} of the cache, enough for {fit} partitions that are read at the same time: with all {partitions}, objects \
                 are fetched again for each read. Read fewer at a time, or take a larger [cache] memory_bytes",
                megabytes(ahead_bytes)
            )
        })
    }
}

/// Bytes of a row group of an object, about, if it is a table.
pub(super) fn group_bytes(opened: &Opened) -> Option<u64> {
    let (last, _) = opened.index.rows.last()?;
    Some(opened.object.size / (u64::from(*last) + 1))
}

impl Datasets {
    /// What whoever creates a topic should know of the cache, since nothing fails by it.
    #[must_use]
    pub fn warnings(&self, config: &SourceConfig, partitions: i32, listed: &Listed) -> Vec<String> {
        self.fit(config, partitions, listed, Known::default()).warnings()
    }

    pub(super) fn fit(
        &self,
        config: &SourceConfig,
        partitions: i32,
        listed: &Listed,
        known: Known,
    ) -> Fit {
        let cache = &self.cache;
        let object_bytes = listed.bytes / listed.objects.max(1);
        // What is no archive is one record.
        let whole = (config.format == Some(Format::Object)).then_some(object_bytes);
        Fit {
            shuffle: config.shuffle,
            partitions: u64::from(partitions.max(1).cast_unsigned()).min(listed.objects.max(1)),
            objects: listed.objects,
            bytes: listed.bytes,
            object_bytes,
            record_bytes: known.bytes.checked_div(known.records).or(whole),
            // What extents have of it changes with what is decoded.
            memory_bytes: self.between.groups.memory_bytes().max(cache.memory_bytes()) as u64,
            ssd_bytes: cache.ssd_budget_bytes(),
            row_groups: match (known.group_bytes, config.format) {
                (Some(bytes), _) => RowGroups::Of(bytes),
                (None, Some(Format::Parquet)) => RowGroups::Some,
                (None, _) => RowGroups::None,
            },
            extent_bytes: cache.extent_bytes() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, RowGroups, Shuffle};

    const MB: u64 = 1_000_000;

    /// A topic of 8 partitions, of shards of 100 MB, and a cache of 1.2 GB.
    const LARGE: Fit = Fit {
        shuffle: Shuffle::Shards,
        partitions: 8,
        objects: 100,
        bytes: 10_000 * MB,
        object_bytes: 100 * MB,
        record_bytes: None,
        memory_bytes: 1200 * MB,
        ssd_bytes: 0,
        row_groups: RowGroups::None,
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
            &["where records have up to 15000 bytes on average; where they have more, an object"],
        );
        check(Fit { record_bytes: Some(15_000), ..windows }, &[]);
        let large = Fit { record_bytes: Some(50_000), ..windows };
        check(
            large,
            &[
                "windows of 10000 records in 8 partitions are 4000 MB together, more than the cache, 1200 MB",
            ],
        );
        // All of it fits, however large the windows are.
        check(Fit { bytes: 1200 * MB, ..large }, &[]);
        check(Fit { shuffle: Shuffle::Window(100), ..LARGE }, &[]);
        let many = Fit { partitions: 16, ..LARGE };
        check(many, &["has 150 MB of the cache, enough for 8 partitions"]);
        check(Fit { object_bytes: MB, ..many }, &[]);
        check(Fit { partitions: 64, ..large }, &["are 10000 MB together", "with all 64, objects"]);
    }

    /// One object in each of four partitions was in the same order in each epoch, and nothing said why.
    #[test]
    fn objects_that_have_no_other_order_are_told() {
        let few = Fit { partitions: 4, objects: 4, bytes: MB, ..LARGE };
        check(few, &["with 4 of them in 4 partitions there is no other order"]);
        check(Fit { objects: 5, ..few }, &[]);
        check(Fit { shuffle: Shuffle::None, ..few }, &[]);
    }

    /// Two partitions' windows of 2,000 rows of 8 KB, and row groups of 10 MB: in 64 MiB, 40 records came in a second.
    #[test]
    fn row_groups_leave_less_for_windows() {
        let windows = Fit {
            shuffle: Shuffle::Window(2000),
            partitions: 2,
            bytes: 190 * MB,
            object_bytes: 30 * MB,
            record_bytes: Some(8200),
            memory_bytes: 64 << 20,
            row_groups: RowGroups::Of(10 * MB),
            extent_bytes: 2 << 20,
            ..LARGE
        };
        let said = "are 33 MB together, more than what the cache has beside row groups, 34 MB";
        check(windows, &[]);
        check(Fit { record_bytes: Some(8500), ..windows }, &[&said.replace("33", "34")]);
        check(Fit { row_groups: RowGroups::None, ..windows }, &[]);
        check(Fit { shuffle: Shuffle::Window(500), ..windows }, &[]);
        check(Fit { memory_bytes: 128 << 20, ..windows }, &[]);
        // It is not known yet how large they are.
        let unknown = Fit { record_bytes: None, row_groups: RowGroups::Some, ..windows };
        check(
            unknown,
            &[
                "fit what the cache has beside row groups, 34 MB, where records have up to 8388 bytes",
            ],
        );
        check(Fit { partitions: 8, ..unknown }, &["up to 2097 bytes"]);
    }
}
