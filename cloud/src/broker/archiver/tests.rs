//! The archiver with partitions that fail, the clock in hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};

use super::Archiver;
use crate::broker::kept_log::KeptLog;
use crate::log::{AppendContext, Budgets, Log, Partition, PartitionId, PartitionQueue};
use crate::metrics::TierMetrics;
use crate::objects::Location;
use crate::objects::faulty::FaultyStore;
use crate::store::{MemoryStore, Store, WriteBatch, write};
use crate::tier::{Archive, TierSettings};
use crate::topics::{Catalogue, NewTopic};

pub(in crate::broker) struct World {
    pub store: Arc<MemoryStore>,
    pub objects: Arc<FaultyStore>,
    pub topics: Arc<Catalogue>,
    pub log: Arc<Log>,
    pub metrics: TierMetrics,
    pub due: Arc<PartitionQueue>,
    pub archiver: Archiver,
}

impl World {
    pub fn new() -> Self {
        let (store, objects) = (Arc::new(MemoryStore::new()), FaultyStore::new(3));
        let location = Location { objects: objects.clone(), path: "tier".to_owned() };
        let metrics = TierMetrics::default();
        let archive = Arc::new(Archive::new(location, TierSettings::default(), metrics.clone()));
        let seam = Arc::clone(&store) as Arc<dyn Store>;
        let log = Arc::new(Log::with_archive(seam, Budgets::default(), Some(archive.clone())));
        let topics = Arc::new(Catalogue::new(log.clone()));
        let due = Arc::<PartitionQueue>::default();
        let archiver = Archiver::new(topics.clone(), log.clone(), archive, due.clone());
        Self { store, objects, topics, log, metrics, due, archiver }
    }

    /// A partition with a closed chunk that is old enough.
    pub async fn due(&self, name: &str) -> Arc<Partition> {
        let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let overrides = BTreeMap::from([
            entry("robustmq.storage.mode", "tiered"),
            entry("robustmq.tier.local.ms", "0"),
        ]);
        let name = KafkaTopic::new(name).expect("a legal name");
        let new = NewTopic::new(name, 1, overrides);
        let topic = self.topics.create(vec![new], false, 0).await.remove(0).expect("created");
        let partition = self.log.partition(topic.id, PartitionIndex(0)).await.expect("loads");
        let value = vec![0; limits::LOG_CHUNK_BYTES];
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord { value: Some(&value), ..NewRecord::default() }).expect("it fits");
        let mut context =
            AppendContext { rules: topic.config.append_rules(), ..AppendContext::at(0) };
        context.rules.max_batch_bytes = usize::MAX;
        let pending = partition.append(builder.build().expect("it fits"), &context);
        pending.expect("taken").durable().await.expect("durable");
        partition
    }

    /// As a look that finds it due: whether the archiver goes on at once, and how many failures there were.
    pub async fn offer(&mut self, partition: &Partition) -> (bool, u64) {
        let keys = partition.keys();
        let id: PartitionId = (keys.topic, keys.partition);
        let goes_on = self.archiver.archive_one(id, 1000).await;
        (goes_on, self.metrics.failures.get())
    }
}

/// A partition with a damaged batch was tried again each time before any other, and each time all waited for five seconds.
#[tokio::test(start_paused = true)]
async fn a_partition_that_fails_is_put_off_and_holds_up_no_other() {
    let mut world = World::new();
    let (bad, good) = (world.due("bad").await, world.due("good").await);
    let key = bad.keys().batch(Offset(0));
    let batch = world.store.get(&key).await.expect("readable").expect("there");
    let damage = async |world: &World, value: &[u8]| {
        let mut damage = WriteBatch::new();
        damage.put(key.clone(), value.to_vec());
        write(&*world.store, damage).await.expect("written");
    };
    damage(&world, b"short").await;
    assert_eq!(world.offer(&bad).await, (true, 1));
    for _ in 0..10 {
        assert_eq!(world.offer(&bad).await, (true, 1), "it is put off");
    }
    assert_eq!(world.offer(&good).await, (true, 1));
    assert_eq!(good.local_start(), Offset(1));
    // Each time for twice as long.
    let mut failures = 1;
    for times in [1, 2, 4, 8] {
        assert_eq!(world.metrics.put_off_partitions.get(), 1);
        tokio::time::advance(limits::tier::RETRY * times).await;
        failures += 1;
        assert_eq!(world.offer(&bad).await, (true, failures));
    }
    damage(&world, &batch).await;
    tokio::time::advance(limits::tier::RETRY_MOST).await;
    assert_eq!(world.offer(&bad).await, (true, failures));
    assert_eq!((bad.local_start(), world.metrics.put_off_partitions.get()), (Offset(1), 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_object_store_answers_again_nobody_stays_put_off() {
    let mut world = World::new();
    let partitions = [world.due("a").await, world.due("b").await, world.due("c").await];
    world.objects.set_down(true);
    for (partition, failures) in partitions[..2].iter().zip(1..) {
        assert_eq!(world.offer(partition).await, (false, failures));
    }
    for _ in 0..20 {
        tokio::time::advance(limits::tier::RETRY_OUTAGE_MOST).await;
        assert!(!world.offer(&partitions[0]).await.0, "not for longer than that");
    }
    world.objects.set_down(false);
    assert!(world.offer(&partitions[0]).await.0);
    assert_eq!(partitions[0].local_start(), Offset(0), "it is put off");
    for partition in partitions.iter().rev() {
        assert!(world.offer(partition).await.0);
        assert_eq!(partition.local_start(), Offset(1));
    }
    assert_eq!(world.metrics.put_off_partitions.get(), 0);
}

/// There was one line, with a topic's id and `index=0`, and all others that were held up were silent.
#[tokio::test(start_paused = true)]
async fn an_outage_is_told_now_and_then_with_a_name_and_how_many_it_holds_up() {
    let (log, _guard) = KeptLog::listen();
    let mut world = World::new();
    let partitions = [world.due("a").await, world.due("b").await, world.due("c").await];
    for partition in &partitions {
        world.due.offer((partition.keys().topic, partition.keys().partition), 1);
    }
    world.objects.fail_with("Error performing PUT http://169.254.169.254/latest/api/token");
    let tries = 2 * limits::tier::TOLD_AGAIN.as_secs() / limits::tier::RETRY_OUTAGE_MOST.as_secs();
    for _ in 0..tries {
        for partition in &partitions {
            let goes_on = world.offer(partition).await.0;
            assert!(!goes_on);
        }
        tokio::time::advance(limits::tier::RETRY_OUTAGE_MOST).await;
    }
    let told = log.warnings("");
    assert_eq!(told.len(), 2, "{told:?}");
    for part in ["topic=a", "partition=0", "partitions=3", "AWS_ACCESS_KEY_ID"] {
        assert!(told[0].contains(part), "{part}: {told:?}");
    }
}

/// Warnings had a topic's id.
#[tokio::test(start_paused = true)]
async fn a_partition_that_fails_by_itself_is_told_by_name_once() {
    let (log, _guard) = KeptLog::listen();
    let mut world = World::new();
    let bad = world.due("bad").await;
    let mut damage = WriteBatch::new();
    damage.put(bad.keys().batch(Offset(0)), "short");
    write(&*world.store, damage).await.expect("written");
    for _ in 0..3 {
        world.offer(&bad).await;
        tokio::time::advance(limits::tier::RETRY_MOST).await;
    }
    let told = log.warnings("topic=bad partition=0");
    assert_eq!((told.len(), log.warnings("").len()), (1, 1), "{told:?}");
}
