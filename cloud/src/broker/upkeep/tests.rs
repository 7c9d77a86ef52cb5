//! Which partitions are looked at, and what that costs, with the clock in hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};

use super::Upkeeper;
use crate::entries::{ConfigChange, ConfigOp};
use crate::log::{AppendContext, AppendError, Budgets, Log, Partition, PartitionQueue};
use crate::metrics::TierMetrics;
use crate::objects::Location;
use crate::objects::faulty::FaultyStore;
use crate::store::{MemoryStore, Store};
use crate::tier::{Archive, TierSettings};
use crate::topics::{Catalogue, NewTopic, Topic};

struct World {
    store: Arc<MemoryStore>,
    log: Arc<Log>,
    topics: Arc<Catalogue>,
    cleaner: Arc<PartitionQueue>,
    archiver: Arc<PartitionQueue>,
    upkeeper: Upkeeper,
}

impl World {
    async fn over(store: MemoryStore) -> Self {
        let store = Arc::new(store);
        let location = Location { objects: FaultyStore::new(3), path: "tier".to_owned() };
        let archive = Archive::new(location, TierSettings::default(), TierMetrics::default());
        let seam = Arc::clone(&store) as Arc<dyn Store>;
        let log = Log::with_archive(seam, Budgets::default(), Some(Arc::new(archive)));
        let log = Arc::new(log);
        let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
        let [cleaner, archiver] = [(); 2].map(|()| Arc::new(PartitionQueue::default()));
        let (to_clean, to_archive) = (Arc::clone(&cleaner), Arc::clone(&archiver));
        let (catalogue, partitions) = (Arc::clone(&topics), Arc::clone(&log));
        let upkeeper = Upkeeper::new(catalogue, partitions, to_clean, to_archive, Duration::ZERO);
        Self { store, log, topics, cleaner, archiver, upkeeper }
    }

    async fn create(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Arc<Topic> {
        let entry = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let overrides: BTreeMap<_, _> = configs.iter().map(entry).collect();
        let name = KafkaTopic::new(name).expect("a legal name");
        let new = NewTopic::new(name, partitions, overrides);
        let mut answers = self.topics.create(vec![new], false, 0).await;
        answers.remove(0).expect("created")
    }

    async fn partition(&self, topic: &Topic, index: i32) -> Arc<Partition> {
        self.log.partition(topic.id, PartitionIndex(index)).await.expect("an intact store")
    }

    /// Appends a record that fills a chunk.
    async fn fill(&self, topic: &Topic, index: i32, timestamp_ms: i64) {
        let value = vec![0; limits::LOG_CHUNK_BYTES];
        let mut builder = BatchBuilder::new(Compression::None);
        let record = NewRecord { timestamp_ms, value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("it fits");
        let mut context = AppendContext::at(0);
        context.rules.max_batch_bytes = usize::MAX;
        let batch = builder.build().expect("it fits");
        let pending = self.partition(topic, index).await.append(batch, &context).expect("taken");
        pending.durable().await.expect("durable");
    }

    /// Takes a record of so many bytes into the memory of a `hybrid` partition.
    async fn take(&self, topic: &Topic, bytes: usize) -> Result<(), AppendError> {
        self.put(topic, bytes, 5000).await
    }

    /// Appends a record of so many bytes by the topic's rules.
    async fn put(&self, topic: &Topic, bytes: usize, timestamp_ms: i64) -> Result<(), AppendError> {
        let value = vec![0; bytes];
        let mut builder = BatchBuilder::new(Compression::None);
        let record = NewRecord { timestamp_ms, value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("it fits");
        let mut context =
            AppendContext { rules: topic.config.append_rules(), ..AppendContext::at(0) };
        context.rules.max_batch_bytes = usize::MAX;
        let batch = builder.build().expect("it fits");
        let pending = self.partition(topic, 0).await.append(batch, &context)?;
        pending.durable().await.map(drop)
    }

    async fn log_start(&self, topic: &Topic, index: i32) -> Offset {
        self.partition(topic, index).await.offsets().log_start_offset
    }
}

#[tokio::test]
async fn partitions_in_memory_are_looked_at_when_there_is_something_to_do() {
    let mut world = World::over(MemoryStore::new()).await;
    let topic = world.create("t", 1, &[("retention.ms", "1000")]).await;
    world.fill(&topic, 0, 5000).await;
    world.upkeeper.ask(5500).await;
    assert_eq!(world.log_start(&topic, 0).await, Offset(0));
    world.upkeeper.ask(6000).await;
    assert_eq!(world.log_start(&topic, 0).await, Offset(0), "not older than retention.ms yet");
    world.upkeeper.ask(6001).await;
    assert_eq!(world.log_start(&topic, 0).await, Offset(1));
    // What grew is looked at though no time has come.
    let change = |value: &str| {
        let op = ConfigOp::Set(value.to_owned());
        [ConfigChange { name: "retention.bytes".to_owned(), op }]
    };
    world.topics.alter_config(&topic.name, &change("1500000"), false).await.expect("changed");
    for _ in 0..3 {
        world.fill(&topic, 0, 9000).await;
    }
    world.upkeeper.ask(9000).await;
    assert_eq!(world.log_start(&topic, 0).await, Offset(2));
    // And so is a topic that was configured anew.
    world.topics.alter_config(&topic.name, &change("1"), false).await.expect("changed");
    world.upkeeper.ask(9100).await;
    assert_eq!(world.log_start(&topic, 0).await, Offset(3), "more than a byte is left");
}

/// Whatever found a partition empty said that nothing would come of age in it, which was true until its first records: they
/// stayed, past all retention, until a chunk was full.
#[tokio::test]
async fn what_comes_to_an_empty_partition_comes_of_age() {
    let mut world = World::over(MemoryStore::new()).await;
    let topic = world.create("t", 1, &[("retention.ms", "1000")]).await;
    for (now_ms, start) in [(5000, 0), (9000, 1)] {
        world.partition(&topic, 0).await;
        world.upkeeper.ask(now_ms).await;
        assert_eq!(world.log_start(&topic, 0).await, Offset(start));
        world.put(&topic, 10, now_ms).await.expect("acknowledged");
        world.upkeeper.ask(now_ms + 1000).await;
        assert_eq!(world.log_start(&topic, 0).await, Offset(start), "not of age yet");
        world.upkeeper.ask(now_ms + 1001).await;
        assert_eq!(world.log_start(&topic, 0).await, Offset(start + 1));
    }
}

/// Records that a look had found too young by the rules of that time stayed in the store for minutes after the topic was given
/// others.
#[tokio::test]
async fn a_tiered_topic_that_is_configured_anew_is_archived_by_its_new_rules() {
    let mut world = World::over(MemoryStore::new()).await;
    let topics = [
        world.create("t", 1, &[("robustmq.storage.mode", "tiered")]).await,
        world.create("u", 1, &[("robustmq.storage.mode", "tiered")]).await,
    ];
    for topic in &topics {
        world.put(topic, 10, 5000).await.expect("acknowledged");
    }
    world.upkeeper.ask(5100).await;
    let name = "robustmq.tier.local.ms".to_owned();
    let change = [ConfigChange { name, op: ConfigOp::Set("1000".to_owned()) }];
    world.topics.alter_config(&topics[0].name, &change, false).await.expect("changed");
    world.upkeeper.ask(5200).await;
    assert_eq!(world.archiver.take().now_or_never(), None, "little waits until it is twice as old");
    world.upkeeper.ask(7000).await;
    let id = (topics[0].id, PartitionIndex(0));
    assert_eq!(world.archiver.take().now_or_never(), Some(id));
    assert_eq!(world.archiver.take().now_or_never(), None, "nobody changed the other");
}

#[tokio::test]
async fn what_is_not_in_memory_is_found_by_the_walk_and_left_where_it_was() {
    let world = World::over(MemoryStore::new()).await;
    let topics = [
        world.create("a", 3, &[("retention.ms", "1000")]).await,
        world.create("b", 2, &[("retention.ms", "-1")]).await,
        world.create("c", 1, &[("retention.bytes", "0")]).await,
    ];
    for (topic, index) in [(0, 0), (0, 2), (1, 1), (2, 0)] {
        world.fill(&topics[topic], index, 5000).await;
    }
    let mut world = World::over(world.store.crash(0)).await;
    assert_eq!(world.log.loaded(), 0, "a start reads no partition");
    world.upkeeper.ask(1_000_000).await;
    world.upkeeper.step(1_000_000).await;
    assert_eq!((world.log.loaded(), world.upkeeper.walk.is_over), (0, true));
    for (topic, index, start) in [(0, 0, 1), (0, 1, 0), (0, 2, 1), (1, 1, 0), (2, 0, 1)] {
        let found = world.log_start(&topics[topic], index).await;
        assert_eq!(found, Offset(start), "topic {topic} partition {index}");
    }
}

#[tokio::test]
async fn the_walk_takes_small_steps_and_starts_anew_not_too_soon() {
    let mut world = World::over(MemoryStore::new()).await;
    let step = i32::try_from(limits::UPKEEP_STEP_PARTITIONS).expect("some");
    world.create("large", 2 * step + 1, &[]).await;
    let last = world.create("small", 1, &[("retention.ms", "1")]).await;
    world.fill(&last, 0, 0).await;
    world.log.unload((last.id, PartitionIndex(0)));
    for expected in [step, 2 * step] {
        world.upkeeper.step(1000).await;
        assert_eq!((world.upkeeper.walk.partition, world.upkeeper.walk.is_over), (expected, false));
    }
    world.upkeeper.step(1000).await;
    assert!(world.upkeeper.walk.is_over);
    assert_eq!(world.log_start(&last, 0).await, Offset(1));
    let interval = i64::try_from(limits::RETENTION_INTERVAL.as_millis()).expect("minutes");
    world.upkeeper.step(interval - 1).await;
    assert!(world.upkeeper.walk.is_over);
    world.upkeeper.step(interval).await;
    assert_eq!(world.upkeeper.walk.began_ms, interval);
    assert_eq!(world.upkeeper.walk.partition, step);
}

#[tokio::test]
async fn what_is_dirty_is_offered_to_the_cleaner_until_it_is_clean() {
    let mut world = World::over(MemoryStore::new()).await;
    let topic = world.create("t", 2, &[("cleanup.policy", "compact")]).await;
    world.create("other", 1, &[]).await;
    world.fill(&topic, 1, 5000).await;
    let id = (topic.id, PartitionIndex(1));
    for now_ms in [6000, 6001] {
        world.upkeeper.ask(now_ms).await;
        assert_eq!(world.cleaner.take().now_or_never(), Some(id), "at {now_ms}");
        assert_eq!(world.cleaner.take().now_or_never(), None);
    }
    let rules = topic.config.compaction.expect("asked for");
    let partition = world.partition(&topic, 1).await;
    let done = partition.compact(&rules, 7000, limits::COMPACTION_MAP_BYTES).await;
    assert!(done.expect("compacted").was_due);
    drop(partition);
    world.upkeeper.ask(7000).await;
    assert_eq!(world.cleaner.take().now_or_never(), None);
    // After a restart, what is dirty is found by the walk.
    world.fill(&topic, 0, 5000).await;
    let mut world = World::over(world.store.crash(0)).await;
    world.upkeeper.step(8000).await;
    let id = (topic.id, PartitionIndex(0));
    assert_eq!(world.cleaner.take().now_or_never(), Some(id));
    assert_eq!((world.cleaner.take().now_or_never(), world.log.loaded()), (None, 0));
}

const HYBRID: [(&str, &str); 2] = [("robustmq.storage.mode", "hybrid"), ("retention.ms", "1000")];

/// Retention asked for offsets that it does not need, which a full disk does not give: what would have made room was kept.
#[tokio::test]
async fn a_full_disk_does_not_keep_retention_from_making_room() {
    let world = World::over(MemoryStore::new()).await;
    let topic = world.create("t", 1, &HYBRID).await;
    let partition = world.partition(&topic, 0).await;
    assert_eq!(world.take(&topic, 1).await, Err(AppendError::NotReady));
    partition.ready().await.expect("offsets are reserved");
    world.take(&topic, limits::LOG_CHUNK_BYTES).await.expect("acknowledged");
    // In the open chunk, which is closed first.
    world.take(&topic, 10).await.expect("acknowledged");
    partition.flush().await.expect("written");
    let mut world = World::over(world.store.crash(0)).await;
    assert_eq!(world.take(&topic, 1).await, Err(AppendError::NotReady), "none are reserved");
    world.store.set_short_of_room(true);
    world.partition(&topic, 0).await.ready().await.expect_err("there is no room");
    world.upkeeper.ask(9000).await;
    assert_eq!(world.log_start(&topic, 0).await, Offset(2));
}

/// One partition that waited for room held up retention of all.
#[tokio::test]
async fn retention_waits_for_no_room_in_memory() {
    let mut world = World::over(MemoryStore::new()).await;
    let topic = world.create("t", 1, &HYBRID).await;
    let partition = world.partition(&topic, 0).await;
    assert_eq!(world.take(&topic, 1).await, Err(AppendError::NotReady));
    partition.ready().await.expect("offsets are reserved");
    world.take(&topic, limits::WRITE_BEHIND_BYTES).await.expect("acknowledged");
    world.store.hold();
    assert_eq!(world.take(&topic, 1).await, Err(AppendError::NotReady), "there is no room");
    world.upkeeper.ask(5500).now_or_never().expect("nothing to wait for");
}
