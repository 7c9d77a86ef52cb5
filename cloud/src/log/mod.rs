//! Partitions: offsets, idempotence, visibility and reads, over the [`Store`].
//!
//! [`Log`] hands out [`Partition`]s: their state is loaded when it is first used and given back when it is idle, so a
//! million topics cost what the active ones cost, within one budget of bytes ([`limits::PARTITION_STATE_BYTES`]). A partition assigns offsets under one lock, in the order of calls
//! ([`Partition::append`] does not wait), and submits one atomic write for each batch; the returned [`PendingAppend`] resolves
//! when that is durable.
//!
//! **Invariant:** one append is one atomic write of everything that it changes: batch, end, time index, producer, origin.
//! **Invariant:** the high watermark is the durable offset. No read passes it.
//! **Invariant:** no offset is given twice to acknowledged records, and none is skipped.
//! **Invariant:** a duplicate (of a producer's batch, of an edge's records) is never stored again, and is not answered before its
//! original is durable.
//! **Invariant:** a failed write fails everything that was assigned after it; the state is then read again from the store.
//!
//! Here is only the storage mode `persistent`. The volatile modes will reserve blocks of offsets ([`IdBlocks`]) and bump the
//! leader epoch after a crash, for which the `epoch` keys are written already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;

use self::footprint::StateMemory;
use self::registry::{Registry, SharedRegistry};
use crate::store::keys::partition::PartitionKeys;
use crate::store::{Store, StoreError};

mod append;
mod compact;
mod decompress;
mod footprint;
mod id_blocks;
mod lookup;
mod maintenance;
mod origins;
mod partition;
mod producers;
mod registry;
mod retention;
mod size;
mod upkeep;

pub use append::{AppendContext, AppendError, AppendRules, Appended, PendingAppend};
pub use compact::{Assessment, CompactError, CompactionQueue, CompactionRules, PassSummary};
pub use decompress::check_keys;
pub use id_blocks::{IdBlocks, ProducerIds};
pub use lookup::{FoundOffset, LookupError};
pub use origins::{Origin, OriginKey};
pub use partition::{Offsets, Partition, ReadError, ReadResult, Visible};
pub use producers::ProducerError;
pub use retention::{DeleteRecordsError, Retention};
pub use upkeep::{Look, PartitionId, Upkeep};

/// Why a partition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The topic was deleted.
    #[error("topic {0} was deleted")]
    Dropped(TopicId),
    /// So many partitions are in use at once that their state takes all the memory there is for it.
    #[error(
        "{0} partitions are in memory, which takes all that there is for them; no more are loaded"
    )]
    TooManyPartitions(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All partitions of one store.
pub struct Log {
    store: Arc<dyn Store>,
    registry: SharedRegistry,
    memory: StateMemory,
}

impl Log {
    /// The partitions of `store`. Loads nothing.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_budget(store, limits::PARTITION_STATE_BYTES)
    }

    /// As [`Log::new`]; the state of loaded partitions takes `budget_bytes` of memory.
    #[must_use]
    pub fn with_budget(store: Arc<dyn Store>, budget_bytes: usize) -> Self {
        let memory = StateMemory::new(budget_bytes);
        Self { store, registry: SharedRegistry::new(Registry::new(memory.clone())), memory }
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// A partition, loaded if it is not in memory. One that was never written is empty and costs no key: whether the
    /// topic exists, and has this partition, is for the catalogue to say.
    ///
    /// Hold the `Arc` for as long as the partition is in use, and not longer: it keeps the state in memory.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn partition(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Result<Arc<Partition>, LogError> {
        let cell = self.registry.lock().cell(topic, partition, Instant::now())?;
        let keys = PartitionKeys { topic, partition };
        let loaded = cell
            .get_or_try_init(|| async {
                let store = Arc::clone(&self.store);
                Partition::load(store, keys, self.memory.footprint()).await.map(Arc::new)
            })
            .await?;
        // The topic may have been closed while the state was read.
        if !self.registry.lock().has(topic, partition, &cell) {
            loaded.close();
            return Err(LogError::Dropped(topic));
        }
        Ok(Arc::clone(loaded))
    }

    /// A partition, if it is in memory. It does not count as used.
    #[must_use]
    pub fn loaded_partition(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Option<Arc<Partition>> {
        self.registry.lock().loaded(topic, partition)
    }

    /// Gives back the memory of partitions that nobody used for `idle`. Returns how many. Call it now and then.
    pub fn evict_idle(&self, idle: Duration) -> usize {
        self.registry.lock().evict_idle(idle, Instant::now())
    }

    /// Up to `limit` partitions in memory after `after` (from the first one for `None`), without counting as their use.
    #[must_use]
    pub fn in_memory(&self, after: Option<PartitionId>, limit: usize) -> Vec<Arc<Partition>> {
        self.registry.lock().in_memory(after, limit)
    }

    /// Whether a partition is in memory.
    #[must_use]
    pub fn is_in_memory(&self, id: PartitionId) -> bool {
        self.registry.lock().contains(id)
    }

    /// Gives back the memory of a partition that nobody uses, however short ago it was loaded.
    pub fn unload(&self, id: PartitionId) {
        self.registry.lock().unload(id);
    }

    /// Partitions in memory.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.registry.lock().len()
    }

    /// Bytes of memory that the loaded partitions take, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.registry.lock().bytes()
    }

    /// Closes the partitions of deleted topics: no append to them is taken after this call, and whoever waits is woken.
    /// What was submitted before is in the store's queue. Their keys are the caller's to remove.
    pub fn close_topics(&self, topics: impl IntoIterator<Item = TopicId>) {
        let now = Instant::now();
        for topic in topics {
            // Each by itself, so that nobody waits for thousands.
            let closed = self.registry.lock().drop_topic(topic, now);
            for partition in closed {
                partition.close();
            }
        }
    }
}

/// The offset after `last`, which lies in a batch that passed validation and so cannot be the largest number.
fn after(last: Offset) -> Offset {
    Offset(last.0.saturating_add(1))
}

#[cfg(test)]
mod tests;
