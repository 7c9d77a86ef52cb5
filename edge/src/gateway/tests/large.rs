//! Large packets share memory on their way to the hub.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use robustmq_common::limits;
use robustmq_common::mqtt::codec;
use robustmq_common::mqtt::packet::{Packet, ProtocolVersion, QoS};
use robustmq_common::mqtt::server::{ConnId, PeerInfo};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::bench::PATIENCE;
use super::client::{clean, publish};
use crate::gateway::budget::{Budget, Charge};
use crate::gateway::connection::{self, Input, Shared};

const LARGE_BYTES: usize = limits::MQTT_PACKET_BYTES - 1024;

/// Connections to a hub that is the test.
struct Hub {
    shared: Shared,
    inputs: mpsc::Receiver<Input>,
    connections: u64,
}

impl Hub {
    fn new() -> Self {
        let (input, inputs) = mpsc::channel(1024);
        let shared = Shared {
            input,
            budget: Budget::new(limits::EDGE_LARGE_PACKETS_BYTES),
            max_packet_bytes: limits::MQTT_PACKET_BYTES,
            users: None,
            counters: Arc::default(),
        };
        Self { shared, inputs, connections: 0 }
    }

    async fn connect(&mut self) -> DuplexStream {
        self.connections += 1;
        let (mut client, stream) = tokio::io::duplex(16 * 1024);
        let id = ConnId(self.connections);
        tokio::spawn(connection::serve(stream, id, PeerInfo::default(), self.shared.clone()));
        let connect = Packet::Connect(Box::new(clean("client", ProtocolVersion::V5)));
        client.write_all(&encoded(&connect)).await.unwrap();
        client
    }

    /// The next input that is not of the connections' beginnings.
    async fn next(&mut self) -> Input {
        loop {
            match self.inputs.recv().await.unwrap() {
                Input::Connected { .. } => {}
                Input::Packet { packet: Packet::Connect(_), .. } => {}
                input => return input,
            }
        }
    }

    async fn next_publish(&mut self) -> (ConnId, Option<Charge>) {
        loop {
            match self.next().await {
                Input::Packet { conn, charge, .. } => return (conn, charge),
                Input::Unread { .. } => {}
                _ => panic!("neither a packet nor a wait for memory"),
            }
        }
    }
}

fn encoded(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec::encode(packet, ProtocolVersion::V5, &mut bytes).unwrap();
    bytes
}

fn large() -> BytesMut {
    let payload = "x".repeat(LARGE_BYTES);
    encoded(&Packet::Publish(Box::new(publish("a", &payload, QoS::AtMostOnce, 0))))
}

/// A large packet took memory for its whole size when its header came, and kept it for as long as a byte came every 20 s:
/// eight such connections, and nobody else could send a large packet any more.
#[tokio::test]
async fn slow_senders_shut_out_nobody() {
    let mut hub = Hub::new();
    let large = large();
    let mut slow = Vec::new();
    for _ in 0..2 * limits::EDGE_LARGE_PACKETS_BYTES / limits::MQTT_PACKET_BYTES {
        let mut client = hub.connect().await;
        // More than the pipe holds: so the header, at least, has been read.
        client.write_all(&large[..40_000]).await.unwrap();
        slow.push(client);
    }
    let mut fast = hub.connect().await;
    let fast_id = ConnId(hub.connections);
    let sent = tokio::spawn(async move {
        fast.write_all(&large).await.unwrap();
        fast
    });
    let (conn, _) = tokio::time::timeout(PATIENCE, hub.next_publish()).await.unwrap();
    assert_eq!(conn, fast_id);
    drop((sent.await.unwrap(), slow));
}

/// Memory is taken step by step, so many packets at once may take all of it, each waiting for more.
#[tokio::test]
async fn a_crowd_of_large_packets_comes_through_with_all_memory_taken() {
    let mut hub = Hub::new();
    let large = large();
    let crowd = 5 * limits::EDGE_LARGE_PACKETS_BYTES / limits::MQTT_PACKET_BYTES;
    let mut sending = Vec::new();
    for _ in 0..crowd {
        let (mut client, large) = (hub.connect().await, large.clone());
        sending.push(tokio::spawn(async move {
            client.write_all(&large).await.unwrap();
            client
        }));
    }
    for _ in 0..crowd {
        let (_, charge) = tokio::time::timeout(PATIENCE, hub.next_publish()).await.unwrap();
        assert!(charge.unwrap().covers() >= LARGE_BYTES);
    }
}

// The clock is paused in these, so they take no time.

#[tokio::test(start_paused = true)]
async fn a_large_packet_that_stands_still_is_given_up() {
    let mut hub = Hub::new();
    let mut client = hub.connect().await;
    client.write_all(&large()[..100_000]).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(3600), hub.next()).await.unwrap();
    assert!(matches!(ended, Input::Closed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_large_packet_that_crawls_is_given_up() {
    let mut hub = Hub::new();
    let mut client = hub.connect().await;
    client.write_all(&large()[..100_000]).await.unwrap();
    let crawling = tokio::spawn(async move {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(limits::EDGE_LARGE_READ / 2).await;
        }
    });
    let ended = tokio::time::timeout(Duration::from_secs(3600), hub.next()).await.unwrap();
    assert!(matches!(ended, Input::Closed { .. }));
    crawling.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn time_that_others_take_is_not_the_sender_s_and_the_hub_hears_of_it() {
    let mut hub = Hub::new();
    let budget = hub.shared.budget.clone();
    let (mut others, mut turn) = (Charge::default(), Charge::default());
    assert!(budget.try_grow(&mut others, limits::EDGE_LARGE_PACKETS_BYTES));
    budget.grow(&mut turn, 1).await;
    let mut client = hub.connect().await;
    let sent = tokio::spawn(async move {
        client.write_all(&large()).await.unwrap();
        client
    });
    assert!(matches!(hub.next().await, Input::Unread { unread: true, .. }));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    drop(others);
    assert!(matches!(hub.next().await, Input::Unread { unread: false, .. }));
    let (_, charge) = hub.next_publish().await;
    assert!(charge.is_some());
    sent.await.unwrap();
}
