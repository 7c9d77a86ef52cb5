//! From an MQTT device through an outage to a Kafka consumer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::{kcat, programs};
use robustmq_tests::load::kills::read_logs;
use robustmq_tests::load::{Account, Device, Fleet, Quality};
use robustmq_tests::{TestCloud, TestEdge, eventually};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

fn device(client_id: &str, topic: &str, quality: Quality) -> Device {
    Device {
        client_id: client_id.to_owned(),
        topic: topic.to_owned(),
        quality,
        interval: Duration::from_millis(2),
        window: 32,
        payload: Arc::new(|number| format!("{number} reading").into_bytes()),
    }
}

async fn acknowledged(fleet: &mut Fleet, count: u64) -> anyhow::Result<()> {
    let wanted = fleet.acknowledged() + count;
    eventually("acknowledgements", PATIENCE, async || {
        fleet.check()?;
        Ok((fleet.acknowledged() >= wanted).then_some(()))
    })
    .await
}

async fn mosquitto_pub(edge: &TestEdge, arguments: &[&str]) -> anyhow::Result<()> {
    let address: std::net::SocketAddr = edge.mqtt()?.parse()?;
    let mut command = Command::new("mosquitto_pub");
    command
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(arguments);
    programs::output(command).await.map(drop)
}

#[tokio::test]
async fn an_outage_of_the_cloud_is_made_up_for_exactly_once() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let mut edge = TestEdge::start("plant-7", &cloud.uplink()?).await?;
    let devices = [
        device("press", "plant/7/press", Quality::ExactlyOnce),
        device("oven", "plant/7/oven", Quality::ExactlyOnce),
        device("door", "plant/7/door", Quality::AtLeastOnce),
    ];
    let mut fleet = Fleet::start(&edge.mqtt()?, &devices);
    acknowledged(&mut fleet, 300).await?;
    cloud.kill9().await?;
    acknowledged(&mut fleet, 600).await?;
    // Whatever the cloud took before it was killed, the rest waits on the edge, through a restart of its own.
    ensure!(edge.waiting_records().await? >= 500, "{} wait", edge.waiting_records().await?);
    ensure!(edge.sigterm().await?.success(), "the edge did not end well");
    edge.start().await?;
    acknowledged(&mut fleet, 100).await?;
    cloud.start().await?;
    let reports = fleet.finish(PATIENCE).await?;
    edge.drained(PATIENCE).await?;

    let logs = read_logs(&cloud.kafka()?, &reports).await?;
    let account = Account::of(&reports, &logs)?;
    let broken = account.broken(|client_id| match client_id {
        "door" => Quality::AtLeastOnce,
        _ => Quality::ExactlyOnce,
    });
    ensure!(broken.is_empty(), "{broken:?}");
    ensure!(account.sequences_hold(), "{account:?}");
    let record = logs["plant/7/press"].first().context("a record")?;
    ensure!(record.header("mqtt.topic") == Some("plant/7/press"), "{record:?}");
    ensure!(record.header("mqtt.qos") == Some("2"), "{record:?}");
    ensure!(record.header("robustmq.edge") == Some("plant-7"), "{record:?}");
    Ok(())
}

/// MQTT topics that look alike as Kafka names stay apart, and each record says where it came from.
#[tokio::test]
async fn topics_with_dots_spaces_and_unicode_do_not_collide() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let edge = TestEdge::start("names", &cloud.uplink()?).await?;
    let names = ["a/b", "a.b", "a b", "Anlage/Überdruck/1", "温度/一", "/a/b", "a//b", "a/b/"];
    for name in names {
        mosquitto_pub(&edge, &["-q", "2", "-t", name, "-m", name]).await?;
    }
    edge.drained(PATIENCE).await?;
    let kafka = cloud.kafka()?;
    let mut found = BTreeMap::new();
    for topic in kcat::topics(&kafka).await? {
        for record in kcat::read_all(&kafka, &topic).await? {
            let origin = record.header("mqtt.topic").context("mqtt.topic")?.to_owned();
            ensure!(origin.as_bytes() == record.value, "{record:?}");
            ensure!(found.insert(origin, topic.clone()).is_none(), "twice: {record:?}");
        }
    }
    let mut expected = names.map(str::to_owned);
    expected.sort();
    ensure!(found.keys().cloned().collect::<Vec<_>>() == expected, "{found:?}");
    ensure!(found["a/b"] == "a.b", "{found:?}");
    let mut topics: Vec<&String> = found.values().collect();
    topics.sort();
    topics.dedup();
    ensure!(topics.len() == names.len(), "two names share a topic: {found:?}");
    Ok(())
}

#[tokio::test]
async fn what_mqtt_5_says_about_a_message_reaches_kafka_as_headers() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let edge = TestEdge::start("headers", &cloud.uplink()?).await?;
    let properties = [
        ["content-type", "text/plain"],
        ["response-topic", "answers/1"],
        ["correlation-data", "c-17"],
    ];
    let mut arguments =
        vec!["-V", "5", "-i", "sender", "-q", "1", "-r", "-t", "with/properties", "-m", "hello"];
    for [name, value] in &properties {
        arguments.extend(["-D", "publish", name, value]);
    }
    arguments.extend(["-D", "publish", "user-property", "unit", "mm"]);
    mosquitto_pub(&edge, &arguments).await?;
    edge.drained(PATIENCE).await?;
    let records = kcat::read_all(&cloud.kafka()?, "with.properties").await?;
    let [record] = records.as_slice() else { anyhow::bail!("{records:?}") };
    let expected = [
        ("mqtt.topic", "with/properties"),
        ("mqtt.qos", "1"),
        ("mqtt.retain", "1"),
        ("mqtt.content-type", "text/plain"),
        ("mqtt.response-topic", "answers/1"),
        ("mqtt.correlation-data", "c-17"),
        ("mqtt.user.unit", "mm"),
        ("robustmq.edge", "headers"),
    ];
    for (name, value) in expected {
        ensure!(record.header(name) == Some(value), "{name}: {record:?}");
    }
    ensure!(record.key == b"sender" && record.value == b"hello", "{record:?}");
    Ok(())
}
