//! `robustmq.source...`: the configuration of a dataset topic.

use std::collections::BTreeMap;

use globset::GlobSet;
use robustmq_dataset::epochs::Shuffle;
use robustmq_dataset::format::Format;
use robustmq_dataset::format::parquet::{Rows, RowsAs};
use robustmq_dataset::index::Large;

use super::config_keys::KEYS;
use crate::entries::ConfigError;
use crate::objects::ObjectStoreUrl;

/// The prefix of all its entries.
const PREFIX: &str = "robustmq.source";

/// The entries that may be changed on a topic that exists: what it has published does not depend on them.
const CHANGEABLE: &[&str] = &[
    "robustmq.source.cache.weight",
    "robustmq.source.epochs",
    "robustmq.source.index",
    "robustmq.source.on.corrupt",
    "robustmq.source.pin",
];

/// The entries that are for records that are stored here: none of them would have an effect on those of a source, whatever it promises.
const STORED_ONLY: &[&str] = &[
    "cleanup.policy",
    "delete.retention.ms",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "retention.bytes",
    "retention.ms",
    "robustmq.flush.ms",
    "robustmq.storage.mode",
    "robustmq.tier.hot.bytes",
    "robustmq.tier.local.ms",
];

/// What to do about a sample that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCorrupt {
    /// It gets no offset, and is counted and listed.
    Skip,
    /// Nothing behind it gets one until somebody has looked.
    Stop,
}

/// What may be changed of a dataset topic's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// How often the data is repeated: may become more.
    pub epochs: u32,
    /// Everything is indexed at once, and not as it is read.
    pub is_eager: bool,
    /// What happens to a sample that cannot be read.
    pub on_corrupt: OnCorrupt,
    /// What of it is in the cache goes last, also when nobody reads it.
    pub is_pinned: bool,
    /// Twice as much, twice the share of it in the cache, where not all fits.
    pub cache_weight: u32,
}

/// A dataset topic's configuration.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Where the objects are.
    pub url: ObjectStoreUrl,
    /// How they are read; `None`: each by its name.
    pub format: Option<Format>,
    /// In which order.
    pub shuffle: Shuffle,
    /// What that order is made from.
    pub seed: u64,
    /// What may be changed.
    pub live: Live,
    /// What becomes the value of a sample with several members: the first of these extensions that it has, or the largest.
    pub value: Vec<String>,
    /// What becomes of Parquet's rows.
    pub rows_as: RowsAs,
    /// What becomes of records that are too large.
    pub large: Large,
    include: GlobSet,
    exclude: GlobSet,
    /// As it was written, to compare.
    fixed: BTreeMap<String, String>,
}

impl PartialEq for SourceConfig {
    fn eq(&self, other: &Self) -> bool {
        self.fixed == other.fixed && self.live == other.live
    }
}

impl Eq for SourceConfig {}

impl SourceConfig {
    /// Reads the entries of a topic, which were checked one by one; `None` if it has no source.
    ///
    /// # Errors
    /// [`ConfigError`] names the entry that is wrong, or that makes no sense without a source.
    pub(super) fn read<'a>(
        overrides: &BTreeMap<String, String>,
        value: impl Fn(&str) -> &'a str,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(source) = overrides.get(PREFIX) else {
            let is_default = |name: &str, value: &str| {
                KEYS.iter().any(|key| key.name == name && key.default == Some(value))
            };
            let stray = overrides.iter().find(|(name, value)| {
                name.starts_with("robustmq.source.") && !is_default(name, value)
            });
            return match stray {
                Some((name, value)) => {
                    Err(invalid(name, value, "it is for topics with robustmq.source"))
                }
                None => Ok(None),
            };
        };
        let url = source.parse().map_err(|why: String| invalid(PREFIX, source, &why))?;
        let globs = |name: &str| {
            super::globs::read(value(name)).map_err(|why| invalid(name, value(name), &why))
        };
        let format = format(value("robustmq.source.format"))?;
        let rows_as = rows_as(overrides, &value, format)?;
        let shuffle = shuffle(value("robustmq.source.shuffle"))?;
        let fixed = overrides
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !CHANGEABLE.contains(&name.as_str()));
        Ok(Some(Self {
            url,
            format,
            shuffle,
            seed: number("robustmq.source.seed", value("robustmq.source.seed"))?,
            live: Live {
                epochs: number("robustmq.source.epochs", value("robustmq.source.epochs"))?,
                is_eager: value("robustmq.source.index") == "eager",
                on_corrupt: match value("robustmq.source.on.corrupt") {
                    "stop" => OnCorrupt::Stop,
                    _ => OnCorrupt::Skip,
                },
                is_pinned: value("robustmq.source.pin") == "true",
                cache_weight: number(
                    "robustmq.source.cache.weight",
                    value("robustmq.source.cache.weight"),
                )?,
            },
            value: list(value("robustmq.source.value")).map(str::to_ascii_lowercase).collect(),
            rows_as,
            large: large(&value, format, shuffle)?,
            include: globs("robustmq.source.include")?,
            exclude: globs("robustmq.source.exclude")?,
            fixed: fixed.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }))
    }

    /// Whether an object belongs to the topic; its name is below the source's prefix.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        (self.include.is_empty() || self.include.is_match(name)) && !self.leaves_out(name)
    }

    /// Whether nothing of that name is used, whatever it is: not even as the index file of an object.
    #[must_use]
    pub fn leaves_out(&self, name: &str) -> bool {
        self.exclude.is_match(name)
    }
}

/// A topic stays what it is: its offsets stand for what it had when they were given.
pub(super) fn check_change(
    before: Option<&SourceConfig>,
    after: Option<&SourceConfig>,
) -> Result<(), ConfigError> {
    if let (Some(before), Some(after)) = (before, after)
        && after.live.epochs < before.live.epochs
    {
        let (name, value) = ("robustmq.source.epochs", after.live.epochs.to_string());
        let why = format!("it is {} now, and can only become more", before.live.epochs);
        return Err(invalid(name, &value, &why));
    }
    let nothing = BTreeMap::new();
    let fixed = |config: Option<&SourceConfig>| config.map(|config| config.fixed.clone());
    let (before, after) =
        (fixed(before).unwrap_or_else(|| nothing.clone()), fixed(after).unwrap_or(nothing));
    let names = before.keys().chain(after.keys());
    match names.into_iter().find(|name| before.get(*name) != after.get(*name)) {
        Some(name) => {
            let value = after.get(name).cloned().unwrap_or_default();
            let why = "a topic's source is set when it is created, since its offsets stand for it; create another topic, \
                       which shares cache and index with this one";
            Err(invalid(name, &value, why))
        }
        None => Ok(()),
    }
}

/// A topic with a source sets nothing that is for records which are stored here, but for what it had `before`.
pub(super) fn check_stored_only(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let is_set =
        |name: &&&str| after.contains_key(**name) && before.get(**name) != after.get(**name);
    match STORED_ONLY.iter().find(is_set).filter(|_| after.contains_key(PREFIX)) {
        Some(name) => {
            let value = after.get(*name).cloned().unwrap_or_default();
            let why = "it is not set with robustmq.source: records of a source are not stored here, so nothing of them is deleted, \
                       compacted or moved, and they stay as long as their objects do";
            Err(invalid(name, &value, why))
        }
        None => Ok(()),
    }
}

fn invalid(name: &str, value: &str, expected: &str) -> ConfigError {
    let (name, value, expected) = (name.to_owned(), value.to_owned(), expected.to_owned());
    ConfigError::Invalid { name, value, expected }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|_| invalid(name, value, "it is a whole number, 0 or more"))
}

fn format(value: &str) -> Result<Option<Format>, ConfigError> {
    Ok(Some(match value {
        "auto" => return Ok(None),
        "webdataset" => Format::WebDataset,
        "tar" => Format::Tar,
        "object" => Format::Object,
        "parquet" => Format::Parquet,
        "jsonl" => Format::Jsonl,
        "mds" => Format::Mds,
        "tfrecord" => Format::TfRecord,
        _ => {
            let why =
                "it is auto, webdataset, tar, object, parquet, jsonl, mds or tfrecord".to_owned();
            return Err(invalid("robustmq.source.format", value, &why));
        }
    }))
}

/// Which columns of Parquet are read, and as what; an error where nothing is Parquet.
fn rows_as<'a>(
    overrides: &BTreeMap<String, String>,
    value: &impl Fn(&str) -> &'a str,
    format: Option<Format>,
) -> Result<RowsAs, ConfigError> {
    const COLUMNS: &str = "robustmq.source.columns";
    const ROWS: &str = "robustmq.source.rows";
    let columns: Vec<String> = list(value(COLUMNS)).map(str::to_owned).collect();
    let rows = match value(ROWS) {
        "arrow" => Rows::Arrow,
        _ => Rows::Json,
    };
    let is_read = matches!(format, None | Some(Format::Parquet));
    let stray =
        if columns.is_empty() { (rows != Rows::Json).then_some(ROWS) } else { Some(COLUMNS) };
    if let Some(name) = stray.filter(|_| !is_read) {
        let written = overrides.get(name).map_or("", String::as_str);
        let why = "it is for Parquet: robustmq.source.format is auto or parquet with it";
        return Err(invalid(name, written, why));
    }
    let (mut sorted, before) = (columns.clone(), columns.len());
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() < before {
        return Err(invalid(COLUMNS, value(COLUMNS), "each column is named once"));
    }
    // Columns come in the order of the file: topics that name the same ones share what is known.
    Ok(RowsAs { rows, columns: sorted })
}

/// What becomes of records that are too large; an error where they cannot come in chunks.
fn large<'a>(
    value: &impl Fn(&str) -> &'a str,
    format: Option<Format>,
    shuffle: Shuffle,
) -> Result<Large, ConfigError> {
    const ON_LARGE: &str = "robustmq.source.on.large";
    let bytes =
        number("robustmq.source.record.max.bytes", value("robustmq.source.record.max.bytes"))?;
    let has_chunks = value(ON_LARGE) == "chunk";
    let why = match (format, shuffle) {
        _ if !has_chunks => return Ok(Large { bytes, has_chunks }),
        (None | Some(Format::Tar | Format::Object), Shuffle::None | Shuffle::Shards) => {
            return Ok(Large { bytes, has_chunks });
        }
        (_, Shuffle::Window(_)) => {
            "chunks come one after another: robustmq.source.shuffle is none or shards with them"
        }
        _ => {
            "only objects and the files of tars come in chunks: robustmq.source.format is object, tar or auto with it"
        }
    };
    Err(invalid(ON_LARGE, value(ON_LARGE), why))
}

fn shuffle(value: &str) -> Result<Shuffle, ConfigError> {
    let most = robustmq_common::limits::dataset::WINDOW_RECORDS;
    let window = value.strip_prefix("window:").and_then(|records| records.parse().ok());
    match (value, window) {
        ("none", _) => Ok(Shuffle::None),
        ("shards", _) => Ok(Shuffle::Shards),
        (_, Some(records)) if (2..=most).contains(&records) => Ok(Shuffle::Window(records)),
        _ => {
            let why = format!("it is none, shards or window:RECORDS with 2 to {most} records");
            Err(invalid("robustmq.source.shuffle", value, &why))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::topics::TopicConfig;

    fn read(entries: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let entries = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TopicConfig::parse(&entries.collect::<BTreeMap<_, _>>()).map_err(|error| error.to_string())
    }

    /// As on a topic that is created.
    fn set(entries: &[(&str, &str)]) -> Result<(), String> {
        let entries = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let checked = super::check_stored_only(&BTreeMap::new(), &entries.collect());
        checked.map_err(|error| error.to_string())
    }

    const SOURCE: (&str, &str) = ("robustmq.source", "s3://bucket/images/");

    #[test]
    fn patterns_take_and_leave_out_objects() {
        let config = read(&[
            SOURCE,
            ("robustmq.source.include", "train/**/*.tar, val-*.tar"),
            ("robustmq.source.exclude", "**/broken-*"),
        ]);
        let source = config.expect("a legal configuration").source.expect("a source");
        for (name, taken) in [
            ("train/a/1.tar", true),
            ("train/1.tar", true),
            ("val-1.tar", true),
            ("other/val-1.tar", false),
            ("train/a/broken-1.tar", false),
            ("train/a/1.idx", false),
        ] {
            assert_eq!(source.takes(name), taken, "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        let check = |entry: (&str, &str), said: &str| {
            let why = read(&[SOURCE, entry]).expect_err(said);
            assert!(why.contains(said), "{why}");
        };
        check(("robustmq.source", "images"), "s3://BUCKET/PREFIX");
        check(("robustmq.source.format", "zip"), "webdataset");
        check(("robustmq.source.shuffle", "all"), "window:RECORDS");
        check(("robustmq.source.shuffle", "window:1"), "window:RECORDS");
        check(("robustmq.source.epochs", "0"), "1");
        check(("robustmq.source.include", "[a"), "unclosed");
        check(("robustmq.source.rows", "csv"), "arrow");
        check(("robustmq.source.columns", "a,b,a"), "named once");
        let tar = ("robustmq.source.format", "tar");
        for entry in [("robustmq.source.columns", "a"), ("robustmq.source.rows", "arrow")] {
            let why = read(&[SOURCE, tar, entry]).expect_err("no Parquet");
            assert!(why.contains(entry.0) && why.contains("it is for Parquet"), "{why}");
            read(&[SOURCE, entry]).expect("there may be Parquet");
        }
        // `retention.ms` was taken, and nothing was ever deleted.
        for name in super::STORED_ONLY {
            let why = set(&[SOURCE, (name, "-1")]).expect_err(name);
            assert!(why.contains(name) && why.contains("are not stored here"), "{why}");
            set(&[(name, "-1")]).expect("another topic");
        }
        let stray = read(&[("robustmq.source.epochs", "2")]).expect_err("no source");
        assert!(stray.contains("for topics with robustmq.source"), "{stray}");
    }
}
