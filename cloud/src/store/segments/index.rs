//! The index: for each key its value, or the place in a segment where that lies.
//!
//! ```text
//! entry = 0 value                                     small values
//!       | 1 segment(4) offset(4) bytes(4) crc(4)      CRC32C of the value
//! ```
//!
//! One key is the store's own: [`POSITION_KEY`], up to which group the index has been told. It changes in the same write as what it
//! speaks of, so whatever prefix of the writes an index keeps through a crash, it knows which.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::keys::damaged;
use crate::store::{StoreError, WriteOp};

/// Beyond all keys of the store's users.
pub(super) const POSITION_KEY: &[u8] = &[0xff];

/// An ordered map that keeps a **prefix** of what was applied to it through a crash: everything before the last
/// [`Index::flush`], and perhaps some of what came after.
pub(super) trait Index: Send + Sync {
    /// The entry of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// The entry of a key, if that is known without the disk.
    fn get_in_memory(&self, key: &[u8]) -> Result<Option<Option<Bytes>>, StoreError>;
    /// Visits the entries of a range in order, as they are at one moment, until `visit` says false.
    fn walk(
        &self,
        range: &Range<Bytes>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
    /// Applies changes, all or none, in their order. Not durable yet.
    fn apply(&self, changes: &[WriteOp]) -> Result<(), StoreError>;
    /// Makes everything applied before the call durable.
    fn flush(&self) -> Result<(), StoreError>;
    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Locator {
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
    pub crc: u32,
}

/// What the index holds of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Inline(Bytes),
    At(Locator),
}

impl Entry {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Inline(value) => {
                let mut entry = BytesMut::with_capacity(value.len() + 1);
                entry.put_u8(0);
                entry.put_slice(value);
                entry.freeze()
            }
            Self::At(Locator { segment, offset, len, crc }) => {
                let mut entry = BytesMut::with_capacity(17);
                entry.put_u8(1);
                entry.put_u32(*segment);
                entry.put_u32(*offset);
                entry.put_u32(*len);
                entry.put_u32(*crc);
                entry.freeze()
            }
        }
    }

    pub(super) fn decode(key: &[u8], mut entry: Bytes) -> Result<Self, StoreError> {
        match entry.try_get_u8() {
            Ok(0) => Ok(Self::Inline(entry)),
            Ok(1) => Locator::decode(&entry)
                .map(Self::At)
                .ok_or_else(|| damaged(key, "its place in the segments has a wrong length")),
            _ => Err(damaged(key, "its entry is of a kind that is unknown to this release")),
        }
    }
}

impl Locator {
    fn decode(mut entry: &[u8]) -> Option<Self> {
        if entry.len() != 16 {
            return None;
        }
        Some(Self {
            segment: entry.get_u32(),
            offset: entry.get_u32(),
            len: entry.get_u32(),
            crc: entry.get_u32(),
        })
    }

    /// The place that an entry names, if it names one. For walks, which copy nothing.
    pub(super) fn of_entry(entry: &[u8]) -> Option<Self> {
        match entry.split_first() {
            Some((1, place)) => Self::decode(place),
            _ => None,
        }
    }

    /// The offset after the value.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}

/// Up to where the index has been told: the end of group `sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub sequence: u64,
    pub segment: u32,
    pub offset: u64,
}

impl Position {
    pub(super) fn op(&self) -> WriteOp {
        let mut value = BytesMut::with_capacity(20);
        value.put_u64(self.sequence);
        value.put_u32(self.segment);
        value.put_u64(self.offset);
        WriteOp::Put(Bytes::from_static(POSITION_KEY), value.freeze())
    }

    pub(super) fn read(index: &dyn Index) -> Result<Option<Self>, StoreError> {
        let Some(mut value) = index.get(POSITION_KEY)? else { return Ok(None) };
        if value.len() != 20 {
            return Err(damaged(POSITION_KEY, "the position has a wrong length"));
        }
        Ok(Some(Self {
            sequence: value.get_u64(),
            segment: value.get_u32(),
            offset: value.get_u64(),
        }))
    }
}
