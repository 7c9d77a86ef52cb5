//! Readers that jump about: the worst that a cache can be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::bench::dataset::reader::place_of;
use crate::bench::kafka::{ANSWER, Kafka};
use crate::dataset::account::Catalogue;

const PATIENCE: Duration = Duration::from_millis(50);

/// What readers do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic, with one partition and one epoch.
    pub topic: String,
    /// Readers at the same time.
    pub readers: u64,
    /// Each goes to so many places.
    pub jumps: usize,
    /// And reads so many records there.
    pub records: usize,
}

/// Has all of them read. The longest that one waited for a record. Blocks.
///
/// # Errors
/// When a record has other bytes, or none comes for long.
pub fn read(kafka: &Kafka, plan: &Plan, catalogue: &Arc<Catalogue>) -> anyhow::Result<Duration> {
    std::thread::scope(|scope| {
        let one = |seed: u64| move || jump(kafka, plan, catalogue, seed);
        let threads: Vec<_> = (0..plan.readers).map(|seed| scope.spawn(one(seed))).collect();
        let waited = threads.into_iter().map(|thread| {
            thread.join().map_err(|_| anyhow::anyhow!("a reader panicked")).flatten()
        });
        waited
            .collect::<anyhow::Result<Vec<_>>>()
            .map(|all| all.into_iter().max().unwrap_or_default())
    })
}

fn jump(
    kafka: &Kafka,
    plan: &Plan,
    catalogue: &Arc<Catalogue>,
    seed: u64,
) -> anyhow::Result<Duration> {
    let mut config = kafka.consumer_config();
    // What is read ahead by the client is thrown away with each jump.
    config.set("queued.max.messages.kbytes", "1024");
    config.set("fetch.message.max.bytes", "1048576");
    let consumer: BaseConsumer = config.create()?;
    let mut rng = SmallRng::seed_from_u64(seed);
    let samples = catalogue.dataset().samples.len();
    let mut longest = Duration::ZERO;
    for _ in 0..plan.jumps {
        let first =
            i64::try_from(rng.random_range(0..samples.saturating_sub(plan.records).max(1)))?;
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&plan.topic, 0, Offset::Offset(first))?;
        consumer.assign(&at)?;
        for number in 0..plan.records.min(samples) {
            let began = Instant::now();
            let message = loop {
                if let Some(message) = consumer.poll(PATIENCE) {
                    break message.context("consume")?;
                }
                ensure!(began.elapsed() < ANSWER, "no record for {ANSWER:?} at {first}");
            };
            ensure!(message.offset() == first + i64::try_from(number)?, "another offset");
            place_of(catalogue, &message)?;
            longest = longest.max(began.elapsed());
        }
    }
    Ok(longest)
}
