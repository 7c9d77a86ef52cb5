//! `kill -9` of the cloud while it works in the background: archiving, compaction, retention, changes of the storage mode, deletion,
//! moving what lives out of mostly dead segments. Over an S3 server that fails now and then. Afterwards every record that was
//! acknowledged is looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::tail;
use crate::s3::{FakeS3, Faults};
use crate::{TestCloud, eventually};

const BUCKET: &str = "chores";
/// Longer than any stall that is not a fault.
const PATIENCE: Duration = Duration::from_secs(60);
const IN_FLIGHT: usize = 50;
const KEYS: u64 = 40;
/// Of `retained`.
const RETAINED_BYTES: u64 = 3 << 20;

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: u32,
    /// Same seed, same waits and record sizes.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub kills: u32,
    /// Records acknowledged, by topic.
    pub acknowledged: BTreeMap<String, u64>,
    /// Mode changes that were answered.
    pub mode_changes: u32,
    /// Archived objects at the end.
    pub objects: usize,
    /// Files with values that were moved out of mostly dead segments, at the end.
    pub kept_segments: usize,
    /// Why the promises do not hold; empty if they do.
    pub faults: Vec<String>,
    pub took: Duration,
}

/// The topics that are written to all the time, with their configuration.
const TOPICS: [(&str, &[(&str, &str)]); 4] = [
    ("tiered", &[("robustmq.storage.mode", "tiered"), ("robustmq.tier.local.ms", "0")]),
    (
        "compacted",
        &[
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("max.compaction.lag.ms", "500"),
        ],
    ),
    ("retained", &[("retention.bytes", "3145728")]),
    ("changing", &[]),
];

/// The modes that `changing` goes through; what was acknowledged in `hybrid` counts when the next change is answered.
const MODES: [&str; 4] = ["hybrid", "tiered", "hybrid", "persistent"];

/// The value of record `number`: itself, and bytes that follow from it.
fn value(number: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(number);
    let bytes = match number % 10 {
        0 => rng.random_range(20_000..200_000),
        _ => rng.random_range(8..3000),
    };
    let mut value = vec![0; bytes];
    rng.fill(&mut value[8..]);
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

fn config(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka);
    config
}

/// Writes numbered records to one topic until it is told to stop.
struct Writer {
    task: JoinHandle<anyhow::Result<u64>>,
    /// Records below it are acknowledged.
    acknowledged: watch::Receiver<u64>,
}

impl Writer {
    fn start(
        kafka: &str,
        topic: &'static str,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let producer: FutureProducer = config(kafka)
            // A crash in `hybrid` takes acknowledged batches, of which an idempotent producer would never hear.
            .set("enable.idempotence", (topic != "changing").to_string())
            .set("max.in.flight.requests.per.connection", "5")
            .set("linger.ms", "2")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .set("reconnect.backoff.max.ms", "200")
            .set("retry.backoff.max.ms", "200")
            .create()?;
        let (told, acknowledged) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut waiting = FuturesOrdered::new();
            let mut next = 0_u64;
            while !*stop.borrow() || !waiting.is_empty() {
                if waiting.len() < IN_FLIGHT && !*stop.borrow() {
                    let (key, value) = (format!("key-{}", next % KEYS), value(next));
                    let record = FutureRecord::to(topic).key(&key).payload(&value);
                    match producer.send_result(record) {
                        Ok(delivery) => {
                            waiting.push_back(delivery);
                            next += 1;
                            continue;
                        }
                        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
                        Err((error, _)) => bail!("{topic}: {error}"),
                    }
                }
                if let Some(delivered) = waiting.next().await {
                    let number = next - waiting.len() as u64 - 1;
                    delivered?
                        .map_err(|(error, _)| anyhow::anyhow!("{topic} {number}: {error}"))?;
                    told.send_replace(number + 1);
                }
            }
            Ok(next)
        });
        Ok(Self { task, acknowledged })
    }

    fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }
}

struct World {
    s3: FakeS3,
    cloud: TestCloud,
    admin: AdminClient<DefaultClientContext>,
}

impl World {
    async fn start(seed: u64) -> anyhow::Result<Self> {
        let s3 = FakeS3::start(seed).await?;
        s3.create_bucket(BUCKET);
        s3.set_faults(Faults {
            failing: 30,
            truncated: 30,
            delay: Duration::from_millis(20),
            ..Faults::default()
        });
        let toml = format!(
            "[storage]\nupkeep_interval_ms = 100\nsegment_bytes = 1048576\ndead_bytes = 0\n[tier]\nobject_store = \"s3://{BUCKET}/here\"\n"
        );
        let cloud = TestCloud::start_in(&toml, s3.environment()).await?;
        let admin = config(&cloud.kafka()?).create()?;
        let world = Self { s3, cloud, admin };
        for (name, entries) in TOPICS {
            world.create(name, entries).await?;
        }
        Ok(world)
    }

    async fn create(&self, name: &str, entries: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        for (key, value) in entries {
            topic = topic.set(key, value);
        }
        for answer in self.admin.create_topics([&topic], &AdminOptions::new()).await? {
            answer.map_err(|(name, code)| anyhow::anyhow!("{name} was not created: {code}"))?;
        }
        Ok(())
    }

    /// Whether the broker has said that the mode is changed. If it died, nobody knows.
    async fn change_mode(&self, topic: &str, mode: &str) -> bool {
        let entries = [("robustmq.storage.mode", mode), ("robustmq.tier.local.ms", "0")];
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, value) in entries {
            change = change.set(key, value);
        }
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        match self.admin.alter_configs([&change], &options).await {
            Ok(answers) => answers.iter().all(Result::is_ok),
            Err(_) => false,
        }
    }

    /// Writes to a topic of its own and deletes it; the broker may die meanwhile.
    async fn come_and_go(&self, round: u32) -> anyhow::Result<()> {
        let name = format!("gone-{round}");
        let entries = [("robustmq.storage.mode", "tiered"), ("robustmq.tier.local.ms", "0")];
        self.create(&name, &entries).await?;
        let producer: FutureProducer = config(&self.cloud.kafka()?).create()?;
        for number in 0..20 {
            let value = value(number * 10);
            let record = FutureRecord::<(), _>::to(&name).payload(&value);
            let sent = producer.send(record, Duration::from_secs(5)).await;
            sent.map_err(|(error, _)| error)?;
        }
        for answer in self.admin.delete_topics(&[&name], &AdminOptions::new()).await? {
            answer.map_err(|(name, code)| anyhow::anyhow!("{name} was not deleted: {code}"))?;
        }
        Ok(())
    }

    /// Everything that a topic has: offset, key, number; with what is wrong with it.
    fn read_all(&self, topic: &str) -> anyhow::Result<Vec<(i64, String, u64)>> {
        let consumer: BaseConsumer = config(&self.cloud.kafka()?)
            .set("group.id", "account")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .create()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&partitions)?;
        let mut records = Vec::new();
        let mut last = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    let payload = message.payload().unwrap_or_default();
                    let number = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                    let number =
                        number.with_context(|| format!("{topic}: a record of no number"))?;
                    let offset = message.offset();
                    ensure!(payload == value(number), "{topic} {offset}: not what was written");
                    let key = String::from_utf8_lossy(message.key().unwrap_or_default());
                    records.push((offset, key.into_owned(), number));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
                // The S3 server fails now and then; what cannot be had is asked for again.
                other => {
                    let error = other.and_then(Result::err);
                    ensure!(
                        last.elapsed() < PATIENCE,
                        "{topic}: nothing comes any more after {:?}; {:?}, {error:?}",
                        records.last(),
                        consumer.fetch_watermarks(topic, 0, PATIENCE)
                    );
                }
            }
        }
    }
}

fn kept_segments(store: &Path) -> anyhow::Result<usize> {
    let mut kept = 0;
    for entry in std::fs::read_dir(store)? {
        kept += usize::from(entry?.path().extension().is_some_and(|ending| ending == "kept"));
    }
    Ok(kept)
}

/// What of `changing` has to be there: in `hybrid` what was acknowledged counts only when the mode was changed.
#[derive(Debug, Default)]
struct Ledger {
    /// Records below it were acknowledged durably, but for those that are exempt.
    counts: u64,
    is_volatile: bool,
    /// What crashes in `hybrid` may have taken.
    exempt: Vec<Range<u64>>,
}

impl Ledger {
    async fn change_mode(&mut self, world: &World, changing: &Writer, mode: &str) -> bool {
        self.note(changing);
        let before = changing.acknowledged();
        // From here on it may be so, whether there is an answer or not.
        self.is_volatile |= mode == "hybrid";
        let is_changed = world.change_mode("changing", mode).await;
        if is_changed && mode != "hybrid" {
            // What was acknowledged before was written first.
            self.counts = before.max(self.counts);
            self.is_volatile = false;
        }
        is_changed
    }

    /// What is acknowledged now counts, if it is durable.
    fn note(&mut self, changing: &Writer) {
        if !self.is_volatile {
            self.counts = changing.acknowledged().max(self.counts);
        }
    }

    /// The broker was killed.
    fn died(&mut self, changing: &Writer) {
        if self.is_volatile {
            let acknowledged = changing.acknowledged();
            self.exempt.push(self.counts..acknowledged);
            self.counts = acknowledged;
        }
    }
}

/// Runs the plan. Each line of progress goes to `say`. Needs a runtime with several threads.
///
/// # Errors
/// When something does not work at all; promises that do not hold are in [`Outcome::faults`].
pub async fn run(plan: &Plan, mut say: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::start(plan.seed).await?;
    let mut outcome = Outcome::default();
    let (stop, stopped) = watch::channel(false);
    let kafka = world.cloud.kafka()?;
    let writers = TOPICS
        .iter()
        .map(|(topic, _)| Writer::start(&kafka, topic, stopped.clone()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut ledger = Ledger::default();
    for round in 0..plan.rounds {
        let life = Duration::from_millis(rng.random_range(150..1500));
        let mode = MODES[round as usize % MODES.len()];
        let changing = &writers[3];
        let work = async {
            tokio::time::sleep(life / 4).await;
            let is_changed = ledger.change_mode(&world, changing, mode).await;
            outcome.mode_changes += u32::from(is_changed);
            // It may well fail: the broker dies.
            drop(world.come_and_go(round).await);
            std::future::pending::<()>().await;
        };
        drop(tokio::time::timeout(life, work).await);
        ledger.note(changing);
        world.cloud.kill9().await?;
        outcome.kills += 1;
        ledger.died(changing);
        world.cloud.start().await?;
        if round % 10 == 9 {
            let written: Vec<_> = writers.iter().map(Writer::acknowledged).collect();
            say(&format!("{} kills, {written:?} records acknowledged", outcome.kills));
        }
    }
    eventually("the mode is changed", PATIENCE, async || {
        Ok(world.change_mode("changing", "persistent").await.then_some(()))
    })
    .await?;
    stop.send_replace(true);
    let mut ends = Vec::new();
    for (writer, (topic, _)) in writers.into_iter().zip(TOPICS) {
        let end = tokio::time::timeout(PATIENCE, writer.task).await;
        let end = end.with_context(|| format!("{topic}: not all is acknowledged"))???;
        outcome.acknowledged.insert(topic.to_owned(), end);
        ends.push(end);
    }
    // Once more, with nothing on its way.
    world.cloud.kill9().await?;
    outcome.kills += 1;
    world.cloud.start().await?;
    let keys = world.s3.keys(BUCKET, "here/tier/");
    // Beside them lies the archive's marker.
    outcome.objects = keys.iter().filter(|key| !key.ends_with(".json")).count();
    outcome.kept_segments = kept_segments(&world.cloud.data().join("store"))?;
    // The S3 server goes on answering meanwhile.
    let found = tokio::task::block_in_place(|| account(&world, &ends, &ledger));
    outcome.faults =
        found.with_context(|| format!("the broker's log ends:\n{}", tail(&world.cloud.log())))?;
    outcome.faults.extend(world.cloud.unexpected_errors());
    outcome.took = began.elapsed();
    Ok(outcome)
}

/// What is missing, or too much.
fn account(world: &World, ends: &[u64], ledger: &Ledger) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    let numbers = |records: &[(i64, String, u64)]| -> Vec<u64> {
        records.iter().map(|(.., number)| *number).collect()
    };
    let tiered = numbers(&world.read_all("tiered")?);
    if tiered != (0..ends[0]).collect::<Vec<_>>() {
        faults.push(format!(
            "tiered: {} of {} records, or in another order",
            tiered.len(),
            ends[0]
        ));
    }

    let compacted = world.read_all("compacted")?;
    if !compacted.is_sorted_by(|(a, _, n), (b, _, m)| a < b && n < m) {
        faults.push("compacted: records in another order".to_owned());
    }
    let newest: BTreeMap<&str, u64> =
        compacted.iter().map(|(_, key, number)| (key.as_str(), *number)).collect();
    for number in ends[1].saturating_sub(KEYS)..ends[1] {
        let key = format!("key-{}", number % KEYS);
        let found = newest.get(key.as_str());
        if found != Some(&number) {
            faults.push(format!("compacted: {key} is {found:?} and not {number}"));
        }
    }

    let retained = numbers(&world.read_all("retained")?);
    let kept = retained.first().map_or(ends[2], |first| *first)..ends[2];
    if retained != kept.clone().collect::<Vec<_>>() {
        faults.push(format!("retained: {} records of {kept:?}", retained.len()));
    }
    let bytes: usize = retained.iter().map(|number| value(*number).len()).sum();
    if ends[2] > 1000 && (bytes as u64) < RETAINED_BYTES {
        faults.push(format!("retained: only {bytes} bytes are there"));
    }

    let changing = numbers(&world.read_all("changing")?);
    let found: BTreeSet<u64> = changing.into_iter().collect();
    let Ledger { counts, exempt, .. } = ledger;
    let is_exempt = |number: &u64| exempt.iter().any(|range| range.contains(number));
    let missing = (0..*counts).filter(|number| !found.contains(number) && !is_exempt(number));
    let missing: Vec<u64> = missing.collect();
    if !missing.is_empty() {
        let some: Vec<_> = missing.iter().take(10).collect();
        faults.push(format!("changing: {} of {counts} are missing: {some:?}", missing.len()));
    }
    Ok(faults)
}
