//! rdkafka, on tokio: `work` of `tests/clients/tally.py`.
#![expect(clippy::print_stdout, reason = "what it was given is told on standard output")]

use anyhow::Context;
use clap::{Parser, Subcommand};
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message};
use tokio::io::AsyncReadExt;

/// A member of a group for end-to-end tests.
///
/// Example: rdkafka_worker work --bootstrap 127.0.0.1:9092 --topic jobs --group '$shared/crew' --count 0
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Consume with automatic commits, tell the numbers of the records, leave when standard input ends
    Work(Work),
}

#[derive(Parser)]
struct Work {
    /// The broker, HOST:PORT
    #[arg(long)]
    bootstrap: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// The group's id
    #[arg(long)]
    group: String,
    /// Not used: all programs take it
    #[arg(long)]
    count: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Command::Work(work) = Arguments::parse().command;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &work.bootstrap).set("group.id", &work.group);
    config.set("client.id", "worker").set("auto.offset.reset", "earliest");
    config.set("auto.commit.interval.ms", "500").set("session.timeout.ms", "10000");
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[&work.topic])?;
    let ended = async { tokio::io::stdin().read_to_end(&mut Vec::new()).await };
    tokio::select! {
        read = ended => read.map(drop).context("standard input")?,
        failed = tell(&consumer) => failed?,
    }
    // Dropping it leaves the group, but does not wait for a commit.
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        committed => committed.context("commit"),
    }
}

/// Until the client fails for good.
async fn tell(consumer: &StreamConsumer) -> anyhow::Result<()> {
    loop {
        let message = match consumer.recv().await {
            Ok(message) => message,
            // While the broker is away; librdkafka connects again by itself.
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
            )) => continue,
            Err(error) => return Err(error).context("consume"),
        };
        let headers = message.headers().context("a record without headers")?;
        let mut numbers = headers.iter().filter(|header| header.key == "number");
        let number = numbers.next().and_then(|header| header.value).context("no number")?;
        println!(r#"{{"took": [{}]}}"#, std::str::from_utf8(number)?);
    }
}
