//! The MQTT server core: a state machine for all sessions of one broker, driven by one task.
//!
//! The driver calls, the server answers with actions:
//!
//! ```text
//! Server::new(ServerSettings, Arc<dyn Policy>)
//! start-up      restore(now, StateChange) for each row; replay(now, PublishRecord) for each queue record after the
//!               position that the rows reflect; restored(now) once
//! connections   connected(now, ConnId, PeerInfo) / recv(now, ConnId, Packet) / malformed(now, ConnId, &DecodeError) /
//!               written(now, ConnId, bytes) / closed(now, ConnId, CloseReason)
//! answers       stored(now, StoreTicket, Result<(), StoreRefusal>) / persisted(now, PersistTicket) / set_failing(now, bool)
//! time          timer(now); next_deadline() -> Option<Millis>
//!               set_listening(now, bool) / set_unread(ConnId, bool): what the driver does not read is not silent
//! its own       publish_local(now, LocalPublish) -> LocalTicket / publish_sys(now, topic, payload) / disconnect(now, &ClientId, ReasonCode) /
//!               shutdown(now) / checkpoint()
//! in between    work(now) while has_work(): what takes long goes on a bit each time
//! afterwards    poll() -> Option<Action> until None; counters(), gauges()
//! ```
//!
//! # What is durable when
//!
//! - A PUBLISH that goes upstream is stored (appended to the queue and synced) first. Then come QoS state, retained
//!   message, local subscribers and the acknowledgement; QoS 2 is passed on at the store, not at PUBREL (method B of
//!   3.1.1's section 4.3.3), and a resend of the same packet id gets PUBREC without a second store. The stored record
//!   names session and packet id, so that [`Server::replay`] brings all of that back after a crash; nothing else has to
//!   be durable before PUBACK or PUBREC.
//! - A PUBLISH that stays local has no such record: where it changes durable state, its acknowledgement waits for
//!   [`Action::Persist`]. Everything about it works while the queue is full or has failed.
//! - PUBREL: PUBCOMP waits until the packet id is durably free, together with the queue position of its record. Were it
//!   sent before, then after a crash the client's next message with that packet id would be taken for a duplicate, and
//!   lost.
//! - To a persistent session, a QoS 2 PUBLISH waits until message and packet id are durable, and PUBREL until the
//!   release is; otherwise a crash would let the message come again as a new one.
//! - CONNACK, SUBACK and UNSUBACK of a persistent session wait until what they say is durable. While nothing can be made
//!   durable, its CONNECT and SUBSCRIBE are refused instead; all that needs no disk goes on.
//! - A session that ends with its connection costs no durable write at all.
//!
//! Packets that wait hold back those behind them on the same connection, so the order never changes.
//!
//! **Invariant:** acknowledgements of one connection leave in the order of its publishes [MQTT-4.6.0-2].
//! **Invariant:** a message that the store refused reaches no subscriber and no retained store.
//! **Invariant:** what comes through [`Server::publish_local`] is never stored upstream.
//! **Invariant:** queues, windows, aliases, subscriptions and sessions are bounded by [`ServerSettings`]; what is dropped
//! is counted in [`Counters`].
//! **Invariant:** after [`Action::Close`] the server knows the connection no more; later calls about it do nothing.

mod acks;
mod api;
mod changes;
mod connect;
mod disconnect;
mod failing;
mod fanout;
mod feed;
mod journal;
mod outbound;
mod publish;
mod restore;
mod retained;
mod rows;
mod session;
mod shared;
mod subscribe;
mod sys;
mod timers;
mod tree;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

pub use api::{
    Action, AllowAll, ClientId, CloseReason, ConnId, Counters, Gauges, LocalPublish, LocalTicket,
    Millis, PeerInfo, PersistTicket, Policy, PublishRecord, RecordSource, Routing, ServerSettings,
    SessionId, StoreRefusal, StoreTicket,
};
pub use changes::{Message, Outgoing, OutgoingPhase, SessionState, StateChange, Subscription};
pub use rows::{InvalidRow, Row};

use self::feed::Searching;
use self::journal::Journal;
use self::publish::Intake;
use self::retained::Retained;
use self::session::{AllQueuedBytes, Connection, Session};
use self::shared::SharedGroups;
use self::timers::Timers;
use self::tree::SubscriptionTree;
use crate::mqtt::packet::{Packet, ReasonCode};

/// The server core. See the module's documentation.
pub struct Server {
    settings: ServerSettings,
    policy: Arc<dyn Policy>,
    conns: HashMap<ConnId, Connection>,
    sessions: HashMap<SessionId, Session>,
    by_client: HashMap<ClientId, SessionId>,
    all_queued: AllQueuedBytes,
    last_session: u64,
    tree: SubscriptionTree,
    shared: SharedGroups,
    retained: Retained,
    /// What the server says of itself.
    sys: Retained,
    searching: Searching,
    timers: Timers,
    /// Connections are read, since then.
    listening: bool,
    listening_since: Millis,
    /// Nothing can be made durable for now.
    failing: bool,
    journal: Journal,
    intake: Intake,
    /// Connections with packets that wait for durability.
    holding: BTreeSet<ConnId>,
    /// Connections that are not read.
    paused: BTreeSet<ConnId>,
    /// Local publishes that wait for durability, in order.
    local_waiting: VecDeque<(PersistTicket, LocalTicket)>,
    next_local: u64,
    actions: VecDeque<Action>,
    counters: Counters,
}

impl Server {
    /// A server without sessions.
    #[must_use]
    pub fn new(settings: ServerSettings, policy: Arc<dyn Policy>) -> Self {
        Self {
            settings,
            policy,
            conns: HashMap::new(),
            sessions: HashMap::new(),
            by_client: HashMap::new(),
            all_queued: AllQueuedBytes::default(),
            last_session: 0,
            tree: SubscriptionTree::default(),
            shared: SharedGroups::default(),
            retained: Retained::default(),
            sys: Retained::default(),
            searching: Searching::default(),
            timers: Timers::default(),
            failing: false,
            listening: true,
            listening_since: Millis::default(),
            journal: Journal::new(),
            intake: Intake::default(),
            holding: BTreeSet::new(),
            paused: BTreeSet::new(),
            local_waiting: VecDeque::new(),
            next_local: 0,
            actions: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A packet was received.
    pub fn recv(&mut self, now: Millis, conn: ConnId, packet: Packet) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        self.counters.packets_received += 1;
        connection.last_received = now;
        let packet = match packet {
            Packet::Connect(connect) => return self.recv_connect(now, conn, *connect),
            // [MQTT-3.1.0-1]
            _ if connection.session.is_none() => {
                return self.protocol_error(now, conn, ReasonCode::ProtocolError);
            }
            other => other,
        };
        match packet {
            Packet::Publish(publish) => self.recv_publish(now, conn, *publish),
            Packet::PubAck(ack) => self.recv_puback(now, conn, &ack),
            Packet::PubRec(ack) => self.recv_pubrec(now, conn, &ack),
            Packet::PubRel(ack) => self.recv_pubrel(now, conn, &ack),
            Packet::PubComp(ack) => self.recv_pubcomp(now, conn, &ack),
            Packet::Subscribe(subscribe) => self.recv_subscribe(now, conn, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.recv_unsubscribe(conn, unsubscribe),
            Packet::PingReq => self.send(conn, Packet::PingResp, None),
            Packet::Disconnect(disconnect) => self.recv_disconnect(now, conn, &disconnect),
            // AUTH: no authentication method was agreed on, since none is supported (section 4.12). The others are for
            // the server to send.
            Packet::Auth(_)
            | Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => self.protocol_error(now, conn, ReasonCode::ProtocolError),
        }
    }

    /// The next thing to do. Durable changes come last, so that one batch takes in all that a burst of calls changed.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.journal.take())
    }

    /// Makes what is reflected durable although nothing else changes: an [`Action::Persist`] comes, unless everything
    /// stored is reflected already. For drivers that keep records until they are.
    pub fn checkpoint(&mut self) {
        self.journal.want_position();
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many of what there are now. Takes time in proportion to the sessions.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.conns.values().filter(|conn| conn.session.is_some()).count(),
            sessions: self.sessions.len(),
            subscriptions: self.sessions.values().map(|s| s.subscriptions.len()).sum(),
            retained: self.retained.len(),
            pending_stores: self.intake.len(),
        }
    }
}
