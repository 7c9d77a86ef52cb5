//! Packets to bytes.
//!
//! A body is written twice by the same code: first into a counter, which gives the lengths that MQTT puts in front and
//! finds every error, then into the buffer.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::EncodeError;
use super::properties::id;
use crate::mqtt::packet::{
    Ack, AckProperties, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties,
    ConnectReturnCode, Disconnect, DisconnectProperties, MessageProperties, Packet,
    ProtocolVersion, Publish, ReasonCode, SubAck, Subscribe, SubscriptionOptions, UserProperties,
    Will,
};

const MAX_VARIABLE: usize = 268_435_455;

type Written = Result<(), EncodeError>;

trait Sink {
    fn bytes(&mut self, bytes: &[u8]);
}

struct Counter(usize);

impl Sink for Counter {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

impl Sink for BytesMut {
    fn bytes(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// The packet's size on the wire in bytes, with its fixed header.
///
/// # Errors
/// [`EncodeError`] if it has no form on the wire.
pub fn encoded_len(packet: &Packet, version: ProtocolVersion) -> Result<usize, EncodeError> {
    let body = body_len(packet, version)?;
    Ok(1 + variable_len(body) + body)
}

/// Appends the packet to `out`. After an error, `out` is as it was.
///
/// # Errors
/// [`EncodeError`] if it has no form on the wire.
pub fn encode(packet: &Packet, version: ProtocolVersion, out: &mut BytesMut) -> Written {
    let length = body_len(packet, version)?;
    out.reserve(1 + variable_len(length) + length);
    out.put_u8(first_byte(packet));
    variable(out, length)?;
    body(packet, version, out)
}

fn body_len(packet: &Packet, version: ProtocolVersion) -> Result<usize, EncodeError> {
    let mut counter = Counter(0);
    body(packet, version, &mut counter)?;
    if counter.0 > MAX_VARIABLE {
        return Err(EncodeError::PacketTooLong(counter.0));
    }
    Ok(counter.0)
}

fn first_byte(packet: &Packet) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::ConnAck(_) => 0x20,
        Packet::Publish(p) => 0x30 | u8::from(p.dup) << 3 | p.qos.as_u8() << 1 | u8::from(p.retain),
        Packet::PubAck(_) => 0x40,
        Packet::PubRec(_) => 0x50,
        Packet::PubRel(_) => 0x62,
        Packet::PubComp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::SubAck(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2,
        Packet::UnsubAck(_) => 0xB0,
        Packet::PingReq => 0xC0,
        Packet::PingResp => 0xD0,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}

fn body(packet: &Packet, version: ProtocolVersion, out: &mut dyn Sink) -> Written {
    let v5 = version == ProtocolVersion::V5;
    match packet {
        Packet::Connect(p) => connect(p, out),
        Packet::ConnAck(p) => connack(p, v5, out),
        Packet::Publish(p) => publish(p, v5, out),
        Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
            ack(p, v5, out)
        }
        Packet::Subscribe(p) => subscribe(p, v5, out),
        Packet::SubAck(p) => suback(p, v5, out),
        Packet::Unsubscribe(p) => {
            u16_(out, p.packet_id.get());
            if v5 {
                section(out, &|out| user(&p.user_properties, out))?;
            }
            p.filters.iter().try_for_each(|filter| string(out, filter.as_str()))
        }
        Packet::UnsubAck(p) => {
            u16_(out, p.packet_id.get());
            if v5 {
                section(out, &|out| ack_properties(&p.properties, out))?;
                p.reasons.iter().for_each(|reason| u8_(out, reason.as_u8()));
            }
            Ok(())
        }
        Packet::PingReq | Packet::PingResp => Ok(()),
        Packet::Disconnect(p) => disconnect(p, v5, out),
        Packet::Auth(_) if !v5 => Err(EncodeError::NotInVersion("AUTH")),
        Packet::Auth(p) => {
            let empty = p.properties == AuthProperties::default();
            if !(empty && p.reason == ReasonCode::Success) {
                u8_(out, p.reason.as_u8());
                section(out, &|out| auth_properties(&p.properties, out))?;
            }
            Ok(())
        }
    }
}

fn connect(p: &Connect, out: &mut dyn Sink) -> Written {
    let v5 = p.version == ProtocolVersion::V5;
    string(out, "MQTT")?;
    u8_(out, if v5 { 5 } else { 4 });
    let mut flags = u8::from(p.clean_start) << 1;
    if let Some(will) = &p.will {
        flags |= 0x04 | will.qos.as_u8() << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(p.password.is_some()) << 6 | u8::from(p.username.is_some()) << 7;
    u8_(out, flags);
    u16_(out, p.keep_alive_secs);
    if v5 {
        section(out, &|out| connect_properties(&p.properties, out))?;
    }
    string(out, &p.client_id)?;
    if let Some(will) = &p.will {
        will_fields(will, v5, out)?;
    }
    if let Some(username) = &p.username {
        string(out, username)?;
    }
    p.password.as_ref().map_or(Ok(()), |password| binary(out, &password.0))
}

fn will_fields(will: &Will, v5: bool, out: &mut dyn Sink) -> Written {
    if v5 {
        section(out, &|out| {
            if will.delay_interval_secs != 0 {
                u32_property(out, id::WILL_DELAY_INTERVAL, Some(will.delay_interval_secs));
            }
            message_properties(&will.properties, out)
        })?;
    }
    string(out, will.topic.as_str())?;
    binary(out, &will.payload)
}

fn publish(p: &Publish, v5: bool, out: &mut dyn Sink) -> Written {
    string(out, p.topic.as_ref().map_or("", |topic| topic.as_str()))?;
    if let Some(packet_id) = p.packet_id {
        u16_(out, packet_id.get());
    }
    if v5 {
        section(out, &|out| {
            message_properties(&p.properties.message, out)?;
            u16_property(out, id::TOPIC_ALIAS, p.properties.topic_alias.map(|alias| alias.get()));
            for identifier in &p.properties.subscription_identifiers {
                u8_(out, id::SUBSCRIPTION_IDENTIFIER);
                variable(out, usize::try_from(identifier.get()).unwrap_or(usize::MAX))?;
            }
            Ok(())
        })?;
    }
    out.bytes(&p.payload);
    Ok(())
}

fn ack(p: &Ack, v5: bool, out: &mut dyn Sink) -> Written {
    u16_(out, p.packet_id.get());
    let empty = p.properties == AckProperties::default();
    if v5 && !(empty && p.reason == ReasonCode::Success) {
        u8_(out, p.reason.as_u8());
        if !empty {
            section(out, &|out| ack_properties(&p.properties, out))?;
        }
    }
    Ok(())
}

fn connack(p: &ConnAck, v5: bool, out: &mut dyn Sink) -> Written {
    u8_(out, u8::from(p.session_present));
    if v5 {
        u8_(out, p.reason.as_u8());
        return section(out, &|out| connack_properties(&p.properties, out));
    }
    let code =
        ConnectReturnCode::for_reason(p.reason).ok_or(EncodeError::NoReturnCode(p.reason))?;
    u8_(out, code as u8);
    Ok(())
}

fn subscribe(p: &Subscribe, v5: bool, out: &mut dyn Sink) -> Written {
    u16_(out, p.packet_id.get());
    if v5 {
        section(out, &|out| {
            if let Some(identifier) = p.properties.subscription_identifier {
                u8_(out, id::SUBSCRIPTION_IDENTIFIER);
                variable(out, usize::try_from(identifier.get()).unwrap_or(usize::MAX))?;
            }
            user(&p.properties.user_properties, out)
        })?;
    }
    for (filter, options) in &p.filters {
        string(out, filter.as_str())?;
        u8_(out, options_byte(options, v5));
    }
    Ok(())
}

fn suback(p: &SubAck, v5: bool, out: &mut dyn Sink) -> Written {
    u16_(out, p.packet_id.get());
    if v5 {
        section(out, &|out| ack_properties(&p.properties, out))?;
    }
    for reason in &p.reasons {
        let failed_in_311 = !v5 && reason.is_error();
        u8_(out, if failed_in_311 { 0x80 } else { reason.as_u8() });
    }
    Ok(())
}

fn disconnect(p: &Disconnect, v5: bool, out: &mut dyn Sink) -> Written {
    let empty = p.properties == DisconnectProperties::default();
    if v5 && !(empty && p.reason == ReasonCode::Success) {
        u8_(out, p.reason.as_u8());
        if !empty {
            section(out, &|out| disconnect_properties(&p.properties, out))?;
        }
    }
    Ok(())
}

fn options_byte(options: &SubscriptionOptions, v5: bool) -> u8 {
    let qos = options.maximum_qos.as_u8();
    if !v5 {
        return qos;
    }
    qos | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

// Properties, in the order of their identifiers where the specification leaves it open.

fn message_properties(p: &MessageProperties, out: &mut dyn Sink) -> Written {
    flag_property(out, id::PAYLOAD_FORMAT_INDICATOR, p.payload_is_utf8);
    u32_property(out, id::MESSAGE_EXPIRY_INTERVAL, p.message_expiry_interval_secs);
    string_property(out, id::CONTENT_TYPE, p.content_type.as_ref())?;
    if let Some(topic) = &p.response_topic {
        u8_(out, id::RESPONSE_TOPIC);
        string(out, topic.as_str())?;
    }
    binary_property(out, id::CORRELATION_DATA, p.correlation_data.as_deref())?;
    user(&p.user_properties, out)
}

fn connect_properties(p: &ConnectProperties, out: &mut dyn Sink) -> Written {
    u32_property(out, id::SESSION_EXPIRY_INTERVAL, p.session_expiry_interval_secs);
    string_property(out, id::AUTHENTICATION_METHOD, p.authentication_method.as_ref())?;
    binary_property(out, id::AUTHENTICATION_DATA, p.authentication_data.as_deref())?;
    flag_property(out, id::REQUEST_PROBLEM_INFORMATION, p.request_problem_information);
    flag_property(out, id::REQUEST_RESPONSE_INFORMATION, p.request_response_information);
    u16_property(out, id::RECEIVE_MAXIMUM, p.receive_maximum.map(|v| v.get()));
    u16_property(out, id::TOPIC_ALIAS_MAXIMUM, p.topic_alias_maximum);
    u32_property(out, id::MAXIMUM_PACKET_SIZE, p.maximum_packet_size.map(|v| v.get()));
    user(&p.user_properties, out)
}

fn connack_properties(p: &ConnAckProperties, out: &mut dyn Sink) -> Written {
    u32_property(out, id::SESSION_EXPIRY_INTERVAL, p.session_expiry_interval_secs);
    string_property(out, id::ASSIGNED_CLIENT_IDENTIFIER, p.assigned_client_identifier.as_ref())?;
    u16_property(out, id::SERVER_KEEP_ALIVE, p.server_keep_alive_secs);
    string_property(out, id::AUTHENTICATION_METHOD, p.authentication_method.as_ref())?;
    binary_property(out, id::AUTHENTICATION_DATA, p.authentication_data.as_deref())?;
    string_property(out, id::RESPONSE_INFORMATION, p.response_information.as_ref())?;
    string_property(out, id::SERVER_REFERENCE, p.server_reference.as_ref())?;
    string_property(out, id::REASON_STRING, p.reason_string.as_ref())?;
    u16_property(out, id::RECEIVE_MAXIMUM, p.receive_maximum.map(|v| v.get()));
    u16_property(out, id::TOPIC_ALIAS_MAXIMUM, p.topic_alias_maximum);
    if let Some(qos) = p.maximum_qos {
        out.bytes(&[id::MAXIMUM_QOS, qos.as_u8()]);
    }
    flag_property(out, id::RETAIN_AVAILABLE, p.retain_available);
    u32_property(out, id::MAXIMUM_PACKET_SIZE, p.maximum_packet_size.map(|v| v.get()));
    flag_property(out, id::WILDCARD_SUBSCRIPTION_AVAILABLE, p.wildcard_subscription_available);
    flag_property(out, id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, p.subscription_identifiers_available);
    flag_property(out, id::SHARED_SUBSCRIPTION_AVAILABLE, p.shared_subscription_available);
    user(&p.user_properties, out)
}

fn ack_properties(p: &AckProperties, out: &mut dyn Sink) -> Written {
    string_property(out, id::REASON_STRING, p.reason_string.as_ref())?;
    user(&p.user_properties, out)
}

fn disconnect_properties(p: &DisconnectProperties, out: &mut dyn Sink) -> Written {
    u32_property(out, id::SESSION_EXPIRY_INTERVAL, p.session_expiry_interval_secs);
    string_property(out, id::SERVER_REFERENCE, p.server_reference.as_ref())?;
    string_property(out, id::REASON_STRING, p.reason_string.as_ref())?;
    user(&p.user_properties, out)
}

fn auth_properties(p: &AuthProperties, out: &mut dyn Sink) -> Written {
    string_property(out, id::AUTHENTICATION_METHOD, p.authentication_method.as_ref())?;
    binary_property(out, id::AUTHENTICATION_DATA, p.authentication_data.as_deref())?;
    string_property(out, id::REASON_STRING, p.reason_string.as_ref())?;
    user(&p.user_properties, out)
}

/// What `write` writes, with its length in front.
fn section(out: &mut dyn Sink, write: &dyn Fn(&mut dyn Sink) -> Written) -> Written {
    let mut counter = Counter(0);
    write(&mut counter)?;
    variable(out, counter.0)?;
    write(out)
}

fn u8_(out: &mut dyn Sink, value: u8) {
    out.bytes(&[value]);
}

fn u16_(out: &mut dyn Sink, value: u16) {
    out.bytes(&value.to_be_bytes());
}

fn variable_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

fn variable(out: &mut dyn Sink, value: usize) -> Written {
    if value > MAX_VARIABLE {
        return Err(EncodeError::PacketTooLong(value));
    }
    let mut rest = value;
    loop {
        let low = u8::try_from(rest & 0x7F).unwrap_or(0x7F);
        rest >>= 7;
        if rest == 0 {
            u8_(out, low);
            return Ok(());
        }
        u8_(out, low | 0x80);
    }
}

fn binary(out: &mut dyn Sink, bytes: &[u8]) -> Written {
    let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong(bytes.len()))?;
    u16_(out, length);
    out.bytes(bytes);
    Ok(())
}

fn string(out: &mut dyn Sink, text: &str) -> Written {
    binary(out, text.as_bytes())
}

fn flag_property(out: &mut dyn Sink, identifier: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.bytes(&[identifier, u8::from(value)]);
    }
}

fn u16_property(out: &mut dyn Sink, identifier: u8, value: Option<u16>) {
    if let Some(value) = value {
        u8_(out, identifier);
        u16_(out, value);
    }
}

fn u32_property(out: &mut dyn Sink, identifier: u8, value: Option<u32>) {
    if let Some(value) = value {
        u8_(out, identifier);
        out.bytes(&value.to_be_bytes());
    }
}

fn string_property(out: &mut dyn Sink, identifier: u8, value: Option<&Arc<str>>) -> Written {
    binary_property(out, identifier, value.map(|text| text.as_bytes()))
}

fn binary_property(out: &mut dyn Sink, identifier: u8, value: Option<&[u8]>) -> Written {
    let Some(value) = value else { return Ok(()) };
    u8_(out, identifier);
    binary(out, value)
}

fn user(properties: &UserProperties, out: &mut dyn Sink) -> Written {
    for (name, value) in properties {
        u8_(out, id::USER_PROPERTY);
        string(out, name)?;
        string(out, value)?;
    }
    Ok(())
}
