//! Clients that behave as the specification says, a network that loses connections, a queue and a disk that answer when
//! they like, and crashes: at the end nothing may be missing, and nothing of QoS 2 may be there twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::kit::{Kit, Mode};
use super::{ConnId, RecordSource, ServerSettings};
use crate::mqtt::packet::{
    Ack, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties,
    QoS, ReasonCode, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter, TopicName,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Connect, also where a connection is open (a takeover).
    Connect(usize),
    Drop(usize),
    /// A client reads and answers this many packets.
    Read(usize, usize),
    Publish(usize, QoS, bool),
    AnswerStores(usize),
    AnswerBatch,
    Crash,
    /// What was given to the queue and the disk is kept, but the server dies before it learns so.
    CrashAfterAppend(usize),
    CrashAfterWrite,
    Time(u64),
}

const PUBLISHERS: usize = 2;
const CLIENTS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let qos = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        3 => (0..CLIENTS).prop_map(Step::Connect),
        1 => (0..CLIENTS).prop_map(Step::Drop),
        12 => (0..CLIENTS, 1..8_usize).prop_map(|(client, count)| Step::Read(client, count)),
        8 => (0..PUBLISHERS, qos, any::<bool>()).prop_map(|(c, q, local)| Step::Publish(c, q, local)),
        6 => (1..5_usize).prop_map(Step::AnswerStores),
        4 => Just(Step::AnswerBatch),
        1 => Just(Step::Crash),
        1 => (0..3_usize).prop_map(Step::CrashAfterAppend),
        1 => Just(Step::CrashAfterWrite),
        1 => (1..2000_u64).prop_map(Step::Time),
    ]
}

/// What a publisher still has to finish, in the order in which it was published.
#[derive(Clone, Debug)]
struct Unfinished {
    id: PacketId,
    qos: QoS,
    local: bool,
    number: u32,
    released: bool,
}

/// A client; everything except the connection survives its own restarts.
struct Client {
    name: String,
    version: ProtocolVersion,
    conn: Option<ConnId>,
    /// CONNACK has been read.
    accepted: bool,
    known: bool,
    read: usize,
    unfinished: Vec<Unfinished>,
    next_number: u32,
    /// Packet ids of QoS 2 messages that were taken and not yet released.
    taken: BTreeSet<PacketId>,
    delivered: Vec<Bytes>,
}

impl Client {
    fn new(index: usize) -> Self {
        Self {
            name: format!("c{index}"),
            version: if index.is_multiple_of(2) {
                ProtocolVersion::V5
            } else {
                ProtocolVersion::V311
            },
            conn: None,
            accepted: false,
            known: false,
            read: 0,
            unfinished: Vec::new(),
            next_number: 0,
            taken: BTreeSet::new(),
            delivered: Vec::new(),
        }
    }

    fn connect(&mut self, kit: &mut Kit) {
        let conn = kit.open(self.version);
        self.conn = Some(conn);
        self.accepted = false;
        self.read = 0;
        let connect = Connect {
            version: self.version,
            clean_start: false,
            keep_alive_secs: 0,
            client_id: self.name.as_str().into(),
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval_secs: Some(1_000_000),
                receive_maximum: std::num::NonZeroU16::new(3),
                ..ConnectProperties::default()
            },
        };
        kit.recv(conn, Packet::Connect(Box::new(connect)));
    }

    fn lose_connection(&mut self, kit: &mut Kit) {
        if let Some(conn) = self.conn.take() {
            kit.drop_connection(conn);
        }
        self.accepted = false;
    }

    /// Reads and answers up to `count` packets. `true` if there was one.
    fn read(&mut self, kit: &mut Kit, count: usize) -> bool {
        let mut any = false;
        for _ in 0..count {
            let Some(conn) = self.conn else { return any };
            let packet = kit.packets.get(&conn).and_then(|all| all.get(self.read)).cloned();
            let Some(packet) = packet else {
                if !kit.open.contains(&conn) {
                    self.conn = None;
                    self.accepted = false;
                }
                return any;
            };
            self.read += 1;
            any = true;
            self.handle(kit, conn, packet);
        }
        any
    }

    fn handle(&mut self, kit: &mut Kit, conn: ConnId, packet: Packet) {
        match packet {
            Packet::ConnAck(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success);
                assert_eq!(
                    ack.session_present, self.known,
                    "{}: a session that was told of",
                    self.name
                );
                self.known = true;
                self.accepted = true;
                for unfinished in self.unfinished.clone() {
                    let packet = if unfinished.released {
                        Packet::PubRel(Ack::new(unfinished.id, ReasonCode::Success))
                    } else {
                        self.publish_packet(&unfinished, true)
                    };
                    kit.recv(conn, packet);
                }
            }
            Packet::PubAck(ack) => self.finish(ack.packet_id, |u| u.qos == QoS::AtLeastOnce),
            Packet::PubRec(ack) => {
                let waiting = self.unfinished.iter_mut().find(|u| u.id == ack.packet_id);
                let waiting = waiting.filter(|u| u.qos == QoS::ExactlyOnce && !u.released);
                waiting.expect("a PUBREC answers a PUBLISH on this connection").released = true;
                kit.recv(conn, Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
            }
            Packet::PubComp(ack) => self.finish(ack.packet_id, |u| u.released),
            Packet::Publish(publish) => {
                let id = publish.packet_id.expect("QoS 1 or 2");
                let ack = Ack::new(id, ReasonCode::Success);
                if publish.qos == QoS::AtLeastOnce {
                    self.delivered.push(publish.payload);
                    kit.recv(conn, Packet::PubAck(ack));
                } else {
                    if self.taken.insert(id) {
                        self.delivered.push(publish.payload);
                    }
                    kit.recv(conn, Packet::PubRec(ack));
                }
            }
            Packet::PubRel(ack) => {
                self.taken.remove(&ack.packet_id);
                kit.recv(conn, Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
            }
            Packet::Disconnect(_) | Packet::SubAck(_) => {}
            other => panic!("{} got {other:?}", self.name),
        }
    }

    /// An acknowledgement that answers nothing would end a later message with the same packet id.
    fn finish(&mut self, id: PacketId, fits: impl Fn(&Unfinished) -> bool) {
        let index = self.unfinished.iter().position(|u| u.id == id && fits(u));
        self.unfinished.remove(index.expect("an acknowledgement answers what was sent"));
    }

    fn publish(&mut self, kit: &mut Kit, qos: QoS, local: bool) {
        let Some(conn) = self.conn.filter(|_| self.accepted && self.unfinished.len() < 5) else {
            return;
        };
        // The lowest free packet id, so that ids are used again as soon as possible.
        let free =
            (1..).filter_map(PacketId::new).find(|id| self.unfinished.iter().all(|u| u.id != *id));
        let id = free.expect("fewer than five are used");
        let unfinished = Unfinished { id, qos, local, number: self.next_number, released: false };
        self.next_number += 1;
        let packet = self.publish_packet(&unfinished, false);
        self.unfinished.push(unfinished);
        kit.recv(conn, packet);
    }

    fn publish_packet(&self, unfinished: &Unfinished, dup: bool) -> Packet {
        let place = if unfinished.local { "local/t" } else { "t" };
        let topic = TopicName::new(&format!("{place}/{}", self.name)).expect("valid");
        Packet::Publish(Box::new(Publish {
            dup,
            qos: unfinished.qos,
            retain: unfinished.number.is_multiple_of(3),
            topic: Some(topic),
            packet_id: Some(unfinished.id),
            properties: PublishProperties::default(),
            payload: payload(&self.name, unfinished.qos, unfinished.local, unfinished.number),
        }))
    }
}

fn payload(name: &str, qos: QoS, local: bool, number: u32) -> Bytes {
    let place = if local { "local" } else { "up" };
    Bytes::from(format!("{name} {place} q{} {number:05}", qos.as_u8()))
}

struct World {
    kit: Kit,
    clients: Vec<Client>,
    /// What was published, in order.
    published: Vec<Bytes>,
}

impl World {
    /// Two publishers, a QoS 2 and a QoS 1 subscriber, all with kept sessions.
    fn new() -> Self {
        let mut kit = Kit::new(ServerSettings::default());
        let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            client.connect(&mut kit);
            client.read(&mut kit, 1);
            let maximum_qos = match index.checked_sub(PUBLISHERS) {
                Some(0) => QoS::ExactlyOnce,
                Some(_) => QoS::AtLeastOnce,
                None => continue,
            };
            let options = SubscriptionOptions { maximum_qos, ..SubscriptionOptions::default() };
            let filters = ["t/#", "local/#"]
                .map(|filter| (TopicFilter::new(filter).expect("valid"), options))
                .to_vec();
            let subscribe = Subscribe {
                packet_id: PacketId::new(1).expect("not 0"),
                properties: SubscribeProperties::default(),
                filters,
            };
            kit.recv(client.conn.expect("connected"), Packet::Subscribe(subscribe));
            client.read(&mut kit, 1);
        }
        kit.store = Mode::Hold;
        kit.disk = Mode::Hold;
        Self { kit, clients, published: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        let kit = &mut self.kit;
        match step {
            Step::Connect(client) => self.clients[client].connect(kit),
            Step::Drop(client) => self.clients[client].lose_connection(kit),
            Step::Read(client, count) => {
                self.clients[client].read(kit, count);
            }
            Step::Publish(client, qos, local) => {
                let client = &mut self.clients[client];
                let before = client.next_number;
                client.publish(kit, qos, local);
                if client.next_number > before {
                    self.published.push(payload(&client.name, qos, local, before));
                }
            }
            Step::AnswerStores(count) => {
                for _ in 0..count {
                    kit.answer_store();
                }
                kit.settle();
            }
            Step::AnswerBatch => {
                if let Some(ticket) = kit.write_batch() {
                    kit.server.persisted(kit.now, ticket);
                    kit.settle();
                }
            }
            Step::Crash => self.crash(),
            Step::CrashAfterAppend(count) => {
                for _ in 0..count {
                    kit.append();
                }
                self.crash();
            }
            Step::CrashAfterWrite => {
                kit.write_batch();
                self.crash();
            }
            Step::Time(ms) => kit.after(ms),
        }
    }

    fn crash(&mut self) {
        self.kit.crash();
        for client in &mut self.clients {
            client.conn = None;
            client.accepted = false;
        }
    }

    /// All come back, and everything is finished.
    fn finish(&mut self) {
        self.kit.store = Mode::Ok;
        self.kit.disk = Mode::Ok;
        for client in &mut self.clients {
            client.connect(&mut self.kit);
        }
        for _ in 0..1000 {
            self.kit.answer_stores();
            self.kit.answer_batches();
            self.kit.settle();
            let mut any = false;
            for client in &mut self.clients {
                any |= client.read(&mut self.kit, 100);
            }
            if !any {
                return;
            }
        }
        panic!("it does not come to an end");
    }

    fn judge(&self) {
        for client in &self.clients {
            assert!(client.unfinished.is_empty(), "{}: {:?}", client.name, client.unfinished);
            assert!(client.taken.is_empty(), "{}: {:?}", client.name, client.taken);
        }
        let stored: Vec<Bytes> =
            self.kit.queue.iter().map(|record| record.payload.clone()).collect();
        assert!(self.kit.queue.iter().all(|r| matches!(r.source, RecordSource::Publish(Some(_)))));
        let upstream: Vec<Bytes> =
            self.published.iter().filter(|p| !has(p, " local ")).cloned().collect();
        judge_copies("the queue", &upstream, &stored, " q2 ");
        let all = &self.published;
        judge_copies("the QoS 2 subscriber", all, &self.clients[2].delivered, " q2 ");
        judge_copies("the QoS 1 subscriber", all, &self.clients[3].delivered, "never");
    }
}

fn has(payload: &Bytes, part: &str) -> bool {
    String::from_utf8_lossy(payload).contains(part)
}

/// Everything is there, what has `once` in it once only, and the first copies are in order for each publisher and topic.
fn judge_copies(who: &str, published: &[Bytes], got: &[Bytes], once: &str) {
    let mut copies: BTreeMap<&Bytes, usize> = BTreeMap::new();
    let mut first: Vec<&Bytes> = Vec::new();
    for payload in got {
        let count = copies.entry(payload).or_default();
        *count += 1;
        if *count == 1 {
            first.push(payload);
        }
    }
    for payload in published {
        let count = copies.remove(payload).unwrap_or(0);
        assert!(count >= 1, "{who} misses {payload:?}");
        assert!(count == 1 || !has(payload, once), "{who} has {payload:?} {count} times");
    }
    assert!(copies.is_empty(), "{who} has what nobody published: {copies:?}");
    for flow in ["c0 up", "c1 up", "c0 local", "c1 local"] {
        let numbers: Vec<String> = first
            .iter()
            .filter(|payload| has(payload, flow))
            .filter_map(|payload| {
                String::from_utf8_lossy(payload).rsplit(' ').next().map(str::to_owned)
            })
            .collect();
        assert!(numbers.is_sorted(), "{who}: {flow} is out of order: {numbers:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_qos_2_is_never_repeated(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.finish();
        world.judge();
    }
}
