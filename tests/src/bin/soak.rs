//! Kills edge, cloud and both, in turn, under load, and accounts for every message. `scripts/soak` builds and runs it.
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use robustmq_tests::load::chores;
use robustmq_tests::load::kills::{self, Outcome, Plan};
use robustmq_tests::load::sharers;

/// Rounds of kill -9 under MQTT load; every message is accounted for in the Kafka log.
///
/// Example: scripts/soak --rounds 200 --seed 7
#[derive(Parser)]
struct Arguments {
    /// How often something is killed
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// The seed of victims' times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Devices that publish with QoS 1, and as many with QoS 2
    #[arg(long, default_value_t = 4)]
    devices: u32,
    /// Milliseconds between two messages of one device
    #[arg(long, default_value_t = 5)]
    interval_ms: u64,
    /// Kill the cloud while it archives, compacts, deletes and changes modes, instead
    #[arg(long)]
    chores: bool,
    /// Kill the cloud under a $shared/ group whose members come and go, instead
    #[arg(long, conflicts_with = "chores")]
    sharers: bool,
    /// With --sharers: members that join in each round, at least
    #[arg(long, default_value_t = 20)]
    joins: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.chores {
        let plan = chores::Plan { rounds: arguments.rounds, seed: arguments.seed };
        let outcome = tokio::select! {
            outcome = chores::run(&plan, |line| println!("{line}")) => outcome?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        return Ok(report(&outcome));
    }
    if arguments.sharers {
        let Arguments { rounds, joins, seed, .. } = arguments;
        let plan = sharers::Plan { rounds, joins, seed };
        let outcome = tokio::select! {
            outcome = sharers::run(&plan, |line| println!("{line}")) => outcome?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        return Ok(report_sharers(&outcome));
    }
    let plan = Plan {
        rounds: arguments.rounds,
        seed: arguments.seed,
        devices_of_each_quality: arguments.devices,
        interval: Duration::from_millis(arguments.interval_ms),
    };
    let outcome = tokio::select! {
        outcome = kills::run(&plan, |line| println!("{line}")) => outcome?,
        // What was started is ended when the run is dropped.
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
    };
    print(&outcome);
    let faults = outcome.faults();
    for fault in &faults {
        println!("FAULT  {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(outcome: &chores::Outcome) -> ExitCode {
    println!();
    for (topic, records) in &outcome.acknowledged {
        println!("{topic:<10}{records:>10} records acknowledged");
    }
    println!(
        "{} kills, {:.0} s; {} changes of the mode, {} archived objects and {} kept segments at the end",
        outcome.kills,
        outcome.took.as_secs_f64(),
        outcome.mode_changes,
        outcome.objects,
        outcome.kept_segments
    );
    for fault in &outcome.faults {
        println!("FAULT  {fault}");
    }
    if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report_sharers(outcome: &sharers::Outcome) -> ExitCode {
    let counts = &outcome.counts;
    println!(
        "\n{} kills, {:.0} s; {} members joined, {} of them stock clients; {} left, {} vanished, {} expired, {} asked again after a kill",
        outcome.kills,
        outcome.took.as_secs_f64(),
        counts.stock + counts.brief,
        counts.stock,
        counts.left,
        counts.vanished,
        counts.expired,
        counts.late
    );
    println!(
        "{} records, {} commits answered, {} records given again",
        outcome.produced, outcome.committed, outcome.again
    );
    for fault in &outcome.faults {
        println!("FAULT  {fault}");
    }
    if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(outcome: &Outcome) {
    println!();
    println!(
        "{:<10}{:>9}{:>14}{:>12}{:>10}{:>9}{:>10}{:>14}",
        "device",
        "sent",
        "acknowledged",
        "sent again",
        "received",
        "missing",
        "repeated",
        "out of order"
    );
    for (report, device) in outcome.reports.iter().zip(&outcome.account.devices) {
        println!(
            "{:<10}{:>9}{:>14}{:>12}{:>10}{:>9}{:>10}{:>14}",
            device.client_id,
            device.sent,
            report.acknowledged,
            report.sent_again,
            device.received,
            device.missing,
            device.repeated,
            device.out_of_order
        );
    }
    println!();
    println!(
        "{} kills of the edge, {} of the cloud, {:.0} s; edge sequences: {} repeated, {} missing",
        outcome.edge_kills,
        outcome.cloud_kills,
        outcome.took.as_secs_f64(),
        outcome.account.sequences_repeated,
        outcome.account.sequences_missing
    );
    println!(
        "(repeated with QoS 1: the device sent again because the kill ate its PUBACK; each is an edge sequence of its own)"
    );
}
