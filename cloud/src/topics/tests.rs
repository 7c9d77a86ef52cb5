//! The catalogue over the memory engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::ObjectStore as _;
use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};

use super::{Catalogue, KEYS, NewTopic, TopicConfig, TopicError, apply_changes, describe};
use crate::entries::{ConfigChange, ConfigError, ConfigOp, ConfigSource, Rule};
use crate::log::{AppendContext, AppendRules, Budgets, Log, LogError, StorageMode, TierRules};
use crate::metrics::TierMetrics;
use crate::objects::Location;
use crate::objects::faulty::FaultyStore;
use crate::store::keys::Family;
use crate::store::keys::topic::deletion_key;
use crate::store::{MemoryStore, ScanLimit, Store, StoreError, WriteBatch, write};
use crate::tier::{Archive, Janitor, TierSettings};

mod dropped;
mod removal;

fn name(name: &str) -> KafkaTopic {
    KafkaTopic::new(name).expect("a legal name")
}

fn new_topic(topic: &str, partitions: i32) -> NewTopic {
    NewTopic::new(name(topic), partitions, BTreeMap::new())
}

fn entries(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn catalogue(store: &Arc<MemoryStore>) -> Arc<Catalogue> {
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    let topics = Arc::new(Catalogue::new(Arc::new(Log::new(store))));
    topics.removal().finish().await.expect("an intact store");
    topics
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("it fits");
    builder.build().expect("it fits")
}

#[tokio::test]
async fn topics_outlive_a_restart_and_are_found_by_name_and_id() {
    let store = Arc::new(MemoryStore::new());
    let topics = catalogue(&store).await;
    let mut wanted = new_topic("a", 3);
    wanted.overrides = entries(&[("retention.ms", "1000"), ("max.message.bytes", "5000")]);
    let created = topics.create(vec![wanted], false, 42).await.remove(0).expect("created");

    let after = catalogue(&Arc::new(store.crash(0))).await;
    let found = after.get(&name("a")).await.expect("readable").expect("there");
    assert_eq!(found, created);
    assert_eq!((found.partitions, found.created_ms), (3, 42));
    assert_eq!(found.config.max_message_bytes, 5000);
    assert_eq!(after.get_by_id(created.id).await, Ok(Some(created)));
    assert_eq!(after.get(&name("b")).await, Ok(None));
}

#[tokio::test]
async fn each_topic_of_a_request_gets_its_own_answer() {
    let store = Arc::new(MemoryStore::new());
    let topics = catalogue(&store).await;
    let mut wrong = new_topic("wrong", 1);
    wrong.overrides = entries(&[("retention.msec", "1")]);
    let request =
        vec![new_topic("a", 1), new_topic("a", 1), new_topic("none", 0), wrong, new_topic("b", 2)];
    let writes = store.stats().writes;
    let answers = topics.create(request, false, 0).await;
    assert!(answers[0].is_ok() && answers[4].is_ok());
    assert_eq!(answers[1], Err(TopicError::Exists(name("a"))));
    assert!(matches!(&answers[2], Err(TopicError::Partitions { .. })));
    let name = "retention.msec".to_owned();
    let unknown = ConfigError::Unknown { name, nearest: Some("retention.ms") };
    assert_eq!(answers[3], Err(TopicError::Config(unknown)));
    assert_eq!(store.stats().writes, writes + 1);
}

#[tokio::test]
async fn validate_only_changes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let topics = catalogue(&store).await;
    let version = topics.version();
    assert!(topics.create(vec![new_topic("a", 1)], true, 0).await[0].is_ok());
    assert_eq!(topics.get(&name("a")).await, Ok(None));
    topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    assert!(topics.version() > version);
    let version = topics.version();
    let wider = topics.create_partitions(&name("a"), 2, true).await.expect("legal");
    assert_eq!(wider.partitions, 2);
    assert_eq!(topics.get(&name("a")).await.expect("readable").expect("there").partitions, 1);
    assert_eq!(topics.version(), version);
}

#[tokio::test]
async fn partitions_grow_and_never_shrink() {
    let store = Arc::new(MemoryStore::new());
    let topics = catalogue(&store).await;
    topics.create(vec![new_topic("a", 2)], false, 0).await.remove(0).expect("created");
    let refused = topics.create_partitions(&name("a"), 2, false).await;
    assert!(matches!(refused, Err(TopicError::Partitions { from: 3, .. })), "{refused:?}");
    // It said `it may have 3 to 10000` of a topic that has 2.
    let said = refused.expect_err("checked").to_string();
    assert_eq!(said, "topic a has 2 partitions already; more can be added, up to 10000");
    let fewer = topics.create_partitions(&name("a"), 1, false).await.expect_err("fewer");
    let said = fewer.to_string();
    assert!(said.ends_with("it has 2, and partitions can only be added, up to 10000"), "{said}");
    let version = topics.version();
    topics.create_partitions(&name("a"), 5, false).await.expect("legal");
    assert!(topics.version() > version);
    assert_eq!(topics.get(&name("a")).await.expect("readable").expect("there").partitions, 5);
    let unknown = topics.create_partitions(&name("b"), 5, false).await;
    assert_eq!(unknown, Err(TopicError::Unknown(name("b"))));
}

#[tokio::test]
async fn a_listing_goes_page_by_page_in_order() {
    let store = Arc::new(MemoryStore::new());
    let topics = catalogue(&store).await;
    let request = (0..25).map(|n| new_topic(&format!("t-{n:02}"), 1)).collect();
    topics.create(request, false, 0).await;
    let mut seen = Vec::new();
    loop {
        let page = topics.list(seen.last(), 10).await.expect("readable");
        seen.extend(page.topics.iter().map(|topic| topic.name.clone()));
        if !page.more {
            break;
        }
    }
    let expected: Vec<_> = (0..25).map(|n| name(&format!("t-{n:02}"))).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing_and_its_name_starts_afresh() {
    let store = Arc::new(MemoryStore::new());
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    let old = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    let partition = log.partition(old.id, PartitionIndex(0)).await.expect("loaded");
    let append = || partition.append(batch(), &AppendContext::at(0));
    append().expect("taken").durable().await.expect("durable");

    topics.delete(&[name("a")]).await.remove(0).expect("deleted");
    assert!(append().is_err());
    assert_eq!(topics.removal().finish().await, Ok(1));
    let gone = log.partition(old.id, PartitionIndex(0)).await;
    assert_eq!(gone.err(), Some(LogError::Dropped(old.id)));
    assert_eq!(topics.get_by_id(old.id).await, Ok(None));
    for family in [Family::Partition, Family::TopicDeletion, Family::TopicId, Family::TopicName] {
        let page = store.scan(family.range(), ScanLimit::items(10)).await.expect("readable");
        assert_eq!(page.items, [], "{family:?}");
    }

    let new = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    assert_ne!(new.id, old.id);
    let partition = log.partition(new.id, PartitionIndex(0)).await.expect("loaded");
    assert_eq!(partition.offsets().high_watermark, Offset(0));
}

#[tokio::test]
async fn a_deletion_that_a_crash_interrupted_is_finished_at_the_next_start() {
    let store = Arc::new(MemoryStore::new());
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    let topic = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    let partition = log.partition(topic.id, PartitionIndex(0)).await.expect("loaded");
    let append = partition.append(batch(), &AppendContext::at(0)).expect("taken");
    append.durable().await.expect("durable");

    // The deletion is in the queue when the power goes; the disk got it, and not the range deletion after it.
    store.hold();
    let deletion = tokio::spawn(async move { topics.delete(&[name("a")]).await });
    while store.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let store = Arc::new(store.crash(1));
    let unanswered = deletion.await.expect("no panic").remove(0);
    assert_eq!(unanswered, Err(TopicError::Store(StoreError::Closed)));
    let left = store.scan(Family::Partition.range(), ScanLimit::items(10)).await;
    assert!(!left.expect("readable").items.is_empty());

    let topics = catalogue(&store).await;
    assert_eq!(topics.get(&name("a")).await, Ok(None));
    for family in [Family::Partition, Family::TopicDeletion] {
        let page = store.scan(family.range(), ScanLimit::items(10)).await.expect("readable");
        assert_eq!(page.items, [], "{family:?}");
    }
}

/// What is in the store can be read while its disk is full, so a deletion that was left over must not keep it from being opened.
#[tokio::test]
async fn a_left_over_deletion_waits_for_room_on_the_disk() {
    let store = Arc::new(MemoryStore::new());
    let mut left = WriteBatch::new();
    left.put(deletion_key(TopicId::random()), "");
    write(&*store, left).await.expect("written");
    store.set_full(true);
    write(&*store, WriteBatch::new()).await.expect_err("the disk is full");
    let topics = Arc::new(Catalogue::new(Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>))));
    assert_eq!(topics.list(None, 10).await.expect("readable").topics, []);
    assert!(matches!(topics.removal().finish().await, Err(StoreError::NoSpace(_))));
    store.set_full(false);
    assert_eq!(topics.removal().finish().await, Ok(1));
    let page = store.scan(Family::TopicDeletion.range(), ScanLimit::items(10)).await;
    assert_eq!(page.expect("readable").items, []);
}

#[tokio::test]
async fn a_failed_write_creates_nothing() {
    let store = Arc::new(MemoryStore::new());
    let topics = catalogue(&store).await;
    let full = StoreError::NoSpace("no room".to_owned());
    store.fail_next(full.clone());
    let answer = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0);
    assert_eq!(answer, Err(TopicError::Store(full)));
    assert_eq!(topics.get(&name("a")).await, Ok(None));
    topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("there is room again");
}

#[test]
fn values_are_checked_by_name_and_range() {
    let check = |name: &str, value: &str, legal: bool| {
        let parsed = TopicConfig::parse(&entries(&[(name, value)]));
        assert_eq!(parsed.is_ok(), legal, "{name}={value}: {parsed:?}");
    };
    check("retention.ms", "-1", true);
    check("retention.ms", "-2", false);
    check("retention.ms", "1d", false);
    check("max.message.bytes", "2147483648", false);
    check("cleanup.policy", "compact,delete", true);
    check("cleanup.policy", "shred", false);
    check("cleanup.policy", "", false);
    check("message.timestamp.type", "LogAppendTime", true);
    check("message.timestamp.type", "logappendtime", false);
    check("min.cleanable.dirty.ratio", "1.5", false);
    check("min.cleanable.dirty.ratio", "NaN", false);
    check("preallocate", "maybe", false);
    check("compression.type", "producer", true);
    check("compression.type", "zstd", false);
    check("robustmq.storage.mode", "persistent", true);
    check("robustmq.storage.mode", "memory", true);
    check("robustmq.storage.mode", "hybrid", true);
    check("robustmq.flush.ms", "0", false);
    check("robustmq.flush.ms", "60000", true);
    check("robustmq.flush.ms", "60001", false);
    check("robustmq.source", "s3://bucket/prefix/", true);
    check("robustmq.source", "bucket", false);
    check("robustmq.mqtt.topic", "plant/line", true);
    check("robustmq.mqtt.topic", &"x".repeat(5000), false);
    check("no.such.thing", "1", false);
}

#[test]
fn storage_modes_are_read_with_their_figures_and_refused_with_what_is_legal() {
    let mode = |set: &[(&str, &str)]| TopicConfig::parse(&entries(set)).map(|c| c.storage_mode);
    let of = |name| ("robustmq.storage.mode", name);
    assert_eq!(mode(&[]), Ok(StorageMode::Persistent));
    assert_eq!(mode(&[of("memory")]), Ok(StorageMode::MEMORY));
    let bounded = StorageMode::Memory { ring_bytes: Some(5000) };
    assert_eq!(mode(&[of("memory"), ("retention.bytes", "5000")]), Ok(bounded));
    assert_eq!(mode(&[of("hybrid")]), Ok(StorageMode::HYBRID));
    let slow = StorageMode::Hybrid { write_behind: Duration::from_secs(5) };
    assert_eq!(mode(&[of("hybrid"), ("robustmq.flush.ms", "5000")]), Ok(slow));
    let compacted = mode(&[of("memory"), ("cleanup.policy", "compact,delete")]);
    let error = compacted.expect_err("nothing is stored").to_string();
    assert!(error.contains("cleanup.policy") && error.contains("memory"), "{error}");
    let error = mode(&[of("disk")]).expect_err("no mode").to_string();
    assert!(error.ends_with("it is one of memory, hybrid, persistent, tiered"), "{error}");
    let tier = |set: &[(&str, &str)]| TopicConfig::parse(&entries(set)).map(|config| config.tier);
    assert_eq!(tier(&[]), Ok(None));
    let hour = TierRules { local_ms: 3_600_000, local_bytes: None, hot_bytes: 0 };
    assert_eq!(tier(&[of("tiered")]), Ok(Some(hour)));
    let all = [
        of("tiered"),
        ("robustmq.tier.local.ms", "5"),
        ("local.retention.bytes", "6"),
        ("robustmq.tier.hot.bytes", "7"),
    ];
    assert_eq!(tier(&all), Ok(Some(TierRules { local_ms: 5, local_bytes: Some(6), hot_bytes: 7 })));
    assert!(tier(&[of("tiered"), ("cleanup.policy", "compact")]).is_err());
}

#[tokio::test]
async fn a_changed_mode_is_in_effect_before_it_is_told() {
    let store = Arc::new(MemoryStore::new());
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    let mut new = new_topic("a", 1);
    new.overrides = entries(&[("robustmq.storage.mode", "hybrid")]);
    let topic = topics.create(vec![new], false, 0).await.remove(0).expect("created");
    let partition = log.partition(topic.id, PartitionIndex(0)).await.expect("there");
    let rules = topic.config.append_rules();
    let context = AppendContext { rules, ..AppendContext::at(0) };
    assert!(partition.append(batch(), &context).is_err(), "no offset is reserved");
    partition.ready().await.expect("reserved");
    partition.append(batch(), &context).expect("taken").durable().await.expect("acknowledged");
    let to = |mode: &str| {
        let op = ConfigOp::Set(mode.to_owned());
        [ConfigChange { name: "robustmq.storage.mode".to_owned(), op }]
    };
    // It cannot be written now, so the topic does not say that it is.
    let full = StoreError::NoSpace("no room".to_owned());
    store.fail_next(full.clone());
    let refused = topics.alter_config(&name("a"), &to("persistent"), false).await;
    assert_eq!(refused, Err(TopicError::Store(full)));
    let unchanged = topics.get(&name("a")).await.expect("readable").expect("there");
    assert_eq!(unchanged.config.storage_mode, StorageMode::HYBRID);
    topics.alter_config(&name("a"), &to("persistent"), false).await.expect("there is room");
    let log = Log::new(Arc::new(store.crash(0)));
    let partition = log.partition(topic.id, PartitionIndex(0)).await.expect("there");
    assert_eq!(partition.offsets().high_watermark, Offset(1));
}

#[test]
fn every_default_is_legal_and_names_are_sorted_within_their_family() {
    for key in KEYS {
        if let Some(default) = key.default {
            TopicConfig::parse(&entries(&[(key.name, default)])).expect(key.name);
        } else {
            assert!(matches!(key.rule, Rule::Only([], _) | Rule::Text), "{}", key.name);
        }
        assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1);
    }
    let config = TopicConfig::parse(&BTreeMap::new()).expect("defaults");
    assert_eq!(config.max_message_bytes, robustmq_common::limits::MAX_MESSAGE_BYTES);
    assert_eq!(config.retention.age, Some(std::time::Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(config.retention.bytes, None);
}

#[test]
fn compaction_is_asked_for_by_policy_and_its_lags_have_an_order() {
    let parse = |pairs: &[(&str, &str)]| TopicConfig::parse(&entries(pairs));
    assert_eq!(parse(&[]).expect("legal").compaction, None);
    let both = parse(&[("cleanup.policy", "compact,delete")]).expect("legal");
    assert!(both.retention.age.is_some());
    let defaults = both.compaction.expect("asked for");
    assert_eq!((defaults.min_dirty_millionths, defaults.min_lag_ms), (500_000, 0));
    assert_eq!((defaults.max_lag_ms, defaults.delete_retention_ms), (i64::MAX, 86_400_000));
    for (text, millionths) in [("0", 0), ("1.0", 1_000_000), ("0.25", 250_000), ("1e-2", 10_000)] {
        let policy = ("cleanup.policy", "compact");
        let config = parse(&[policy, ("min.cleanable.dirty.ratio", text)]).expect("legal");
        let found = config.compaction.expect("asked for").min_dirty_millionths;
        assert_eq!(found, millionths, "{text}");
    }
    let lags = |min, max| [("min.compaction.lag.ms", min), ("max.compaction.lag.ms", max)];
    assert!(parse(&lags("10", "10")).is_ok());
    assert!(parse(&lags("11", "10")).is_err());
}

#[test]
fn compact_only_topics_lose_nothing_by_age() {
    let config = TopicConfig::parse(&entries(&[("cleanup.policy", "compact")])).expect("legal");
    assert!(config.compaction.is_some());
    assert_eq!((config.retention.age, config.retention.bytes), (None, None));
}

#[test]
fn changes_set_delete_append_and_subtract() {
    let change = |name: &str, op| ConfigChange { name: name.to_owned(), op };
    let before = entries(&[("retention.ms", "5")]);
    let apply = |changes: &[ConfigChange]| apply_changes(&before, changes);
    let set = apply(&[change("segment.ms", ConfigOp::Set("7".to_owned()))]);
    assert_eq!(set, Ok(entries(&[("retention.ms", "5"), ("segment.ms", "7")])));
    assert_eq!(apply(&[change("retention.ms", ConfigOp::Delete)]), Ok(BTreeMap::new()));
    let appended =
        apply(&[change("cleanup.policy", ConfigOp::Append("compact".to_owned()))]).expect("a list");
    assert_eq!(appended["cleanup.policy"], "delete,compact");
    let emptied = apply(&[change("cleanup.policy", ConfigOp::Subtract("delete".to_owned()))]);
    assert!(matches!(emptied, Err(ConfigError::Invalid { .. })));
    let not_a_list = apply(&[change("retention.ms", ConfigOp::Append("1".to_owned()))]);
    assert!(matches!(not_a_list, Err(ConfigError::NotAList { .. })));
    let twice = [change("segment.ms", ConfigOp::Delete), change("segment.ms", ConfigOp::Delete)];
    assert!(matches!(apply(&twice), Err(ConfigError::Twice { .. })));
}

/// They were taken, and meant nothing.
#[test]
fn what_is_kept_here_is_a_part_of_what_is_kept() {
    let set = |before: &[(&str, &str)], name: &str, value: &str| {
        let op = ConfigOp::Set(value.to_owned());
        apply_changes(&entries(before), &[ConfigChange { name: name.to_owned(), op }]).is_ok()
    };
    let local = "local.retention.bytes";
    assert!(set(&[], local, "6"), "everything is kept");
    assert!(set(&[("retention.bytes", "6")], local, "6"));
    assert!(set(&[("retention.bytes", "6")], local, "-2"), "as much");
    assert!(!set(&[("retention.bytes", "6")], local, "7"));
    assert!(!set(&[("retention.bytes", "6")], local, "-1"), "no limit");
    assert!(!set(&[(local, "7")], "retention.bytes", "6"));
    assert!(!set(&[], "local.retention.ms", "604800001"), "the default of retention.ms");
    let taken_before = [("retention.bytes", "6"), (local, "7")];
    assert!(set(&taken_before, "segment.ms", "5"), "it is not touched");
    let source = [("robustmq.source", "s3://bucket/images/"), ("retention.ms", "5")];
    assert!(set(&source, "robustmq.source.pin", "true"), "nor is this");
    assert!(!set(&source, "retention.ms", "6"));
}

#[test]
fn a_description_says_where_values_come_from() {
    let overrides = entries(&[("retention.ms", "5")]);
    let entry = |name: &str| describe(&overrides).find(|e| e.key.name == name).expect(name);
    let (set, unset) = (entry("retention.ms"), entry("segment.ms"));
    assert_eq!((set.value, set.source), (Some("5"), ConfigSource::Resource));
    assert_eq!((unset.value, unset.source), (Some("604800000"), ConfigSource::Default));
    assert_eq!(entry("robustmq.source").value, None);
}

#[tokio::test]
async fn a_deleted_topic_takes_its_archived_objects_with_it() {
    let store = Arc::new(MemoryStore::new());
    let objects = FaultyStore::new(1);
    let location = Location { objects: objects.clone(), path: "tier".to_owned() };
    let archive = Arc::new(Archive::new(location, TierSettings::default(), TierMetrics::default()));
    let seam = Arc::clone(&store) as Arc<dyn Store>;
    let log = Log::with_archive(Arc::clone(&seam), Budgets::default(), Some(archive.clone()));
    let log = Arc::new(log);
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    let tiered = entries(&[("robustmq.storage.mode", "tiered"), ("robustmq.tier.local.ms", "0")]);
    for topic in ["goes", "stays"] {
        let new = NewTopic { overrides: tiered.clone(), ..new_topic(topic, 2) };
        let topic = topics.create(vec![new], false, 0).await.remove(0).expect("created");
        let rules = topic.config.tier.expect("tiered");
        for index in 0..2 {
            let partition = log.partition(topic.id, PartitionIndex(index)).await.expect("there");
            let pending = partition.append(batch(), &AppendContext::at(0)).expect("taken");
            pending.durable().await.expect("durable");
            let archived = partition.archive(&archive, &rules, i64::MAX).await;
            assert!(archived.expect("both stores work") > 0);
        }
    }
    let count = async || objects.list(None).count().await;
    assert_eq!(count().await, 4);
    topics.delete(&[name("goes")]).await.remove(0).expect("deleted");
    topics.removal().finish().await.expect("nothing fails");
    let mut janitor = Janitor::new(seam, archive);
    for now_ms in [0, 100_000, 2_000_000] {
        janitor.pass(now_ms).await.expect("nothing fails");
    }
    assert_eq!(count().await, 2);
    let left = async |family: Family| {
        let page = store.scan(family.range(), ScanLimit::items(10)).await;
        page.expect("readable").items.len()
    };
    assert_eq!((left(Family::Archived).await, left(Family::Doomed).await), (2, 0));
}
