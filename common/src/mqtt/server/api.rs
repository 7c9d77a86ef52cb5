//! What a driver and the server say to each other: ids, settings, events' arguments, actions.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::changes::StateChange;
use crate::limits;
use crate::mqtt::packet::{
    Connect, MessageProperties, Packet, PacketId, QoS, ReasonCode, TopicName,
};

/// Server time in milliseconds. It never goes back, also not over a restart: the driver saves the latest value with
/// each [`Action::Persist`], resumes from it at start (plus the wall time that has passed, where the wall clock can be
/// trusted), and advances it with the monotonic clock. So a deadline means the same before and after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The time `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time `secs` seconds later.
    #[must_use]
    pub fn after_secs(self, secs: u32) -> Self {
        Self(self.0.saturating_add(u64::from(secs).saturating_mul(1000)))
    }

    /// How long from now to `deadline`; zero if it has passed.
    #[must_use]
    pub fn until(self, deadline: Self) -> Duration {
        Duration::from_millis(deadline.0.saturating_sub(self.0))
    }
}

/// One network connection. The driver chooses the number and never uses it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One session, never used again for another: also not for the same client's next session, nor after a restart. So
/// what was stored for a session that has ended is never taken for its successor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Names one [`Action::Store`]. Tickets rise in the order of the actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTicket(pub u64);

/// Names one [`Action::Persist`]. Tickets rise in the order of the actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistTicket(pub u64);

/// Names one local publish, see [`super::Server::publish_local`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTicket(pub u64);

/// A client identifier (section 3.1.3.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub Arc<str>);

impl ClientId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ClientId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who is at the other end of a connection, as far as the network knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Address and port, for logs.
    pub address: Arc<str>,
    /// The subject of a verified TLS client certificate.
    pub certificate_subject: Option<Arc<str>>,
}

/// Why a connection ended without the server having closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed its side.
    PeerClosed,
    /// Reading or writing failed.
    NetworkError,
}

/// Where a message goes besides local subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// It is stored for the cloud. `false`: it stays local, and survives a full or failed queue.
    pub upstream: bool,
}

/// What the server asks about its clients. Answers come at once, from memory.
pub trait Policy: Send + Sync {
    /// Whether this client may connect.
    ///
    /// # Errors
    /// The reason that CONNACK gives.
    fn authenticate(&self, connect: &Connect, peer: &PeerInfo) -> Result<(), ReasonCode>;

    /// Whether a client may publish to a topic.
    fn may_publish(&self, client: &ClientId, topic: &TopicName) -> bool;

    /// Whether a client may subscribe to a filter (the inner one of a shared subscription).
    fn may_subscribe(&self, client: &ClientId, filter: &str) -> bool;

    /// Where a topic's messages go.
    fn route(&self, topic: &TopicName) -> Routing;
}

/// Everybody may do everything, and all topics go upstream. For tests and for listeners that only loopback reaches.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn authenticate(&self, _connect: &Connect, _peer: &PeerInfo) -> Result<(), ReasonCode> {
        Ok(())
    }

    fn may_publish(&self, _client: &ClientId, _topic: &TopicName) -> bool {
        true
    }

    fn may_subscribe(&self, _client: &ClientId, _filter: &str) -> bool {
        true
    }

    fn route(&self, _topic: &TopicName) -> Routing {
        Routing { upstream: true }
    }
}

/// The server's values. Defaults come from [`crate::limits`].
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Largest packet taken, in bytes; announced to 5.0 clients. The driver gives the same to the decoder.
    pub max_packet_bytes: usize,
    /// Time from the connection to its CONNECT.
    pub connect_timeout: Duration,
    /// QoS 1 and 2 publishes of one client in flight towards the server.
    pub receive_maximum: u16,
    /// Topic aliases that a client may set.
    pub topic_alias_maximum: u16,
    /// Longest keep alive; a longer one, or none, is replaced by it for 5.0 clients. 0: no limit.
    pub max_keep_alive_secs: u16,
    /// Longest session expiry; 3.1.1 sessions with Clean Session 0 get it too.
    pub max_session_expiry: Duration,
    /// Sessions kept, connected or not.
    pub max_sessions: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Messages waiting for one session, besides those in flight.
    pub session_queue_messages: usize,
    /// Bytes waiting for one session, besides those in flight.
    pub session_queue_bytes: usize,
    /// Bytes queued or in flight for all sessions together. A message for many sessions counts for each of them.
    pub all_sessions_queue_bytes: usize,
    /// Messages in flight to one client, whatever Receive Maximum it announced.
    pub max_inflight: u16,
    /// Retained messages kept.
    pub max_retained: usize,
    /// Bytes of retained messages' topics and payloads.
    pub max_retained_bytes: usize,
    /// Bytes handed out for one connection and not yet written, above which it gets no more messages.
    pub connection_backlog_bytes: usize,
    /// Publishes of one connection that wait for the store, above which it is not read.
    pub pending_publishes: usize,
    /// Bytes of all publishes that wait for the store, above which no connection is read.
    pub pending_bytes: usize,
    /// Longest client identifier taken.
    pub max_client_id_bytes: usize,
    /// What the identifiers of clients that bring none begin with. A driver that makes another one up for each start, at random,
    /// gets identifiers that no client of another start, or of another server, has.
    pub assigned_id_prefix: Arc<str>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            max_packet_bytes: limits::MQTT_PACKET_BYTES,
            connect_timeout: limits::MQTT_CONNECT_TIMEOUT,
            receive_maximum: limits::MQTT_RECEIVE_MAXIMUM,
            topic_alias_maximum: limits::MQTT_TOPIC_ALIAS_MAXIMUM,
            max_keep_alive_secs: 0,
            max_session_expiry: limits::MQTT_SESSION_EXPIRY,
            max_sessions: limits::MQTT_SESSIONS,
            max_subscriptions: limits::MQTT_SUBSCRIPTIONS_PER_SESSION,
            session_queue_messages: limits::MQTT_SESSION_QUEUE_MESSAGES,
            session_queue_bytes: limits::MQTT_SESSION_QUEUE_BYTES,
            all_sessions_queue_bytes: limits::MQTT_ALL_SESSIONS_QUEUE_BYTES,
            max_inflight: limits::MQTT_INFLIGHT_MESSAGES,
            max_retained: limits::MQTT_RETAINED_MESSAGES,
            max_retained_bytes: limits::MQTT_RETAINED_BYTES,
            connection_backlog_bytes: limits::MQTT_CONNECTION_BACKLOG_BYTES,
            pending_publishes: limits::MQTT_PENDING_PUBLISHES,
            pending_bytes: limits::MQTT_PENDING_BYTES,
            max_client_id_bytes: limits::MQTT_CLIENT_ID_BYTES,
            assigned_id_prefix: "auto-".into(),
        }
    }
}

/// What made a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordSource {
    /// A PUBLISH; with a packet id for QoS 1 and 2.
    Publish(Option<PacketId>),
    /// The client's will.
    Will,
}

/// A message on its way to the queue. It carries all that [`super::Server::replay`] needs after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRecord {
    /// Who published it.
    pub client_id: ClientId,
    /// In which session: packet ids mean something within one session only.
    pub session: SessionId,
    /// How.
    pub source: RecordSource,
    /// The publisher's QoS.
    pub qos: QoS,
    /// The publisher's retain flag.
    pub retain: bool,
    /// Where to (an alias is already resolved).
    pub topic: TopicName,
    /// What. A slice of the read buffer: it is freed when the record is.
    pub payload: Bytes,
    /// 5.0 properties of the message.
    pub properties: MessageProperties,
    /// When the server received it.
    pub received_at: Millis,
}

/// Why the queue did not take a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// It is full and its policy is to reject, or the record is larger than it takes.
    #[error("the queue is full")]
    Full,
    /// It failed, and takes nothing any more.
    #[error("the queue has failed")]
    Failed,
}

/// A message that the driver publishes itself: from downlink or a bridge. It is never stored for the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPublish {
    /// Where to.
    pub topic: TopicName,
    /// What.
    pub payload: Bytes,
    /// The QoS of the message.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// 5.0 properties.
    pub properties: MessageProperties,
    /// A name and value that become durable together with the message's effects, e.g. the downlink's position; so that
    /// after a crash the driver knows exactly what was published. See [`StateChange::PutMark`].
    pub mark: Option<(Arc<str>, Bytes)>,
}

/// What the driver has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Encode the packet for this connection's version and write it. Report what was written with
    /// [`super::Server::written`].
    Send {
        /// To whom.
        conn: ConnId,
        /// What.
        packet: Packet,
        /// Its encoded size in bytes.
        bytes: usize,
    },
    /// Write what was sent before (for a bounded time), then close. The server has already forgotten the connection:
    /// `closed` need not be called.
    Close {
        /// Which.
        conn: ConnId,
        /// Why, for logs. A 5.0 client was sent it in a DISCONNECT or CONNACK.
        reason: ReasonCode,
    },
    /// Stop reading from this connection. What has already been read may still be handed to `recv`.
    Pause {
        /// Which.
        conn: ConnId,
    },
    /// Read from it again.
    Resume {
        /// Which.
        conn: ConnId,
    },
    /// Append to the queue and sync; then call [`super::Server::stored`]. Append in the order of the actions.
    Store {
        /// To answer with.
        ticket: StoreTicket,
        /// What.
        record: PublishRecord,
    },
    /// Write all changes in one durable transaction, then call [`super::Server::persisted`]. At most one is under way.
    /// The transaction also saves the current [`Millis`] and the queue position of `reflects`.
    Persist {
        /// To answer with.
        ticket: PersistTicket,
        /// The state after these changes reflects every record up to and including this one. `None`: no store of this
        /// run yet, only what was replayed.
        reflects: Option<StoreTicket>,
        /// May be empty: then only the position moves.
        changes: Vec<StateChange>,
    },
    /// A local publish and its mark are durable (at once, where nothing had to be persisted).
    LocalDone {
        /// Which.
        ticket: LocalTicket,
    },
}

/// Counts since the start. For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections opened.
    pub connections_opened: u64,
    /// CONNECTs refused.
    pub connects_refused: u64,
    /// Connections closed by the server for a malformed packet.
    pub malformed_packets: u64,
    /// Connections closed by the server for a protocol error.
    pub protocol_errors: u64,
    /// Connections closed because nothing came for 1.5 times the keep alive.
    pub keep_alive_timeouts: u64,
    /// Sessions taken over by another connection.
    pub takeovers: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// PUBLISH packets received, by QoS, without duplicates.
    pub publishes_received: [u64; 3],
    /// PUBLISH packets with a packet id that was already received.
    pub duplicates_received: u64,
    /// PUBLISH packets sent, by QoS, without resends.
    pub publishes_sent: [u64; 3],
    /// Publishes refused because the store refused them.
    pub store_refused: u64,
    /// Publishes that the policy did not allow.
    pub publish_not_authorized: u64,
    /// Messages dropped for a session whose queue was full, QoS 0.
    pub dropped_queue_full_qos0: u64,
    /// Messages dropped for a session whose queue was full, QoS 1 and 2.
    pub dropped_queue_full_qos12: u64,
    /// QoS 0 messages for a session that is not connected.
    pub dropped_offline_qos0: u64,
    /// Messages that expired before they were delivered.
    pub dropped_expired: u64,
    /// Messages larger than the client's Maximum Packet Size.
    pub dropped_too_large: u64,
    /// Retained messages not kept because there were too many.
    pub dropped_retained: u64,
    /// Wills published.
    pub wills_published: u64,
    /// Sessions that expired.
    pub sessions_expired: u64,
}

/// How many of what there are now. For metrics and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections that have sent CONNECT.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Publishes that wait for the store.
    pub pending_stores: usize,
}
