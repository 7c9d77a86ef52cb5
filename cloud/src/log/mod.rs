//! Partitions: offsets, idempotence, visibility and reads, over the [`Store`].
//!
//! [`Log`] hands out [`Partition`]s: their state is loaded when it is first used and given back when it is idle, so a
//! million topics cost what the active ones cost, within one budget of bytes ([`Budgets`]). A partition assigns offsets under one lock, in the order of calls
//! ([`Partition::append`] does not wait); the returned [`PendingAppend`] resolves when the batch is as durable as the topic's
//! [`StorageMode`] promises. The modes differ in what an append does: `persistent` submits one atomic write (`append`); `memory` and
//! `hybrid` take it into memory (`volatile`), and `hybrid` writes it later (`write_behind`). What the store does not have yet is read from memory
//! (`unstored`).
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

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;

use self::finish::Finisher;
use self::footprint::StateMemory;
use self::partition::Shared;
use self::registry::{Registry, SharedRegistry};
use self::unstored_memory::UnstoredMemory;
use self::write_behind::WriteBehind;
use crate::store::keys::partition::PartitionKeys;
use crate::store::{Store, StoreError};
use crate::tier::Archive;

mod append;
mod archive;
mod change;
mod compact;
mod decompress;
mod finish;
mod footprint;
mod id_blocks;
mod lookup;
mod maintenance;
mod mode;
mod origins;
mod partition;
mod producers;
mod queue;
mod read;
mod ready;
mod registry;
mod rest;
mod retention;
mod sequencer;
mod size;
mod source;
mod totals;
mod unstored;
mod unstored_memory;
mod upkeep;
mod volatile;
mod write_behind;

pub use append::{AppendContext, AppendError, AppendRules, Appended, PendingAppend};
pub use archive::{ArchivePassError, ArchivePlan, TierRules};
pub use compact::{Assessment, CompactError, CompactionRules, PassSummary};
pub use decompress::{check_keys, look_into, slice};
pub use id_blocks::{IdBlocks, ProducerIds};
pub use lookup::{FoundOffset, LookupError};
pub use mode::StorageMode;
pub use origins::{Origin, OriginKey};
pub use partition::{Offsets, Partition, ReadError, ReadResult, Visible};
pub use producers::ProducerError;
pub use queue::PartitionQueue;
pub use retention::{DeleteRecordsError, Retention};
pub use source::{Source, Sources};
pub use upkeep::{Growth, Look, PartitionId, Upkeep};

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

/// What a log may take of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// The state of loaded partitions: offsets, producers, origins.
    pub state_bytes: usize,
    /// Batches that the store does not have: all of `memory` topics, what `hybrid` has not written.
    pub unstored_bytes: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { state_bytes: limits::PARTITION_STATE_BYTES, unstored_bytes: limits::UNSTORED_BYTES }
    }
}

/// All partitions of one store.
pub struct Log {
    shared: Arc<Shared>,
    registry: SharedRegistry,
    /// One bringing to rest at a time: who comes second finds what the first has done.
    settling: tokio::sync::Mutex<()>,
}

impl Log {
    /// The partitions of `store`. Loads nothing.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_budgets(store, Budgets::default())
    }

    /// As [`Log::new`], within these bounds.
    #[must_use]
    pub fn with_budgets(store: Arc<dyn Store>, budgets: Budgets) -> Self {
        Self::with_archive(store, budgets, None)
    }

    /// As [`Log::with_budgets`]; what `tiered` topics archive goes to `archive`.
    #[must_use]
    pub fn with_archive(
        store: Arc<dyn Store>,
        budgets: Budgets,
        archive: Option<Arc<Archive>>,
    ) -> Self {
        let state = StateMemory::new(budgets.state_bytes);
        let registry = SharedRegistry::new(Registry::new(state.clone()));
        let unstored = Arc::new(UnstoredMemory::new(budgets.unstored_bytes));
        let write_behind = WriteBehind::default();
        let (finisher, stopped) = (Finisher::default(), AtomicBool::new(false));
        let sources = OnceLock::new();
        let shared =
            Shared { store, archive, sources, state, unstored, write_behind, finisher, stopped };
        Self { shared: Arc::new(shared), registry, settling: tokio::sync::Mutex::new(()) }
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Says, once, where the records of dataset topics come from.
    pub fn set_sources(&self, sources: Arc<dyn Sources>) {
        // A second call changes nothing.
        let _ = self.shared.sources.set(sources);
    }

    /// Where `tiered` topics are archived, if that is configured.
    #[must_use]
    pub fn archive(&self) -> Option<&Arc<Archive>> {
        self.shared.archive.as_ref()
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
        let cell = match self.registry.lock().cell(topic, partition, Instant::now()) {
            // Those of volatile modes have to be brought to rest before they can be given back.
            Err(LogError::TooManyPartitions(_)) => None,
            found => Some(found?),
        };
        let cell = match cell {
            Some(cell) => cell,
            None => {
                self.settle_for_room().await;
                self.registry.lock().cell(topic, partition, Instant::now())?
            }
        };
        let keys = PartitionKeys { topic, partition };
        let loaded = cell
            .get_or_try_init(|| async {
                let loaded = Arc::new(Partition::load(Arc::clone(&self.shared), keys).await?);
                if let Some(source) = loaded.source() {
                    source.attach(Arc::downgrade(&loaded));
                }
                Ok::<_, LogError>(loaded)
            })
            .await?;
        // The topic may have been closed, or its mode changed, while the state was read.
        let (is_there, mode) = {
            let registry = self.registry.lock();
            (registry.has(topic, partition, &cell), registry.changed_mode(topic))
        };
        if !is_there {
            loaded.close();
            return Err(LogError::Dropped(topic));
        }
        if let Some(mode) = mode {
            loaded.adopt(mode);
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

    /// Changes the mode of a topic's partitions, of which the caller says that they have none of the old mode's promises to
    /// keep any more when this returns: what the old mode held in memory is written first. Appends that know only the old
    /// mode follow the new one. Call it before the topic's configuration says a more durable mode, and after it says a
    /// less durable one, so that a failure never leaves a topic with less than it says. Have it carried out ([`Log::finish`]): dropped
    /// halfway, the store has another mode than the partition.
    ///
    /// # Errors
    /// [`LogError`]: some partitions may have the old mode. Call it again.
    pub async fn change_mode(&self, topic: TopicId, mode: StorageMode) -> Result<(), LogError> {
        let partitions = self.registry.lock().change_mode(topic, mode);
        // Together, so that they share syncs. One that fails does not keep the others from what they are to have.
        let changes = partitions.into_iter().map(|partition| async move {
            let changed = partition.change_mode(mode).await;
            changed.err()
        });
        let mut changes = stream::iter(changes).buffer_unordered(limits::WRITE_OUTS_AT_ONCE);
        let mut failure = None;
        while let Some(error) = changes.next().await {
            failure = failure.or(error);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Writes what `hybrid` topics hold when it is due. Runs until it is dropped; without it they write only when they stop.
    pub async fn write_behind(&self) {
        self.shared.write_behind.run().await;
    }

    /// Bytes of batches that are in memory only.
    #[must_use]
    pub fn unstored_bytes(&self) -> usize {
        self.shared.unstored.used()
    }

    /// Records of `memory` topics, and their bytes, that went before retention asked for it, since there was no room for them: since the
    /// start.
    #[must_use]
    pub fn pushed_out(&self) -> (u64, u64) {
        self.shared.unstored.all_pushed_out()
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
            self.source_changed(topic);
        }
    }

    /// What may be changed of where a topic's records come from is in effect from now on.
    pub fn source_changed(&self, topic: TopicId) {
        if let Some(sources) = self.shared.sources.get() {
            Arc::clone(sources).changed(topic);
        }
    }
}

/// The offset after `last`, which lies in a batch that passed validation and so cannot be the largest number.
fn after(last: Offset) -> Offset {
    Offset(last.0.saturating_add(1))
}

#[cfg(test)]
mod tests;
