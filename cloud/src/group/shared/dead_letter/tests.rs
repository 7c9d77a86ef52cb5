use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use robustmq_common::ids::{KafkaTopic, PartitionIndex, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};
use uuid::Uuid;

use super::{DeadLetters, DeliverError, Pools, give_up, topic_name};
use crate::entries::{ConfigChange, ConfigError, ConfigOp};
use crate::group::shared::config::GroupConfig;
use crate::group::shared::cursor::Token;
use crate::group::shared::pool::Offer;
use crate::group::shared::pools::{PoolError, SharedPool};
use crate::log::{AppendContext, Log, Partition};
use crate::store::MemoryStore;
use crate::store::keys::partition::PartitionKeys;

const GROUP: &str = "$shared/g";
const KNOWN: TopicId = TopicId(Uuid::from_u128(7));
const KEYS: PartitionKeys = PartitionKeys { topic: KNOWN, partition: PartitionIndex(0) };

/// Knows the name of one topic, and takes records for any other but `full`.
#[derive(Default)]
struct Letters {
    buried: Mutex<Vec<(String, i32)>>,
}

#[async_trait]
impl DeadLetters for Letters {
    async fn bury(&self, topic: &KafkaTopic, batch: RecordBatch) -> Result<(), String> {
        self.check(topic).await?;
        let letter = (topic.as_str().to_owned(), batch.records_count());
        self.buried.lock().expect("no panic").push(letter);
        Ok(())
    }

    async fn check(&self, topic: &KafkaTopic) -> Result<Option<TopicId>, String> {
        match topic.as_str() {
            "full" => Err("it takes nothing".to_owned()),
            name => Ok((name == "telemetry").then_some(KNOWN)),
        }
    }

    async fn name(&self, topic: TopicId) -> Option<String> {
        (topic == KNOWN).then(|| "telemetry".to_owned())
    }
}

struct World {
    letters: Arc<Letters>,
    pools: Arc<Pools>,
    partition: Arc<Partition>,
}

impl World {
    /// Over a partition of `telemetry` with five records.
    async fn open() -> Self {
        let log = Arc::new(Log::new(Arc::new(MemoryStore::new())));
        let partition = log.partition(KNOWN, PartitionIndex(0)).await.expect("a partition");
        partition.ready().await.expect("a store that works");
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..5 {
            batch.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("small");
        }
        let batch = batch.build().expect("a batch");
        let appended = partition.append(batch, &AppendContext::at(0)).expect("a good batch");
        appended.durable().await.expect("it is durable");
        let letters = Arc::new(Letters::default());
        let pools = Arc::new(Pools::new(log, Some(letters.clone())));
        Self { letters, pools, partition }
    }

    async fn pool(&self, dead_letter_topic: &str) -> Arc<SharedPool> {
        let topic = KafkaTopic::new(dead_letter_topic).expect("a legal name");
        let config = GroupConfig { dead_letter_topic: Some(topic), ..GroupConfig::default() };
        let token = Token::of(1);
        self.pools.enter(GROUP, KEYS, token, &Arc::new(config)).await.expect("a store that works")
    }

    async fn give_up(&self, dead_letter_topic: &str) -> Result<i64, DeliverError> {
        let pool = self.pool(dead_letter_topic).await;
        let offer = Offer { offsets: 0..5, deliveries: 3 };
        give_up(&self.pools, &pool, &self.partition, &offer).await?;
        let progress = self.pools.progress(GROUP, &KEYS).await.expect("a store that works");
        Ok(progress.expect("it has begun").start)
    }

    async fn alter(&self, group: &str, dead_letter_topic: &str) -> Result<(), PoolError> {
        let name = "robustmq.shared.dead.letter.topic".to_owned();
        let op = ConfigOp::Set(dead_letter_topic.to_owned());
        self.pools.alter_config(group, &[ConfigChange { name, op }], true).await
    }
}

/// The warning that records are given up told an id, which no tool takes.
#[tokio::test]
async fn a_topic_is_called_by_its_name_while_it_has_one() {
    let world = World::open().await;
    assert_eq!(topic_name(&world.pools, KNOWN).await, "telemetry");
    let deleted = TopicId(Uuid::from_u128(8));
    assert_eq!(topic_name(&world.pools, deleted).await, deleted.to_string());
}

/// A group that read its own dead-letter topic was given its letters again, for ever: five records became hundreds.
#[tokio::test]
async fn records_of_the_dead_letter_topic_itself_go_nowhere() {
    for (topic, expected) in [("lost", vec![("lost".to_owned(), 5)]), ("telemetry", Vec::new())] {
        let world = World::open().await;
        assert_eq!(world.give_up(topic).await, Ok(5), "all are given up");
        assert_eq!(*world.letters.buried.lock().expect("no panic"), expected, "{topic}");
    }
}

/// The warning named the dead-letter topic alone, and not who was held up where.
#[tokio::test]
async fn letters_that_cannot_be_put_anywhere_name_the_group_and_the_partition() {
    let refused = World::open().await.give_up("full").await.expect_err("it is full");
    assert_eq!(
        refused.to_string(),
        "records of telemetry 0 that group $shared/g gives up cannot be put into full: it takes nothing"
    );
}

#[tokio::test]
async fn a_dead_letter_topic_that_cannot_be_one_is_refused_when_it_is_set() {
    let world = World::open().await;
    let refused = |refused: Result<(), PoolError>, said: &str| {
        let Err(PoolError::Config(error)) = refused else { panic!("{refused:?}") };
        let is_named =
            matches!(&error, ConfigError::Invalid { name, .. } if name.contains("dead.letter"));
        assert!(is_named && error.to_string().contains(said), "{error}");
    };
    refused(world.alter(GROUP, "full").await, "it takes nothing");
    assert_eq!(world.alter(GROUP, "telemetry").await, Ok(()), "it does not read it yet");
    let pool = world.pool("lost").await;
    refused(world.alter(GROUP, "telemetry").await, "the group reads that topic itself");
    assert_eq!(world.alter("$shared/other", "telemetry").await, Ok(()), "another does not");
    world.pools.exit(&pool, Token::of(1));
    world.pools.settle(GROUP).await;
    assert_eq!(world.pools.loaded_progress(GROUP, &KEYS), None, "nobody is there any more");
    refused(world.alter(GROUP, "telemetry").await, "the group reads that topic itself");
}
