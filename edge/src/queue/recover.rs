//! Opening: what a crash left is made whole, what cannot be made whole is named, and the queue starts.
//!
//! Only the last segment of each lane is read; of the others the header. Damage in those is found when they are read for
//! sending (or by `verify`).

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};
use robustmq_common::limits::{QUEUE_LANES_MAX, QUEUE_LEAST_MAX_BYTES, QUEUE_RECORD_BYTES};
use tokio::sync::watch;

use super::clock::{BootId, Boots, Clock};
use super::cursor::{Cursor, Identity};
use super::disk::{self, Disk};
use super::errors::OpenError;
use super::judge::{Last, Lost, Verdict};
use super::register::Register;
use super::segment::{self, FORMAT, HEADER_BYTES, Header, HeaderRead, Salt};
use super::state::{Group, Lane, Segment, Shared, State, lane_dir_name};
use super::types::{Damage, QueueSettings, Recovered, RecoveredLane, StoreId};
use super::writer::{Active, LaneFiles, Writer};

/// What opening needs at every step.
struct Opening<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    settings: &'a QueueSettings,
    boot: BootId,
    store: StoreId,
    report: Recovered,
}

/// Opens the queue in `dir`, made if need be.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: &Path,
    settings: QueueSettings,
) -> Result<(Arc<Shared>, Writer, Recovered), OpenError> {
    let settings = check(settings)?;
    at("create", dir, disk.create_dir(dir))?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    at("sync", dir, disk.sync_dir(above.unwrap_or(Path::new("."))))?;
    let lock_path = dir.join("queue.lock");
    let lock = at("lock", &lock_path, disk.lock(&lock_path))?
        .ok_or_else(|| OpenError::Locked { dir: dir.to_owned() })?;
    let now = clock.now();
    let mut opening = Opening {
        disk: disk.as_ref(),
        dir,
        settings: &settings,
        boot: now.boot,
        store: StoreId([0; 16]),
        report: Recovered {
            new_store: false,
            lanes: Vec::new(),
            damage: Vec::new(),
            notes: Vec::new(),
        },
    };
    let (identity_file, mut identity) = opening.identity()?;
    let learned = identity.boots.learn(&now);
    let mut lanes = Vec::new();
    let mut files = Vec::new();
    for id in opening.lane_ids()? {
        let (lane, lane_files) = opening.lane(id)?;
        lanes.push(lane);
        files.push(lane_files);
    }
    at("sync", dir, disk.sync_dir(dir))?;
    let report = opening.report;
    let disk_bytes = lanes.iter().flat_map(|lane| &lane.segments).map(|segment| segment.len).sum();
    let state = State {
        lanes,
        poisoned: None,
        closing: false,
        incarnation: identity.incarnation,
        issued: None,
        boots: identity.boots,
        identity_dirty: learned,
        flush: None,
        purge_wanted: false,
        purged_at: None,
        retry_at: None,
        disk_bytes,
        pending_bytes: 0,
    };
    let store = identity.store;
    let writer = Writer { lanes: files, identity: identity_file, no_space: None, _lock: lock };
    let shared = Shared::new(disk, clock, dir.to_owned(), settings, store, state);
    Ok((Arc::new(shared), writer, report))
}

fn check(mut settings: QueueSettings) -> Result<QueueSettings, OpenError> {
    let refuse = |key, problem: String| Err(OpenError::Setting { key, problem });
    if !(1..=QUEUE_LANES_MAX).contains(&settings.lanes) {
        return refuse(
            "lanes",
            format!("{} is not between 1 and {QUEUE_LANES_MAX}", settings.lanes),
        );
    }
    if settings.max_bytes < QUEUE_LEAST_MAX_BYTES {
        return refuse(
            "max_bytes",
            format!("{} is less than the {QUEUE_LEAST_MAX_BYTES} needed", settings.max_bytes),
        );
    }
    // Trimming and dropping go by whole segments: with several to a lane, a full queue is mostly full.
    let parts = u64::from(settings.lanes) * 8;
    settings.segment_bytes = settings.segment_bytes.min(settings.max_bytes / parts).max(4096);
    Ok(settings)
}

fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|source| OpenError::Disk { action, path: path.to_owned(), source })
}

impl Opening<'_> {
    fn identity(&mut self) -> Result<(Register, Identity), OpenError> {
        let path = self.dir.join("queue.id");
        let (mut register, held) = at("open", &path, Register::open(self.disk, &path))?;
        if held.damaged {
            self.report.notes.push("queue.id: one of its two slots is unreadable".to_owned());
        }
        if let Some(identity) = held.value.as_deref().and_then(Identity::decode) {
            self.store = identity.store;
            return Ok((register, identity));
        }
        let adopted = self.store_of_segments()?;
        if adopted.is_some() {
            self.report.notes.push(
                "queue.id was unreadable: the store id was taken from the segments; the cloud will issue a new incarnation"
                    .to_owned(),
            );
        }
        self.report.new_store = adopted.is_none();
        self.store = adopted.unwrap_or_else(|| StoreId(rand::random()));
        let identity = Identity { store: self.store, incarnation: None, boots: Boots::default() };
        at("write", &path, register.store(&identity.encode()))?;
        at("sync", self.dir, self.disk.sync_dir(self.dir))?;
        Ok((register, identity))
    }

    /// The store id in the first good segment header found.
    fn store_of_segments(&self) -> Result<Option<StoreId>, OpenError> {
        for lane in self.lane_ids()? {
            let dir = self.dir.join(lane_dir_name(lane));
            for (base, bad) in self.segment_names(&dir)? {
                let path = dir.join(segment::file_name(base, bad));
                if let HeaderRead::Good(header) = self.header(&path)?.0 {
                    return Ok(Some(header.store));
                }
            }
        }
        Ok(None)
    }

    /// The configured lanes and those that are on disk, without gaps.
    fn lane_ids(&self) -> Result<Vec<LaneId>, OpenError> {
        let names = at("list", self.dir, self.disk.list(self.dir))?;
        let on_disk =
            names.iter().filter_map(|name| name.strip_prefix("lane-")?.parse::<u8>().ok());
        let most = on_disk.filter(|id| *id < QUEUE_LANES_MAX).map(|id| id + 1).max().unwrap_or(0);
        Ok((0..most.max(self.settings.lanes)).map(LaneId).collect())
    }

    fn segment_names(&self, dir: &Path) -> Result<Vec<(EdgeSeq, bool)>, OpenError> {
        let names = at("list", dir, self.disk.list(dir))?;
        let mut found: Vec<_> =
            names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    fn header(&self, path: &Path) -> Result<(HeaderRead, u64), OpenError> {
        let file = at("open", path, self.disk.open(path, false))?;
        let mut bytes = [0u8; HEADER_BYTES];
        // A header on a bad sector is a bad header.
        let filled = disk::read_up_to(file.as_ref(), &mut bytes, 0).unwrap_or(0);
        let len = at("read", path, file.byte_len())?;
        Ok((Header::decode(bytes.get(..filled).unwrap_or_default()), len))
    }

    fn lane(&mut self, id: LaneId) -> Result<(Lane, LaneFiles), OpenError> {
        let dir = self.dir.join(lane_dir_name(id));
        at("create", &dir, self.disk.create_dir(&dir))?;
        let path = dir.join("cursor");
        let (register, held) = at("open", &path, Register::open(self.disk, &path))?;
        if held.damaged {
            self.report
                .notes
                .push(format!("lane {id}: one of the cursor's two slots is unreadable"));
        }
        let known = held.value.as_deref().and_then(Cursor::decode);
        let mut segments = self.segments(id, &dir, known.as_ref())?;
        let mut cursor = match known {
            Some(cursor) => cursor,
            None => self.rebuilt_cursor(id, segments.front(), held.value.is_some() || held.damaged),
        };
        let tail = self.tail(id, &dir, &mut segments, &cursor)?;
        let headless =
            segments.iter().filter(|segment| segment.base_digest.is_none() && !segment.bad);
        self.report.damage.extend(headless.map(|segment| Damage {
            lane: id,
            segment: segment::file_name(segment.base, true),
            at_byte: 0,
            from: segment.base,
            to: segment.base,
        }));
        let synced = EdgeSeq(tail.next.0.saturating_sub(1));
        (cursor.next_floor, cursor.floor_digest) = (tail.next, tail.digest);
        at("sync", &dir, self.disk.sync_dir(&dir))?;
        self.report.lanes.push(RecoveredLane {
            lane: id,
            acknowledged_through: cursor.acknowledged,
            next_seq: tail.next,
            disk_bytes: segments.iter().map(|segment| segment.len).sum(),
            truncated_bytes: tail.truncated_bytes,
        });
        let lane = Lane {
            id,
            open: id.0 < self.settings.lanes,
            next: tail.next,
            digest: tail.digest,
            synced,
            synced_digest: tail.digest,
            watermark: watch::Sender::new(synced),
            group: Group::new(Vec::new()),
            spare: Vec::new(),
            segments,
            durable_cursor: cursor.clone(),
            cursor,
            cursor_dirty_since: None,
            acknowledge_wanted: None,
            reflected: EdgeSeq(0),
            expired: Vec::new(),
            marks: VecDeque::new(),
            failed_reads: None,
            appended_records: 0,
            syncs: 0,
        };
        Ok((lane, LaneFiles { id, dir, cursor: register, active: tail.active }))
    }

    /// The cursor of a lane that has none: everything that is there counts as not yet acknowledged.
    fn rebuilt_cursor(&mut self, id: LaneId, first: Option<&Segment>, was_there: bool) -> Cursor {
        if was_there || first.is_some_and(|segment| segment.base.0 > 1) {
            self.report.notes.push(format!(
                "lane {id}: the cursor was unreadable; everything still on disk will be sent again"
            ));
        }
        let start = segment::first_digest(self.store, id);
        let base = first.map_or(EdgeSeq(1), |segment| segment.base);
        Cursor {
            acknowledged: EdgeSeq(base.0 - 1),
            digest: first.and_then(|segment| segment.base_digest).unwrap_or(start),
            ..Cursor::default()
        }
    }

    /// The segments that are still needed, in order, by their headers. The others go.
    fn segments(
        &mut self,
        id: LaneId,
        dir: &Path,
        cursor: Option<&Cursor>,
    ) -> Result<VecDeque<Segment>, OpenError> {
        let names = self.segment_names(dir)?;
        let mut segments = VecDeque::new();
        for (index, (base, bad)) in names.iter().copied().enumerate() {
            let path = dir.join(segment::file_name(base, bad));
            let ends_before = names.get(index + 1).map(|(next, _)| *next);
            let settled = cursor.zip(ends_before).is_some_and(|(cursor, end)| {
                let dropped = cursor.skips.end().is_some_and(|dropped| end <= dropped);
                let acknowledged = end.0 <= cursor.acknowledged.0.saturating_add(1);
                acknowledged && !self.settings.keep_until_reflected || dropped && !acknowledged
            });
            if settled {
                if !bad {
                    at("remove", &path, self.disk.remove(&path))?;
                }
                continue;
            }
            let (header, len) = self.header(&path)?;
            let header = match header {
                HeaderRead::Newer(found) => {
                    return Err(OpenError::Version { path, found, known: FORMAT });
                }
                HeaderRead::Good(header) => header.belongs(self.store, id, base).then_some(header),
                HeaderRead::Bad => None,
            };
            segments.push_back(Segment {
                base,
                base_digest: header.map(|header| header.base_digest),
                boot: header.map_or(BootId::default(), |header| header.boot),
                len,
                bad,
                quarantine_wanted: header.is_none() && !bad,
            });
        }
        Ok(segments)
    }

    /// Settles where the lane ends.
    fn tail(
        &mut self,
        id: LaneId,
        dir: &Path,
        segments: &mut VecDeque<Segment>,
        cursor: &Cursor,
    ) -> Result<Tail, OpenError> {
        let due = EdgeSeq(cursor.acknowledged.0.saturating_add(1));
        let floor = cursor.next_floor.max(due);
        let mut truncated_bytes = 0;
        while let Some(last) = segments.back_mut() {
            let path = dir.join(segment::file_name(last.base, last.bad));
            let bytes = last.len;
            let (verdict, cut) = self.settle_last(id, &path, last, floor)?;
            if verdict.was_being_made(last.base) {
                // Nothing in it was promised to anyone.
                truncated_bytes += bytes;
                at("remove", &path, self.disk.remove(&path))?;
                segments.pop_back();
                continue;
            }
            truncated_bytes += cut;
            let next = verdict.next.max(floor);
            let digest = match verdict.digest.or(last.base_digest) {
                Some(digest) if next == verdict.next => digest,
                _ => cursor.floor_digest,
            };
            if let Some(Lost { at_byte, from, to }) = verdict.damage {
                last.quarantine_wanted = !last.bad;
                let segment = segment::file_name(last.base, true);
                let to = to.unwrap_or(next);
                self.report.damage.push(Damage { lane: id, segment, at_byte, from, to });
            }
            let whole = !last.bad && !last.quarantine_wanted && next == verdict.next;
            let active = match whole && last.boot == self.boot {
                true => {
                    let file = at("open", &path, self.disk.open(&path, false))?;
                    Some(Active { file, len: last.len, boot: last.boot })
                }
                false => None,
            };
            return Ok(Tail { next, digest, truncated_bytes, active });
        }
        let digest = match cursor.next_floor >= due {
            true => cursor.floor_digest,
            false => cursor.digest,
        };
        Ok(Tail { next: floor, digest, truncated_bytes, active: None })
    }

    /// Judges the lane's last segment, cuts a torn tail off, and makes what is left durable: after a kill it may be in the
    /// kernel's memory only.
    fn settle_last(
        &self,
        id: LaneId,
        path: &Path,
        last: &mut Segment,
        floor: EdgeSeq,
    ) -> Result<(Verdict, u64), OpenError> {
        let file = at("open", path, self.disk.open(path, false))?;
        let judged = Last {
            file: file.as_ref(),
            salt: Salt::new(self.store, id),
            base: last.base,
            base_digest: last.base_digest,
            len: last.len,
            floor,
        };
        let verdict = at("read", path, judged.judge())?;
        let truncated_bytes = last.len.saturating_sub(verdict.good_end);
        if truncated_bytes > 0 {
            at("cut", path, file.set_len(verdict.good_end))?;
            last.len = verdict.good_end;
        }
        at("sync", path, file.sync())?;
        Ok((verdict, truncated_bytes))
    }
}

/// Where a lane ends.
struct Tail {
    next: EdgeSeq,
    digest: ChainDigest,
    truncated_bytes: u64,
    active: Option<Active>,
}

const _: () = assert!(QUEUE_RECORD_BYTES < u32::MAX as usize);
