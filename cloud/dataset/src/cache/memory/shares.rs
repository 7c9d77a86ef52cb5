//! How much of the cache's memory is for what.

use robustmq_common::limits;
use tokio::time::Instant;

use super::Memory;
use crate::layout::Extent;

/// How much of `budget_bytes` is for read-ahead.
pub(in crate::cache) fn ahead_bytes(budget_bytes: usize) -> usize {
    let least = limits::dataset::AHEAD_BYTES_LEAST.min(budget_bytes / 2);
    (budget_bytes / limits::dataset::AHEAD_SHARE).clamp(least, limits::dataset::AHEAD_BYTES)
}

/// How large extents should be, about.
pub(in crate::cache) fn extent_bytes(budget_bytes: usize) -> usize {
    let (least, most) = limits::dataset::EXTENT_BYTES_RANGE.into_inner();
    let bytes = ahead_bytes(budget_bytes) / limits::dataset::EXTENTS_AHEAD;
    (bytes - bytes % least).clamp(least, most)
}

/// How much of what is worked in has room in read-ahead's.
pub(in crate::cache) fn working_bytes(budget_bytes: usize) -> usize {
    ahead_bytes(budget_bytes) / 2
}

/// Whether what was asked for then is not being read any more; with no time at all, it does not matter.
pub(super) fn is_idle(since: Instant, now: Option<Instant>) -> bool {
    now.is_none_or(|now| now.duration_since(since) >= limits::dataset::BEING_READ)
}

/// Memory that an extent takes.
pub(in crate::cache) fn cost(extent: &Extent) -> usize {
    extent.content.len() + extent.layout.memory_bytes() + limits::dataset::EXTENT_COST_BYTES
}

impl Memory {
    /// What residents may take.
    pub(in crate::cache) fn resident_room(&self) -> u64 {
        let own = self.own_resident_room();
        (own - self.strain.room_bytes(own)) as u64
    }

    /// The same where the pool has room enough.
    pub(super) fn own_resident_room(&self) -> usize {
        (self.budget_bytes - ahead_bytes(self.budget_bytes)).saturating_sub(self.queue_bytes)
    }

    /// What the pool has room for.
    pub(super) fn pool_room(&self) -> usize {
        self.own_pool_room() + self.strain.room_bytes(self.own_resident_room())
    }

    /// The same without what it has of what stays: what is for read-ahead, but for a part where somebody works in memory beside the cache. All of that
    /// part as soon as there is some, and for a while after: what stays is not to go for what comes and goes, and what is read ahead not when more of
    /// it comes.
    pub(super) fn own_pool_room(&self) -> usize {
        let working = if self.working.goes_on() { working_bytes(self.budget_bytes) } else { 0 };
        ahead_bytes(self.budget_bytes) - working
    }
}
