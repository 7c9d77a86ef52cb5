//! Topics with the same source and format: they share what is known of its objects.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::Source;
use robustmq_dataset::index::ObjectIndex;
use tokio::sync::OwnedMutexGuard;

use crate::store::keys::damaged;
use crate::store::keys::dataset::{decode_promise, encode_promise, index_key, promise_key};
use crate::store::{self, Store, StoreError, WriteBatch};

/// What is known of a source's objects, and the way to them.
pub(super) struct Group {
    /// Hash of the source and the format.
    pub key: u128,
    /// Where bytes come from.
    pub source: Arc<dyn Source>,
    store: Arc<dyn Store>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    indexes: HashMap<u128, Arc<ObjectIndex>>,
    order: VecDeque<u128>,
    bytes: usize,
    /// Objects that somebody indexes.
    busy: HashMap<u128, Arc<tokio::sync::Mutex<()>>>,
}

impl Group {
    pub fn new(key: u128, source: Arc<dyn Source>, store: Arc<dyn Store>) -> Self {
        Self { key, source, store, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an object.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known(&self, object: u128) -> Result<Option<Arc<ObjectIndex>>, StoreError> {
        if let Some(index) = self.lock().indexes.get(&object) {
            return Ok(Some(Arc::clone(index)));
        }
        let key = index_key(self.key, object);
        let Some(value) = self.store.get(&key).await? else { return Ok(None) };
        let index: ObjectIndex =
            serde_json::from_slice(&value).map_err(|error| damaged(&key, error))?;
        let index = Arc::new(index);
        self.remember(object, &index);
        Ok(Some(index))
    }

    fn remember(&self, object: u128, index: &Arc<ObjectIndex>) {
        let mut inner = self.lock();
        if inner.indexes.insert(object, Arc::clone(index)).is_none() {
            inner.order.push_back(object);
            inner.bytes += index.memory_bytes();
        }
        while inner.bytes > limits::INDEX_MEMORY_BYTES {
            let Some(oldest) = inner.order.pop_front() else { break };
            let bytes = inner.indexes.remove(&oldest).map_or(0, |index| index.memory_bytes());
            inner.bytes -= bytes;
        }
    }

    /// Waits for one's turn to index an object. Whoever had it before may have done it.
    pub async fn turn(&self, object: u128) -> Turn<'_> {
        let turn = Arc::clone(self.lock().busy.entry(object).or_default());
        Turn { group: self, object, _guard: turn.lock_owned().await }
    }

    /// Whether others wait for the object that somebody indexes.
    pub fn is_wanted(&self, object: u128) -> bool {
        // One is the map's, one is the guard's.
        self.lock().busy.get(&object).is_some_and(|turn| Arc::strong_count(turn) > 2)
    }

    /// So many records of an object have offsets that is not all indexed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn promised(&self, object: u128) -> Result<u64, StoreError> {
        let key = promise_key(self.key, object);
        let Some(value) = self.store.get(&key).await? else { return Ok(0) };
        decode_promise(&value).map_err(|error| damaged(&key, error))
    }

    /// So many are going to have them, once this is durable.
    ///
    /// # Errors
    /// [`StoreError`]: they may not be read.
    pub async fn promise(&self, object: u128, records: u64) -> Result<(), StoreError> {
        let mut write = WriteBatch::new();
        write.put(promise_key(self.key, object), encode_promise(records));
        store::write(&*self.store, write).await
    }

    /// Keeps what was found. What was promised of it is part of that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn save(&self, object: u128, index: &Arc<ObjectIndex>) -> Result<(), StoreError> {
        let mut write = WriteBatch::new();
        let value = serde_json::to_vec(&**index).expect("numbers and text");
        write.put(index_key(self.key, object), value);
        write.delete(promise_key(self.key, object));
        store::write(&*self.store, write).await?;
        self.remember(object, index);
        Ok(())
    }
}

/// The right to index an object.
pub(super) struct Turn<'a> {
    group: &'a Group,
    object: u128,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.group.lock();
        // The map's and this one's: nobody waits.
        if inner.busy.get(&self.object).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            inner.busy.remove(&self.object);
        }
    }
}
