//! Of the archive of `tiered` topics.

use std::time::Duration;

/// Batches of an archived object that are read, cached and checked together.
pub const BLOCK_BYTES: usize = 1024 * 1024;
/// How large an archived object is, about: one PUT. It is in memory while it is put, one at a time.
pub const OBJECT_BYTES: u64 = 32 * 1024 * 1024;
/// What is less than that waits so long for more after it was appended, or for `robustmq.tier.local.ms` if that is less. Records of a
/// backfill are old when they come, and what is more than `local.retention.bytes` comes a megabyte at a time.
pub const GATHER: Duration = Duration::from_secs(300);
/// How long one put may take: 32 MB over a link of 3 Mbit/s.
pub const PUT: Duration = Duration::from_secs(90);
/// The cache of blocks (`[cache] memory_bytes`).
pub const CACHE_BYTES: usize = 128 * 1024 * 1024;
/// The least that may be set.
pub const CACHE_BYTES_MIN: usize = super::dataset::CACHE_BYTES_MIN;
/// Blocks that are fetched at the same time.
pub const FETCHES: usize = 32;
/// Blocks that wait for one of these to end. Readers of further ones are refused.
pub const WAITING_FETCHES: usize = 1024;
/// How often a block is fetched until its reader is told that it cannot be had.
pub const FETCH_ATTEMPTS: u32 = 3;
/// The pause before it is fetched again; the second is twice as long.
pub const FETCH_PAUSE: Duration = Duration::from_millis(100);
/// Blocks that are fetched ahead of one reader, at most, and no more than a quarter of the cache.
pub const READ_AHEAD_BLOCKS: usize = 32;
/// What was fetched ahead and not read for this long makes room for others.
pub const AHEAD_KEPT: Duration = Duration::from_secs(30);
/// How many answers there are between two counts of those who read along.
pub const READERS_COUNTED: u32 = 16;
/// Who had none of so many last answers does not count as reading.
pub const READERS_REMEMBERED: u32 = 128;
/// Readers of one partition that are told apart.
pub const READERS_PER_PARTITION: usize = 16;
/// Partitions whose readers are known.
pub const READ_PARTITIONS: usize = 4096;
/// Answers that take less than this fraction of a block are copied out of it.
pub const COPIED_FRACTION: usize = 4;
/// An object whose records were deleted stays for this long, for those who are reading it.
pub const DOOMED_GRACE: Duration = Duration::from_secs(60);
/// An object that is not to be there is removed again after this time: a put that was given up may have been carried out since.
pub const DOOMED_KEPT: Duration = Duration::from_secs(900);
/// The pause between two looks at the notes of doomed objects.
pub const JANITOR_PAUSE: Duration = Duration::from_secs(20);
/// Objects that are removed at the same time.
pub const REMOVALS_AT_ONCE: usize = 8;
/// Archived objects whose records are deleted by one write.
pub const DOOMED_AT_ONCE: usize = 4096;
/// How long a partition that could not be archived is put off, twice as long with each time; and all of them, where the object store does
/// not answer.
pub const RETRY: Duration = Duration::from_secs(5);
/// The longest of the former.
pub const RETRY_MOST: Duration = Duration::from_secs(3600);
/// The longest where it was the object store that did not answer.
pub const RETRY_OUTAGE_MOST: Duration = Duration::from_secs(60);
/// How long a Fetch waits for the object store. What comes later is in memory for the next one.
pub const FETCH_WAIT: Duration = Duration::from_secs(5);
/// And how long for the rest where some is there already.
pub const FETCH_GRACE: Duration = Duration::from_millis(20);
/// How long that goes on for a Fetch: a little longer, so that the Fetch has ended before.
pub const WARM_WAIT: Duration = Duration::from_secs(6);
/// `robustmq.tier.local.ms`: how long records stay on the broker's own disk.
pub const LOCAL: Duration = Duration::from_secs(3600);
/// How long a start waits for the archive's marker. Then the broker starts, and archives nothing until it has seen it.
pub const START_WAIT: Duration = Duration::from_secs(5);
/// How often the log says that something goes on failing: that nothing can be archived, that a partition's archive cannot be read.
pub const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Failed reads of archived records that wait to be told in the log.
pub const UNTOLD_READS: usize = 64;
/// Lines that tell of them in [`TOLD_AGAIN`], at most one for each partition.
pub const TOLD_READS: usize = 20;
