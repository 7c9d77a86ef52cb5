//! Consume throughput: all of a topic, by one stock consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::bench::cost::{Cost, Process, Watch};
use crate::bench::kafka::{ANSWER, Kafka, Watermarks};

/// How long it waits for a record before it looks whether that was the last.
const PATIENCE: Duration = Duration::from_millis(50);

/// Up to where the consumer goes; known late where the producer still runs.
#[derive(Debug, Clone)]
pub struct Goal(Arc<AtomicI64>);

impl Goal {
    /// Not known yet.
    #[must_use]
    pub fn unknown() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }

    /// All that there is.
    #[must_use]
    pub fn all_of(found: &Watermarks) -> Self {
        Self(Arc::new(AtomicI64::new(found.ends())))
    }

    /// Sets it: the sum of what comes after the last offset of each partition.
    pub fn set(&self, ends: i64) {
        self.0.store(ends, Ordering::Release);
    }

    fn is_reached(&self, positions: i64) -> bool {
        positions >= self.0.load(Ordering::Acquire)
    }
}

/// A consumer that has been told what to read, but has not been asked for a record yet.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Of each partition.
    next_offsets: Vec<i64>,
    goal: Goal,
    watch: Watch,
}

impl Reader {
    /// Assigns every partition, from where it starts. The clock runs from here. Blocks.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn start(
        kafka: &Kafka,
        process: Option<Process>,
        topic: &str,
        from: &Watermarks,
        goal: Goal,
    ) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = kafka.consumer_config().create()?;
        let next_offsets: Vec<i64> = from.partitions.iter().map(|(low, _)| *low).collect();
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(&next_offsets) {
            assignment.add_partition_offset(topic, partition, Offset::Offset(*offset))?;
        }
        let watch = Watch::start(process)?;
        consumer.assign(&assignment)?;
        Ok(Self { consumer, topic: topic.to_owned(), next_offsets, goal, watch })
    }

    /// Reads up to the goal.
    ///
    /// # Errors
    /// When records stop coming before, or come in a wrong order.
    pub fn read(mut self) -> anyhow::Result<Cost> {
        let mut positions: i64 = self.next_offsets.iter().sum();
        let (mut records, mut bytes) = (0u64, 0u64);
        let mut last = Instant::now();
        while !self.goal.is_reached(positions) {
            let Some(message) = self.consumer.poll(PATIENCE) else {
                ensure!(
                    last.elapsed() < ANSWER,
                    "{}: no record for {ANSWER:?} after {records}; positions {:?}",
                    self.topic,
                    self.next_offsets
                );
                continue;
            };
            let message = message.with_context(|| format!("consume {}", self.topic))?;
            last = Instant::now();
            let partition = usize::try_from(message.partition())?;
            let next = self.next_offsets.get_mut(partition).context("a partition of the topic")?;
            let offset = message.offset();
            ensure!(offset >= *next, "{}-{partition}: {offset} after {next}", self.topic);
            positions += offset + 1 - *next;
            *next = offset + 1;
            records += 1;
            bytes += message.payload_len() as u64;
        }
        self.watch.stop(last, records, bytes)
    }
}
