//! Every topic configuration entry: name, type, default, rule, documentation. Kafka's names, types and defaults are those of
//! Apache Kafka 4.1.

use std::time::Duration;

use robustmq_common::limits;

use crate::entries::{ConfigKey, Rule, Table, key, unset};

const I32: i64 = i32::MAX as i64;
const I64: i64 = i64::MAX;
const LONG_MAX: &str = "9223372036854775807";
const NO_SEGMENTS: &str =
    "Accepted for Kafka's sake, without effect: topics have no files of their own.";
const NO_REPLICAS: &str =
    "Accepted for Kafka's sake, without effect: durability comes from the store's sync.";
const STORED_AS_SENT: &str = "records are stored as their producer compressed them";

#[expect(clippy::cast_possible_truncation, reason = "minutes at most, and a constant")]
const fn millis(duration: Duration) -> i64 {
    duration.as_millis() as i64
}

use crate::entries::ConfigType::{Boolean, Double, Int, List, Long, String as Text};

/// All of them, by name.
#[rustfmt::skip]
pub static KEYS: &[ConfigKey] = &[
    key("cleanup.policy", List, "delete", Rule::AnyOf(&["delete", "compact"]),
        "What happens to old records: `delete` drops them by age and size; `compact` drops all but the last record of each key, except in the newest megabyte, and takes only records with a key."),
    key("compression.gzip.level", Int, "-1", Rule::Number(-1, 9), "Accepted for Kafka's sake, without effect: records are stored as sent."),
    key("compression.lz4.level", Int, "9", Rule::Number(1, 17), "Accepted for Kafka's sake, without effect: records are stored as sent."),
    key("compression.type", Text, "producer", Rule::Only(&["producer"], STORED_AS_SENT),
        "How records are stored: always as their producer compressed them."),
    key("compression.zstd.level", Int, "3", Rule::Number(-131_072, 22), "Accepted for Kafka's sake, without effect: records are stored as sent."),
    key("delete.retention.ms", Long, "86400000", Rule::Number(0, I64), "How long tombstones stay after they were first compacted."),
    key("file.delete.delay.ms", Long, "60000", Rule::Number(0, I64), NO_SEGMENTS),
    key("flush.messages", Long, LONG_MAX, Rule::Number(1, I64), "Accepted for Kafka's sake, without effect: see robustmq.storage.mode."),
    key("flush.ms", Long, LONG_MAX, Rule::Number(0, I64), "Accepted for Kafka's sake, without effect: see robustmq.storage.mode."),
    key("follower.replication.throttled.replicas", List, "", Rule::Text, NO_REPLICAS),
    key("index.interval.bytes", Int, "4096", Rule::Number(0, I32), NO_SEGMENTS),
    key("leader.replication.throttled.replicas", List, "", Rule::Text, NO_REPLICAS),
    key("local.retention.bytes", Long, "-2", Rule::Number(-2, I64), "What the storage mode `tiered` keeps of each partition on the broker's own disk, whatever its age; -1 and -2: no limit."),
    key("local.retention.ms", Long, "-2", Rule::Number(-2, I64), "Accepted for Kafka's sake, without effect."),
    key("max.compaction.lag.ms", Long, LONG_MAX, Rule::Number(1, I64), "A record is compacted at the latest when its timestamp is so old, also in the newest megabyte."),
    key("max.message.bytes", Int, "1048588", Rule::Number(0, I32), "The largest record batch taken, in bytes as sent."),
    key("message.timestamp.after.max.ms", Long, LONG_MAX, Rule::Number(0, I64), "Accepted for Kafka's sake, without effect: gateways without a clock are normal here."),
    key("message.timestamp.before.max.ms", Long, LONG_MAX, Rule::Number(0, I64), "Accepted for Kafka's sake, without effect: backfill is normal here."),
    key("message.timestamp.type", Text, "CreateTime", Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whether records keep their producer's timestamp or get the broker's."),
    key("min.cleanable.dirty.ratio", Double, "0.5", Rule::Fraction(0.0, 1.0), "Compaction starts when more than this part of a partition was not compacted yet."),
    key("min.compaction.lag.ms", Long, "0", Rule::Number(0, I64), "Records are not compacted before their timestamp is so old."),
    key("min.insync.replicas", Int, "1", Rule::Number(1, I32), NO_REPLICAS),
    key("preallocate", Boolean, "false", Rule::Boolean, NO_SEGMENTS),
    key("remote.storage.enable", Boolean, "false", Rule::Only(&["false"], "use robustmq.storage.mode=tiered"),
        "Kafka's tiered storage; here it is the storage mode `tiered`."),
    key("retention.bytes", Long, "-1", Rule::Number(-1, I64), "Bytes that a partition keeps at least before old records are deleted; -1 is no limit."),
    key("retention.ms", Long, "604800000", Rule::Number(-1, I64), "How long records are kept at least; -1 is forever."),
    key("segment.bytes", Int, "1073741824", Rule::Number(1, I32), NO_SEGMENTS),
    key("segment.index.bytes", Int, "10485760", Rule::Number(4, I32), NO_SEGMENTS),
    key("segment.jitter.ms", Long, "0", Rule::Number(0, I64), NO_SEGMENTS),
    key("segment.ms", Long, "604800000", Rule::Number(1, I64), NO_SEGMENTS),
    key("unclean.leader.election.enable", Boolean, "false", Rule::Boolean, NO_REPLICAS),
    key("robustmq.flush.ms", Long, "200", Rule::Number(millis(limits::WRITE_BEHIND_MIN), millis(limits::WRITE_BEHIND_MAX)),
        "How long the storage mode `hybrid` may hold what it acknowledged before it is written: what a crash may lose."),
    unset("robustmq.mqtt.topic", Text, Rule::Text, "The MQTT topic that this topic appears under."),
    unset("robustmq.source", Text, Rule::Text, "`s3://bucket/prefix/` or `file:///dir`: makes it a dataset topic, which serves the objects there, and is read-only. Set when the topic is created."),
    key("robustmq.source.columns", List, "", Rule::Text, "The top-level columns of Parquet files that are read; all, if there are none. Set when the topic is created."),
    key("robustmq.source.epochs", Int, "1", Rule::Number(1, 1_000_000), "How often a dataset is repeated in the log."),
    key("robustmq.source.cache.weight", Int, "100", Rule::Number(1, limits::dataset::WEIGHT_MOST as i64), "What share of a dataset the cache keeps, beside others that do not fit either: twice as much, twice the share."),
    key("robustmq.source.exclude", List, "", Rule::Text, "Patterns of objects to leave out, relative to the source: `*` within a folder, `**` across folders, `{a,b}`, `{000..127}`. Set when the topic is created."),
    key("robustmq.source.format", Text, "auto", Rule::OneOf(&["auto", "webdataset", "tar", "object", "parquet", "jsonl", "mds", "tfrecord"]),
        "How the source's objects are read; `auto` goes by the name of each. Set when the topic is created."),
    key("robustmq.source.include", List, "", Rule::Text, "Patterns of objects to take; all, if there is none. Set when the topic is created."),
    key("robustmq.source.index", Text, "lazy", Rule::OneOf(&["lazy", "eager"]), "Whether records are counted as they are read (`lazy`: the end of the log grows with it), or all at once."),
    key("robustmq.source.on.corrupt", Text, "skip", Rule::OneOf(&["skip", "stop"]), "A sample that cannot be read: left out, counted and listed; or the log ends before it."),
    key("robustmq.source.on.large", Text, "skip", Rule::OneOf(&["skip", "chunk"]), "A record larger than robustmq.source.record.max.bytes: left out, counted and listed; or, of objects and the files of tars, each stretch of that size is a record. Set when the topic is created."),
    key("robustmq.source.pin", Boolean, "false", Rule::Boolean, "Whether what of a dataset is in the cache goes last, also when nobody reads it."),
    key("robustmq.source.record.max.bytes", Int, "67108864", Rule::Number(*limits::dataset::RECORD_BYTES_RANGE.start() as i64, *limits::dataset::RECORD_BYTES_RANGE.end() as i64), "The largest record that the readers of a dataset can take, with all its parts. Set when the topic is created."),
    key("robustmq.source.rows", Text, "json", Rule::OneOf(&["json", "arrow"]), "What rows of Parquet files become: `json` a record for each, `arrow` a record of about 512 KB for some together, a stream in Arrow's IPC format. Set when the topic is created."),
    key("robustmq.source.seed", Long, "0", Rule::Number(0, I64), "What the order of a shuffled dataset is made from. Set when the topic is created."),
    key("robustmq.source.shuffle", Text, "none", Rule::Text, "The order: `none` as listed, `shards` objects in another order each epoch, `window:RECORDS` records within windows of so many as well. Set when the topic is created."),
    key("robustmq.source.value", List, "", Rule::Text, "Of a sample with several members, the extensions that become the record's value, best first; the largest member, if none is there. The others become headers. Set when the topic is created."),
    key("robustmq.storage.mode", Text, "persistent", Rule::OneOf(&["memory", "hybrid", "persistent", "tiered"]),
        "When records are acknowledged: `memory` when they are in memory, where they stay; `hybrid` when they are in memory, from where they are written every robustmq.flush.ms; `persistent` when they are synced; `tiered` as well, and old ones move to object storage."),
    key("robustmq.tier.hot.bytes", Long, "0", Rule::Number(0, I64), "Of what the storage mode `tiered` archives at once, so many of the newest bytes go into the cache."),
    key("robustmq.tier.local.ms", Long, "3600000", Rule::Number(0, I64), "How long the storage mode `tiered` keeps records on the broker's own disk: older ones move to object storage, 32 MB at once, and less than that when they are twice as old."),
];

/// The same, to look things up in.
pub static TABLE: Table = Table(KEYS);
