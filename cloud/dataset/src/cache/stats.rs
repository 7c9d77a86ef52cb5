//! What the cache says of itself.

use serde::Serialize;

use super::Tier;

/// What is counted for a user, and in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Reads of extents, however many Fetches each took, that were answered from memory; read-ahead is that too.
    pub memory_reads: u64,
    /// Those that waited for the SSD.
    pub ssd_reads: u64,
    /// Those that waited for the source.
    pub source_reads: u64,
    /// Content that came from the source.
    pub source_bytes: u64,
    /// Fetches that waited for an extent on its way.
    pub waited: u64,
    /// How long all of these waited.
    pub waited_micros: u64,
    /// Loads that failed.
    pub failed_loads: u64,
}

impl Counts {
    pub(super) fn read(&mut self, tier: Tier) {
        match tier {
            Tier::Memory => self.memory_reads += 1,
            Tier::Ssd => self.ssd_reads += 1,
            Tier::Source => self.source_reads += 1,
        }
    }
}

/// The state of the cache, or of one user's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CacheStats {
    /// What may be in memory.
    pub budget_bytes: u64,
    /// What all users have in memory: those that stay, read-ahead, and loads that readers wait for beyond its room.
    pub memory_bytes: u64,
    /// Of extents that stay, or of those of them that the user has read last.
    pub resident_bytes: u64,
    /// Of all users' extents that were read ahead, that are being read, being sent after they left, and on their way.
    pub ahead_bytes: u64,
    /// Of extents on SSD, or of those of them that the user has read last.
    pub ssd_bytes: u64,
    /// What the user's reads have come to since the cache was opened, or all users'.
    #[serde(flatten)]
    pub counts: Counts,
    /// What came from the source for the last accesses (of the user), at most [`robustmq_common::limits::dataset::TRACED_ACCESSES`].
    pub traced_source_bytes: u64,
    /// The least that would have had to come for the same ones, had a cache begun empty with them that knows the future: as large as what
    /// may stay in memory and on SSD, all of it for these accesses. Read-ahead's room holds nothing from one epoch to the next, and does not count.
    pub belady_bytes: u64,
    /// What all users' extents have written to SSD since the cache was opened.
    pub ssd_written_bytes: u64,
    /// Extents that were not on SSD as they were written; they were fetched again.
    pub damaged_ssd_extents: u64,
    /// Whether what is on SSD is read.
    pub reads_ssd: bool,
    /// Whether extents are written to SSD.
    pub writes_ssd: bool,
}
