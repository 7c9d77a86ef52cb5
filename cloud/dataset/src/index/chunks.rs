//! Records that are larger than clients can take, in chunks.
//!
//! Each chunk is a record of its own, with the key of the whole and an offset of its own, and alone in its extent. All but the last have the
//! size that the topic sets. Only what is one stretch of an object that is not compressed comes in chunks: a file of a tar, an object. It is
//! known then, before the first chunk is published, that the object has all of them. (Of one that is deleted while it is counted, the last
//! may have no offsets: whoever puts chunks together takes them for lost.)
//!
//! **Invariant:** the chunks of a record have the numbers from `first_record` on, without gaps.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use robustmq_common::limits::dataset as limits;
use serde::{Deserialize, Serialize};

use super::{Cutter, ExtentIndex, Found, ObjectIndex, add_extent};
use crate::fetch::Object;
use crate::format::{Damage, LargeRecord};
use crate::layout::{Extent, Layout, RecordLayout, Span, Text};

/// What becomes of records that are too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Large {
    /// The largest record in bytes, with all its parts; and the size of chunks.
    pub bytes: u32,
    /// Larger ones come in chunks, where that is possible. They are damage otherwise.
    pub has_chunks: bool,
}

impl Default for Large {
    fn default() -> Self {
        let bytes = u32::try_from(limits::RECORD_BYTES).expect("64 MiB");
        Self { bytes, has_chunks: false }
    }
}

impl Large {
    pub(crate) fn record_bytes(self) -> usize {
        self.bytes as usize
    }

    /// Whether it is what there was before it could be set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A record that is in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunked {
    /// The number of its first chunk.
    pub first_record: u64,
    /// How many there are.
    pub chunks: u32,
    /// Of all of them.
    pub bytes: u64,
    /// The record's key.
    pub key: Vec<u8>,
}

impl Chunked {
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.key.len()
    }
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// From 0 on.
    pub number: u32,
    /// What it is a chunk of.
    pub of: &'a Chunked,
}

/// A record that is being cut into chunks.
pub(super) struct Chunking {
    key: Vec<u8>,
    /// Bytes of it that are not in an extent yet.
    left: u64,
    /// What is to be skipped behind it.
    filling: u64,
}

/// How many chunks there are of a record, or why there can be none.
fn count(bytes: u64, large: Large) -> Result<u32, String> {
    let chunks = bytes.div_ceil(u64::from(large.bytes));
    match u32::try_from(chunks).ok().filter(|_| chunks <= limits::CHUNKS) {
        Some(chunks) => Ok(chunks),
        None => {
            Err(format!("{bytes} bytes are more than {} chunks of {}", limits::CHUNKS, large.bytes))
        }
    }
}

/// Content that is one record.
pub(super) fn extent_of_chunk(key: &[u8], content: Bytes) -> Extent {
    let value = Span { start: 0, bytes: u32::try_from(content.len()).unwrap_or(u32::MAX) };
    let key = Some(Text::Owned(key.into()));
    let record = RecordLayout { key, value, value_name: None, members: 0..0, value_crc: None };
    let records = vec![record];
    Extent { content, layout: Layout { records, members: Vec::new() } }
}

impl ObjectIndex {
    /// Which chunk a record is, by its number, if it is one.
    #[must_use]
    pub fn chunk(&self, record: u64) -> Option<Chunk<'_>> {
        let at = self.chunked.partition_point(|chunked| chunked.first_record <= record);
        let of = self.chunked.get(at.checked_sub(1)?)?;
        let number = u32::try_from(record - of.first_record).ok()?;
        (number < of.chunks).then_some(Chunk { number, of })
    }

    /// All of an object is one record.
    pub(super) fn add_chunks(&mut self, object: &Object) {
        let large = self.reading.large;
        let chunks = match count(object.size, large) {
            Ok(chunks) => chunks,
            Err(reason) => return self.note(Damage { at: 0, reason }),
        };
        let key = object.path.as_ref().as_bytes().to_vec();
        self.chunked.push(Chunked { first_record: 0, chunks, bytes: object.size, key });
        for number in 0..u64::from(chunks) {
            let start = number * u64::from(large.bytes);
            let left = u32::try_from(object.size - start).unwrap_or(u32::MAX);
            let bytes = left.min(large.bytes);
            let extent = ExtentIndex { start, bytes, first_record: number, records: 1, crc: None };
            self.extents.push(extent);
        }
    }
}

impl Cutter<'_> {
    /// What comes next is of no record.
    pub(super) fn pass(&mut self, bytes: u64) {
        let here = bytes.min(self.buffer.len() as u64);
        self.buffer.advance(usize::try_from(here).unwrap_or(0));
        self.at += here;
        self.skip = bytes - here;
    }

    /// Cuts a record into chunks from now on, of which everything up to the next one has `skip` bytes.
    pub(super) fn begin_chunks(&mut self, large: LargeRecord, skip: u64) {
        let LargeRecord { key, lead, bytes } = large;
        let damaged = |reason| Damage { at: self.at, reason };
        if self.at.saturating_add(lead).saturating_add(bytes) > self.object.size {
            self.index.note(damaged("the archive is cut off here".to_owned()));
            self.is_end = true;
            self.buffer.clear();
            return;
        }
        let chunks = match count(bytes, self.index.reading.large) {
            Ok(chunks) => chunks,
            Err(reason) => {
                self.index.note(damaged(reason));
                return self.pass(skip);
            }
        };
        let first_record = self.index.records();
        self.index.chunked.push(Chunked { first_record, chunks, bytes, key: key.clone() });
        let filling = skip.saturating_sub(lead + bytes);
        self.chunking = Some(Chunking { key, left: bytes, filling });
        self.pass(lead);
    }

    /// Cuts the next chunk off, if it is all there. Whether to look at what follows.
    pub(super) fn cut_chunk(&mut self, is_last: bool, found: &mut impl Found) -> bool {
        let most = u64::from(self.index.reading.large.bytes);
        let Some(chunking) = &mut self.chunking else { return true };
        let bytes = usize::try_from(chunking.left.min(most)).unwrap_or(usize::MAX);
        if self.buffer.len() < bytes {
            self.enough = bytes;
            if is_last {
                // The object has as many bytes: its source has given fewer.
                self.index
                    .note(Damage { at: self.at, reason: "it ends within a record".to_owned() });
                self.is_end = true;
                self.buffer.clear();
            }
            return false;
        }
        chunking.left -= bytes as u64;
        let (is_over, filling) = (chunking.left == 0, chunking.filling);
        let content = Bytes::copy_from_slice(&self.buffer[..bytes]);
        self.buffer.advance(bytes);
        let mut extent = extent_of_chunk(&chunking.key, content);
        add_extent(&mut self.index, self.at, &mut extent);
        self.at += bytes as u64;
        found.extent(&self.index, Arc::new(extent));
        self.enough = 0;
        if is_over {
            self.chunking = None;
            self.enough = self.extent_bytes;
            self.pass(filling);
        }
        true
    }
}

#[cfg(test)]
mod tests;
