//! How much of the cache's memory is for what.

use robustmq_common::limits;
use tokio::time::Instant;

use crate::layout::Extent;

/// How much of `budget_bytes` is for read-ahead.
pub(in crate::cache) fn ahead_bytes(budget_bytes: usize) -> usize {
    let least = limits::dataset::AHEAD_BYTES_LEAST.min(budget_bytes / 2);
    (budget_bytes / limits::dataset::AHEAD_SHARE).clamp(least, limits::dataset::AHEAD_BYTES)
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
