//! What the queue knows in memory. The lock around it is never held over a disk access or an `await`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits::{QUEUE_PENDING_BYTES, QUEUE_RECORD_BYTES};
use tokio::sync::{Notify, watch};

use super::clock::{BootId, Boots, Clock, Stamp};
use super::cursor::{Cursor, Identity, push_merged};
use super::disk::Disk;
use super::errors::{AppendError, NotStored, QueueError};
use super::segment::{self, HEADER_BYTES, Place, Salt};
use super::ticket::{GroupOutcome, PendingAppend, Ticket};
use super::types::{Append, FullPolicy, QueueSettings, Skip, SkipReason, StoreId};

/// Ends of recent reads that are remembered in each lane.
const MARKS: usize = 32;
/// Reads that fail in a row before what cannot be read is given up.
const READ_ATTEMPTS: u32 = 5;
/// Ranges of expired sequences that are remembered in each lane until they are acknowledged.
const EXPIRED_RANGES: usize = 1024;
/// How often, at most, a full queue looks for expired segments.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a cursor found no space it is tried again.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the handles and the writer share.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub dir: PathBuf,
    pub settings: QueueSettings,
    pub store: StoreId,
    /// Tells the writer that there is something to do.
    pub work: Condvar,
    /// Tells appenders that there is room in memory again.
    pub room: Notify,
    state: Mutex<State>,
}

impl Shared {
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: PathBuf,
        settings: QueueSettings,
        store: StoreId,
        state: State,
    ) -> Self {
        let (work, room) = (Condvar::new(), Notify::new());
        Self { disk, clock, dir, settings, store, work, room, state: Mutex::new(state) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lane_dir(&self, lane: LaneId) -> PathBuf {
        self.dir.join(lane_dir_name(lane))
    }

    pub fn salt(&self, lane: LaneId) -> Salt {
        Salt::new(self.store, lane)
    }
}

/// The name of a lane's directory.
pub(super) fn lane_dir_name(lane: LaneId) -> String {
    format!("lane-{lane}")
}

/// The queue's memory.
pub(super) struct State {
    pub lanes: Vec<Lane>,
    pub poisoned: Option<Arc<str>>,
    pub closing: bool,
    /// As it is durable.
    pub incarnation: Option<Incarnation>,
    /// What the cloud issued and is not durable yet.
    pub issued: Option<Issued>,
    pub boots: Boots,
    /// `boots` differ from what is durable.
    pub identity_dirty: bool,
    /// Resolved when everything up to now is durable, cursors included, or could not be made so.
    pub flush: Option<StoredTicket>,
    /// The queue was found full: release what can be released.
    pub purge_wanted: bool,
    pub purged_at: Option<Duration>,
    /// A cursor or the identity could not be stored for want of space: not tried again before this.
    pub retry_at: Option<Duration>,
    /// Of all segments.
    pub disk_bytes: u64,
    /// Appended and not yet synced.
    pub pending_bytes: usize,
}

/// One lane's memory.
pub(super) struct Lane {
    pub id: LaneId,
    /// Configured, so that it takes appends; others are only drained.
    pub open: bool,
    /// The sequence that the next append gets, and the digest before it.
    pub next: EdgeSeq,
    pub digest: ChainDigest,
    /// The last synced sequence and the digest there.
    pub synced: EdgeSeq,
    pub synced_digest: ChainDigest,
    pub watermark: watch::Sender<EdgeSeq>,
    /// What was appended since the writer last took it.
    pub group: Group,
    /// A buffer to use again.
    pub spare: Vec<u8>,
    /// In order; the last one may be active. Only what is synced counts in their lengths.
    pub segments: VecDeque<Segment>,
    pub cursor: Cursor,
    /// What the cursor register holds.
    pub durable_cursor: Cursor,
    /// Since when (uptime) the two differ.
    pub cursor_dirty_since: Option<Duration>,
    /// Acknowledged, but the digest there has still to be looked up.
    pub acknowledge_wanted: Option<EdgeSeq>,
    /// The gateway's own state has everything up to here.
    pub reflected: EdgeSeq,
    /// Sequences that the last read of their range skipped as expired; counted when they are acknowledged, so that a
    /// range that is read twice counts once.
    pub expired: Vec<Skip>,
    pub marks: VecDeque<Mark>,
    /// From where the disk failed to read, and how often in a row.
    pub failed_reads: Option<(EdgeSeq, u32)>,
    pub appended_records: u64,
    pub syncs: u64,
}

/// A segment file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub base: EdgeSeq,
    /// `None` if the header could not be read.
    pub base_digest: Option<ChainDigest>,
    pub boot: BootId,
    pub len: u64,
    /// Damage was found in it; the file has the name that says so.
    pub bad: bool,
    /// Damage was found; the writer has yet to rename it.
    pub quarantine_wanted: bool,
}

/// The end of a read: sequence `next` begins at `offset` of segment `base`, and `digest` is the one before it.
/// (Where damage lies between, the digest does not chain into what follows, so `chains` is false.)
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub next: EdgeSeq,
    pub digest: ChainDigest,
    pub base: EdgeSeq,
    pub offset: u64,
    pub chains: bool,
}

/// Appends that will share a write and a sync.
pub(super) struct Group {
    pub bytes: Vec<u8>,
    pub ticket: Arc<Ticket<GroupOutcome>>,
}

impl Group {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ticket: Ticket::new() }
    }
}

/// Says whether something became durable.
pub(super) type StoredTicket = Arc<Ticket<Result<(), NotStored>>>;

/// An incarnation on its way to the disk. It counts only once it is there: were it used before, then after a crash the
/// queue would not know under which incarnation the cloud has its records.
#[derive(Clone)]
pub(super) struct Issued {
    pub incarnation: Incarnation,
    pub stored: StoredTicket,
}

/// Where a sequence is to be found.
pub(super) enum Location {
    /// Not synced yet.
    Ahead,
    /// There is no record for these.
    Skip(Skip),
    /// In this segment, which has no sequence from `next_base` on.
    Segment { segment: Segment, next_base: EdgeSeq },
}

impl State {
    pub fn lane(&self, lane: LaneId) -> Result<&Lane, QueueError> {
        self.lanes.get(usize::from(lane.0)).ok_or(QueueError::NoLane { lane })
    }

    pub fn lane_mut(&mut self, lane: LaneId) -> Result<&mut Lane, QueueError> {
        self.lanes.get_mut(usize::from(lane.0)).ok_or(QueueError::NoLane { lane })
    }

    /// What the identity's register should hold, with this incarnation.
    pub fn identity(&self, store: StoreId, incarnation: Option<Incarnation>) -> Identity {
        Identity { store, incarnation, boots: self.boots.clone() }
    }

    /// Gives the record its place. Nothing is written yet.
    pub fn append(
        &mut self,
        append: &Append,
        stamp: &Stamp,
        settings: &QueueSettings,
        salt: Salt,
    ) -> Result<PendingAppend, AppendError> {
        let length = self.admit(append, stamp, settings)?;
        let lane = self
            .lanes
            .get_mut(usize::from(append.lane.0))
            .ok_or(AppendError::NoLane { lane: append.lane })?;
        let place = Place { seq: lane.next, before: lane.digest, synced: lane.synced };
        lane.digest = segment::encode(append, stamp, &place, salt, &mut lane.group.bytes);
        lane.next = EdgeSeq(place.seq.0.saturating_add(1));
        self.pending_bytes += length;
        Ok(PendingAppend::new(append.lane, place.seq, Arc::clone(&lane.group.ticket)))
    }

    /// Checks everything that can refuse an append; returns the bytes that it takes.
    fn admit(
        &mut self,
        append: &Append,
        stamp: &Stamp,
        settings: &QueueSettings,
    ) -> Result<usize, AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned { reason: Arc::clone(reason) });
        }
        if self.closing {
            return Err(AppendError::Closed);
        }
        let open = self.lanes.get(usize::from(append.lane.0)).is_some_and(|lane| lane.open);
        if !open {
            return Err(AppendError::NoLane { lane: append.lane });
        }
        let length = segment::encoded_len(append);
        let client_len = append.origin.client_id.len();
        if length > QUEUE_RECORD_BYTES || client_len > usize::from(u16::MAX) {
            return Err(AppendError::TooLarge { bytes: length, limit: QUEUE_RECORD_BYTES });
        }
        if self.pending_bytes.saturating_add(length) > QUEUE_PENDING_BYTES {
            return Err(AppendError::Busy { pending_bytes: self.pending_bytes });
        }
        let used_bytes = self.used_bytes();
        let droppable = match settings.policy {
            FullPolicy::Reject => 0,
            FullPolicy::DropOldest => self.droppable_bytes(append.lane),
        };
        let needed = (length + HEADER_BYTES) as u64;
        if used_bytes.saturating_sub(droppable).saturating_add(needed) > settings.max_bytes {
            self.want_purge(Duration::from_millis(stamp.uptime_ms));
            return Err(AppendError::Full { used_bytes, max_bytes: settings.max_bytes });
        }
        Ok(length)
    }

    /// What the segments and the appends on their way there take.
    pub fn used_bytes(&self) -> u64 {
        self.disk_bytes.saturating_add(self.pending_bytes as u64)
    }

    /// What may be dropped to make room in a lane: that lane's segments and those of less important ones.
    fn droppable_bytes(&self, for_lane: LaneId) -> u64 {
        let lanes = self.lanes.iter().filter(|lane| lane.id >= for_lane);
        lanes.flat_map(|lane| lane.segments.iter().map(|segment| segment.len)).sum()
    }

    fn want_purge(&mut self, uptime: Duration) {
        let due = self.purged_at.is_none_or(|at| uptime >= at.saturating_add(PURGE_INTERVAL));
        if due {
            self.purge_wanted = true;
            self.purged_at = Some(uptime);
        }
    }
}

impl Lane {
    /// Finds the segment or the skip that a sequence above the cursor lies in.
    pub fn locate(&self, seq: EdgeSeq) -> Location {
        if seq > self.synced {
            return Location::Ahead;
        }
        if let Some(skip) = self.cursor.skips.covering(seq) {
            return Location::Skip(skip);
        }
        let after = self.segments.partition_point(|segment| segment.base <= seq);
        let beyond = EdgeSeq(self.synced.0.saturating_add(1));
        let next_base = self.segments.get(after).map_or(beyond, |segment| segment.base);
        match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(segment) => Location::Segment { segment: segment.clone(), next_base },
            None => {
                Location::Skip(Skip { from: seq, to: next_base, reason: SkipReason::Quarantined })
            }
        }
    }

    /// Synced records that are there and that the cloud does not have.
    pub fn depth_records(&self) -> u64 {
        let sequences = self.synced.0.saturating_sub(self.cursor.acknowledged.0);
        // All of them lie above what was acknowledged: `release` sees to that.
        sequences.saturating_sub(self.cursor.skips.sequences())
    }

    /// Sequences whose segments may go: the cloud has them, and so has the gateway's state where that is asked for.
    pub fn releasable_through(&self, settings: &QueueSettings) -> EdgeSeq {
        if settings.keep_until_reflected {
            self.cursor.acknowledged.min(self.reflected)
        } else {
            self.cursor.acknowledged
        }
    }

    /// What is synced now is never given out again, whatever becomes of the segments.
    pub fn raise_floor(&mut self) {
        self.cursor.next_floor = EdgeSeq(self.synced.0.saturating_add(1));
        self.cursor.floor_digest = self.synced_digest;
    }

    /// The digest before `next` where that is the start of a segment, or of the one to come.
    pub fn border_digest(&self, next: EdgeSeq) -> Option<ChainDigest> {
        if next.0 == self.synced.0.saturating_add(1) {
            return Some(self.synced_digest);
        }
        self.segments.iter().find(|segment| segment.base == next)?.base_digest
    }

    /// Moves the cursor.
    pub fn set_acknowledged(&mut self, through: EdgeSeq, digest: ChainDigest, uptime: Duration) {
        if through > self.cursor.acknowledged {
            let next = EdgeSeq(through.0.saturating_add(1));
            let counted =
                self.expired.iter().map(|skip| skip.to.min(next).0.saturating_sub(skip.from.0));
            self.cursor.drops.expired_records += counted.sum::<u64>();
            self.note_expired(EdgeSeq(0), next, &[]);
            self.cursor.acknowledged = through;
            self.cursor.digest = digest;
            self.cursor.skips.release(through);
            self.cursor_dirty_since.get_or_insert(uptime);
        }
        if self.acknowledge_wanted.is_some_and(|wanted| wanted <= self.cursor.acknowledged) {
            self.acknowledge_wanted = None;
        }
    }

    /// In `[from, to)` exactly these sequences were found expired. Beyond `EXPIRED_RANGES` the oldest are counted at once.
    pub fn note_expired(&mut self, from: EdgeSeq, to: EdgeSeq, found: &[Skip]) {
        let old = std::mem::take(&mut self.expired);
        for skip in &old {
            let head = Skip { to: skip.to.min(from), ..*skip };
            push_merged(&mut self.expired, head);
        }
        found.iter().for_each(|skip| push_merged(&mut self.expired, *skip));
        for skip in &old {
            let tail = Skip { from: skip.from.max(to), ..*skip };
            push_merged(&mut self.expired, tail);
        }
        while self.expired.len() > EXPIRED_RANGES {
            let oldest = self.expired.remove(0);
            self.cursor.drops.expired_records += oldest.to.0 - oldest.from.0;
        }
    }

    /// Whether what cannot be read counts as damage by now.
    pub fn gave_up_on_unreadable(&self) -> bool {
        self.failed_reads.is_some_and(|(_, count)| count >= READ_ATTEMPTS)
    }

    /// The digest before `next`, if a recent read ended there.
    pub fn marked_digest(&self, next: EdgeSeq) -> Option<ChainDigest> {
        self.marks.iter().rev().find(|mark| mark.next == next).map(|mark| mark.digest)
    }

    /// The nearest place in segment `base`, at or before `next`, where a recent read ended: scans begin there.
    pub fn mark_before(&self, base: EdgeSeq, next: EdgeSeq) -> Option<Mark> {
        let marks = self.marks.iter().filter(|mark| mark.base == base && mark.next <= next);
        marks.max_by_key(|mark| mark.next).copied()
    }

    pub fn add_mark(&mut self, mark: Mark) {
        if self.marks.iter().any(|known| known.next == mark.next && known.base == mark.base) {
            return;
        }
        if self.marks.len() >= MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// Takes back every append that is not synced; their sequences are given out again. Returns the bytes in the
    /// group and resolves its waiters.
    pub fn rewind(&mut self, error: &AppendError) -> usize {
        self.next = EdgeSeq(self.synced.0.saturating_add(1));
        self.digest = self.synced_digest;
        let group = std::mem::replace(&mut self.group, Group::new(Vec::new()));
        group.ticket.resolve(GroupOutcome { synced_through: self.synced, error: error.clone() });
        group.bytes.len()
    }
}
