//! The one budget for batches that are in memory only, of all partitions.
//!
//! They are charged as they come. When more than the budget is used, the oldest batches of the largest rings go: all that are larger are
//! cut to one size.
//!
//! **Invariant:** what `hybrid` has not written is never dropped; it is bounded by half of the budget, beyond which appends wait.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use robustmq_common::limits;
use tokio::sync::Notify;

use super::unstored::Unstored;

/// Memory for batches that the store does not have.
#[derive(Debug)]
pub(super) struct UnstoredMemory {
    limit: usize,
    used: AtomicUsize,
    /// Of these, what `hybrid` has not written.
    unwritten: AtomicUsize,
    /// Wakes appends that wait until something was written.
    pub(super) room: Notify,
    /// Records, and their bytes, that rings gave up for want of room.
    pushed_out_records: AtomicU64,
    pushed_out_bytes: AtomicU64,
    /// Everybody who holds batches. Held while somebody makes room.
    holders: Mutex<Holders>,
}

#[derive(Debug, Default)]
struct Holders {
    all: Vec<Weak<Unstored>>,
    /// The number at which those that are gone are looked for.
    sweep_at: usize,
}

impl UnstoredMemory {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            room: Notify::new(),
            pushed_out_records: AtomicU64::new(0),
            pushed_out_bytes: AtomicU64::new(0),
            holders: Mutex::default(),
        }
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A ring gave up so many records for want of room.
    pub(super) fn pushed_out(&self, records: u64, bytes: u64) {
        self.pushed_out_records.fetch_add(records, Ordering::Relaxed);
        self.pushed_out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records, and their bytes, that rings gave up for want of room.
    pub(super) fn all_pushed_out(&self) -> (u64, u64) {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        (load(&self.pushed_out_records), load(&self.pushed_out_bytes))
    }

    pub(super) fn register(&self, holder: &Arc<Unstored>) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.all.len() >= holders.sweep_at {
            holders.all.retain(|holder| holder.strong_count() > 0);
            holders.sweep_at = (2 * holders.all.len()).max(64);
        }
        holders.all.push(Arc::downgrade(holder));
    }

    pub(super) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn charge_unwritten(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release_unwritten(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// `hybrid` may hold more.
    pub(super) fn takes_unwritten(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) < self.limit / 2
    }

    /// Drops batches if the budget is passed. Call it without a lock of any [`Unstored`].
    pub(super) fn make_room(&self) {
        if self.used() <= self.limit {
            return;
        }
        // Who finds somebody at it goes on: the excess is that of batches on their way.
        let Ok(holders) = self.holders.try_lock() else { return };
        let target = self.limit - self.limit / limits::UNSTORED_FREED_FRACTION;
        let alive: Vec<Arc<Unstored>> = holders.all.iter().filter_map(Weak::upgrade).collect();
        let excess = self.used().saturating_sub(target);
        let sizes: Vec<usize> = alive.iter().map(|holder| holder.ring_bytes()).collect();
        let kept = level(sizes.clone(), excess);
        for (holder, size) in alive.iter().zip(sizes) {
            if size > kept {
                holder.cut_ring(kept);
            }
        }
    }
}

/// The size to which all that are larger are cut, so that together they give `excess`.
fn level(mut sizes: Vec<usize>, excess: usize) -> usize {
    if excess == 0 {
        return usize::MAX;
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for (index, size) in sizes.iter().enumerate() {
        sum += size;
        let next = sizes.get(index + 1).copied().unwrap_or(0);
        // All so far cut to the next smaller one would give this much.
        if sum - (index + 1) * next >= excess {
            return (sum - excess) / (index + 1);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::proptest;

    use super::level;

    #[test]
    fn the_largest_are_cut_to_one_size() {
        let check = |sizes: &[usize], excess, kept| {
            assert_eq!(level(sizes.to_vec(), excess), kept, "{sizes:?} give {excess}");
        };
        check(&[10, 4, 3], 6, 4);
        check(&[10, 4, 3], 2, 8);
        check(&[10, 4, 3], 8, 3);
        check(&[5, 5, 5], 4, 3);
        check(&[5, 5], 11, 0);
        check(&[5, 5], 0, usize::MAX);
        check(&[], 1, 0);
    }

    proptest! {
        #[test]
        fn enough_is_given_and_not_much_more(sizes in vec(0..1000_usize, 0..20), excess in 1..5000_usize) {
            let kept = level(sizes.clone(), excess);
            let given: usize = sizes.iter().map(|size| size.saturating_sub(kept)).sum();
            assert!(given >= excess || kept == 0);
            assert!(kept == 0 || given < excess + sizes.len());
        }
    }
}
