//! A full queue refuses or drops, counts what it drops, and takes again when there is room.

use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::kcat;
use robustmq_tests::{TestCloud, TestEdge};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

const PATIENCE: Duration = Duration::from_secs(60);
const PAYLOAD_BYTES: usize = 64 * 1024;
const SMALL_QUEUE: &str = "[queue]\nmax_bytes = 4194304\nsegment_bytes = 1048576\n";

fn client(edge: &TestEdge) -> anyhow::Result<(AsyncClient, EventLoop)> {
    let address: std::net::SocketAddr = edge.mqtt()?.parse()?;
    let mut options = MqttOptions::new("filler", address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
    Ok(AsyncClient::new(options, 10))
}

/// Publishes one message of 64 KiB with QoS 1 and gives the reason code of its PUBACK.
async fn publish(
    client: &AsyncClient,
    events: &mut EventLoop,
    number: u32,
) -> anyhow::Result<PubAckReason> {
    let mut payload = format!("{number}:").into_bytes();
    payload.resize(PAYLOAD_BYTES, b'x');
    client.publish("fill/up", QoS::AtLeastOnce, false, payload).await?;
    let acknowledged = async {
        loop {
            if let Event::Incoming(Packet::PubAck(ack)) = events.poll().await? {
                return anyhow::Ok(ack.reason);
            }
        }
    };
    tokio::time::timeout(PATIENCE, acknowledged).await.context("no PUBACK")?
}

#[tokio::test]
async fn a_full_queue_refuses_with_quota_exceeded_and_takes_again_after_it_has_drained()
-> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let uplink = cloud.uplink()?;
    cloud.sigterm().await?;
    let mut edge = TestEdge::start_with("full", &uplink, SMALL_QUEUE).await?;
    edge.expect_error("the queue is full");
    let (client, mut events) = client(&edge)?;
    let mut taken = 0;
    loop {
        match publish(&client, &mut events, taken).await? {
            PubAckReason::QuotaExceeded => break,
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => taken += 1,
            other => anyhow::bail!("{other:?}"),
        }
        ensure!(taken < 100, "4 MiB never got full");
    }
    ensure!(taken >= 32, "full after {taken} messages of 64 KiB");
    cloud.start().await?;
    // The filler is silent meanwhile: its keep alive is longer than this takes.
    edge.drained(PATIENCE).await?;
    let next = publish(&client, &mut events, taken).await?;
    ensure!(
        matches!(next, PubAckReason::Success | PubAckReason::NoMatchingSubscribers),
        "{next:?}"
    );
    edge.drained(PATIENCE).await?;
    let records = kcat::read_all(&cloud.kafka()?, "fill.up").await?;
    ensure!(records.len() == usize::try_from(taken + 1)?, "{} of {}", records.len(), taken + 1);
    Ok(())
}

#[tokio::test]
async fn dropping_the_oldest_keeps_the_newest_and_counts_the_rest() -> anyhow::Result<()> {
    const PUBLISHED: u32 = 160;
    let mut cloud = TestCloud::start().await?;
    let uplink = cloud.uplink()?;
    cloud.sigterm().await?;
    let toml = format!("{SMALL_QUEUE}policy = \"drop-oldest\"\n");
    let edge = TestEdge::start_with("dropping", &uplink, &toml).await?;
    let (client, mut events) = client(&edge)?;
    for number in 0..PUBLISHED {
        let reason = publish(&client, &mut events, number).await?;
        ensure!(
            matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers),
            "{reason:?}"
        );
    }
    let dropped =
        edge.metric("robustmq_edge_queue_dropped_records_total").await?.context("the metric")?;
    // The cloud hears of the gap and goes on after it.
    cloud.start().await?;
    edge.drained(PATIENCE).await?;
    let records = kcat::read_all(&cloud.kafka()?, "fill.up").await?;
    let mut numbers = Vec::new();
    for record in &records {
        let digits = record.value.split(|byte| *byte == b':').next().context("a number")?;
        numbers.push(std::str::from_utf8(digits)?.parse::<u32>()?);
    }
    let first = numbers.first().copied().context("no record")?;
    ensure!(
        numbers == (first..PUBLISHED).collect::<Vec<_>>(),
        "not the newest, in order: {numbers:?}"
    );
    ensure!(first >= 96, "more than 4 MiB was kept: from {first}");
    ensure!((dropped - f64::from(first)).abs() < 0.5, "{dropped} counted, {first} missing");
    Ok(())
}
