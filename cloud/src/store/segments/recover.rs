//! Opening: what the segments hold beyond what the index has been told is told to it again, and a torn end is cut off.
//!
//! A group is begun only after the one before it was synced. So the last group alone can be torn, and whatever follows an unreadable
//! group proves that it was whole once: that is damage to what was promised, and the store is not opened.
//!
//! The last group may be whole and yet not be on the disk: the process was killed before its sync, or the sync failed, after which
//! the kernel counts the pages as clean. It is written again and synced before the index hears of it, since the index may be made
//! durable at any time.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::disk::{Disk, DiskFile, read_range, write_all};

use super::files::Files;
use super::format::{
    Group, GroupHead, HEAD_BYTES, HEADER_BYTES, IndexChange, Logged, SegmentHeader, read_group,
};
use super::index::{Entry, Index, Locator, Position};
use super::kept::is_kept;
use super::writer::{Writer, WriterSettings, apply};
use crate::store::{StoreError, WriteOp};

/// What opening did, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    pub groups: u64,
    /// Bytes of a write that nobody was told of.
    pub cut_bytes: u64,
}

struct Recovery<'a> {
    files: &'a Files,
    index: &'a dyn Index,
    replayed: Replayed,
}

/// A group that was read and not yet found to be whole.
struct Candidate {
    at: u64,
    head: GroupHead,
    changes: Vec<IndexChange>,
    values: Vec<Locator>,
    end: Position,
}

/// Brings the index up to the segments' end.
pub(super) fn recover(
    disk: Arc<dyn Disk>,
    dir: &Path,
    index: Arc<dyn Index>,
    fresh_salt: u32,
    settings: WriterSettings,
) -> Result<(Writer, Replayed), StoreError> {
    let failed = |reason: String| StoreError::Open { path: dir.display().to_string(), reason };
    let io_failed = |error: io::Error| failed(error.to_string());
    let files = Arc::new(Files::find(disk, dir, settings.recent_bytes).map_err(io_failed)?);
    let known = Position::read(&*index)?;
    let (kept, numbers): (Vec<u32>, Vec<u32>) =
        files.all().into_iter().map(|(number, _)| number).partition(|number| is_kept(*number));
    let mut recovery = Recovery { files: &files, index: &*index, replayed: Replayed::default() };
    let start = match (known, numbers.first()) {
        (None, None) if kept.is_empty() => None,
        (None, None) => {
            return Err(failed(
                "there are kept values without the segments and the index that name them: restore all together from a backup"
                    .to_owned(),
            ));
        }
        (Some(known), _) if numbers.contains(&known.segment) => Some(known),
        (Some(known), _) => {
            return Err(failed(format!(
                "the segment {} is missing, up to which the index goes",
                files.path(known.segment).display()
            )));
        }
        (None, Some(1)) => recovery.first_segment().map_err(failed)?,
        (None, Some(first)) => {
            return Err(failed(format!(
                "the index is empty, and the segments before {} are gone: restore both together from a backup",
                files.path(*first).display()
            )));
        }
    };
    let (salt, end) = match start {
        Some(start) => recovery.replay(start).map_err(failed)?,
        None => (fresh_salt, Position { sequence: 0, segment: 0, offset: HEADER_BYTES }),
    };
    let replayed = recovery.replayed;
    let (file, end) = match end.segment {
        0 => {
            let header = SegmentHeader { salt, number: 1, first_sequence: 1 };
            (files.create(&header).map_err(io_failed)?, Position { segment: 1, ..end })
        }
        last => {
            let file = files.get(last).map_err(io_failed)?;
            (file.ok_or_else(|| failed("a segment vanished".to_owned()))?, end)
        }
    };
    Ok((Writer { files, index, salt, settings, file, end, is_sealed: false }, replayed))
}

impl Recovery<'_> {
    /// Where the first segment's groups start, unless it was never finished being made: then it is removed.
    fn first_segment(&self) -> Result<Option<Position>, String> {
        match self.header(1)? {
            Some(header) => {
                let sequence = header.first_sequence.saturating_sub(1);
                Ok(Some(Position { sequence, segment: 1, offset: HEADER_BYTES }))
            }
            None if self.files.all().len() > 1 => {
                let path = self.files.path(1);
                Err(format!(
                    "{}: its header is damaged, and others follow it: restore the directory from a backup",
                    path.display()
                ))
            }
            None => {
                self.files.remove(1).map_err(|error| error.to_string())?;
                Ok(None)
            }
        }
    }

    fn file(&self, number: u32) -> Result<Arc<dyn DiskFile>, String> {
        let named = |error: String| format!("{}: {error}", self.files.path(number).display());
        let file = self.files.get(number).map_err(|error| named(error.to_string()))?;
        file.ok_or_else(|| named("it vanished".to_owned()))
    }

    fn header(&self, number: u32) -> Result<Option<SegmentHeader>, String> {
        let bytes = read(&*self.file(number)?, 0, HEADER_BYTES)?;
        Ok(SegmentHeader::decode(&bytes).filter(|header| header.number == number))
    }

    /// Goes through the groups after `start`. Returns the store's salt and the end of the last whole group.
    fn replay(&mut self, start: Position) -> Result<(u32, Position), String> {
        let Some(header) = self.header(start.segment)? else {
            let path = self.files.path(start.segment);
            return Err(format!("{}: its header is damaged", path.display()));
        };
        let salt = header.salt;
        let mut end = start;
        loop {
            let (segment_end, reached) = self.replay_segment(salt, end)?;
            let next = end.segment + 1;
            let all = self.files.all();
            let followed = all.iter().any(|(number, _)| *number == next);
            let later = all.iter().find(|(number, _)| *number > next && !is_kept(*number));
            let header = if followed { self.header(next)? } else { None };
            let Some(header) = header else {
                if let Some((later, _)) = later {
                    return Err(format!(
                        "{} is missing or damaged, and {} follows it, which it was written before: restore the directory from a backup",
                        self.files.path(next).display(),
                        self.files.path(*later).display()
                    ));
                }
                if followed {
                    // Made, and not finished when the machine stopped: nothing was ever written to it.
                    self.files.remove(next).map_err(|error| error.to_string())?;
                }
                self.cut(segment_end, reached, salt)?;
                return Ok((salt, segment_end));
            };
            if header.first_sequence != segment_end.sequence + 1 || header.salt != salt {
                return Err(self.damaged(segment_end));
            }
            end = Position { segment: next, offset: HEADER_BYTES, ..segment_end };
        }
    }

    fn damaged(&self, at: Position) -> String {
        format!(
            "{}: the group at byte {} is damaged, and acknowledged writes follow it. They cannot be told apart from lost ones: \
             restore the directory from a backup",
            self.files.path(at.segment).display(),
            at.offset
        )
    }

    /// Replays the groups of one segment from `from` on. Returns the end of the last whole one, and the length of the file.
    fn replay_segment(&mut self, salt: u32, from: Position) -> Result<(Position, u64), String> {
        let file = self.file(from.segment)?;
        let length = file.byte_len().map_err(|error| error.to_string())?;
        if length < from.offset {
            return Err(format!(
                "{}: it ends at byte {length}, before what the index knows to be written: restore the directory from a backup",
                self.files.path(from.segment).display()
            ));
        }
        let mut end = from;
        let mut candidate: Option<Candidate> = None;
        loop {
            let at = candidate.as_ref().map_or(end, |candidate| candidate.end);
            let next = self.group(&*file, salt, at, length)?;
            if let Some(whole) = candidate.take() {
                // The next group was begun after this one was synced; without a next one, its values have to prove it.
                if next.is_none() && !make_durable(&*file, &whole)? {
                    return Ok((end, length));
                }
                end = whole.end;
                apply(self.index, whole.changes, whole.end).map_err(|error| error.to_string())?;
                self.replayed.groups += 1;
            }
            match next {
                Some(next) => candidate = Some(next),
                None => return Ok((end, length)),
            }
        }
    }

    /// The group that starts at `at`, if its head and meta are whole.
    fn group(
        &self,
        file: &dyn DiskFile,
        salt: u32,
        at: Position,
        length: u64,
    ) -> Result<Option<Candidate>, String> {
        let group = read_group(file, salt, at.offset).map_err(|error| error.to_string())?;
        let Some(Group { head, values_at, changes }) = group else { return Ok(None) };
        if head.sequence != at.sequence + 1 || at.offset + head.group_bytes() > length {
            return Ok(None);
        }
        // Its checksum is right, so it is no torn end.
        let logged = changes.ok_or_else(|| {
            let path = self.files.path(at.segment);
            format!(
                "{}: the group at byte {} has changes of a kind that this release does not know: it was written by a newer one",
                path.display(),
                at.offset
            )
        })?;
        let end = Position {
            sequence: head.sequence,
            segment: at.segment,
            offset: at.offset + head.group_bytes(),
        };
        let changes = logged
            .into_iter()
            .map(|change| index_change(change, at.segment, values_at))
            .collect::<Result<Vec<_>, String>>()?;
        let places = changes.iter().filter_map(IndexChange::place);
        // What was moved lies elsewhere, where it was synced before this group was written.
        let values = places.filter(|place| place.segment == at.segment).collect();
        Ok(Some(Candidate { at: at.offset, head, changes, values, end }))
    }

    /// Cuts off what follows the last whole group, unless it is more than a write that nobody was told of.
    fn cut(&mut self, end: Position, length: u64, salt: u32) -> Result<(), String> {
        if length <= end.offset {
            return Ok(());
        }
        let file = self.file(end.segment)?;
        let tail = read(&*file, end.offset, length - end.offset)?;
        let head_bytes = usize::try_from(HEAD_BYTES).unwrap_or(usize::MAX);
        let later = tail.windows(head_bytes).skip(1).any(|bytes| {
            GroupHead::decode(bytes, salt).is_some_and(|head| head.sequence > end.sequence + 1)
        });
        if later {
            return Err(self.damaged(end));
        }
        file.set_len(end.offset).and_then(|()| file.sync()).map_err(|error| error.to_string())?;
        self.files.set_bytes(end.segment, end.offset);
        self.replayed.cut_bytes = length - end.offset;
        Ok(())
    }
}

fn read(file: &dyn DiskFile, at: u64, bytes: u64) -> Result<Bytes, String> {
    let bytes = usize::try_from(bytes).map_err(|error| error.to_string())?;
    read_range(file, at, bytes).map(Bytes::from).map_err(|error| error.to_string())
}

/// Whether the values of the last group are whole; then the group is on the disk afterwards.
fn make_durable(file: &dyn DiskFile, group: &Candidate) -> Result<bool, String> {
    let bytes = read(file, group.at, group.head.group_bytes())?;
    let is_whole = |value: &Locator| {
        let range = usize::try_from(u64::from(value.offset) - group.at)
            .ok()
            .and_then(|from| bytes.get(from..from + value.len as usize));
        range.is_some_and(|range| crc32c::crc32c(range) == value.crc)
    };
    if !group.values.iter().all(is_whole) {
        return Ok(false);
    }
    write_all(file, &bytes, group.at)
        .and_then(|()| file.sync())
        .map_err(|error| error.to_string())?;
    Ok(true)
}

/// What a logged change means for the index, its value lying in `segment` after `values_at`.
fn index_change(change: Logged, segment: u32, values_at: u64) -> Result<IndexChange, String> {
    let whole = |op| Ok(IndexChange { op, only_if: None });
    match change {
        Logged::Put { key, value } => whole(WriteOp::Put(key, Entry::Inline(value).encode())),
        Logged::Delete { key } => whole(WriteOp::Delete(key)),
        Logged::DeleteRange(range) => whole(WriteOp::DeleteRange(range)),
        Logged::Moved { key, to, from } => {
            Ok(IndexChange { op: WriteOp::Put(key, to), only_if: Some(from) })
        }
        Logged::Separated { key, at, len, crc, only_if } => {
            let offset = u32::try_from(values_at + at).map_err(|error| error.to_string())?;
            let place = Locator { segment, offset, len, crc };
            Ok(IndexChange { op: WriteOp::Put(key, Entry::At(place).encode()), only_if })
        }
    }
}
