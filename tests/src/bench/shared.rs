//! Members of a group that work: threads with a stock consumer each, which take a while for each record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::bench::kafka::{ANSWER, Kafka};

/// How long a member waits for a record before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(20);

/// When a member commits.
#[derive(Debug, Clone, Copy)]
pub enum Commits {
    /// As the client does by itself, this often.
    Automatic(Duration),
    /// After so many records.
    Each(u64),
}

/// How members work.
#[derive(Debug, Clone)]
pub struct Job {
    /// The topic.
    pub topic: String,
    /// `group.id`.
    pub group: String,
    /// What a record takes.
    pub work: Duration,
    /// When they commit.
    pub commits: Commits,
}

/// What a member has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Records.
    pub records: AtomicU64,
    /// Bytes of values.
    pub bytes: AtomicU64,
    /// Time spent on them, in microseconds.
    pub busy_us: AtomicU64,
    /// When the first one came.
    pub first: Mutex<Option<Instant>>,
    /// When the last one came.
    pub last: Mutex<Option<Instant>>,
}

/// A thread with a consumer.
pub struct Member {
    /// What it has done so far.
    pub done: Arc<Done>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Member {
    /// Starts one, which joins at once.
    ///
    /// # Errors
    /// When the client refuses its settings.
    pub fn start(kafka: &Kafka, job: &Job) -> anyhow::Result<Self> {
        let mut config = kafka.consumer_config();
        config.set("group.id", &job.group);
        config.set("auto.offset.reset", "earliest");
        if let Commits::Automatic(interval) = job.commits {
            config.set("enable.auto.commit", "true");
            config.set("auto.commit.interval.ms", interval.as_millis().to_string());
        }
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[&job.topic])?;
        let (done, stop) = (Arc::new(Done::default()), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (done, stop, job) = (done.clone(), stop.clone(), job.clone());
            move || work(&consumer, &job, &done, &stop)
        });
        Ok(Self { done, stop, thread })
    }

    /// Has it stop; it commits and leaves first.
    ///
    /// # Errors
    /// What it failed with.
    pub fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("a member panicked"))?
    }
}

#[expect(clippy::disallowed_methods, reason = "it stands for work on a thread of its own")]
fn work(consumer: &BaseConsumer, job: &Job, done: &Done, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut uncommitted = BTreeMap::new();
    let mut since = 0;
    while !stop.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(PATIENCE) else { continue };
        let message = message.context("consume")?;
        let began = Instant::now();
        set(&done.first, began, false);
        if !job.work.is_zero() {
            std::thread::sleep(job.work);
        }
        let spent = u64::try_from(began.elapsed().as_micros())?;
        done.busy_us.fetch_add(spent, Ordering::Relaxed);
        done.bytes.fetch_add(message.payload_len() as u64, Ordering::Relaxed);
        done.records.fetch_add(1, Ordering::Relaxed);
        set(&done.last, Instant::now(), true);
        if let Commits::Each(records) = job.commits {
            uncommitted.insert(message.partition(), message.offset() + 1);
            since += 1;
            if since >= records {
                commit(consumer, &job.topic, &uncommitted, CommitMode::Async)?;
                since = 0;
            }
        }
    }
    match job.commits {
        Commits::Automatic(_) => committed(consumer.commit_consumer_state(CommitMode::Sync)),
        Commits::Each(_) => commit(consumer, &job.topic, &uncommitted, CommitMode::Sync),
    }
}

fn set(place: &Mutex<Option<Instant>>, now: Instant, again: bool) {
    let mut place = place.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if again || place.is_none() {
        *place = Some(now);
    }
}

fn commit(
    consumer: &BaseConsumer,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
    mode: CommitMode,
) -> anyhow::Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    match offsets.is_empty() {
        true => Ok(()),
        false => committed(consumer.commit(&list, mode)),
    }
}

/// Nothing to commit is no failure.
fn committed(outcome: Result<(), KafkaError>) -> anyhow::Result<()> {
    match outcome {
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Produces `count` records of `bytes` each to `topic`, over its partitions in turn, in batches of about 64 KB. Blocks.
///
/// # Errors
/// When one is not acknowledged.
pub fn fill(
    kafka: &Kafka,
    topic: &str,
    partitions: i32,
    count: u64,
    bytes: usize,
) -> anyhow::Result<()> {
    let mut config = kafka.producer_config();
    config.set("linger.ms", "5").set("batch.size", "65536");
    let producer: BaseProducer = config.create()?;
    let value = vec![7_u8; bytes];
    for number in 0..count {
        let partition = i32::try_from(number / 64 % u64::try_from(partitions)?)?;
        let mut record: BaseRecord<'_, (), [u8]> =
            BaseRecord::to(topic).partition(partition).payload(&value);
        while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) =
            producer.send(record)
        {
            producer.poll(Duration::from_millis(10));
            record = back;
        }
        if number % 64 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(ANSWER)?;
    let found = kafka.watermarks(topic, partitions)?.ends();
    ensure!(found == i64::try_from(count)?, "{found} records of {count} are there");
    Ok(())
}
