//! Records of extents as Kafka's record batches.

use std::borrow::Cow;
use std::num::NonZeroU32;

use bytes::Bytes;
use robustmq_common::ids::{LeaderEpoch, Offset};
use robustmq_common::limits::dataset as limits;
use robustmq_common::record::{BatchBuilder, BatchError, Compression, NewRecord, WireBatch};
use robustmq_dataset::index::Chunk;
use robustmq_dataset::layout::{Extent, Member, RecordLayout};

/// The epoch of a record, as a header.
const EPOCH_HEADER: &str = "robustmq.epoch";
/// The object of a record, as a header: its name below the source's prefix.
const OBJECT_HEADER: &str = "robustmq.object";
/// Which part of the sample the value is, as a header: its extension or its column.
const VALUE_HEADER: &str = "robustmq.value";

/// Of a record that is too large, which of its chunks it is, as a header: from 0 on.
const CHUNK_HEADER: &str = "robustmq.chunk";
/// How many chunks there are, as a header.
const CHUNKS_HEADER: &str = "robustmq.chunks";
/// How many bytes all chunks have together, as a header.
const CHUNKED_BYTES_HEADER: &str = "robustmq.chunked.bytes";
/// Why a record is not there any more, as a header: it has no value then.
const ERROR_HEADER: &str = "robustmq.error";

/// What all records of an object have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub epoch: u32,
    pub object: &'a str,
    /// The object is one record: its name is the key.
    pub is_whole: bool,
    pub modified_ms: i64,
    /// The record is a chunk, and as such alone in its extent.
    pub chunk: Option<Chunk<'a>>,
    /// Extensions that become the value, best first.
    pub preferred: &'a [String],
}

/// A batch that is being filled.
pub(super) struct Batch {
    base_offset: Offset,
    room: usize,
    builder: BatchBuilder,
}

impl Batch {
    /// Of about `room` bytes, from an offset on.
    pub fn at(base_offset: Offset, room: usize) -> Self {
        Self { base_offset, room, builder: BatchBuilder::new(Compression::None) }
    }

    pub fn bytes(&self) -> usize {
        self.builder.size()
    }

    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Adds a record of an extent. A large value is not copied if its extent's content can be had from `lend`.
    pub fn push(
        &mut self,
        origin: &Origin<'_>,
        extent: &Extent,
        record: &RecordLayout,
        lend: impl FnOnce() -> Option<Bytes>,
    ) -> Result<(), BatchError> {
        let content = &extent.content[..];
        let members = extent.layout.members(record);
        let preferred = preferred(origin.preferred, record, members, content);
        let value = preferred.map_or(record.value, |member| member.data);
        let epoch = origin.epoch.to_string();
        let mut headers = vec![
            (EPOCH_HEADER.into(), epoch.as_bytes()),
            (OBJECT_HEADER.into(), origin.object.as_bytes()),
        ];
        let value_name = match preferred {
            Some(member) => Some(&member.name),
            None => record.value_name.as_ref(),
        };
        headers.extend(value_name.map(|name| (VALUE_HEADER.into(), name.of(content))));
        let chunk = origin.chunk.map(chunk_headers);
        let chunk =
            chunk.iter().flatten().map(|(name, value)| (Cow::from(*name), value.as_bytes()));
        headers.extend(chunk);
        for member in members {
            // The one that the value was changes places with the one that it is.
            let is_value = preferred.is_some_and(|preferred| std::ptr::eq(preferred, member));
            let (name, data) = match (is_value, &record.value_name) {
                (true, Some(name)) => (name, record.value),
                _ => (&member.name, member.data),
            };
            headers.push((String::from_utf8_lossy(name.of(content)), data.of(content)));
        }
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (name.as_ref(), Some(*value))).collect();
        let key = match origin.is_whole {
            true => Some(origin.object.as_bytes()),
            false => record.key.as_ref().map(|key| key.of(content)),
        };
        let new = NewRecord {
            timestamp_ms: origin.modified_ms,
            key,
            value: Some(value.of(content)),
            headers: &headers,
        };
        let is_large = value.bytes as usize >= limits::LENT_BYTES;
        let Some(lent) = is_large.then(lend).flatten() else {
            if self.is_empty() {
                self.builder.reserve(self.room.min(limits::BATCH_BYTES));
            }
            return self.builder.push(&new);
        };
        let known = record.value_crc.filter(|_| preferred.is_none()).map(NonZeroU32::get);
        let crc = known.unwrap_or_else(|| crc32c::crc32c(value.of(content)));
        self.builder.push_shared(&new, value.slice(&lent), crc)
    }

    /// Adds a record that is not there any more.
    pub fn push_lost(&mut self, origin: &Origin<'_>, reason: &str) -> Result<(), BatchError> {
        let epoch = origin.epoch.to_string();
        let mut headers = vec![
            (EPOCH_HEADER, epoch.as_str()),
            (OBJECT_HEADER, origin.object),
            (ERROR_HEADER, reason),
        ];
        let chunk = origin.chunk.map(chunk_headers);
        headers.extend(chunk.iter().flatten().map(|(name, value)| (*name, value.as_str())));
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.into_iter().map(|(name, value)| (name, Some(value.as_bytes()))).collect();
        self.builder.push(&NewRecord {
            timestamp_ms: origin.modified_ms,
            key: origin.is_whole.then_some(origin.object.as_bytes()),
            value: None,
            headers: &headers,
        })
    }

    pub fn build(self) -> Result<WireBatch, BatchError> {
        self.builder.build_wire(self.base_offset, LeaderEpoch(0))
    }
}

fn chunk_headers(Chunk { number, of }: Chunk<'_>) -> [(&'static str, String); 3] {
    [
        (CHUNK_HEADER, number.to_string()),
        (CHUNKS_HEADER, of.chunks.to_string()),
        (CHUNKED_BYTES_HEADER, of.bytes.to_string()),
    ]
}

/// The member that is to be the value, where that is not what it is already.
fn preferred<'a>(
    names: &[String],
    record: &RecordLayout,
    members: &'a [Member],
    content: &[u8],
) -> Option<&'a Member> {
    let is = |name: &[u8], wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let own = record.value_name.as_ref()?;
    for wanted in names {
        if is(own.of(content), wanted) {
            return None;
        }
        let member = members.iter().find(|member| is(member.name.of(content), wanted));
        if member.is_some() {
            return member;
        }
    }
    None
}

/// About what a record takes in a batch.
pub(super) fn record_bytes(extent: &Extent, record: &RecordLayout) -> usize {
    let members = extent.layout.members(record).iter().map(|member| member.data.bytes as usize);
    record.value.bytes as usize + members.sum::<usize>() + 128
}
