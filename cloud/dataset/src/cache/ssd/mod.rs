//! The extents that rank next, on SSD.
//!
//! The **slab** is one file of blocks; an extent takes as many as it needs, wherever they are free. The **journal** says which are whose.
//! Nothing is synced as it is written: a crash may lose what was written last. What is read is checked, and fetched again if it is not
//! what was written.
//!
//! **Invariant:** an extent's blocks are not written while the journal or a reader has them as another's.
//! **Invariant:** after a failed write nothing is written any more, after a failed read nothing is read either; one line says so.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use robustmq_common::disk::{Disk, DiskFile, is_full, lock_soon, read_up_to};
use robustmq_common::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use self::index::{Index, Slot};
use self::journal::{Journal, Record, content_crc};
use self::writer::{Write, Writer};
use super::scene::Displaced;
use super::stats::CacheStats;
use super::users::{UserId, Users};
use super::{CacheError, ExtentId, SsdSettings};

mod index;
mod journal;
#[cfg(test)]
mod tests;
mod writer;

/// Permits of the queue are for so many bytes each.
const PERMIT_BYTES: usize = 4096;

/// The SSD.
pub(super) struct Ssd {
    dir: PathBuf,
    bytes: u64,
    slab: Box<dyn DiskFile>,
    index: Mutex<Index>,
    users: Arc<Users>,
    reads: AtomicBool,
    writes: AtomicBool,
    damaged: AtomicU64,
    written_bytes: AtomicU64,
    queue: mpsc::Sender<Queued>,
    queue_bytes: Arc<Semaphore>,
    queue_permits: usize,
    /// Held by whoever writes. It is a lock of Tokio's because a write takes long.
    writer: Arc<tokio::sync::Mutex<Writer>>,
    _lock: Box<dyn Send + Sync>,
}

/// An extent that waits to be written.
struct Queued {
    write: Write,
    _permit: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Ssd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssd").field("dir", &self.dir).field("bytes", &self.bytes).finish()
    }
}

impl Ssd {
    /// Opens the folder, with what it held before.
    pub(super) fn open(
        settings: SsdSettings,
        disk: Arc<dyn Disk>,
        users: Arc<Users>,
        queue_bytes: usize,
    ) -> Result<Arc<Self>, CacheError> {
        let dir = settings.dir.clone();
        let failed = |source| CacheError::Io { dir: dir.clone(), source };
        disk.create_dir(&dir).map_err(failed)?;
        let lock = lock_soon(&*disk, &dir.join("lock")).map_err(failed)?;
        let lock = lock.ok_or_else(|| CacheError::Locked(dir.clone()))?;
        let (slab, index, journal) = recover(&settings, &disk).map_err(failed)?;
        // Who read before the restart has some time to come back.
        let now = Instant::now();
        index.users().into_iter().for_each(|user| users.reads(user, now));
        let (queue, queued) = mpsc::channel(limits::dataset::SSD_QUEUE);
        let queue_permits = (queue_bytes / PERMIT_BYTES).max(1);
        let ssd = Arc::new(Self {
            dir: settings.dir,
            bytes: settings.bytes,
            slab,
            index: Mutex::new(index),
            users,
            reads: AtomicBool::new(true),
            writes: AtomicBool::new(true),
            damaged: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            queue,
            queue_bytes: Arc::new(Semaphore::new(queue_permits)),
            queue_permits,
            writer: Arc::new(tokio::sync::Mutex::new(Writer::new(journal, now))),
            _lock: lock,
        });
        tokio::spawn(write_queued(Arc::downgrade(&ssd), queued));
        Ok(ssd)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of extents.
    pub(super) fn held_bytes(&self) -> u64 {
        self.index().bytes()
    }

    pub(super) fn contains(&self, id: ExtentId) -> bool {
        self.reads.load(Ordering::Relaxed) && self.index().contains(id)
    }

    pub(super) fn fill(&self, stats: &mut CacheStats, user: Option<UserId>) {
        let index = self.index();
        stats.ssd_bytes = user.map_or_else(|| index.bytes(), |user| index.bytes_of(user));
        stats.ssd_written_bytes = self.written_bytes.load(Ordering::Relaxed);
        stats.damaged_ssd_extents = self.damaged.load(Ordering::Relaxed);
        stats.reads_ssd = self.reads.load(Ordering::Relaxed);
        stats.writes_ssd = self.writes.load(Ordering::Relaxed);
    }

    /// Memory has it too from now on.
    pub(super) fn is_in_memory(&self, id: ExtentId) {
        self.index().set_spare(id, true);
    }

    /// Its bytes are not those that were written.
    pub(super) fn is_damaged(&self, id: ExtentId) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.index().remove(id);
        tracing::warn!(
            dir = %self.dir.display(), start = id.start,
            "an extent on the cache's SSD was damaged; it is fetched again"
        );
    }

    /// The content of an extent, as it was written.
    pub(super) async fn read(self: &Arc<Self>, id: ExtentId, user: UserId) -> Option<Bytes> {
        if !self.reads.load(Ordering::Relaxed) {
            return None;
        }
        let slot = {
            let mut index = self.index();
            index.is_of(id, user);
            index.get(id)?
        };
        let ssd = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let content = ssd.read_slot(id, &slot);
            drop(slot);
            content
        });
        match read.await.ok()? {
            Ok(Some(content)) => Some(content),
            Ok(None) => {
                self.is_damaged(id);
                None
            }
            Err(error) => {
                self.stop(&error, true);
                None
            }
        }
    }

    /// `None` if they are other bytes.
    fn read_slot(&self, id: ExtentId, slot: &Slot) -> io::Result<Option<Bytes>> {
        let mut content = vec![0; id.bytes as usize];
        let mut rest = content.as_mut_slice();
        for run in &slot.runs {
            let bytes = (run.count as usize * limits::dataset::SSD_BLOCK_BYTES).min(rest.len());
            let Some((front, back)) = rest.split_at_mut_checked(bytes) else { return Ok(None) };
            let at = u64::from(run.first) * limits::dataset::SSD_BLOCK_BYTES as u64;
            if read_up_to(&*self.slab, front, at)? != bytes {
                return Ok(None);
            }
            rest = back;
        }
        let is_it = rest.is_empty() && content_crc(id, &content) == slot.crc;
        Ok(is_it.then(|| Bytes::from(content)))
    }

    /// It failed: it is not used any more, at least not written to.
    fn stop(&self, error: &io::Error, stops_reads: bool) {
        let wrote = self.writes.swap(false, Ordering::Relaxed);
        let read = stops_reads && self.reads.swap(false, Ordering::Relaxed);
        if wrote || read {
            let what = match (stops_reads, is_full(error)) {
                (true, _) => "cannot be read and is not used any more",
                (false, true) => "is full: nothing is written to it any more",
                (false, false) => "cannot be written: nothing is written to it any more",
            };
            let dir = self.dir.display();
            tracing::error!(%dir, %error, "the cache's SSD {what}; a restart tries again");
        }
    }

    /// Takes an extent that left memory, if it ranks and the queue has room.
    pub(super) fn offer(&self, displaced: Displaced) {
        let Displaced { id, user, extent } = displaced;
        if !self.writes.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut index = self.index();
            if index.contains(id) {
                index.set_spare(id, false);
                return;
            }
            if index.victims(id, user, &self.users.lock(), Instant::now()).is_none() {
                return;
            }
        }
        // One goes on however large it is.
        let permits = extent.content.len().div_ceil(PERMIT_BYTES).min(self.queue_permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.queue_bytes).try_acquire_many_owned(permits);
        if let Ok(permit) = permit {
            let write = Write { id, user, content: extent.content.clone() };
            // Where the queue is full, its next reader brings it here once more.
            self.queue.try_send(Queued { write, _permit: permit }).ok();
        }
    }

    /// Waits until what was offered is written.
    #[cfg(test)]
    pub(super) async fn is_idle(&self) {
        let permits = u32::try_from(self.queue_permits).expect("few");
        let all = self.queue_bytes.acquire_many(permits).await;
        drop(all.expect("never closed"));
    }

    async fn write(self: &Arc<Self>, write: Write, is_limited: bool) {
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        let ssd = Arc::clone(self);
        let now = Instant::now();
        // The lock goes along: whoever stops waiting does not end the write.
        let written = tokio::task::spawn_blocking(move || {
            if ssd.writes.load(Ordering::Relaxed) {
                writer.write(&ssd, &write, is_limited, now)
            } else {
                Ok(())
            }
        });
        if let Ok(Err(error)) = written.await {
            self.stop(&error, false);
        }
    }

    /// Writes these, and no others after them.
    pub(super) async fn close(self: &Arc<Self>, extents: impl Iterator<Item = Displaced>) {
        let until = Instant::now() + limits::dataset::SSD_SPILL;
        for Displaced { id, user, extent } in extents {
            if Instant::now() >= until || !self.writes.load(Ordering::Relaxed) {
                break;
            }
            self.index().set_spare(id, false);
            self.write(Write { id, user, content: extent.content.clone() }, false).await;
        }
        let writer = Arc::clone(&self.writer).lock_owned().await;
        if self.writes.swap(false, Ordering::Relaxed) {
            let ssd = Arc::clone(self);
            let synced = tokio::task::spawn_blocking(move || {
                ssd.slab.sync()?;
                writer.sync()
            });
            if let Ok(Err(error)) = synced.await {
                let dir = self.dir.display();
                tracing::warn!(%dir, %error, "the cache's SSD was not synced at the end");
            }
        }
    }
}

/// Writes what was offered, until the cache is gone.
async fn write_queued(ssd: Weak<Ssd>, mut queued: mpsc::Receiver<Queued>) {
    while let Some(Queued { write, _permit }) = queued.recv().await {
        let Some(ssd) = ssd.upgrade() else { return };
        ssd.write(write, true).await;
    }
}

/// Opens the files, and finds what they hold.
fn recover(
    settings: &SsdSettings,
    disk: &Arc<dyn Disk>,
) -> io::Result<(Box<dyn DiskFile>, Index, Journal)> {
    let block = limits::dataset::SSD_BLOCK_BYTES as u64;
    let slab = disk.open(&settings.dir.join("slab"), true)?;
    let blocks = u32::try_from(settings.bytes / block).unwrap_or(u32::MAX);
    if slab.byte_len()? > u64::from(blocks) * block {
        slab.set_len(u64::from(blocks) * block)?;
    }
    let path = settings.dir.join("journal");
    let mut found: HashMap<ExtentId, (u64, Slot)> = HashMap::new();
    let mut number = 0;
    journal::replay(&**disk, &path, |record| {
        number += 1;
        match record {
            Record::Put(id, slot) => drop(found.insert(id, (number, slot))),
            Record::Remove(id) => drop(found.remove(&id)),
        }
    })?;
    // What was written last is what the blocks hold.
    let mut newest: Vec<_> = found.into_iter().collect();
    newest.sort_by_key(|(_, (number, _))| std::cmp::Reverse(*number));
    // The last block may be there in part.
    let slab_blocks = slab.byte_len()?.div_ceil(block);
    let mut index = Index::new(blocks);
    for (id, (_, slot)) in newest {
        index.recover(id, slot, slab_blocks);
    }
    let records = index.all().into_iter().map(|(id, slot)| Record::Put(id, slot));
    let journal = Journal::rewrite(Arc::clone(disk), path, records)?;
    disk.sync_dir(&settings.dir)?;
    Ok((slab, index, journal))
}
