//! `kill -9` of the cloud under a `$shared/` group whose members come and go. Every record that was acknowledged to the producer is
//! acknowledged by one member, or given to another:
//!
//! - when the group says that nothing is left, each record has a commit that was answered, or whose answer was lost;
//! - none that was acknowledged is given to a member that asks for more afterwards;
//! - no member reads beside the group, at offsets of the log ([`late`]);
//! - of members that speak for themselves ([`brief`]), no two have a record at a time, and no two acknowledge it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use crate::process::tail;
use crate::{TestCloud, eventually};

pub mod account;
pub mod brief;
pub mod history;
pub mod late;
pub mod stock;

use self::account::{Counts, Shared, lock};

const TOPIC: &str = "jobs";
const GROUP: &str = "$shared/killed";
const PARTITIONS: i32 = 2;
/// Longer than any stall that is not a fault.
const PATIENCE: Duration = Duration::from_secs(90);
/// In each such round, and in the last one, the broker lives until it has given a silent member up.
const EXPIRY_ROUNDS: u32 = 10;

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the broker is killed.
    pub rounds: u32,
    /// Brief members that join in each round, at least.
    pub joins: u64,
    /// Same seed, same waits.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often the broker was killed.
    pub kills: u32,
    /// Members that came and went.
    pub counts: Counts,
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

/// Waits until enough members have come and gone.
async fn until_enough(
    account: &Shared,
    before: Counts,
    expiry: bool,
    joins: u64,
) -> anyhow::Result<()> {
    eventually("members come and go", PATIENCE, async || {
        let now = lock(account).counts;
        let enough = now.brief >= before.brief + joins
            && now.left > before.left
            && now.vanished > before.vanished
            && (!expiry || now.expired > before.expired);
        Ok(enough.then_some(()))
    })
    .await
}

fn told(round: u32, made: u64, account: &Shared) -> String {
    let known = lock(account);
    let Counts { stock, brief, left, vanished, expired, late } = known.counts;
    let (given, committed, faults) = (known.given(), known.acknowledged(), known.faults());
    format!(
        "round {round:>4}: {made:>8} made, {given:>8} given, {committed:>8} committed; members: {stock:>4} stock, {brief:>6} brief \
         ({left} left, {vanished} vanished, {expired} expired), {late:>3} late; {faults} faults"
    )
}

/// Runs a plan; `say` is told of each round.
///
/// # Errors
/// When something cannot be started, or members cannot join any more. What else the product does wrong is in the outcome.
pub async fn run(plan: &Plan, mut say: impl FnMut(String)) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let toml = format!(
        "[kafka]\ndefault_partitions = {PARTITIONS}\n[groups]\nmin_session_timeout_ms = {}\n",
        brief::SHORT_SESSION.as_millis()
    );
    let mut cloud = TestCloud::start_with(&toml).await?;
    let kafka = cloud.kafka()?;
    let account = Shared::default();
    let (produced, made) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let producing = tokio::task::spawn_blocking({
        let (kafka, produced, made) = (kafka.clone(), produced.clone(), made.clone());
        move || stock::produce(&kafka, &produced, &made)
    });
    let stop = CancellationToken::new();
    let crew = stock::Crew::start(&kafka, &account, plan.seed, &stop);
    // Then there is the topic.
    let begun = async || Ok((lock(&account).given() > 0).then_some(()));
    eventually("a member is given something", PATIENCE, begun).await?;
    let mut brief = brief::start(&kafka, &account, plan.seed, &stop);
    brief.spawn(late::run(kafka.clone(), account.clone(), stop.clone()));
    let mut outcome = Outcome::default();
    for round in 1..=plan.rounds {
        let before = lock(&account).counts;
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..2_500))).await;
        let expiry = round % EXPIRY_ROUNDS == 0 || round == plan.rounds;
        until_enough(&account, before, expiry, plan.joins).await?;
        cloud.kill9().await?;
        lock(&account).broker_was_killed();
        outcome.kills += 1;
        cloud.start().await?;
        lock(&account).broker_is_back();
        say(told(round, made.load(Ordering::Acquire), &account));
    }
    produced.cancel();
    outcome.produced = producing.await??;
    let done = async || Ok((brief::lag(&kafka).await? == Some(0)).then_some(()));
    let left = eventually("the group has nothing left", PATIENCE, done).await.err();
    stop.cancel();
    crew.join().await?;
    brief.join_all().await;
    outcome.faults.extend(left.map(|error| error.to_string()));
    let known = lock(&account);
    outcome.faults.extend(known.close(outcome.produced));
    outcome.counts = known.counts;
    (outcome.committed, outcome.again) = (known.acknowledged(), known.again());
    drop(known);
    let unexpected = cloud.unexpected_errors();
    ensure!(unexpected.is_empty(), "{unexpected:?}\n{}", tail(&cloud.log()));
    outcome.took = started.elapsed();
    Ok(outcome)
}
