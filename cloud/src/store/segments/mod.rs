//! The local engine: values in segment files, which are its log as well, and RocksDB as the index of where they lie.
//!
//! ```text
//! DIR/segments.lock        held while a process has the store open
//! DIR/NNNNNNNN.seg         groups of changes with their values        (see `format`)
//! DIR/NNNNNNNN.kept        values that were moved out of segments     (see `kept`)
//! DIR/index/               RocksDB: key -> small value, or place      (see `index`)
//! ```
//!
//! What is written goes to disk once: a group of writes is appended to the last segment, values and all, and one sync makes it
//! durable. Then the index is told, in memory; it is made durable when a segment is full. After a crash the groups that it was not
//! told of, or has forgotten, are told to it again. Roles: `writer` (the only one that appends), `recover` (opening),
//! `keeper` (index flushes) with `collect` (space) and `kept` (what is moved), `files` (the segments and reading them), `recent` (what was
//! written last).
//!
//! **Invariant:** `segments.lock` is taken before anything else in the directory is touched, the index above all.
//! **Invariant:** a write is answered only after a sync that covers it, and its index has it: reads see durable writes only.
//! **Invariant:** what a start replays is what was written since the index was last made durable: about a segment.
//! **Invariant:** a value's bytes never change where they lie; a segment is removed only when nothing points into it.
//!
//! Why not RocksDB's blob files: `cloud/docs/batches.md` has the measurement.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use rand::RngExt as _;
use robustmq_common::disk::{Disk, lock_soon};
use robustmq_common::limits;
use tokio::sync::Semaphore;

use super::commit::Committer;
use super::{
    Era, PendingWrite, ScanLimit, ScanPage, Store, StoreError, StoreStats, WriteBatch, WriteOp,
};

mod collect;
mod files;
mod format;
mod index;
mod keeper;
mod kept;
#[cfg(test)]
mod memory_index;
mod recent;
mod recover;
#[cfg(feature = "rocksdb")]
mod rocks_index;
mod writer;

use collect::Collector;
use files::Files;
use index::{Entry, Index, Locator};
use keeper::{Keeper, Signals};
use kept::Kept;
use writer::{Writer, WriterSettings};

#[cfg(feature = "rocksdb")]
mod open;

/// What may be set of a segment store. The defaults are those of [`limits`].
#[derive(Debug, Clone)]
pub struct SegmentSettings {
    /// Free bytes on the disk below which nothing is written.
    pub reserved_disk_bytes: u64,
    /// The size at which a new segment is begun.
    pub segment_bytes: u64,
    /// Values of this size and more lie apart from the keys.
    pub separated_bytes: usize,
    /// Dead bytes that are left alone, besides a fifth of what lives.
    pub dead_bytes: u64,
    /// The values written last, kept in memory for their readers.
    pub recent_bytes: usize,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self {
            reserved_disk_bytes: limits::STORE_RESERVED_DISK_BYTES,
            segment_bytes: limits::STORE_SEGMENT_BYTES,
            separated_bytes: limits::STORE_SEPARATED_BYTES,
            dead_bytes: limits::STORE_DEAD_BYTES,
            recent_bytes: limits::STORE_RECENT_BYTES,
        }
    }
}

/// A store in one directory. Only one process may have it open.
pub struct SegmentStore {
    keeper: Arc<Keeper>,
    /// After the keeper, which has the index: the lock in here is let go last.
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

struct Shared {
    files: Arc<Files>,
    commits: Arc<Committer>,
    /// `None` once closed.
    index: Mutex<Option<Arc<dyn Index>>>,
    reads: Semaphore,
    hardware_crc32c: Option<bool>,
    /// Held for as long as the store is open.
    _lock: Box<dyn Send + Sync>,
}

/// What each RocksDB database has. The index has its own, in its own directory.
const ROCKSDB_CURRENT: &str = "CURRENT";

/// An index that was opened.
struct OpenIndex {
    index: Arc<dyn Index>,
    hardware_crc32c: Option<bool>,
}

impl SegmentStore {
    /// Opens the segments of `dir`, unless something else is there, and the index when they are locked: an engine that finds its own lock taken reports it in its own
    /// words, and nobody else may look at an index that belongs to another process.
    fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        settings: &SegmentSettings,
        open_index: impl FnOnce() -> Result<OpenIndex, StoreError>,
    ) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Open { path: dir.display().to_string(), reason };
        disk.create_dir(dir).map_err(|error| failed(error.to_string()))?;
        let names = disk.list(dir).map_err(|error| failed(error.to_string()))?;
        if names.iter().any(|name| name == ROCKSDB_CURRENT) {
            return Err(failed(
                "it is a RocksDB database, as releases before segment files kept it, which this one does not read; begin with an \
                 empty directory, or copy its topics over from a broker of that release"
                    .to_owned(),
            ));
        }
        let lock = lock_soon(&*disk, &dir.join("segments.lock"));
        let lock = lock.map_err(|error| failed(error.to_string()))?;
        let lock = lock.ok_or_else(|| {
            failed("a broker that runs has it locked: stop that one first".to_owned())
        })?;
        let OpenIndex { index, hardware_crc32c } = open_index()?;
        let writer_settings = WriterSettings {
            segment_bytes: settings.segment_bytes,
            separated_bytes: settings.separated_bytes,
            recent_bytes: settings.recent_bytes,
        };
        let fresh_salt = rand::rng().random();
        let (writer, replayed) = recover::recover(
            Arc::clone(&disk),
            dir,
            Arc::clone(&index),
            fresh_salt,
            writer_settings,
        )?;
        if replayed.groups > 0 || replayed.cut_bytes > 0 {
            let (groups, cut_bytes) = (replayed.groups, replayed.cut_bytes);
            tracing::info!(groups, cut_bytes, "the store replayed what its index had not kept");
        }
        let reserved = settings.reserved_disk_bytes;
        let commits = Arc::new(Committer::new(dir.to_owned(), Arc::clone(&disk), reserved));
        let files = Arc::clone(&writer.files);
        let keeper = Arc::new(Keeper {
            collector: Collector {
                files: Arc::clone(&files),
                index: Arc::clone(&index),
                commits: Arc::clone(&commits),
                kept: Kept::new(Arc::clone(&files), writer.salt, settings.segment_bytes),
                tolerated_bytes: settings.dead_bytes,
                unmovable: Mutex::default(),
            },
            signals: Arc::new(Signals::default()),
            durable: AtomicU32::new(0),
            one_at_a_time: Mutex::new(()),
        });
        let shared = Arc::new(Shared {
            files,
            commits,
            index: Mutex::new(Some(index)),
            reads: Semaphore::new(limits::STORE_CONCURRENT_READS),
            hardware_crc32c,
            _lock: lock,
        });
        let threads = start(Arc::clone(&shared), writer, Arc::clone(&keeper))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { shared, keeper, threads: Mutex::new(Some(threads)) })
    }

    /// Changes how many bytes have to stay free on the disk.
    pub fn set_reserved_disk_bytes(&self, bytes: u64) {
        self.shared.commits.set_reserved_disk_bytes(bytes);
    }

    /// Gives space back now, where the keeper would wait for its turn.
    #[cfg(test)]
    async fn collect_now(&self) {
        let keeper = Arc::clone(&self.keeper);
        let collect = move || {
            keeper.flush()?;
            keeper.collect()
        };
        // It fails where the disk does; what it did not do is done later.
        let _ = tokio::task::spawn_blocking(collect).await.expect("no panic");
    }

    /// Tells the threads to finish; returns them, to be joined.
    fn start_closing(&self) -> Option<Threads> {
        self.shared.commits.close();
        self.keeper.signals.close();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for SegmentStore {
    fn drop(&mut self) {
        if let Some(threads) = self.start_closing() {
            // A panic of a thread was reported by the panic hook; there is nobody left to tell here.
            let _ = threads.writer.join();
            let _ = threads.keeper.join();
        }
    }
}

fn start(shared: Arc<Shared>, mut writer: Writer, keeper: Arc<Keeper>) -> std::io::Result<Threads> {
    let signals = Arc::clone(&keeper.signals);
    let writer = std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || shared.run_writer(&mut writer, &signals))?;
    let keeper =
        std::thread::Builder::new().name("store-keeper".to_owned()).spawn(move || keeper.run())?;
    Ok(Threads { writer, keeper })
}

impl Shared {
    fn run_writer(&self, writer: &mut Writer, signals: &Signals) {
        while let Some(group) = self.commits.next_group() {
            let segment = writer.end.segment;
            let space = self.commits.check_space(&group);
            let seals = signals.takes_seal();
            if seals {
                writer.seal();
            }
            let outcome = space.and_then(|()| writer.write(&group));
            if writer.end.segment != segment {
                signals.rolled(!seals);
            }
            let removes = |op: &WriteOp| match op {
                WriteOp::Put(..) => false,
                WriteOp::Delete(_) => true,
                WriteOp::DeleteRange(range) => range.start < range.end,
            };
            if outcome.is_ok() && group.iter().flat_map(|write| &write.ops).any(removes) {
                signals.removed();
            }
            self.commits.answer(group, &outcome);
        }
    }

    fn index(&self) -> Result<Arc<dyn Index>, StoreError> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.clone().ok_or(StoreError::Closed)
    }
}

/// The value of a key. A value that was moved between the look-up and the read is looked up again.
fn get(index: &dyn Index, files: &Files, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let mut missing = None;
    loop {
        let Some(entry) = index.get(key)? else { return Ok(None) };
        match Entry::decode(key, entry)? {
            Entry::Inline(value) => return Ok(Some(value)),
            Entry::At(place) => {
                if let Some(values) = files.read(&[place])? {
                    return Ok(values.into_iter().next());
                }
                not_twice(&mut missing, vec![place])?;
            }
        }
    }
}

fn scan(
    index: &dyn Index,
    files: &Files,
    range: &Range<Bytes>,
    limit: ScanLimit,
) -> Result<ScanPage, StoreError> {
    let mut missing = None;
    loop {
        let (entries, resume) = scan_entries(index, range, limit)?;
        let places: Vec<Locator> = entries
            .iter()
            .filter_map(|(_, entry)| match entry {
                Entry::At(place) => Some(*place),
                Entry::Inline(_) => None,
            })
            .collect();
        // A value that was moved between the look-up and the read is looked up again.
        let Some(values) = files.read(&places)? else {
            not_twice(&mut missing, places)?;
            continue;
        };
        let mut values = values.into_iter();
        let items = entries
            .into_iter()
            .filter_map(|(key, entry)| match entry {
                Entry::Inline(value) => Some((key, value)),
                Entry::At(_) => values.next().map(|value| (key, value)),
            })
            .collect();
        return Ok(ScanPage { items, resume });
    }
}

/// A file is removed after the index points elsewhere. If it points to the same place again, the file is missing.
fn not_twice(missing: &mut Option<Vec<Locator>>, places: Vec<Locator>) -> Result<(), StoreError> {
    if missing.as_ref() == Some(&places) {
        let segments: std::collections::BTreeSet<_> =
            places.iter().map(|place| place.segment).collect();
        return Err(StoreError::Read(format!(
            "a segment file is missing: one of {segments:?}, which the index points to"
        )));
    }
    *missing = Some(places);
    Ok(())
}

type Entries = Vec<(Bytes, Entry)>;

fn scan_entries(
    index: &dyn Index,
    range: &Range<Bytes>,
    limit: ScanLimit,
) -> Result<(Entries, Option<Bytes>), StoreError> {
    let mut entries = Entries::new();
    let mut resume = None;
    let mut bytes = 0;
    let mut damage = None;
    index.walk(range, &mut |key, entry| {
        let size = match Locator::of_entry(entry) {
            Some(place) => place.len as usize,
            None => entry.len().saturating_sub(1),
        };
        bytes += key.len() + size;
        let full = entries.len() >= limit.items || bytes > limit.bytes;
        if full && !entries.is_empty() {
            resume = Some(Bytes::copy_from_slice(key));
            return false;
        }
        match Entry::decode(key, Bytes::copy_from_slice(entry)) {
            Ok(entry) => entries.push((Bytes::copy_from_slice(key), entry)),
            Err(error) => damage = Some(error),
        }
        damage.is_none()
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok((entries, resume)),
    }
}

#[async_trait]
impl Store for SegmentStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let index = self.shared.index()?;
        // What is in memory is answered at once; only a read from disk is worth a thread.
        if let Some(entry) = index.get_in_memory(key)? {
            let Some(entry) = entry else { return Ok(None) };
            if let Entry::Inline(value) = Entry::decode(key, entry)? {
                return Ok(Some(value));
            }
        }
        let key = key.to_vec();
        self.blocking_read(move |index, files| get(index, files, &key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        if let [key] = keys {
            return Ok(vec![self.get(key).await?]);
        }
        let keys = keys.to_vec();
        self.blocking_read(move |index, files| {
            keys.iter().map(|key| get(index, files, key)).collect()
        })
        .await
    }

    async fn scan(&self, range: Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
        self.blocking_read(move |index, files| scan(index, files, &range, limit)).await
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
        let threads = self.start_closing();
        let index = self.shared.index.lock().unwrap_or_else(PoisonError::into_inner).take();
        let finish = move || -> Result<(), StoreError> {
            let ended = |thread: JoinHandle<()>| {
                thread.join().map_err(|_| StoreError::Poisoned("a thread ended early".to_owned()))
            };
            if let Some(threads) = threads {
                ended(threads.writer)?;
                ended(threads.keeper)?;
            }
            // So that the next start has nothing to replay.
            index.map_or(Ok(()), |index| index.flush())
        };
        tokio::task::spawn_blocking(finish)
            .await
            .map_err(|error| StoreError::Poisoned(error.to_string()))?
    }

    fn stats(&self) -> StoreStats {
        let index_bytes = self.shared.index().map_or(0, |index| index.disk_bytes());
        StoreStats {
            engine: "segments",
            disk_bytes: self.shared.files.total_bytes() + index_bytes,
            hardware_crc32c: self.shared.hardware_crc32c,
            ..self.shared.commits.stats()
        }
    }
}

impl SegmentStore {
    /// Runs a read where it may block.
    async fn blocking_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Index, &Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.shared.reads.acquire().await.map_err(|_| StoreError::Closed)?;
        let (index, files) = (self.shared.index()?, Arc::clone(&self.shared.files));
        tokio::task::spawn_blocking(move || read(&*index, &files))
            .await
            .map_err(|error| StoreError::Read(error.to_string()))?
    }
}

#[cfg(test)]
mod tests;
