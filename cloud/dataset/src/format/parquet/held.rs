//! Row groups that are in memory: those whose files are counted, and those of which extents are read again, since an extent is a small part of
//! its row group, and what comes next is mostly another part of it. And their files' footers, for the row groups after them.
//!
//! **Invariant:** nobody has room while it waits for readers and others wait for room, for much longer than what it has would take to fetch again.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use robustmq_common::limits::dataset as limits;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::group::Group;
use super::table::Table;
use crate::cache::{Cache, ExtentId, Working};

/// Who comes first fetches it, and others wait for that.
pub(super) type Cell<T> = Arc<OnceCell<Arc<T>>>;

/// Row groups in memory, all together within [`Held::most_bytes`] of the cache's memory, but for one, and footers, within
/// [`limits::PARQUET_FOOTERS_BYTES`].
#[derive(Debug)]
pub struct Held {
    cache: Arc<Cache>,
    room: Arc<Semaphore>,
    /// What there is, of which it has a part.
    memory_bytes: AtomicUsize,
    /// How many wait for room.
    waiting: AtomicUsize,
    awaited: Notify,
    inner: Mutex<Inner>,
}

/// The room of row groups, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _permits: OwnedSemaphorePermit,
    _working: Working,
}

#[derive(Debug, Default)]
struct Inner {
    /// By object, as it is read, and number.
    groups: Recent<(u128, u32), Group>,
    tables: Recent<u128, Table>,
    /// Somebody looks for what nobody uses.
    is_watched: bool,
}

/// What was used last comes last.
#[derive(Debug)]
struct Recent<K, T>(VecDeque<Entry<K, T>>);

#[derive(Debug)]
struct Entry<K, T> {
    key: K,
    cell: Cell<T>,
    used: Instant,
    /// Extents of it that were read.
    read: HashSet<ExtentId>,
    /// One was read twice: somebody reads behind somebody else.
    is_shared: bool,
    /// All of it was read, or is in the cache.
    is_done: bool,
}

impl<K, T> Entry<K, T> {
    fn new(key: K) -> Self {
        let (cell, used, read) = (Cell::default(), Instant::now(), HashSet::new());
        Self { key, cell, used, read, is_shared: false, is_done: false }
    }
}

impl<K, T> Default for Recent<K, T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: PartialEq, T> Recent<K, T> {
    fn cell(&mut self, key: K) -> Cell<T> {
        let found = self.0.iter().position(|entry| entry.key == key);
        let found = found.and_then(|at| self.0.remove(at));
        let mut entry = found.unwrap_or_else(|| Entry::new(key));
        entry.used = Instant::now();
        let cell = Arc::clone(&entry.cell);
        self.0.push_back(entry);
        cell
    }

    /// Takes out what was not used for the longest time, of what may go.
    fn oldest(&mut self, may_go: impl Fn(&Entry<K, T>, &T) -> bool) -> Option<Cell<T>> {
        let may_go = |entry: &Entry<K, T>| entry.cell.get().is_some_and(|it| may_go(entry, it));
        let at = self.0.iter().position(may_go)?;
        self.0.remove(at).map(|entry| entry.cell)
    }

    /// Lets go of what nobody has used for a while, and nobody waits for.
    fn forget(&mut self) {
        self.0.retain(|entry| {
            Arc::strong_count(&entry.cell) > 1 || entry.used.elapsed() < limits::PARQUET_HELD
        });
    }
}

impl<K> Entry<K, Group> {
    /// Nobody uses it, and nobody is likely to soon.
    fn is_idle(&self, group: &Group) -> bool {
        let is_used = Arc::strong_count(&self.cell) > 1;
        !is_used && (self.is_done || self.used.elapsed() >= group.patience)
    }
}

impl Inner {
    fn footers_bytes(&self) -> usize {
        let footers = self.tables.0.iter().filter_map(|entry| entry.cell.get());
        footers.map(|table| table.bytes).sum()
    }
}

/// All that there is.
const PERMITS: u32 = 1 << 24;

/// Somebody who waits for room.
struct Waiting<'a>(&'a Held);

impl<'a> Waiting<'a> {
    fn begin(held: &'a Held) -> Self {
        held.waiting.fetch_add(1, Ordering::Relaxed);
        held.awaited.notify_waiters();
        Self(held)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    /// Nothing yet; its room is of this cache.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        let room = Arc::new(Semaphore::new(PERMITS as usize));
        let (memory_bytes, waiting) = (cache.memory_bytes().into(), AtomicUsize::new(0));
        let (awaited, inner) = (Notify::new(), Mutex::default());
        Self { cache, room, memory_bytes, waiting, awaited, inner }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a row group.
    pub(super) fn group(self: &Arc<Self>, object: u128, number: u32) -> Cell<Group> {
        let mut inner = self.lock();
        self.watch(&mut inner);
        inner.groups.cell((object, number))
    }

    /// The place of a footer.
    pub(super) fn table(self: &Arc<Self>, object: u128) -> Cell<Table> {
        let mut inner = self.lock();
        self.watch(&mut inner);
        let cell = inner.tables.cell(object);
        let mut bytes = inner.footers_bytes();
        while bytes > limits::PARQUET_FOOTERS_BYTES
            && let Some(oldest) = inner.tables.oldest(|_, _| true)
        {
            bytes -= oldest.get().map_or(0, |table| table.bytes);
        }
        cell
    }

    /// What footers take of memory; row groups are counted in [`Cache::working_bytes`].
    #[must_use]
    pub fn footers_bytes(&self) -> usize {
        self.lock().footers_bytes()
    }

    /// An extent of a row group was read. Once each of `all` was, the row group goes, unless somebody else is reading one, or reads behind: were it
    /// kept, a fast scan would fill the room with what nobody reads any more. Where others are in the cache, which may leave it, it goes when
    /// somebody waits for its room. Where they are not all known yet, it stays.
    pub(super) fn was_read(
        &self,
        cell: Cell<Group>,
        extent: ExtentId,
        all: Option<impl Iterator<Item = ExtentId>>,
    ) {
        let mut inner = self.lock();
        let groups = &mut inner.groups.0;
        // It may have gone already, to make room.
        let Some(at) = groups.iter().rposition(|entry| Arc::ptr_eq(&entry.cell, &cell)) else {
            return;
        };
        // Whoever comes out last sees that nobody else uses it.
        drop(cell);
        let entry = &mut groups[at];
        entry.used = Instant::now();
        entry.is_shared |= !entry.read.insert(extent);
        let Some(all) = all else { return };
        let mut left = all.filter(|id| !entry.read.contains(id)).peekable();
        let is_over = left.peek().is_none() && !entry.is_shared;
        entry.is_done = left.all(|id| self.cache.contains(id).is_some());
        if is_over && Arc::strong_count(&entry.cell) == 1 {
            let over = groups.remove(at);
            drop(inner);
            drop(over);
        }
    }

    /// What there is of memory, of which they have a part.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// What row groups may have of so much memory, all together.
    #[must_use]
    pub fn most_bytes(memory_bytes: u64) -> u64 {
        let left = memory_bytes.saturating_sub(limits::PARQUET_LEAVES_BYTES);
        left.max(memory_bytes / 2).min(memory_bytes / 4 * limits::PARQUET_HELD_QUARTERS)
    }

    /// All together have their part of so much memory from now on, but for what is there.
    pub fn set_memory_bytes(&self, bytes: usize) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Of all room, what so many bytes need: one row group goes on however large it is.
    fn permits(&self, bytes: u64) -> u32 {
        let most = Self::most_bytes(self.memory_bytes() as u64).max(1);
        let permits = u128::from(bytes.min(most)) * u128::from(PERMITS) / u128::from(most);
        u32::try_from(permits).unwrap_or(PERMITS)
    }

    /// Room for row groups of so many bytes. Others go for it.
    pub(super) async fn room(&self, bytes: u64) -> Arc<Room> {
        // It keeps its place in the queue: who needs much is not passed by those who need little.
        let permits = Arc::clone(&self.room).acquire_many_owned(self.permits(bytes));
        tokio::pin!(permits);
        let mut waiting = None;
        let (began, most) = (Instant::now(), *limits::PARQUET_PATIENCE.end());
        let permits = loop {
            let look = if waiting.is_some() { limits::PARQUET_HELD_LOOK } else { Duration::ZERO };
            if let Ok(permits) = tokio::time::timeout(look, &mut permits).await {
                break permits.expect("never closed");
            }
            // One that somebody always reads goes all the same after a while: who reads it then is the last one.
            let may_go = |entry: &Entry<_, Group>, group: &Group| {
                let is_late = began.elapsed() >= most && group.came.elapsed() >= most;
                entry.is_idle(group) || is_late
            };
            if self.lock().groups.oldest(may_go).is_none() {
                // All are in use, or will be: whoever is done makes room, and who waits for readers.
                waiting.get_or_insert_with(|| Waiting::begin(self));
            }
        };
        let mut working = self.cache.work();
        working.set_much(usize::try_from(bytes).unwrap_or(usize::MAX));
        Arc::new(Room { _permits: permits, _working: working })
    }

    /// Whether somebody waits for room.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Returns when somebody waits for room, and somebody does after this time as well.
    pub(super) async fn is_room_awaited(&self, patience: Duration) {
        loop {
            let told = self.awaited.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if !self.is_awaited() {
                told.await;
            }
            tokio::time::sleep(patience).await;
            if self.is_awaited() {
                return;
            }
        }
    }

    fn watch(self: &Arc<Self>, inner: &mut Inner) {
        if !inner.is_watched {
            inner.is_watched = true;
            tokio::spawn(forget(Arc::downgrade(self)));
        }
    }
}

/// Lets go of what nobody has used for a while, until nothing is held.
async fn forget(held: Weak<Held>) {
    loop {
        tokio::time::sleep(limits::PARQUET_HELD / 2).await;
        let Some(held) = held.upgrade() else { return };
        let mut inner = held.lock();
        inner.groups.forget();
        inner.tables.forget();
        if inner.groups.0.is_empty() && inner.tables.0.is_empty() {
            inner.is_watched = false;
            return;
        }
    }
}
