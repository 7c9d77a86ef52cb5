//! Properties on the wire (section 2.2.2.2): one table of identifiers and types, and which packet takes which.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;

use super::DecodeError;
use super::reader::Reader;
use crate::mqtt::packet::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    MessageProperties, PublishProperties, QoS, SubscribeProperties, TopicName, UserProperties,
};

/// One property as it stands on the wire.
pub(super) enum Property {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(Arc<str>),
    ResponseTopic(TopicName),
    CorrelationData(Bytes),
    SubscriptionIdentifier(NonZeroU32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(Arc<str>),
    ServerKeepAlive(u16),
    AuthenticationMethod(Arc<str>),
    AuthenticationData(Bytes),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(Arc<str>),
    ServerReference(Arc<str>),
    ReasonString(Arc<str>),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    User(Arc<str>, Arc<str>),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// The identifiers of section 2.2.2.2.
pub(super) mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.protocol("a property that is 0 or 1 has another value")),
    }
}

fn nonzero_u16(reader: &mut Reader, rule: &'static str) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(reader.u16()?).ok_or_else(|| reader.protocol(rule))
}

fn nonzero_u32(value: u32, reader: &Reader, rule: &'static str) -> Result<NonZeroU32, DecodeError> {
    NonZeroU32::new(value).ok_or_else(|| reader.protocol(rule))
}

/// Reads the next property.
fn property(reader: &mut Reader) -> Result<Property, DecodeError> {
    // An identifier is a variable byte integer, but all that exist have one byte.
    let Ok(identifier) = u8::try_from(reader.variable()?) else {
        return Err(reader.malformed("an unknown property identifier"));
    };
    Ok(match identifier {
        id::PAYLOAD_FORMAT_INDICATOR => Property::PayloadFormatIndicator(flag(reader)?),
        id::MESSAGE_EXPIRY_INTERVAL => Property::MessageExpiryInterval(reader.u32()?),
        id::CONTENT_TYPE => Property::ContentType(reader.string()?),
        // [MQTT-3.3.2-14] no wildcards
        id::RESPONSE_TOPIC => Property::ResponseTopic(reader.topic_name()?),
        id::CORRELATION_DATA => Property::CorrelationData(reader.binary()?),
        id::SUBSCRIPTION_IDENTIFIER => {
            let value = reader.variable()?;
            Property::SubscriptionIdentifier(nonzero_u32(
                value,
                reader,
                "Subscription Identifier is 0",
            )?)
        }
        id::SESSION_EXPIRY_INTERVAL => Property::SessionExpiryInterval(reader.u32()?),
        id::ASSIGNED_CLIENT_IDENTIFIER => Property::AssignedClientIdentifier(reader.string()?),
        id::SERVER_KEEP_ALIVE => Property::ServerKeepAlive(reader.u16()?),
        id::AUTHENTICATION_METHOD => Property::AuthenticationMethod(reader.string()?),
        id::AUTHENTICATION_DATA => Property::AuthenticationData(reader.binary()?),
        id::REQUEST_PROBLEM_INFORMATION => Property::RequestProblemInformation(flag(reader)?),
        id::WILL_DELAY_INTERVAL => Property::WillDelayInterval(reader.u32()?),
        id::REQUEST_RESPONSE_INFORMATION => Property::RequestResponseInformation(flag(reader)?),
        id::RESPONSE_INFORMATION => Property::ResponseInformation(reader.string()?),
        id::SERVER_REFERENCE => Property::ServerReference(reader.string()?),
        id::REASON_STRING => Property::ReasonString(reader.string()?),
        id::RECEIVE_MAXIMUM => {
            Property::ReceiveMaximum(nonzero_u16(reader, "Receive Maximum is 0")?)
        }
        id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(reader.u16()?),
        id::TOPIC_ALIAS => {
            Property::TopicAlias(nonzero_u16(reader, "Topic Alias is 0 [MQTT-3.3.2-8]")?)
        }
        id::MAXIMUM_QOS => match reader.u8()? {
            0 => Property::MaximumQos(QoS::AtMostOnce),
            1 => Property::MaximumQos(QoS::AtLeastOnce),
            _ => return Err(reader.protocol("Maximum QoS is neither 0 nor 1")),
        },
        id::RETAIN_AVAILABLE => Property::RetainAvailable(flag(reader)?),
        id::USER_PROPERTY => Property::User(reader.string()?, reader.string()?),
        id::MAXIMUM_PACKET_SIZE => {
            let value = reader.u32()?;
            Property::MaximumPacketSize(nonzero_u32(value, reader, "Maximum Packet Size is 0")?)
        }
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
            Property::WildcardSubscriptionAvailable(flag(reader)?)
        }
        id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
            Property::SubscriptionIdentifierAvailable(flag(reader)?)
        }
        id::SHARED_SUBSCRIPTION_AVAILABLE => Property::SharedSubscriptionAvailable(flag(reader)?),
        _ => return Err(reader.malformed("an unknown property identifier")),
    })
}

/// Reads all properties; `take` says whether the packet has such a property, and whether it came for the first time.
fn each(packet: &mut Reader, mut take: impl FnMut(Property) -> Taken) -> Result<(), DecodeError> {
    let mut properties = packet.properties()?;
    while !properties.is_empty() {
        match take(property(&mut properties)?) {
            Taken::Yes => {}
            Taken::Twice => return Err(properties.protocol("a property occurs twice")),
            // Section 2.2.2.2: an identifier that is not valid for its packet type makes the packet malformed.
            Taken::NotHere => {
                return Err(properties.malformed("a property that this packet does not have"));
            }
        }
    }
    Ok(())
}

enum Taken {
    Yes,
    Twice,
    NotHere,
}

fn set<T>(field: &mut Option<T>, value: T) -> Taken {
    match field.replace(value) {
        None => Taken::Yes,
        Some(_) => Taken::Twice,
    }
}

fn push(field: &mut UserProperties, name: Arc<str>, value: Arc<str>) -> Taken {
    field.push((name, value));
    Taken::Yes
}

fn take_message(to: &mut MessageProperties, property: Property) -> Taken {
    match property {
        Property::PayloadFormatIndicator(v) => set(&mut to.payload_is_utf8, v),
        Property::MessageExpiryInterval(v) => set(&mut to.message_expiry_interval_secs, v),
        Property::ContentType(v) => set(&mut to.content_type, v),
        Property::ResponseTopic(v) => set(&mut to.response_topic, v),
        Property::CorrelationData(v) => set(&mut to.correlation_data, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        _ => Taken::NotHere,
    }
}

/// Of PUBLISH.
pub(super) fn publish(packet: &mut Reader) -> Result<PublishProperties, DecodeError> {
    let mut to = PublishProperties::default();
    each(packet, |property| match property {
        Property::TopicAlias(v) => set(&mut to.topic_alias, v),
        Property::SubscriptionIdentifier(v) => {
            to.subscription_identifiers.push(v);
            Taken::Yes
        }
        other => take_message(&mut to.message, other),
    })?;
    Ok(to)
}

/// Of the will in CONNECT: its delay in seconds, and what is published with it.
pub(super) fn will(packet: &mut Reader) -> Result<(u32, MessageProperties), DecodeError> {
    let mut delay = None;
    let mut to = MessageProperties::default();
    each(packet, |property| match property {
        Property::WillDelayInterval(v) => set(&mut delay, v),
        other => take_message(&mut to, other),
    })?;
    Ok((delay.unwrap_or(0), to))
}

/// Of CONNECT.
pub(super) fn connect(packet: &mut Reader) -> Result<ConnectProperties, DecodeError> {
    let mut to = ConnectProperties::default();
    each(packet, |property| match property {
        Property::SessionExpiryInterval(v) => set(&mut to.session_expiry_interval_secs, v),
        Property::ReceiveMaximum(v) => set(&mut to.receive_maximum, v),
        Property::MaximumPacketSize(v) => set(&mut to.maximum_packet_size, v),
        Property::TopicAliasMaximum(v) => set(&mut to.topic_alias_maximum, v),
        Property::RequestResponseInformation(v) => set(&mut to.request_response_information, v),
        Property::RequestProblemInformation(v) => set(&mut to.request_problem_information, v),
        Property::AuthenticationMethod(v) => set(&mut to.authentication_method, v),
        Property::AuthenticationData(v) => set(&mut to.authentication_data, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        _ => Taken::NotHere,
    })?;
    if to.authentication_data.is_some() && to.authentication_method.is_none() {
        return Err(packet.protocol("Authentication Data without Authentication Method"));
    }
    Ok(to)
}

/// Of CONNACK.
pub(super) fn connack(packet: &mut Reader) -> Result<ConnAckProperties, DecodeError> {
    let mut to = ConnAckProperties::default();
    each(packet, |property| match property {
        Property::SessionExpiryInterval(v) => set(&mut to.session_expiry_interval_secs, v),
        Property::ReceiveMaximum(v) => set(&mut to.receive_maximum, v),
        Property::MaximumQos(v) => set(&mut to.maximum_qos, v),
        Property::RetainAvailable(v) => set(&mut to.retain_available, v),
        Property::MaximumPacketSize(v) => set(&mut to.maximum_packet_size, v),
        Property::AssignedClientIdentifier(v) => set(&mut to.assigned_client_identifier, v),
        Property::TopicAliasMaximum(v) => set(&mut to.topic_alias_maximum, v),
        Property::ReasonString(v) => set(&mut to.reason_string, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        Property::WildcardSubscriptionAvailable(v) => {
            set(&mut to.wildcard_subscription_available, v)
        }
        Property::SubscriptionIdentifierAvailable(v) => {
            set(&mut to.subscription_identifiers_available, v)
        }
        Property::SharedSubscriptionAvailable(v) => set(&mut to.shared_subscription_available, v),
        Property::ServerKeepAlive(v) => set(&mut to.server_keep_alive_secs, v),
        Property::ResponseInformation(v) => set(&mut to.response_information, v),
        Property::ServerReference(v) => set(&mut to.server_reference, v),
        Property::AuthenticationMethod(v) => set(&mut to.authentication_method, v),
        Property::AuthenticationData(v) => set(&mut to.authentication_data, v),
        _ => Taken::NotHere,
    })?;
    Ok(to)
}

/// Of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) fn ack(packet: &mut Reader) -> Result<AckProperties, DecodeError> {
    let mut to = AckProperties::default();
    each(packet, |property| match property {
        Property::ReasonString(v) => set(&mut to.reason_string, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        _ => Taken::NotHere,
    })?;
    Ok(to)
}

/// Of SUBSCRIBE.
pub(super) fn subscribe(packet: &mut Reader) -> Result<SubscribeProperties, DecodeError> {
    let mut to = SubscribeProperties::default();
    each(packet, |property| match property {
        Property::SubscriptionIdentifier(v) => set(&mut to.subscription_identifier, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        _ => Taken::NotHere,
    })?;
    Ok(to)
}

/// Of UNSUBSCRIBE.
pub(super) fn unsubscribe(packet: &mut Reader) -> Result<UserProperties, DecodeError> {
    let mut to = UserProperties::new();
    each(packet, |property| match property {
        Property::User(name, value) => push(&mut to, name, value),
        _ => Taken::NotHere,
    })?;
    Ok(to)
}

/// Of DISCONNECT.
pub(super) fn disconnect(packet: &mut Reader) -> Result<DisconnectProperties, DecodeError> {
    let mut to = DisconnectProperties::default();
    each(packet, |property| match property {
        Property::SessionExpiryInterval(v) => set(&mut to.session_expiry_interval_secs, v),
        Property::ReasonString(v) => set(&mut to.reason_string, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        Property::ServerReference(v) => set(&mut to.server_reference, v),
        _ => Taken::NotHere,
    })?;
    Ok(to)
}

/// Of AUTH.
pub(super) fn auth(packet: &mut Reader) -> Result<AuthProperties, DecodeError> {
    let mut to = AuthProperties::default();
    each(packet, |property| match property {
        Property::AuthenticationMethod(v) => set(&mut to.authentication_method, v),
        Property::AuthenticationData(v) => set(&mut to.authentication_data, v),
        Property::ReasonString(v) => set(&mut to.reason_string, v),
        Property::User(name, value) => push(&mut to.user_properties, name, value),
        _ => Taken::NotHere,
    })?;
    if to.authentication_method.is_none() {
        return Err(packet.protocol("AUTH without Authentication Method"));
    }
    Ok(to)
}
