//! What outlives a connection.

use robustmq_common::mqtt::packet::{Packet, ProtocolVersion, QoS, ReasonCode};

use super::bench::Bench;
use super::client::{Client, clean, kept, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_session_gets_what_came_while_it_was_away() {
    let bench = Bench::start().await;
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let name = format!("sleeper-{version:?}");
        let (mut sleeper, answer) = Client::connect(bench.mqtt(), kept(&name, version)).await;
        assert!(!answer.session_present);
        sleeper.subscribe("news/#", QoS::ExactlyOnce).await;
        drop(sleeper);

        let (mut publisher, _) = Client::connect(bench.mqtt(), clean("publisher", version)).await;
        for number in 1..=50_u16 {
            let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            publisher.publish(publish("news/today", &number.to_string(), qos, number)).await;
        }
        let (mut sleeper, answer) = Client::connect(bench.mqtt(), kept(&name, version)).await;
        assert!(answer.session_present);
        let expected: Vec<String> = (1..=50).map(|number: u16| number.to_string()).collect();
        assert_eq!(sleeper.take(50).await, expected);
        let (_, answer) = Client::connect(bench.mqtt(), clean(&name, version)).await;
        assert!(!answer.session_present, "Clean Start ends the session");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_expires() {
    let bench = Bench::start().await;
    let mut connect = kept("brief", ProtocolVersion::V5);
    connect.properties.session_expiry_interval_secs = Some(1);
    let (mut brief, _) = Client::connect(bench.mqtt(), connect.clone()).await;
    brief.subscribe("x", QoS::AtLeastOnce).await;
    bench.eventually("the session to be there", |status| status.mqtt.sessions == 1).await;
    drop(brief);
    bench.eventually("the session to expire", |status| status.mqtt.sessions == 0).await;
    let (_, answer) = Client::connect(bench.mqtt(), connect).await;
    assert!(!answer.session_present);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_quiet_gateway_forgets_who_left() {
    let bench = Bench::start().await;
    let (client, _) = Client::connect(bench.mqtt(), clean("guest", ProtocolVersion::V5)).await;
    bench.eventually("the guest to be counted", |status| status.mqtt.connections == 1).await;
    drop(client);
    let gone = |status: &crate::admin::Status| (status.mqtt.connections, status.mqtt.sessions);
    bench.eventually("the guest to be forgotten", |status| gone(status) == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_closed_after_its_keep_alive() {
    let bench = Bench::start().await;
    let mut connect = clean("silent", ProtocolVersion::V5);
    connect.keep_alive_secs = 1;
    let (mut silent, _) = Client::connect(bench.mqtt(), connect).await;
    match silent.recv().await {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::KeepAliveTimeout);
        }
        other => panic!("{other:?}"),
    }
    silent.expect_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_takes_the_session_over() {
    let bench = Bench::start().await;
    let (mut first, _) = Client::connect(bench.mqtt(), kept("twin", ProtocolVersion::V5)).await;
    let (mut second, answer) =
        Client::connect(bench.mqtt(), kept("twin", ProtocolVersion::V5)).await;
    assert!(answer.session_present);
    match first.recv().await {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::SessionTakenOver);
        }
        other => panic!("{other:?}"),
    }
    first.expect_closed().await;
    second.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_says_good_bye_to_mqtt_5_clients() {
    let mut bench = Bench::start().await;
    let mut five = Client::v5(bench.mqtt(), "five").await;
    let (mut three, _) = Client::connect(bench.mqtt(), clean("three", ProtocolVersion::V311)).await;
    bench.stop().await;
    match five.recv().await {
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, ReasonCode::ServerShuttingDown);
        }
        other => panic!("{other:?}"),
    }
    five.expect_closed().await;
    assert_eq!(three.next().await, None);
}
