//! Many topics: created, listed, written to and deleted with a stock client; the broker's memory, files, CPU, restart
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use robustmq_tests::clients::programs::python;
use robustmq_tests::{TestCloud, eventually};
use serde::Deserialize;

/// Creates, lists, writes to and deletes topics with confluent-kafka. Without --bootstrap it starts a broker of its own, and
/// then measures how long that takes to start again with all the topics.
///
/// Examples:
///   scripts/bench topics --topics 1000000 --active 1000
///   scripts/bench topics --bootstrap 127.0.0.1:9092 --pid $(pidof robustmq-cloud) --peer 127.0.0.1:9192 --peer-pid $(pidof java)
#[derive(Clone, Parser)]
struct Arguments {
    /// The broker to measure; one is started if left out
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Its process id, for its memory, files and CPU
    #[arg(long, requires = "bootstrap")]
    pid: Option<u32>,
    /// Another broker to measure side by side
    #[arg(long, value_name = "HOST:PORT")]
    peer: Option<String>,
    /// Its process id
    #[arg(long, requires = "peer")]
    peer_pid: Option<u32>,
    /// Topics in all
    #[arg(long, default_value_t = 100_000)]
    topics: usize,
    /// Topics of one request
    #[arg(long, default_value_t = 5000)]
    per_request: usize,
    /// Topics that are written to
    #[arg(long, default_value_t = 1000)]
    active: usize,
    /// Records written to them in all, and as many to ten topics
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// Records written each second
    #[arg(long, default_value_t = 2000)]
    rate: usize,
}

/// librdkafka takes a list of more than 1,000,000 topics for a damaged answer; a few others are there too.
const LISTABLE: usize = 999_000;

/// A broker that is measured.
struct Subject {
    name: &'static str,
    bootstrap: String,
    pid: Option<u32>,
    own: Option<TestCloud>,
}

/// What `confluent_topics.py` prints.
#[derive(Deserialize)]
struct Report {
    seconds: f64,
    listed: Option<usize>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// A process as `/proc` shows it.
#[derive(Clone, Copy)]
struct Process {
    resident_mib: f64,
    open_files: usize,
    cpu_seconds: f64,
}

impl Process {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(directory.join("status"))
            .with_context(|| format!("there is no process {pid}"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.context("a process without memory")?.split_whitespace().next();
        let stat = fs::read_to_string(directory.join("stat"))?;
        // What follows the program's name, which may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("the layout of /proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks = ticks.sum::<Result<u32, _>>()?;
        Ok(Self {
            resident_mib: resident.context("a number")?.parse::<f64>()? / 1024.0,
            open_files: fs::read_dir(directory.join("fd"))?.count(),
            // The kernel counts in 1/100 s for every program.
            cpu_seconds: f64::from(ticks) / 100.0,
        })
    }
}

impl Subject {
    fn process(&self) -> anyhow::Result<Option<Process>> {
        self.pid.map(Process::read).transpose()
    }

    /// Runs one verb of the client and prints a line about it.
    async fn run(&self, verb: &str, prefix: &str, arguments: &Arguments) -> anyhow::Result<Report> {
        let active = arguments.active;
        let before = self.process()?;
        let mut command = python("confluent_topics.py")?;
        command.args([verb, "--bootstrap", &self.bootstrap, "--prefix", prefix]);
        for (flag, number) in [
            ("--count", arguments.topics),
            ("--per-request", arguments.per_request),
            ("--active", active),
            ("--records", arguments.records),
            ("--rate", arguments.rate),
        ] {
            command.args([flag, &number.to_string()]);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.context("the client cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{verb} on {} failed: {said}", self.name);
        let report: Report = serde_json::from_slice(&output.stdout)?;
        if let Some(listed) = report.listed {
            ensure!(listed == arguments.topics, "{listed} topics are listed on {}", self.name);
        }
        let topics = arguments.topics as f64;
        let what = match (report.p50_ms, report.p99_ms) {
            (Some(p50), Some(p99)) => format!("{active} topics: p50 {p50:.2} ms, p99 {p99:.2} ms"),
            _ => format!("{:.0} topics/s", topics / report.seconds),
        };
        self.print(verb, report.seconds, before, &what)?;
        Ok(report)
    }

    fn print(
        &self,
        verb: &str,
        seconds: f64,
        before: Option<Process>,
        what: &str,
    ) -> anyhow::Result<()> {
        let now = self.process()?;
        let mut cells = [String::new(), String::new(), String::new()];
        if let Some(now) = now {
            let used = before.map_or(0.0, |before| now.cpu_seconds - before.cpu_seconds);
            cells = [
                format!("{used:.2}"),
                format!("{:.0}", now.resident_mib),
                now.open_files.to_string(),
            ];
        }
        let [cpu, resident, files] = cells;
        println!("{:<8}{verb:<16}{seconds:>9.2}{cpu:>8}{resident:>9}{files:>7}  {what}", self.name);
        Ok(())
    }

    /// Starts the broker again, after a clean end and after `kill -9`.
    async fn restart(&mut self) -> anyhow::Result<()> {
        let Some(mut own) = self.own.take() else { return Ok(()) };
        for how in ["stopped", "killed"] {
            match how {
                "stopped" => drop(own.sigterm().await?),
                _ => own.kill9().await?,
            }
            let started = Instant::now();
            own.start().await?;
            let seconds = started.elapsed().as_secs_f64();
            self.pid = own.program()?.id();
            self.print("restart", seconds, None, &format!("ready after it was {how}"))?;
        }
        self.own = Some(own);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.topics > 0 && arguments.per_request > 0 && arguments.rate > 0, "0 of what?");
    ensure!((1..=arguments.topics).contains(&arguments.active), "--active is above --topics");
    let mut subjects = Vec::new();
    subjects.push(match &arguments.bootstrap {
        Some(bootstrap) => {
            let (bootstrap, pid) = (bootstrap.clone(), arguments.pid);
            Subject { name: "broker", bootstrap, pid, own: None }
        }
        None => {
            let own = TestCloud::start().await?;
            let (bootstrap, pid) = (own.kafka()?, own.program()?.id());
            Subject { name: "broker", bootstrap, pid, own: Some(own) }
        }
    });
    if let Some(peer) = &arguments.peer {
        let (bootstrap, pid) = (peer.clone(), arguments.peer_pid);
        subjects.push(Subject { name: "peer", bootstrap, pid, own: None });
    }
    println!("{} topics, {} in a request", arguments.topics, arguments.per_request);
    println!("{:<8}{:<16}{:>9}{:>8}{:>9}{:>7}", "", "what", "seconds", "CPU s", "RSS MiB", "files");
    let prefix = format!("bench-{:08x}", rand::random::<u32>());
    for subject in &mut subjects {
        let few = Arguments { topics: 10, active: 10, ..arguments.clone() };
        let few_prefix = format!("few-{prefix}");
        subject.run("create", &few_prefix, &few).await?;
        subject.run("produce", &few_prefix, &few).await?;
    }
    for verb in ["create", "list", "produce", "restart", "list", "delete"] {
        for subject in &mut subjects {
            match verb {
                "list" if arguments.topics > LISTABLE => {}
                "restart" => subject.restart().await?,
                verb => {
                    subject.run(verb, &prefix, &arguments).await?;
                }
            }
        }
    }
    for subject in &subjects {
        settled(subject).await?;
        let few = Arguments { topics: 10, active: 10, ..arguments.clone() };
        subject.run("produce", &format!("few-{prefix}"), &few).await?;
        subject.run("delete", &format!("few-{prefix}"), &few).await?;
    }
    Ok(())
}

/// Waits until the broker does nothing any more, and says what that took.
async fn settled(subject: &Subject) -> anyhow::Result<()> {
    let Some(before) = subject.process()? else { return Ok(()) };
    let started = Instant::now();
    let mut last = before;
    eventually("the broker is idle", Duration::from_secs(600), async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = subject.process()?.context("it has ended")?;
        let used = now.cpu_seconds - std::mem::replace(&mut last, now).cpu_seconds;
        Ok((used < 0.05).then_some(()))
    })
    .await?;
    let what = "until nothing is done any more";
    subject.print("removal", started.elapsed().as_secs_f64(), Some(before), what)
}
