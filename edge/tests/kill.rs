//! `kill -9` of the real binary, again and again, under QoS 2 load with kept sessions and local subscribers: what was
//! published arrives once, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use robustmq_common::mqtt::codec;
use robustmq_common::mqtt::packet::{
    Ack, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties,
    QoS, ReasonCode, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter, TopicName,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const ROUNDS: u64 = 20;
const PUBLISHERS: usize = 3;
/// Messages of one publisher in flight.
const WINDOW: usize = 8;
/// Between attempts to connect.
const RETRY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway; killed when dropped.
struct Edge {
    child: Child,
    address: SocketAddr,
}

impl Edge {
    fn start(data_dir: &Path, uplink: bool) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_robustmq-edge"));
        command
            .args(["serve", "--edge-id", "kill", "--mqtt-listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if uplink {
            command.args(["--uplink", "http://127.0.0.1:1"]);
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("standard output was asked for")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.split(' ').find_map(|word| word.strip_prefix("mqtt="));
        let address =
            address.with_context(|| format!("{line:?} is not the ready line"))?.parse()?;
        Ok(Self { child, address })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Connects to a kept session. Says whether there was one.
    async fn open(address: SocketAddr, client_id: &str) -> anyhow::Result<(Self, bool)> {
        let stream = TcpStream::connect(address).await?;
        let mut connection = Self { stream, buffer: BytesMut::new() };
        let properties = ConnectProperties {
            session_expiry_interval_secs: Some(3600),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: false,
            keep_alive_secs: 0,
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            properties,
        };
        connection.send(Packet::Connect(Box::new(connect))).await?;
        match connection.recv().await? {
            Packet::ConnAck(answer) if answer.reason == ReasonCode::Success => {
                Ok((connection, answer.session_present))
            }
            other => bail!("{other:?} instead of CONNACK"),
        }
    }

    async fn send(&mut self, packet: Packet) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        codec::encode(&packet, ProtocolVersion::V5, &mut bytes)?;
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn recv(&mut self) -> anyhow::Result<Packet> {
        loop {
            let version = Some(ProtocolVersion::V5);
            if let Some(packet) = codec::decode(&mut self.buffer, version, 1 << 20)? {
                return Ok(packet);
            }
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "closed");
        }
    }
}

fn ack(packet_id: PacketId) -> Ack {
    Ack::new(packet_id, ReasonCode::Success)
}

/// A QoS 2 sender as the specification has it: what is in flight survives its connections.
struct Publisher {
    name: String,
    next_number: u64,
    /// Packet id, number, and whether PUBREC came.
    in_flight: VecDeque<(PacketId, u64, bool)>,
    connected_before: bool,
}

impl Publisher {
    fn message(&self, packet_id: PacketId, number: u64, dup: bool) -> anyhow::Result<Packet> {
        Ok(Packet::Publish(Box::new(Publish {
            dup,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: Some(TopicName::new(&format!("load/{}", self.name))?),
            packet_id: Some(packet_id),
            properties: PublishProperties::default(),
            payload: number.to_string().into(),
        })))
    }

    /// Publishes until the connection breaks, or until `stop` and nothing is in flight.
    async fn session(&mut self, address: SocketAddr, stop: &AtomicBool) -> anyhow::Result<()> {
        let (mut connection, present) = Connection::open(address, &self.name).await?;
        assert!(present || !self.connected_before, "the session of {} was lost", self.name);
        self.connected_before = true;
        for &(packet_id, number, released) in &self.in_flight {
            let again = match released {
                true => Packet::PubRel(ack(packet_id)),
                false => self.message(packet_id, number, true)?,
            };
            connection.send(again).await?;
        }
        loop {
            while self.in_flight.len() < WINDOW && !stop.load(Ordering::SeqCst) {
                let number = self.next_number;
                // Few packet ids, so that each is soon used again.
                let free = (1..).filter_map(PacketId::new);
                let used: BTreeSet<PacketId> = self.in_flight.iter().map(|(id, ..)| *id).collect();
                let packet_id = free.into_iter().find(|id| !used.contains(id)).context("an id")?;
                self.next_number += 1;
                self.in_flight.push_back((packet_id, number, false));
                connection.send(self.message(packet_id, number, false)?).await?;
            }
            if self.in_flight.is_empty() {
                return Ok(());
            }
            match connection.recv().await? {
                Packet::PubRec(answer) => {
                    assert_eq!(answer.reason as u8 & 0x80, 0, "{answer:?}");
                    let entry = self.in_flight.iter_mut().find(|(id, ..)| *id == answer.packet_id);
                    if let Some((_, _, released)) = entry {
                        *released = true;
                    }
                    connection.send(Packet::PubRel(ack(answer.packet_id))).await?;
                }
                Packet::PubComp(answer) => {
                    self.in_flight.retain(|(id, ..)| *id != answer.packet_id);
                }
                other => bail!("{other:?}"),
            }
        }
    }
}

/// A QoS 2 receiver as the specification has it.
struct Subscriber {
    subscribed: watch::Sender<bool>,
    unreleased: BTreeSet<PacketId>,
    received: BTreeMap<String, Vec<u64>>,
}

impl Subscriber {
    async fn session(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let (mut connection, present) = Connection::open(address, "subscriber").await?;
        let subscribed = *self.subscribed.borrow();
        assert!(present || !subscribed, "the subscriber's session was lost");
        if !subscribed {
            let options =
                SubscriptionOptions { maximum_qos: QoS::ExactlyOnce, ..Default::default() };
            let subscribe = Subscribe {
                packet_id: PacketId::new(1).context("not 0")?,
                properties: SubscribeProperties::default(),
                filters: vec![(TopicFilter::new("load/#")?, options)],
            };
            connection.send(Packet::Subscribe(subscribe)).await?;
        }
        loop {
            match connection.recv().await? {
                Packet::SubAck(_) => drop(self.subscribed.send_replace(true)),
                Packet::Publish(message) => {
                    let packet_id = message.packet_id.context("QoS 2 has a packet id")?;
                    if self.unreleased.insert(packet_id) {
                        let topic = message.topic.context("no aliases were allowed")?;
                        let number = std::str::from_utf8(&message.payload)?.parse()?;
                        self.received.entry(topic.as_str().to_owned()).or_default().push(number);
                    }
                    connection.send(Packet::PubRec(ack(packet_id))).await?;
                }
                Packet::PubRel(release) => {
                    self.unreleased.remove(&release.packet_id);
                    connection.send(Packet::PubComp(ack(release.packet_id))).await?;
                }
                other => bail!("{other:?}"),
            }
        }
    }
}

/// Kills the gateway at another moment each round, and starts it again.
async fn kill_rounds(uplink: bool) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut edge = Edge::start(directory.path(), uplink)?;
    let (address, addresses) = watch::channel(edge.address);
    let stop = Arc::new(AtomicBool::new(false));

    let (counts, counted) = watch::channel(0_usize);
    let mut follow = addresses.clone();
    let (subscribed, mut is_subscribed) = watch::channel(false);
    let subscriber = tokio::spawn(async move {
        let mut subscriber =
            Subscriber { subscribed, unreleased: BTreeSet::new(), received: BTreeMap::new() };
        loop {
            let now = *follow.borrow_and_update();
            tokio::select! {
                _ = subscriber.session(now) => tokio::time::sleep(RETRY).await,
                closed = follow.changed() => if closed.is_err() { return subscriber.received },
            }
            counts.send_replace(subscriber.received.values().map(Vec::len).sum());
        }
    });
    tokio::time::timeout(PATIENCE, is_subscribed.wait_for(|subscribed| *subscribed)).await??;
    let mut publishers = Vec::new();
    for index in 0..PUBLISHERS {
        let (addresses, stop) = (addresses.clone(), Arc::clone(&stop));
        publishers.push(tokio::spawn(async move {
            let name = format!("publisher-{index}");
            let mut publisher = Publisher {
                name,
                next_number: 1,
                in_flight: VecDeque::new(),
                connected_before: false,
            };
            loop {
                let now = *addresses.borrow();
                if publisher.session(now, &stop).await.is_ok() && stop.load(Ordering::SeqCst) {
                    return publisher.next_number - 1;
                }
                tokio::time::sleep(RETRY).await;
            }
        }));
    }
    for round in 0..ROUNDS {
        // The moment of the kill is what is varied, not something that is waited for.
        tokio::time::sleep(Duration::from_millis(40 + round * 37 % 300)).await;
        drop(edge);
        edge = Edge::start(directory.path(), uplink)?;
        address.send_replace(edge.address);
    }
    stop.store(true, Ordering::SeqCst);
    let mut expected = BTreeMap::new();
    for (index, publisher) in publishers.into_iter().enumerate() {
        let published = tokio::time::timeout(PATIENCE, publisher).await??;
        expected.insert(format!("load/publisher-{index}"), (1..=published).collect::<Vec<_>>());
    }
    let total: usize = expected.values().map(Vec::len).sum();
    let received = collect(address, counted, subscriber, total).await?;
    eprintln!("{total} messages over {ROUNDS} kills");
    for (topic, numbers) in &expected {
        let seen = received.get(topic).map(Vec::as_slice).unwrap_or_default();
        let first_wrong = seen.iter().zip(numbers).position(|(seen, expected)| seen != expected);
        ensure!(
            seen == numbers,
            "{topic}: {} of {} arrived, the first that is not as published at {first_wrong:?}",
            seen.len(),
            numbers.len()
        );
    }
    ensure!(total > usize::try_from(ROUNDS)? * PUBLISHERS, "too few messages to show anything");
    Ok(())
}

/// Reconnects the subscriber until it has seen at least `total` messages, then takes what it has.
async fn collect(
    address: watch::Sender<SocketAddr>,
    mut counted: watch::Receiver<usize>,
    subscriber: tokio::task::JoinHandle<BTreeMap<String, Vec<u64>>>,
    total: usize,
) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
    let all = async {
        while *counted.borrow_and_update() < total {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Makes it connect again, and say how far it is.
            address.send_modify(|_| {});
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await;
    drop(address);
    let received = subscriber.await?;
    if in_time.is_err() {
        eprintln!("not everything arrived in {PATIENCE:?}");
    }
    Ok(received)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_through_the_queue_survive_kills() -> anyhow::Result<()> {
    kill_rounds(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_stay_local_survive_kills() -> anyhow::Result<()> {
    kill_rounds(false).await
}
