//! MQTT control packets: one model for 3.1.1 and 5.0. What exists in 5.0 only (properties, most reason codes) is simply
//! absent, that is default, in a 3.1.1 packet.
//!
//! Names are the specification's. Sections and `[MQTT-x.y.z-n]` numbers refer to MQTT 5.0 unless 3.1.1 is said.
//!
//! **Invariant:** a [`TopicName`] or [`TopicFilter`] that exists is valid; a [`PacketId`] is never 0.
//! **Invariant:** payloads are slices of what was read (`Bytes`); whoever keeps one for long copies it out, so that a
//! small message does not hold a large read buffer.

mod properties;
mod reason;
mod topic;

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;

pub use properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    MessageProperties, PublishProperties, SubscribeProperties, UserProperties,
};
pub use reason::{ConnectReturnCode, ReasonCode};
pub use topic::{InvalidTopic, SharedFilter, TopicFilter, TopicName, topic_matches_filter};

/// The protocol levels that are spoken. MQTT 3.1 ("MQIsdp") is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Quality of Service (section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// 0: delivered at most once.
    #[default]
    AtMostOnce = 0,
    /// 1: delivered at least once.
    AtLeastOnce = 1,
    /// 2: delivered exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of a wire value, or `None` for 3 and above.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The wire value.
    #[must_use]
    pub fn as_u8(self) -> u8 {
        self as u8
    }
}

/// A packet identifier: never 0 [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// Wraps a number; `None` for 0.
    #[must_use]
    pub fn new(id: u16) -> Option<Self> {
        NonZeroU16::new(id).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Bytes);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Any control packet (section 2.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client requests a connection.
    Connect(Box<Connect>),
    /// Server answers CONNECT.
    ConnAck(Box<ConnAck>),
    /// An application message.
    Publish(Box<Publish>),
    /// Answer to a QoS 1 PUBLISH.
    PubAck(Ack),
    /// First answer to a QoS 2 PUBLISH.
    PubRec(Ack),
    /// Releases a QoS 2 PUBLISH.
    PubRel(Ack),
    /// Completes a QoS 2 PUBLISH.
    PubComp(Ack),
    /// Client subscribes.
    Subscribe(Subscribe),
    /// Server answers SUBSCRIBE.
    SubAck(SubAck),
    /// Client unsubscribes.
    Unsubscribe(Unsubscribe),
    /// Server answers UNSUBSCRIBE.
    UnsubAck(UnsubAck),
    /// Client asks for a sign of life.
    PingReq,
    /// Server gives it.
    PingResp,
    /// Either side (3.1.1: the client) ends the connection.
    Disconnect(Disconnect),
    /// Extended authentication; 5.0 only.
    Auth(Auth),
}

impl Packet {
    /// The packet's name as the specification writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::ConnAck(_) => "CONNACK",
            Self::Publish(_) => "PUBLISH",
            Self::PubAck(_) => "PUBACK",
            Self::PubRec(_) => "PUBREC",
            Self::PubRel(_) => "PUBREL",
            Self::PubComp(_) => "PUBCOMP",
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::SubAck(_) => "SUBACK",
            Self::Unsubscribe(_) => "UNSUBSCRIBE",
            Self::UnsubAck(_) => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect(_) => "DISCONNECT",
            Self::Auth(_) => "AUTH",
        }
    }
}

/// CONNECT (section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Which protocol the client speaks on this connection.
    pub version: ProtocolVersion,
    /// Clean Start (3.1.1: Clean Session).
    pub clean_start: bool,
    /// Seconds; 0 turns keep alive off.
    pub keep_alive_secs: u16,
    /// May be empty: the server then assigns one.
    pub client_id: Arc<str>,
    /// Published when the connection ends without a normal DISCONNECT.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<Arc<str>>,
    /// Password; in 3.1.1 only together with a user name [MQTT-3.1.2-22 of 3.1.1].
    pub password: Option<Password>,
    /// 5.0 properties.
    pub properties: ConnectProperties,
}

/// The will message of a CONNECT (section 3.1.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where it is published.
    pub topic: TopicName,
    /// What is published.
    pub payload: Bytes,
    /// With which QoS.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds from the end of the connection to its publication; 0 when absent.
    pub delay_interval_secs: u32,
    /// 5.0 properties that are published with it.
    pub properties: MessageProperties,
}

/// CONNACK (section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// The server had a session for this client.
    pub session_present: bool,
    /// Success, or why not. Encoded for 3.1.1 by [`ConnectReturnCode`].
    pub reason: ReasonCode,
    /// 5.0 properties.
    pub properties: ConnAckProperties,
}

/// PUBLISH (section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Sent before, maybe received.
    pub dup: bool,
    /// QoS; with 1 and 2, `packet_id` is there.
    pub qos: QoS,
    /// To be retained (to the server), or was retained (from the server).
    pub retain: bool,
    /// `None` only where a topic alias stands in for it (5.0, empty topic name).
    pub topic: Option<TopicName>,
    /// With QoS 1 and 2 only.
    pub packet_id: Option<PacketId>,
    /// 5.0 properties.
    pub properties: PublishProperties,
    /// The application's bytes.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Of the PUBLISH that it belongs to.
    pub packet_id: PacketId,
    /// Always Success in 3.1.1.
    pub reason: ReasonCode,
    /// 5.0 properties.
    pub properties: AckProperties,
}

impl Ack {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: AckProperties::default() }
    }
}

/// Which retained messages a new subscription gets (section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    SendAlways = 0,
    /// 1: only if the subscription did not exist.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// Subscription options (section 3.8.3.1). 3.1.1 has only the QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS that messages are sent with.
    pub maximum_qos: QoS,
    /// Do not send what this client published itself.
    pub no_local: bool,
    /// Keep the retain flag as the publisher set it.
    pub retain_as_published: bool,
    /// Which retained messages to send.
    pub retain_handling: RetainHandling,
}

/// SUBSCRIBE (section 3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Answered by SUBACK with the same.
    pub packet_id: PacketId,
    /// 5.0 properties.
    pub properties: SubscribeProperties,
    /// At least one.
    pub filters: Vec<(TopicFilter, SubscriptionOptions)>,
}

/// SUBACK (section 3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 properties.
    pub properties: AckProperties,
    /// One for each filter, in order: the granted QoS or a failure (3.1.1: 0x80 for any failure).
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE (section 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Answered by UNSUBACK with the same.
    pub packet_id: PacketId,
    /// 5.0 user properties.
    pub user_properties: UserProperties,
    /// At least one.
    pub filters: Vec<TopicFilter>,
}

/// UNSUBACK (section 3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 properties.
    pub properties: AckProperties,
    /// One for each filter, in order; not on the wire in 3.1.1.
    pub reasons: Vec<ReasonCode>,
}

/// DISCONNECT (section 3.14). 3.1.1: always Success, without properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Why.
    pub reason: ReasonCode,
    /// 5.0 properties.
    pub properties: DisconnectProperties,
}

/// AUTH (section 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Success, ContinueAuthentication or ReAuthenticate.
    pub reason: ReasonCode,
    /// 5.0 properties.
    pub properties: AuthProperties,
}
