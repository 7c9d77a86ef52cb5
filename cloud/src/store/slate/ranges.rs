//! Deleted ranges. SlateDB deletes keys, not ranges, so a range deletion is written as a note: what lies in the range and is older
//! than the note is dead. Reads hide it from the moment that the note is durable; [`super::removal`] deletes it key by key later, and
//! then the note.
//!
//! ```text
//! 00 'r' id(8)  ->  version(1) = 1, length of start(4), start, end
//! 01 key        ->  value, of what the store was told
//! ```
//!
//! SlateDB numbers its batches and keeps with each row the number of its batch. A note kills the rows in its range with lower
//! numbers than its own: what is put into the range later, or in the same group behind the deletion, lives.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::StoreError;

const NOTE_VERSION: u8 = 1;
const DATA: u8 = 1;
const NOTE_PREFIX: [u8; 2] = [0, b'r'];

/// Where an empty group is written, since SlateDB takes none.
pub(super) const PROBE_KEY: [u8; 2] = [0, b'p'];

/// The key under which `key` is kept.
pub(super) fn data_key(key: &[u8]) -> Bytes {
    let mut kept = BytesMut::with_capacity(key.len() + 1);
    kept.put_u8(DATA);
    kept.put_slice(key);
    kept.freeze()
}

/// The key that is kept under `kept`.
pub(super) fn told_key(kept: &Bytes) -> Bytes {
    kept.slice(1..)
}

/// Every note's key.
pub(super) fn note_range() -> Range<Bytes> {
    Bytes::from_static(&NOTE_PREFIX)..Bytes::from_static(&[0, b'r' + 1])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NoteId(pub(super) u64);

impl NoteId {
    pub(super) fn key(self) -> Bytes {
        let mut key = BytesMut::with_capacity(10);
        key.put_slice(&NOTE_PREFIX);
        key.put_u64(self.0);
        key.freeze()
    }

    pub(super) fn of_key(key: &[u8]) -> Option<Self> {
        let id = key.strip_prefix(&NOTE_PREFIX)?;
        Some(Self(u64::from_be_bytes(id.try_into().ok()?)))
    }
}

/// A range that was deleted, in the store's own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub range: Range<Bytes>,
    /// The number of the batch that deleted it.
    pub seq: u64,
}

/// A note's value.
pub(super) fn encode_note(range: &Range<Bytes>) -> Bytes {
    let mut value = BytesMut::with_capacity(5 + range.start.len() + range.end.len());
    value.put_u8(NOTE_VERSION);
    // Keys are far shorter than SlateDB's limit of 64 KB.
    value.put_u32(u32::try_from(range.start.len()).unwrap_or(u32::MAX));
    value.put_slice(&range.start);
    value.put_slice(&range.end);
    value.freeze()
}

/// The range that a note's value names.
pub(super) fn decode_note(key: &[u8], value: &Bytes) -> Result<Range<Bytes>, StoreError> {
    let damaged = |reason: &str| StoreError::Damaged {
        key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        reason: reason.to_owned(),
    };
    let (Some(&version), Some(length)) = (value.first(), value.get(1..5)) else {
        return Err(damaged("the note of a deleted range is too short"));
    };
    if version != NOTE_VERSION {
        return Err(damaged(&format!("the note of a deleted range has version {version}")));
    }
    let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    if value.len() - 5 < length {
        return Err(damaged("the note of a deleted range ends within its start"));
    }
    Ok(value.slice(5..5 + length)..value.slice(5 + length..))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    end: Bytes,
    seq: u64,
    note: NoteId,
}

/// Which rows are dead. Spans do not overlap: where two notes do, the newer one counts, since it kills what the older one does.
#[derive(Debug, Clone, Default)]
pub(super) struct DeletedRanges {
    /// By their starts.
    spans: BTreeMap<Bytes, Span>,
}

impl DeletedRanges {
    /// Whether the row of `key` that was written by batch `seq` is dead.
    pub(super) fn hides(&self, key: &[u8], seq: u64) -> bool {
        self.at(key).is_some_and(|span| seq < span.seq)
    }

    /// Whether `key` lies in a deleted range.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.at(key).is_some()
    }

    fn at(&self, key: &[u8]) -> Option<&Span> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let (_, span) = self.spans.range::<[u8], _>(up_to).next_back()?;
        (key < span.end.as_ref()).then_some(span)
    }

    /// The notes that have a part of `range`, which is not empty.
    pub(super) fn notes_in(&self, range: &Range<Bytes>) -> impl Iterator<Item = NoteId> {
        let first = self.at(&range.start).map(|span| span.note);
        let later = self.spans.range(range.clone()).map(|(_, span)| span.note);
        first.into_iter().chain(later)
    }

    /// Adds a note that is newer than all the others, or as new.
    pub(super) fn insert(&mut self, id: NoteId, note: &Note) {
        let Range { start, end } = note.range.clone();
        if start >= end {
            return;
        }
        if let Some(first) = self.at(&start).cloned() {
            // What it has before and behind the new one stays.
            let begin = (Bound::Unbounded, Bound::Included(start.as_ref()));
            if let Some((_, span)) = self.spans.range_mut::<[u8], _>(begin).next_back() {
                span.end = start.clone();
            }
            if first.end > end {
                self.spans.insert(end.clone(), first);
            }
        }
        let within: Vec<Bytes> =
            self.spans.range(start.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
        for key in within {
            if let Some(span) = self.spans.remove(&key)
                && span.end > end
            {
                self.spans.insert(end.clone(), span);
            }
        }
        self.spans.insert(start, Span { end, seq: note.seq, note: id });
    }

    /// Forgets a note: nothing of what it killed is left.
    pub(super) fn remove(&mut self, id: NoteId, range: &Range<Bytes>) {
        if range.start >= range.end {
            return;
        }
        let gone: Vec<Bytes> = self
            .spans
            .range(range.clone())
            .filter(|(_, span)| span.note == id)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.spans.remove(&key);
        }
    }
}
