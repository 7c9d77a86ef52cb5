//! Messages from one client to another.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use robustmq_common::mqtt::packet::{
    MessageProperties, Packet, ProtocolVersion, QoS, ReasonCode, TopicName, Will,
};
use robustmq_common::net::client_tls;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet as Seen};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::bench::{Bench, PATIENCE};
use super::client::{Client, clean, publish};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_with_the_lower_qos_of_both_sides() {
    let bench = Bench::start().await;
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let connect = |name: &str| Client::connect(bench.mqtt(), clean(name, version));
        let (mut publisher, _) = connect("publisher").await;
        for wanted in ALL_QOS {
            let (mut subscriber, _) = connect("subscriber").await;
            assert_eq!(subscriber.subscribe("press/+/temp", wanted).await as u8, wanted.as_u8());
            for sent in ALL_QOS {
                let packet_id = if sent == QoS::AtMostOnce { 0 } else { 7 };
                let message = publish("press/1/temp", "21.5", sent, packet_id);
                publisher.publish(message).await;
                let received = subscriber.recv_publish().await;
                assert_eq!(received.qos, sent.min(wanted));
                assert_eq!(received.topic.as_ref().unwrap().as_str(), "press/1/temp");
                assert_eq!(received.payload, "21.5");
                assert!(!received.retain && !received.dup);
                subscriber.acknowledge(&received).await;
            }
            subscriber.expect_silence().await;
        }
    }
    bench.eventually("all to be queued", |status| status.queue.records == 18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_sends_and_receives() {
    let bench = Bench::start().await;
    let options = |name: &str| {
        let mut options = MqttOptions::new(name, "127.0.0.1", bench.mqtt().port());
        options.set_keep_alive(Duration::from_secs(5));
        options
    };
    let (subscriber, mut subscribed) = AsyncClient::new(options("subscriber"), 16);
    subscriber.subscribe("load/#", rumqttc::QoS::ExactlyOnce).await.unwrap();
    while !matches!(subscribed.poll().await.unwrap(), Event::Incoming(Seen::SubAck(_))) {}

    const COUNT: usize = 500;
    let (publisher, mut published) = AsyncClient::new(options("publisher"), 16);
    let driver = tokio::spawn(async move { while published.poll().await.is_ok() {} });
    let sender = tokio::spawn(async move {
        for number in 0..COUNT {
            let topic = format!("load/{}", number % 7);
            let qos = rumqttc::QoS::ExactlyOnce;
            publisher.publish(topic, qos, false, number.to_string()).await.unwrap();
        }
        publisher
    });
    let mut numbers = Vec::new();
    let all = async {
        while numbers.len() < COUNT {
            if let Event::Incoming(Seen::Publish(message)) = subscribed.poll().await.unwrap() {
                numbers.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert_eq!(numbers, (0..COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
    drop(sender.await.unwrap());
    driver.abort();
    bench.eventually("all to be queued", |status| status.queue.records == COUNT as u64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_meets_later_subscribers_until_it_is_cleared() {
    let mut bench = Bench::start().await;
    let mut publisher = Client::v5(bench.mqtt(), "publisher").await;
    let mut state = publish("press/state", "on", QoS::AtLeastOnce, 1);
    state.retain = true;
    publisher.publish(state.clone()).await;
    bench.restart().await;

    let mut subscriber = Client::v5(bench.mqtt(), "first").await;
    subscriber.subscribe("press/#", QoS::AtMostOnce).await;
    let received = subscriber.recv_publish().await;
    assert!(received.retain);
    assert_eq!(received.payload, "on");

    let mut publisher = Client::v5(bench.mqtt(), "publisher").await;
    state.payload = "".into();
    publisher.publish(state).await;
    bench.restart().await;
    let mut subscriber = Client::v5(bench.mqtt(), "second").await;
    subscriber.subscribe("press/#", QoS::AtMostOnce).await;
    subscriber.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_published_when_the_connection_breaks_and_not_after_a_good_bye() {
    let bench = Bench::start().await;
    let mut subscriber = Client::v5(bench.mqtt(), "subscriber").await;
    subscriber.subscribe("gone/+", QoS::AtMostOnce).await;
    let connect = |name: &str| {
        let mut connect = clean(name, ProtocolVersion::V5);
        connect.will = Some(Will {
            topic: TopicName::new(&format!("gone/{name}")).unwrap(),
            payload: name.to_owned().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_interval_secs: 0,
            properties: MessageProperties::default(),
        });
        Client::connect(bench.mqtt(), connect)
    };
    let (polite, _) = connect("polite").await;
    polite.disconnect(ReasonCode::Success).await;
    let (broken, _) = connect("broken").await;
    drop(broken);
    assert_eq!(subscriber.recv_publish().await.payload, "broken");
    subscriber.expect_silence().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let bench = Bench::start().await;
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        let mut member = Client::v5(bench.mqtt(), name).await;
        member.subscribe("$share/workers/jobs/#", QoS::AtLeastOnce).await;
        members.push(member);
    }
    let mut publisher = Client::v5(bench.mqtt(), "publisher").await;
    const JOBS: usize = 30;
    for number in 0..JOBS {
        let packet_id = u16::try_from(number + 1).unwrap();
        publisher
            .publish(publish("jobs/x", &number.to_string(), QoS::AtLeastOnce, packet_id))
            .await;
    }
    let mut seen = BTreeSet::new();
    for member in &mut members {
        let mut share = 0;
        // A third each; what follows would be beyond the fair share.
        for _ in 0..JOBS / 3 {
            let job = member.recv_publish().await;
            member.acknowledge(&job).await;
            assert!(seen.insert(job.payload.clone()), "{:?} came twice", job.payload);
            share += 1;
        }
        member.expect_silence().await;
        assert_eq!(share, JOBS / 3);
    }
    assert_eq!(seen.len(), JOBS);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_speak_tls_where_a_certificate_is_configured() {
    let file =
        |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/src/net/testdata").join(name);
    let bench = Bench::start_with(|settings| {
        settings.mqtt.tls_cert = Some(file("server.pem"));
        settings.mqtt.tls_key = Some(file("server.key"));
    })
    .await;
    let config = client_tls(Some(&file("ca.pem")), &[]).unwrap();
    let stream = TcpStream::connect(bench.mqtt()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let mut client = Client::over(stream, ProtocolVersion::V5);
    client.introduce(clean("client", ProtocolVersion::V5)).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.send(Packet::Publish(Box::new(publish("a", "secret", QoS::AtMostOnce, 0)))).await;
    assert_eq!(client.take(1).await, ["secret"]);

    let mut plain = Client::open(bench.mqtt(), ProtocolVersion::V5).await;
    plain.send(Packet::Connect(Box::new(clean("plain", ProtocolVersion::V5)))).await;
    plain.expect_no_packet().await;
}

/// Faster than any disk: the queue has no room for all of it at once, so the devices are made to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_the_disk_cannot_follow_arrives_whole() {
    const MESSAGES: u64 = 15;
    let bench = Bench::start().await;
    let mut devices = Vec::new();
    for name in ["one", "two", "three"] {
        let mut device = Client::v5(bench.mqtt(), name).await;
        devices.push(tokio::spawn(async move {
            let payload = "x".repeat(1_000_000);
            for _ in 0..MESSAGES {
                device.publish(publish("burst", &payload, QoS::AtMostOnce, 0)).await;
            }
            device.expect_silence().await;
        }));
    }
    for device in devices {
        device.await.unwrap();
    }
    bench.eventually("all to be queued", |status| status.queue.records == 3 * MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_passes_whole() {
    let bench = Bench::start().await;
    let mut subscriber = Client::v5(bench.mqtt(), "subscriber").await;
    subscriber.subscribe("image", QoS::AtLeastOnce).await;
    let mut publisher = Client::v5(bench.mqtt(), "publisher").await;
    for size in [8_000, 9_000, 500_000, 1_000_000] {
        let payload = "x".repeat(size);
        publisher.publish(publish("image", &payload, QoS::AtLeastOnce, 1)).await;
        let received = subscriber.recv_publish().await;
        subscriber.acknowledge(&received).await;
        assert_eq!(received.payload.len(), size);
    }
}
