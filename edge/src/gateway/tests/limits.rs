//! Bad input, full queues, too many connections.

use std::num::NonZeroU32;

use robustmq_common::mqtt::packet::{Packet, Password, ProtocolVersion, QoS, ReasonCode};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::bench::{Bench, PATIENCE};
use super::client::{Client, clean, publish};
use crate::admin::Status;
use crate::gateway::users_line;
use crate::settings::{RouteKey, RoutePriority, RouteSettings};

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_close_their_connection_and_harm_nobody_else() {
    let bench = Bench::start().await;
    let mut bystander = Client::v5(bench.mqtt(), "bystander").await;
    bystander.subscribe("a", QoS::AtLeastOnce).await;
    let rubbish: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x02\x00\x04",
        b"\x30\x03\x00\x01a",
        b"\xf0\x00",
    ];
    for bytes in rubbish {
        let mut stranger = Client::open(bench.mqtt(), ProtocolVersion::V5).await;
        stranger.send_bytes(bytes).await;
        while stranger.next().await.is_some() {}
    }
    let mut known = Client::v5(bench.mqtt(), "known").await;
    // A reserved flag in SUBSCRIBE.
    known.send_bytes(b"\x80\x00").await;
    match known.recv().await {
        Packet::Disconnect(told) => assert_eq!(told.reason, ReasonCode::MalformedPacket),
        other => panic!("{other:?}"),
    }
    known.expect_closed().await;
    let mut other = Client::v5(bench.mqtt(), "other").await;
    other.publish(publish("a", "still here", QoS::AtLeastOnce, 1)).await;
    assert_eq!(bystander.take(1).await, ["still here"]);
    bench.eventually("these two alone", |status| status.mqtt.connections == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_over_the_limit_is_refused_before_it_is_read() {
    let bench = Bench::start_with(|settings| settings.mqtt.max_packet_bytes = 10_000).await;
    let (mut client, answer) =
        Client::connect(bench.mqtt(), clean("client", ProtocolVersion::V5)).await;
    assert_eq!(answer.properties.maximum_packet_size.unwrap().get(), 10_000);
    // The header of a PUBLISH of 1 MiB; its body never comes.
    client.send_bytes(b"\x30\x80\x80\x40").await;
    match client.recv().await {
        Packet::Disconnect(told) => assert_eq!(told.reason, ReasonCode::PacketTooLarge),
        other => panic!("{other:?}"),
    }
    client.expect_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let bench = Bench::start_with(|settings| settings.mqtt.max_connections = 2).await;
    let mut one = Client::v5(bench.mqtt(), "one").await;
    let two = Client::v5(bench.mqtt(), "two").await;
    let mut three = TcpStream::connect(bench.mqtt()).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, three.read_u8()).await.unwrap();
    assert!(read.is_err());
    drop(two);
    bench.eventually("a free place", |status| status.mqtt.connections == 1).await;
    let mut four = Client::v5(bench.mqtt(), "four").await;
    four.expect_silence().await;
    one.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_local_topics_go_on() {
    let bench = Bench::start_with(|settings| {
        settings.queue.max_bytes = 1024 * 1024;
        settings.queue.segment_bytes = 64 * 1024;
        settings.routes = vec![RouteSettings {
            filter: "local/#".to_owned(),
            topic: None,
            key: RouteKey::ClientId,
            priority: RoutePriority::Normal,
            ttl_secs: None,
            local: true,
        }];
    })
    .await;
    let mut subscriber = Client::v5(bench.mqtt(), "subscriber").await;
    subscriber.subscribe("#", QoS::AtMostOnce).await;
    let mut device = Client::v5(bench.mqtt(), "device").await;
    let payload = "x".repeat(50_000);
    let mut taken = 0_u64;
    let refused = loop {
        let reason = device.publish(publish("up", &payload, QoS::AtLeastOnce, 1)).await;
        if reason as u8 >= 0x80 {
            break reason;
        }
        taken += 1;
        assert_eq!(subscriber.recv_publish().await.topic.unwrap().as_str(), "up");
        assert!(taken < 100, "1 MiB cannot take 5 MB");
    };
    assert_eq!(refused, ReasonCode::QuotaExceeded);
    let reason = device.publish(publish("up", &payload, QoS::ExactlyOnce, 2)).await;
    assert_eq!(reason, ReasonCode::QuotaExceeded);
    subscriber.expect_silence().await;
    device.publish(publish("local/x", "near", QoS::ExactlyOnce, 3)).await;
    assert_eq!(subscriber.recv_publish().await.payload, "near");

    let (mut old, _) = Client::connect(bench.mqtt(), clean("old", ProtocolVersion::V311)).await;
    old.send(Packet::Publish(Box::new(publish("up", &payload, QoS::AtLeastOnce, 4)))).await;
    old.expect_no_acknowledgement().await;
    let refused = |status: &Status| status.mqtt.publishes_refused >= 3;
    let status = bench.eventually("three to be counted as refused", refused).await;
    assert_eq!(status.queue.records, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_users_file_only_its_users_connect() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    std::fs::write(&file, users_line("press", b"right", NonZeroU32::MIN)).unwrap();
    let bench = Bench::start_with(|settings| settings.mqtt.users_file = Some(file)).await;
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for (name, password, expected) in [
            (Some("press"), Some("right"), ReasonCode::Success),
            (Some("press"), Some("wrong"), ReasonCode::BadUserNameOrPassword),
            (Some("other"), Some("right"), ReasonCode::BadUserNameOrPassword),
            (None, None, ReasonCode::BadUserNameOrPassword),
        ] {
            let mut connect = clean("client", version);
            connect.username = name.map(Into::into);
            connect.password = password.map(|password| Password(password.into()));
            let (_, answer) = Client::connect(bench.mqtt(), connect).await;
            assert_eq!(answer.reason, expected, "{name:?} {password:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cloud_nothing_is_queued_and_messages_pass() {
    let bench = Bench::start_with(|settings| settings.uplink.url = None).await;
    let mut client = Client::v5(bench.mqtt(), "client").await;
    client.subscribe("a", QoS::ExactlyOnce).await;
    client.send(Packet::Publish(Box::new(publish("a", "x", QoS::AtMostOnce, 0)))).await;
    assert_eq!(client.recv_publish().await.payload, "x");
    let status = bench.status().await;
    assert_eq!((status.queue.records, status.uplink), (0, None));
}
