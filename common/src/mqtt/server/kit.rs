//! Drives a [`Server`] from short scripts, as a driver with a disk, a queue and clients would.
//!
//! One line is one step. `NAME < ...` is what a client sends, `NAME > ...` what it has to get next; at the end everything
//! that was sent must have been expected. `*` is the world: time, disk, queue, crashes.
//!
//! ```text
//! a < connect v5 keep expiry=60 rm=10 max=100 ka=30 will=TOPIC=PAYLOAD wq=1 wretain wdelay=5
//! a < sub 1 FILTER FILTER:q1:nl:rap:rh2 id=7
//! a < unsub 2 FILTER | pub TOPIC=PAYLOAD q1 5 dup retain exp=9 alias=1 | puback 5 | pubrec 5 | pubrel 5 | pubcomp 5
//! a < ping | auth | again (a second CONNECT) | as NEWNAME | disconnect [will] [expiry=5] | drop | slow | written
//! a > PACKET as `show` writes it | CLOSED Reason | PAUSE | RESUME
//! * after MS | store ok|full|failed|hold|release | shutdown | disk hold|release|once | crash | local TOPIC=PAYLOAD [q1] [retain] [mark]
//! * LOCALDONE | STORED TOPIC=PAYLOAD ... (expects the next stored record)
//! ```
//!
//! Topics under `local/` stay local, those under `denied/` are not allowed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    Action, ClientId, CloseReason, ConnId, LocalPublish, Millis, PeerInfo, PersistTicket, Policy,
    PublishRecord, Routing, Row, Server, ServerSettings, StateChange, StoreRefusal, StoreTicket,
};
use crate::mqtt::codec::{decode, encode};
use crate::mqtt::packet::{
    Ack, Auth, AuthProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties,
    MessageProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, RetainHandling, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter,
    TopicName, Unsubscribe, Will,
};

pub(super) struct TestPolicy;

impl Policy for TestPolicy {
    fn authenticate(&self, connect: &Connect, _peer: &PeerInfo) -> Result<(), ReasonCode> {
        match connect.client_id.as_ref() {
            "stranger" => Err(ReasonCode::NotAuthorized),
            _ => Ok(()),
        }
    }

    fn may_publish(&self, _client: &ClientId, topic: &TopicName) -> bool {
        !topic.as_str().starts_with("denied/")
    }

    fn may_subscribe(&self, _client: &ClientId, filter: &str) -> bool {
        !filter.starts_with("denied/")
    }

    fn route(&self, topic: &TopicName) -> Routing {
        Routing { upstream: !topic.as_str().starts_with("local/") }
    }
}

/// What the queue or the disk does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Ok,
    Hold,
    Refuse(StoreRefusal),
}

pub(super) struct Kit {
    pub server: Server,
    settings: ServerSettings,
    pub now: Millis,
    pub store: Mode,
    pub disk: Mode,
    /// What survives a crash: rows, the queue, and how much of the queue the rows reflect.
    table: BTreeMap<Bytes, Bytes>,
    pub queue: Vec<PublishRecord>,
    reflected: usize,
    /// How much of the queue was there when this run started: what its first batch reflects.
    replayed: usize,
    /// Stores and batches that are not answered yet.
    held_stores: VecDeque<(StoreTicket, PublishRecord)>,
    held_batches: VecDeque<(PersistTicket, Option<StoreTicket>, Vec<StateChange>)>,
    /// Where in the queue each store of this run is.
    positions: BTreeMap<StoreTicket, usize>,
    stores_seen: VecDeque<String>,
    versions: BTreeMap<ConnId, ProtocolVersion>,
    names: BTreeMap<String, ConnId>,
    next_conn: u64,
    got: BTreeMap<ConnId, VecDeque<String>>,
    pub packets: BTreeMap<ConnId, Vec<Packet>>,
    slow: BTreeSet<ConnId>,
    unwritten: BTreeMap<ConnId, usize>,
    world: VecDeque<String>,
    pub open: BTreeSet<ConnId>,
    pub batches_written: usize,
}

impl Kit {
    pub(super) fn new(settings: ServerSettings) -> Self {
        Self {
            server: Server::new(settings.clone(), Arc::new(TestPolicy)),
            settings,
            now: Millis(1_000_000),
            store: Mode::Ok,
            disk: Mode::Ok,
            table: BTreeMap::new(),
            queue: Vec::new(),
            reflected: 0,
            replayed: 0,
            held_stores: VecDeque::new(),
            held_batches: VecDeque::new(),
            positions: BTreeMap::new(),
            stores_seen: VecDeque::new(),
            versions: BTreeMap::new(),
            names: BTreeMap::new(),
            next_conn: 1,
            got: BTreeMap::new(),
            packets: BTreeMap::new(),
            slow: BTreeSet::new(),
            unwritten: BTreeMap::new(),
            world: VecDeque::new(),
            open: BTreeSet::new(),
            batches_written: 0,
        }
    }

    // What a driver does.

    pub(super) fn open(&mut self, version: ProtocolVersion) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.versions.insert(conn, version);
        self.open.insert(conn);
        self.server.connected(self.now, conn, PeerInfo::default());
        conn
    }

    pub(super) fn recv(&mut self, conn: ConnId, packet: Packet) {
        self.server.recv(self.now, conn, packet);
        self.settle();
    }

    pub(super) fn drop_connection(&mut self, conn: ConnId) {
        self.open.remove(&conn);
        self.server.closed(self.now, conn, CloseReason::PeerClosed);
        self.settle();
    }

    /// Carries out all actions.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(action) = self.server.poll() {
                self.carry_out(action);
            }
            if !self.server.has_work() {
                return;
            }
            self.server.work(self.now);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send { conn, packet, bytes } => self.deliver(conn, packet, bytes),
            Action::Close { conn, reason } => {
                self.open.remove(&conn);
                self.note(conn, format!("CLOSED {reason:?}"));
            }
            Action::Pause { conn } => self.note(conn, "PAUSE".into()),
            Action::Resume { conn } => self.note(conn, "RESUME".into()),
            Action::Store { ticket, record } => {
                self.held_stores.push_back((ticket, record));
                if self.store != Mode::Hold {
                    self.answer_stores();
                }
            }
            Action::Persist { ticket, reflects, changes } => {
                self.held_batches.push_back((ticket, reflects, changes));
                if self.disk == Mode::Ok {
                    self.answer_batches();
                }
            }
            Action::LocalDone { .. } => self.world.push_back("LOCALDONE".into()),
        }
    }

    /// Through the codec, as on a wire.
    fn deliver(&mut self, conn: ConnId, packet: Packet, bytes: usize) {
        let version = self.versions[&conn];
        let mut wire = BytesMut::new();
        encode(&packet, version, &mut wire).expect("the server sends what can be encoded");
        assert_eq!(wire.len(), bytes, "{packet:?}");
        let read = decode(&mut wire, Some(version), usize::MAX).expect("valid").expect("whole");
        self.note(conn, show(&read));
        self.packets.entry(conn).or_default().push(read);
        if self.slow.contains(&conn) {
            *self.unwritten.entry(conn).or_default() += bytes;
        } else {
            self.server.written(self.now, conn, bytes);
        }
    }

    fn note(&mut self, conn: ConnId, text: String) {
        self.got.entry(conn).or_default().push_back(text);
    }

    /// Appends all that is held to the queue, or refuses it, and says so.
    pub(super) fn answer_stores(&mut self) {
        while self.answer_store() {}
    }

    /// Appends the oldest held record, or refuses it, and says so.
    pub(super) fn answer_store(&mut self) -> bool {
        if let Mode::Refuse(refusal) = self.store
            && let Some((ticket, _)) = self.held_stores.pop_front()
        {
            self.server.stored(self.now, ticket, Err(refusal));
            return true;
        }
        let Some(ticket) = self.append() else { return false };
        self.server.stored(self.now, ticket, Ok(()));
        true
    }

    /// Appends the oldest held record to the queue; the server does not learn of it.
    pub(super) fn append(&mut self) -> Option<StoreTicket> {
        let (ticket, record) = self.held_stores.pop_front()?;
        self.stores_seen.push_back(show_record(&record));
        self.positions.insert(ticket, self.queue.len() + 1);
        self.queue.push(record);
        Some(ticket)
    }

    /// Writes what is held to the table, and says so.
    pub(super) fn answer_batches(&mut self) {
        while let Some(ticket) = self.write_batch() {
            self.server.persisted(self.now, ticket);
        }
    }

    /// Writes the batch that is held to the table; the server does not learn of it.
    pub(super) fn write_batch(&mut self) -> Option<PersistTicket> {
        {
            let (ticket, reflects, changes) = self.held_batches.pop_front()?;
            self.batches_written += 1;
            for change in &changes {
                match change.to_row() {
                    Row::Put { key, value } => {
                        let read = StateChange::from_row(&key, &value);
                        assert_eq!(read.as_ref(), Ok(change));
                        self.table.insert(key, value);
                    }
                    Row::Delete { key } => {
                        self.table.remove(&key);
                    }
                    Row::DeletePrefix { prefix } => {
                        self.table.retain(|key, _| !key.starts_with(&prefix));
                    }
                }
            }
            let stored = reflects.and_then(|r| self.positions.range(..=r).next_back());
            self.reflected = stored.map_or(self.replayed, |(_, &position)| position);
            Some(ticket)
        }
    }

    /// Kills the server: what was not answered is lost; everything else is read back.
    pub(super) fn crash(&mut self) {
        self.held_stores.clear();
        self.held_batches.clear();
        self.positions.clear();
        self.open.clear();
        self.slow.clear();
        self.unwritten.clear();
        let mut server = Server::new(self.settings.clone(), Arc::new(TestPolicy));
        for (key, value) in &self.table {
            let row = StateChange::from_row(key, value).expect("a row that was written");
            server.restore(self.now, row);
        }
        for record in self.queue.iter().skip(self.reflected) {
            server.replay(self.now, record.clone());
        }
        server.restored(self.now);
        self.replayed = self.queue.len();
        self.server = server;
        self.settle();
    }

    pub(super) fn after(&mut self, ms: u64) {
        let end = Millis(self.now.0 + ms);
        // Deadlines on the way happen at their own time.
        while let Some(at) = self.server.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.server.timer(self.now);
            self.settle();
        }
        self.now = end;
    }

    // Scripts.

    pub(super) fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//"))
        {
            let mut words = line.split_whitespace();
            let name = words.next().expect("a name");
            let rest: Vec<&str> = words.collect();
            match (name, rest.first().copied()) {
                ("*", _) => self.world_step(line, &rest),
                (_, Some("<")) => self.client_step(name, &rest[1..]),
                (_, Some(">")) => {
                    let expected = rest[1..].join(" ");
                    let conn = self.names[name];
                    let next = self.got.entry(conn).or_default().pop_front();
                    assert_eq!(next.as_deref().unwrap_or("nothing"), expected, "{line}");
                }
                _ => panic!("cannot read {line:?}"),
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        let left: Vec<_> = self
            .names
            .iter()
            .filter(|(_, conn)| self.got.get(conn).is_some_and(|got| !got.is_empty()))
            .map(|(name, conn)| (name, &self.got[conn]))
            .collect();
        assert!(left.is_empty(), "not expected: {left:?}");
        assert!(self.world.is_empty(), "not expected: {:?}", self.world);
    }

    fn world_step(&mut self, line: &str, words: &[&str]) {
        match words {
            ["after", ms] => self.after(ms.parse().expect("milliseconds")),
            ["store", "release"] => {
                self.store = Mode::Ok;
                self.answer_stores();
            }
            ["store", "ok"] => self.store = Mode::Ok,
            ["store", "full"] => {
                self.store = Mode::Refuse(StoreRefusal::Full);
                self.answer_stores();
            }
            ["store", "failed"] => {
                self.store = Mode::Refuse(StoreRefusal::Failed);
                self.answer_stores();
            }
            ["store", "hold"] => self.store = Mode::Hold,
            ["disk", "hold"] => self.disk = Mode::Hold,
            ["disk", "full"] => {
                self.disk = Mode::Hold;
                self.server.set_failing(self.now, true);
            }
            ["disk", "release"] => {
                self.disk = Mode::Ok;
                self.answer_batches();
                self.server.set_failing(self.now, false);
            }
            ["disk", "once"] => {
                let ticket = self.write_batch().expect("a batch is held");
                self.server.persisted(self.now, ticket);
            }
            ["crash"] => {
                self.store = Mode::Ok;
                self.disk = Mode::Ok;
                self.crash();
            }
            ["shutdown"] => self.server.shutdown(self.now),
            ["local", rest @ ..] => {
                let Packet::Publish(publish) = publish(rest) else { panic!("{line}") };
                self.server.publish_local(
                    self.now,
                    LocalPublish {
                        topic: publish.topic.expect("a topic"),
                        payload: publish.payload,
                        qos: publish.qos,
                        retain: publish.retain,
                        properties: publish.properties.message,
                        mark: rest.contains(&"mark").then(|| ("m".into(), Bytes::from("1"))),
                    },
                );
            }
            ["STORED", ..] => {
                let next = self.stores_seen.pop_front();
                assert_eq!(next.as_deref().unwrap_or("nothing"), words.join(" "), "{line}");
                return;
            }
            ["LOCALDONE"] => {
                assert_eq!(self.world.pop_front().as_deref(), Some("LOCALDONE"), "{line}");
                return;
            }
            _ => panic!("cannot read {line:?}"),
        }
        self.settle();
    }

    fn client_step(&mut self, name: &str, words: &[&str]) {
        let packet = match words {
            ["connect", options @ ..] => {
                let connect = connect(name, options);
                let conn = self.open(connect.version);
                if let Some(former) = self.names.insert(name.to_owned(), conn)
                    && let Some(left) = self.got.get(&former)
                {
                    assert!(left.is_empty(), "{name} did not expect {left:?}");
                }
                Packet::Connect(Box::new(connect))
            }
            ["again", options @ ..] => Packet::Connect(Box::new(connect(name, options))),
            // The takeover's old connection stays under another name.
            ["as", other] => {
                let conn = self.names.remove(name).expect("connected");
                self.names.insert((*other).to_owned(), conn);
                return;
            }
            ["drop"] => return self.drop_connection(self.names[name]),
            ["slow"] => {
                self.slow.insert(self.names[name]);
                return;
            }
            ["written"] => {
                let conn = self.names[name];
                self.slow.remove(&conn);
                let bytes = self.unwritten.remove(&conn).unwrap_or(0);
                self.server.written(self.now, conn, bytes);
                return self.settle();
            }
            ["ping"] => Packet::PingReq,
            ["auth"] => Packet::Auth(Auth {
                reason: ReasonCode::ReAuthenticate,
                properties: AuthProperties::default(),
            }),
            ["pub", rest @ ..] => publish(rest),
            ["sub", id, rest @ ..] => subscribe(id, rest),
            ["unsub", id, filters @ ..] => Packet::Unsubscribe(Unsubscribe {
                packet_id: packet_id(id),
                user_properties: Vec::new(),
                filters: filters.iter().map(|f| TopicFilter::new(f).expect("valid")).collect(),
            }),
            ["puback", id] => Packet::PubAck(Ack::new(packet_id(id), ReasonCode::Success)),
            ["pubrec", id] => Packet::PubRec(Ack::new(packet_id(id), ReasonCode::Success)),
            ["pubrec", id, "refused"] => {
                Packet::PubRec(Ack::new(packet_id(id), ReasonCode::QuotaExceeded))
            }
            ["pubrel", id] => Packet::PubRel(Ack::new(packet_id(id), ReasonCode::Success)),
            ["pubcomp", id] => Packet::PubComp(Ack::new(packet_id(id), ReasonCode::Success)),
            ["disconnect", options @ ..] => {
                let will = options.contains(&"will");
                Packet::Disconnect(Disconnect {
                    reason: if will {
                        ReasonCode::DisconnectWithWillMessage
                    } else {
                        ReasonCode::Success
                    },
                    properties: DisconnectProperties {
                        session_expiry_interval_secs: number(options, "expiry="),
                        ..DisconnectProperties::default()
                    },
                })
            }
            other => panic!("{name} cannot {other:?}"),
        };
        self.recv(self.names[name], packet);
    }
}

fn packet_id(text: &str) -> PacketId {
    PacketId::new(text.parse().expect("a number")).expect("not 0")
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key))
}

fn number(words: &[&str], key: &str) -> Option<u32> {
    value(words, key).map(|text| text.parse().expect("a number"))
}

fn qos(number: u32) -> QoS {
    QoS::from_u8(u8::try_from(number).expect("a QoS")).expect("a QoS")
}

fn connect(name: &str, words: &[&str]) -> Connect {
    let has = |word| words.contains(&word);
    let version = if has("v5") { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
    let will = value(words, "will=").map(|will| {
        let (topic, payload) = will.split_once('=').expect("TOPIC=PAYLOAD");
        Will {
            topic: TopicName::new(topic).expect("valid"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: qos(number(words, "wq=").unwrap_or(0)),
            retain: has("wretain"),
            delay_interval_secs: number(words, "wdelay=").unwrap_or(0),
            properties: MessageProperties::default(),
        }
    });
    Connect {
        version,
        clean_start: !has("keep"),
        keep_alive_secs: number(words, "ka=").map_or(0, |s| u16::try_from(s).expect("seconds")),
        client_id: value(words, "id=").unwrap_or(name).into(),
        will,
        username: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_interval_secs: number(words, "expiry="),
            receive_maximum: number(words, "rm=")
                .and_then(|n| NonZeroU16::new(u16::try_from(n).expect("small"))),
            maximum_packet_size: number(words, "max=").and_then(NonZeroU32::new),
            authentication_method: value(words, "method=").map(Into::into),
            ..ConnectProperties::default()
        },
    }
}

fn publish(words: &[&str]) -> Packet {
    let (topic, payload) = words[0].split_once('=').expect("TOPIC=PAYLOAD");
    let level = words.iter().find_map(|word| match *word {
        "q1" => Some(QoS::AtLeastOnce),
        "q2" => Some(QoS::ExactlyOnce),
        _ => None,
    });
    let id = words.iter().skip(1).find_map(|word| word.parse::<u16>().ok());
    Packet::Publish(Box::new(Publish {
        dup: words.contains(&"dup"),
        qos: level.unwrap_or_default(),
        retain: words.contains(&"retain"),
        topic: (!topic.is_empty()).then(|| TopicName::new(topic).expect("valid")),
        packet_id: id.and_then(PacketId::new),
        properties: PublishProperties {
            message: MessageProperties {
                message_expiry_interval_secs: number(words, "exp="),
                ..MessageProperties::default()
            },
            topic_alias: number(words, "alias=")
                .and_then(|n| NonZeroU16::new(u16::try_from(n).expect("small"))),
            subscription_identifiers: number(words, "id=")
                .and_then(NonZeroU32::new)
                .into_iter()
                .collect(),
        },
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }))
}

fn subscribe(id: &str, words: &[&str]) -> Packet {
    let filters = words
        .iter()
        .filter(|word| !word.starts_with("id="))
        .map(|word| {
            let mut parts = word.split(':');
            let filter = TopicFilter::new(parts.next().expect("a filter")).expect("valid");
            let mut options =
                SubscriptionOptions { maximum_qos: QoS::ExactlyOnce, ..Default::default() };
            for part in parts {
                match part {
                    "q0" => options.maximum_qos = QoS::AtMostOnce,
                    "q1" => options.maximum_qos = QoS::AtLeastOnce,
                    "nl" => options.no_local = true,
                    "rap" => options.retain_as_published = true,
                    "rh1" => options.retain_handling = RetainHandling::SendIfNew,
                    "rh2" => options.retain_handling = RetainHandling::DoNotSend,
                    other => panic!("{other}"),
                }
            }
            (filter, options)
        })
        .collect();
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        properties: SubscribeProperties {
            subscription_identifier: number(words, "id=").and_then(NonZeroU32::new),
            user_properties: Vec::new(),
        },
        filters,
    })
}

fn show_record(record: &PublishRecord) -> String {
    let payload = String::from_utf8_lossy(&record.payload);
    let client = &record.client_id;
    let source = match record.source {
        super::RecordSource::Publish(Some(id)) => format!(" {id}"),
        super::RecordSource::Publish(None) => String::new(),
        super::RecordSource::Will => " will".to_owned(),
    };
    format!("STORED {}={payload} q{} from {client}{source}", record.topic, record.qos.as_u8())
}

/// A packet as scripts expect it.
pub(super) fn show(packet: &Packet) -> String {
    let reason = |reason: ReasonCode| match reason {
        ReasonCode::Success => String::new(),
        other => format!(" {other:?}"),
    };
    match packet {
        Packet::ConnAck(p) => {
            let mut text = format!("CONNACK{}", if p.session_present { " present" } else { "" });
            text += &reason(p.reason);
            if let Some(id) = &p.properties.assigned_client_identifier {
                text += &format!(" assigned={}", id.get(..5).unwrap_or_default());
            }
            if let Some(secs) = p.properties.session_expiry_interval_secs {
                text += &format!(" expiry={secs}");
            }
            if let Some(secs) = p.properties.server_keep_alive_secs {
                text += &format!(" ka={secs}");
            }
            text
        }
        Packet::Publish(p) => {
            let topic = p.topic.as_ref().map_or("", |topic| topic.as_str());
            let mut text = format!("PUB {topic}={}", String::from_utf8_lossy(&p.payload));
            if let Some(id) = p.packet_id {
                text += &format!(" q{} {id}", p.qos.as_u8());
            }
            text += if p.dup { " dup" } else { "" };
            text += if p.retain { " retain" } else { "" };
            if let Some(secs) = p.properties.message.message_expiry_interval_secs {
                text += &format!(" exp={secs}");
            }
            for id in &p.properties.subscription_identifiers {
                text += &format!(" id={id}");
            }
            text
        }
        Packet::PubAck(p) => format!("PUBACK {}{}", p.packet_id, reason(p.reason)),
        Packet::PubRec(p) => format!("PUBREC {}{}", p.packet_id, reason(p.reason)),
        Packet::PubRel(p) => format!("PUBREL {}{}", p.packet_id, reason(p.reason)),
        Packet::PubComp(p) => format!("PUBCOMP {}{}", p.packet_id, reason(p.reason)),
        Packet::SubAck(p) => {
            let reasons: Vec<String> = p
                .reasons
                .iter()
                .map(|reason| match reason.as_u8() {
                    granted @ 0..=2 => format!("q{granted}"),
                    _ => format!("{reason:?}"),
                })
                .collect();
            format!("SUBACK {} {}", p.packet_id, reasons.join(" "))
        }
        Packet::UnsubAck(p) => {
            let reasons: String = p.reasons.iter().map(|r| reason(*r)).collect();
            format!("UNSUBACK {}{reasons}", p.packet_id)
        }
        Packet::Disconnect(p) => format!("DISCONNECT{}", reason(p.reason)),
        other => other.name().to_owned(),
    }
}
