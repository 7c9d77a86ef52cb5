//! Looking at a queue's files without changing them, beside a running edge if need be.
//!
//! `inspect` reads headers, cursors and the last segment of each lane; `verify` reads every record and checks its CRC, its
//! sequence and the digest chain across segments.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};
use robustmq_common::limits::QUEUE_LANES_MAX;
use serde::Serialize;

use super::cursor::{Cursor, Identity};
use super::disk::{self, Disk, DiskFile, ReadOnlyDisk};
use super::errors::OpenError;
use super::judge::{Last, Verdict};
use super::register::Register;
use super::scan::{At, Found, Scan, Unreadable};
use super::segment::{self, HEADER_BYTES, Header, HeaderRead, Salt};
use super::state::lane_dir_name;
use super::types::{SkipReason, StoreId};

/// How much is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Headers, cursors, last segments.
    Inspect,
    /// Every record.
    Verify,
}

/// What a queue directory holds.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Its identity, in hexadecimal.
    pub store: String,
    /// What the cloud issued to it.
    pub incarnation: Option<u64>,
    /// Each lane.
    pub lanes: Vec<LaneInspection>,
    /// What is not as it should be; empty for a sound queue.
    pub problems: Vec<String>,
}

/// What a lane's directory holds.
#[derive(Clone, Debug, Serialize)]
pub struct LaneInspection {
    /// The lane.
    pub lane: u8,
    /// The last sequence that the cloud has.
    pub acknowledged_through: u64,
    /// The sequence that the next append would get.
    pub next_sequence: u64,
    /// Given up since the queue was made.
    pub expired_records: u64,
    /// Dropped because the queue was full, since it was made.
    pub dropped_records: u64,
    /// Unreadable, since it was made.
    pub quarantined_records: u64,
    /// Sequences dropped that the cloud was not told about yet.
    pub skips: Vec<SkipInspection>,
    /// The files, oldest first.
    pub segments: Vec<SegmentInspection>,
}

/// Sequences `[from, to)` that were dropped.
#[derive(Clone, Debug, Serialize)]
pub struct SkipInspection {
    /// The first one.
    pub from: u64,
    /// The first one after them.
    pub to: u64,
    /// `expired`, `dropped` or `quarantined`.
    pub reason: &'static str,
}

/// A segment file.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentInspection {
    /// Its name in the lane's directory.
    pub file: String,
    /// The first sequence in it.
    pub first_sequence: u64,
    /// Its size.
    pub bytes: u64,
    /// Records in it that can be read, if it was read.
    pub records: Option<u64>,
    /// Bytes at its end that no record was promised in: an append that is under way or that a crash cut short.
    pub unfinished_bytes: u64,
}

impl Inspection {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Looks at the queue in `dir`.
///
/// # Errors
/// [`OpenError`] if there is no queue or the disk refuses.
pub fn inspect(dir: &Path, depth: Depth) -> Result<Inspection, OpenError> {
    inspect_on(&ReadOnlyDisk, dir, depth)
}

/// As [`inspect`], on another disk.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_on(disk: &dyn Disk, dir: &Path, depth: Depth) -> Result<Inspection, OpenError> {
    let path = dir.join("queue.id");
    let mut problems = Vec::new();
    let identity = peek(disk, &path, Identity::decode, &mut problems)?;
    let names = disk.list(dir).map_err(|source| disk_error("list", dir, source))?;
    if identity.is_none() && !names.iter().any(|name| name.starts_with("lane-")) {
        let source = ErrorKind::NotFound.into();
        return Err(disk_error("find a queue in", dir, source));
    }
    let mut looking =
        Looking { disk, dir, depth, store: identity.as_ref().map(|found| found.store), problems };
    let mut lanes = Vec::new();
    for lane in (0..QUEUE_LANES_MAX).map(LaneId) {
        if names.contains(&lane_dir_name(lane)) {
            lanes.push(looking.lane(lane)?);
        }
    }
    Ok(Inspection {
        store: looking.store.map_or_else(|| "unknown".to_owned(), |store| store.to_string()),
        incarnation: identity.and_then(|found| found.incarnation).map(|incarnation| incarnation.0),
        lanes,
        problems: looking.problems,
    })
}

fn disk_error(action: &'static str, path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Disk { action, path: path.to_owned(), source }
}

fn peek<T>(
    disk: &dyn Disk,
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Option<T>,
    problems: &mut Vec<String>,
) -> Result<Option<T>, OpenError> {
    let held = Register::peek(disk, path).map_err(|source| disk_error("read", path, source))?;
    let value = held.value.as_deref().and_then(decode);
    // A register that was never stored to has neither.
    if held.damaged || (held.value.is_some() && value.is_none()) {
        let state = if value.is_some() { "one of two slots is unreadable" } else { "unreadable" };
        problems.push(format!("{}: {state}", path.display()));
    }
    Ok(value)
}

struct Looking<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    depth: Depth,
    store: Option<StoreId>,
    problems: Vec<String>,
}

/// Where a lane ends: in which of its segments, and what that one holds. Later ones were only being made.
#[derive(Default)]
struct Tail {
    last: Option<usize>,
    verdict: Option<Verdict>,
}

/// Which part of a lane a segment is.
enum Part {
    /// It ends before this sequence.
    Before(EdgeSeq),
    /// The lane ends in it, before this sequence.
    Last(Verdict, EdgeSeq),
    /// The lane ends before it.
    BeingMade,
}

/// A segment's file, open.
struct Opened {
    file: Box<dyn DiskFile>,
    header: HeaderRead,
    len: u64,
}

/// Where the segments so far end.
struct End {
    next: EdgeSeq,
    digest: Option<ChainDigest>,
}

impl Looking<'_> {
    fn lane(&mut self, id: LaneId) -> Result<LaneInspection, OpenError> {
        let dir = self.dir.join(lane_dir_name(id));
        // In this order: what the edge trims meanwhile is explained by the cursor that is read later.
        let names = self.disk.list(&dir).map_err(|source| disk_error("list", &dir, source))?;
        let cursor = peek(self.disk, &dir.join("cursor"), Cursor::decode, &mut self.problems)?;
        let cursor = cursor.unwrap_or_default();
        let mut found: Vec<_> =
            names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
        found.sort_unstable();
        let due = EdgeSeq(cursor.acknowledged.0.saturating_add(1));
        let floor = cursor.next_floor.max(due);
        let first = cursor.skips.end().unwrap_or(due);
        let tail = self.tail(id, &dir, &found, floor)?;
        let mut end = End { next: first, digest: None };
        let mut segments = Vec::new();
        for (index, (base, bad)) in found.iter().copied().enumerate() {
            let next_base = found.get(index + 1).map(|(base, _)| *base);
            let settled = next_base.is_some_and(|next| next <= first);
            if bad && settled {
                let name = segment::file_name(base, bad);
                self.problems.push(format!("lane {id}: {name} is kept as evidence of damage"));
            } else if !settled {
                let part = match (tail.verdict, next_base) {
                    (Some(verdict), _) if Some(index) == tail.last => {
                        Part::Last(verdict, verdict.next.max(floor))
                    }
                    (_, Some(next)) if Some(index) < tail.last => Part::Before(next),
                    _ => Part::BeingMade,
                };
                segments.extend(self.segment(id, &dir, (base, bad), &part, &mut end)?);
            }
        }
        let skips = cursor.skips.iter().map(|skip| SkipInspection {
            from: skip.from.0,
            to: skip.to.0,
            reason: match skip.reason {
                SkipReason::Expired => "expired",
                SkipReason::Dropped => "dropped",
                SkipReason::Quarantined => "quarantined",
            },
        });
        Ok(LaneInspection {
            lane: id.0,
            acknowledged_through: cursor.acknowledged.0,
            next_sequence: end.next.max(cursor.next_floor).0,
            expired_records: cursor.drops.expired_records,
            dropped_records: cursor.drops.dropped_records,
            quarantined_records: cursor.drops.quarantined_records,
            skips: skips.collect(),
            segments,
        })
    }

    /// Judges the last segments as recovery would, until one holds something.
    fn tail(
        &mut self,
        id: LaneId,
        dir: &Path,
        found: &[(EdgeSeq, bool)],
        floor: EdgeSeq,
    ) -> Result<Tail, OpenError> {
        for (index, (base, bad)) in found.iter().copied().enumerate().rev() {
            let path = dir.join(segment::file_name(base, bad));
            let Some(Opened { file, header, len }) = self.open(&path)? else { continue };
            let store = self.store_by(&header);
            let own = match header {
                HeaderRead::Good(header) if header.belongs(store, id, base) => Some(header),
                _ => None,
            };
            let judged = Last {
                file: file.as_ref(),
                salt: Salt::new(store, id),
                base,
                base_digest: own.map(|header| header.base_digest),
                len,
                floor,
            };
            let verdict = judged.judge().map_err(|source| disk_error("read", &path, source))?;
            let newer = matches!(header, HeaderRead::Newer(_));
            if newer || !verdict.was_being_made(base) {
                return Ok(Tail { last: Some(index), verdict: Some(verdict) });
            }
        }
        Ok(Tail::default())
    }

    /// The store's id; where that is not known, what the first good header says.
    fn store_by(&mut self, header: &HeaderRead) -> StoreId {
        match header {
            HeaderRead::Good(header) => *self.store.get_or_insert(header.store),
            HeaderRead::Newer(_) | HeaderRead::Bad => self.store.unwrap_or(StoreId([0; 16])),
        }
    }

    /// `None` if the file went away meanwhile: the edge is running and trimmed it.
    fn open(&self, path: &Path) -> Result<Option<Opened>, OpenError> {
        let file = match self.disk.open(path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk_error("open", path, error)),
        };
        let mut bytes = [0u8; HEADER_BYTES];
        let filled = disk::read_up_to(file.as_ref(), &mut bytes, 0).unwrap_or(0);
        let len = file.byte_len().map_err(|source| disk_error("read", path, source))?;
        let header = Header::decode(bytes.get(..filled).unwrap_or_default());
        Ok(Some(Opened { file, header, len }))
    }

    /// `None` if the file went away meanwhile.
    fn segment(
        &mut self,
        id: LaneId,
        dir: &Path,
        (base, bad): (EdgeSeq, bool),
        part: &Part,
        end: &mut End,
    ) -> Result<Option<SegmentInspection>, OpenError> {
        let name = segment::file_name(base, bad);
        let path = dir.join(&name);
        let Some(Opened { file, header, len }) = self.open(&path)? else { return Ok(None) };
        let mut found = SegmentInspection {
            file: name.clone(),
            first_sequence: base.0,
            bytes: len,
            records: None,
            unfinished_bytes: 0,
        };
        if matches!(part, Part::BeingMade) {
            (found.records, found.unfinished_bytes) = (Some(0), len);
            return Ok(Some(found));
        }
        let store = self.store_by(&header);
        let mut problems = Vec::new();
        let base_digest = match header {
            HeaderRead::Good(header) if header.belongs(store, id, base) => Some(header.base_digest),
            HeaderRead::Good(_) => {
                problems.push("belongs to another queue or place".to_owned());
                None
            }
            HeaderRead::Newer(format) => {
                problems.push(format!("has the later format {format}"));
                None
            }
            HeaderRead::Bad => {
                problems.push("has an unreadable header".to_owned());
                None
            }
        };
        if base > end.next {
            let last = base.0 - 1;
            problems.push(format!("sequences {} to {last} before it are missing", end.next));
        } else if end.digest.is_some() && end.next == base && base_digest != end.digest {
            problems.push("does not continue the digest of the one before it".to_owned());
        }
        let start = At { offset: HEADER_BYTES as u64, next: base, digest: base_digest };
        let (read_bytes, beyond) = match part {
            Part::Last(verdict, beyond) => (Some(verdict.good_end), *beyond),
            Part::Before(next) => ((self.depth == Depth::Verify).then_some(len), *next),
            Part::BeingMade => (None, base),
        };
        *end = End { next: beyond, digest: None };
        if let Some(bytes) = read_bytes {
            found.unfinished_bytes = len.saturating_sub(bytes);
            let salt = Salt::new(store, id);
            let scan = Scan::new(file.as_ref(), salt, start, bytes, Unreadable::IsDamage);
            end.digest = read(scan, beyond, &mut found, &mut problems)
                .map_err(|source| disk_error("read", &path, source))?;
        }
        self.problems.extend(problems.iter().map(|problem| format!("lane {id}: {name} {problem}")));
        Ok(Some(found))
    }
}

/// Reads a segment that ends before sequence `beyond`; the digest at its end.
fn read(
    mut scan: Scan<'_>,
    beyond: EdgeSeq,
    found: &mut SegmentInspection,
    problems: &mut Vec<String>,
) -> std::io::Result<Option<ChainDigest>> {
    let mut records = 0;
    while scan.at().next < beyond {
        let (at_byte, from, to) = match scan.next()? {
            Some(Found::Record(_)) => {
                records += 1;
                continue;
            }
            Some(Found::Damage { at_byte, from, to, .. }) => (at_byte, from, to),
            None => (scan.at().offset, scan.at().next, None),
        };
        let lost = to.unwrap_or(beyond).0.saturating_sub(from.0);
        problems.push(format!("is damaged at byte {at_byte}: {lost} records from {from}"));
        if to.is_none() {
            found.records = Some(records);
            return Ok(None);
        }
    }
    found.records = Some(records);
    Ok(scan.at().digest)
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incarnation = self.incarnation.map_or("none yet".to_owned(), |n| n.to_string());
        writeln!(f, "store {}, incarnation {incarnation}", self.store)?;
        for lane in &self.lanes {
            writeln!(
                f,
                "lane {}: acknowledged through {}, next {}, expired {}, dropped {}, quarantined {}",
                lane.lane,
                lane.acknowledged_through,
                lane.next_sequence,
                lane.expired_records,
                lane.dropped_records,
                lane.quarantined_records
            )?;
            for skip in &lane.skips {
                writeln!(f, "  {} to {}: {}", skip.from, skip.to - 1, skip.reason)?;
            }
            for segment in &lane.segments {
                write!(f, "  {}  {} bytes", segment.file, segment.bytes)?;
                if let Some(records) = segment.records {
                    write!(f, ", {records} records")?;
                }
                if segment.unfinished_bytes > 0 {
                    write!(f, ", {} bytes unfinished", segment.unfinished_bytes)?;
                }
                writeln!(f)?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        Ok(())
    }
}
