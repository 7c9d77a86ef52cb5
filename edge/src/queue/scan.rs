//! Walks a segment's records in order, and around what cannot be read.

use std::io;

use robustmq_common::ids::{ChainDigest, EdgeSeq};
use robustmq_common::limits::QUEUE_KEPT_BUFFER_BYTES;

use super::disk::{self, DiskFile};
use super::segment::{self, RECORD_HEAD_BYTES, RecordView, Salt};

const READ_AHEAD_BYTES: usize = 64 * 1024;

/// What a disk reads or fails to read at once.
const BLOCK_BYTES: u64 = 4096;

/// What to do with bytes that the disk cannot return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreadable {
    /// The scan fails; it may be tried again.
    Fails,
    /// They count as damage: the disk had its chances.
    IsDamage,
}

/// A piece of a file in memory.
struct Window {
    buffer: Vec<u8>,
    start: u64,
    unreadable: Unreadable,
}

impl Window {
    /// The bytes from `offset`, up to `len` of them; fewer where `end` or the file ends.
    fn get(&mut self, file: &dyn DiskFile, offset: u64, len: usize, end: u64) -> io::Result<&[u8]> {
        let len = len.min(usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX));
        if self.slice(offset, len).is_none() {
            let ahead = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let want = len.max(READ_AHEAD_BYTES.min(ahead));
            if self.buffer.capacity() > QUEUE_KEPT_BUFFER_BYTES && want <= READ_AHEAD_BYTES {
                self.buffer = Vec::new();
            }
            self.buffer.clear();
            self.buffer.resize(want, 0);
            let filled = match disk::read_up_to(file, &mut self.buffer, offset) {
                Err(_) if self.unreadable == Unreadable::IsDamage => {
                    read_what_can_be(file, &mut self.buffer, offset);
                    want
                }
                filled => filled?,
            };
            self.buffer.truncate(filled);
            self.start = offset;
        }
        Ok(self.slice(offset, len).unwrap_or(&self.buffer))
    }

    fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.buffer.get(at..at.checked_add(len)?)
    }
}

/// Reads block by block; what cannot be read is zeros, which no record is.
fn read_what_can_be(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) {
    let mut at = 0;
    while at < buffer.len() {
        let to_border = BLOCK_BYTES - (offset + at as u64) % BLOCK_BYTES;
        let end = buffer.len().min(at + usize::try_from(to_border).unwrap_or(1));
        let block = &mut buffer[at..end];
        if disk::read_up_to(file, block, offset + at as u64).is_err() {
            block.fill(0);
        }
        at = end;
    }
}

/// What a scan came upon.
pub(super) enum Found<'a> {
    Record(RecordView<'a>),
    /// From `at_byte` on something could not be read; the next good record, if any, is found by the next call. Sequences
    /// `[from, to)` are lost; `to` is `None` where nothing good follows in the segment.
    Damage {
        at_byte: u64,
        from: EdgeSeq,
        to: Option<EdgeSeq>,
        /// The last sequence that was known to be synced when the record after the damage was appended.
        synced_before_next: Option<EdgeSeq>,
    },
}

/// Where a scan stands: before sequence `next`, at byte `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At {
    pub offset: u64,
    pub next: EdgeSeq,
    /// The digest before `next`, where it is known.
    pub digest: Option<ChainDigest>,
}

/// Walks the records of one segment.
pub(super) struct Scan<'f> {
    file: &'f dyn DiskFile,
    salt: Salt,
    end: u64,
    at: At,
    window: Window,
}

impl<'f> Scan<'f> {
    /// Starts at `at`; bytes from `end` on are not looked at.
    pub fn new(
        file: &'f dyn DiskFile,
        salt: Salt,
        at: At,
        end: u64,
        unreadable: Unreadable,
    ) -> Self {
        let window = Window { buffer: Vec::new(), start: 0, unreadable };
        Self { file, salt, end, at, window }
    }

    /// Where the next call continues.
    pub fn at(&self) -> At {
        self.at
    }

    /// The next record or damage; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        let at = self.at;
        if at.offset >= self.end {
            return Ok(None);
        }
        let Some((length, client_len)) = self.good_record_at(at)? else {
            return self.pass_damage(at).map(Some);
        };
        let bytes = self.window.get(self.file, at.offset, length, self.end)?;
        let record = RecordView::parsed(bytes, client_len);
        self.at = At {
            offset: at.offset + length as u64,
            next: EdgeSeq(at.next.0.saturating_add(1)),
            digest: Some(record.digest()),
        };
        Ok(Some(Found::Record(record)))
    }

    /// The lengths of the record at `at` and of its client id, if it is whole, has the sequence that is due, and continues
    /// the digest.
    fn good_record_at(&mut self, at: At) -> io::Result<Option<(usize, usize)>> {
        let head = self.window.get(self.file, at.offset, RECORD_HEAD_BYTES, self.end)?;
        let Some(length) = segment::claimed_len(head) else { return Ok(None) };
        let bytes = self.window.get(self.file, at.offset, length, self.end)?;
        let record = RecordView::parse(bytes, self.salt).filter(|record| {
            record.seq() == at.next && at.digest.is_none_or(|before| record.continues(before))
        });
        Ok(record.map(|record| (length, record.client_len())))
    }

    fn pass_damage(&mut self, at: At) -> io::Result<Found<'static>> {
        let found = self.search(at)?;
        let (to, synced) = match found {
            Some((offset, seq, synced)) => {
                self.at = At { offset, next: seq, digest: None };
                (Some(seq), Some(synced))
            }
            None => {
                self.at.offset = self.end;
                (None, None)
            }
        };
        Ok(Found::Damage { at_byte: at.offset, from: at.next, to, synced_before_next: synced })
    }

    /// Looks byte by byte for the next good record. Only a sequence that can still come is considered, so that hardly any
    /// position costs a CRC.
    fn search(&mut self, at: At) -> io::Result<Option<(u64, EdgeSeq, EdgeSeq)>> {
        let most = self.end.saturating_sub(at.offset) / RECORD_HEAD_BYTES as u64 + 1;
        let plausible = at.next.0..=at.next.0.saturating_add(most);
        let mut offset = at.offset;
        while self.end.saturating_sub(offset) > RECORD_HEAD_BYTES as u64 {
            offset += 1;
            let head = self.window.get(self.file, offset, RECORD_HEAD_BYTES, self.end)?;
            let Some(length) = segment::claimed_len(head) else { continue };
            if !segment::claimed_seq(head).is_some_and(|seq| plausible.contains(&seq.0)) {
                continue;
            }
            let bytes = self.window.get(self.file, offset, length, self.end)?;
            if let Some(record) = RecordView::parse(bytes, self.salt) {
                return Ok(Some((offset, record.seq(), record.synced_before())));
            }
        }
        Ok(None)
    }
}
