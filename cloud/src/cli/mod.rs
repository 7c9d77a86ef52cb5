//! Commands, flags, and what they print. `serve` runs a broker, `store` works on its directory while it is stopped; everything else
//! talks to a running one, over the Kafka protocol or its admin listener.
//!
//! **Invariant:** results go to standard output, everything else to standard error. Exit 2 for a bad configuration or command
//! line, 1 for a failure.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use robustmq_common::cli::{self, ServeWish, print, print_json};
use robustmq_common::config::{Invalid, Sources};
use robustmq_common::net::{self, StartError};

use self::client::{Client, ClientError};
use crate::broker;
use crate::settings::{Settings, parse_host_port};

mod client;
mod configs;
mod dataset;
mod edge;
mod find;
mod group;
mod reset;
mod snapshots;
mod status;
mod store;
mod table;
mod topic;
mod units;

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
        after_help = "Examples:\n  robustmq-cloud serve --config /etc/robustmq/cloud.toml\n  robustmq-cloud serve --data-dir ./data --kafka-listen 127.0.0.1:9092\n  robustmq-cloud serve --object-store s3://bucket/robustmq"
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
    /// List, describe, alter, reset and delete consumer groups
    #[command(
        after_help = "Example:\n  robustmq-cloud group reset training --topic telemetry --to earliest"
    )]
    Group(group::Group),
    /// Show topics that serve what lies in object storage, find samples in them, and bring them into the cache
    #[command(after_help = "Example:\n  robustmq-cloud dataset status images")]
    Dataset(dataset::Dataset),
    /// List, add and remove edges
    #[command(after_help = "Example:\n  robustmq-cloud edge add gateway-17")]
    Edge(edge::Edge),
    /// Work on the data directory of a broker that is stopped
    #[command(
        after_help = "Example:\n  robustmq-cloud store renew-identity --data-dir /var/lib/robustmq-cloud"
    )]
    Store(store::StoreCommand),
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
    /// Keep the store there instead of in the data directory: s3://BUCKET/PREFIX (credentials by their AWS names in the
    /// environment) or file:///DIR
    #[arg(long, value_name = "URL")]
    object_store: Option<String>,
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
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ROBUSTMQ_BOOTSTRAP",
        default_value = "127.0.0.1:9092"
    )]
    bootstrap: String,
}

impl Bootstrap {
    async fn connect(&self) -> Result<Client, CommandError> {
        let (host, port) = parse_host_port(&self.bootstrap)
            .map_err(|error| CommandError::Usage(format!("--bootstrap {error}")))?;
        Ok(Client::connect(&host, port).await?)
    }
}

/// Why a command failed. Displays as one line.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Client(#[from] ClientError),
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

/// How long what is still being read or asked for is waited for in the end.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Parses the command line and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(command));
            // All that has to be written is. A file system that does not answer is not waited for.
            runtime.shutdown_timeout(SHUTDOWN);
            outcome
        }
        Err(error) => Err(CommandError::Failed(format!("cannot start threads: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain("robustmq-cloud", &error);
            error.exit_code()
        }
    }
}

async fn execute(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Serve(args) => serve(&args).await.map_err(Into::into),
        Command::CheckConfig(args) => {
            let sources = Sources::of_process(args.config.as_deref());
            cli::warn_of_variables::<Settings>("robustmq-cloud", &sources);
            Ok(cli::check_config(&sources, check, args.print_config)?)
        }
        Command::Topic(args) => topic::run(args).await,
        Command::Group(args) => group::run(args).await,
        Command::Dataset(args) => dataset::run(args).await,
        Command::Edge(args) => edge::run(args).await,
        Command::Store(args) => store::run(args).await,
    }
}

/// As the broker does; warns of what is legal, and probably not meant.
fn check(settings: &Settings) -> Result<(), Invalid> {
    broker::check(settings)?;
    for warning in settings.warnings() {
        cli::complain("robustmq-cloud", &format!("warning: {warning}"));
    }
    Ok(())
}

async fn serve(args: &Serve) -> Result<(), StartError> {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let mut sources = Sources::of_process(args.config.as_deref());
    sources
        .flag("data_dir", args.data_dir.as_ref().map(text))
        .flag("kafka.listen", args.kafka_listen.clone())
        .flag("kafka.advertise", args.kafka_advertise.clone())
        .flag("uplink.listen", args.uplink_listen.clone())
        .flag("admin.listen", args.admin_listen.clone())
        .flag("cluster.object_store", args.object_store.clone());
    cli::warn_of_variables::<Settings>("robustmq-cloud", &sources);
    let wish = ServeWish { check_config: args.check_config, print_config: args.print_config };
    let Some(settings) = cli::load_to_serve::<Settings>(&sources, check, wish)? else {
        return Ok(());
    };
    let log_level = cli::start_log(&settings.log)?;
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

#[cfg(test)]
mod tests;
