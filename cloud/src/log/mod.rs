//! Partitions: offsets, idempotence, visibility and reads, over the [`Store`].
//!
//! [`Log`] hands out [`Partition`]s: their state is loaded when it is first used and given back when it is idle, so a
//! million topics cost what the active ones cost. A partition assigns offsets under one lock, in the order of calls
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

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::sync::OnceCell;

use crate::store::keys::partition::{PartitionKeys, topic_range};
use crate::store::{PendingWrite, Store, StoreError, WriteBatch};

mod append;
mod compact;
mod decompress;
mod id_blocks;
mod lookup;
mod maintenance;
mod origins;
mod partition;
mod producers;
mod retention;
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
    /// As many partitions are in use at once as the broker keeps in memory.
    #[error("{0} partitions are in use at once; no more are loaded")]
    TooManyPartitions(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All partitions of one store.
pub struct Log {
    store: Arc<dyn Store>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    slots: BTreeMap<(TopicId, PartitionIndex), Slot>,
    dropped: Dropped,
}

struct Slot {
    cell: Arc<OnceCell<Arc<Partition>>>,
    last_used: Instant,
}

impl Slot {
    /// Nobody holds the partition: not a caller, not a write that is on its way. Only the registry can change that.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.cell) == 1
            && self.cell.get().is_none_or(|partition| Arc::strong_count(partition) == 1)
    }
}

/// The topics that were dropped last, so that a load which was on its way does not bring one back.
#[derive(Default)]
struct Dropped {
    topics: HashSet<TopicId>,
    order: VecDeque<TopicId>,
}

impl Dropped {
    fn insert(&mut self, topic: TopicId) {
        if self.topics.insert(topic) {
            self.order.push_back(topic);
        }
        if self.order.len() > limits::DROPPED_TOPICS
            && let Some(oldest) = self.order.pop_front()
        {
            self.topics.remove(&oldest);
        }
    }
}

impl Log {
    /// The partitions of `store`. Loads nothing.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, registry: Mutex::new(Registry::default()) }
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
        let cell = self.cell(topic, partition)?;
        let keys = PartitionKeys { topic, partition };
        let loaded = cell
            .get_or_try_init(|| async {
                Partition::load(Arc::clone(&self.store), keys).await.map(Arc::new)
            })
            .await?;
        // The topic may have been dropped while the state was read.
        if self.lock().dropped.topics.contains(&topic) {
            loaded.close();
            return Err(LogError::Dropped(topic));
        }
        Ok(Arc::clone(loaded))
    }

    fn cell(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Result<Arc<OnceCell<Arc<Partition>>>, LogError> {
        let now = Instant::now();
        let mut registry = self.lock();
        if registry.dropped.topics.contains(&topic) {
            return Err(LogError::Dropped(topic));
        }
        if let Some(slot) = registry.slots.get_mut(&(topic, partition)) {
            slot.last_used = now;
            return Ok(Arc::clone(&slot.cell));
        }
        if registry.slots.len() >= limits::LOADED_PARTITIONS {
            // What is in use stays; the rest is cheap to load again.
            registry.slots.retain(|_, slot| !slot.is_unused());
            if registry.slots.len() >= limits::LOADED_PARTITIONS {
                return Err(LogError::TooManyPartitions(registry.slots.len()));
            }
        }
        let cell = Arc::new(OnceCell::new());
        let slot = Slot { cell: Arc::clone(&cell), last_used: now };
        registry.slots.insert((topic, partition), slot);
        Ok(cell)
    }

    /// Gives back the memory of partitions that nobody used for `idle`. Returns how many. Call it now and then.
    pub fn evict_idle(&self, idle: Duration) -> usize {
        let now = Instant::now();
        let mut registry = self.lock();
        let before = registry.slots.len();
        registry.slots.retain(|_, slot| {
            !slot.is_unused() || now.saturating_duration_since(slot.last_used) < idle
        });
        before - registry.slots.len()
    }

    /// Up to `limit` partitions in memory after `after` (from the first one for `None`), without counting as their use.
    #[must_use]
    pub fn in_memory(&self, after: Option<PartitionId>, limit: usize) -> Vec<Arc<Partition>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let registry = self.lock();
        let slots = registry.slots.range((from, Bound::Unbounded));
        slots.filter_map(|(_, slot)| slot.cell.get().cloned()).take(limit).collect()
    }

    /// Whether a partition is in memory.
    #[must_use]
    pub fn is_in_memory(&self, id: PartitionId) -> bool {
        self.lock().slots.contains_key(&id)
    }

    /// Gives back the memory of a partition that nobody uses, however short ago it was loaded.
    pub fn unload(&self, id: PartitionId) {
        let mut registry = self.lock();
        if registry.slots.get(&id).is_some_and(Slot::is_unused) {
            registry.slots.remove(&id);
        }
    }

    /// Partitions in memory.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.lock().slots.len()
    }

    /// Removes everything of a topic's partitions: one range deletion, in one write with what `batch` holds. No append to
    /// the topic is taken after this call; those before it are removed.
    ///
    /// # Errors
    /// [`StoreError`], also from the returned write: then the keys are still there, and the call is to be repeated.
    pub fn drop_topic(
        &self,
        topic: TopicId,
        mut batch: WriteBatch,
    ) -> Result<PendingWrite, StoreError> {
        {
            let mut registry = self.lock();
            registry.dropped.insert(topic);
            let range = (topic, PartitionIndex(i32::MIN))..=(topic, PartitionIndex(i32::MAX));
            let doomed: Vec<_> = registry.slots.range(range).map(|(key, _)| *key).collect();
            for key in doomed {
                if let Some(slot) = registry.slots.remove(&key)
                    && let Some(partition) = slot.cell.get()
                {
                    partition.close();
                }
            }
        }
        batch.delete_range(topic_range(topic));
        self.store.submit(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The offset after `last`, which lies in a batch that passed validation and so cannot be the largest number.
fn after(last: Offset) -> Offset {
    Offset(last.0.saturating_add(1))
}

#[cfg(test)]
mod tests;
