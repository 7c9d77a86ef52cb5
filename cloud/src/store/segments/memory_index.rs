//! An index in memory that crashes: for the tests of everything around the real one.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::index::Index;
use crate::store::memory::apply_ops;
use crate::store::{StoreError, WriteOp};

/// Clones are the same index. It keeps a prefix of what was applied through [`MemoryIndex::crash`], as RocksDB without its log does:
/// now and then it flushes by itself.
#[derive(Clone)]
pub(super) struct MemoryIndex(Arc<Mutex<State>>);

struct State {
    now: BTreeMap<Bytes, Bytes>,
    durable: BTreeMap<Bytes, Bytes>,
    rng: SmallRng,
    /// The chance that a change is followed by a flush.
    flushes: f64,
    forgetful: bool,
}

impl MemoryIndex {
    pub(super) fn new(seed: u64, flushes: f64) -> Self {
        let (now, durable) = (BTreeMap::new(), BTreeMap::new());
        let rng = SmallRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(State { now, durable, rng, flushes, forgetful: false })))
    }

    /// One that never keeps anything: everything is replayed.
    pub(super) fn forgetful() -> Self {
        let index = Self::new(0, 0.0);
        index.lock().forgetful = true;
        index
    }

    /// Forgets what was not flushed.
    pub(super) fn crash(&self) {
        let mut state = self.lock();
        state.now = state.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().now.get(key).cloned())
    }

    fn get_in_memory(&self, key: &[u8]) -> Result<Option<Option<Bytes>>, StoreError> {
        self.get(key).map(Some)
    }

    fn walk(
        &self,
        range: &Range<Bytes>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if range.start >= range.end {
            return Ok(());
        }
        let bounds = (Bound::Included(&range.start), Bound::Excluded(&range.end));
        let copy: Vec<_> = self
            .lock()
            .now
            .range::<Bytes, _>(bounds)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for (key, entry) in copy {
            if !visit(&key, &entry) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: &[WriteOp]) -> Result<(), StoreError> {
        let mut state = self.lock();
        let State { now, durable, rng, flushes, .. } = &mut *state;
        apply_ops(now, changes);
        if rng.random_bool(*flushes) {
            durable.clone_from(now);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if !state.forgetful {
            state.durable = state.now.clone();
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
