//! Ids that are never given out twice, whatever crashes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::ids::ProducerId;
use robustmq_common::limits;
use tokio::sync::Mutex;

use crate::store::keys::system::{IdKind, ids_key};
use crate::store::keys::{Reader, damaged};
use crate::store::{self, Store, StoreError, WriteBatch};

/// Gives out ids from blocks that are reserved durably before the first of them is used. A crash wastes the rest of a block.
pub struct IdBlocks {
    store: Arc<dyn Store>,
    key: Bytes,
    block: u32,
    free: Mutex<Range<u64>>,
}

impl IdBlocks {
    /// Ids of one kind, reserved `block` at a time. One of these for each kind and store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, kind: IdKind, block: u32) -> Self {
        Self { store, key: ids_key(kind), block: block.max(1), free: Mutex::new(0..0) }
    }

    /// An id that was never given out before. The first one is 0.
    ///
    /// # Errors
    /// [`StoreError`] when the next block cannot be reserved.
    pub async fn next(&self) -> Result<u64, StoreError> {
        let mut free = self.free.lock().await;
        if free.is_empty() {
            *free = self.reserve().await?;
        }
        let id = free.start;
        free.start += 1;
        Ok(id)
    }

    async fn reserve(&self) -> Result<Range<u64>, StoreError> {
        let first = match self.store.get(&self.key).await? {
            Some(value) => decode(&value).map_err(|error| damaged(&self.key, error))?,
            None => 0,
        };
        let next = first
            .checked_add(u64::from(self.block))
            .ok_or_else(|| damaged(&self.key, "no ids are left"))?;
        let mut write = WriteBatch::new();
        write.put(self.key.clone(), next.to_be_bytes().to_vec());
        store::write(&*self.store, write).await?;
        Ok(first..next)
    }
}

fn decode(value: &[u8]) -> Result<u64, store::keys::ValueError> {
    let mut reader = Reader::new(value);
    let next = reader.u64()?;
    reader.end()?;
    Ok(next)
}

/// Ids of idempotent producers (InitProducerId, KIP-98).
pub struct ProducerIds(IdBlocks);

impl ProducerIds {
    /// The producer ids of a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(IdBlocks::new(store, IdKind::Producer, limits::ID_BLOCK))
    }

    /// A producer id that was never given out before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&self) -> Result<ProducerId, StoreError> {
        let id = self.0.next().await?;
        i64::try_from(id).map(ProducerId).map_err(|_| damaged(&self.0.key, "no ids are left"))
    }
}
