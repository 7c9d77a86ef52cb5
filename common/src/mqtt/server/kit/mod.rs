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
//! * after MS | store ok|full|failed|hold|release | shutdown | disk hold|full|release|once | crash | local TOPIC=PAYLOAD [q1] [retain] [mark] | sys TOPIC=PAYLOAD
//! * LOCALDONE | STORED TOPIC=PAYLOAD ... (expects the next stored record)
//! ```
//!
//! Topics under `local/` stay local, those under `denied/` are not allowed.

mod script;
mod show;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub(super) use self::show::show;
use self::show::show_record;
use super::{
    Action, ClientId, CloseReason, ConnId, Millis, PeerInfo, PersistTicket, Policy, PublishRecord,
    Routing, Row, Server, ServerSettings, StateChange, StoreRefusal, StoreTicket,
};
use crate::mqtt::codec::{decode, encode};
use crate::mqtt::packet::{Connect, Packet, ProtocolVersion, ReasonCode, TopicName};

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
}
