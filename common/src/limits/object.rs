//! Of a store that is kept on an object store.

use std::time::Duration;

/// The least time between two writes to an object store, which are what it charges for: 10 PUTs a second at most.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The longest that may be set.
pub const FLUSH_INTERVAL_MOST: Duration = Duration::from_secs(10);
/// A write that an object store has not taken for this long stops further ones from being queued.
pub const STALL: Duration = Duration::from_secs(10);
/// How long a read from an object store may take.
pub const READ: Duration = Duration::from_secs(30);
/// An object store that has answered nothing for this long while a store is opened is given up.
pub const OPEN_SILENCE: Duration = Duration::from_secs(15);
/// How long a store on an object store may take for its last writes, and again for a clean end.
pub const CLOSE: Duration = Duration::from_secs(8);
/// What a store on an object store keeps in memory of what was written last, before it becomes a table there.
pub const TABLE_BYTES: usize = 16 * 1024 * 1024;
/// What may be in memory because tables are not written yet; then writes wait.
pub const UNFLUSHED_BYTES: usize = 64 * 1024 * 1024;
/// The size of a table that compaction writes.
pub const COMPACTED_TABLE_BYTES: usize = 64 * 1024 * 1024;
/// How often the objects of the log whose writes are in tables are removed, and how old they are then at least.
pub const LOG_COLLECTION: Duration = Duration::from_secs(60);
/// The cache of blocks read from an object store.
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Keys of one request that are looked up at once.
pub const GETS_AT_ONCE: usize = 32;
/// What one request of a long scan reads.
pub const READ_AHEAD_BYTES: usize = 1024 * 1024;
/// Values up to this size are copied out of the block that they were read with, so that keeping one does not keep the block.
pub const COPIED_VALUE_BYTES: usize = 1024;
/// Keys that one step of the removal of a deleted range looks at.
pub const REMOVAL_KEYS: usize = 1024;
/// Bytes of keys and values that one such step reads.
pub const REMOVAL_BYTES: usize = 16 * 1024 * 1024;
/// Ranges that one such step goes through.
pub const REMOVAL_RANGES: usize = 256;
/// Keys written into a deleted range while a step reads it; with more of them the step is done again.
pub const REMOVAL_WRITTEN: usize = 64 * 1024;
/// Ranges that are remembered to be empty.
pub const REMOVAL_REMEMBERED: usize = 16 * 1024;
/// How long the removal waits after a failed step.
pub const REMOVAL_PAUSE: Duration = Duration::from_secs(5);

// Of listings in S3.

/// The longest continuation token: it is a part of a URL.
pub const TOKEN_BYTES: usize = 8192;
/// Pages in a row that have no object and are followed by another.
pub const EMPTY_PAGES: u64 = 10_000;
/// Objects of one listing, those that are left out included.
pub const LISTED_OBJECTS: u64 = 100_000_000;

// Of answers of S3.

/// A page of a listing: a thousand keys of 1,024 bytes, each of which may take six.
pub const PAGE_BYTES: usize = 16 * 1024 * 1024;
/// What an error says, and what may come beyond a range before it is cut off.
pub const SAID_BYTES: usize = 1024 * 1024;
