//! One program of ours as a child process: its `ready` line, its log, its end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a start may take: RocksDB recovery and queue replay included, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long a graceful stop may take.
const STOP: Duration = Duration::from_secs(20);
/// Lines of a log that are shown when a test fails.
const SHOWN_LINES: usize = 60;

/// The binary called `name`: next to this executable (`target/release`), or where the environment says
/// (`ROBUSTMQ_CLOUD_BIN` for `robustmq-cloud`).
///
/// # Errors
/// When there is none, with the command that builds it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    if let Some(path) = std::env::var_os(&variable) {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("the path of this executable")?;
    let found =
        this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{name} is not built (cargo build --release --workspace), and {variable} is not set"
        )
    })
}

/// A port that is free now. Below Linux's range for outgoing connections, so that no client takes it while a killed server
/// is down, and no client that retries it connects to itself.
///
/// # Errors
/// When none is found.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..200 {
        let port = rand::random_range(10_240..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 10240 and 32000")
}

/// A running child process.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    addresses: BTreeMap<String, String>,
}

impl Program {
    /// Starts `binary` and waits for its `ready` line. Its output is appended to `log`.
    ///
    /// # Errors
    /// When it ends or stays silent instead, with the end of its log.
    pub async fn start(
        name: &str,
        binary: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = append(log)?;
        let mut child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().context("standard output was asked for")?;
        let mut lines = BufReader::new(stdout).lines();
        let addresses = match tokio::time::timeout(START, ready(&mut lines)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                let status = tokio::time::timeout(STOP, child.wait()).await;
                bail!("{name} did not start ({error}; {status:?}). Its log ends:\n{}", tail(log));
            }
            Err(_) => bail!("{name} was not ready after {START:?}. Its log ends:\n{}", tail(log)),
        };
        // Whatever else it prints is read, so that it can never block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), addresses })
    }

    /// The address that the `ready` line gave for `listener`.
    ///
    /// # Errors
    /// When the line had none.
    pub fn address(&self, listener: &str) -> anyhow::Result<&str> {
        let found = self.addresses.get(listener).map(String::as_str);
        found.with_context(|| {
            format!("{} has no {listener} listener: {:?}", self.name, self.addresses)
        })
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it had ended before by itself.
    pub async fn kill9(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} had ended before it was killed ({status}). Its log ends:\n{}",
                self.name,
                tail(&self.log)
            );
        }
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn sigterm(mut self) -> anyhow::Result<ExitStatus> {
        let id = self.child.id().with_context(|| format!("{} has ended already", self.name))?;
        let id = rustix::process::Pid::from_raw(i32::try_from(id)?)
            .context("a process id is positive")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "{} ignored SIGTERM for {STOP:?}. Its log ends:\n{}",
                self.name,
                tail(&self.log)
            ),
        }
    }

    /// Resident memory in bytes, from `/proc`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let id = self.id().context("it has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }
}

async fn ready(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
) -> anyhow::Result<BTreeMap<String, String>> {
    while let Some(line) = lines.next_line().await? {
        if let Some(listeners) = line.strip_prefix("ready ") {
            let pairs = listeners.split_whitespace().filter_map(|pair| pair.split_once('='));
            return Ok(pairs
                .map(|(name, address)| (name.to_owned(), address.to_owned()))
                .collect());
        }
    }
    bail!("it closed its standard output without a ready line")
}

fn append(log: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.with_context(|| format!("open {}", log.display()))
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(SHOWN_LINES);
    lines[start..].join("\n")
}

/// Log lines of level ERROR that contain none of `expected`, and panics of any thread.
#[must_use]
pub fn unexpected_errors(log: &Path, expected: &[String]) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let alarming = |line: &&str| {
        line.split_whitespace().take(2).any(|word| word == "ERROR") || line.contains("panicked at")
    };
    let listed = |line: &str| expected.iter().any(|pattern| line.contains(pattern.as_str()));
    text.lines().filter(alarming).filter(|line| !listed(line)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_line_is_found_by_its_level_and_not_by_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = "2026-01-01T00:00:00Z  INFO edge: no ERROR here\n\
                    2026-01-01T00:00:01Z ERROR edge: disk is full\n\
                    2026-01-01T00:00:02Z ERROR edge: announced trouble\n\
                    thread 'main' panicked at src/main.rs:1:1:\n";
        std::fs::write(&log, text).unwrap();
        let found = unexpected_errors(&log, &["announced".to_owned()]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("disk is full") && found[1].contains("panicked"), "{found:?}");
    }
}
