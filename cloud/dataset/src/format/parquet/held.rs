//! Row groups that are in memory because their extents are read again: an extent is a small part of its row group, and what comes next is
//! mostly another part of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use robustmq_common::limits::dataset as limits;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::group::Group;

/// Which row group: of which object, as it is read, and its number.
pub(super) type Key = (u128, u32);

/// Who comes first fetches it, and others wait for that.
pub(super) type Cell = Arc<OnceCell<Arc<Group>>>;

/// Row groups in memory, all together within [`limits::PARQUET_HELD_BYTES`].
#[derive(Debug)]
pub struct Held {
    room: Arc<Semaphore>,
    /// The one that was used last comes last.
    entries: Mutex<VecDeque<(Key, Cell, Instant)>>,
}

/// Permits are for so many bytes each.
const PERMIT_BYTES: u64 = 4096;

impl Default for Held {
    fn default() -> Self {
        let permits = usize::try_from(limits::PARQUET_HELD_BYTES / PERMIT_BYTES);
        let room = Arc::new(Semaphore::new(permits.unwrap_or(Semaphore::MAX_PERMITS)));
        Self { room, entries: Mutex::default() }
    }
}

impl Held {
    fn entries(&self) -> MutexGuard<'_, VecDeque<(Key, Cell, Instant)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a row group.
    pub(super) fn cell(self: &Arc<Self>, key: Key) -> Cell {
        let mut entries = self.entries();
        let found = entries.iter().position(|(held, _, _)| *held == key);
        let cell = match found.and_then(|at| entries.remove(at)) {
            Some((_, cell, _)) => cell,
            None => {
                if entries.is_empty() {
                    tokio::spawn(forget(Arc::downgrade(self)));
                }
                Cell::default()
            }
        };
        entries.push_back((key, Arc::clone(&cell), Instant::now()));
        cell
    }

    /// Room for a row group of so many bytes. Others go for it.
    pub(super) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let bytes = bytes.min(limits::PARQUET_HELD_BYTES);
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) {
                return Some(room);
            }
            let oldest = {
                let mut entries = self.entries();
                let at = entries.iter().position(|(_, cell, _)| cell.initialized());
                at.and_then(|at| entries.remove(at))
            };
            if oldest.is_none() {
                // All are in use: whoever is done makes room.
                let room = Arc::clone(&self.room).acquire_many_owned(permits);
                match tokio::time::timeout(limits::PARQUET_HELD_LOOK, room).await {
                    Ok(room) => return room.ok(),
                    Err(_) => continue,
                }
            }
        }
    }
}

/// Lets go of what nobody has used for a while, until nothing is held.
async fn forget(held: std::sync::Weak<Held>) {
    loop {
        tokio::time::sleep(limits::PARQUET_HELD / 2).await;
        let Some(held) = held.upgrade() else { return };
        let mut entries = held.entries();
        entries.retain(|(_, _, used)| used.elapsed() < limits::PARQUET_HELD);
        if entries.is_empty() {
            return;
        }
    }
}
