//! Bytes to packets.

use bytes::{Buf, Bytes, BytesMut};

use super::DecodeError;
use super::properties;
use super::reader::{Reader, variable_byte_integer};
use super::reasons::{
    AUTH_REASONS, CONNACK_REASONS, DISCONNECT_REASONS, PUBLISH_REASONS, RELEASE_REASONS, Reasons,
    SUBACK_REASONS, UNSUBACK_REASONS,
};
use crate::mqtt::packet::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, ConnectReturnCode, Disconnect, DisconnectProperties, MessageProperties,
    Packet, Password, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter, UnsubAck,
    Unsubscribe, Will,
};

/// Control packet types (section 2.1.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl Kind {
    /// Type, flags (section 2.1.3) and name of a first byte.
    fn parse(first: u8) -> Result<(Self, u8, &'static str), DecodeError> {
        let flags = first & 0x0F;
        let (kind, name, expected) = match first >> 4 {
            1 => (Self::Connect, "CONNECT", 0),
            2 => (Self::ConnAck, "CONNACK", 0),
            3 => (Self::Publish, "PUBLISH", flags),
            4 => (Self::PubAck, "PUBACK", 0),
            5 => (Self::PubRec, "PUBREC", 0),
            6 => (Self::PubRel, "PUBREL", 2),
            7 => (Self::PubComp, "PUBCOMP", 0),
            8 => (Self::Subscribe, "SUBSCRIBE", 2),
            9 => (Self::SubAck, "SUBACK", 0),
            10 => (Self::Unsubscribe, "UNSUBSCRIBE", 2),
            11 => (Self::UnsubAck, "UNSUBACK", 0),
            12 => (Self::PingReq, "PINGREQ", 0),
            13 => (Self::PingResp, "PINGRESP", 0),
            14 => (Self::Disconnect, "DISCONNECT", 0),
            15 => (Self::Auth, "AUTH", 0),
            _ => {
                let rule = "control packet type 0 is reserved";
                return Err(DecodeError::Malformed { packet: "packet", rule });
            }
        };
        if flags != expected {
            let rule = "reserved flags of the fixed header are wrong [MQTT-2.1.3-1]";
            return Err(DecodeError::Malformed { packet: name, rule });
        }
        Ok((kind, flags, name))
    }
}

/// Takes the next packet off the front of `buffer`; `None` if it is not yet there as a whole.
///
/// `version` is that of the connection, or `None` before its CONNECT: then nothing else is taken [MQTT-3.1.0-1].
/// Nothing is allocated for a packet before all of it is there, and one that will be larger than `max_packet_bytes`
/// (fixed header included) is refused at once.
///
/// # Errors
/// [`DecodeError`]; the connection cannot be read any further.
pub fn decode(
    buffer: &mut BytesMut,
    version: Option<ProtocolVersion>,
    max_packet_bytes: usize,
) -> Result<Option<Packet>, DecodeError> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let (kind, flags, name) = Kind::parse(first)?;
    if version.is_none() && kind != Kind::Connect {
        let rule = "the first packet must be CONNECT [MQTT-3.1.0-1]";
        return Err(DecodeError::Protocol { packet: name, rule });
    }
    let length = variable_byte_integer(buffer.get(1..).unwrap_or_default())
        .map_err(|rule| DecodeError::Malformed { packet: name, rule })?;
    let Some((remaining, length_bytes)) = length else { return Ok(None) };
    let header = 1 + length_bytes;
    let bytes = header.saturating_add(usize::try_from(remaining).unwrap_or(usize::MAX));
    if bytes > max_packet_bytes {
        return Err(DecodeError::TooLarge { bytes, limit: max_packet_bytes });
    }
    if buffer.len() < bytes {
        return Ok(None);
    }
    let mut body = buffer.split_to(bytes).freeze();
    body.advance(header);
    packet(kind, flags, name, body, version.unwrap_or(ProtocolVersion::V5)).map(Some)
}

fn packet(
    kind: Kind,
    flags: u8,
    name: &'static str,
    body: Bytes,
    version: ProtocolVersion,
) -> Result<Packet, DecodeError> {
    let mut reader = Reader::new(body, name);
    let r = &mut reader;
    let packet = match kind {
        Kind::Connect => Packet::Connect(Box::new(connect(r)?)),
        Kind::ConnAck => Packet::ConnAck(Box::new(connack(r, version)?)),
        Kind::Publish => Packet::Publish(Box::new(publish(r, flags, version)?)),
        Kind::PubAck => Packet::PubAck(ack(r, version, PUBLISH_REASONS)?),
        Kind::PubRec => Packet::PubRec(ack(r, version, PUBLISH_REASONS)?),
        Kind::PubRel => Packet::PubRel(ack(r, version, RELEASE_REASONS)?),
        Kind::PubComp => Packet::PubComp(ack(r, version, RELEASE_REASONS)?),
        Kind::Subscribe => Packet::Subscribe(subscribe(r, version)?),
        Kind::SubAck => Packet::SubAck(suback(r, version)?),
        Kind::Unsubscribe => Packet::Unsubscribe(unsubscribe(r, version)?),
        Kind::UnsubAck => Packet::UnsubAck(unsuback(r, version)?),
        Kind::PingReq => Packet::PingReq,
        Kind::PingResp => Packet::PingResp,
        Kind::Disconnect => Packet::Disconnect(disconnect(r, version)?),
        Kind::Auth => Packet::Auth(auth(r, version)?),
    };
    reader.finish()?;
    Ok(packet)
}

fn connect(r: &mut Reader) -> Result<Connect, DecodeError> {
    let version = protocol(r)?;
    let connect = connect_after_version(r, version).and_then(|connect| {
        r.finish()?;
        Ok(connect)
    });
    match version {
        ProtocolVersion::V311 => connect,
        ProtocolVersion::V5 => connect.map_err(|error| DecodeError::ConnectV5 {
            reason: error.reason(),
            rule: match error {
                DecodeError::Malformed { rule, .. } | DecodeError::Protocol { rule, .. } => rule,
                DecodeError::Topic { .. } => "a topic is not valid [MQTT-4.7.3-1]",
                DecodeError::ConnectV5 { rule, .. } => rule,
                DecodeError::TooLarge { .. } | DecodeError::UnsupportedVersion { .. } => "",
            },
        }),
    }
}

fn connect_after_version(r: &mut Reader, version: ProtocolVersion) -> Result<Connect, DecodeError> {
    let flags = ConnectFlags::parse(r, version)?;
    let keep_alive_secs = r.u16()?;
    let properties = match version {
        ProtocolVersion::V5 => properties::connect(r)?,
        ProtocolVersion::V311 => ConnectProperties::default(),
    };
    let client_id = r.string()?;
    let will = match flags.will {
        Some((qos, retain)) => Some(will(r, version, qos, retain)?),
        None => None,
    };
    let username = if flags.username { Some(r.string()?) } else { None };
    let password = if flags.password { Some(Password(r.binary()?)) } else { None };
    Ok(Connect {
        version,
        clean_start: flags.clean_start,
        keep_alive_secs,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// Protocol name and level [MQTT-3.1.2-1], [MQTT-3.1.2-2].
fn protocol(r: &mut Reader) -> Result<ProtocolVersion, DecodeError> {
    let name = r.string()?;
    if &*name != "MQTT" && &*name != "MQIsdp" {
        return Err(r.malformed("the protocol name is not MQTT [MQTT-3.1.2-1]"));
    }
    match (&*name, r.u8()?) {
        ("MQTT", 4) => Ok(ProtocolVersion::V311),
        ("MQTT", 5) => Ok(ProtocolVersion::V5),
        (_, level) => {
            let answer_in = if level < 5 { ProtocolVersion::V311 } else { ProtocolVersion::V5 };
            Err(DecodeError::UnsupportedVersion { level, answer_in })
        }
    }
}

struct ConnectFlags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    fn parse(r: &mut Reader, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = r.u8()?;
        if flags & 0x01 != 0 {
            return Err(r.malformed("the reserved connect flag is set [MQTT-3.1.2-3]"));
        }
        let (will_qos, will_retain) = ((flags >> 3) & 0x03, flags & 0x20 != 0);
        let will = if flags & 0x04 != 0 {
            let qos = QoS::from_u8(will_qos)
                .ok_or_else(|| r.malformed("Will QoS is 3 [MQTT-3.1.2-12]"))?;
            Some((qos, will_retain))
        } else {
            if will_qos != 0 {
                return Err(r.malformed("Will QoS without a will [MQTT-3.1.2-11]"));
            }
            if will_retain {
                return Err(r.malformed("Will Retain without a will [MQTT-3.1.2-13]"));
            }
            None
        };
        let (username, password) = (flags & 0x80 != 0, flags & 0x40 != 0);
        if version == ProtocolVersion::V311 && password && !username {
            return Err(r.malformed("a password without a user name [MQTT-3.1.2-22 of 3.1.1]"));
        }
        Ok(Self { clean_start: flags & 0x02 != 0, will, username, password })
    }
}

fn will(
    r: &mut Reader,
    version: ProtocolVersion,
    qos: QoS,
    retain: bool,
) -> Result<Will, DecodeError> {
    let (delay_interval_secs, properties) = match version {
        ProtocolVersion::V5 => properties::will(r)?,
        ProtocolVersion::V311 => (0, MessageProperties::default()),
    };
    let topic = r.topic_name()?;
    let payload = r.binary()?;
    Ok(Will { topic, payload, qos, retain, delay_interval_secs, properties })
}

fn connack(r: &mut Reader, version: ProtocolVersion) -> Result<ConnAck, DecodeError> {
    let flags = r.u8()?;
    if flags & 0xFE != 0 {
        return Err(r.malformed("a reserved acknowledge flag is set [MQTT-3.2.2-1]"));
    }
    let (reason, properties) = match version {
        ProtocolVersion::V5 => (reason(r, CONNACK_REASONS)?, properties::connack(r)?),
        ProtocolVersion::V311 => {
            let code = ConnectReturnCode::from_u8(r.u8()?)
                .ok_or_else(|| r.malformed("an unknown return code"))?;
            (code.reason(), ConnAckProperties::default())
        }
    };
    let session_present = flags == 1;
    if session_present && reason != ReasonCode::Success {
        return Err(r.protocol("Session Present in a refusal [MQTT-3.2.2-6]"));
    }
    Ok(ConnAck { session_present, reason, properties })
}

fn publish(r: &mut Reader, flags: u8, version: ProtocolVersion) -> Result<Publish, DecodeError> {
    let (dup, retain) = (flags & 0x08 != 0, flags & 0x01 != 0);
    let qos =
        QoS::from_u8((flags >> 1) & 0x03).ok_or_else(|| r.malformed("QoS is 3 [MQTT-3.3.1-4]"))?;
    if dup && qos == QoS::AtMostOnce {
        return Err(r.malformed("DUP with QoS 0 [MQTT-3.3.1-2]"));
    }
    let topic = match version {
        ProtocolVersion::V5 => r.topic_name_or_empty()?,
        ProtocolVersion::V311 => Some(r.topic_name()?),
    };
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
    let properties = match version {
        ProtocolVersion::V5 => properties::publish(r)?,
        ProtocolVersion::V311 => PublishProperties::default(),
    };
    if topic.is_none() && properties.topic_alias.is_none() {
        return Err(r.protocol("neither Topic Name nor Topic Alias"));
    }
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: r.rest() })
}

fn reason(r: &mut Reader, allowed: Reasons) -> Result<ReasonCode, DecodeError> {
    let reason =
        ReasonCode::from_u8(r.u8()?).ok_or_else(|| r.malformed("an unknown reason code"))?;
    if allowed(reason) {
        Ok(reason)
    } else {
        Err(r.protocol("a reason code that this packet does not have"))
    }
}

fn ack(r: &mut Reader, version: ProtocolVersion, allowed: Reasons) -> Result<Ack, DecodeError> {
    let mut ack = Ack::new(r.packet_id()?, ReasonCode::Success);
    if version == ProtocolVersion::V5 && !r.is_empty() {
        ack.reason = reason(r, allowed)?;
        if !r.is_empty() {
            ack.properties = properties::ack(r)?;
        }
    }
    Ok(ack)
}

fn subscribe(r: &mut Reader, version: ProtocolVersion) -> Result<Subscribe, DecodeError> {
    let packet_id = r.packet_id()?;
    let properties = match version {
        ProtocolVersion::V5 => properties::subscribe(r)?,
        ProtocolVersion::V311 => SubscribeProperties::default(),
    };
    let mut filters = Vec::new();
    while !r.is_empty() {
        let filter = r.topic_filter()?;
        let options = subscription_options(r, version, &filter)?;
        filters.push((filter, options));
    }
    if filters.is_empty() {
        return Err(r.protocol("no topic filter [MQTT-3.8.3-2]"));
    }
    Ok(Subscribe { packet_id, properties, filters })
}

fn subscription_options(
    r: &mut Reader,
    version: ProtocolVersion,
    filter: &TopicFilter,
) -> Result<SubscriptionOptions, DecodeError> {
    let bits = r.u8()?;
    let reserved = match version {
        ProtocolVersion::V5 => 0xC0,
        ProtocolVersion::V311 => 0xFC,
    };
    if bits & reserved != 0 {
        return Err(r.malformed("reserved subscription options are set [MQTT-3.8.3-5]"));
    }
    let maximum_qos = QoS::from_u8(bits & 0x03).ok_or_else(|| r.protocol("Maximum QoS is 3"))?;
    let retain_handling = match (bits >> 4) & 0x03 {
        0 => RetainHandling::SendAlways,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(r.protocol("Retain Handling is 3")),
    };
    let no_local = bits & 0x04 != 0;
    if no_local && filter.shared().is_some() {
        return Err(r.protocol("No Local on a shared subscription [MQTT-3.8.3-4]"));
    }
    Ok(SubscriptionOptions {
        maximum_qos,
        no_local,
        retain_as_published: bits & 0x08 != 0,
        retain_handling,
    })
}

fn reasons(r: &mut Reader, allowed: Reasons) -> Result<Vec<ReasonCode>, DecodeError> {
    let mut reasons = Vec::new();
    while !r.is_empty() {
        reasons.push(reason(r, allowed)?);
    }
    if reasons.is_empty() {
        return Err(r.protocol("no reason code"));
    }
    Ok(reasons)
}

fn suback(r: &mut Reader, version: ProtocolVersion) -> Result<SubAck, DecodeError> {
    let packet_id = r.packet_id()?;
    match version {
        ProtocolVersion::V5 => {
            let properties = properties::ack(r)?;
            Ok(SubAck { packet_id, properties, reasons: reasons(r, SUBACK_REASONS)? })
        }
        ProtocolVersion::V311 => {
            // [MQTT-3.9.3-2 of 3.1.1]: 0x00, 0x01, 0x02 and 0x80 only.
            let allowed: Reasons = |reason| {
                reason <= ReasonCode::GrantedQos2 || reason == ReasonCode::UnspecifiedError
            };
            let properties = AckProperties::default();
            Ok(SubAck { packet_id, properties, reasons: reasons(r, allowed)? })
        }
    }
}

fn unsubscribe(r: &mut Reader, version: ProtocolVersion) -> Result<Unsubscribe, DecodeError> {
    let packet_id = r.packet_id()?;
    let user_properties = match version {
        ProtocolVersion::V5 => properties::unsubscribe(r)?,
        ProtocolVersion::V311 => Vec::new(),
    };
    let mut filters = Vec::new();
    while !r.is_empty() {
        filters.push(r.topic_filter()?);
    }
    if filters.is_empty() {
        return Err(r.protocol("no topic filter [MQTT-3.10.3-2]"));
    }
    Ok(Unsubscribe { packet_id, user_properties, filters })
}

fn unsuback(r: &mut Reader, version: ProtocolVersion) -> Result<UnsubAck, DecodeError> {
    let packet_id = r.packet_id()?;
    match version {
        ProtocolVersion::V5 => {
            let properties = properties::ack(r)?;
            Ok(UnsubAck { packet_id, properties, reasons: reasons(r, UNSUBACK_REASONS)? })
        }
        ProtocolVersion::V311 => {
            Ok(UnsubAck { packet_id, properties: AckProperties::default(), reasons: Vec::new() })
        }
    }
}

fn disconnect(r: &mut Reader, version: ProtocolVersion) -> Result<Disconnect, DecodeError> {
    let mut packet =
        Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
    if version == ProtocolVersion::V5 && !r.is_empty() {
        packet.reason = reason(r, DISCONNECT_REASONS)?;
        if !r.is_empty() {
            packet.properties = properties::disconnect(r)?;
        }
    }
    Ok(packet)
}

fn auth(r: &mut Reader, version: ProtocolVersion) -> Result<Auth, DecodeError> {
    if version == ProtocolVersion::V311 {
        return Err(r.malformed("control packet type 15 is reserved in 3.1.1"));
    }
    let mut packet = Auth { reason: ReasonCode::Success, properties: AuthProperties::default() };
    if !r.is_empty() {
        packet.reason = reason(r, AUTH_REASONS)?;
        packet.properties = properties::auth(r)?;
    }
    Ok(packet)
}
