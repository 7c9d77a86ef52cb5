//! Which partitions are in memory, within a budget of bytes, and which topics are gone.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::sync::OnceCell;

use super::footprint::StateMemory;
use super::mode::StorageMode;
use super::{LogError, Partition, PartitionId as Key};

type Cell = Arc<OnceCell<Arc<Partition>>>;

/// The registry, for all who use the log.
pub(super) struct SharedRegistry(Mutex<Registry>);

impl SharedRegistry {
    pub(super) fn new(registry: Registry) -> Self {
        Self(Mutex::new(registry))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Registry {
    slots: BTreeMap<Key, Slot>,
    dropped: Dropped,
    /// The modes that were changed last, so that a request that knows only the old one does not bring it back.
    changed_modes: HashMap<TopicId, StorageMode>,
    memory: StateMemory,
}

struct Slot {
    cell: Cell,
    last_used: Instant,
}

/// A slot with its cell and its share of a node of the map.
const SLOT_BYTES: usize = 2 * size_of::<(Key, Slot)>() + size_of::<OnceCell<Arc<Partition>>>();

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

/// The topics that were dropped last, so that a request which was on its way does not bring one back.
#[derive(Default)]
struct Dropped {
    topics: HashSet<TopicId>,
    order: VecDeque<(Instant, TopicId)>,
}

impl Dropped {
    fn insert(&mut self, topic: TopicId, now: Instant) {
        if self.topics.insert(topic) {
            self.order.push_back((now, topic));
        }
        while let Some((since, oldest)) = self.order.front() {
            let is_old = now.saturating_duration_since(*since) > limits::DROPPED_TOPIC_MEMORY;
            if !is_old && self.order.len() <= limits::DROPPED_TOPICS {
                break;
            }
            self.topics.remove(oldest);
            self.order.pop_front();
        }
        if self.topics.len() < self.topics.capacity() / 8 {
            self.topics.shrink_to_fit();
            self.order.shrink_to_fit();
        }
    }
}

impl Registry {
    pub(super) fn new(memory: StateMemory) -> Self {
        Self {
            slots: BTreeMap::new(),
            dropped: Dropped::default(),
            changed_modes: HashMap::new(),
            memory,
        }
    }

    /// Where a partition is, or is to be loaded.
    pub(super) fn cell(
        &mut self,
        topic: TopicId,
        partition: PartitionIndex,
        now: Instant,
    ) -> Result<Cell, LogError> {
        if self.dropped.topics.contains(&topic) {
            return Err(LogError::Dropped(topic));
        }
        if let Some(slot) = self.slots.get_mut(&(topic, partition)) {
            slot.last_used = now;
            return Ok(Arc::clone(&slot.cell));
        }
        if !self.has_room() {
            return Err(LogError::TooManyPartitions(self.slots.len()));
        }
        let cell = Cell::default();
        let slot = Slot { cell: Arc::clone(&cell), last_used: now };
        self.slots.insert((topic, partition), slot);
        Ok(cell)
    }

    /// Whether `cell` is still the place of that partition.
    pub(super) fn has(&self, topic: TopicId, partition: PartitionIndex, cell: &Cell) -> bool {
        self.slots.get(&(topic, partition)).is_some_and(|slot| Arc::ptr_eq(&slot.cell, cell))
    }

    pub(super) fn loaded(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Option<Arc<Partition>> {
        self.slots.get(&(topic, partition))?.cell.get().cloned()
    }

    /// Up to `limit` partitions after `after`.
    pub(super) fn in_memory(&self, after: Option<Key>, limit: usize) -> Vec<Arc<Partition>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slots = self.slots.range((from, Bound::Unbounded));
        slots.filter_map(|(_, slot)| slot.cell.get().cloned()).take(limit).collect()
    }

    pub(super) fn contains(&self, id: Key) -> bool {
        self.slots.contains_key(&id)
    }

    /// Drops a partition that nobody uses, however short ago it was loaded.
    pub(super) fn unload(&mut self, id: Key) {
        if self.slots.get(&id).is_some_and(Slot::is_unused) {
            self.slots.remove(&id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.used_bytes() + self.slots.len() * SLOT_BYTES
    }

    /// No room for one more.
    fn is_full(&self) -> bool {
        let next = self.memory.footprint_bytes() + SLOT_BYTES;
        self.bytes() + next > self.memory.budget_bytes
    }

    /// Whether there is room for one more, or can be made.
    pub(super) fn has_room(&mut self) -> bool {
        if self.is_full() {
            self.make_room();
        }
        !self.is_full()
    }

    /// Seven eighths of the budget are in use.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.bytes() > self.memory.budget_bytes / 8 * 7
    }

    /// Drops what was not used for longest until a quarter of the budget is free. What is in use stays; the rest is cheap to
    /// load again.
    pub(super) fn make_room(&mut self) {
        let target = self.memory.budget_bytes / 4 * 3;
        let unused = self.slots.iter().filter(|(_, slot)| slot.is_unused());
        let mut unused: Vec<_> = unused.map(|(key, slot)| (slot.last_used, *key)).collect();
        unused.sort_unstable();
        for (_, key) in unused {
            if self.bytes() <= target {
                break;
            }
            self.slots.remove(&key);
        }
    }

    pub(super) fn evict_idle(&mut self, idle: Duration, now: Instant) -> usize {
        let before = self.slots.len();
        self.slots.retain(|_, slot| {
            !slot.is_unused() || now.saturating_duration_since(slot.last_used) < idle
        });
        before - self.slots.len()
    }

    /// Remembers a topic's new mode, and returns its partitions that have to take it over.
    pub(super) fn change_mode(&mut self, topic: TopicId, mode: StorageMode) -> Vec<Arc<Partition>> {
        if self.changed_modes.len() >= limits::CHANGED_MODES {
            // Only requests that were on their way would still need them.
            self.changed_modes.clear();
        }
        self.changed_modes.insert(topic, mode);
        let slots = self.slots.range(all_of(topic));
        slots.filter_map(|(_, slot)| slot.cell.get().cloned()).collect()
    }

    pub(super) fn changed_mode(&self, topic: TopicId) -> Option<StorageMode> {
        self.changed_modes.get(&topic).copied()
    }

    /// Up to `limit` partitions that nobody used for `idle`, longest first, and that could be given back, were what they hold written:
    /// not rings.
    pub(super) fn to_settle(
        &self,
        idle: Duration,
        now: Instant,
        limit: usize,
    ) -> Vec<Arc<Partition>> {
        let slots = self.slots.values();
        let idle = slots.filter(|slot| now.saturating_duration_since(slot.last_used) >= idle);
        let loaded = idle.filter_map(|slot| Some((slot.last_used, slot.cell.get()?)));
        let restless = loaded.filter(|(_, loaded)| !loaded.is_at_rest() && !loaded.has_ring());
        let mut restless: Vec<_> = restless.collect();
        restless.sort_by_key(|(last_used, _)| *last_used);
        restless.into_iter().take(limit).map(|(_, loaded)| Arc::clone(loaded)).collect()
    }

    /// All partitions that have something to write, or offsets to save, before the end.
    pub(super) fn to_settle_all(&self) -> Vec<Arc<Partition>> {
        let loaded = self.slots.values().filter_map(|slot| slot.cell.get());
        loaded.filter(|partition| !partition.is_at_rest()).cloned().collect()
    }

    /// Forgets the partitions of a topic, and does not take them in again. Returns those that were loaded.
    pub(super) fn drop_topic(&mut self, topic: TopicId, now: Instant) -> Vec<Arc<Partition>> {
        self.dropped.insert(topic, now);
        let doomed: Vec<_> = self.slots.range(all_of(topic)).map(|(key, _)| *key).collect();
        let slots = doomed.iter().filter_map(|key| self.slots.remove(key));
        slots.filter_map(|slot| slot.cell.get().cloned()).collect()
    }
}

fn all_of(topic: TopicId) -> RangeInclusive<Key> {
    (topic, PartitionIndex(i32::MIN))..=(topic, PartitionIndex(i32::MAX))
}
