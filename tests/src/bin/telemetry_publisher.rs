//! Feeds an edge with this machine's own telemetry over MQTT, QoS 2, until interrupted.
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::time::Duration;

use clap::Parser;
use robustmq_tests::load::Fleet;
use robustmq_tests::telemetry;

/// Publishes CPU, memory, load, network and disk readings from /proc, each as a device of its own, numbered, QoS 2.
///
/// Example: telemetry_publisher --mqtt 127.0.0.1:1883 --interval-ms 1000
#[derive(Parser)]
struct Arguments {
    /// The edge's MQTT listener
    #[arg(long, default_value = "127.0.0.1:1883")]
    mqtt: String,
    /// Milliseconds between two readings of one device
    #[arg(long, default_value_t = 1000)]
    interval_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let devices = telemetry::devices(Duration::from_millis(arguments.interval_ms));
    let fleet = Fleet::start(&arguments.mqtt, &devices);
    println!("publishing to gateway/telemetry/+ at {}; Ctrl-C ends", arguments.mqtt);
    tokio::signal::ctrl_c().await?;
    for report in fleet.finish(Duration::from_secs(30)).await? {
        println!(
            "{}: {} published, {} acknowledged",
            report.client_id, report.published, report.acknowledged
        );
    }
    Ok(())
}
