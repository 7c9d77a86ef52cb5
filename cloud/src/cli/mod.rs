//! Commands, flags, and what they print. `serve` runs a broker; everything else talks to a running one, over the Kafka
//! protocol or its admin listener.
//!
//! **Invariant:** results go to standard output, everything else to standard error. Exit 2 for a bad configuration or command
//! line, 1 for a failure.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use robustmq_common::config::{self, Sources};
use robustmq_common::net::{self, StartError};
use robustmq_common::telemetry;

use crate::broker;
use crate::settings::Settings;

mod client;
mod edge;
mod group;
mod table;
mod topic;

/// Kafka-compatible broker that takes in the records of MQTT edges.
#[derive(Parser)]
#[command(
    name = "robustmq-cloud",
    version,
    about,
    after_help = "Example:\n  robustmq-cloud serve --data-dir ./data"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker
    #[command(
        after_help = "Examples:\n  robustmq-cloud serve --config /etc/robustmq/cloud.toml\n  robustmq-cloud serve --data-dir ./data --kafka-listen 127.0.0.1:9092"
    )]
    Serve(Serve),
    /// Check a configuration without starting
    #[command(
        after_help = "Examples:\n  robustmq-cloud check-config --config /etc/robustmq/cloud.toml\n  robustmq-cloud check-config --config cloud.toml --print-config"
    )]
    CheckConfig(CheckConfig),
    /// Create, list, describe, alter and delete topics
    #[command(after_help = "Example:\n  robustmq-cloud topic create telemetry --partitions 4")]
    Topic(topic::Topic),
    /// List, describe, reset and delete consumer groups
    #[command(
        after_help = "Example:\n  robustmq-cloud group reset training --topic telemetry --to earliest"
    )]
    Group(group::Group),
    /// List, add and remove edges
    #[command(after_help = "Example:\n  robustmq-cloud edge add gateway-17")]
    Edge(edge::Edge),
}

#[derive(Args)]
struct Serve {
    /// Configuration file; deploy/cloud/cloud.toml shows every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where Kafka clients connect; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    kafka_listen: Option<String>,
    /// What Kafka clients are told to connect to
    #[arg(long, value_name = "HOST:PORT")]
    kafka_advertise: Option<String>,
    /// Where edges connect; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    uplink_listen: Option<String>,
    /// Where status and metrics are served; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Check the configuration and leave
    #[arg(long)]
    check_config: bool,
    /// Print the configuration in force and leave
    #[arg(long)]
    print_config: bool,
}

#[derive(Args)]
struct CheckConfig {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration in force as well
    #[arg(long)]
    print_config: bool,
}

/// Which broker a command talks to.
#[derive(Args)]
struct Bootstrap {
    /// The broker, HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
}

/// Why a command failed. Displays as one line.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Usage(String),
}

impl CommandError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Start(error) => error.exit_code(),
            Self::Client(_) | Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

/// Parses the command line and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(execute(command)),
        Err(error) => Err(CommandError::Failed(format!("cannot start threads: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "robustmq-cloud: {error}");
            error.exit_code()
        }
    }
}

async fn execute(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Serve(args) => serve(&args).await.map_err(Into::into),
        Command::CheckConfig(args) => check_config(&args).map_err(Into::into),
        Command::Topic(args) => topic::run(args).await,
        Command::Group(args) => group::run(args).await,
        Command::Edge(args) => edge::run(args).await,
    }
}

async fn serve(args: &Serve) -> Result<(), StartError> {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let mut sources = Sources::of_process(args.config.as_deref());
    sources
        .flag("data_dir", args.data_dir.as_ref().map(text))
        .flag("kafka.listen", args.kafka_listen.clone())
        .flag("kafka.advertise", args.kafka_advertise.clone())
        .flag("uplink.listen", args.uplink_listen.clone())
        .flag("admin.listen", args.admin_listen.clone());
    let settings: Settings = config::load(&sources)?;
    if args.print_config {
        print(&config::print_config(&settings)?);
    }
    if args.check_config || args.print_config {
        return Ok(());
    }
    let log_level = telemetry::init(&settings.telemetry()).map_err(|error| {
        StartError::Refused { key: "[log] level".to_owned(), reason: error.to_string() }
    })?;
    let shutdown = net::shutdown_on_signals()?;
    let store = broker::open_store(&settings).await?;
    let broker = broker::start(&settings, store, log_level, shutdown.clone()).await?;
    net::announce_ready(&[
        ("kafka", broker.kafka),
        ("uplink", broker.uplink),
        ("admin", broker.admin),
    ]);
    shutdown.cancelled().await;
    let stopped = broker.stopped().await;
    stopped.map_err(|error| StartError::Failed(format!("the store did not close: {error}")))
}

fn check_config(args: &CheckConfig) -> Result<(), StartError> {
    let settings: Settings = config::load(&Sources::of_process(args.config.as_deref()))?;
    if args.print_config {
        print(&config::print_config(&settings)?);
    } else {
        print("the configuration is good\n");
    }
    Ok(())
}

/// To standard output. A reader that went away is no reason to complain.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn print_json(value: &impl serde::Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::Failed(format!("cannot be written as JSON: {error}")))?;
    print(&format!("{text}\n"));
    Ok(())
}
