//! What the gateway says of itself under `$SYS/`.

use std::collections::BTreeMap;

use robustmq_common::mqtt::packet::{ProtocolVersion, QoS, ReasonCode};

use super::bench::Bench;
use super::client::{Client, clean, kept, publish};
use crate::admin::Status;

const V5: ProtocolVersion = ProtocolVersion::V5;

/// The next figures, by topic, until `wanted` says that these are the right ones.
async fn figures_until(
    client: &mut Client,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> BTreeMap<String, String> {
    let mut figures = BTreeMap::new();
    while !wanted(&figures) {
        let message = client.recv_publish().await;
        let topic = message.topic.as_ref().unwrap().as_str().to_owned();
        figures.insert(topic, String::from_utf8(message.payload.to_vec()).unwrap());
    }
    figures
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_that_mosquitto_has_are_there_and_go_on() {
    let bench = Bench::start_with(|settings| settings.mqtt.sys_interval_s = 1).await;
    let (mut sleeper, _) = Client::connect(bench.mqtt(), kept("sleeper", V5)).await;
    sleeper.subscribe("news/#", QoS::AtMostOnce).await;
    drop(sleeper);
    let mut everything = Client::v5(bench.mqtt(), "everything").await;
    everything.subscribe("#", QoS::AtMostOnce).await;
    let mut state = publish("press/state", "on", QoS::AtMostOnce, 0);
    state.retain = true;
    everything.publish(state).await;
    assert_eq!(everything.take(1).await, ["on"]);

    let mut watcher = Client::v5(bench.mqtt(), "watcher").await;
    watcher.subscribe("$SYS/broker/#", QoS::AtLeastOnce).await;
    let is = |figures: &BTreeMap<String, String>, name: &str, expected: &str| {
        figures.get(&format!("$SYS/broker/{name}")).is_some_and(|found| found == expected)
    };
    let figures = figures_until(&mut watcher, |figures| {
        is(figures, "clients/connected", "2")
            && is(figures, "clients/disconnected", "1")
            && is(figures, "clients/total", "3")
            && is(figures, "subscriptions/count", "3")
            && is(figures, "retained messages/count", "1")
            && is(figures, "publish/messages/received", "1")
            && figures.contains_key("$SYS/broker/bytes/sent")
    })
    .await;
    let number = |name: &str| figures[&format!("$SYS/broker/{name}")].parse::<u64>().unwrap();
    assert!(figures["$SYS/broker/uptime"].ends_with(" seconds"), "{figures:?}");
    assert!(figures["$SYS/broker/version"].starts_with("robustmq-edge version "), "{figures:?}");
    for name in ["messages/received", "messages/sent", "publish/messages/sent"] {
        assert!(number(name) > 0, "{name} in {figures:?}");
    }
    for name in ["bytes/received", "bytes/sent"] {
        assert!(number(name) > 20, "{name} in {figures:?}");
    }
    let before = figures["$SYS/broker/uptime"].clone();
    figures_until(&mut watcher, |figures| {
        figures.get("$SYS/broker/uptime").is_some_and(|uptime| *uptime != before)
    })
    .await;

    // Nothing of it for who wants everything, and nothing of it for the cloud.
    everything.publish(publish("press/end", "end", QoS::AtMostOnce, 0)).await;
    assert_eq!(everything.take(1).await, ["end"]);
    let only_those = |status: &Status| status.queue.records == 2 && status.mqtt.retained == 1;
    bench.eventually("two records, one retained message", only_those).await;
    let metrics = bench.metrics().await;
    assert!(!metrics.contains("robustmq_edge_mqtt_received_bytes_total 0\n"), "{metrics}");
    assert!(metrics.contains("robustmq_edge_mqtt_sent_bytes_total "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_not_publish_to_sys_topics() {
    let bench = Bench::start().await;
    let (mut client, _) = Client::connect(bench.mqtt(), clean("client", V5)).await;
    let refused = client.publish(publish("$SYS/broker/uptime", "0", QoS::AtLeastOnce, 1)).await;
    assert_eq!(refused, ReasonCode::NotAuthorized);
    let (mut old, _) = Client::connect(bench.mqtt(), clean("old", ProtocolVersion::V311)).await;
    old.publish(publish("$SYS/broker/uptime", "0", QoS::AtLeastOnce, 1)).await;
    client.subscribe("$SYS/broker/uptime", QoS::AtMostOnce).await;
    assert!(client.recv_publish().await.payload.ends_with(b" seconds"));
    assert_eq!(bench.status().await.queue.records, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_of_0_says_nothing() {
    let bench = Bench::start_with(|settings| settings.mqtt.sys_interval_s = 0).await;
    let mut watcher = Client::v5(bench.mqtt(), "watcher").await;
    watcher.subscribe("$SYS/#", QoS::AtMostOnce).await;
    watcher.expect_silence().await;
}
