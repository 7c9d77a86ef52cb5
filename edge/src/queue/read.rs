//! Reading a lane: an account of a range of sequences, each one a record or a skip with its reason.
//!
//! Readers open the segments by themselves and never wait for the writer. A segment that is trimmed or renamed between
//! the look into memory and the opening of the file is simply looked up again.

use std::io::ErrorKind;
use std::ops::Range;

use bytes::Bytes;
use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};

use super::clock::{Boots, Now, Stamp};
use super::cursor::push_merged;
use super::disk::DiskFile;
use super::errors::QueueError;
use super::scan::{At, Found, Scan, Unreadable};
use super::segment::{self, HEADER_BYTES, RecordView};
use super::state::{Lane, Location, Mark, Segment, Shared};
use super::trim;
use super::types::{Entry, ReadBatch, Skip, SkipReason};

/// A read stops after this many bytes even if all of them were expired.
const SCANNED_BYTES: usize = 8 * 1024 * 1024;
/// How often a segment that went away is looked up again.
const LOOK_UPS: usize = 8;

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadFor {
    /// The uplink: what the cloud does not have yet; expired records are skips.
    Uplink,
    /// The gateway's start-up: every record that is still there.
    Replay,
}

/// How much a read returns.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimits {
    /// At least one record is returned, whatever its size.
    pub max_bytes: usize,
    pub max_records: usize,
}

/// Reads from `from` on, or from the first sequence that there is for this purpose.
///
/// Where the disk cannot return something, the read fails, so that it can be tried again; what still cannot be read after
/// `READ_ATTEMPTS` is damage, so that one bad sector does not hold up the lane for ever.
pub(super) fn read(
    shared: &Shared,
    lane: LaneId,
    from: EdgeSeq,
    limits: ReadLimits,
    read_for: ReadFor,
) -> Result<ReadBatch, QueueError> {
    let batch = try_read(shared, lane, from, limits, read_for);
    let mut state = shared.lock();
    let poisoned = state.poisoned.is_some();
    let found = state.lane_mut(lane)?;
    found.failed_reads = match (&batch, found.failed_reads) {
        // On a disk that fails altogether nothing is given up.
        (Err(QueueError::Disk { .. }), _) if poisoned => None,
        (Err(QueueError::Disk { .. }), Some((at, count))) if at == from => {
            Some((at, count.saturating_add(1)))
        }
        (Err(QueueError::Disk { .. }), _) => Some((from, 1)),
        (_, Some((at, _))) if at == from => None,
        (_, other) => other,
    };
    batch
}

fn try_read(
    shared: &Shared,
    lane: LaneId,
    from: EdgeSeq,
    limits: ReadLimits,
    read_for: ReadFor,
) -> Result<ReadBatch, QueueError> {
    let (from, boots) = {
        let state = shared.lock();
        let found = state.lane(lane)?;
        let due = EdgeSeq(found.cursor.acknowledged.0.saturating_add(1));
        let first = found.segments.front().map_or(due, |segment| segment.base);
        let earliest = match read_for {
            ReadFor::Uplink => due,
            ReadFor::Replay => first.max(EdgeSeq(1)),
        };
        (from.max(earliest), state.boots.clone())
    };
    let before = EdgeSeq(from.0.saturating_sub(1));
    let digest_before = digest_at(shared, lane, before)?.unwrap_or_default();
    let now = shared.clock.now();
    let mut account = Account::new(from, digest_before, limits, read_for, now, boots);
    let mut look_ups = 0;
    while !account.is_full() {
        let location = shared.lock().lane(lane)?.locate(account.next);
        match location {
            Location::Ahead => break,
            Location::Skip(skip) => {
                account.skip(skip.to, skip.reason);
                account.digest = border_digest(shared, lane, skip.to)?.unwrap_or(account.digest);
            }
            Location::Segment { segment, next_base } => {
                let Some(file) = open(shared, lane, &segment, &mut look_ups)? else { continue };
                let source = Source { shared, lane, segment: &segment, file: file.as_ref() };
                source.read_into(&mut account, next_base)?;
            }
        }
    }
    if read_for == ReadFor::Uplink {
        shared.lock().lane_mut(lane)?.note_expired(account.from, account.next, &account.expired);
    }
    Ok(account.finish())
}

/// The digest at a sequence: of the last record at or before it that can be read. `None` if it was trimmed or dropped, or
/// is not synced yet.
pub(super) fn digest_at(
    shared: &Shared,
    lane: LaneId,
    seq: EdgeSeq,
) -> Result<Option<ChainDigest>, QueueError> {
    let next = EdgeSeq(seq.0.saturating_add(1));
    let mut look_ups = 0;
    loop {
        let segment = {
            let state = shared.lock();
            let found = state.lane(lane)?;
            if seq.0 == 0 {
                return Ok(Some(segment::first_digest(shared.store, lane)));
            }
            if seq == found.cursor.acknowledged {
                return Ok(Some(found.cursor.digest));
            }
            if seq > found.synced {
                return Ok(None);
            }
            if let Some(digest) = found.border_digest(next).or(found.marked_digest(next)) {
                return Ok(Some(digest));
            }
            match found.locate(seq) {
                Location::Segment { segment, .. } => segment,
                Location::Ahead | Location::Skip(_) => return Ok(None),
            }
        };
        let Some(file) = open(shared, lane, &segment, &mut look_ups)? else { continue };
        let source = Source { shared, lane, segment: &segment, file: file.as_ref() };
        return source.digest_at(seq);
    }
}

/// Whether nothing in the lane's first segment is needed any more: every time to live has passed, and the gateway's own
/// state has it, where that is asked for.
pub(super) fn front_is_expired(shared: &Shared, lane: LaneId) -> bool {
    let (segment, acknowledged, reflected, boots) = {
        let state = shared.lock();
        let Ok(found) = state.lane(lane) else { return false };
        let Some(segment) = found.segments.front() else { return false };
        let reflected = match shared.settings.keep_until_reflected {
            true => found.reflected,
            false => found.synced,
        };
        (segment.clone(), found.cursor.acknowledged, reflected, state.boots.clone())
    };
    let now = shared.clock.now();
    let Ok(Some(file)) = open(shared, lane, &segment, &mut 0) else { return false };
    let source = Source { shared, lane, segment: &segment, file: file.as_ref() };
    let mut scan = source.scan(segment.start());
    loop {
        match scan.next() {
            Ok(Some(Found::Record(record))) => {
                let over =
                    record.seq() <= acknowledged || is_expired(&record, &segment, &now, &boots);
                if !over || record.seq() > reflected {
                    return false;
                }
            }
            Ok(Some(Found::Damage { .. })) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// When the oldest record that the cloud does not have was received.
pub(super) fn oldest(shared: &Shared, lane: LaneId) -> Result<Option<Stamp>, QueueError> {
    let due = {
        let state = shared.lock();
        EdgeSeq(state.lane(lane)?.cursor.acknowledged.0.saturating_add(1))
    };
    let limits = ReadLimits { max_bytes: 0, max_records: 1 };
    let batch = read(shared, lane, due, limits, ReadFor::Replay)?;
    Ok(batch.entries.first().map(|entry| entry.stamp))
}

fn is_expired(record: &RecordView<'_>, segment: &Segment, now: &Now, boots: &Boots) -> bool {
    record.ttl().is_some_and(|ttl| record.stamp(segment.boot).age(now, boots) >= ttl)
}

fn border_digest(
    shared: &Shared,
    lane: LaneId,
    next: EdgeSeq,
) -> Result<Option<ChainDigest>, QueueError> {
    Ok(shared.lock().lane(lane)?.border_digest(next))
}

/// `None` if the file went away; then the sequence is to be looked up again.
fn open(
    shared: &Shared,
    lane: LaneId,
    segment: &Segment,
    look_ups: &mut usize,
) -> Result<Option<Box<dyn DiskFile>>, QueueError> {
    let path = shared.lane_dir(lane).join(segment::file_name(segment.base, segment.bad));
    *look_ups += 1;
    match shared.disk.open(&path, false) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound && *look_ups < LOOK_UPS => Ok(None),
        Err(source) => Err(QueueError::Disk { action: "open", path, source }),
    }
}

impl Segment {
    /// Before the first record.
    pub fn start(&self) -> At {
        At { offset: HEADER_BYTES as u64, next: self.base, digest: self.base_digest }
    }
}

/// One open segment.
struct Source<'a> {
    shared: &'a Shared,
    lane: LaneId,
    segment: &'a Segment,
    file: &'a dyn DiskFile,
}

impl Source<'_> {
    fn scan(&self, at: At) -> Scan<'_> {
        let gave_up = self.shared.lock().lane(self.lane).is_ok_and(Lane::gave_up_on_unreadable);
        let unreadable = if gave_up { Unreadable::IsDamage } else { Unreadable::Fails };
        Scan::new(self.file, self.shared.salt(self.lane), at, self.segment.len, unreadable)
    }

    /// Reads on until the account is full or the segment ends; what lies between its end and `next_base` is lost.
    fn read_into(&self, account: &mut Account, next_base: EdgeSeq) -> Result<(), QueueError> {
        let (start, _) = self.nearest(account.next)?;
        let mut scan = self.scan(start);
        let mut damaged = false;
        // What the file holds from `next_base` on was refused once and is not part of the lane.
        while !account.is_full() && account.next < next_base {
            match scan.next().map_err(|source| self.disk_error(source))? {
                Some(Found::Record(record)) => account.record(&record, self.segment),
                Some(Found::Damage { to, .. }) => {
                    damaged = true;
                    if let Some(to) = to {
                        account.skip(to.min(next_base), SkipReason::Quarantined);
                    }
                }
                None => {
                    damaged = true;
                    account.skip(next_base, SkipReason::Quarantined);
                }
            }
        }
        if account.next == next_base {
            account.digest =
                border_digest(self.shared, self.lane, next_base)?.unwrap_or(account.digest);
        }
        if damaged {
            trim::report_damage(self.shared, self.lane, self.segment.base);
        }
        if scan.at().next == account.next {
            self.remember(scan.at(), account.digest)?;
        }
        Ok(())
    }

    /// Where a scan that looks for `next` can begin, and the digest of the last readable record before that.
    fn nearest(&self, next: EdgeSeq) -> Result<(At, Option<ChainDigest>), QueueError> {
        let mark = self.shared.lock().lane(self.lane)?.mark_before(self.segment.base, next);
        let Some(mark) = mark else {
            return Ok((self.segment.start(), self.segment.base_digest));
        };
        let digest = mark.chains.then_some(mark.digest);
        Ok((At { offset: mark.offset, next: mark.next, digest }, Some(mark.digest)))
    }

    fn remember(&self, at: At, digest: ChainDigest) -> Result<(), QueueError> {
        let mark = Mark {
            next: at.next,
            digest,
            base: self.segment.base,
            offset: at.offset,
            chains: at.digest == Some(digest),
        };
        self.shared.lock().lane_mut(self.lane)?.add_mark(mark);
        Ok(())
    }

    fn digest_at(&self, seq: EdgeSeq) -> Result<Option<ChainDigest>, QueueError> {
        let (start, mut digest) = self.nearest(EdgeSeq(seq.0.saturating_add(1)))?;
        let mut scan = self.scan(start);
        while scan.at().next <= seq {
            match scan.next().map_err(|source| self.disk_error(source))? {
                Some(Found::Record(record)) if record.seq() <= seq => {
                    digest = Some(record.digest());
                }
                Some(Found::Damage { .. }) => {}
                Some(Found::Record(_)) | None => break,
            }
        }
        if let Some(digest) = digest.filter(|_| scan.at().next.0 == seq.0.saturating_add(1)) {
            self.remember(scan.at(), digest)?;
        }
        Ok(digest)
    }

    fn disk_error(&self, source: std::io::Error) -> QueueError {
        let name = segment::file_name(self.segment.base, self.segment.bad);
        let path = self.shared.lane_dir(self.lane).join(name);
        QueueError::Disk { action: "read", path, source }
    }
}

/// What a read has found so far.
struct Account {
    limits: ReadLimits,
    read_for: ReadFor,
    now: Now,
    boots: Boots,
    from: EdgeSeq,
    next: EdgeSeq,
    digest_before: ChainDigest,
    digest: ChainDigest,
    entries: Vec<(Entry, Range<usize>, usize)>,
    /// Client ids and bodies of all entries.
    arena: Vec<u8>,
    skips: Vec<Skip>,
    /// Those of `skips` that were found expired by this read.
    expired: Vec<Skip>,
    returned_bytes: usize,
    scanned_bytes: usize,
}

impl Account {
    fn new(
        from: EdgeSeq,
        digest: ChainDigest,
        limits: ReadLimits,
        read_for: ReadFor,
        now: Now,
        boots: Boots,
    ) -> Self {
        Self {
            limits,
            read_for,
            now,
            boots,
            from,
            next: from,
            digest_before: digest,
            digest,
            entries: Vec::new(),
            arena: Vec::new(),
            skips: Vec::new(),
            expired: Vec::new(),
            returned_bytes: 0,
            scanned_bytes: 0,
        }
    }

    fn is_full(&self) -> bool {
        let enough = self.returned_bytes >= self.limits.max_bytes
            || self.entries.len() >= self.limits.max_records;
        (enough && !self.entries.is_empty()) || self.scanned_bytes >= SCANNED_BYTES
    }

    /// Nothing between `next` and `to` has a record.
    fn skip(&mut self, to: EdgeSeq, reason: SkipReason) {
        if to > self.next {
            push_merged(&mut self.skips, Skip { from: self.next, to, reason });
            self.next = to;
        }
    }

    fn record(&mut self, record: &RecordView<'_>, segment: &Segment) {
        let seq = record.seq();
        if seq < self.next {
            return;
        }
        self.scanned_bytes += record.len();
        self.digest = record.digest();
        let expired =
            self.read_for == ReadFor::Uplink && is_expired(record, segment, &self.now, &self.boots);
        if expired {
            let to = EdgeSeq(seq.0.saturating_add(1));
            push_merged(&mut self.expired, Skip { from: seq, to, reason: SkipReason::Expired });
            self.skip(to, SkipReason::Expired);
            return;
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(record.tail());
        let entry = record.to_entry(segment.boot);
        self.entries.push((entry, start..self.arena.len(), record.client_len()));
        self.returned_bytes += record.len();
        self.next = EdgeSeq(seq.0.saturating_add(1));
    }

    fn finish(self) -> ReadBatch {
        let arena = Bytes::from(self.arena);
        let fill = |(mut entry, range, client_len): (Entry, Range<usize>, usize)| {
            let mut body = arena.slice(range);
            entry.origin.client_id = body.split_to(client_len);
            entry.body = body;
            entry
        };
        ReadBatch {
            from: self.from,
            next: self.next,
            digest_before: self.digest_before,
            digest: self.digest,
            entries: self.entries.into_iter().map(fill).collect(),
            skips: self.skips,
        }
    }
}
