//! Durable state, as changes and as rows.
//!
//! Every change names one row and its new value, or removes rows. So a driver keeps one ordered table of bytes: it
//! writes [`StateChange::to_row`], removes what it is told to, and at start hands each row back through
//! [`StateChange::from_row`] to [`super::Server::restore`].

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::api::{ClientId, Millis, SessionId};
use crate::mqtt::packet::{
    MessageProperties, PacketId, ProtocolVersion, QoS, SubscriptionOptions, TopicFilter, TopicName,
    Will,
};

/// What is kept of a persistent session itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The session's own number.
    pub id: SessionId,
    /// Of its latest connection.
    pub version: ProtocolVersion,
    /// Seconds that it outlives its connection; `u32::MAX`: it does not expire.
    pub expiry_interval_secs: u32,
    /// When it expires; `None` while it is connected, or if it never expires.
    pub expires_at: Option<Millis>,
    /// To be published when its connection has ended, or, with `will_at`, at that time.
    pub will: Option<Will>,
    /// The connection has ended; the will is published at this time.
    pub will_at: Option<Millis>,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// As the client wrote it, with `$share/NAME/`.
    pub filter: TopicFilter,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Sent back with each message.
    pub identifier: Option<NonZeroU32>,
}

/// A message as sessions and the retained store keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: TopicName,
    /// What.
    pub payload: Bytes,
    /// The publisher's QoS.
    pub qos: QoS,
    /// 5.0 properties, as published.
    pub properties: MessageProperties,
    /// When Message Expiry Interval ends.
    pub expires_at: Option<Millis>,
}

/// Where an outgoing QoS 1 or 2 message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutgoingPhase {
    /// Not yet sent.
    Queued,
    /// PUBLISH sent under this packet id.
    Published(PacketId),
    /// PUBREC received, PUBREL sent (QoS 2). The message itself is no longer needed.
    Released(PacketId),
}

/// One outgoing QoS 1 or 2 message of a persistent session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub message: Arc<Message>,
    /// What it is sent with: the lower one of publisher and subscription.
    pub qos: QoS,
    /// The retain flag that it is sent with.
    pub retain: bool,
    /// Of the subscriptions that match.
    pub subscription_identifiers: Vec<NonZeroU32>,
    /// The shared subscription that it came through, for the hand-over.
    pub shared: Option<TopicFilter>,
    /// Where it stands.
    pub phase: OutgoingPhase,
}

/// One durable change. Those in one [`super::Action::Persist`] are one transaction, applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Remove the session and everything that belongs to it. Comes before the rows of a new session of that client.
    RemoveSession(ClientId),
    /// Create or replace the session's own row.
    PutSession(ClientId, SessionState),
    /// Create or replace a subscription.
    PutSubscription(ClientId, Subscription),
    /// Remove a subscription.
    RemoveSubscription(ClientId, TopicFilter),
    /// A QoS 2 PUBLISH with this packet id was received and not yet released.
    PutReceived(ClientId, PacketId),
    /// It was released: the packet id may be used again.
    RemoveReceived(ClientId, PacketId),
    /// Create or replace an outgoing message; the number orders a session's messages.
    PutOutgoing(ClientId, u64, Outgoing),
    /// It was delivered or dropped.
    RemoveOutgoing(ClientId, u64),
    /// Create or replace a topic's retained message.
    PutRetained(Message),
    /// The topic has none any more.
    RemoveRetained(TopicName),
    /// A driver's own name and value, see [`super::LocalPublish::mark`].
    PutMark(Arc<str>, Bytes),
}
