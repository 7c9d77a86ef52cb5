//! A Kafka broker under a stock client: produce, consume, latency at a fixed rate, beside bare loopback, the disk, and a peer
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::time::Duration;

use clap::{Parser, ValueEnum};
use robustmq_tests::bench::report::Report;
use robustmq_tests::bench::rows::Phases;
use robustmq_tests::bench::{Broker, Options, loopback};

/// How long the bare loopback pair runs in each round.
const LOOPBACK: Duration = Duration::from_secs(2);

/// Produces and consumes with librdkafka, and tells what that cost the broker. Fails if a record is missing; judges no time.
///
/// Example: scripts/bench kafka --peer 127.0.0.1:9192 --peer-pid 4711 --seconds 20
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// What to measure; all if left out; may be given several times
    #[arg(long, value_enum)]
    row: Vec<What>,
    /// Partitions of a topic; may be given several times
    #[arg(long, default_values_t = [1, 10], value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Vec<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Produce throughput
    Produce,
    /// Consume throughput from the start; produces first, and starts the broker again in between if it is ours
    Cold,
    /// Consume throughput beside the producer
    Tail,
    /// Acknowledgements at a fixed rate
    Latency,
}

impl Arguments {
    fn wants(&self, what: What) -> bool {
        self.row.is_empty() || self.row.contains(&what)
    }
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
    for broker in &brokers {
        report.moment("before", &broker.name, broker.footprint()?);
    }
    for _ in 0..options.rounds {
        report.loopback(tokio::task::spawn_blocking(|| loopback::run(LOOPBACK)).await??);
        for broker in &mut brokers {
            round(arguments, broker, &mut report).await?;
        }
    }
    for broker in &brokers {
        report.moment("after all", &broker.name, broker.footprint()?);
        note_tail(arguments, &broker.name, &mut report);
    }
    println!("{}", options.describe());
    report.print();
    match &options.json {
        Some(file) => report.write_json(file),
        None => Ok(()),
    }
}

async fn round(
    arguments: &Arguments,
    broker: &mut Broker,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = broker.name.clone();
    let options = &arguments.options;
    let topic_config = broker.topic_config.clone();
    let mut phases = Phases { options, broker, topic_config };
    for &partitions in &arguments.partitions {
        let consume = arguments.wants(What::Cold);
        if arguments.wants(What::Produce) || consume {
            let cold = phases.cold(partitions, consume).await?;
            report.throughput(&produce_row(partitions), &name, cold.produce);
            if let Some(cost) = cold.consume {
                let how = if cold.restarted { "restarted" } else { "as it is" };
                let what = format!("consume cold ({how}), {}", in_words(partitions));
                report.throughput(&what, &name, cost);
            }
        }
        if arguments.wants(What::Tail) {
            let cost = phases.tail(partitions).await?;
            report.throughput(&tail_row(partitions), &name, cost);
        }
    }
    if arguments.wants(What::Latency) {
        let latency = phases.latency().await?;
        report.latency("acknowledgement", &name, latency);
    }
    Ok(())
}

/// What consuming at the tail costs by itself can only be told by the difference.
fn note_tail(arguments: &Arguments, broker: &str, report: &mut Report) {
    for &partitions in &arguments.partitions {
        let produce = report.cpu_a_gigabyte(&produce_row(partitions), broker);
        let both = report.cpu_a_gigabyte(&tail_row(partitions), broker);
        if let (Some(produce), Some(both)) = (produce, both) {
            report.note(format!(
                "{broker}, {}: tail less produce: {:.2} broker CPU s/GB for consuming (medians)",
                in_words(partitions),
                both - produce
            ));
        }
    }
    report.note(
        "tail: the broker's and the client's CPU are those of producing and consuming together; \
         cold: the page cache is left as it is"
            .to_owned(),
    );
}

fn produce_row(partitions: i32) -> String {
    format!("produce, {}", in_words(partitions))
}

fn tail_row(partitions: i32) -> String {
    format!("produce + consume tail, {}", in_words(partitions))
}

fn in_words(partitions: i32) -> String {
    match partitions {
        1 => "1 partition".to_owned(),
        many => format!("{many} partitions"),
    }
}
