//! Rounds of `kill -9` under load, and the account afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::account::Account;
use super::device::{Device, DeviceReport, Fleet, Quality};
use crate::clients::kcat;
use crate::{TestCloud, TestEdge, eventually};

/// Longer than any stall that is not a fault.
const PROGRESS: Duration = Duration::from_secs(90);
const DRAIN: Duration = Duration::from_secs(300);

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rounds: u32,
    /// Same seed, same victims and same waits (not the same interleaving).
    pub seed: u64,
    pub devices_of_each_quality: u32,
    pub interval: Duration,
}

/// What a round kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Edge,
    Cloud,
    Both,
}

impl Victim {
    fn of(round: u32) -> Self {
        match round % 3 {
            0 => Self::Edge,
            1 => Self::Cloud,
            _ => Self::Both,
        }
    }

    fn edge(self) -> bool {
        self != Self::Cloud
    }

    fn cloud(self) -> bool {
        self != Self::Edge
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub edge_kills: u32,
    pub cloud_kills: u32,
    pub reports: Vec<DeviceReport>,
    pub account: Account,
    /// ERROR lines and panics in the logs.
    pub errors: Vec<String>,
    pub took: Duration,
}

impl Outcome {
    /// Why the promises do not hold; empty if they do.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.account.broken(quality_of).into_iter().map(ToString::to_string).collect();
        for report in &self.reports {
            if report.sessions_lost > 0 {
                faults.push(format!(
                    "{}: {} kept sessions lost",
                    report.client_id, report.sessions_lost
                ));
            }
        }
        let account = &self.account;
        if !account.sequences_hold() {
            let [repeated, missing, absent] =
                [account.sequences_repeated, account.sequences_missing, account.sequences_absent];
            faults.push(format!("edge sequences: {repeated} repeated, {missing} missing; {absent} records without one"));
        }
        faults.extend(self.errors.iter().map(|line| format!("logged: {line}")));
        faults
    }
}

const EXACTLY_ONCE: &str = "qos2-";

fn quality_of(client_id: &str) -> Quality {
    if client_id.starts_with(EXACTLY_ONCE) { Quality::ExactlyOnce } else { Quality::AtLeastOnce }
}

fn devices(plan: &Plan) -> Vec<Device> {
    let names = ["qos1-", EXACTLY_ONCE].into_iter();
    names
        .flat_map(|prefix| {
            (0..plan.devices_of_each_quality).map(move |index| format!("{prefix}{index}"))
        })
        .map(|client_id| Device {
            topic: format!("kills/{client_id}"),
            quality: quality_of(&client_id),
            client_id,
            interval: plan.interval,
            window: 16,
            payload: Arc::new(|number| format!("{number} {:x<100}", "").into_bytes()),
        })
        .collect()
}

/// Runs the plan on a cloud and an edge of its own. `progress` hears of every round.
///
/// # Errors
/// When a server does not start again, a device stalls, or the queue never drains. What the account found is no error here: see
/// [`Outcome::faults`].
pub async fn run(plan: &Plan, mut progress: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut cloud = TestCloud::start().await?;
    let mut edge = TestEdge::start("kills", &cloud.uplink()?).await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut fleet = Fleet::start(&edge.mqtt()?, &devices(plan));
    let (mut edge_kills, mut cloud_kills) = (0, 0);
    for round in 0..plan.rounds {
        let victim = Victim::of(round);
        one_round(victim, &mut cloud, &mut edge, &mut fleet, &mut random)
            .await
            .with_context(|| format!("round {} of {} ({victim:?})", round + 1, plan.rounds))?;
        edge_kills += u32::from(victim.edge());
        cloud_kills += u32::from(victim.cloud());
        let acknowledged = fleet.acknowledged();
        progress(&format!("round {}: killed {victim:?}, {acknowledged} acknowledged", round + 1));
    }
    let reports = fleet.finish(PROGRESS).await?;
    edge.drained(DRAIN).await?;
    progress("devices finished, queue drained; reading the log");
    let logs = read_logs(&cloud.kafka()?, &reports).await?;
    let account = Account::of(&reports, &logs)?;
    let errors = [cloud.unexpected_errors(), edge.unexpected_errors()].concat();
    // Reported as faults: the harness need not panic over them as well.
    cloud.expect_error("");
    edge.expect_error("");
    Ok(Outcome { edge_kills, cloud_kills, reports, account, errors, took: started.elapsed() })
}

async fn one_round(
    victim: Victim,
    cloud: &mut TestCloud,
    edge: &mut TestEdge,
    fleet: &mut Fleet,
    random: &mut StdRng,
) -> anyhow::Result<()> {
    more_acknowledged(fleet, random.random_range(20..400)).await?;
    if victim.cloud() {
        // The cloud is killed at work, not while the uplink still waits to connect again.
        edge.uplinked_more(random.random_range(1..200), PROGRESS).await?;
    }
    if victim.cloud() {
        cloud.kill9().await?;
    }
    if victim.edge() {
        edge.kill9().await?;
        edge.start().await?;
    } else {
        // An outage that leaves something to replay.
        more_acknowledged(fleet, random.random_range(20..400)).await?;
    }
    if victim.cloud() {
        cloud.start().await?;
    }
    Ok(())
}

async fn more_acknowledged(fleet: &mut Fleet, count: u64) -> anyhow::Result<()> {
    let wanted = fleet.acknowledged() + count;
    eventually("devices get acknowledgements", PROGRESS, async || {
        fleet.check()?;
        Ok((fleet.acknowledged() >= wanted).then_some(()))
    })
    .await
}

/// Each device's topic as a Kafka client reads it, by MQTT topic.
///
/// # Errors
/// When the client fails.
pub async fn read_logs(
    kafka: &str,
    reports: &[DeviceReport],
) -> anyhow::Result<BTreeMap<String, Vec<kcat::Record>>> {
    let mut logs = BTreeMap::new();
    for report in reports {
        ensure!(!report.topic.contains('.'), "{} would map to another name", report.topic);
        let records = kcat::read_all(kafka, &report.topic.replace('/', ".")).await?;
        logs.insert(report.topic.clone(), records);
    }
    Ok(logs)
}
