//! Commands, flags, and what they print.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use robustmq_common::cli::{self, ServeWish, complain, print, print_json};
use robustmq_common::config::{self, Sources};
use robustmq_common::limits;
use robustmq_common::net::{self, StartError};
use robustmq_edge::admin;
use robustmq_edge::gateway::{self, Gateway, users_line};
use robustmq_edge::queue::inspect::{Depth, inspect};
use robustmq_edge::settings::Settings;

/// MQTT gateway: serves devices, keeps everything on disk while the uplink is down, replicates upstream exactly once.
#[derive(Parser)]
#[command(
    name = "robustmq-edge",
    version,
    about,
    after_help = "Example:\n  robustmq-edge serve --data-dir ./data --uplink http://127.0.0.1:9440"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    #[command(
        after_help = "Examples:\n  robustmq-edge serve --config /etc/robustmq/edge.toml\n  robustmq-edge serve --data-dir ./data --mqtt-listen 127.0.0.1:1883 --uplink http://127.0.0.1:9440"
    )]
    Serve(Serve),
    /// Show the state of a running gateway: uplink, queue, drops, sessions
    #[command(
        after_help = "Examples:\n  robustmq-edge status\n  robustmq-edge status --admin http://127.0.0.1:8091 --json"
    )]
    Status(Status),
    /// Look at the queue's files; changes nothing, also beside a running gateway
    #[command(
        subcommand,
        after_help = "Examples:\n  robustmq-edge queue inspect --data-dir ./data\n  robustmq-edge queue verify --data-dir ./data --json"
    )]
    Queue(QueueCommand),
    /// Make a line for the MQTT users file; the password is read from standard input
    #[command(
        after_help = "Example:\n  printf %s \"$PASSWORD\" | robustmq-edge hash-password press-1 >> /etc/robustmq/mqtt-users"
    )]
    HashPassword {
        /// The user's name
        name: String,
    },
    /// Check a configuration without starting
    #[command(
        after_help = "Examples:\n  robustmq-edge check-config --config /etc/robustmq/edge.toml\n  robustmq-edge check-config --config edge.toml --print-config"
    )]
    CheckConfig(CheckConfig),
}

#[derive(Args)]
struct Serve {
    /// Configuration file; deploy/edge/edge.toml shows every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where queue and state are kept
    #[arg(long, value_name = "DIR", value_parser = directory())]
    data_dir: Option<PathBuf>,
    /// This gateway's name at the cloud; the host name if not set
    #[arg(long, value_name = "ID")]
    edge_id: Option<String>,
    /// Where devices connect; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    mqtt_listen: Option<String>,
    /// The cloud, http(s)://HOST:9440; without a URL messages stay on this gateway
    #[arg(long, value_name = "URL")]
    uplink: Option<String>,
    /// File with this gateway's token, as `robustmq-cloud edge add` printed it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
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
struct Status {
    /// The admin listener of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8091")]
    admin: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// Show lanes, segments, cursors and drops
    #[command(after_help = "Example:\n  robustmq-edge queue inspect --data-dir ./data --json")]
    Inspect(QueueArgs),
    /// Read every record and check it; exit status 1 if something is wrong
    #[command(
        after_help = "Example:\n  robustmq-edge queue verify --config /etc/robustmq/edge.toml"
    )]
    Verify(QueueArgs),
}

#[derive(Args)]
struct QueueArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where queue and state are kept
    #[arg(long, value_name = "DIR", value_parser = directory())]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
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

/// Takes an empty name too: what is wrong with it is said as for every other source.
fn directory() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Status(args) => status(&args),
        Command::Queue(QueueCommand::Inspect(args)) => queue(&args, Depth::Inspect),
        Command::Queue(QueueCommand::Verify(args)) => queue(&args, Depth::Verify),
        Command::HashPassword { name } => hash_password(&name),
        Command::CheckConfig(args) => {
            let sources = Sources::of_process(args.config.as_deref());
            cli::warn_of_variables::<Settings>("robustmq-edge", &sources);
            cli::check_config(&sources, gateway::check, args.print_config)
                .map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        complain("robustmq-edge", &error);
        error.exit_code()
    })
}

fn serve(args: &Serve) -> Result<ExitCode, StartError> {
    let Some(settings) = load(args)? else { return Ok(ExitCode::SUCCESS) };
    let log_level = cli::start_log(&settings.log)?;
    runtime(limits::EDGE_WORKER_THREADS)?.block_on(async {
        let shutdown = net::shutdown_on_signals()?;
        let gateway = Gateway::start(&settings, log_level).await?;
        net::announce_ready(&[
            ("mqtt", gateway.mqtt_address()),
            ("admin", gateway.admin_address()),
        ]);
        gateway.run(shutdown).await.map_err(StartError::Failed)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn load(args: &Serve) -> Result<Option<Settings>, StartError> {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let mut sources = Sources::of_process(args.config.as_deref());
    sources
        .flag("data_dir", args.data_dir.as_ref().map(text))
        .flag("edge_id", args.edge_id.clone())
        .flag("mqtt.listen", args.mqtt_listen.clone())
        .flag("uplink.url", args.uplink.clone())
        .flag("uplink.token_file", args.token_file.as_ref().map(text))
        .flag("admin.listen", args.admin_listen.clone());
    cli::warn_of_variables::<Settings>("robustmq-edge", &sources);
    let wish = ServeWish { check_config: args.check_config, print_config: args.print_config };
    cli::load_to_serve(&sources, gateway::check, wish)
}

fn queue(args: &QueueArgs, depth: Depth) -> Result<ExitCode, StartError> {
    let mut sources = Sources::of_process(args.config.as_deref());
    sources.flag("data_dir", args.data_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()));
    let settings: Settings = config::load(&sources)?;
    let found = inspect(&settings.queue_dir(), depth)
        .map_err(|error| StartError::Failed(error.to_string()))?;
    if args.json {
        print_json(&found)?;
    } else {
        print(&found.to_string());
    }
    let sound = depth == Depth::Inspect || found.is_sound();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn hash_password(name: &str) -> Result<ExitCode, StartError> {
    if name.is_empty() || name.contains([':', '#', '\n']) || name.trim() != name {
        let reason = "a name must not be empty, contain ':' or '#', or begin or end with a space";
        return Err(StartError::Refused { key: "NAME".to_owned(), reason: reason.to_owned() });
    }
    let password = std::io::read_to_string(std::io::stdin())
        .map_err(|error| StartError::Failed(format!("standard input: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(StartError::Failed("standard input has no password".to_owned()));
    }
    let line = users_line(name, password.as_bytes(), limits::EDGE_PASSWORD_ITERATIONS);
    print(&format!("{line}\n"));
    Ok(ExitCode::SUCCESS)
}

fn status(args: &Status) -> Result<ExitCode, StartError> {
    let fetched = runtime(1)?.block_on(admin::fetch(&args.admin));
    let status = fetched.map_err(|error| StartError::Failed(error.to_string()))?;
    if args.json {
        print_json(&status)?;
    } else {
        print(&format!("{status}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime(workers: usize) -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(limits::EDGE_BLOCKING_THREADS)
        .thread_stack_size(limits::EDGE_THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| StartError::Failed(format!("cannot start threads: {error}")))
}
