//! One record of an edge's queue: what a device published, as the queue stores it and the uplink sends it.
//!
//! The queue writes exactly these bytes into its segments, and the uplink copies them into batches without looking inside.
//! Version 1, integers big-endian, `text` and `bytes` after a `u16` length; a part in brackets is there if its flag is:
//!
//! ```text
//! version(1) flags(2) [expiry_seconds(4)]
//! mqtt topic(text) client id(text) [kafka topic(text)] [key(bytes)] [content type(text)] [response topic(text)]
//! [correlation data(bytes)] [count(2), then name(text) value(text) each] payload(the rest)
//!
//! flags: 0-1 qos, 2 retain, 3 payload is utf-8, 4 expiry, 5 kafka topic, 6 key, 7 no key, 8 content type,
//!        9 response topic, 10 correlation data, 11 user properties
//! ```
//!
//! When the gateway took it is not in here: the queue keeps a stamp beside each record and the batch carries the wall time
//! that it stands for, which may become known only after the record was written.

use super::wire::Reader;
use super::{DecodeError, EncodeError};
use crate::ids::KafkaTopic;
use crate::limits::SYNC_USER_PROPERTIES;

const VERSION: u8 = 1;

const RETAIN: u16 = 1 << 2;
const PAYLOAD_UTF8: u16 = 1 << 3;
const EXPIRY: u16 = 1 << 4;
const KAFKA_TOPIC: u16 = 1 << 5;
const KEY_BYTES: u16 = 1 << 6;
const KEY_NONE: u16 = 1 << 7;
const CONTENT_TYPE: u16 = 1 << 8;
const RESPONSE_TOPIC: u16 = 1 << 9;
const CORRELATION_DATA: u16 = 1 << 10;
const USER_PROPERTIES: u16 = 1 << 11;
const KNOWN_FLAGS: u16 = (1 << 12) - 1;

/// The Kafka key of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKey<'a> {
    /// The MQTT client id (the default).
    ClientId,
    /// What a route made of it.
    Bytes(&'a [u8]),
    /// No key: the record may go to any partition.
    None,
}

/// One record, borrowing its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeRecord<'a> {
    /// The MQTT topic as published.
    pub mqtt_topic: &'a str,
    /// The client that published.
    pub client_id: &'a str,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The RETAIN flag of the publish.
    pub retain: bool,
    /// MQTT 5 payload format indicator: the payload is UTF-8 text.
    pub payload_utf8: bool,
    /// Seconds after the gateway took it at which it loses its worth (MQTT message expiry, or a route's time to live).
    pub expiry_seconds: Option<u32>,
    /// The Kafka topic that a route chose; `None` for the mapping of `mqtt_topic`. Checked at the cloud, which rejects an illegal one.
    pub kafka_topic: Option<&'a str>,
    /// The Kafka key.
    pub key: RecordKey<'a>,
    /// MQTT 5 content type.
    pub content_type: Option<&'a str>,
    /// MQTT 5 response topic.
    pub response_topic: Option<&'a str>,
    /// MQTT 5 correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// MQTT 5 user properties, in order, names may repeat.
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// What the device sent.
    pub payload: &'a [u8],
}

impl<'a> EdgeRecord<'a> {
    /// The Kafka key's bytes.
    #[must_use]
    pub fn kafka_key(&self) -> Option<&'a [u8]> {
        match self.key {
            RecordKey::ClientId => Some(self.client_id.as_bytes()),
            RecordKey::Bytes(key) => Some(key),
            RecordKey::None => None,
        }
    }

    /// The name that a route chose, if it is a legal Kafka topic name.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn routed_topic(&self) -> Result<Option<KafkaTopic>, crate::ids::InvalidName> {
        self.kafka_topic.map(KafkaTopic::new).transpose()
    }

    fn flags(&self) -> u16 {
        let mut flags = u16::from(self.qos & 3);
        let mut set = |on: bool, flag: u16| flags |= if on { flag } else { 0 };
        set(self.retain, RETAIN);
        set(self.payload_utf8, PAYLOAD_UTF8);
        set(self.expiry_seconds.is_some(), EXPIRY);
        set(self.kafka_topic.is_some(), KAFKA_TOPIC);
        set(matches!(self.key, RecordKey::Bytes(_)), KEY_BYTES);
        set(matches!(self.key, RecordKey::None), KEY_NONE);
        set(self.content_type.is_some(), CONTENT_TYPE);
        set(self.response_topic.is_some(), RESPONSE_TOPIC);
        set(self.correlation_data.is_some(), CORRELATION_DATA);
        set(!self.user_properties.is_empty(), USER_PROPERTIES);
        flags
    }

    /// Appends the encoded record to `out`. On an error `out` holds a part of it.
    ///
    /// # Errors
    /// [`EncodeError`] names a part that is longer than its length field, or more user properties than
    /// [`SYNC_USER_PROPERTIES`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(VERSION);
        out.extend_from_slice(&self.flags().to_be_bytes());
        if let Some(expiry) = self.expiry_seconds {
            out.extend_from_slice(&expiry.to_be_bytes());
        }
        short(out, "mqtt topic", self.mqtt_topic.as_bytes())?;
        short(out, "client id", self.client_id.as_bytes())?;
        if let Some(topic) = self.kafka_topic {
            short(out, "kafka topic", topic.as_bytes())?;
        }
        if let RecordKey::Bytes(key) = self.key {
            short(out, "key", key)?;
        }
        if let Some(content_type) = self.content_type {
            short(out, "content type", content_type.as_bytes())?;
        }
        if let Some(topic) = self.response_topic {
            short(out, "response topic", topic.as_bytes())?;
        }
        if let Some(data) = self.correlation_data {
            short(out, "correlation data", data)?;
        }
        self.encode_user_properties(out)?;
        out.extend_from_slice(self.payload);
        Ok(())
    }

    fn encode_user_properties(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = self.user_properties.len();
        if length == 0 {
            return Ok(());
        }
        let too_many =
            EncodeError { field: "user properties", length, limit: SYNC_USER_PROPERTIES };
        if length > SYNC_USER_PROPERTIES {
            return Err(too_many);
        }
        out.extend_from_slice(&u16::try_from(length).map_err(|_| too_many)?.to_be_bytes());
        for (name, value) in &self.user_properties {
            short(out, "user property name", name.as_bytes())?;
            short(out, "user property value", value.as_bytes())?;
        }
        Ok(())
    }

    /// Reads one encoded record.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let found = reader.u8()?;
        if found != VERSION {
            return Err(DecodeError::Version { found, expected: VERSION });
        }
        let flags = reader.u16()?;
        let has = |flag: u16| flags & flag != 0;
        let qos = u8::try_from(flags & 3).map_err(|_| DecodeError::Invalid { field: "qos" })?;
        if flags & !KNOWN_FLAGS != 0 || qos > 2 || (has(KEY_BYTES) && has(KEY_NONE)) {
            return Err(DecodeError::Invalid { field: "record flags" });
        }
        let expiry_seconds = has(EXPIRY).then(|| reader.u32()).transpose()?;
        let mqtt_topic = reader.short_text("mqtt topic")?;
        let client_id = reader.short_text("client id")?;
        let kafka_topic = has(KAFKA_TOPIC).then(|| reader.short_text("kafka topic")).transpose()?;
        let key = if has(KEY_BYTES) {
            RecordKey::Bytes(reader.short_bytes()?)
        } else if has(KEY_NONE) {
            RecordKey::None
        } else {
            RecordKey::ClientId
        };
        Ok(Self {
            mqtt_topic,
            client_id,
            qos,
            retain: has(RETAIN),
            payload_utf8: has(PAYLOAD_UTF8),
            expiry_seconds,
            kafka_topic,
            key,
            content_type: has(CONTENT_TYPE)
                .then(|| reader.short_text("content type"))
                .transpose()?,
            response_topic: has(RESPONSE_TOPIC)
                .then(|| reader.short_text("response topic"))
                .transpose()?,
            correlation_data: has(CORRELATION_DATA).then(|| reader.short_bytes()).transpose()?,
            user_properties: if has(USER_PROPERTIES) {
                user_properties(&mut reader)?
            } else {
                Vec::new()
            },
            payload: reader.remainder(),
        })
    }
}

fn user_properties<'a>(reader: &mut Reader<'a>) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
    let field = "user properties";
    let length = usize::from(reader.u16()?);
    if length > SYNC_USER_PROPERTIES {
        return Err(DecodeError::TooLong { field, length, limit: SYNC_USER_PROPERTIES });
    }
    if length == 0 {
        return Err(DecodeError::Invalid { field });
    }
    (0..length).map(|_| Ok((reader.short_text(field)?, reader.short_text(field)?))).collect()
}

fn short(out: &mut Vec<u8>, field: &'static str, bytes: &[u8]) -> Result<(), EncodeError> {
    let limit = usize::from(u16::MAX);
    let length = u16::try_from(bytes.len()).map_err(|_| EncodeError {
        field,
        length: bytes.len(),
        limit,
    })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
