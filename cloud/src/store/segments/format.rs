//! The bytes of a segment file.
//!
//! ```text
//! segment  = header(32) group*
//! header   = magic(8) salt(4) number(4) first_sequence(8) zero(4) crc(4)              crc over the 28 bytes before it
//! group    = crc(4) sequence(8) meta_bytes(4) values_bytes(8) meta_crc(4)   meta values    crc over the 24 bytes after it
//! meta     = change*
//! change   = 1 key value                  the value lies here          key, value, start, end, from: length(4) bytes
//!          | 2 key bytes(4) crc(4)        the value is the next so many bytes of `values`
//!          | 3 key                        removed
//!          | 4 start end                  range removed
//!          | 6 key to from             the value was moved, and the entry is now `to`: it counts only if it is still `from`
//! ```
//!
//! Kept segments (see `kept`) have groups of changes 2 alone, and count them from 1 in each file. Before there were any, values were moved
//! to the log's end: `5 key bytes(4) crc(4) from`, which is still read.
//!
//! One group is what one sync made durable: sequences count groups, from 1, through all segments. All checksums are CRC32C; those
//! of heads and metas start from the store's random salt, so that no stored value can be taken for a group. A value's is in the meta
//! and, with its place, in the index.

use std::io;
use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};
use robustmq_common::disk::{DiskFile, read_range};

use super::index::{Entry, Locator};
use crate::store::WriteOp;

pub(super) const HEADER_BYTES: u64 = 32;
pub(super) const HEAD_BYTES: u64 = 28;
/// What a separated value takes besides its own bytes and those of its key: kind, two lengths, checksum.
pub(super) const SEPARATED_BYTES: u64 = 13;
const MAGIC: &[u8; 8] = b"RMQSEG1\n";

const PUT: u8 = 1;
const PUT_SEPARATED: u8 = 2;
const DELETE: u8 = 3;
const DELETE_RANGE: u8 = 4;
const MOVE_HERE: u8 = 5;
const MOVE: u8 = 6;

/// What starts a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub salt: u32,
    pub number: u32,
    pub first_sequence: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u32(self.salt);
        bytes.put_u32(self.number);
        bytes.put_u64(self.first_sequence);
        bytes.put_u32(0);
        bytes.put_u32(crc32c::crc32c(&bytes));
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let whole = bytes;
        if bytes.len() != usize::try_from(HEADER_BYTES).ok()? || !bytes.starts_with(MAGIC) {
            return None;
        }
        bytes.advance(MAGIC.len());
        let salt = bytes.get_u32();
        let number = bytes.get_u32();
        let first_sequence = bytes.get_u64();
        bytes.advance(4);
        let checked = whole.get(..28)?;
        (bytes.get_u32() == crc32c::crc32c(checked)).then_some(Self {
            salt,
            number,
            first_sequence,
        })
    }
}

/// What starts a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHead {
    pub sequence: u64,
    pub meta_bytes: u32,
    pub values_bytes: u64,
    pub meta_crc: u32,
}

impl GroupHead {
    fn encode(&self, salt: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.put_u64(self.sequence);
        bytes.put_u32(self.meta_bytes);
        bytes.put_u64(self.values_bytes);
        bytes.put_u32(self.meta_crc);
        let crc = crc32c::crc32c_append(salt, bytes.get(4..).unwrap_or_default());
        bytes.splice(..4, crc.to_be_bytes());
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8], salt: u32) -> Option<Self> {
        if bytes.len() != usize::try_from(HEAD_BYTES).ok()? {
            return None;
        }
        let crc = bytes.get_u32();
        if crc != crc32c::crc32c_append(salt, bytes) {
            return None;
        }
        Some(Self {
            sequence: bytes.get_u64(),
            meta_bytes: bytes.get_u32(),
            values_bytes: bytes.get_u64(),
            meta_crc: bytes.get_u32(),
        })
    }

    /// Bytes of the whole group.
    pub(super) fn group_bytes(&self) -> u64 {
        HEAD_BYTES + u64::from(self.meta_bytes) + self.values_bytes
    }
}

/// A change of the index, and the entry that its key must still have for it to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexChange {
    pub op: WriteOp,
    pub only_if: Option<Bytes>,
}

impl IndexChange {
    /// The place that it gives to a value, if it does.
    pub(super) fn place(&self) -> Option<Locator> {
        match &self.op {
            WriteOp::Put(_, entry) => Locator::of_entry(entry),
            _ => None,
        }
    }
}

/// A group, ready to be written at a certain place.
#[derive(Debug)]
pub(super) struct EncodedGroup {
    /// Head and meta.
    pub lead: Vec<u8>,
    /// What follows.
    pub values: Vec<Bytes>,
    /// What the index is to be told once it is durable.
    pub changes: Vec<IndexChange>,
}

/// Gathers the changes of one group.
pub(super) struct GroupEncoder {
    salt: u32,
    separated_bytes: usize,
    meta: Vec<u8>,
    values: Vec<Bytes>,
    values_bytes: u64,
    changes: Vec<Staged>,
}

/// A change whose value may not have its place yet.
enum Staged {
    Whole(IndexChange),
    Separated { key: Bytes, at: u64, len: u32, crc: u32 },
}

/// A value that does not fit the format: nothing can be that large here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key or value of {0} bytes is too large for the store")]
pub(super) struct TooLarge(usize);

impl GroupEncoder {
    /// Values of `separated_bytes` and more will lie apart from the keys.
    pub(super) fn new(salt: u32, separated_bytes: usize) -> Self {
        Self {
            salt,
            separated_bytes,
            meta: Vec::new(),
            values: Vec::new(),
            values_bytes: 0,
            changes: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, op: &WriteOp) -> Result<(), TooLarge> {
        match op {
            WriteOp::Put(key, value) if value.len() >= self.separated_bytes => {
                self.meta.put_u8(PUT_SEPARATED);
                self.text(key)?;
                self.separate(key, value)?;
            }
            WriteOp::Put(key, value) => {
                self.meta.put_u8(PUT);
                self.text(key)?;
                self.text(value)?;
                let entry = Entry::Inline(value.clone()).encode();
                self.whole(WriteOp::Put(key.clone(), entry), None);
            }
            WriteOp::Delete(key) => {
                self.meta.put_u8(DELETE);
                self.text(key)?;
                self.whole(op.clone(), None);
            }
            WriteOp::DeleteRange(range) => {
                self.meta.put_u8(DELETE_RANGE);
                self.text(&range.start)?;
                self.text(&range.end)?;
                self.whole(op.clone(), None);
            }
        }
        Ok(())
    }

    /// A value that was moved: the key's entry becomes `to`, if it is still `from` then.
    pub(super) fn push_moved(
        &mut self,
        key: &Bytes,
        to: &Bytes,
        from: &Bytes,
    ) -> Result<(), TooLarge> {
        self.meta.put_u8(MOVE);
        self.text(key)?;
        self.text(to)?;
        self.text(from)?;
        self.whole(WriteOp::Put(key.clone(), to.clone()), Some(from.clone()));
        Ok(())
    }

    fn whole(&mut self, op: WriteOp, only_if: Option<Bytes>) {
        self.changes.push(Staged::Whole(IndexChange { op, only_if }));
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let len = u32::try_from(bytes.len()).map_err(|_| TooLarge(bytes.len()))?;
        self.meta.put_u32(len);
        self.meta.put_slice(bytes);
        Ok(())
    }

    fn separate(&mut self, key: &Bytes, value: &Bytes) -> Result<(), TooLarge> {
        let len = u32::try_from(value.len()).map_err(|_| TooLarge(value.len()))?;
        let crc = crc32c::crc32c(value);
        self.meta.put_u32(len);
        self.meta.put_u32(crc);
        let at = self.values_bytes;
        self.values_bytes += u64::from(len);
        self.values.push(value.clone());
        self.changes.push(Staged::Separated { key: key.clone(), at, len, crc });
        Ok(())
    }

    /// The group as number `sequence`, to be written at `offset` of `segment`.
    pub(super) fn finish(
        self,
        sequence: u64,
        segment: u32,
        offset: u64,
    ) -> Result<EncodedGroup, TooLarge> {
        let meta_bytes = u32::try_from(self.meta.len()).map_err(|_| TooLarge(self.meta.len()))?;
        let head = GroupHead {
            sequence,
            meta_bytes,
            values_bytes: self.values_bytes,
            meta_crc: crc32c::crc32c_append(self.salt, &self.meta),
        };
        let values_at = offset + HEAD_BYTES + u64::from(meta_bytes);
        let place = |staged| match staged {
            Staged::Whole(change) => Ok(change),
            Staged::Separated { key, at, len, crc } => {
                let at = u32::try_from(values_at + at).map_err(|_| TooLarge(self.meta.len()))?;
                let entry = Entry::At(Locator { segment, offset: at, len, crc }).encode();
                Ok(IndexChange { op: WriteOp::Put(key, entry), only_if: None })
            }
        };
        let changes = self.changes.into_iter().map(place).collect::<Result<_, _>>()?;
        let mut lead = head.encode(self.salt);
        lead.extend_from_slice(&self.meta);
        Ok(EncodedGroup { lead, values: self.values, changes })
    }
}

/// A change as a segment tells it; the value of a separated one lies at its place in the group's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Logged {
    Put { key: Bytes, value: Bytes },
    Separated { key: Bytes, at: u64, len: u32, crc: u32, only_if: Option<Bytes> },
    Moved { key: Bytes, to: Bytes, from: Bytes },
    Delete { key: Bytes },
    DeleteRange(Range<Bytes>),
}

/// A group as a segment has it, without its values.
#[derive(Debug)]
pub(super) struct Group {
    pub head: GroupHead,
    /// Where the values start.
    pub values_at: u64,
    /// `None`: the group is whole, and has a kind of change that this release does not know.
    pub changes: Option<Vec<Logged>>,
}

/// The group at an offset of a segment; `None` if none ends up whole there, its values apart: the file ends, or the write was torn.
pub(super) fn read_group(file: &dyn DiskFile, salt: u32, at: u64) -> io::Result<Option<Group>> {
    let read = |at, bytes: u64| {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        read_range(file, at, bytes).map(Bytes::from)
    };
    let Some(head) = GroupHead::decode(&read(at, HEAD_BYTES)?, salt) else { return Ok(None) };
    let meta_at = at + HEAD_BYTES;
    let meta = read(meta_at, u64::from(head.meta_bytes))?;
    if crc32c::crc32c_append(salt, &meta) != head.meta_crc {
        return Ok(None);
    }
    let values_at = meta_at + u64::from(head.meta_bytes);
    Ok(Some(Group { head, values_at, changes: decode_meta(meta) }))
}

/// Reads a group's meta; `None` if it is not one (its checksum is the caller's to check).
fn decode_meta(mut meta: Bytes) -> Option<Vec<Logged>> {
    fn text(meta: &mut Bytes) -> Option<Bytes> {
        let len = usize::try_from(meta.try_get_u32().ok()?).ok()?;
        (len <= meta.len()).then(|| meta.split_to(len))
    }
    let mut changes = Vec::new();
    let mut at = 0_u64;
    while meta.has_remaining() {
        let kind = meta.get_u8();
        let key = text(&mut meta)?;
        changes.push(match kind {
            PUT => Logged::Put { key, value: text(&mut meta)? },
            MOVE => Logged::Moved { key, to: text(&mut meta)?, from: text(&mut meta)? },
            PUT_SEPARATED | MOVE_HERE => {
                let len = meta.try_get_u32().ok()?;
                let crc = meta.try_get_u32().ok()?;
                let only_if = if kind == MOVE_HERE { Some(text(&mut meta)?) } else { None };
                let change = Logged::Separated { key, at, len, crc, only_if };
                at = at.checked_add(u64::from(len))?;
                change
            }
            DELETE => Logged::Delete { key },
            DELETE_RANGE => Logged::DeleteRange(key..text(&mut meta)?),
            _ => return None,
        });
    }
    Some(changes)
}

/// Gives the first group of a segment's bytes a kind of change that there is not, with checksums that are right.
#[cfg(test)]
pub(super) fn make_unknown(segment: &mut [u8]) {
    let place = |bytes: u64| usize::try_from(bytes).expect("a small segment");
    let (head_at, meta_at) = (place(HEADER_BYTES), place(HEADER_BYTES + HEAD_BYTES));
    let header = SegmentHeader::decode(&segment[..head_at]).expect("a header");
    let head = GroupHead::decode(&segment[head_at..meta_at], header.salt).expect("a head");
    let meta_end = meta_at + head.meta_bytes as usize;
    segment[meta_at] = 99;
    let meta_crc = crc32c::crc32c_append(header.salt, &segment[meta_at..meta_end]);
    let head = GroupHead { meta_crc, ..head }.encode(header.salt);
    segment[head_at..meta_at].copy_from_slice(&head);
}
