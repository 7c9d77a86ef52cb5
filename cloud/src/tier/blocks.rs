//! The cache of blocks in memory.
//!
//! **Invariant:** a block is fetched once, however many ask for it at the same time, and checked before anybody gets it or it is kept. Its
//! fetch is a task of its own, which nobody's giving up ends; who comes meanwhile joins, and all hear what became of it at once.
//! **Invariant:** at most [`limits::tier::WAITING_FETCHES`] blocks wait for their turn, however long the object store does not answer.
//! **Invariant:** what is kept and what is on its way is within the budget, but for [`limits::tier::FETCHES`] blocks that readers wait
//! for.
//! **Invariant:** what was fetched ahead and not read yet takes at most half of the budget, and goes last: or readers who are many would push
//! out each other's next blocks, and all of them would be fetched again and again.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use robustmq_common::limits;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::archive::ArchiveError;
use super::format::{FormatError, parse_footer};
use crate::metrics::TierMetrics;
use crate::objects::told;

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
    pub check: Check,
}

/// How it is known whether the bytes are those that were put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    /// A block's footer says its CRC32C.
    Crc32c(u32),
    /// A footer has its own.
    Footer,
}

impl Source {
    fn check(&self, bytes: &[u8], id: BlockId) -> Result<(), FormatError> {
        match self.check {
            _ if bytes.len() != self.bytes() => Err(FormatError::Checksum(id.number)),
            Check::Crc32c(crc) if crc == crc32c::crc32c(bytes) => Ok(()),
            Check::Crc32c(_) => Err(FormatError::Checksum(id.number)),
            Check::Footer => parse_footer(bytes).map(drop),
        }
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX)
    }
}

pub(super) struct Blocks {
    objects: Arc<dyn ObjectStore>,
    budget_bytes: AtomicUsize,
    fetches: Arc<Semaphore>,
    kept: Mutex<Kept>,
    pub(super) metrics: TierMetrics,
}

#[derive(Default)]
struct Kept {
    slots: HashMap<BlockId, Slot>,
    /// Blocks whose fetch waits for its turn: they have no place yet.
    waiting: HashMap<BlockId, Fetching>,
    /// By when they were used last.
    order: BTreeMap<u64, BlockId>,
    tick: u64,
    bytes: usize,
    /// Of blocks that were fetched ahead and not read yet.
    ahead_bytes: usize,
}

/// What became of a fetch; `None` while it goes on.
type Outcome = Option<Result<Bytes, ArchiveError>>;
type Fetching = watch::Receiver<Outcome>;

struct Slot {
    block: Fetching,
    bytes: usize,
    tick: u64,
    /// Since when nobody has read what was fetched ahead.
    ahead: Option<Instant>,
}

impl Slot {
    fn is_on_its_way(&self) -> bool {
        // Where the task that fetched it is gone, nothing comes any more.
        self.block.borrow().is_none() && self.block.has_changed().is_ok()
    }
}

impl Kept {
    fn find(&mut self, id: BlockId) -> Option<Fetching> {
        self.tick += 1;
        let slot = self.slots.get_mut(&id)?;
        self.order.remove(&slot.tick);
        slot.tick = self.tick;
        if slot.ahead.take().is_some() {
            self.ahead_bytes -= slot.bytes;
        }
        self.order.insert(self.tick, id);
        Some(slot.block.clone())
    }

    fn is_known(&self, id: BlockId) -> bool {
        self.slots.contains_key(&id) || self.waiting.contains_key(&id)
    }

    fn insert(&mut self, id: BlockId, block: Fetching, bytes: usize, ahead: Option<Instant>) {
        self.tick += 1;
        self.bytes += bytes;
        if ahead.is_some() {
            self.ahead_bytes += bytes;
        }
        self.order.insert(self.tick, id);
        self.slots.insert(id, Slot { block, bytes, tick: self.tick, ahead });
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
    /// `all`; not what is on its way. Whether they fit.
    fn make_room(&mut self, bytes: usize, budget: usize, all: bool) -> bool {
        let steps: &[bool] = if all { &[false, true] } else { &[false] };
        for takes_ahead in steps {
            let mut after = 0;
            while self.bytes + bytes > budget {
                let next = self.order.range(after..).next().map(|(tick, id)| (*tick, *id));
                let Some((tick, id)) = next else { break };
                after = tick + 1;
                let stays =
                    |slot: &Slot| slot.is_on_its_way() || (slot.ahead.is_some() && !takes_ahead);
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
            budget_bytes: AtomicUsize::new(budget_bytes),
            fetches: Arc::new(Semaphore::new(limits::tier::FETCHES)),
            kept: Mutex::default(),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that may be kept or on their way.
    pub(super) fn budget_bytes(&self) -> usize {
        self.budget_bytes.load(Ordering::Relaxed)
    }

    /// Drops what is too much for it.
    pub(super) fn set_budget_bytes(&self, bytes: usize) {
        self.budget_bytes.store(bytes, Ordering::Relaxed);
        self.lock().make_room(0, bytes, true);
    }

    /// Bytes that are kept or on their way.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A block, from memory or from the object store.
    pub(super) async fn get(
        self: &Arc<Self>,
        id: BlockId,
        source: &Source,
    ) -> Result<Bytes, ArchiveError> {
        let mut fetching = self.fetching(id, source)?;
        let outcome = fetching.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        outcome.ok().flatten().unwrap_or_else(|| {
            // Its task has ended early: the next one is to begin anew.
            let mut kept = self.lock();
            kept.remove(id);
            kept.waiting.remove(&id);
            Err(ArchiveError::Closed)
        })
    }

    /// The fetch of a block: that which is on its way, or a new one.
    fn fetching(self: &Arc<Self>, id: BlockId, source: &Source) -> Result<Fetching, ArchiveError> {
        let mut kept = self.lock();
        if let Some(fetching) = kept.find(id).or_else(|| kept.waiting.get(&id).cloned()) {
            self.metrics.cache_hits.inc();
            return Ok(fetching);
        }
        self.metrics.cache_misses.inc();
        if kept.waiting.len() >= limits::tier::WAITING_FETCHES {
            let waiting = kept.waiting.len();
            self.metrics.failed_reads.inc();
            return Err(ArchiveError::Unavailable(format!("{waiting} blocks wait for it already")));
        }
        let (sender, fetching) = watch::channel(None);
        kept.waiting.insert(id, fetching.clone());
        drop(kept);
        let (blocks, source) = (Arc::clone(self), source.clone());
        tokio::spawn(async move { blocks.fetch_in_turn(id, &source, sender).await });
        Ok(fetching)
    }

    async fn fetch_in_turn(&self, id: BlockId, source: &Source, sender: watch::Sender<Outcome>) {
        let Ok(_permit) = self.fetches.acquire().await else { return };
        {
            let mut kept = self.lock();
            kept.waiting.remove(&id);
            kept.make_room(source.bytes(), self.budget_bytes(), true);
            kept.insert(id, sender.subscribe(), source.bytes(), None);
        }
        self.fetch_into(id, source, &sender).await;
    }

    /// Fetches a block that has its place, and tells those who wait.
    async fn fetch_into(&self, id: BlockId, source: &Source, sender: &watch::Sender<Outcome>) {
        let fetched = self.fetch(id, source).await;
        if fetched.is_err() {
            self.metrics.failed_reads.inc();
            // It is not remembered.
            self.lock().remove(id);
        }
        sender.send_replace(Some(fetched));
    }

    /// A block, if it is in memory.
    pub(super) fn ready(&self, id: BlockId) -> Option<Bytes> {
        let found = self.lock().find(id)?;
        let ready = found.borrow().clone()?.ok()?;
        self.metrics.cache_hits.inc();
        Some(ready)
    }

    /// Begins to fetch a block that nobody waits for, if there is room for it and nothing better to do. Its reader finds it on its way
    /// from now on.
    pub(super) fn get_ahead(
        self: &Arc<Self>,
        id: BlockId,
        source: Source,
    ) -> Option<JoinHandle<()>> {
        // Readers who wait come first.
        let permit = Arc::clone(&self.fetches).try_acquire_owned().ok()?;
        let sender = {
            let mut kept = self.lock();
            let (bytes, budget) = (source.bytes(), self.budget_bytes());
            if kept.is_known(id)
                || !kept.takes_ahead(bytes, budget / 2)
                || !kept.make_room(bytes, budget, false)
            {
                return None;
            }
            let (sender, fetching) = watch::channel(None);
            kept.insert(id, fetching, bytes, Some(Instant::now()));
            sender
        };
        let blocks = Arc::clone(self);
        Some(tokio::spawn(async move {
            let _permit = permit;
            blocks.fetch_into(id, &source, &sender).await;
        }))
    }

    /// Keeps a block that is known already.
    pub(super) fn keep(&self, id: BlockId, block: Bytes) {
        let mut kept = self.lock();
        if !kept.is_known(id) && kept.make_room(block.len(), self.budget_bytes(), false) {
            let bytes = block.len();
            kept.insert(id, watch::channel(Some(Ok(block))).1, bytes, None);
        }
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
                    match source.check(&bytes, id) {
                        Ok(()) => return Ok(bytes),
                        Err(damage) => {
                            self.metrics.damaged_answers.inc();
                            let object = source.path.to_string();
                            ArchiveError::Damaged { object, source: damage }
                        }
                    }
                }
                Ok(Err(object_store::Error::NotFound { .. })) => {
                    return Err(ArchiveError::Gone(source.path.to_string()));
                }
                Ok(Err(error)) => ArchiveError::Unavailable(told(&error)),
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
