//! The RocksDB engine: local disk, the embedded default.
//!
//! One thread writes. It merges everything that waits into one synced write (group commit), so that what one sync carries
//! grows with the load. Values of some kilobytes and more lie in blob files, apart from the keys, with garbage collection on.
//!
//! **Invariant:** RocksDB puts a write into its memory table only after its log was synced, so reads see durable writes only.
//! **Invariant:** a full disk is noticed before anything is written, while there is still room for RocksDB's own work; any other
//! failed write leaves open what the disk holds, and ends writing until the store is opened again.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::disk::RealDisk;
use robustmq_common::limits;
use rocksdb::{DB, ErrorKind, ReadOptions, ReadTier, WriteOptions};
use tokio::sync::Semaphore;

use super::commit::Committer;
use super::write::QueuedWrite;
use super::{
    Era, PendingWrite, ScanLimit, ScanPage, Store, StoreError, StoreStats, WriteBatch, WriteOp,
};

mod options;

pub use options::RocksOptions;
pub(super) use options::{crc_support, for_index};

/// An ordered store in one directory. Only one process may have it open.
pub struct RocksStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// `None` once closed.
    db: RwLock<Option<Arc<DB>>>,
    commits: Committer,
    reads: Semaphore,
    hardware_crc32c: Arc<AtomicU8>,
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
        let db = DB::open(&settings.for_store(&hardware_crc32c), path)
            .map_err(|error| failed(explained(error.into_string())))?;
        let db = Arc::new(db);
        let shared = Arc::new(Shared {
            db: RwLock::new(Some(Arc::clone(&db))),
            commits: Committer::new(
                path.to_owned(),
                Arc::new(RealDisk),
                settings.reserved_disk_bytes,
            ),
            reads: Semaphore::new(limits::STORE_CONCURRENT_READS),
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
        self.shared.commits.set_reserved_disk_bytes(bytes);
    }

    /// Tells the writer to finish; returns it, to be joined.
    fn start_closing(&self) -> Option<JoinHandle<()>> {
        self.shared.commits.close();
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
    fn db(&self) -> Result<Arc<DB>, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.clone().ok_or(StoreError::Closed)
    }

    fn run_writer(&self, db: &DB) {
        while let Some(group) = self.commits.next_group() {
            let space = self.commits.check_space(&group);
            let outcome = space.and_then(|()| write_group(db, &group));
            self.commits.answer(group, &outcome);
        }
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
pub(super) fn explained(message: String) -> String {
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
        self.shared.commits.submit(batch)
    }

    fn era(&self) -> Era {
        self.shared.commits.era()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.shared.commits.ready().await
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
        let hardware_crc32c = crc_support(&self.shared.hardware_crc32c);
        StoreStats { engine: "rocksdb", disk_bytes, hardware_crc32c, ..self.shared.commits.stats() }
    }
}

#[cfg(test)]
mod tests;
