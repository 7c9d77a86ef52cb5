//! How many bytes the closed chunks of a partition hold, without a walk through its time index at each look.
//!
//! A total knows the offsets that it is of. What has been closed since is added, what is before its new start is taken off, so a look costs
//! what has changed. Those that are deleted are taken off before their entries go. Compaction rewrites entries in place: after it, and
//! after a start or a failed deletion, the index is summed anew.
//!
//! **Invariant:** a total is what a walk through the index would have found at the last look.

use std::sync::atomic::Ordering;

use robustmq_common::ids::Offset;

use super::{Partition, after};
use crate::store::StoreError;

/// Of what a total is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of the log.
    Whole,
    /// What is not archived.
    Local,
}

/// The totals of one partition.
#[derive(Debug, Default)]
pub(super) struct Totals {
    whole: Option<Total>,
    local: Option<Total>,
    /// Entries below it may be gone from the index.
    index_from: Offset,
}

/// Bytes of the chunks that end at or after `from` and before `to`.
#[derive(Debug, Clone, Copy)]
struct Total {
    from: Offset,
    to: Offset,
    bytes: u64,
    /// [`Partition::rewrites`] before they were read.
    rewrites: u64,
}

impl Totals {
    fn of(&mut self, part: Part) -> &mut Option<Total> {
        match part {
            Part::Whole => &mut self.whole,
            Part::Local => &mut self.local,
        }
    }
}

impl Partition {
    /// Bytes of the closed chunks of `part`, from where it starts now.
    pub(super) async fn closed_bytes(&self, part: Part) -> Result<u64, StoreError> {
        let mut totals = self.totals.lock().await;
        let from = match part {
            Part::Whole => self.log_start(),
            Part::Local => self.local_start(),
        };
        let rewrites = self.rewrites.load(Ordering::Acquire);
        let index_from = totals.index_from;
        let is_true = |total: &Total| {
            let can_be_moved = total.from == from || (index_from..=from).contains(&total.from);
            total.rewrites == rewrites && can_be_moved
        };
        let known = totals.of(part).filter(is_true);
        let total = known.unwrap_or(Total { from, to: from, bytes: 0, rewrites });
        let mut total = self.moved(total, from).await?;
        let (came, to) = self.sum(total.to, None).await?;
        total.bytes = total.bytes.saturating_add(came);
        total.to = to;
        *totals.of(part) = Some(total);
        Ok(total.bytes)
    }

    /// The index is about to lose what is before `before`: takes it off while it is there.
    pub(super) async fn leave_totals(&self, before: Offset) -> Result<(), StoreError> {
        let mut totals = self.totals.lock().await;
        let rewrites = self.rewrites.load(Ordering::Acquire);
        let index_from = totals.index_from;
        for part in [Part::Whole, Part::Local] {
            let is_true = |total: &Total| total.rewrites == rewrites && total.from >= index_from;
            let known = totals.of(part).take().filter(is_true);
            *totals.of(part) = match known {
                Some(total) if total.from < before => Some(self.moved(total, before).await?),
                known => known,
            };
        }
        totals.index_from = index_from.max(before);
        Ok(())
    }

    /// The deletion that [`Partition::leave_totals`] was called for has failed.
    pub(super) async fn restore_totals(&self) {
        *self.totals.lock().await = Totals::default();
    }

    async fn moved(&self, mut total: Total, from: Offset) -> Result<Total, StoreError> {
        if total.from < from {
            let (left, _) = self.sum(total.from, Some(from.min(total.to))).await?;
            total.bytes = total.bytes.saturating_sub(left);
            total.from = from;
            total.to = total.to.max(from);
        }
        Ok(total)
    }

    /// Bytes of the chunks that end at or after `from` and before `to` (`None`: of all), and the offset after the last of them.
    async fn sum(&self, from: Offset, to: Option<Offset>) -> Result<(u64, Offset), StoreError> {
        let mut range = self.keys().chunks_from(from);
        if let Some(to) = to {
            range.end = self.keys().chunk(to);
        }
        let (mut bytes, mut end) = (0_u64, from);
        while range.start < range.end {
            for (chunk, last) in self.chunk_page(&mut range).await? {
                bytes = bytes.saturating_add(chunk.bytes);
                end = after(last);
            }
        }
        Ok((bytes, end))
    }
}
