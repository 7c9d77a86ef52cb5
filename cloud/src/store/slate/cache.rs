//! Blocks, indexes and filters that were read from the object store, the least recently used going first. SlateDB's own caches
//! would bring two dozen crates.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use slatedb::Error;
use slatedb::db_cache::{CachedEntry, CachedKey, DbCache};

/// A cache of at most so many bytes.
pub(super) struct BlockCache {
    limit_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<CachedKey, Entry>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, CachedKey>,
    uses: u64,
    bytes: usize,
}

struct Entry {
    value: CachedEntry,
    bytes: usize,
    used: u64,
}

impl BlockCache {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, key: &CachedKey) -> Option<CachedEntry> {
        let mut state = self.lock();
        let State { entries, order, uses, .. } = &mut *state;
        let entry = entries.get_mut(key)?;
        *uses += 1;
        order.remove(&entry.used);
        order.insert(*uses, key.clone());
        entry.used = *uses;
        Some(entry.value.clone())
    }
}

impl State {
    fn remove(&mut self, key: &CachedKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }

    fn insert(&mut self, key: CachedKey, value: CachedEntry, bytes: usize) {
        self.remove(&key);
        self.uses += 1;
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, bytes, used: self.uses });
        self.bytes += bytes;
    }

    fn shrink(&mut self, limit_bytes: usize) {
        while self.bytes > limit_bytes {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.remove(&oldest);
        }
    }
}

#[async_trait]
impl DbCache for BlockCache {
    async fn get_block(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.look_up(key))
    }

    async fn get_index(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.look_up(key))
    }

    async fn get_filter(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.look_up(key))
    }

    async fn get_stats(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.look_up(key))
    }

    async fn insert(&self, key: CachedKey, value: CachedEntry) {
        /// What an entry takes beside its bytes.
        const OVERHEAD_BYTES: usize = 256;
        let bytes = value.size() + OVERHEAD_BYTES;
        if bytes > self.limit_bytes / 4 {
            return;
        }
        let mut state = self.lock();
        state.insert(key, value, bytes);
        state.shrink(self.limit_bytes);
    }

    async fn remove(&self, key: &CachedKey) {
        self.lock().remove(key);
    }

    fn entry_count(&self) -> u64 {
        self.lock().entries.len() as u64
    }
}
