//! A broker that keeps everything on an object store: what survives it, and what a second one does to it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::kcat;
use robustmq_tests::clients::programs::{self, Client, Job};
use robustmq_tests::{TestCloud, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn on(objects: &Path) -> String {
    format!("[cluster]\nobject_store = \"file://{}\"\n", objects.display())
}

/// Has kcat produce these values; fails if one is not acknowledged in time.
async fn produce(kafka: &str, values: &[String], within: Duration) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("values");
    std::fs::write(&file, values.join("\n") + "\n")?;
    let file = file.to_str().context("a path in UTF-8")?;
    let timeout = format!("message.timeout.ms={}", within.as_millis());
    let acknowledged =
        ["-P", "-b", kafka, "-t", "events", "-X", "acks=all", "-X", &timeout, "-l", file];
    kcat::run(&acknowledged).await.map(drop)
}

async fn values(cloud: &TestCloud) -> anyhow::Result<Vec<String>> {
    let records = kcat::read_all(&cloud.kafka()?, "events").await?;
    Ok(records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect())
}

fn numbered(round: u32) -> Vec<String> {
    (0..200).map(|n| format!("round {round} record {n}")).collect()
}

#[tokio::test]
async fn what_was_acknowledged_survives_kills_and_the_data_directory_stays_empty()
-> anyhow::Result<()> {
    let objects = tempfile::tempdir()?;
    let mut cloud = TestCloud::start_with(&on(objects.path())).await?;
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        produce(&cloud.kafka()?, &numbered(round), PATIENCE).await?;
        acknowledged.extend(numbered(round));
        cloud.kill9().await?;
        cloud.start().await?;
        ensure!(values(&cloud).await? == acknowledged, "after round {round}");
    }
    ensure!(!cloud.data().exists(), "something was written to {}", cloud.data().display());
    ensure!(cloud.sigterm().await?.success(), "the cloud did not end well");
    Ok(())
}

#[tokio::test]
async fn a_second_broker_takes_the_store_and_the_first_stops_acknowledging() -> anyhow::Result<()> {
    let objects = tempfile::tempdir()?;
    let mut first = TestCloud::start_with(&on(objects.path())).await?;
    first.expect_error("another broker has opened");
    produce(&first.kafka()?, &numbered(0), PATIENCE).await?;

    let mut second = TestCloud::start_with(&on(objects.path())).await?;
    let late = produce(&first.kafka()?, &numbered(1), Duration::from_secs(5)).await;
    ensure!(late.is_err(), "the first broker acknowledged what it must not write");
    eventually("the first broker says that it is not ready", PATIENCE, async || {
        let told = first.admin("/ready").await.err().map(|error| error.to_string());
        Ok(told
            .filter(|reason| reason.contains("503") && reason.contains("another broker"))
            .map(drop))
    })
    .await?;

    produce(&second.kafka()?, &numbered(2), PATIENCE).await?;
    let expected = [numbered(0), numbered(2)].concat();
    ensure!(
        values(&second).await? == expected,
        "what the first one did not acknowledge is not there"
    );
    ensure!(!first.sigterm().await?.success(), "it says with its exit code that it lost the store");
    second.kill9().await?;
    second.start().await?;
    ensure!(values(&second).await? == expected, "after a kill");
    Ok(())
}

#[tokio::test]
async fn every_client_reads_back_what_it_produced() -> anyhow::Result<()> {
    let objects = tempfile::tempdir()?;
    let cloud = TestCloud::start_with(&on(objects.path())).await?;
    let kafka = cloud.kafka()?;
    for client in Client::ALL {
        let topic = format!("of-{client:?}").to_lowercase();
        let job = Job { kafka: &kafka, topic: &topic, count: 500, more: &[] };
        programs::produce(client, &job).await?;
        let report = programs::read(client, &job).await?;
        ensure!(report.is_exact(500), "{client:?}: {report:?}");
    }
    Ok(())
}
