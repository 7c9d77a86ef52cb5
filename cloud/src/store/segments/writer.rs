//! The writer: a group becomes bytes at the end of the last segment, a sync, and changes of the index, in that order.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::disk::{DiskFile, is_full, write_all};
use robustmq_common::limits;

use super::files::Files;
use super::format::{EncodedGroup, GroupEncoder, IndexChange, SegmentHeader, TooLarge};
use super::index::{Index, Position};
use crate::store::write::QueuedWrite;
use crate::store::{StoreError, WriteOp};

/// What recovery hands over: where the next group goes.
pub(super) struct Writer {
    pub files: Arc<Files>,
    pub index: Arc<dyn Index>,
    pub salt: u32,
    pub settings: WriterSettings,
    /// The last segment.
    pub file: Arc<dyn DiskFile>,
    /// The end of the last group.
    pub end: Position,
    /// The last segment takes no more.
    pub is_sealed: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct WriterSettings {
    pub segment_bytes: u64,
    pub separated_bytes: usize,
    pub recent_bytes: usize,
}

fn too_large(error: TooLarge) -> StoreError {
    // Frames and batches are bounded far below this.
    StoreError::Poisoned(error.to_string())
}

impl Writer {
    /// Has the next group begin a new segment, if that makes a difference.
    pub(super) fn seal(&mut self) {
        self.is_sealed = self.end.offset > limits::STORE_SEALED_EARLY_BYTES;
    }

    /// Writes one group. `Ok`: it is durable, and the index has it.
    pub(super) fn write(&mut self, group: &[QueuedWrite]) -> Result<(), StoreError> {
        if self.is_sealed || self.end.offset >= self.settings.segment_bytes {
            self.begin_segment()?;
            self.is_sealed = false;
        }
        let mut encoder = GroupEncoder::new(self.salt, self.settings.separated_bytes);
        for write in group {
            let mut guards = write.guards.iter();
            for op in &write.ops {
                match (op, guards.next()) {
                    (WriteOp::Put(key, to), Some(from)) => encoder.push_moved(key, to, from),
                    _ => encoder.push(op),
                }
                .map_err(too_large)?;
            }
        }
        let sequence = self.end.sequence + 1;
        let encoded = encoder.finish(sequence, self.end.segment, self.end.offset);
        let EncodedGroup { lead, values, changes } = encoded.map_err(too_large)?;
        let written = self.append(lead, &values)?;
        self.file
            .sync()
            .map_err(|error| StoreError::Poisoned(format!("a sync failed: {error}")))?;
        self.end = Position { sequence, segment: self.end.segment, offset: written };
        self.files.set_bytes(self.end.segment, written);
        // What was moved is old, and has no value here.
        if !values.is_empty() {
            let places = changes.iter().filter_map(IndexChange::place);
            self.files.recent().remember(places.zip(values));
        }
        apply(&*self.index, changes, self.end).map_err(|error| {
            StoreError::Poisoned(format!("the index failed after a sync: {error}"))
        })
    }

    /// Writes a group's bytes; returns where it ends.
    fn append(&self, lead: Vec<u8>, values: &[Bytes]) -> Result<u64, StoreError> {
        let start = self.end.offset;
        match write_pieces(&*self.file, lead, values, start) {
            Ok(end) => Ok(end),
            Err(error) if is_full(&error) => {
                // What was written of it is cut off, so that the next group starts where this one did.
                self.file.set_len(start).map_err(|error| {
                    StoreError::Poisoned(format!("a refused write could not be cut off: {error}"))
                })?;
                Err(StoreError::NoSpace(error.to_string()))
            }
            Err(error) => Err(StoreError::Poisoned(format!("a write failed: {error}"))),
        }
    }

    fn begin_segment(&mut self) -> Result<(), StoreError> {
        let number = self.end.segment + 1;
        let header =
            SegmentHeader { salt: self.salt, number, first_sequence: self.end.sequence + 1 };
        self.file = self.files.create(&header).map_err(|error| match is_full(&error) {
            true => StoreError::NoSpace(error.to_string()),
            false => StoreError::Poisoned(format!("a segment could not be made: {error}")),
        })?;
        let offset = super::format::HEADER_BYTES;
        self.end = Position { segment: number, offset, ..self.end };
        Ok(())
    }
}

/// Writes a group's bytes; returns where they end. Small values are gathered, so that they cost no call each; large ones are written
/// from where they are.
pub(super) fn write_pieces(
    file: &dyn DiskFile,
    lead: Vec<u8>,
    values: &[Bytes],
    mut offset: u64,
) -> io::Result<u64> {
    let mut gathered = lead;
    let mut put = |bytes: &[u8]| {
        write_all(file, bytes, offset)?;
        offset += bytes.len() as u64;
        io::Result::Ok(())
    };
    for value in values {
        if value.len() < limits::STORE_COPIED_VALUE_BYTES {
            gathered.extend_from_slice(value);
            if gathered.len() < 4 * limits::STORE_COPIED_VALUE_BYTES {
                continue;
            }
        }
        put(&gathered)?;
        gathered.clear();
        if value.len() >= limits::STORE_COPIED_VALUE_BYTES {
            put(value)?;
        }
    }
    put(&gathered)?;
    Ok(offset)
}

/// Tells the index what a group changes, and that it has been told.
pub(super) fn apply(
    index: &dyn Index,
    changes: Vec<IndexChange>,
    end: Position,
) -> Result<(), StoreError> {
    let mut ops = Vec::with_capacity(changes.len() + 1);
    for IndexChange { op, only_if } in changes {
        let counts = match (&op, only_if) {
            // Moved values come in a group of their own, so that the index shows what is true for them.
            (WriteOp::Put(key, _), Some(expected)) => index.get(key)? == Some(expected),
            _ => true,
        };
        match op {
            _ if !counts => {}
            WriteOp::DeleteRange(range) => delete_range(index, range, &mut ops)?,
            op => ops.push(op),
        }
    }
    ops.push(end.op());
    index.apply(&ops)
}

/// A range that holds few keys is deleted key by key: RocksDB looks through the ranges that were deleted at each read, and sorts them anew
/// after each one that is added.
fn delete_range(
    index: &dyn Index,
    range: Range<Bytes>,
    ops: &mut Vec<WriteOp>,
) -> Result<(), StoreError> {
    let is_inside = |op: &WriteOp| matches!(op, WriteOp::Put(key, _) if range.contains(key));
    let mut keys = Vec::new();
    if !ops.iter().any(is_inside) {
        index.walk(&range, &mut |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            keys.len() <= limits::STORE_POINT_DELETIONS
        })?;
        if keys.len() <= limits::STORE_POINT_DELETIONS {
            ops.extend(keys.into_iter().map(WriteOp::Delete));
            return Ok(());
        }
    }
    ops.push(WriteOp::DeleteRange(range));
    Ok(())
}
