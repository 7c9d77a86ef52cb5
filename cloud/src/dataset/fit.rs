//! What a topic's settings do not bring about, where nothing fails by it, so that it has to be said: whether the cache holds what readers need at
//! the same time, else objects are fetched again and again; and whether there is something to shuffle.

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::Cache;
use robustmq_dataset::epochs::Shuffle;
use robustmq_dataset::format::Format;
use robustmq_dataset::format::parquet::Held;
use robustmq_dataset::index::ObjectIndex;

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

/// What counting has come to know of a topic's objects.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Bytes of those that are counted, and of their content.
    pub source_bytes: u64,
    pub content_bytes: u64,
    /// How many records they have.
    pub records: u64,
    /// Bytes of the largest row group, about, where they are tables.
    pub group_bytes: Option<u64>,
}

impl Known {
    /// An object of so many bytes is counted.
    pub fn add(&mut self, source_bytes: u64, index: &ObjectIndex) {
        let groups = index.rows.last().map(|(last, _)| u64::from(*last) + 1);
        let (content_bytes, records) = (index.content_bytes(), index.records());
        let group_bytes = groups.map(|groups| source_bytes / groups);
        self.include(Self { source_bytes, content_bytes, records, group_bytes });
    }

    /// What is known of others.
    pub fn include(&mut self, others: Self) {
        self.source_bytes += others.source_bytes;
        self.content_bytes += others.content_bytes;
        self.records += others.records;
        self.group_bytes = self.group_bytes.max(others.group_bytes);
    }
}

/// A topic, and what there is for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    shuffle: Shuffle,
    /// Of the topic.
    partitions: u64,
    objects: u64,
    /// Bytes of all objects' content, about.
    content_bytes: u64,
    /// Bytes of a record, about, where that is known.
    record_bytes: Option<u64>,
    /// What the cache has of memory, and of SSD.
    memory_bytes: u64,
    ssd_bytes: u64,
    row_groups: RowGroups,
}

/// What is needed.
fn needed(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// What there is.
fn there(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

impl Fit {
    /// What does not fit, and what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        self.order().into_iter().chain(self.misfits()).collect()
    }

    fn order(&self) -> Option<String> {
        let Self { objects, partitions, .. } = self;
        let fewer = if *partitions > 1 { "fewer partitions, or " } else { "" };
        (self.shuffle == Shuffle::Shards && objects <= partitions).then(|| {
            format!(
                "robustmq.source.shuffle = shards has the objects of each partition in another order each epoch, and with so few objects \
                 ({objects}, partitions: {partitions}) there is no other order: take {fewer}window:RECORDS"
            )
        })
    }

    fn misfits(&self) -> Vec<String> {
        // What is all there is fetched once.
        if self.content_bytes <= self.memory_bytes.saturating_add(self.ssd_bytes) {
            return Vec::new();
        }
        self.windows().into_iter().chain(self.read_ahead()).collect()
    }

    /// Partitions that have something to read.
    fn read_partitions(&self) -> u64 {
        self.partitions.min(self.objects).max(1)
    }

    /// What is left of memory for extents beside row groups.
    fn extents_bytes(&self) -> u64 {
        let most = Held::most_bytes(self.memory_bytes);
        let held = match self.row_groups {
            RowGroups::None => 0,
            RowGroups::Some => most,
            RowGroups::Of(bytes) => bytes.saturating_mul(self.read_partitions()).min(most),
        };
        self.memory_bytes - held
    }

    fn windows(&self) -> Option<String> {
        let Shuffle::Window(records) = self.shuffle else { return None };
        let partitions = self.read_partitions();
        let all = u64::from(records).saturating_mul(partitions);
        let extents_bytes = self.extents_bytes();
        let (ahead_bytes, extent_bytes) = Cache::ahead_and_extent_bytes(extents_bytes);
        // What is being read may take all that is for read-ahead, of which decoding has a part, and half of what stays.
        let (pool, beside) = match self.row_groups {
            RowGroups::None => (ahead_bytes, ""),
            RowGroups::Some | RowGroups::Of(_) => (ahead_bytes / 2, " beside row groups"),
        };
        let stays = (extents_bytes - ahead_bytes) / 2;
        let room = pool.saturating_add(stays).saturating_add(self.ssd_bytes);
        let otherwise = "an object is fetched again for almost each of its records. Take smaller windows, fewer partitions, or a larger \
                         [cache] memory_bytes";
        let Some(record_bytes) = self.record_bytes else {
            let most = room / all;
            return (most < limits::FIRST_EXTENT_BYTES as u64).then(|| {
                format!(
                    "windows of {records} records in {partitions} partitions fit what the cache has for them{beside}, {}, only where records have up \
                     to {most} bytes on average; where they have more, {otherwise}",
                    there(room)
                )
            });
        };
        let bytes = all.saturating_mul(record_bytes);
        // Each begins and ends in the middle of an extent. Some are among what stays.
        let touched = bytes.saturating_add(partitions * extent_bytes).min(self.content_bytes);
        let missing = self.content_bytes.saturating_sub(stays);
        let missing =
            u128::from(touched) * u128::from(missing) / u128::from(self.content_bytes.max(1));
        (missing > room.into()).then(|| {
            format!(
                "windows of {records} records in {partitions} partitions are {} together, more than the cache has for them{beside}, {}: with all of \
                 them read at once, {otherwise}",
                needed(bytes.min(self.content_bytes)),
                there(room)
            )
        })
    }

    fn read_ahead(&self) -> Option<String> {
        let partitions = self.read_partitions();
        let bytes = match self.row_groups {
            // Of most tables they take little.
            RowGroups::Some => self.memory_bytes,
            RowGroups::None | RowGroups::Of(_) => self.extents_bytes(),
        };
        let (ahead_bytes, extent_bytes) = Cache::ahead_and_extent_bytes(bytes);
        // One that is read and one that comes after it.
        let extents = 2 * (self.content_bytes / self.objects.max(1)).clamp(1, extent_bytes);
        let fit = ahead_bytes / extents;
        (fit < partitions).then(|| {
            format!(
                "what is read ahead has {} of the cache, enough for {fit} partitions that are read at the same time: with all {partitions}, readers \
                 wait for each other, and objects may be fetched more than once. Read fewer at a time, or take a larger [cache] memory_bytes",
                there(ahead_bytes)
            )
        })
    }
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
        let scaled = u128::from(listed.bytes) * u128::from(known.content_bytes);
        let scaled = scaled.checked_div(known.source_bytes.into());
        let scaled = scaled.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
        // What is no archive is one record.
        let whole = listed.bytes.checked_div(listed.objects);
        let whole = whole.filter(|_| config.format == Some(Format::Object));
        Fit {
            shuffle: config.shuffle,
            partitions: partitions.max(1).cast_unsigned().into(),
            objects: listed.objects,
            content_bytes: scaled.unwrap_or(listed.bytes),
            record_bytes: known.content_bytes.checked_div(known.records).or(whole),
            // What extents have of it changes with what is decoded.
            memory_bytes: self.between.groups.memory_bytes().max(cache.memory_bytes()) as u64,
            ssd_bytes: cache.ssd_budget_bytes(),
            row_groups: match (known.group_bytes, config.format) {
                // How much of them other columns are is not known.
                _ if !config.rows_as.columns.is_empty() => RowGroups::None,
                (Some(bytes), _) => RowGroups::Of(bytes),
                (None, Some(Format::Parquet)) => RowGroups::Some,
                (None, _) => RowGroups::None,
            },
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
        content_bytes: 10_000 * MB,
        record_bytes: None,
        memory_bytes: 1200 * MB,
        ssd_bytes: 0,
        row_groups: RowGroups::None,
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
            &[
                "fit what the cache has for them, 675 MB, only where records have up to 8437 bytes on average; where they have more, an object",
            ],
        );
        check(Fit { record_bytes: Some(8000), ..windows }, &[]);
        let large = Fit { record_bytes: Some(50_000), ..windows };
        check(
            large,
            &[
                "windows of 10000 records in 8 partitions are 4000 MB together, more than the cache has for them, 675 MB",
            ],
        );
        check(Fit { ssd_bytes: 4000 * MB, ..large }, &[]);
        // All of it fits, however large the windows are.
        check(Fit { content_bytes: 1200 * MB, ..large }, &[]);
        check(Fit { shuffle: Shuffle::Window(50), ..LARGE }, &[]);
        let many = Fit { partitions: 16, ..LARGE };
        check(many, &["has 150 MB of the cache, enough for 8 partitions"]);
        check(Fit { objects: 10_000, ..many }, &[]);
        check(Fit { partitions: 64, ..large }, &["are 10000 MB together", "with all 64, readers"]);
    }

    /// One object in each of four partitions was in the same order in each epoch, and nothing said why.
    #[test]
    fn objects_that_have_no_other_order_are_told() {
        let few = Fit { partitions: 4, objects: 4, content_bytes: MB, ..LARGE };
        check(few, &["(4, partitions: 4) there is no other order: take fewer partitions, or"]);
        check(Fit { partitions: 16, ..few }, &["(4, partitions: 16)"]);
        check(Fit { partitions: 1, objects: 1, ..few }, &["there is no other order: take window"]);
        check(Fit { objects: 5, ..few }, &[]);
        check(Fit { shuffle: Shuffle::None, ..few }, &[]);
    }

    /// 190 MB in row groups of 10 MB, rows of 8.2 KB, as they were measured: in 64 MiB, two partitions' windows of 2,000 came at 40 records a second, four
    /// of 500 had each byte fetched 3.5 times; two of 500 had 1.1, and 0.9 in 96 MiB four of 500, and in 128 MiB two of 2,000 1.4.
    #[test]
    fn row_groups_leave_less_for_windows() {
        let windows = |records, partitions, mebibytes: u64| Fit {
            shuffle: Shuffle::Window(records),
            partitions,
            objects: 6,
            content_bytes: 190 * MB,
            record_bytes: Some(8250),
            memory_bytes: mebibytes << 20,
            row_groups: RowGroups::Of(10 * MB),
            ..LARGE
        };
        let said = "are 33 MB together, more than the cache has for them beside row groups, 23 MB";
        check(windows(2000, 2, 64), &[said]);
        check(windows(500, 2, 64), &[]);
        check(windows(500, 4, 64), &["are 17 MB together"]);
        check(windows(500, 4, 96), &[]);
        check(windows(2000, 2, 128), &[]);
        // It is not known yet how large they are.
        let unknown = |partitions| Fit {
            record_bytes: None,
            row_groups: RowGroups::Some,
            ..windows(2000, partitions, 64)
        };
        check(
            unknown(2),
            &["has for them beside row groups, 12 MB, only where records have up to 3145"],
        );
        check(unknown(6), &["up to 1048 bytes"]);
    }
}
