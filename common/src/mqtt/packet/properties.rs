//! MQTT 5.0 properties (section 2.2.2), one struct for each packet kind. `None` means absent on the wire.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;

use super::{QoS, TopicName};

/// Name and value pairs; the same name may occur more than once, and their order is kept.
pub type UserProperties = Vec<(Arc<str>, Arc<str>)>;

/// Properties that belong to an application message itself, whether published or a will (section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageProperties {
    /// The publisher says that the payload is UTF-8. Passed on, not verified.
    pub payload_is_utf8: Option<bool>,
    /// Seconds that the message lives.
    pub message_expiry_interval_secs: Option<u32>,
    /// What kind of content the payload is.
    pub content_type: Option<Arc<str>>,
    /// Where to answer.
    pub response_topic: Option<TopicName>,
    /// Ties an answer to its request.
    pub correlation_data: Option<Bytes>,
    /// Passed on in order [MQTT-3.3.2-18].
    pub user_properties: UserProperties,
}

/// Of PUBLISH (section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// What belongs to the message.
    pub message: MessageProperties,
    /// Stands in for the topic name, on this connection only.
    pub topic_alias: Option<NonZeroU16>,
    /// Of the subscriptions that match (server to client only).
    pub subscription_identifiers: Vec<NonZeroU32>,
}

/// Of CONNECT (section 3.1.2.11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties {
    /// Seconds that the session outlives the connection; `u32::MAX` means for ever; absent means 0.
    pub session_expiry_interval_secs: Option<u32>,
    /// How many QoS 1 and 2 publishes the client takes at once; absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet that the client takes, in bytes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// How many topic aliases the client takes; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// The client wants Response Information.
    pub request_response_information: Option<bool>,
    /// `Some(false)`: no reason strings or user properties except on PUBLISH, CONNACK and DISCONNECT.
    pub request_problem_information: Option<bool>,
    /// Extended authentication: its method.
    pub authentication_method: Option<Arc<str>>,
    /// Extended authentication: its data.
    pub authentication_data: Option<Bytes>,
    /// The client's own.
    pub user_properties: UserProperties,
}

/// Of CONNACK (section 3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAckProperties {
    /// The server uses this expiry, not the one asked for.
    pub session_expiry_interval_secs: Option<u32>,
    /// How many QoS 1 and 2 publishes the server takes at once.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS that the server takes; absent means 2. Only 0 and 1 may be sent.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are supported; absent means yes.
    pub retain_available: Option<bool>,
    /// The largest packet that the server takes, in bytes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The client id that the server assigned.
    pub assigned_client_identifier: Option<Arc<str>>,
    /// How many topic aliases the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// Text for a person.
    pub reason_string: Option<Arc<str>>,
    /// The server's own.
    pub user_properties: UserProperties,
    /// Whether wildcard subscriptions are supported; absent means yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscription identifiers are supported; absent means yes.
    pub subscription_identifiers_available: Option<bool>,
    /// Whether shared subscriptions are supported; absent means yes.
    pub shared_subscription_available: Option<bool>,
    /// The client must use this keep alive, in seconds [MQTT-3.2.2-21].
    pub server_keep_alive_secs: Option<u16>,
    /// A basis for response topics.
    pub response_information: Option<Arc<str>>,
    /// Another server to use.
    pub server_reference: Option<Arc<str>>,
    /// Extended authentication: its method.
    pub authentication_method: Option<Arc<str>>,
    /// Extended authentication: its data.
    pub authentication_data: Option<Bytes>,
}

/// Of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckProperties {
    /// Text for a person.
    pub reason_string: Option<Arc<str>>,
    /// The sender's own.
    pub user_properties: UserProperties,
}

/// Of SUBSCRIBE (section 3.8.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscribeProperties {
    /// Sent back with each message that matches; 1 to 268,435,455.
    pub subscription_identifier: Option<NonZeroU32>,
    /// The client's own.
    pub user_properties: UserProperties,
}

/// Of DISCONNECT (section 3.14.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties {
    /// Replaces that of CONNECT (client to server only).
    pub session_expiry_interval_secs: Option<u32>,
    /// Text for a person.
    pub reason_string: Option<Arc<str>>,
    /// The sender's own.
    pub user_properties: UserProperties,
    /// Another server to use (server to client only).
    pub server_reference: Option<Arc<str>>,
}

/// Of AUTH (section 3.15.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthProperties {
    /// The method.
    pub authentication_method: Option<Arc<str>>,
    /// The data.
    pub authentication_data: Option<Bytes>,
    /// Text for a person.
    pub reason_string: Option<Arc<str>>,
    /// The sender's own.
    pub user_properties: UserProperties,
}
