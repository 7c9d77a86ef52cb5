//! Thousands of topics, and a broker that dies while it removes them.

use anyhow::ensure;
use robustmq_tests::TestCloud;
use robustmq_tests::clients::programs;

const TOPICS: usize = 5000;

/// Lets confluent-kafka do something with all topics.
async fn all_topics(cloud: &TestCloud, verb: &str) -> anyhow::Result<String> {
    let mut command = programs::python("confluent_topics.py")?;
    command.args([verb, "--bootstrap", &cloud.kafka()?, "--prefix", "many"]);
    command.args(["--count", &TOPICS.to_string(), "--active", "50", "--records", "500"]);
    programs::output(command).await
}

/// Offsets that a topic has.
async fn records(cloud: &TestCloud, number: usize) -> anyhow::Result<u64> {
    let shown = cloud.admin(&format!("/v1/topics/many-{number:07}")).await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    Ok(shown["records"].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn topics_deleted_by_the_thousand_are_gone_although_the_broker_dies() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    for round in 0..3 {
        all_topics(&cloud, "create").await?;
        // The first of the fifty that are written to.
        ensure!(records(&cloud, 0).await? == 0, "round {round} began with old records");
        all_topics(&cloud, "produce").await?;
        ensure!(records(&cloud, 0).await? > 0, "nothing was written");
        all_topics(&cloud, "delete").await?;
        // What they held is being removed now.
        cloud.kill9().await?;
        cloud.start().await?;
        let left = cloud.admin("/v1/topics").await?;
        ensure!(left == r#"{"topics":[],"next":null}"#, "{left}");
    }
    all_topics(&cloud, "create").await?;
    ensure!(records(&cloud, 0).await? == 0);
    let loaded = cloud.metric("robustmq_cloud_partitions_loaded").await?;
    ensure!(loaded.is_some_and(|loaded| loaded < 100.0), "{loaded:?} partitions are in memory");
    Ok(())
}
