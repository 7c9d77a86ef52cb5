//! What the state of partitions takes of memory, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Partition;

/// A sum that each loaded partition has its part of, and what it may be. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct StateMemory {
    used: Arc<AtomicUsize>,
    pub budget_bytes: usize,
}

/// One partition's part; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Footprint {
    used: Arc<AtomicUsize>,
    mine: AtomicUsize,
}

/// Of a partition without producers and origins: what tokio's channel and lock allocate counts as much as the state itself.
const PARTITION_BYTES: usize = 2 * size_of::<Partition>();

impl StateMemory {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { used: Arc::default(), budget_bytes }
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What one more partition takes at least.
    pub(super) fn footprint_bytes(&self) -> usize {
        PARTITION_BYTES
    }

    /// The part of a partition that is about to be loaded.
    pub(super) fn footprint(&self) -> Footprint {
        let footprint =
            Footprint { used: Arc::clone(&self.used), mine: AtomicUsize::new(PARTITION_BYTES) };
        self.used.fetch_add(PARTITION_BYTES, Ordering::Relaxed);
        footprint
    }
}

impl Footprint {
    /// The state takes so much beyond the partition itself. Called under the partition's lock.
    pub(super) fn set(&self, more_bytes: usize) {
        let bytes = PARTITION_BYTES + more_bytes;
        let before = self.mine.swap(bytes, Ordering::Relaxed);
        match bytes.cmp(&before) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                self.used.fetch_add(bytes - before, Ordering::Relaxed);
            }
            std::cmp::Ordering::Less => {
                self.used.fetch_sub(before - bytes, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        self.used.fetch_sub(*self.mine.get_mut(), Ordering::Relaxed);
    }
}
