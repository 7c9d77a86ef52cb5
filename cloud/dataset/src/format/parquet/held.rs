//! Row groups that are in memory because their extents are read again: an extent is a small part of its row group, and what comes next is
//! mostly another part of it. And their files' footers, for the row groups after them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use robustmq_common::limits::dataset as limits;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::group::Group;
use super::table::Table;

/// Who comes first fetches it, and others wait for that.
pub(super) type Cell<T> = Arc<OnceCell<Arc<T>>>;

/// Row groups in memory, all together within [`limits::PARQUET_HELD_BYTES`], and footers, within [`limits::PARQUET_FOOTERS_BYTES`].
#[derive(Debug)]
pub struct Held {
    room: Arc<Semaphore>,
    inner: Mutex<Inner>,
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

/// Permits are for so many bytes each.
const PERMIT_BYTES: u64 = 4096;

impl Default for Held {
    fn default() -> Self {
        let permits = usize::try_from(limits::PARQUET_HELD_BYTES / PERMIT_BYTES);
        let room = Arc::new(Semaphore::new(permits.unwrap_or(Semaphore::MAX_PERMITS)));
        Self { room, inner: Mutex::default() }
    }
}

impl Held {
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

    /// What row groups and footers take of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let all = usize::try_from(limits::PARQUET_HELD_BYTES / PERMIT_BYTES).unwrap_or(usize::MAX);
        let groups = all.saturating_sub(self.room.available_permits()) as u64 * PERMIT_BYTES;
        let inner = self.lock();
        let footers = inner.tables.0.iter().filter_map(|(_, cell, _)| cell.get());
        groups + footers.map(|table| table.bytes as u64).sum::<u64>()
    }

    /// Room for a row group of so many bytes. Others go for it.
    pub(super) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(limits::PARQUET_HELD_BYTES);
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) {
                return Some(room);
            }
            let oldest = self.lock().groups.oldest();
            if oldest.is_none() {
                // All are in use: whoever is done makes room.
                let room = Arc::clone(&self.room).acquire_many_owned(permits);
                if let Ok(room) = tokio::time::timeout(limits::PARQUET_HELD_LOOK, room).await {
                    return room.ok();
                }
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
