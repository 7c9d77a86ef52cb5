//! The cache of blocks in memory.
//!
//! **Invariant:** a block is fetched once, however many ask for it at the same time, and checked before anybody gets it.
//! **Invariant:** what is kept and what is on its way is within the budget, but for [`limits::tier::FETCHES`] blocks that readers wait
//! for.
//! **Invariant:** what was fetched ahead and not read yet takes at most half of the budget, and goes last: or readers who are many would push
//! out each other's next blocks, and all of them would be fetched again and again.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use robustmq_common::limits;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use super::archive::ArchiveError;
use super::format::FormatError;
use crate::metrics::TierMetrics;
use crate::objects::chain;

/// A block by its object and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BlockId {
    pub object: Uuid,
    pub number: usize,
}

/// The number of an object's footer among its blocks.
pub(super) const FOOTER: usize = usize::MAX;

/// Where a block lies.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub path: Path,
    pub range: Range<u64>,
    /// Of a block; a footer has its own.
    pub crc32c: Option<u32>,
}

impl Source {
    fn bytes(&self) -> usize {
        usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX)
    }
}

pub(super) struct Blocks {
    objects: Arc<dyn ObjectStore>,
    budget_bytes: usize,
    fetches: Semaphore,
    kept: Mutex<Kept>,
    pub(super) metrics: TierMetrics,
}

#[derive(Default)]
struct Kept {
    slots: HashMap<BlockId, Slot>,
    /// By when they were used last.
    order: BTreeMap<u64, BlockId>,
    tick: u64,
    bytes: usize,
    /// Of blocks that were fetched ahead and not read yet.
    ahead_bytes: usize,
}

type Cell = Arc<OnceCell<Bytes>>;

struct Slot {
    cell: Cell,
    bytes: usize,
    tick: u64,
    /// Since when nobody has read what was fetched ahead.
    ahead: Option<Instant>,
}

impl Kept {
    fn find(&mut self, id: BlockId) -> Option<Cell> {
        self.tick += 1;
        let slot = self.slots.get_mut(&id)?;
        self.order.remove(&slot.tick);
        slot.tick = self.tick;
        if slot.ahead.take().is_some() {
            self.ahead_bytes -= slot.bytes;
        }
        self.order.insert(self.tick, id);
        Some(Arc::clone(&slot.cell))
    }

    fn insert(&mut self, id: BlockId, cell: Cell, bytes: usize, ahead: Option<Instant>) {
        self.tick += 1;
        self.bytes += bytes;
        if ahead.is_some() {
            self.ahead_bytes += bytes;
        }
        self.order.insert(self.tick, id);
        self.slots.insert(id, Slot { cell, bytes, tick: self.tick, ahead });
    }

    fn remove(&mut self, id: BlockId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.order.remove(&slot.tick);
            self.bytes -= slot.bytes;
            if slot.ahead.is_some() {
                self.ahead_bytes -= slot.bytes;
            }
        }
    }

    /// Drops what was not used for longest until `bytes` more fit into `budget`: what was read first, then what was fetched ahead if
    /// `all`; not what somebody waits for. Whether they fit.
    fn make_room(&mut self, bytes: usize, budget: usize, all: bool) -> bool {
        let steps: &[bool] = if all { &[false, true] } else { &[false] };
        for takes_ahead in steps {
            let mut after = 0;
            while self.bytes + bytes > budget {
                let next = self.order.range(after..).next().map(|(tick, id)| (*tick, *id));
                let Some((tick, id)) = next else { break };
                after = tick + 1;
                let stays = |slot: &Slot| {
                    let waits = slot.cell.get().is_none() && Arc::strong_count(&slot.cell) > 1;
                    waits || (slot.ahead.is_some() && !takes_ahead)
                };
                if !self.slots.get(&id).is_some_and(stays) {
                    self.remove(id);
                }
            }
        }
        self.bytes + bytes <= budget
    }

    /// Whether `bytes` more may be fetched ahead. What nobody came for in time makes room.
    fn takes_ahead(&mut self, bytes: usize, budget: usize) -> bool {
        while self.ahead_bytes + bytes > budget {
            let forgotten = |slot: &Slot| {
                slot.ahead.is_some_and(|since| since.elapsed() > limits::tier::AHEAD_KEPT)
            };
            let ids = self.order.values();
            let oldest = ids.copied().find(|id| self.slots.get(id).is_some_and(forgotten));
            let Some(oldest) = oldest else { return false };
            self.remove(oldest);
        }
        true
    }
}

impl Blocks {
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        budget_bytes: usize,
        metrics: TierMetrics,
    ) -> Self {
        Self {
            objects,
            budget_bytes,
            fetches: Semaphore::new(limits::tier::FETCHES),
            kept: Mutex::default(),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are kept or on their way.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A block, from memory or from the object store.
    pub(super) async fn get(&self, id: BlockId, source: &Source) -> Result<Bytes, ArchiveError> {
        let found = self.lock().find(id);
        let counter = match found.is_some() {
            true => &self.metrics.cache_hits,
            false => &self.metrics.cache_misses,
        };
        counter.inc();
        if let Some(cell) = found {
            return self.fill(id, &cell, source).await;
        }
        // Whoever waits here has no place in the cache yet.
        let _permit = self.fetches.acquire().await.map_err(|_| ArchiveError::Closed)?;
        let cell = {
            let mut kept = self.lock();
            kept.find(id).unwrap_or_else(|| {
                kept.make_room(source.bytes(), self.budget_bytes, true);
                let cell = Cell::default();
                kept.insert(id, Arc::clone(&cell), source.bytes(), None);
                cell
            })
        };
        self.fill(id, &cell, source).await
    }

    /// A block, if it is in memory.
    pub(super) fn ready(&self, id: BlockId) -> Option<Bytes> {
        let ready = self.lock().find(id)?.get().cloned()?;
        self.metrics.cache_hits.inc();
        Some(ready)
    }

    /// Fetches a block that nobody waits for, if there is room for it and nothing better to do.
    pub(super) async fn get_ahead(&self, id: BlockId, source: &Source) -> Result<(), ArchiveError> {
        // Readers who wait come first.
        let Ok(_permit) = self.fetches.try_acquire() else { return Ok(()) };
        let cell = {
            let mut kept = self.lock();
            let (bytes, budget) = (source.bytes(), self.budget_bytes);
            if kept.slots.contains_key(&id)
                || !kept.takes_ahead(bytes, budget / 2)
                || !kept.make_room(bytes, budget, false)
            {
                return Ok(());
            }
            let cell = Cell::default();
            kept.insert(id, Arc::clone(&cell), bytes, Some(Instant::now()));
            cell
        };
        self.fill(id, &cell, source).await.map(drop)
    }

    /// Keeps a block that is known already.
    pub(super) fn keep(&self, id: BlockId, block: Bytes) {
        let mut kept = self.lock();
        if !kept.slots.contains_key(&id) && kept.make_room(block.len(), self.budget_bytes, false) {
            let bytes = block.len();
            kept.insert(id, Arc::new(OnceCell::new_with(Some(block))), bytes, None);
        }
    }

    async fn fill(&self, id: BlockId, cell: &Cell, source: &Source) -> Result<Bytes, ArchiveError> {
        let filled = cell.get_or_try_init(|| self.fetch(id, source)).await;
        if filled.is_err() {
            let mut kept = self.lock();
            let is_same = |slot: &Slot| Arc::ptr_eq(&slot.cell, cell) && cell.get().is_none();
            if kept.slots.get(&id).is_some_and(is_same) {
                kept.remove(id);
            }
        }
        filled.cloned()
    }

    /// Fetches and checks; what is damaged on its way is fetched again.
    async fn fetch(&self, id: BlockId, source: &Source) -> Result<Bytes, ArchiveError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let got = self.objects.get_range(&source.path, source.range.clone());
            let error = match tokio::time::timeout(limits::object::READ, got).await {
                Ok(Ok(bytes)) => {
                    self.metrics.fetched_bytes.inc_by(bytes.len() as u64);
                    let is_whole = bytes.len() == source.bytes();
                    let is_right = source.crc32c.is_none_or(|crc| crc == crc32c::crc32c(&bytes));
                    if is_whole && is_right {
                        return Ok(bytes);
                    }
                    self.metrics.damaged_answers.inc();
                    let object = source.path.to_string();
                    ArchiveError::Damaged { object, source: FormatError::Checksum(id.number) }
                }
                Ok(Err(object_store::Error::NotFound { .. })) => {
                    return Err(ArchiveError::Gone(source.path.to_string()));
                }
                Ok(Err(error)) => ArchiveError::Unavailable(chain(&error)),
                Err(_) => {
                    let seconds = limits::object::READ.as_secs();
                    ArchiveError::Unavailable(format!("no answer within {seconds} s"))
                }
            };
            if attempt >= limits::tier::FETCH_ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(limits::tier::FETCH_PAUSE * attempt).await;
        }
    }
}
