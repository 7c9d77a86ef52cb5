//! The whole way in under a minute: this machine's telemetry over MQTT, an outage, a kill, and a Kafka client that finds every
//! reading once and in order. `scripts/quickstart` builds and runs it.
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use robustmq_tests::clients::kcat;
use robustmq_tests::load::kills::read_logs;
use robustmq_tests::load::{Account, DeviceReport, Fleet, Quality};
use robustmq_tests::{TestCloud, TestEdge, eventually, telemetry};
use tokio::signal::unix::{SignalKind, signal};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs robustmq-edge and robustmq-cloud on this machine's own telemetry, stops the cloud for a while, kills the edge with
/// kill -9, starts both again, and reads everything with kcat. Fails if a reading is missing, repeated or out of order.
///
/// Example: scripts/quickstart --readings 500
#[derive(Parser)]
struct Arguments {
    /// Readings to take before the outage, and again during it
    #[arg(long, default_value_t = 400)]
    readings: u64,
    /// Milliseconds between two readings of one device
    #[arg(long, default_value_t = 40)]
    interval_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = tokio::select! {
        ended = run(&arguments) => ended,
        // Dropping the run ends what it started.
        () = interrupted() => {
            println!("interrupted; everything that was started is stopped");
            return ExitCode::from(130);
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    let handlers =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = handlers else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// The clock in front of each line.
struct Story {
    started: Instant,
}

impl Story {
    fn tell(&self, line: &str) {
        println!("{:>6.1} s  {line}", self.started.elapsed().as_secs_f64());
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let story = Story { started: Instant::now() };
    let mut cloud = TestCloud::start().await.context("start robustmq-cloud")?;
    let mut edge =
        TestEdge::start("quickstart", &cloud.uplink()?).await.context("start robustmq-edge")?;
    introduce(&cloud, &edge)?;

    let devices = telemetry::devices(Duration::from_millis(arguments.interval_ms));
    let mut fleet = Fleet::start(&edge.mqtt()?, &devices);
    story.tell("sensors publish, the link is up");
    take(&mut fleet, arguments.readings).await?;
    story.tell(&format!("{} readings acknowledged to the sensors", fleet.acknowledged()));

    cloud.sigterm().await?;
    story.tell("the cloud is stopped; sensors go on");
    take(&mut fleet, arguments.readings).await?;
    let buffered = edge.waiting_records().await?;
    story.tell(&format!(
        "{} acknowledged, {buffered} of them buffered on the edge's disk",
        fleet.acknowledged()
    ));

    edge.kill9().await?;
    story.tell("the edge is killed (kill -9)");
    edge.start().await?;
    let kept = edge.waiting_records().await?;
    story.tell(&format!("the edge is back: {kept} records in its queue"));
    take(&mut fleet, arguments.readings / 4).await?;

    let to_replay = edge.waiting_records().await?;
    cloud.start().await?;
    let replaying = Instant::now();
    story.tell(&format!("the cloud is back; {to_replay} records wait to be replayed"));
    let reports = fleet.finish(PATIENCE).await?;
    story.tell("sensors finished: every QoS 2 handshake is complete");
    edge.drained(PATIENCE).await?;
    let seconds = replaying.elapsed().as_secs_f64();
    story.tell(&format!(
        "the queue is empty: {to_replay} replayed, and what came meanwhile, in {seconds:.1} s"
    ));

    let logs = read_logs(&cloud.kafka()?, &reports).await?;
    let account = Account::of(&reports, &logs)?;
    story.tell("everything read back with kcat");
    let held = print(&reports, &account, Outage { buffered, kept, to_replay });
    show_a_record(&logs["gateway/telemetry/cpu"]);
    edge.sigterm().await?;
    cloud.sigterm().await?;
    Ok(held)
}

fn introduce(cloud: &TestCloud, edge: &TestEdge) -> anyhow::Result<()> {
    println!();
    println!(
        "  sensors   this machine's /proc: cpu, memory, load, network, disk; MQTT QoS 2, kept sessions"
    );
    println!("  edge      robustmq-edge, MQTT {}, data in {}", edge.mqtt()?, edge.data().display());
    println!(
        "  cloud     robustmq-cloud, Kafka {}, RocksDB in {}",
        cloud.kafka()?,
        cloud.data().display()
    );
    println!("  consumer  kcat (librdkafka)");
    println!();
    Ok(())
}

/// Waits until `count` more readings are acknowledged.
async fn take(fleet: &mut Fleet, count: u64) -> anyhow::Result<()> {
    let wanted = fleet.acknowledged() + count;
    eventually("sensors get acknowledgements", PATIENCE, async || {
        fleet.check()?;
        Ok((fleet.acknowledged() >= wanted).then_some(()))
    })
    .await
}

/// Records in the edge's queue around the outage.
struct Outage {
    buffered: u64,
    kept: u64,
    to_replay: u64,
}

/// Prints the account; true if every reading arrived once and in order.
fn print(reports: &[DeviceReport], account: &Account, outage: Outage) -> bool {
    println!();
    println!(
        "  {:<10}{:>8}{:>14}{:>12}{:>10}{:>9}{:>10}{:>14}",
        "device",
        "sent",
        "acknowledged",
        "sent again",
        "received",
        "missing",
        "repeated",
        "out of order"
    );
    let mut totals = [0; 7];
    for (report, device) in reports.iter().zip(&account.devices) {
        let row = [
            device.sent,
            report.acknowledged,
            report.sent_again,
            device.received,
            device.missing,
            device.repeated,
            device.out_of_order,
        ];
        line(&device.client_id, row);
        for (total, value) in totals.iter_mut().zip(row) {
            *total += value;
        }
    }
    line("total", totals);
    println!();
    let Outage { buffered, kept, to_replay } = outage;
    println!(
        "  buffered when the edge was killed: {buffered}; in the queue after it: {kept}; replayed: {to_replay}"
    );
    let held = account.broken(|_| Quality::ExactlyOnce).is_empty() && account.sequences_hold();
    let sessions: u64 = reports.iter().map(|report| report.sessions_lost).sum();
    let held = held && sessions == 0 && kept >= buffered;
    if held {
        println!("  Every reading arrived exactly once and in order.");
    } else {
        println!(
            "  FAILED: see the columns missing, repeated and out of order. Kept sessions lost: {sessions}."
        );
    }
    held
}

fn line(
    name: &str,
    [sent, acknowledged, again, received, missing, repeated, disordered]: [u64; 7],
) {
    println!(
        "  {name:<10}{sent:>8}{acknowledged:>14}{again:>12}{received:>10}{missing:>9}{repeated:>10}{disordered:>14}"
    );
}

fn show_a_record(records: &[kcat::Record]) {
    if let Some(last) = records.last() {
        println!();
        println!(
            "  The last record of gateway.telemetry.cpu, partition {}, offset {}:",
            last.partition, last.offset
        );
        println!("    key      {}", String::from_utf8_lossy(&last.key));
        println!("    value    {}", String::from_utf8_lossy(&last.value));
        for (name, value) in &last.headers {
            println!("    {name:<20} {value}");
        }
        println!();
    }
}
