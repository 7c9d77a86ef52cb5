//! Who may send what: an edge's token names the edge and the topics that it may write to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::{kcat, programs};
use robustmq_tests::servers::http;
use robustmq_tests::{TestCloud, TestEdge, eventually};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

/// Registers an edge and leaves its token in a file.
pub async fn register(
    cloud: &TestCloud,
    dir: &tempfile::TempDir,
    edge: &str,
    write: &[&str],
) -> anyhow::Result<PathBuf> {
    let url = format!("http://{}/v1/edges", cloud.program()?.address("admin")?);
    let asked = serde_json::json!({"edge": edge, "write": write});
    let answer = http().post(url).json(&asked).send().await?.error_for_status()?;
    let added: serde_json::Value = answer.json().await?;
    let file = dir.path().join(edge);
    std::fs::write(&file, added["token"].as_str().context("the token")?)?;
    Ok(file)
}

/// The `[uplink]` section, to which more can be added, of an edge with this token.
pub fn with_token(file: &std::path::Path) -> String {
    format!("[uplink]\ntoken_file = \"{}\"\n", file.display())
}

/// Publishes one message with QoS 2.
pub async fn publish(edge: &TestEdge, topic: &str, payload: &str) -> anyhow::Result<()> {
    let address: std::net::SocketAddr = edge.mqtt()?.parse()?;
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-q", "2", "-t", topic, "-m", payload]);
    programs::output(command).await.map(drop)
}

#[tokio::test]
async fn a_registered_edge_sends_and_one_with_anothers_token_keeps_its_records()
-> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let dir = tempfile::tempdir()?;
    let token = register(&cloud, &dir, "plant-1", &["*"]).await?;
    let honest = TestEdge::start_with("plant-1", &cloud.uplink()?, &with_token(&token)).await?;
    publish(&honest, "hall/one", "let in").await?;
    honest.drained(PATIENCE).await?;

    // Both are known to the cloud; plant-2 shows plant-1's token.
    register(&cloud, &dir, "plant-2", &["*"]).await?;
    let impostor = TestEdge::start_with("plant-2", &cloud.uplink()?, &with_token(&token)).await?;
    publish(&impostor, "hall/one", "kept out").await?;
    eventually("the impostor is refused", PATIENCE, async || {
        let log = std::fs::read_to_string(impostor.log())?;
        Ok(log.contains("the uplink is interrupted").then_some(()))
    })
    .await?;
    ensure!(impostor.waiting_records().await? == 1, "the record is gone");
    let records = kcat::read_all(&cloud.kafka()?, "hall.one").await?;
    ensure!(records.len() == 1 && records[0].value == b"let in", "{records:?}");
    Ok(())
}

#[tokio::test]
async fn a_record_for_a_topic_that_the_edge_may_not_write_is_rejected_and_the_rest_goes_on()
-> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let dir = tempfile::tempdir()?;
    let token = register(&cloud, &dir, "plant-3", &["hall.*"]).await?;
    let edge = TestEdge::start_with("plant-3", &cloud.uplink()?, &with_token(&token)).await?;
    publish(&edge, "hall/one", "1").await?;
    publish(&edge, "office/one", "2").await?;
    publish(&edge, "hall/one", "3").await?;
    edge.drained(PATIENCE).await?;
    let records = kcat::read_all(&cloud.kafka()?, "hall.one").await?;
    let values: Vec<&[u8]> = records.iter().map(|record| record.value.as_slice()).collect();
    ensure!(values == [b"1", b"3"], "{values:?}");
    ensure!(
        !kcat::topics(&cloud.kafka()?).await?.contains(&"office.one".to_owned()),
        "it was written"
    );
    let rejected = edge.metric("robustmq_edge_uplink_dead_letters_total").await?;
    ensure!(rejected == Some(1.0), "{rejected:?} rejected");
    Ok(())
}
