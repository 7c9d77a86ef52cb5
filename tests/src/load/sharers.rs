//! `kill -9` of the cloud under a `$shared/` group whose members come and go. Afterwards every record that was acknowledged to the
//! producer has been given to somebody, and none that was acknowledged to a member was given to one that joined later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::process::tail;
use crate::{TestCloud, eventually};

const TOPIC: &str = "jobs";
const GROUP: &str = "$shared/killed";
const PARTITIONS: i32 = 2;
const MEMBERS: usize = 6;
/// Longer than any stall that is not a fault.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the broker is killed.
    pub rounds: u32,
    /// Same seed, same waits.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often the broker was killed.
    pub kills: u32,
    /// Members that joined.
    pub members: u64,
    /// Records that the broker has acknowledged to the producer.
    pub produced: u64,
    /// Records that members have committed, with an answer.
    pub committed: u64,
    /// Records that were given more than once.
    pub again: u64,
    /// Why the promises do not hold; empty if they do.
    pub faults: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// What all members know together.
#[derive(Default)]
struct Account {
    /// How often each record was given to somebody.
    given: BTreeMap<u64, u64>,
    /// When a commit of it was answered first.
    committed: HashMap<u64, Instant>,
    joined: u64,
    faults: Vec<String>,
}

type Shared = Arc<Mutex<Account>>;

fn lock(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.max.ms", "200");
    config
}

/// Writes numbered records until it is told to stop; returns how many were acknowledged.
fn produce(kafka: &str, stop: &AtomicBool, made: &AtomicU64) -> anyhow::Result<u64> {
    let producer: BaseProducer = config(kafka)
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("message.timeout.ms", PATIENCE.as_millis().to_string())
        .create()?;
    let mut next = 0_u64;
    while !stop.load(Ordering::Acquire) {
        // As many as are not acknowledged yet.
        if producer.in_flight_count() > 500 {
            producer.poll(POLL);
            continue;
        }
        let value = next.to_string();
        let partition = i32::try_from(next % u64::try_from(PARTITIONS)?)?;
        let record: BaseRecord<'_, (), str> =
            BaseRecord::to(TOPIC).partition(partition).payload(&value);
        match producer.send(record) {
            Ok(()) => next += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
            Err((error, _)) => return Err(error.into()),
        }
        producer.poll(Duration::from_millis(u64::from(next.is_multiple_of(8))));
        made.store(next, Ordering::Release);
    }
    producer.flush(PATIENCE).context("the last records are not acknowledged")?;
    Ok(next)
}

/// What a member was given and has not committed: numbers, and where the next record is.
#[derive(Default)]
struct Open {
    next: i64,
    numbers: Vec<u64>,
}

/// One life of a member: it joins, works, commits after a few records each time, and leaves.
fn be_a_member(kafka: &str, account: &Shared, stop: &AtomicBool, seed: u64) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let life = Duration::from_millis(rng.random_range(300..8_000));
    let each = rng.random_range(1..200_usize);
    let joined = Instant::now();
    lock(account).joined += 1;
    let consumer: BaseConsumer = config(kafka)
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .create()?;
    consumer.subscribe(&[TOPIC])?;
    let mut open: BTreeMap<i32, Open> = BTreeMap::new();
    while !stop.load(Ordering::Acquire) && joined.elapsed() < life {
        // What goes wrong with a broker that is killed passes.
        let Some(Ok(message)) = consumer.poll(POLL) else { continue };
        let number: u64 = std::str::from_utf8(message.payload().unwrap_or_default())?.parse()?;
        note(account, number, joined);
        let open_here = open.entry(message.partition()).or_default();
        // On another cursor, what was open on the last one is lost.
        if open_here.next >> 32 != message.offset() >> 32 {
            open_here.numbers.clear();
        }
        open_here.next = message.offset() + 1;
        open_here.numbers.push(number);
        if open.values().map(|open| open.numbers.len()).sum::<usize>() >= each {
            commit(&consumer, account, &mut open)?;
        }
    }
    commit(&consumer, account, &mut open)
}

fn note(account: &Shared, number: u64, joined: Instant) {
    let mut account = lock(account);
    *account.given.entry(number).or_default() += 1;
    if account.committed.get(&number).is_some_and(|committed| *committed < joined) {
        account.faults.push(format!(
            "record {number} was committed, and given to a member that joined afterwards"
        ));
    }
}

/// Commits what is open. A commit that fails, or whose answer is lost, commits nothing as far as the member knows.
fn commit(
    consumer: &BaseConsumer,
    account: &Shared,
    open: &mut BTreeMap<i32, Open>,
) -> anyhow::Result<()> {
    // Each partition by itself, so that the answer is about it.
    for (partition, open) in std::mem::take(open) {
        if open.numbers.is_empty() {
            continue;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, partition, Offset::Offset(open.next))?;
        if consumer.commit(&list, CommitMode::Sync).is_ok() {
            let now = Instant::now();
            let mut account = lock(account);
            for number in open.numbers {
                account.committed.entry(number).or_insert(now);
            }
        }
    }
    Ok(())
}

/// Members, each of which is followed by another one.
struct Crew {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    fn start(kafka: &str, account: &Shared, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |index: usize| {
            let (kafka, account, stop) = (kafka.to_owned(), account.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut life = 0;
                while !stop.load(Ordering::Acquire) {
                    let seed = seed ^ (index as u64) << 32 ^ life;
                    be_a_member(&kafka, &account, &stop, seed)?;
                    life += 1;
                }
                Ok(())
            })
        };
        Self { threads: (0..MEMBERS).map(start).collect(), stop }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                thread.join().map_err(|_| anyhow::anyhow!("a member panicked"))??;
            }
            Ok(())
        })
        .await?
    }
}

/// Runs a plan; `say` is told of each round.
///
/// # Errors
/// When something cannot be started. What the product does wrong is in the outcome.
pub async fn run(plan: &Plan, mut say: impl FnMut(String)) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut cloud = TestCloud::start_in("[kafka]\ndefault_partitions = 2\n", Vec::new()).await?;
    let kafka = cloud.kafka()?;
    let account = Shared::default();
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let producing = tokio::task::spawn_blocking({
        let (kafka, stop, made) = (kafka.clone(), stop.clone(), made.clone());
        move || produce(&kafka, &stop, &made)
    });
    let crew = Crew::start(&kafka, &account, plan.seed);
    let mut outcome = Outcome::default();
    for round in 1..=plan.rounds {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..2_500))).await;
        cloud.kill9().await?;
        outcome.kills += 1;
        cloud.start().await?;
        let known = lock(&account);
        let (given, committed) = (known.given.len(), known.committed.len());
        let (members, faults) = (known.joined, known.faults.len());
        drop(known);
        let made = made.load(Ordering::Acquire);
        say(format!(
            "round {round:>4}: {made:>8} made, {given:>8} given, {committed:>8} committed, {members:>5} members, {faults} faults"
        ));
    }
    stop.store(true, Ordering::Release);
    outcome.produced = producing.await??;
    let all = async || {
        let missing = outcome.produced - lock(&account).given.len() as u64;
        Ok((missing == 0).then_some(()))
    };
    let missing = eventually("every record is given to somebody", PATIENCE, all).await.err();
    crew.stop().await?;
    let known = lock(&account);
    if missing.is_some() {
        let lost: BTreeSet<u64> =
            (0..outcome.produced).filter(|n| !known.given.contains_key(n)).collect();
        let first: Vec<_> = lost.iter().take(10).collect();
        outcome.faults.push(format!("{} records were given to nobody: {first:?}", lost.len()));
    }
    outcome.faults.extend(known.faults.iter().take(20).cloned());
    outcome.members = known.joined;
    outcome.committed = known.committed.len() as u64;
    outcome.again = known.given.values().filter(|times| **times > 1).count() as u64;
    drop(known);
    let unexpected = cloud.unexpected_errors();
    ensure!(unexpected.is_empty(), "{unexpected:?}\n{}", tail(&cloud.log()));
    outcome.took = started.elapsed();
    Ok(outcome)
}
