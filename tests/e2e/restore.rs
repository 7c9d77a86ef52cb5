//! What an operator does after a backup of the cloud was restored.

use std::process::Output;
use std::time::Duration;

use anyhow::ensure;
use robustmq_tests::process::binary;
use robustmq_tests::{TestCloud, TestEdge, eventually};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

async fn renew_identity(cloud: &TestCloud) -> anyhow::Result<Output> {
    let mut command = Command::new(binary("robustmq-cloud")?);
    command.args(["store", "renew-identity", "--data-dir"]).arg(cloud.data());
    Ok(command.output().await?)
}

#[tokio::test]
async fn a_store_gets_a_new_generation_while_its_broker_is_stopped_and_edges_notice()
-> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let edge = TestEdge::start("plant-7", &cloud.uplink()?).await?;
    let noticed = "the cloud's store is another one";
    eventually("the edge has talked to the cloud", PATIENCE, async || {
        let status: serde_json::Value = serde_json::from_str(&edge.admin("/status").await?)?;
        Ok((status["uplink"]["connected"] == true).then_some(()))
    })
    .await?;

    let refused = renew_identity(&cloud).await?;
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(reason.contains("stop that one first") && reason.lines().count() == 1, "{reason}");

    ensure!(cloud.sigterm().await?.success(), "the cloud did not end well");
    let renewed = renew_identity(&cloud).await?;
    ensure!(renewed.status.success(), "{renewed:?}");
    cloud.start().await?;
    eventually("the edge says so", PATIENCE, async || {
        Ok(std::fs::read_to_string(edge.log())?.contains(noticed).then_some(()))
    })
    .await
}
