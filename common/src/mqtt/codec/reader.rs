//! Reads a packet's body field by field, never past its end.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::DecodeError;
use crate::mqtt::packet::{PacketId, TopicFilter, TopicName};

/// The rest of a packet, or of its properties.
pub(super) struct Reader {
    rest: Bytes,
    packet: &'static str,
}

impl Reader {
    pub(super) fn new(rest: Bytes, packet: &'static str) -> Self {
        Self { rest, packet }
    }

    pub(super) fn malformed(&self, rule: &'static str) -> DecodeError {
        DecodeError::Malformed { packet: self.packet, rule }
    }

    pub(super) fn protocol(&self, rule: &'static str) -> DecodeError {
        DecodeError::Protocol { packet: self.packet, rule }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left: a slice, not a copy.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Fails if something is left that no field claims.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes are left after the last field"))
        }
    }

    fn need(&self, bytes: usize) -> Result<(), DecodeError> {
        if self.rest.len() < bytes {
            return Err(self.malformed("it ends within a field"));
        }
        Ok(())
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    /// A variable byte integer (section 1.5.5).
    pub(super) fn variable(&mut self) -> Result<u32, DecodeError> {
        match variable_byte_integer(&self.rest) {
            Ok(Some((value, length))) => {
                self.rest.advance(length);
                Ok(value)
            }
            Ok(None) => Err(self.malformed("it ends within a field")),
            Err(rule) => Err(self.malformed(rule)),
        }
    }

    /// Binary data (section 1.5.6): a slice, not a copy.
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::from(self.u16()?);
        self.need(length)?;
        Ok(self.rest.split_to(length))
    }

    /// A UTF-8 string (section 1.5.4).
    pub(super) fn string(&mut self) -> Result<Arc<str>, DecodeError> {
        let length = usize::from(self.u16()?);
        self.need(length)?;
        let bytes = self.rest.split_to(length);
        Ok(self.utf8(&bytes)?.into())
    }

    fn utf8<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
        // Surrogates are not UTF-8, `from_utf8` refuses them [MQTT-1.5.4-1].
        let text = std::str::from_utf8(bytes)
            .map_err(|_| self.malformed("a string is not UTF-8 [MQTT-1.5.4-1]"))?;
        if text.contains('\0') {
            return Err(self.malformed("a string contains U+0000 [MQTT-1.5.4-2]"));
        }
        Ok(text)
    }

    fn text<T>(
        &mut self,
        filter: bool,
        parse: impl Fn(&str) -> Result<T, crate::mqtt::packet::InvalidTopic>,
    ) -> Result<T, DecodeError> {
        let length = usize::from(self.u16()?);
        self.need(length)?;
        let bytes = self.rest.split_to(length);
        parse(self.utf8(&bytes)?).map_err(|invalid| DecodeError::Topic {
            packet: self.packet,
            filter,
            invalid,
        })
    }

    pub(super) fn topic_name(&mut self) -> Result<TopicName, DecodeError> {
        self.text(false, TopicName::new)
    }

    /// `None` for an empty one, which only a topic alias makes legal.
    pub(super) fn topic_name_or_empty(&mut self) -> Result<Option<TopicName>, DecodeError> {
        if self.rest.starts_with(&[0, 0]) {
            self.rest.advance(2);
            return Ok(None);
        }
        self.topic_name().map(Some)
    }

    pub(super) fn topic_filter(&mut self) -> Result<TopicFilter, DecodeError> {
        self.text(true, TopicFilter::new)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let id = self.u16()?;
        PacketId::new(id).ok_or_else(|| self.protocol("a packet identifier is 0 [MQTT-2.2.1-3]"))
    }

    /// The properties, as a reader of their own.
    pub(super) fn properties(&mut self) -> Result<Reader, DecodeError> {
        let length = usize::try_from(self.variable()?).unwrap_or(usize::MAX);
        self.need(length)?;
        Ok(Reader::new(self.rest.split_to(length), self.packet))
    }
}

/// The value and length of a variable byte integer (section 1.5.5); `None` if more bytes are needed.
///
/// Only the shortest encoding is taken [MQTT-1.5.5-1]; 3.1.1 says nothing about longer ones, and no known client sends
/// them.
pub(super) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, &'static str> {
    let mut value = 0_u32;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err("a variable byte integer is longer than it need be [MQTT-1.5.5-1]");
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err("a variable byte integer has more than four bytes");
    }
    Ok(None)
}
