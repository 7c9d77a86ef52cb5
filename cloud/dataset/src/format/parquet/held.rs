//! Row groups that are in memory: those whose files are counted, and those of which extents are read again, since an extent is a small part of
//! its row group, and what comes next is mostly another part of it. And their files' footers, for the row groups after them.
//!
//! **Invariant:** nobody has room while it waits for readers and others wait for room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use robustmq_common::limits::dataset as limits;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::group::Group;
use super::table::Table;
use crate::cache::{Cache, Working};

/// Who comes first fetches it, and others wait for that.
pub(super) type Cell<T> = Arc<OnceCell<Arc<T>>>;

/// Row groups in memory, all together within [`limits::PARQUET_HELD_QUARTERS`] quarters of the cache's memory, but for one, and footers, within
/// [`limits::PARQUET_FOOTERS_BYTES`].
#[derive(Debug)]
pub struct Held {
    cache: Arc<Cache>,
    room: Arc<Semaphore>,
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
struct Recent<K, T>(VecDeque<(K, Cell<T>, Instant)>);

impl<K, T> Default for Recent<K, T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: PartialEq, T> Recent<K, T> {
    fn cell(&mut self, key: K) -> Cell<T> {
        let found = self.0.iter().position(|(held, _, _)| *held == key);
        let found = found.and_then(|at| self.0.remove(at));
        let cell = found.map_or_else(Cell::default, |(_, cell, _)| cell);
        self.0.push_back((key, Arc::clone(&cell), Instant::now()));
        cell
    }

    /// Takes out what was not used for the longest time.
    fn oldest(&mut self) -> Option<Cell<T>> {
        let at = self.0.iter().position(|(_, cell, _)| cell.initialized())?;
        self.0.remove(at).map(|(_, cell, _)| cell)
    }

    /// Lets go of what nobody has used for a while.
    fn forget(&mut self) {
        self.0.retain(|(_, _, used)| used.elapsed() < limits::PARQUET_HELD);
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
        let (waiting, awaited) = (AtomicUsize::new(0), Notify::new());
        Self { cache, room, waiting, awaited, inner: Mutex::default() }
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
        let tables = inner.tables.0.iter().filter_map(|(_, cell, _)| cell.get());
        let mut bytes: usize = tables.map(|table| table.bytes).sum();
        while bytes > limits::PARQUET_FOOTERS_BYTES
            && let Some(oldest) = inner.tables.oldest()
        {
            bytes -= oldest.get().map_or(0, |table| table.bytes);
        }
        cell
    }

    /// What footers take of memory; row groups are counted in [`Cache::working_bytes`].
    #[must_use]
    pub fn footers_bytes(&self) -> usize {
        let inner = self.lock();
        let footers = inner.tables.0.iter().filter_map(|(_, cell, _)| cell.get());
        footers.map(|table| table.bytes).sum()
    }

    /// Of all room, what so many bytes need: one row group goes on however large it is.
    fn permits(&self, bytes: u64) -> u32 {
        let all = (self.cache.memory_bytes() + self.cache.working_bytes()) as u64;
        let most = (all / 4 * limits::PARQUET_HELD_QUARTERS).max(1);
        let permits = u128::from(bytes.min(most)) * u128::from(PERMITS) / u128::from(most);
        u32::try_from(permits).unwrap_or(PERMITS)
    }

    /// Room for row groups of so many bytes. Others go for it.
    pub(super) async fn room(&self, bytes: u64) -> Option<Arc<Room>> {
        let permits = self.permits(bytes);
        let room = loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) {
                break room;
            }
            let oldest = self.lock().groups.oldest();
            if oldest.is_none() {
                // All are in use: whoever is done makes room, and who waits for readers.
                let _waiting = Waiting::begin(self);
                let room = Arc::clone(&self.room).acquire_many_owned(permits);
                if let Ok(room) = tokio::time::timeout(limits::PARQUET_HELD_LOOK, room).await {
                    break room.ok()?;
                }
            }
        };
        let mut working = self.cache.work();
        working.set(usize::try_from(bytes).unwrap_or(usize::MAX));
        Some(Arc::new(Room { _permits: room, _working: working }))
    }

    /// Returns when somebody waits for room.
    pub(super) async fn is_room_awaited(&self) {
        let told = self.awaited.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if self.waiting.load(Ordering::Relaxed) == 0 {
            told.await;
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
