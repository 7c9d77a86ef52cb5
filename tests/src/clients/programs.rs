//! The client programs, most of them under `tests/clients`: one command line and one report for all.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::process::binary;

/// Longer than the programs' own `--timeout`, which gives the better message.
const PROGRAM: Duration = Duration::from_secs(100);

/// A Kafka client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    ConfluentKafka,
    KafkaPython,
    Aiokafka,
    Java,
    /// Itself it has no compression but gzip.
    Kafkajs,
    /// Only as a [`Worker`].
    Rdkafka,
}

impl Client {
    /// Those with every command and every compression.
    pub const ALL: [Self; 4] =
        [Self::ConfluentKafka, Self::KafkaPython, Self::Aiokafka, Self::Java];

    /// Those that can be a [`Worker`].
    pub fn workers() -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter().chain([Self::Kafkajs, Self::Rdkafka]);
        all.filter(|client| !client.is_left_out())
    }

    /// `scripts/test` says with an empty `ROBUSTMQ_NODE_CLIENTS` that Node or kafkajs could not be had.
    #[must_use]
    pub fn is_left_out(self) -> bool {
        let is_empty = |path: std::ffi::OsString| path.is_empty();
        self == Self::Kafkajs && std::env::var_os("ROBUSTMQ_NODE_CLIENTS").is_some_and(is_empty)
    }

    fn command(self) -> anyhow::Result<Command> {
        match self {
            Self::ConfluentKafka => python("confluent_client.py"),
            Self::KafkaPython => python("kafka_python_client.py"),
            Self::Aiokafka => python("aiokafka_client.py"),
            Self::Java => java(),
            Self::Kafkajs => node("kafkajs_client.js"),
            Self::Rdkafka => Ok(Command::new(binary("rdkafka_worker")?)),
        }
    }
}

/// What a program is asked to produce or to read.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub kafka: &'a str,
    pub topic: &'a str,
    pub count: u64,
    /// Further arguments, such as `--compression zstd`.
    pub more: &'a [&'a str],
}

/// What a reading program counted. See `tally.py`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Report {
    pub distinct: u64,
    pub repeated: u64,
    pub out_of_order: u64,
    pub wrong: u64,
    pub members: Vec<u64>,
    pub committed: Option<u64>,
    pub end: Option<u64>,
}

impl Report {
    /// Every one of `count` records once and in order.
    #[must_use]
    pub fn is_exact(&self, count: u64) -> bool {
        self.distinct == count && self.repeated == 0 && self.out_of_order == 0 && self.wrong == 0
    }
}

/// The folder of the programs.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The Python that has the client libraries.
///
/// # Errors
/// When there is none.
pub fn interpreter() -> anyhow::Result<PathBuf> {
    installed("ROBUSTMQ_PYTHON", "venv/bin/python")
}

/// A script under `tests/clients`, in the Python that has the client libraries.
///
/// # Errors
/// When there is none.
pub fn python(script: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(interpreter()?);
    command
        .arg(folder().join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1");
    Ok(command)
}

fn java() -> anyhow::Result<Command> {
    let jars = installed("ROBUSTMQ_KAFKA_JARS", "kafka-java")?;
    let mut command = Command::new("java");
    command.arg("-Xmx256m").arg("-cp").arg(jars.join("*")).arg(folder().join("JavaClient.java"));
    Ok(command)
}

fn node(script: &str) -> anyhow::Result<Command> {
    let clients = installed("ROBUSTMQ_NODE_CLIENTS", "node-clients")?;
    let mut command = Command::new("node");
    command.arg(folder().join(script)).env("NODE_PATH", clients.join("node_modules"));
    Ok(command)
}

fn installed(variable: &str, otherwise: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let cache = std::env::var_os("ROBUSTMQ_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cache = cache.or_else(|| home.map(|home| home.join(".cache/robustmq")));
    let path = cache.context("neither ROBUSTMQ_CACHE nor HOME is set")?.join(otherwise);
    ensure!(path.exists(), "{} is missing: run scripts/setup", path.display());
    Ok(path)
}

fn spawn(mut command: Command, job: &Job<'_>, verb: &str) -> anyhow::Result<Child> {
    let count = job.count.to_string();
    command.args([verb, "--bootstrap", job.kafka, "--topic", job.topic, "--count", &count]);
    command.args(job.more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().with_context(|| format!("start {command:?}"))
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// When it fails or takes too long, with what it said.
pub async fn output(mut command: Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("start {command:?}"))?;
    finish(child).await
}

async fn finish(child: Child) -> anyhow::Result<String> {
    let output = tokio::time::timeout(PROGRAM, child.wait_with_output()).await;
    let output = output.with_context(|| format!("the client did not end after {PROGRAM:?}"))??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the client failed: {}\n{printed}\n{said}", output.status);
    Ok(printed)
}

/// Produces `job.count` records; all are acknowledged when this returns.
///
/// # Errors
/// When one is not.
pub async fn produce(client: Client, job: &Job<'_>) -> anyhow::Result<()> {
    let printed = finish(spawn(client.command()?, job, "produce")?).await;
    printed.map(drop).with_context(|| format!("{client:?} produces"))
}

/// How the Java client's admin sees a group, in the columns of Apache Kafka's `kafka-consumer-groups --describe`.
///
/// # Errors
/// When it fails.
pub async fn describe(kafka: &str, group: &str) -> anyhow::Result<String> {
    let mut command = Client::Java.command()?;
    command.args(["describe", "--bootstrap", kafka, "--group", group]);
    output(command).await
}

/// Reads all partitions from the start until `job.count` different records have come.
///
/// # Errors
/// When the client fails.
pub async fn read(client: Client, job: &Job<'_>) -> anyhow::Result<Report> {
    let printed = finish(spawn(client.command()?, job, "read")?).await;
    report(&printed.with_context(|| format!("{client:?} reads"))?)
}

/// Three members of one group; `produce` runs when each has partitions; the third leaves in the middle.
///
/// # Errors
/// When the client fails, or the members never all get partitions.
pub async fn group(
    client: Client,
    job: &Job<'_>,
    produce: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Report> {
    let mut child = spawn(client.command()?, job, "group")?;
    let stdout = child.stdout.take().context("standard output was asked for")?;
    let mut lines = BufReader::new(stdout).lines();
    let first =
        tokio::time::timeout(PROGRAM, lines.next_line()).await.context("no group formed")??;
    match first {
        Some(line) if line.contains("ready") => {}
        other => {
            let mut said = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut said).await?;
            }
            bail!("{client:?}: expected the ready event, got {other:?}\n{said}");
        }
    }
    produce.await?;
    let mut printed = String::new();
    let rest = async {
        while let Some(line) = lines.next_line().await? {
            printed.push_str(&line);
            printed.push('\n');
        }
        anyhow::Ok(())
    };
    let (read, ended) = tokio::join!(tokio::time::timeout(PROGRAM, rest), finish(child));
    read.context("the group did not end")??;
    ended.with_context(|| format!("{client:?} in a group; it printed {printed}"))?;
    report(&printed)
}

fn report(printed: &str) -> anyhow::Result<Report> {
    let last = printed.lines().last().context("the client printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("not a report: {last}"))
}

/// One member of a group, in a program of its own (`work` in `tally.py`).
pub struct Worker {
    child: Child,
    /// Ends with the worker.
    reading: tokio::task::JoinHandle<anyhow::Result<()>>,
    took: std::sync::Arc<std::sync::Mutex<Took>>,
}

/// What one was given.
#[derive(Default, Deserialize)]
struct Took {
    took: Vec<u64>,
    /// By a member of a share group.
    #[serde(default)]
    rejected: Vec<u64>,
}

impl Worker {
    /// Starts one that consumes.
    ///
    /// # Errors
    /// When the client is not installed.
    pub fn start(client: Client, kafka: &str, topic: &str, group: &str) -> anyhow::Result<Self> {
        Self::start_as("work", client, kafka, topic, group)
    }

    /// Starts one that is a member of a share group (KIP-932).
    ///
    /// # Errors
    /// When the client is not installed.
    pub fn share(client: Client, kafka: &str, topic: &str, group: &str) -> anyhow::Result<Self> {
        Self::start_as("share", client, kafka, topic, group)
    }

    fn start_as(
        work: &str,
        client: Client,
        kafka: &str,
        topic: &str,
        group: &str,
    ) -> anyhow::Result<Self> {
        let mut command = client.command()?;
        command.args([work, "--bootstrap", kafka, "--topic", topic, "--group", group]);
        command.args(["--count", "0"]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("standard output was asked for")?;
        let took = std::sync::Arc::<std::sync::Mutex<Took>>::default();
        let reading = tokio::spawn({
            let took = took.clone();
            async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Some(line) = lines.next_line().await? {
                    let read: Took = serde_json::from_str(&line)
                        .with_context(|| format!("not what it took: {line}"))?;
                    let mut took = took.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    took.took.extend(read.took);
                    took.rejected.extend(read.rejected);
                }
                Ok(())
            }
        });
        Ok(Self { child, reading, took })
    }

    /// What it was given so far, in order.
    #[must_use]
    pub fn took(&self) -> Vec<u64> {
        self.took.lock().unwrap_or_else(std::sync::PoisonError::into_inner).took.clone()
    }

    /// What it rejected so far, in order.
    #[must_use]
    pub fn rejected(&self) -> Vec<u64> {
        self.took.lock().unwrap_or_else(std::sync::PoisonError::into_inner).rejected.clone()
    }

    /// Has it leave; returns all that it was given.
    ///
    /// # Errors
    /// When it failed.
    pub async fn leave(mut self) -> anyhow::Result<Vec<u64>> {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(PROGRAM, self.child.wait()).await;
        let status = ended.context("the worker does not leave")??;
        ensure!(status.success(), "a worker failed: {status}");
        (&mut self.reading).await??;
        Ok(self.took())
    }

    /// Kills it; returns all that it said it was given.
    ///
    /// # Errors
    /// When it cannot be killed, or had failed.
    pub async fn kill(self) -> anyhow::Result<Vec<u64>> {
        self.kill_sharing().await.map(|(took, _)| took)
    }

    /// Kills a member of a share group; returns all that it said it accepted, and rejected.
    ///
    /// # Errors
    /// When it cannot be killed, or had failed.
    pub async fn kill_sharing(mut self) -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
        self.child.kill().await?;
        (&mut self.reading).await??;
        Ok((self.took(), self.rejected()))
    }
}
