//! What goes into the queue, what comes out, and what it says about itself.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits::{QUEUE_LANES, QUEUE_MAX_BYTES, QUEUE_SEGMENT_BYTES};

use super::clock::Stamp;

/// How a queue is set up.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Lanes 0 to `lanes - 1`; lane 0 is the most important. Lanes found on disk beyond that are still drained.
    pub lanes: u8,
    /// What all segments together may take, in bytes (`[queue] max_bytes`).
    pub max_bytes: u64,
    /// What to do when that is used up (`[queue] policy`).
    pub policy: FullPolicy,
    /// A segment is closed when it has reached this size, in bytes. At most an eighth of `max_bytes` is used.
    pub segment_bytes: u64,
    /// How long an acknowledgement may wait until it is made durable. Until then a crash means sending again what the
    /// cloud already has (and drops as such); each sync of the cursor wears the disk.
    pub cursor_delay: Duration,
    /// Keep what was acknowledged until [`reflected`](super::Queue::reflected) has passed it too, so that a start-up replay
    /// never misses a record that the gateway's own state does not have yet.
    pub keep_until_reflected: bool,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            lanes: QUEUE_LANES,
            max_bytes: QUEUE_MAX_BYTES,
            policy: FullPolicy::Reject,
            segment_bytes: QUEUE_SEGMENT_BYTES,
            cursor_delay: Duration::from_secs(1),
            keep_until_reflected: false,
        }
    }
}

/// What a full queue does with a new record. Expired records go first under both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FullPolicy {
    /// Refuse it: the device keeps it and hears why (`reject`).
    #[default]
    Reject,
    /// Drop the oldest segment of the least important lane, never of one more important than the record's own
    /// (`drop-oldest`).
    DropOldest,
}

/// The identity of one queue directory: random, made when it was first opened. A wiped directory has another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a record came from: what the gateway needs to rebuild its sessions when it replays the tail.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The MQTT client id, at most 65,535 bytes.
    pub client_id: Bytes,
    /// The packet id of the PUBLISH; `None` for QoS 0.
    pub packet_id: Option<u16>,
    /// The QoS of the PUBLISH: 0, 1 or 2.
    pub qos: u8,
    /// Its retain flag.
    pub retain: bool,
}

/// A record on its way into the queue.
#[derive(Clone, Debug)]
pub struct Append {
    /// Which lane; fixed from here on.
    pub lane: LaneId,
    /// Where it came from; stays on this machine.
    pub origin: Origin,
    /// After this long it need not be sent any more. Whole seconds, rounded up.
    pub ttl: Option<Duration>,
    /// The sync record's own encoding (`common::sync::record`), sent upstream as it is. The queue does not look inside.
    pub body: Bytes,
}

/// A record as it lies in the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number in the lane.
    pub seq: EdgeSeq,
    /// The lane's digest up to and including it.
    pub digest: ChainDigest,
    /// When it was received.
    pub stamp: Stamp,
    /// After this long it is skipped as expired.
    pub ttl: Option<Duration>,
    /// Where it came from.
    pub origin: Origin,
    /// The sync record's own encoding.
    pub body: Bytes,
}

/// Why sequences have no record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SkipReason {
    /// Their time to live had passed.
    Expired,
    /// Dropped because the queue was full.
    Dropped,
    /// They could not be read back: the disk returned something else than was written.
    Quarantined,
}

/// Sequences `[from, to)` that have no record, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skip {
    /// The first one.
    pub from: EdgeSeq,
    /// The first one after it.
    pub to: EdgeSeq,
    /// Why.
    pub reason: SkipReason,
}

/// An account of the sequences `[from, next)` of a lane: each one is an entry or lies in a skip, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadBatch {
    /// The first sequence covered.
    pub from: EdgeSeq,
    /// The first one not covered; `from` if there is nothing yet.
    pub next: EdgeSeq,
    /// The lane's digest before `from`.
    pub digest_before: ChainDigest,
    /// The lane's digest at `next - 1`. Where that sequence has no record, it is the digest of the last one before it that
    /// could be read; the batch that begins at `next` has the same one as its `digest_before`.
    pub digest: ChainDigest,
    /// The records.
    pub entries: Vec<Entry>,
    /// The sequences that have none.
    pub skips: Vec<Skip>,
}

impl ReadBatch {
    /// Whether it covers no sequence at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from == self.next
    }
}

/// What the edge presents to the cloud for one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Which queue directory.
    pub store: StoreId,
    /// What the cloud issued to it, once it has.
    pub incarnation: Option<Incarnation>,
    /// The lane.
    pub lane: LaneId,
    /// The next sequence that an append will get, counting synced appends only.
    pub next_seq: EdgeSeq,
    /// The last synced sequence; 0 if none.
    pub synced_through: EdgeSeq,
    /// The digest there.
    pub synced_digest: ChainDigest,
    /// The last sequence that the cloud has, as far as this queue knows; 0 if none.
    pub acknowledged_through: EdgeSeq,
    /// The digest there; 0 only if nothing from which it could be known was left when the acknowledgement came.
    pub acknowledged_digest: ChainDigest,
}

/// Records that were given up, since the store was made. Survives restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drops {
    /// Skipped because their time to live had passed.
    pub expired_records: u64,
    /// Dropped because the queue was full.
    pub dropped_records: u64,
    /// Unreadable.
    pub quarantined_records: u64,
}

/// One lane, for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// The lane.
    pub lane: LaneId,
    /// Records that are synced, still there and not yet acknowledged. What was found unreadable, or expired, within a segment
    /// that is still there counts until it is acknowledged.
    pub depth_records: u64,
    /// What its segments take on disk.
    pub disk_bytes: u64,
    /// Appended and not yet synced.
    pub pending_bytes: usize,
    /// Segment files.
    pub segments: usize,
    /// The age of the oldest record not yet acknowledged, as far as known.
    pub oldest: Option<Duration>,
    /// Given up since the store was made.
    pub drops: Drops,
    /// Records appended since the queue was opened.
    pub appended_records: u64,
    /// Syncs since the queue was opened.
    pub syncs: u64,
}

/// Something that could not be read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The lane.
    pub lane: LaneId,
    /// The segment's file name.
    pub segment: String,
    /// The first byte that made no sense.
    pub at_byte: u64,
    /// The sequences that it costs; empty if it cost none.
    pub from: EdgeSeq,
    /// The first sequence after them.
    pub to: EdgeSeq,
}

/// What opening a queue found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The directory was empty (or its identity unreadable): a new store.
    pub new_store: bool,
    /// Each lane.
    pub lanes: Vec<RecoveredLane>,
    /// What could not be read back.
    pub damage: Vec<Damage>,
    /// Cursor or identity files of which a slot was unreadable, or that had to be rebuilt.
    pub notes: Vec<String>,
}

/// What opening found in one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoveredLane {
    /// The lane.
    pub lane: LaneId,
    /// The last sequence that the cloud has.
    pub acknowledged_through: EdgeSeq,
    /// The sequence that the next append gets.
    pub next_seq: EdgeSeq,
    /// What its segments take on disk.
    pub disk_bytes: u64,
    /// Cut off the last segment: an append that a crash interrupted, never acknowledged to anyone.
    pub truncated_bytes: u64,
}
