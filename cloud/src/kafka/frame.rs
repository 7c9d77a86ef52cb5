//! What a request frame must look like before any decoder sees it.
//!
//! `kafka-protocol` allocates by the counts that it reads, so a frame of 20 bytes could ask for gigabytes. Here every
//! count and length is walked against the bytes that are really there, allocating nothing.
//!
//! **Invariant:** a frame that passes [`check`] decodes with memory in proportion to its bytes and [`Shape::elements`].

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use robustmq_common::limits;

use super::schema::{Field, Kind};
use super::versions::{self, Api};

/// Why a frame is no request. The connection that sent it is closed, as Apache Kafka does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame ends before what it announces.
    #[error("ends at byte {at}, where {needed} more bytes were announced")]
    Short {
        /// Position in the frame.
        at: usize,
        /// How many bytes should follow.
        needed: usize,
    },
    /// A length below -1.
    #[error("negative length {length} at byte {at}")]
    NegativeLength {
        /// Position in the frame.
        at: usize,
        /// The length read.
        length: i64,
    },
    /// More array elements and tagged fields than a request may have.
    #[error("more than {limit} elements", limit = limits::KAFKA_FRAME_ELEMENTS)]
    TooManyElements,
    /// A tagged field whose content is not as long as it says, or one that this version does not have.
    #[error("bad tagged field {tag} at byte {at}")]
    Tag {
        /// Position in the frame.
        at: usize,
        /// The tag.
        tag: u32,
    },
    /// The client id is not UTF-8.
    #[error("client id is not UTF-8")]
    ClientId,
    /// An API that is not served.
    #[error("unknown API {key}")]
    UnknownApi {
        /// Its number.
        key: i16,
    },
    /// A version of an API that is not served.
    #[error("{api:?} version {version} is not served")]
    UnsupportedVersion {
        /// The API.
        api: kafka_protocol::messages::ApiKey,
        /// The version asked for.
        version: i16,
        /// To answer ApiVersions, which tells the client what is served instead (KIP-35).
        correlation_id: i32,
    },
}

/// A request whose header was read and whose body was walked.
#[derive(Debug)]
pub struct Frame {
    /// What is asked for.
    pub api: &'static Api,
    /// In which version.
    pub version: i16,
    /// Comes back in the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
    /// The request without its header.
    pub body: Bytes,
    /// What decoding will cost.
    pub shape: Shape,
}

/// What the walk counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Array elements and tagged fields: each becomes an allocation or an element of one. The first tagged field of a
    /// structure counts as more, since the decoder makes a map for it.
    pub elements: usize,
}

/// Reads the header of a frame (without its size prefix) and walks its body.
///
/// # Errors
/// [`FrameError`]; for ApiVersions in an unknown version it carries what is needed to answer.
pub fn check(frame: &Bytes) -> Result<Frame, FrameError> {
    let mut walk = Walk { bytes: frame, at: 0, version: 0, flexible: false, elements: 0 };
    let key = walk.i16()?;
    let version = walk.i16()?;
    let correlation_id = walk.i32()?;
    let api = versions::find(key).ok_or(FrameError::UnknownApi { key })?;
    if !api.has(version) {
        return Err(FrameError::UnsupportedVersion { api: api.key, version, correlation_id });
    }
    // The client id keeps its 16 bits of length in flexible headers (KIP-482).
    let client_id = match walk.classic_length(2)? {
        None => None,
        Some(length) => {
            let start = walk.at;
            walk.skip(length)?;
            let text = StrBytes::from_utf8(frame.slice(start..walk.at));
            Some(text.map_err(|_| FrameError::ClientId)?)
        }
    };
    walk.version = version;
    walk.flexible = api.is_flexible(version);
    if walk.flexible {
        walk.tagged_fields(&[])?;
    }
    let body = frame.slice(walk.at..);
    walk.structure(api.layout.fields)?;
    let shape = Shape { elements: walk.elements };
    Ok(Frame { api, version, correlation_id, client_id, body, shape })
}

/// What a map with one tagged field takes beyond the field, in elements of [`limits::KAFKA_ELEMENT_BYTES`]: a node of a
/// `BTreeMap` has room for eleven, 408 bytes.
const TAGS_NODE_ELEMENTS: usize = 2;

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn skip(&mut self, count: usize) -> Result<&[u8], FrameError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(FrameError::Short { at: self.at, needed: count })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let at = self.at;
        let taken = self.skip(N)?;
        taken.try_into().map_err(|_| FrameError::Short { at, needed: N })
    }

    fn i16(&mut self) -> Result<i16, FrameError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, FrameError> {
        self.array().map(i32::from_be_bytes)
    }

    /// As the decoder reads it: at most five bytes, bits past 32 are lost.
    fn unsigned_varint(&mut self) -> Result<u32, FrameError> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    /// A length of 2 or 4 bytes; -1 is null.
    fn classic_length(&mut self, width: usize) -> Result<Option<usize>, FrameError> {
        let at = self.at;
        let length = if width == 2 { i32::from(self.i16()?) } else { self.i32()? };
        if length == -1 {
            return Ok(None);
        }
        let negative = FrameError::NegativeLength { at, length: i64::from(length) };
        usize::try_from(length).map(Some).map_err(|_| negative)
    }

    /// A length in the style of the version; null counts as 0, since the decoder checks for null.
    fn length(&mut self, classic_width: usize) -> Result<usize, FrameError> {
        let length = if self.flexible {
            // A u32 fits a usize on every platform that this is built for.
            self.unsigned_varint()?.checked_sub(1).map(|length| length as usize)
        } else {
            self.classic_length(classic_width)?
        };
        Ok(length.unwrap_or(0))
    }

    fn count_elements(&mut self, count: usize) -> Result<(), FrameError> {
        self.elements = self.elements.saturating_add(count);
        if self.elements > limits::KAFKA_FRAME_ELEMENTS {
            return Err(FrameError::TooManyElements);
        }
        // An element has at least one byte, so a larger count cannot be true.
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(FrameError::Short { at: self.at, needed: count });
        }
        Ok(())
    }

    fn value(&mut self, kind: &Kind) -> Result<(), FrameError> {
        match kind {
            Kind::Fixed(size) => self.skip(*size).map(drop),
            Kind::Str => {
                let length = self.length(2)?;
                self.skip(length).map(drop)
            }
            Kind::Bytes => {
                let length = self.length(4)?;
                self.skip(length).map(drop)
            }
            Kind::Array(element) => {
                let count = self.length(4)?;
                self.count_elements(count)?;
                (0..count).try_for_each(|_| self.value(element))
            }
            Kind::Struct(fields) => self.structure(fields),
            Kind::Nullable(fields) => match self.array()? {
                [1] => self.structure(fields),
                _ => Ok(()),
            },
        }
    }

    fn structure(&mut self, fields: &'static [Field]) -> Result<(), FrameError> {
        for field in fields {
            if field.tag.is_none() && (field.first..=field.last).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), FrameError> {
        let count = self.unsigned_varint()? as usize;
        if count > 0 {
            self.count_elements(TAGS_NODE_ELEMENTS)?;
        }
        self.count_elements(count)?;
        for _ in 0..count {
            let at = self.at;
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let content = self.at;
            match fields.iter().find(|field| field.tag == Some(tag)) {
                None => self.skip(size).map(drop)?,
                Some(field) if field.first <= self.version => {
                    self.value(&field.kind)?;
                    if self.at - content != size {
                        return Err(FrameError::Tag { at, tag });
                    }
                }
                Some(_) => return Err(FrameError::Tag { at, tag }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
