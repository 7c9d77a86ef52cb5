//! How long an acknowledgement takes at a fixed rate, from when the record was due: a generator that falls behind hides nothing.

use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde::Serialize;

use crate::bench::cost::{Cost, Process, Watch};
use crate::bench::kafka::{ANSWER, Kafka};
use crate::bench::produce::{note_failure, pattern, value};

/// Between two looks at which records are due.
const TICK: Duration = Duration::from_micros(200);

/// What to produce.
#[derive(Debug, Clone)]
pub struct Plan {
    /// To which topic, of one partition.
    pub topic: String,
    /// Bytes of a value.
    pub record_bytes: usize,
    /// Records a second.
    pub rate: u32,
    /// `linger.ms`.
    pub linger_ms: f64,
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub length: Duration,
}

impl Plan {
    fn records(&self, length: Duration) -> usize {
        let records = u128::from(self.rate) * length.as_nanos() / 1_000_000_000;
        usize::try_from(records).unwrap_or(usize::MAX)
    }

    /// When record `number` is due.
    fn due(&self, number: usize) -> Duration {
        Duration::from_nanos((number as u64).saturating_mul(1_000_000_000) / u64::from(self.rate))
    }
}

/// Of many durations, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Half were as quick.
    pub p50_ms: f64,
    /// All but one of a hundred.
    pub p99_ms: f64,
    /// All but one of a thousand.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// How many.
    pub count: usize,
}

impl Percentiles {
    /// Sorts them.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(mut taken: Vec<Duration>) -> anyhow::Result<Self> {
        ensure!(!taken.is_empty(), "nothing was measured");
        taken.sort_unstable();
        // The least value that so many of a thousand do not exceed.
        let at = |of_thousand: usize| {
            let rank = (taken.len() * of_thousand).div_ceil(1000).max(1);
            taken[rank - 1].as_secs_f64() * 1e3
        };
        Ok(Self {
            p50_ms: at(500),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
            count: taken.len(),
        })
    }
}

/// What a run found.
pub struct Measured {
    /// From when a record was due to its acknowledgement.
    pub acknowledgement: Percentiles,
    /// From when a record was due to when the client had it: what this machine, or the client, adds.
    pub late: Percentiles,
    /// After the warm-up.
    pub cost: Cost,
}

/// Notes how long each record took.
struct Acknowledgements {
    plan: Plan,
    first_counted: usize,
    started: OnceLock<Instant>,
    taken: Mutex<Vec<Duration>>,
    failed: Mutex<Option<String>>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    /// The record's number.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Err((error, _)) = result {
            note_failure(&self.failed, error);
            return;
        }
        if let Some(started) = self.started.get()
            && let Ok(mut taken) = self.taken.lock()
        {
            taken.push(started.elapsed().saturating_sub(self.plan.due(number)));
        }
    }
}

/// Produces at the rate. Blocks.
///
/// # Errors
/// When a record was not acknowledged.
pub fn run(kafka: &Kafka, process: Option<Process>, plan: &Plan) -> anyhow::Result<Measured> {
    let first_counted = plan.records(plan.warm_up);
    let records = first_counted + plan.records(plan.length);
    let mut config = kafka.producer_config();
    config.set("linger.ms", plan.linger_ms.to_string());
    let config = kafka.with_producer_settings(config);
    let producer: ThreadedProducer<Acknowledgements> =
        config.create_with_context(Acknowledgements {
            plan: plan.clone(),
            first_counted,
            started: OnceLock::new(),
            taken: Mutex::new(Vec::with_capacity(records)),
            failed: Mutex::default(),
        })?;
    // The connection and the topic's metadata come first.
    producer.client().fetch_metadata(Some(&plan.topic), ANSWER)?;
    let pattern = pattern();
    let started = *producer.context().started.get_or_init(Instant::now);
    let generator = Generator { producer: &producer, plan, pattern: &pattern, started };
    generator.send(0, first_counted)?;
    let watch = Watch::start(process)?;
    let late = generator.send(first_counted, records)?;
    producer.flush(ANSWER)?;
    let taken = producer.context().taken(records)?;
    let last = taken.last().copied().unwrap_or_default();
    let ended = started + plan.due(records.saturating_sub(1)) + last;
    let counted = records - first_counted;
    let mut cost = watch.stop(ended, counted as u64, counted as u64 * plan.record_bytes as u64)?;
    cost.uncounted_records = first_counted as u64;
    Ok(Measured { acknowledgement: Percentiles::of(taken)?, late: Percentiles::of(late)?, cost })
}

impl Acknowledgements {
    /// Of the records that count, in their order: one partition acknowledges them so.
    fn taken(&self, sent: usize) -> anyhow::Result<Vec<Duration>> {
        if let Ok(failed) = self.failed.lock()
            && let Some(error) = &*failed
        {
            bail!("a record was not acknowledged: {error}");
        }
        let Ok(mut taken) = self.taken.lock() else { bail!("the client's thread panicked") };
        ensure!(taken.len() == sent, "{} of {sent} records were acknowledged", taken.len());
        Ok(taken.split_off(self.first_counted))
    }
}

struct Generator<'a> {
    producer: &'a ThreadedProducer<Acknowledgements>,
    plan: &'a Plan,
    pattern: &'a [u8],
    started: Instant,
}

impl Generator<'_> {
    /// Sends these records, each when it is due or as soon after as the client takes it; how late that was.
    fn send(&self, from: usize, to: usize) -> anyhow::Result<Vec<Duration>> {
        let mut next = from;
        let mut late = Vec::with_capacity(to - from);
        while next < to {
            let due_since = self.started.elapsed().checked_sub(self.plan.due(next));
            match due_since {
                Some(behind) if self.send_one(next)? => {
                    late.push(behind);
                    next += 1;
                }
                _ => thread::park_timeout(TICK),
            }
        }
        Ok(late)
    }

    /// Whether the client took it; its queue may be full.
    fn send_one(&self, number: usize) -> anyhow::Result<bool> {
        let value = value(self.pattern, number as u64, self.plan.record_bytes);
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.plan.topic, number)
            .partition(0)
            .payload(value);
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => bail!("{}: {error}", self.plan.topic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let taken: Vec<Duration> = (1..=1000).rev().map(Duration::from_millis).collect();
        let found = Percentiles::of(taken).unwrap();
        let found = [found.p50_ms, found.p99_ms, found.p999_ms, found.max_ms];
        assert!(
            found.iter().zip([500.0, 990.0, 999.0, 1000.0]).all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?}"
        );
        assert!(Percentiles::of(vec![Duration::from_millis(3)]).unwrap().p50_ms > 2.9);
        assert!(Percentiles::of(Vec::new()).is_err());
    }
}
