//! Produce throughput: as fast as one stock producer goes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::bench::cost::{Cost, Process, Watch};
use crate::bench::kafka::{ANSWER, Kafka};

/// Records between two looks at what was acknowledged, and at the clock.
const ROUND: u64 = 64;
/// The values of records are taken out of this many bytes, which do not compress.
pub(crate) const PATTERN_BYTES: usize = 128 * 1024;

/// What to produce.
#[derive(Debug, Clone)]
pub struct Plan {
    /// To which topic.
    pub topic: String,
    /// Its partitions; batches go to them in turn.
    pub partitions: i32,
    /// Bytes of a value.
    pub record_bytes: usize,
    /// `batch.size`.
    pub batch_bytes: usize,
    /// `linger.ms`.
    pub linger_ms: f64,
    /// How long.
    pub limit: Limit,
}

/// When a phase has gone on for long enough.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After this time.
    Time(Duration),
    /// After this many bytes of values, in GB.
    Gigabytes(f64),
}

impl Limit {
    fn is_reached(self, started: Instant, bytes: u64) -> bool {
        match self {
            Self::Time(length) => started.elapsed() >= length,
            Self::Gigabytes(most) => bytes as f64 >= most * 1e9,
        }
    }
}

/// Counts what the broker acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    records: AtomicU64,
    /// The first that failed.
    failed: Mutex<Option<String>>,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.records.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => note_failure(&self.failed, error),
        }
    }
}

/// Keeps the first failure.
pub(crate) fn note_failure(failed: &Mutex<Option<String>>, error: &KafkaError) {
    if let Ok(mut failed) = failed.lock() {
        failed.get_or_insert_with(|| error.to_string());
    }
}

/// Produces until the limit, waits for all acknowledgements. Blocks.
///
/// # Errors
/// When a record was not acknowledged.
pub fn run(kafka: &Kafka, process: Option<Process>, plan: &Plan) -> anyhow::Result<Cost> {
    let mut config = kafka.producer_config();
    config.set("batch.size", plan.batch_bytes.to_string());
    config.set("linger.ms", plan.linger_ms.to_string());
    let config = kafka.with_producer_settings(config);
    let producer: BaseProducer<Acknowledged> =
        config.create_with_context(Acknowledged::default())?;
    let pattern = pattern();
    // Metadata and the connection are not what is measured: the first record to each partition is sent before.
    for partition in 0..plan.partitions {
        send(&producer, plan, partition, &pattern[..plan.record_bytes])?;
    }
    let first = u64::try_from(plan.partitions)?;
    settle(&producer, first)?;

    let watch = Watch::start(process)?;
    let a_batch = (plan.batch_bytes / plan.record_bytes).max(1);
    let (mut sent, mut bytes, mut in_batch, mut partition) = (0u64, 0u64, 0, 0);
    while !(sent.is_multiple_of(ROUND) && plan.limit.is_reached(watch.started(), bytes)) {
        send(&producer, plan, partition, value(&pattern, sent, plan.record_bytes))?;
        sent += 1;
        bytes += plan.record_bytes as u64;
        in_batch += 1;
        if in_batch == a_batch {
            in_batch = 0;
            partition = (partition + 1) % plan.partitions;
        }
        if sent.is_multiple_of(ROUND) {
            producer.poll(Duration::ZERO);
        }
    }
    settle(&producer, first + sent)?;
    let mut cost = watch.stop(Instant::now(), sent, bytes)?;
    // What was sent before the clock started is on the broker too, and whoever counts there must find it.
    cost.uncounted_records = first;
    Ok(cost)
}

fn send(
    producer: &BaseProducer<Acknowledged>,
    plan: &Plan,
    partition: i32,
    value: &[u8],
) -> anyhow::Result<()> {
    let mut record =
        BaseRecord::<(), [u8], ()>::to(&plan.topic).partition(partition).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(1));
                record = back;
            }
            Err((error, _)) => bail!("{}: {error}", plan.topic),
        }
    }
}

/// Waits until all that was sent is acknowledged.
fn settle(producer: &BaseProducer<Acknowledged>, sent: u64) -> anyhow::Result<()> {
    // Not `flush`, which looks ten times a second only whether it is done.
    let begun = Instant::now();
    while producer.in_flight_count() > 0 && begun.elapsed() < ANSWER {
        producer.poll(Duration::from_millis(1));
    }
    let context = producer.context();
    if let Ok(failed) = context.failed.lock()
        && let Some(error) = &*failed
    {
        bail!("a record was not acknowledged: {error}");
    }
    let acknowledged = context.records.load(Ordering::Relaxed);
    ensure!(acknowledged == sent, "{acknowledged} of {sent} records were acknowledged");
    Ok(())
}

/// Bytes that do not compress.
pub(crate) fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    random.flatten().take(PATTERN_BYTES).collect()
}

/// The value of record `number`: neighbours differ.
pub(crate) fn value(pattern: &[u8], number: u64, bytes: usize) -> &[u8] {
    let room = pattern.len() - bytes.min(pattern.len());
    let start = usize::try_from(number.wrapping_mul(7919) % (room as u64 + 1)).unwrap_or(0);
    &pattern[start..start + bytes]
}
