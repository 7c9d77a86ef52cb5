//! Partitions: offsets, idempotence, visibility and reads, over the [`Store`].
//!
//! [`Log`] hands out [`Partition`]s: their state is loaded when it is first used and given back when it is idle, so a
//! million topics cost what the active ones cost. A partition assigns offsets under one lock, in the order of calls
//! ([`Partition::append`] does not wait); the returned [`PendingAppend`] resolves when the batch is as durable as the topic's
//! [`StorageMode`] promises. The modes differ in what an append does: `persistent` submits one atomic write (`append`); `memory` and
//! `hybrid` take it into memory (`volatile`), and `hybrid` writes it later (`write_behind`). Reads ask memory first (`recent`), so
//! that whoever reads the tail needs no store.
//!
//! **Invariant:** in `persistent`, one append is one atomic write of everything that it changes: batch, end, time index, producer,
//! origin. In `hybrid`, one write carries all of these of every append since the last one.
//! **Invariant:** no read passes the high watermark; in `persistent` that is the durable offset.
//! **Invariant:** no offset is given twice to records that were ever readable or acknowledged, whatever crashes. `persistent` skips
//! none; the volatile modes skip what was reserved at a crash, and only then.
//! **Invariant:** between log start and end no offset is out of range, also in a hole.
//! **Invariant:** a duplicate (of a producer's batch, of an edge's records) is never stored again, and is not answered before its
//! original is durable.
//! **Invariant:** a failed write fails everything that was assigned after it; the state is then read again from the store.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::sync::OnceCell;

use crate::store::keys::partition::{PartitionKeys, topic_range};
use crate::store::{PendingWrite, Store, StoreError, WriteBatch};

mod append;
mod change;
mod id_blocks;
mod lookup;
mod memory;
mod mode;
mod origins;
mod partition;
mod producers;
mod read;
mod recent;
mod retention;
mod sequencer;
mod volatile;
mod write_behind;

use memory::Memory;
use partition::Shared;
use write_behind::WriteBehind;

pub use append::{AppendContext, AppendError, AppendRules, Appended, PendingAppend};
pub use id_blocks::{IdBlocks, ProducerIds};
pub use lookup::{FoundOffset, LookupError};
pub use mode::StorageMode;
pub use origins::{Origin, OriginKey};
pub use partition::{Offsets, Partition, ReadError, ReadResult, Visible};
pub use producers::ProducerError;
pub use retention::{DeleteRecordsError, Retention};

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
    shared: Arc<Shared>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    slots: BTreeMap<(TopicId, PartitionIndex), Slot>,
    dropped: Dropped,
    /// The modes that were changed last, so that a request that knows only the old one does not bring it back.
    changed_modes: HashMap<TopicId, StorageMode>,
}

struct Slot {
    cell: Arc<OnceCell<Arc<Partition>>>,
    last_used: Instant,
}

impl Slot {
    /// Nobody holds the partition: not a caller, not a write that is on its way. Only the registry can change that. And nothing
    /// is lost with it.
    fn is_unused(&self) -> bool {
        let unused = |partition: &Arc<Partition>| {
            Arc::strong_count(partition) == 1 && partition.is_at_rest()
        };
        Arc::strong_count(&self.cell) == 1 && self.cell.get().is_none_or(unused)
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

impl Registry {
    fn loaded_of(&self, topic: TopicId) -> Vec<Arc<Partition>> {
        let range = (topic, PartitionIndex(i32::MIN))..=(topic, PartitionIndex(i32::MAX));
        self.slots.range(range).filter_map(|(_, slot)| slot.cell.get()).cloned().collect()
    }
}

impl Log {
    /// The partitions of `store`. Loads nothing.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_memory(store, limits::LOG_MEMORY_BYTES)
    }

    /// As [`Log::new`], with `memory_bytes` for the newest batches of all partitions.
    #[must_use]
    pub fn with_memory(store: Arc<dyn Store>, memory_bytes: usize) -> Self {
        let memory = Arc::new(Memory::new(memory_bytes));
        let shared = Shared { store, memory, write_behind: WriteBehind::default() };
        Self { shared: Arc::new(shared), registry: Mutex::new(Registry::default()) }
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
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
                Partition::load(Arc::clone(&self.shared), keys).await.map(Arc::new)
            })
            .await?;
        // The topic may have been dropped, or its mode changed, while the state was read.
        let (dropped, mode) = {
            let registry = self.lock();
            (registry.dropped.topics.contains(&topic), registry.changed_modes.get(&topic).copied())
        };
        if dropped {
            loaded.close();
            return Err(LogError::Dropped(topic));
        }
        if let Some(mode) = mode {
            loaded.adopt(mode);
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

    /// Changes the mode of a topic's partitions, of which the caller says that they have none of the old mode's promises to
    /// keep any more when this returns: what the old mode held in memory is written first. Appends that know only the old
    /// mode follow the new one. Call it before the topic's configuration says a more durable mode, and after it says a
    /// less durable one, so that a failure never leaves a topic with less than it says.
    ///
    /// # Errors
    /// [`LogError`]: some partitions may have the old mode. Call it again.
    pub async fn change_mode(&self, topic: TopicId, mode: StorageMode) -> Result<(), LogError> {
        let partitions = {
            let mut registry = self.lock();
            if registry.changed_modes.len() >= limits::CHANGED_MODES {
                // Only requests that were on their way would still need them.
                registry.changed_modes.clear();
            }
            registry.changed_modes.insert(topic, mode);
            registry.loaded_of(topic)
        };
        for partition in partitions {
            partition.change_mode(mode).await?;
        }
        Ok(())
    }

    /// Writes what `hybrid` topics hold when it is due. Runs until it is dropped; without it they write only when they stop.
    pub async fn write_behind(&self) {
        self.shared.write_behind.run().await;
    }

    /// Brings partitions of volatile modes that nobody used for `idle` to rest, so that they can be given back: not those that
    /// hold records in memory only for good.
    pub async fn settle_idle(&self, idle: Duration) {
        let now = Instant::now();
        let idle: Vec<Arc<Partition>> = {
            let registry = self.lock();
            let slots = registry.slots.values();
            let idle = slots.filter(|slot| now.saturating_duration_since(slot.last_used) >= idle);
            let loaded = idle.filter_map(|slot| slot.cell.get());
            loaded.filter(|loaded| !loaded.has_ring() && !loaded.is_at_rest()).cloned().collect()
        };
        for partition in idle {
            if let Err(error) = partition.stop().await {
                tracing::debug!(%error, "an idle partition stays in memory");
            }
        }
    }

    /// Ends the use of all partitions: what `hybrid` holds is written, and volatile modes waste no offsets. Of `memory` the
    /// records are lost. Append nothing after it.
    ///
    /// # Errors
    /// [`StoreError`]: something is not written, because the disk stayed full or the store failed.
    pub async fn stop(&self) -> Result<(), StoreError> {
        let mut partitions: Vec<Arc<Partition>> = {
            let registry = self.lock();
            let loaded = registry.slots.values().filter_map(|slot| slot.cell.get());
            loaded.filter(|partition| !partition.is_at_rest()).cloned().collect()
        };
        let deadline = tokio::time::Instant::now() + limits::WRITE_OUT_AT_STOP;
        loop {
            let stops = std::mem::take(&mut partitions).into_iter().map(|partition| async move {
                let stopped = partition.stop().await;
                (partition, stopped)
            });
            let mut stops = stream::iter(stops).buffer_unordered(limits::WRITE_OUTS_AT_ONCE);
            let mut failure = None;
            while let Some((partition, stopped)) = stops.next().await {
                if let Err(error) = stopped {
                    partitions.push(partition);
                    failure = Some(error);
                }
            }
            let Some(error) = failure else { return Ok(()) };
            let transient = matches!(error, StoreError::NoSpace(_) | StoreError::StaleEra);
            if !transient || tokio::time::Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(limits::WRITE_BEHIND_RETRY).await;
        }
    }

    /// Bytes of batches in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.shared.memory.used()
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
        self.shared.store.submit(batch)
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
