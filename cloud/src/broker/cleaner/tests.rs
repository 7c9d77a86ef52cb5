//! The cleaner together with what feeds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};
use tokio_util::sync::CancellationToken;

use super::Cleaner;
use crate::broker::kept_log::KeptLog;
use crate::broker::upkeep::Upkeeper;
use crate::log::{AppendContext, Log, Partition, PartitionQueue};
use crate::metrics::Metrics;
use crate::store::{MemoryStore, Store, WriteBatch, write};
use crate::topics::{Catalogue, NewTopic};

struct World {
    store: Arc<MemoryStore>,
    metrics: Arc<Metrics>,
    partition: Arc<Partition>,
    dirty: Arc<PartitionQueue>,
    cleaner: Cleaner,
    upkeeper: Upkeeper,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
        let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
        let name = KafkaTopic::new("compacted").expect("a legal name");
        let overrides = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let new = NewTopic::new(name, 1, overrides);
        let topic = topics.create(vec![new], false, 0).await.remove(0).expect("created");
        let partition = log.partition(topic.id, PartitionIndex(0)).await.expect("readable");
        let (metrics, dirty) = (Arc::new(Metrics::default()), Arc::default());
        let cleaner =
            Cleaner::new(topics.clone(), log.clone(), Arc::clone(&dirty), metrics.clone());
        let upkeeper =
            Upkeeper::new(topics, log, Arc::clone(&dirty), Arc::default(), limits::UPKEEP_INTERVAL);
        Self { store, metrics, partition, dirty, cleaner, upkeeper }
    }

    /// Appends a batch of one record that fills a chunk.
    async fn fill(&self, key: &str) {
        let value = vec![0; limits::LOG_CHUNK_BYTES];
        let mut builder = BatchBuilder::new(Compression::None);
        let (key, value) = (Some(key.as_bytes()), Some(&value[..]));
        builder.push(&NewRecord { key, value, ..NewRecord::default() }).expect("it fits");
        let mut context = AppendContext::at(0);
        context.rules.max_batch_bytes = usize::MAX;
        let batch = builder.build().expect("it fits");
        let pending = self.partition.append(batch, &context).expect("taken");
        pending.durable().await.expect("durable");
    }
}

fn first_offset(batch: bytes::Bytes) -> Offset {
    RecordBatch::parse(batch).expect("intact").base_offset()
}

#[tokio::test(start_paused = true)]
async fn a_dirty_partition_is_compacted_within_a_few_rounds_of_upkeep() {
    let world = World::new().await;
    for key in ["a", "b", "a"] {
        world.fill(key).await;
    }
    let shutdown = CancellationToken::new();
    let tasks = [
        tokio::spawn(world.upkeeper.run(|| 1_000_000, shutdown.clone())),
        tokio::spawn(world.cleaner.run(|| 1_000_000, shutdown.clone())),
    ];
    let compacted = async {
        while world.metrics.compaction_passes.get() == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), compacted).await.expect("in time");
    let read = world.partition.read(Offset(0), 1).await.expect("in range");
    assert_eq!(first_offset(read.batches[0].clone()), Offset(1));
    assert!(world.metrics.compaction_removed_bytes.get() > limits::LOG_CHUNK_BYTES as u64);
    shutdown.cancel();
    for task in tasks {
        task.await.expect("it ends");
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_put_off() {
    let (log, _guard) = KeptLog::listen();
    let mut world = World::new().await;
    world.fill("a").await;
    world.fill("a").await;
    let key = world.partition.keys().batch(Offset(0));
    let mut bytes = world.store.get(&key).await.expect("readable").expect("there").to_vec();
    bytes[61..].fill(0xff);
    let mut damage = WriteBatch::new();
    damage.put(key, bytes);
    write(&*world.store, damage).await.expect("written");

    let retry_ms = i64::try_from(limits::COMPACTION_RETRY.as_millis()).expect("an hour");
    for (now_ms, failures) in [(0, 1), (retry_ms - 1, 1), (retry_ms, 2)] {
        world.upkeeper.ask(now_ms).await;
        let id = world.dirty.take().await;
        world.cleaner.clean(id, now_ms).await;
        assert_eq!(world.metrics.compaction_failures.get(), failures, "at {now_ms}");
    }
    assert_eq!(world.metrics.compaction_passes.get(), 0);
    assert_eq!(log.warnings("topic=compacted partition=0").len(), 2, "by name");
}
