//! [`StateChange`] as rows of one ordered table of bytes.
//!
//! ```text
//! key    's' client 0x00                          session itself
//!        's' client 0x01 filter                   subscription
//!        's' client 0x02 packet_id(2)             received QoS 2 packet id
//!        's' client 0x03 number(8)                outgoing message
//!        'r' topic                                retained message
//!        'm' name                                 driver's mark
//! client = length(2) bytes; numbers are big-endian
//! ```
//!
//! So a session's rows stand together, its own row first, its outgoing messages in order. Values start with a version
//! byte; messages in them are MQTT 5.0 PUBLISH packets, which carry everything that a message has.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::api::{ClientId, Millis, SessionId};
use super::changes::{Message, Outgoing, OutgoingPhase, SessionState, StateChange, Subscription};
use crate::mqtt::codec::{decode, encode};
use crate::mqtt::packet::{
    Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, RetainHandling,
    SubscriptionOptions, TopicFilter, TopicName, Will,
};

/// What to do with the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Create or replace a row.
    Put {
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Remove a row, if it is there.
    Delete {
        /// Its key.
        key: Bytes,
    },
    /// Remove all rows whose key starts so.
    DeletePrefix {
        /// How they start.
        prefix: Bytes,
    },
}

/// A row that this version did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of MQTT state is damaged, or from another version: {0}")]
pub struct InvalidRow(&'static str);

const VALUE_VERSION: u8 = 1;
const SESSION: u8 = 0;
const SUBSCRIPTION: u8 = 1;
const RECEIVED: u8 = 2;
const OUTGOING: u8 = 3;

impl StateChange {
    /// The row that this change puts or removes.
    #[must_use]
    pub fn to_row(&self) -> Row {
        let put =
            |key: BytesMut, value: BytesMut| Row::Put { key: key.freeze(), value: value.freeze() };
        let delete = |key: BytesMut| Row::Delete { key: key.freeze() };
        match self {
            Self::RemoveSession(client) => {
                Row::DeletePrefix { prefix: client_key(client).freeze() }
            }
            Self::PutSession(client, state) => put(session_key(client), session_value(state)),
            Self::PutSubscription(client, subscription) => put(
                subscription_key(client, &subscription.filter),
                subscription_value(subscription),
            ),
            Self::RemoveSubscription(client, filter) => delete(subscription_key(client, filter)),
            Self::PutReceived(client, id) => put(received_key(client, *id), value()),
            Self::RemoveReceived(client, id) => delete(received_key(client, *id)),
            Self::PutOutgoing(client, number, outgoing) => {
                put(outgoing_key(client, *number), outgoing_value(outgoing))
            }
            Self::RemoveOutgoing(client, number) => delete(outgoing_key(client, *number)),
            Self::PutRetained(message) => {
                let mut to = value();
                put_message(&mut to, message, true);
                put(text_key(b'r', message.topic.as_str()), to)
            }
            Self::RemoveRetained(topic) => delete(text_key(b'r', topic.as_str())),
            Self::PutMark(name, mark) => {
                let mut to = value();
                to.put_slice(mark);
                put(text_key(b'm', name), to)
            }
        }
    }

    /// The change that put a row.
    ///
    /// # Errors
    /// [`InvalidRow`] if none of this version did.
    pub fn from_row(key: &[u8], value: &[u8]) -> Result<Self, InvalidRow> {
        let mut value = Fields(Bytes::copy_from_slice(value));
        if value.u8()? != VALUE_VERSION {
            return Err(InvalidRow("the value's version"));
        }
        let mut key = Fields(Bytes::copy_from_slice(key));
        match key.u8()? {
            b's' => from_session_row(&mut key, &mut value),
            b'r' => {
                let message = value.message()?;
                Ok(Self::PutRetained(message))
            }
            b'm' => Ok(Self::PutMark(key.rest_text()?.into(), value.0)),
            _ => Err(InvalidRow("the key's first byte")),
        }
    }
}

fn from_session_row(key: &mut Fields, value: &mut Fields) -> Result<StateChange, InvalidRow> {
    let length = usize::from(key.u16()?);
    let client = ClientId(key.text(length)?.into());
    match key.u8()? {
        SESSION => Ok(StateChange::PutSession(client, value.session()?)),
        SUBSCRIPTION => {
            let filter = TopicFilter::new(key.rest_text()?.as_str())
                .map_err(|_| InvalidRow("a topic filter"))?;
            let options = value.options()?;
            let identifier = NonZeroU32::new(value.u32()?);
            let subscription = Subscription { filter, options, identifier };
            Ok(StateChange::PutSubscription(client, subscription))
        }
        RECEIVED => Ok(StateChange::PutReceived(client, key.packet_id()?)),
        OUTGOING => Ok(StateChange::PutOutgoing(client, key.u64()?, value.outgoing()?)),
        _ => Err(InvalidRow("the key's kind")),
    }
}

// Keys.

fn client_key(client: &ClientId) -> BytesMut {
    let text = client.as_str().as_bytes();
    let mut key = BytesMut::with_capacity(3 + text.len());
    key.put_u8(b's');
    // A client id that came in a packet is no longer than 65,535 bytes, and the server takes far shorter ones only.
    key.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    key.put_slice(text);
    key
}

fn session_key(client: &ClientId) -> BytesMut {
    let mut key = client_key(client);
    key.put_u8(SESSION);
    key
}

fn subscription_key(client: &ClientId, filter: &TopicFilter) -> BytesMut {
    let mut key = client_key(client);
    key.put_u8(SUBSCRIPTION);
    key.put_slice(filter.as_str().as_bytes());
    key
}

fn received_key(client: &ClientId, id: PacketId) -> BytesMut {
    let mut key = client_key(client);
    key.put_u8(RECEIVED);
    key.put_u16(id.get());
    key
}

fn outgoing_key(client: &ClientId, number: u64) -> BytesMut {
    let mut key = client_key(client);
    key.put_u8(OUTGOING);
    key.put_u64(number);
    key
}

fn text_key(kind: u8, text: &str) -> BytesMut {
    let mut key = BytesMut::with_capacity(1 + text.len());
    key.put_u8(kind);
    key.put_slice(text.as_bytes());
    key
}

// Values.

fn value() -> BytesMut {
    let mut to = BytesMut::new();
    to.put_u8(VALUE_VERSION);
    to
}

fn put_time(to: &mut BytesMut, at: Option<Millis>) {
    match at {
        Some(at) => {
            to.put_u8(1);
            to.put_u64(at.0);
        }
        None => to.put_u8(0),
    }
}

fn session_value(state: &SessionState) -> BytesMut {
    let mut to = value();
    to.put_u64(state.id.0);
    to.put_u8(match state.version {
        ProtocolVersion::V311 => 4,
        ProtocolVersion::V5 => 5,
    });
    to.put_u32(state.expiry_interval_secs);
    put_time(&mut to, state.expires_at);
    put_time(&mut to, state.will_at);
    match &state.will {
        Some(will) => {
            to.put_u8(1);
            to.put_u32(will.delay_interval_secs);
            let message = Message {
                topic: will.topic.clone(),
                payload: will.payload.clone(),
                qos: will.qos,
                properties: will.properties.clone(),
                expires_at: None,
            };
            put_message(&mut to, &message, will.retain);
        }
        None => to.put_u8(0),
    }
    to
}

fn options_byte(options: &SubscriptionOptions) -> u8 {
    options.maximum_qos.as_u8()
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

fn subscription_value(subscription: &Subscription) -> BytesMut {
    let mut to = value();
    to.put_u8(options_byte(&subscription.options));
    to.put_u32(subscription.identifier.map_or(0, NonZeroU32::get));
    to
}

fn outgoing_value(outgoing: &Outgoing) -> BytesMut {
    let mut to = value();
    let (phase, id) = match outgoing.phase {
        OutgoingPhase::Queued => (0, 0),
        OutgoingPhase::Published(id) => (1, id.get()),
        OutgoingPhase::Released(id) => (2, id.get()),
    };
    to.put_u8(phase);
    to.put_u16(id);
    to.put_u8(outgoing.qos.as_u8());
    let count = u16::try_from(outgoing.subscription_identifiers.len()).unwrap_or(u16::MAX);
    to.put_u16(count);
    for identifier in outgoing.subscription_identifiers.iter().take(usize::from(count)) {
        to.put_u32(identifier.get());
    }
    let shared = outgoing.shared.as_ref().map_or("", |filter| filter.as_str());
    to.put_u16(u16::try_from(shared.len()).unwrap_or(0));
    to.put_slice(shared.as_bytes());
    put_message(&mut to, &outgoing.message, outgoing.retain);
    to
}

/// Expiry time, then the message as a PUBLISH with the publisher's QoS.
fn put_message(to: &mut BytesMut, message: &Message, retain: bool) {
    put_time(to, message.expires_at);
    let publish = Publish {
        dup: false,
        qos: message.qos,
        retain,
        topic: Some(message.topic.clone()),
        packet_id: if message.qos == QoS::AtMostOnce { None } else { PacketId::new(1) },
        properties: PublishProperties {
            message: message.properties.clone(),
            ..PublishProperties::default()
        },
        payload: message.payload.clone(),
    };
    // It cannot fail: every field came from a packet. If it did, nothing is written, and reading says so.
    let _ = encode(&Packet::Publish(Box::new(publish)), ProtocolVersion::V5, to);
}

/// Reads a row field by field, never past its end.
struct Fields(Bytes);

impl Fields {
    fn need(&self, bytes: usize) -> Result<(), InvalidRow> {
        if self.0.len() < bytes { Err(InvalidRow("it ends within a field")) } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8, InvalidRow> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u16(&mut self) -> Result<u16, InvalidRow> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    fn u32(&mut self) -> Result<u32, InvalidRow> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    fn u64(&mut self) -> Result<u64, InvalidRow> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    fn text(&mut self, length: usize) -> Result<String, InvalidRow> {
        self.need(length)?;
        let bytes = self.0.split_to(length);
        String::from_utf8(bytes.to_vec()).map_err(|_| InvalidRow("a text is not UTF-8"))
    }

    fn rest_text(&mut self) -> Result<String, InvalidRow> {
        self.text(self.0.len())
    }

    fn packet_id(&mut self) -> Result<PacketId, InvalidRow> {
        PacketId::new(self.u16()?).ok_or(InvalidRow("a packet id is 0"))
    }

    fn time(&mut self) -> Result<Option<Millis>, InvalidRow> {
        match self.u8()? {
            0 => Ok(None),
            _ => Ok(Some(Millis(self.u64()?))),
        }
    }

    fn qos(value: u8) -> Result<QoS, InvalidRow> {
        QoS::from_u8(value).ok_or(InvalidRow("a QoS is 3"))
    }

    fn options(&mut self) -> Result<SubscriptionOptions, InvalidRow> {
        let bits = self.u8()?;
        Ok(SubscriptionOptions {
            maximum_qos: Self::qos(bits & 0x03)?,
            no_local: bits & 0x04 != 0,
            retain_as_published: bits & 0x08 != 0,
            retain_handling: match bits >> 4 {
                0 => RetainHandling::SendAlways,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(InvalidRow("retain handling")),
            },
        })
    }

    /// A message and its retain flag.
    fn publish(&mut self) -> Result<(Message, bool), InvalidRow> {
        let expires_at = self.time()?;
        let mut bytes = BytesMut::from(self.0.as_ref());
        let Ok(Some(Packet::Publish(publish))) =
            decode(&mut bytes, Some(ProtocolVersion::V5), usize::MAX)
        else {
            return Err(InvalidRow("a message"));
        };
        let topic: TopicName = publish.topic.ok_or(InvalidRow("a message without topic"))?;
        let message = Message {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            properties: publish.properties.message,
            expires_at,
        };
        Ok((message, publish.retain))
    }

    fn message(&mut self) -> Result<Message, InvalidRow> {
        self.publish().map(|(message, _)| message)
    }

    fn session(&mut self) -> Result<SessionState, InvalidRow> {
        let id = SessionId(self.u64()?);
        let version = match self.u8()? {
            4 => ProtocolVersion::V311,
            5 => ProtocolVersion::V5,
            _ => return Err(InvalidRow("the protocol version")),
        };
        let expiry_interval_secs = self.u32()?;
        let expires_at = self.time()?;
        let will_at = self.time()?;
        let will = if self.u8()? == 0 {
            None
        } else {
            let delay_interval_secs = self.u32()?;
            let (message, retain) = self.publish()?;
            Some(Will {
                topic: message.topic,
                payload: message.payload,
                qos: message.qos,
                retain,
                delay_interval_secs,
                properties: message.properties,
            })
        };
        Ok(SessionState { id, version, expiry_interval_secs, expires_at, will, will_at })
    }

    fn outgoing(&mut self) -> Result<Outgoing, InvalidRow> {
        let phase = match (self.u8()?, PacketId::new(self.u16()?)) {
            (0, _) => OutgoingPhase::Queued,
            (1, Some(id)) => OutgoingPhase::Published(id),
            (2, Some(id)) => OutgoingPhase::Released(id),
            _ => return Err(InvalidRow("the phase of an outgoing message")),
        };
        let qos = Self::qos(self.u8()?)?;
        let count = self.u16()?;
        let mut subscription_identifiers = Vec::new();
        for _ in 0..count {
            subscription_identifiers.extend(NonZeroU32::new(self.u32()?));
        }
        let length = usize::from(self.u16()?);
        let shared = match self.text(length)?.as_str() {
            "" => None,
            filter => Some(TopicFilter::new(filter).map_err(|_| InvalidRow("a topic filter"))?),
        };
        let (message, retain) = self.publish()?;
        let message = Arc::new(message);
        Ok(Outgoing { message, qos, retain, subscription_identifiers, shared, phase })
    }
}

#[cfg(test)]
mod tests;
