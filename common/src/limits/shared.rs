//! Of `$shared/` groups.

use std::time::Duration;

/// What is remembered of a cursor's deliveries once they are acknowledged: so far a consumer may seek back.
pub const REMEMBERED_DELIVERIES: usize = 1024;
/// A member's leases go back to the group when it has had no connection for this long; its session may go on.
pub const UNBOUND: Duration = Duration::from_secs(3);
/// So long after a start those may come back who were members before it, and ask for their cursors as if they were still: no client's
/// default waits longer before it connects again (10 s, librdkafka's `reconnect.backoff.max.ms`).
pub const RETURN: Duration = Duration::from_secs(15);
/// Records that a member is given ahead of its first acknowledgement, and the least that one gets that keeps up.
pub const FIRST_IN_FLIGHT: u32 = 512;
/// But a member may have this part of its share of what is left, were the rest divided equally: if it is slow, the others are not done
/// before it is.
pub const FIRST_SHARE: u64 = 10;
/// Records in the first answer to a new member; each answer may have twice as many as the last.
pub const FIRST_LEASE: u32 = 64;
/// As many members a group is taken to have at least, for that: others may be about to join.
pub const FIRST_MEMBERS: u64 = 8;
/// Records in flight on one cursor, whatever its member acknowledges (`robustmq.shared.max.inflight.records`).
pub const MAX_IN_FLIGHT: u32 = 4_000_000;
/// A member that is busy is given work for so long ahead of what it is thought to be at.
pub const AHEAD_MOST: Duration = Duration::from_secs(2);
/// But near the end of the data only for so long, so that the others get some too.
pub const AHEAD_LEAST: Duration = Duration::from_millis(200);
/// Work ahead is at most this part of what is left to do.
pub const AHEAD_SHARE: u64 = 4;
/// Ranges that a pool's progress is made of: what was acknowledged out of order. Beyond it nothing new is given out until
/// the oldest are acknowledged.
pub const PROGRESS_RANGES: usize = 50_000;
/// Cursors that somebody fetched at and that are not known: so many are noted, to have their members join again.
pub const STRANGERS: usize = 10_000;
/// After this time one may be forgotten for another: no client's heartbeats are further apart.
pub const STRANGER_KEPT: Duration = Duration::from_secs(60);
/// Members of all shared groups and share groups together: half of the tokens that there are, so that a free one is near.
pub const TOKENS: usize = 1 << 19;
/// Tokens that are reserved at a time.
pub const TOKEN_BLOCK: u32 = 1_000;
/// Consecutive records that are given to one member within this time are one delivery, whose age is that of its first.
pub const ONE_DELIVERY: Duration = Duration::from_secs(1);
/// The shortest time between two looks for what was not acknowledged in time.
pub const EXPIRY_PAUSE: Duration = Duration::from_millis(100);
/// How long a pool that could not be stored waits until it is tried again.
pub const PERSIST_PAUSE: Duration = Duration::from_secs(1);
/// A member that acknowledges nothing may have twice as much in flight each time that so much time has passed.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// But no more than this, which is what librdkafka prefetches (`queued.min.messages`); no client's default is larger.
pub const PREFETCHED: u32 = 100_000;
/// The same in bytes (`queued.max.messages.kbytes`).
pub const PREFETCHED_BYTES: u64 = 64 * 1024 * 1024;

/// How long a member of a share group may take for a record before it goes to others (`share.record.lock.duration.ms`).
pub const LOCK: Duration = Duration::from_secs(30);
/// Records that a member of a share group may have acquired of one partition and not acknowledged.
pub const ACQUIRED_RECORDS: u32 = 10_000;
/// Topics that a member of a share group may subscribe to.
pub const SUBSCRIBED_TOPICS: usize = 10_000;
/// How often members of the consumer group protocol (KIP-848) send a heartbeat (`group.consumer.heartbeat.interval.ms`).
pub const CONSUMER_HEARTBEAT: Duration = Duration::from_secs(5);
/// How long one lives of which nothing is heard (`group.consumer.session.timeout.ms`).
pub const CONSUMER_SESSION: Duration = Duration::from_secs(45);
/// Bytes that a compiled pattern of topic names may take.
pub const PATTERN_BYTES: usize = 1 << 20;
/// Patterns whose topics are remembered.
pub const PATTERNS: usize = 64;
/// Snapshots of one group's progress.
pub const SNAPSHOTS: usize = 64;
/// Characters of a snapshot's name.
pub const SNAPSHOT_NAME: usize = 128;
/// Bytes of one snapshot: progress in many pieces on many partitions takes more, and is refused.
pub const SNAPSHOT_BYTES: usize = 8 * 1024 * 1024;
/// How often a group is emptied of its members for a rewind, should they come back before it is done.
pub const REWIND_TRIES: usize = 20;
/// Partitions of one share session.
pub const SESSION_PARTITIONS: usize = 10_000;
/// Groups of which it is remembered what was done in pools that are no longer in memory.
pub const PAST_LEDGERS: usize = 10_000;
/// Groups that `/metrics` shows: those that were given most.
pub const SHOWN_GROUPS: usize = 100;
