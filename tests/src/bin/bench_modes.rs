//! The storage modes of a topic side by side: produce throughput and latency at a fixed rate
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use robustmq_tests::bench::report::Report;
use robustmq_tests::bench::rows::{Phases, STORAGE_MODE};
use robustmq_tests::bench::{Broker, Options, loopback};

/// How long the bare loopback pair runs in each round.
const LOOPBACK: Duration = Duration::from_secs(2);

/// Produces with librdkafka to a topic of each storage mode. Modes that the broker refuses are left out, and it says so.
///
/// Example: scripts/bench modes --mode memory --mode persistent
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// A storage mode; may be given several times
    #[arg(long, default_values_t = ["memory", "hybrid", "persistent", "tiered"].map(str::to_owned))]
    mode: Vec<String>,
    /// Partitions of the topics that throughput is measured on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::select! {
        outcome = run(&arguments) => outcome,
        _ = tokio::signal::ctrl_c() => {
            // What was started has ended with `run`; clients that still work would hold the runtime up.
            std::process::exit(130);
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = &arguments.options;
    let mut brokers = options.brokers().await?;
    let mut report = Report::default();
    let mut accepted = Vec::new();
    for mode in &arguments.mode {
        if let Some(reason) = phases(options, &mut brokers[0], Some(mode)).refusal().await? {
            report.note(format!("{mode}: left out, since the broker refuses it: {reason}"));
        } else {
            accepted.push(mode.as_str());
        }
    }
    ensure!(!accepted.is_empty(), "the broker refuses every mode");
    for _ in 0..options.rounds {
        report.loopback(tokio::task::spawn_blocking(|| loopback::run(LOOPBACK)).await??);
        for mode in &accepted {
            round(arguments, &mut brokers[0], Some(mode), &mut report).await?;
        }
        for peer in brokers.iter_mut().skip(1) {
            round(arguments, peer, None, &mut report).await?;
        }
    }
    for broker in &brokers {
        report.moment("after all", &broker.name, broker.footprint()?);
    }
    println!("{}", options.describe());
    report.print();
    match &options.json {
        Some(file) => report.write_json(file),
        None => Ok(()),
    }
}

fn phases<'a>(options: &'a Options, broker: &'a mut Broker, mode: Option<&str>) -> Phases<'a> {
    let mut topic_config = broker.topic_config.clone();
    topic_config.extend(mode.map(|mode| (STORAGE_MODE.to_owned(), mode.to_owned())));
    Phases { options, broker, topic_config }
}

async fn round(
    arguments: &Arguments,
    broker: &mut Broker,
    mode: Option<&str>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = broker.name.clone();
    let mut phases = phases(&arguments.options, broker, mode);
    let mode = mode.unwrap_or("its own");
    let cold = phases.cold(arguments.partitions, false).await?;
    report.throughput(&format!("produce, {mode}"), &name, cold.produce);
    let latency = phases.latency().await?;
    report.latency(&format!("acknowledgement, {mode}"), &name, latency);
    Ok(())
}
