//! Archived records read back from an S3 server that answers after 100 to 200 ms: bandwidth, and bytes from S3
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use robustmq_tests::bench::consume::{Goal, Reader};
use robustmq_tests::bench::cost::{Cost, Process};
use robustmq_tests::bench::kafka::Kafka;
use robustmq_tests::bench::produce::{self, Limit, Plan};
use robustmq_tests::s3::{FakeS3, Faults};
use robustmq_tests::{TestCloud, eventually};

const ARCHIVED: &str = "robustmq_cloud_tier_archived_bytes_total";

/// Produces to `tiered` topics with librdkafka, has them archived, and reads them back with an empty cache. The S3 server is part of this
/// program and keeps objects in memory; its bandwidth is that of the loopback.
///
/// Example: scripts/bench tiered --gigabytes 1 --partitions 1 --partitions 16
#[derive(Parser)]
struct Arguments {
    /// Partitions of a topic; may be given several times
    #[arg(long, default_values_t = [1, 10], value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: Vec<i32>,
    /// How much is written to each topic, in GB
    #[arg(long, default_value_t = 0.5)]
    gigabytes: f64,
    /// What the cache may take, in MiB
    #[arg(long, default_value_t = 128)]
    cache_mib: usize,
    /// The least time that S3 takes to answer, in milliseconds
    #[arg(long, default_value_t = 100)]
    least_ms: u64,
    /// How much longer it may take, in milliseconds
    #[arg(long, default_value_t = 100)]
    more_ms: u64,
    /// Where the broker keeps its data; its disk is measured
    #[arg(long, default_value = "target")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.dir)?;
    // A second call changes nothing.
    let _ = tempfile::env::override_temp_dir(&arguments.dir);
    println!(
        "{} GB in each topic, cache {} MiB, S3 answers after {} to {} ms",
        arguments.gigabytes,
        arguments.cache_mib,
        arguments.least_ms,
        arguments.least_ms + arguments.more_ms
    );
    println!("{:<44}{:>9}{:>12}{:>14}{:>10}", "", "MB/s", "CPU s/GB", "S3 bytes/data", "waits");
    for partitions in &arguments.partitions {
        run(&arguments, *partitions).await?;
    }
    Ok(())
}

async fn run(arguments: &Arguments, partitions: i32) -> anyhow::Result<()> {
    let s3 = FakeS3::start(1).await?;
    s3.create_bucket("bench");
    let toml = format!(
        "[storage]\nupkeep_interval_ms = 500\n[tier]\nobject_store = \"s3://bench\"\n[cache]\nmemory_bytes = {}\n",
        arguments.cache_mib << 20
    );
    let mut cloud = TestCloud::start_in(&toml, s3.environment()).await?;
    let kafka = Kafka {
        bootstrap: cloud.kafka()?,
        producer_settings: Vec::new(),
        consumer_settings: Vec::new(),
    };
    let topic = format!("tiered-{partitions}");
    let config = [("robustmq.storage.mode", "tiered"), ("robustmq.tier.local.ms", "0")];
    let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let created = kafka.create_topic(&topic, partitions, &config).await?;
    ensure!(created.is_ok(), "the topic was not created: {created:?}");
    let plan = Plan {
        topic: topic.clone(),
        partitions,
        record_bytes: 1024,
        batch_bytes: 65536,
        linger_ms: 5.0,
        limit: Limit::Gigabytes(arguments.gigabytes),
    };
    let process = Some(Process(cloud.program()?.id().context("the broker has ended")?));
    let producing = kafka.clone();
    let began = Instant::now();
    let produced =
        tokio::task::spawn_blocking(move || produce::run(&producing, process, &plan)).await??;
    print("produce, while it is archived", partitions, &produced, None);
    let written = produced.bytes as f64;
    eventually("everything is archived", Duration::from_secs(300), async || {
        let archived = cloud.metric(ARCHIVED).await?.unwrap_or(0.0);
        Ok((archived > written).then_some(()))
    })
    .await?;
    println!(
        "{:<44}{:>8.1}s after the first record",
        "  all of it archived",
        began.elapsed().as_secs_f64()
    );

    // Nothing is in memory.
    cloud.sigterm().await?;
    cloud.start().await?;
    s3.set_faults(Faults {
        least_delay: Duration::from_millis(arguments.least_ms),
        delay: Duration::from_millis(arguments.more_ms),
        ..Faults::default()
    });
    let before = s3.given_bytes();
    let process = Some(Process(cloud.program()?.id().context("the broker has ended")?));
    let reading = kafka.clone();
    let consumed = tokio::task::spawn_blocking(move || -> anyhow::Result<Cost> {
        let found = reading.watermarks(&topic, partitions)?;
        Reader::start(&reading, process, &topic, &found, Goal::all_of(&found))?.read()
    })
    .await??;
    let all = produced.records + produced.uncounted_records;
    ensure!(consumed.records == all, "{} of {all} records came back", consumed.records);
    let waits = cloud.metric("robustmq_cloud_tier_cache_misses_total").await?;
    let share = (s3.given_bytes() - before) as f64 / written;
    print(
        "consume from S3, empty cache",
        partitions,
        &consumed,
        Some((share, waits.unwrap_or(0.0))),
    );
    Ok(())
}

fn print(what: &str, partitions: i32, cost: &Cost, s3: Option<(f64, f64)>) {
    let cpu = cost.broker_cpu_a_gigabyte().map_or("-".to_owned(), |cpu| format!("{cpu:.2}"));
    let (share, waits) = s3.map_or((String::new(), String::new()), |(share, waits)| {
        (format!("{share:.2}"), format!("{waits:.0}"))
    });
    let what = format!("{what}, {partitions} partitions");
    let rate = cost.megabytes_a_second();
    println!("{what:<44}{rate:>9.1}{cpu:>12}{share:>14}{waits:>10}");
}
