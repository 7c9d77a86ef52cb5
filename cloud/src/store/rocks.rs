//! The RocksDB engine: local disk, the embedded default.
//!
//! One thread writes. It merges everything that waits into one synced write (group commit), so that what one sync carries
//! grows with the load. Values of some kilobytes and more lie in blob files, apart from the keys, with garbage collection on.
//!
//! **Invariant:** RocksDB puts a write into its memory table only after its log was synced, so reads see durable writes only.
//! **Invariant:** a full disk is noticed before anything is written, while there is still room for RocksDB's own work; any other
//! failed write leaves open what the disk holds, and ends writing until the store is opened again.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::limits;
use rocksdb::{DB, ErrorKind, ReadOptions, ReadTier, WriteOptions};
use tokio::sync::{Notify, Semaphore};

use super::write::QueuedWrite;
use super::{
    Era, PendingWrite, ScanLimit, ScanPage, Store, StoreError, StoreStats, WriteBatch, WriteOp,
};

mod options;

pub use options::RocksOptions;

/// An ordered store in one directory. Only one process may have it open.
pub struct RocksStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    path: PathBuf,
    /// `None` once closed.
    db: RwLock<Option<Arc<DB>>>,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for room in the queue.
    room: Notify,
    reads: Semaphore,
    reserved_disk_bytes: AtomicU64,
    hardware_crc32c: Arc<AtomicU8>,
}

#[derive(Default)]
struct Queue {
    writes: VecDeque<QueuedWrite>,
    /// Of the queue, and of the group that is being written.
    bytes: usize,
    era: Era,
    closing: bool,
    stats: StoreStats,
}

impl Queue {
    fn check_writable(&self) -> Result<(), StoreError> {
        if self.closing {
            return Err(StoreError::Closed);
        }
        match &self.stats.poisoned {
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    /// What the next synced write carries.
    fn take_group(&mut self) -> Vec<QueuedWrite> {
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(write) = self.writes.front() {
            bytes += write.bytes;
            if !group.is_empty() && bytes > limits::STORE_GROUP_BYTES {
                break;
            }
            group.extend(self.writes.pop_front());
        }
        group
    }
}

impl RocksStore {
    /// Opens the store in `path`, and creates it if there is none. Blocks while it replays its log.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn open(path: &Path, settings: &RocksOptions) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Open { path: path.display().to_string(), reason };
        std::fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
        let hardware_crc32c = Arc::new(AtomicU8::new(options::CRC_UNKNOWN));
        let db = DB::open(&settings.for_rocksdb(&hardware_crc32c), path)
            .map_err(|error| failed(explained(error.into_string())))?;
        let db = Arc::new(db);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            db: RwLock::new(Some(Arc::clone(&db))),
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            room: Notify::new(),
            reads: Semaphore::new(limits::STORE_CONCURRENT_READS),
            reserved_disk_bytes: AtomicU64::new(settings.reserved_disk_bytes),
            hardware_crc32c,
        });
        let writes = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writes.run_writer(&db))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Changes how many bytes have to stay free on the disk.
    pub fn set_reserved_disk_bytes(&self, bytes: u64) {
        self.shared.reserved_disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Tells the writer to finish; returns it, to be joined.
    fn start_closing(&self) -> Option<JoinHandle<()>> {
        self.shared.queue().closing = true;
        self.shared.work.notify_all();
        self.shared.room.notify_waiters();
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        if let Some(writer) = self.start_closing() {
            // A panic in the writer was reported by the panic hook; there is nobody left to tell here.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn db(&self) -> Result<Arc<DB>, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.clone().ok_or(StoreError::Closed)
    }

    fn run_writer(&self, db: &DB) {
        loop {
            let group = {
                let mut queue = self.queue();
                while queue.writes.is_empty() && !queue.closing {
                    queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                queue.take_group()
            };
            if group.is_empty() {
                return;
            }
            let outcome = self.check_space().and_then(|()| write_group(db, &group));
            self.answer(group, &outcome);
        }
    }

    /// Settles a group, and on failure everything that waits behind it.
    fn answer(&self, mut group: Vec<QueuedWrite>, outcome: &Result<(), StoreError>) {
        {
            let mut queue = self.queue();
            if outcome.is_err() {
                group.extend(queue.writes.drain(..));
                queue.era.0 += 1;
                queue.stats.failed_writes += group.len() as u64;
            }
            self.note(&mut queue.stats, outcome);
            let bytes: usize = group.iter().map(|write| write.bytes).sum();
            queue.bytes = queue.bytes.saturating_sub(bytes);
            if outcome.is_ok() {
                queue.stats.writes += group.len() as u64;
                queue.stats.groups += 1;
                queue.stats.written_bytes += bytes as u64;
            }
        }
        self.room.notify_waiters();
        for write in group {
            write.answer(outcome);
        }
    }

    /// Keeps and logs what changed: that the disk is full is said once, and once that it is not any more.
    fn note(&self, stats: &mut StoreStats, outcome: &Result<(), StoreError>) {
        let path = self.path.display();
        match outcome {
            Ok(()) => {
                if stats.no_space.take().is_some() {
                    tracing::info!(%path, "the store takes writes again");
                }
            }
            Err(StoreError::NoSpace(reason)) => {
                if stats.no_space.replace(reason.clone()).is_none() {
                    tracing::warn!(%path, reason, "the store takes no writes until there is room");
                }
            }
            Err(error) => {
                tracing::error!(%path, %error, "a write failed");
                if let StoreError::Poisoned(reason) = error {
                    stats.poisoned = Some(reason.clone());
                }
            }
        }
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let reserved = self.reserved_disk_bytes.load(Ordering::Relaxed);
        // A file system that cannot say how much is free is asked by writing.
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < reserved {
            return Err(StoreError::NoSpace(format!(
                "{} bytes are free in {}, {reserved} have to stay free",
                free,
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Runs a read where it may block.
    async fn blocking_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.reads.acquire().await.map_err(|_| StoreError::Closed)?;
        let db = self.db()?;
        tokio::task::spawn_blocking(move || read(&db))
            .await
            .map_err(|error| StoreError::Read(error.to_string()))?
    }
}

/// RocksDB's message when a directory does not open, with what to do where that is known.
fn explained(message: String) -> String {
    if message.contains("While lock file") || message.contains("lock hold by current process") {
        return format!("{message}; a broker that runs has it locked: stop that one first");
    }
    message
}

fn write_group(db: &DB, group: &[QueuedWrite]) -> Result<(), StoreError> {
    let mut batch = rocksdb::WriteBatch::default();
    for op in group.iter().flat_map(|write| &write.ops) {
        match op {
            WriteOp::Put(key, value) => batch.put(key, value),
            WriteOp::Delete(key) => batch.delete(key),
            WriteOp::DeleteRange(range) if range.start < range.end => {
                batch.delete_range(&range.start, &range.end);
            }
            WriteOp::DeleteRange(_) => {}
        }
    }
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.write_opt(batch, &synced).map_err(|error| {
        let message = error.into_string();
        // RocksDB itself goes on when there is room again: it flushes what it has and starts a new log, so that the failed
        // write does not come back.
        if message.contains("No space left on device") || message.contains("NoSpace") {
            StoreError::NoSpace(message)
        } else {
            StoreError::Poisoned(message)
        }
    })
}

fn read_failed(error: rocksdb::Error) -> StoreError {
    StoreError::Read(error.into_string())
}

fn scan(db: &DB, range: &Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
    let mut page = ScanPage::default();
    if range.start >= range.end {
        return Ok(page);
    }
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(range.end.to_vec());
    let mut cursor = db.raw_iterator_opt(options);
    cursor.seek(&range.start);
    let mut bytes = 0;
    while let Some((key, value)) = cursor.item() {
        bytes += key.len() + value.len();
        let full = page.items.len() >= limit.items || bytes > limit.bytes;
        if full && !page.items.is_empty() {
            page.resume = Some(Bytes::copy_from_slice(key));
            break;
        }
        page.items.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        cursor.next();
    }
    cursor.status().map_err(read_failed)?;
    Ok(page)
}

#[async_trait]
impl Store for RocksStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        // What is in memory is answered at once; only a read from disk is worth a thread.
        let mut in_memory = ReadOptions::default();
        in_memory.set_read_tier(ReadTier::BlockCache);
        match self.shared.db()?.get_opt(key, &in_memory) {
            Ok(value) => return Ok(value.map(Bytes::from)),
            Err(error) if error.kind() == ErrorKind::Incomplete => {}
            Err(error) => return Err(read_failed(error)),
        }
        let key = key.to_vec();
        let get = move |db: &DB| db.get(key).map(|value| value.map(Bytes::from));
        self.shared.blocking_read(move |db| get(db).map_err(read_failed)).await
    }

    async fn scan(&self, range: Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
        self.shared.blocking_read(move |db| scan(db, &range, limit)).await
    }

    fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError> {
        let mut queue = self.shared.queue();
        queue.check_writable()?;
        if queue.stats.no_space.is_some() {
            // Queueing it only to fail would start a new era each time, and so keep every partition busy reading its state again.
            self.shared.check_space()?;
        }
        if queue.bytes > limits::STORE_QUEUE_BYTES {
            return Err(StoreError::Busy { queued_bytes: queue.bytes });
        }
        if batch.era().is_some_and(|era| era != queue.era) {
            return Err(StoreError::StaleEra);
        }
        let (queued, pending) = batch.into_queued();
        queue.bytes += queued.bytes;
        queue.writes.push_back(queued);
        drop(queue);
        self.shared.work.notify_one();
        Ok(pending)
    }

    fn era(&self) -> Era {
        self.shared.queue().era
    }

    async fn ready(&self) -> Result<(), StoreError> {
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            room.as_mut().enable();
            {
                let queue = self.shared.queue();
                queue.check_writable()?;
                if queue.bytes <= limits::STORE_QUEUE_BYTES {
                    return Ok(());
                }
            }
            room.await;
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        if let Some(writer) = self.start_closing() {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(StoreError::Poisoned("the store's writer ended early".to_owned()));
            }
        }
        let db = self.shared.db.write().unwrap_or_else(PoisonError::into_inner).take();
        // Closing waits for RocksDB's background work.
        tokio::task::spawn_blocking(move || drop(db))
            .await
            .map_err(|error| StoreError::Poisoned(error.to_string()))
    }

    fn stats(&self) -> StoreStats {
        let property = |name: &str| {
            let db = self.shared.db().ok()?;
            db.property_int_value(name).ok().flatten()
        };
        let disk_bytes = property("rocksdb.total-sst-files-size").unwrap_or_default()
            + property("rocksdb.total-blob-file-size").unwrap_or_default();
        let hardware_crc32c = options::crc_support(&self.shared.hardware_crc32c);
        let queue = self.shared.queue();
        StoreStats {
            engine: "rocksdb",
            queued_bytes: queue.bytes,
            disk_bytes,
            hardware_crc32c,
            ..queue.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests;
