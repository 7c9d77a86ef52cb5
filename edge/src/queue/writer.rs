//! The only one that changes files: takes what was appended since the last sync, writes it, syncs it, says so.
//!
//! Appends gather in memory while a sync is in flight; the next sync carries them all. A group is written lane by lane,
//! in pieces that end where a segment does, and each piece is synced before the next one begins: so only the last
//! segment of a lane can ever be torn.
//!
//! An idle writer does not start for the first append at once: appends come in bursts, and the first one alone would make
//! all others wait for two syncs. It gives them a fraction of what the last sync took.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};
use robustmq_common::limits::{
    QUEUE_GATHER, QUEUE_GATHER_FRACTION, QUEUE_KEPT_BUFFER_BYTES, QUEUE_PENDING_BYTES,
};

use super::clock::BootId;
use super::disk::{self, DiskFile};
use super::errors::{AppendError, NotStored};
use super::job::{Job, take_job, wait_for_job};
use super::register::Register;
use super::segment::{self, HEADER_BYTES, Header};
use super::state::{Group, Issued, RETRY_INTERVAL, Segment, Shared, State};
use super::ticket::{GroupOutcome, Ticket};
use super::types::FullPolicy;

/// The writer's own: open files.
pub(super) struct Writer {
    pub lanes: Vec<LaneFiles>,
    pub identity: Register,
    /// What the present job could not store for want of space.
    pub no_space: Option<Arc<str>>,
    /// Held for as long as the queue is open.
    pub _lock: Box<dyn Send + Sync>,
}

/// One lane's files.
pub(super) struct LaneFiles {
    pub id: LaneId,
    pub dir: PathBuf,
    pub cursor: Register,
    pub active: Option<Active>,
}

/// The segment that is written to; the last one in the lane's list.
pub(super) struct Active {
    pub file: Box<dyn DiskFile>,
    pub len: u64,
    pub boot: BootId,
}

/// Why a piece was not written.
pub(super) enum WriteError {
    /// It may pass; nothing of the piece is left in the file.
    Refused(AppendError),
    /// It will not.
    Failed(String),
}

impl Writer {
    /// Works until the queue is closed.
    pub fn run(mut self, shared: &Shared) {
        let mut gather = Duration::ZERO;
        loop {
            let job = wait_for_job(shared, gather);
            let closing = job.closing;
            if let Some(syncs) = u32::try_from(job.groups.len()).ok().filter(|syncs| *syncs > 0) {
                let started = Instant::now();
                self.perform(shared, job);
                gather = (started.elapsed() / syncs / QUEUE_GATHER_FRACTION).min(QUEUE_GATHER);
            } else {
                self.perform(shared, job);
            }
            if closing {
                return;
            }
        }
    }

    /// Does what there is to do now.
    pub fn step(&mut self, shared: &Shared) {
        let job = take_job(&mut shared.lock());
        self.perform(shared, job);
    }

    fn perform(&mut self, shared: &Shared, job: Job) {
        self.no_space = None;
        let poisoned = shared.lock().poisoned.clone();
        let mut result = match poisoned {
            Some(reason) => Err(reason.as_ref().to_owned()),
            None if job.purge => self.purge_expired(shared),
            None => Ok(()),
        };
        for (lane, group) in job.groups {
            match result {
                Ok(()) => result = self.write_group(shared, lane, group),
                Err(_) => abandon(shared, lane, &group),
            }
        }
        if (job.identity || job.issued.is_some()) && result.is_ok() {
            result = self.store_identity(shared, job.issued.as_ref(), job.identity);
        }
        let force = job.closing || job.flush.is_some();
        for index in 0..self.lanes.len() {
            if result.is_ok() {
                result = self.tend_lane(shared, index, force, job.purge);
            }
        }
        if let Err(reason) = result {
            poison(shared, &reason);
        }
        let stored = match (shared.lock().poisoned.clone(), self.no_space.take()) {
            (Some(reason), _) => Err(NotStored::Poisoned(reason)),
            (None, Some(reason)) => Err(NotStored::DiskFull(reason)),
            (None, None) => Ok(()),
        };
        // One that is stored was told so already.
        for ticket in [job.flush, job.issued.map(|issued| issued.stored)].into_iter().flatten() {
            ticket.resolve(stored.clone());
        }
    }

    /// Writes one lane's group and resolves its waiters.
    fn write_group(&mut self, shared: &Shared, lane: LaneId, group: Group) -> Result<(), String> {
        let Group { bytes, ticket } = group;
        let mut written = 0;
        let outcome = loop {
            let rest = bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            let taken = self.piece(lane, rest, shared.settings.segment_bytes);
            match self.write_piece(shared, lane, rest.get(..taken).unwrap_or(rest)) {
                Ok(()) => written += taken,
                Err(error) => break Err(error),
            }
        };
        let mut state = shared.lock();
        state.pending_bytes = state.pending_bytes.saturating_sub(bytes.len());
        let result = match outcome {
            Ok(()) => {
                let synced_through = match state.lane_mut(lane) {
                    Ok(lane) => {
                        keep_buffer(&mut lane.spare, bytes);
                        lane.synced
                    }
                    Err(_) => EdgeSeq(0),
                };
                // Everything in the group is synced, so nobody will see the error.
                ticket.resolve(GroupOutcome { synced_through, error: AppendError::Closed });
                Ok(())
            }
            Err(WriteError::Refused(error)) => {
                fail_group(&mut state, lane, &ticket, &error);
                Ok(())
            }
            Err(WriteError::Failed(reason)) => {
                let error = AppendError::Poisoned { reason: reason.as_str().into() };
                fail_group(&mut state, lane, &ticket, &error);
                Err(reason)
            }
        };
        announce_room(shared, &state);
        result
    }

    /// How many bytes of `rest`, in whole records and at least one, go into one segment: the active one if the first of
    /// them still fits there, otherwise a new one.
    fn piece(&self, lane: LaneId, rest: &[u8], segment_bytes: u64) -> usize {
        let segment_bytes = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
        let fresh = segment_bytes.saturating_sub(HEADER_BYTES);
        let files = self.lanes.get(usize::from(lane.0));
        let active = files.and_then(|files| files.active.as_ref());
        let used = active.map_or(HEADER_BYTES, |active| usize::try_from(active.len).unwrap_or(0));
        let first = segment::claimed_len(rest).unwrap_or(rest.len());
        let left = segment_bytes.saturating_sub(used);
        let room = if first <= left { left } else { fresh };
        if rest.len() <= room {
            return rest.len();
        }
        let mut taken = first;
        while let Some(length) = rest.get(taken..).and_then(segment::claimed_len) {
            if taken + length > room {
                break;
            }
            taken += length;
        }
        taken
    }

    /// Writes and syncs one piece, then shows it to readers.
    fn write_piece(
        &mut self,
        shared: &Shared,
        lane: LaneId,
        piece: &[u8],
    ) -> Result<(), WriteError> {
        let needed = (piece.len() + HEADER_BYTES) as u64;
        self.make_room(shared, lane, needed)?;
        loop {
            match self.write_once(shared, lane, piece) {
                Ok(()) => return Ok(()),
                Err(error) if disk::is_full(&error) => {
                    self.undo(shared, lane)?;
                    let may_drop = shared.settings.policy == FullPolicy::DropOldest;
                    if may_drop && self.drop_oldest(shared, lane).map_err(WriteError::Failed)? {
                        continue;
                    }
                    let reason = format!("{}: {error}", shared.lane_dir(lane).display()).into();
                    return Err(WriteError::Refused(AppendError::DiskFull { reason }));
                }
                Err(error) => {
                    let dir = shared.lane_dir(lane);
                    return Err(WriteError::Failed(format!("{}: {error}", dir.display())));
                }
            }
        }
    }

    fn write_once(&mut self, shared: &Shared, lane: LaneId, piece: &[u8]) -> io::Result<()> {
        let (first, last) = ends(piece).ok_or(io::ErrorKind::InvalidData)?;
        let boot = shared.clock.now().boot;
        let files = self.lane_files(lane)?;
        let roll = files.active.as_ref().is_some_and(|active| {
            active.boot != boot || active.len + piece.len() as u64 > shared.settings.segment_bytes
        });
        if roll {
            files.active = None;
        }
        if let Some(active) = &mut files.active {
            disk::write_all(active.file.as_ref(), piece, active.len)?;
            sync(active.file.as_ref())?;
            active.len += piece.len() as u64;
            let len = active.len;
            show(shared, lane, last, |segments| {
                if let Some(segment) = segments.back_mut() {
                    segment.len = len;
                }
            });
            return Ok(());
        }
        let base_digest = shared.lock().lane(lane).map_err(io::Error::other)?.synced_digest;
        let header = Header { lane, store: shared.store, boot, base: first, base_digest };
        let path = files.dir.join(segment::file_name(first, false));
        let file = shared.disk.open(&path, true)?;
        // A file that an earlier, refused attempt left behind.
        file.set_len(0)?;
        let active = files.active.insert(Active { file, len: 0, boot });
        disk::write_all(active.file.as_ref(), &header.encode(), 0)?;
        disk::write_all(active.file.as_ref(), piece, HEADER_BYTES as u64)?;
        sync(active.file.as_ref())?;
        shared.disk.sync_dir(&files.dir).map_err(not_passing)?;
        active.len = (HEADER_BYTES + piece.len()) as u64;
        let segment = Segment {
            base: first,
            base_digest: Some(base_digest),
            boot,
            len: active.len,
            bad: false,
            quarantine_wanted: false,
        };
        show(shared, lane, last, |segments| segments.push_back(segment));
        Ok(())
    }

    /// After a refused write: the file is again as long as what is synced in it, durably, since the refused sequences are
    /// given out again.
    fn undo(&mut self, shared: &Shared, lane: LaneId) -> Result<(), WriteError> {
        let next = shared.lock().lane(lane).map_or(EdgeSeq(0), |lane| EdgeSeq(lane.synced.0 + 1));
        let files = self.lane_files(lane).map_err(|e| WriteError::Failed(e.to_string()))?;
        let Some(active) = &files.active else { return Ok(()) };
        if active.len > 0 {
            let cut = active.file.set_len(active.len).and_then(|()| active.file.sync());
            return cut.map_err(|error| {
                WriteError::Failed(format!("cutting back a refused write: {error}"))
            });
        }
        files.active = None;
        let path = files.dir.join(segment::file_name(next, false));
        if let Err(error) = shared.disk.remove(&path) {
            tracing::debug!(path = %path.display(), %error, "a refused segment stays until the next append");
        }
        Ok(())
    }

    /// Stores the identity, with what the cloud issued; `dirty` says whether it has to be tried again for its own sake.
    fn store_identity(
        &mut self,
        shared: &Shared,
        issued: Option<&Issued>,
        dirty: bool,
    ) -> Result<(), String> {
        let identity = {
            let state = shared.lock();
            let incarnation = issued.map(|issued| issued.incarnation).or(state.incarnation);
            state.identity(shared.store, incarnation)
        };
        match self.identity.store(&identity.encode()) {
            Ok(()) => {
                shared.lock().incarnation = identity.incarnation;
                if let Some(issued) = issued {
                    issued.stored.resolve(Ok(()));
                }
                Ok(())
            }
            Err(error) if disk::is_full(&error) => {
                shared.lock().identity_dirty |= dirty;
                self.found_no_space(shared, "the queue's identity", &error);
                Ok(())
            }
            Err(error) => Err(format!("writing queue.id: {error}")),
        }
    }

    /// Something could not be stored for want of space: who waits for it hears so, and it is left for a while.
    pub fn found_no_space(&mut self, shared: &Shared, what: &str, error: &io::Error) {
        tracing::warn!(%error, "no space to store {what}; it will be tried again");
        self.no_space.get_or_insert_with(|| format!("{what}: {error}").into());
        let at = shared.clock.now().uptime.saturating_add(RETRY_INTERVAL);
        shared.lock().retry_at = Some(at);
    }

    pub fn lane_files(&mut self, lane: LaneId) -> io::Result<&mut LaneFiles> {
        self.lanes.get_mut(usize::from(lane.0)).ok_or_else(|| io::Error::other("no such lane"))
    }
}

/// A failed sync is never a full disk that may pass: what it left behind is unknown.
fn sync(file: &dyn DiskFile) -> io::Result<()> {
    file.sync().map_err(not_passing)
}

fn not_passing(error: io::Error) -> io::Error {
    io::Error::other(format!("sync failed: {error}"))
}

/// Makes a synced piece visible: watermark, lengths, digest.
fn show(
    shared: &Shared,
    lane: LaneId,
    last: (EdgeSeq, ChainDigest),
    change: impl FnOnce(&mut VecDeque<Segment>),
) {
    let mut state = shared.lock();
    let State { lanes, disk_bytes, .. } = &mut *state;
    let Some(lane) = lanes.get_mut(usize::from(lane.0)) else { return };
    let before: u64 = lane.segments.iter().map(|segment| segment.len).sum();
    change(&mut lane.segments);
    let after: u64 = lane.segments.iter().map(|segment| segment.len).sum();
    *disk_bytes = disk_bytes.saturating_sub(before).saturating_add(after);
    lane.appended_records += last.0.0.saturating_sub(lane.synced.0);
    lane.syncs += 1;
    (lane.synced, lane.synced_digest) = last;
    lane.watermark.send_replace(lane.synced);
}

/// The first sequence of a piece, and the sequence and digest of its last record.
fn ends(piece: &[u8]) -> Option<(EdgeSeq, (EdgeSeq, ChainDigest))> {
    let first = segment::claimed_seq(piece)?;
    let mut at = 0;
    loop {
        let record = piece.get(at..)?;
        let length = segment::claimed_len(record)?;
        if at + length >= piece.len() {
            let digest = u64::from_le_bytes(*record.get(16..24)?.first_chunk::<8>()?);
            return Some((first, (segment::claimed_seq(record)?, ChainDigest(digest))));
        }
        at += length;
    }
}

fn keep_buffer(spare: &mut Vec<u8>, mut bytes: Vec<u8>) {
    if bytes.capacity() <= QUEUE_KEPT_BUFFER_BYTES && bytes.capacity() > spare.capacity() {
        bytes.clear();
        *spare = bytes;
    }
}

/// Tells the waiters of a group, and of everything appended to the lane since, that it failed.
fn fail_group(
    state: &mut MutexGuard<'_, State>,
    lane: LaneId,
    ticket: &Ticket<GroupOutcome>,
    error: &AppendError,
) {
    let Ok(lane) = state.lane_mut(lane) else { return };
    let synced_through = lane.synced;
    let dropped = lane.rewind(error);
    state.pending_bytes = state.pending_bytes.saturating_sub(dropped);
    ticket.resolve(GroupOutcome { synced_through, error: error.clone() });
}

/// A group that is not even tried since another one failed.
fn abandon(shared: &Shared, lane: LaneId, group: &Group) {
    let mut state = shared.lock();
    state.pending_bytes = state.pending_bytes.saturating_sub(group.bytes.len());
    let error = AppendError::Poisoned { reason: "another lane's write failed".into() };
    fail_group(&mut state, lane, &group.ticket, &error);
}

/// From here on everything is refused until the queue is opened again.
fn poison(shared: &Shared, reason: &str) {
    let reason: Arc<str> = reason.into();
    let mut state = shared.lock();
    if state.poisoned.is_some() {
        return;
    }
    tracing::error!(%reason, "the queue's disk failed: publishes are refused until it is checked and the edge restarted");
    let error = AppendError::Poisoned { reason: Arc::clone(&reason) };
    state.poisoned = Some(reason);
    let mut dropped = 0;
    for lane in &mut state.lanes {
        dropped += lane.rewind(&error);
    }
    state.pending_bytes = state.pending_bytes.saturating_sub(dropped);
    announce_room(shared, &state);
}

fn announce_room(shared: &Shared, state: &State) {
    if state.pending_bytes < QUEUE_PENDING_BYTES / 2 || state.poisoned.is_some() {
        shared.room.notify_waiters();
    }
}
