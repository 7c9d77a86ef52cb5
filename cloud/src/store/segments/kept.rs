//! Kept segments: where values go that outlive the segment they were written to. Those of the log hold old values and new ones side
//! by side; what lives long would be moved out of one after the other. Kept segments hold what has proved to be old, and mostly stay.
//!
//! They are no part of the log. Values are appended and synced here first; then the log, and through it the index, is told where
//! they are. What the log was never told of is dead: after a failure, and at each start, a new segment is begun.
//!
//! **Invariant:** nothing points to a value here that was not synced.
//! **Invariant:** a segment that was not synced as it should be is not appended to again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use robustmq_common::disk::{DiskFile, is_full};

use super::files::Files;
use super::format::{EncodedGroup, GroupEncoder, HEADER_BYTES, IndexChange, SegmentHeader};
use super::index::Locator;
use super::writer::write_pieces;
use crate::store::WriteOp;

/// The numbers of kept segments start here, those of the log end before it.
pub(super) const FIRST_KEPT: u32 = 1 << 31;

/// Whether `number` is that of a kept segment.
pub(super) fn is_kept(number: u32) -> bool {
    number >= FIRST_KEPT
}

/// The kept segments' end. Only the collector appends.
pub(super) struct Kept {
    files: Arc<Files>,
    salt: u32,
    segment_bytes: u64,
    last: Mutex<Last>,
}

struct Last {
    /// Of the segment that was begun last, if any was.
    number: u32,
    open: Option<Open>,
}

struct Open {
    file: Arc<dyn DiskFile>,
    end: u64,
    groups: u64,
    /// Nothing lies after `end`, and what is before it was synced.
    is_whole: bool,
}

impl Kept {
    /// Appends after the segments that `files` has.
    pub(super) fn new(files: Arc<Files>, salt: u32, segment_bytes: u64) -> Self {
        let last = files.all().last().map_or(0, |(number, _)| *number);
        let number = last.max(FIRST_KEPT - 1);
        Self { files, salt, segment_bytes, last: Mutex::new(Last { number, open: None }) }
    }

    /// Whether `number` may be appended to.
    pub(super) fn is_open(&self, number: u32) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.open.is_some() && last.number == number
    }

    /// Has the next values begin a new segment.
    pub(super) fn seal(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).open = None;
    }

    /// Writes values with their keys. `Ok`: they are durable, and lie there.
    pub(super) fn append(&self, values: &[(Bytes, Bytes)]) -> io::Result<Vec<Locator>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = self.try_append(&mut last, values);
        if let Some(open) = last.open.take_if(|open| !open.is_whole) {
            // Whatever is on the disk of this is followed by nothing, and counts as dead.
            let bytes = open.file.byte_len().unwrap_or(open.end);
            self.files.set_bytes(last.number, bytes);
        }
        appended
    }

    fn try_append(&self, last: &mut Last, values: &[(Bytes, Bytes)]) -> io::Result<Vec<Locator>> {
        let number = last.number;
        let open = match &mut last.open {
            Some(open) if open.end < self.segment_bytes => open,
            open => {
                last.number = number + 1;
                let header =
                    SegmentHeader { salt: self.salt, number: last.number, first_sequence: 1 };
                let file = self.files.create(&header)?;
                open.insert(Open { file, end: HEADER_BYTES, groups: 0, is_whole: true })
            }
        };
        // Every value lies apart from the keys, however small.
        let mut encoder = GroupEncoder::new(self.salt, 0);
        for (key, value) in values {
            let put = WriteOp::Put(key.clone(), value.clone());
            encoder.push(&put).map_err(io::Error::other)?;
        }
        let group = encoder.finish(open.groups + 1, last.number, open.end);
        let EncodedGroup { lead, values, changes } = group.map_err(io::Error::other)?;
        open.is_whole = false;
        let end = match write_pieces(&*open.file, lead, &values, open.end) {
            Ok(end) => end,
            Err(error) => {
                // A full disk may have room later: the next group starts where this one did.
                open.is_whole = is_full(&error) && open.file.set_len(open.end).is_ok();
                return Err(error);
            }
        };
        open.file.sync()?;
        open.is_whole = true;
        open.end = end;
        open.groups += 1;
        self.files.set_bytes(last.number, end);
        Ok(changes.iter().filter_map(IndexChange::place).collect())
    }
}
