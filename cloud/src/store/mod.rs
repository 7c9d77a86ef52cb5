//! One ordered key-value store under everything: the [`Store`] seam, its engines, and the key layout ([`keys`]).
//!
//! The store knows bytes only: no topic, no offset, no Kafka. Reads are async and scans go forward only, so that an
//! engine may answer from a remote object store.
//!
//! **Invariant:** a read sees durable writes only. What a crash could take back is never returned.
//! **Invariant:** writes are applied in the order of [`Store::submit`]; each is atomic.
//! **Invariant:** a write that failed takes with it every write that was submitted after it and had not been answered, and
//! every later one that was built on the state before the failure (see [`Era`]).
//! **Invariant:** bytes that wait to be written are bounded by [`limits::STORE_QUEUE_BYTES`] (one batch may pass it).
//!
//! Deliberately absent: read-modify-write, transactions, snapshots across calls. Whoever needs them is a sequencer: it
//! keeps its state in memory, and submits under its own lock.
//!
//! [`limits::STORE_QUEUE_BYTES`]: robustmq_common::limits::STORE_QUEUE_BYTES

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::limits;

#[cfg(any(feature = "rocksdb", test))]
mod commit;
mod identity;
pub mod keys;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(any(feature = "rocksdb", test))]
mod segments;
#[cfg(feature = "slatedb")]
pub mod slate;
mod write;

pub use memory::MemoryStore;
#[cfg(feature = "rocksdb")]
pub use rocks::{RocksOptions, RocksStore};
#[cfg(any(feature = "rocksdb", test))]
pub use segments::{SegmentSettings, SegmentStore};
pub use write::{Completion, PendingWrite, WriteBatch, WriteOp};

/// Why the store refused or failed. Cheap to copy, since one failure answers many writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The write queue is full. Nothing was written. Wait for [`Store::ready`] and submit again.
    #[error("the store's write queue is full ({queued_bytes} bytes wait)")]
    Busy {
        /// Bytes that wait to be written.
        queued_bytes: usize,
    },
    /// The disk has no room. Nothing was written; writes work again as soon as there is room. What comes while the disk is
    /// full is refused at once, without a new era.
    #[error("the disk that holds the store is full: {0}")]
    NoSpace(String),
    /// The object store that keeps the data does not answer. Nothing of this write was written; writes work again as soon as
    /// it does. What it was given before is still on its way, and is answered then: this starts no new era.
    #[error("the object store does not answer: {0}")]
    Unavailable(String),
    /// The write was built on state from before a failed write. Nothing was written. Read the state again.
    #[error("an earlier write failed, so this one was refused; its state has to be read again")]
    StaleEra,
    /// A write failed in a way that leaves it open what is on the disk. The store refuses every write until it is
    /// opened again, so that it never acknowledges what it may not hold.
    #[error("the store failed and takes no more writes until it is opened again: {0}")]
    Poisoned(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A read failed.
    #[error("the store cannot be read: {0}")]
    Read(String),
    /// What was read cannot be understood: a value's layout is wrong.
    #[error("the store holds a damaged value at {key}: {reason}")]
    Damaged {
        /// The key in hexadecimal.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The store cannot be opened.
    #[error("the store in {path} cannot be opened: {reason}")]
    Open {
        /// The directory.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Counts failed writes. Whoever keeps state in memory that mirrors the store reads the era **before** it reads that state,
/// and puts it into each [`WriteBatch`] it builds on it; after a failure the store refuses those with
/// [`StoreError::StaleEra`] until the state was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Era(pub u64);

/// How much one [`Store::scan`] may return. The first item is always returned, whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimit {
    /// The most items.
    pub items: usize,
    /// The most bytes of keys and values together.
    pub bytes: usize,
}

impl ScanLimit {
    /// At most `items` items, and no more bytes than a page of small values needs.
    #[must_use]
    pub const fn items(items: usize) -> Self {
        Self { items, bytes: limits::STORE_SCAN_BYTES }
    }

    /// At most `bytes` bytes (and at least one item).
    #[must_use]
    pub const fn bytes(bytes: usize) -> Self {
        Self { items: limits::STORE_SCAN_ITEMS, bytes }
    }
}

/// One page of a scan: a consistent view of the range at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Keys in ascending order, with their values.
    pub items: Vec<(Bytes, Bytes)>,
    /// Where the next page starts; `None` when the range was read to its end.
    pub resume: Option<Bytes>,
}

/// What an operator asks about the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// The engine's name.
    pub engine: &'static str,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Writes answered as durable since the start.
    pub writes: u64,
    /// Synced groups that carried them: `writes / groups` is how much one sync carries.
    pub groups: u64,
    /// Bytes of keys and values in those writes.
    pub written_bytes: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Bytes on disk, as far as the engine knows.
    pub disk_bytes: u64,
    /// Whether the engine computes CRC32C in hardware; `None` if it uses none of its own.
    pub hardware_crc32c: Option<bool>,
    /// Why writes are refused until there is room on the disk, if the last one was.
    pub no_space: Option<String>,
    /// Why writes are refused until the object store answers, if it does not.
    pub unavailable: Option<String>,
    /// Why the store takes no writes any more, if so.
    pub poisoned: Option<String>,
}

/// Ordered keys, atomic batches, range deletion.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Closed`].
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The values of `keys`, in their order. For thousands of keys at once: an engine may read them together.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(self.get(key).await?);
        }
        Ok(values)
    }

    /// The first items of `range` in key order, within `limit`.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Closed`].
    async fn scan(&self, range: Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError>;

    /// Queues an atomic write. The order of calls is the order of application, so a sequencer calls this under its own
    /// lock; it does not block. The answer, and before it the batch's [`Completion`], comes when the write is durable. An empty
    /// batch is written as any other, and so shows whether writes work.
    ///
    /// # Errors
    /// Refused at once and without any effect: [`StoreError::Busy`], [`StoreError::NoSpace`], [`StoreError::Unavailable`],
    /// [`StoreError::StaleEra`], [`StoreError::Poisoned`], [`StoreError::Closed`].
    fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError>;

    /// The number of failed write groups so far.
    fn era(&self) -> Era;

    /// Waits until the write queue has room.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Poisoned`], [`StoreError::Closed`].
    async fn ready(&self) -> Result<(), StoreError>;

    /// Answers every queued write, then refuses new ones. Reads fail from then on.
    ///
    /// # Errors
    /// What the last writes failed with.
    async fn close(&self) -> Result<(), StoreError>;

    /// Figures for metrics and for an operator.
    fn stats(&self) -> StoreStats;
}

/// Submits `batch` and waits until it is durable; waits for room in the queue first, and again, within [`Patience`], where others took it.
///
/// # Errors
/// As [`Store::submit`] and the write itself.
pub async fn write(store: &dyn Store, batch: WriteBatch) -> Result<(), StoreError> {
    let mut patience = Patience::default();
    loop {
        store.ready().await?;
        match store.submit(batch.again()) {
            Err(StoreError::Busy { .. }) if patience.wait().await => {}
            submitted => return submitted?.await,
        }
    }
}

/// How long a write is tried that finds the queue full though there was room a moment ago: many wake when there is some, and what a
/// background job has done before its write would be thrown away.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    attempts: u32,
}

impl Patience {
    /// Waits, a little longer each time; `false` when it has been long enough.
    pub(crate) async fn wait(&mut self) -> bool {
        if self.attempts >= limits::STORE_BUSY_ATTEMPTS {
            return false;
        }
        let pause = limits::STORE_BUSY_PAUSE * 2_u32.saturating_pow(self.attempts);
        self.attempts += 1;
        tokio::time::sleep(pause.min(limits::STORE_BUSY_PAUSE_MOST)).await;
        true
    }
}

#[cfg(test)]
mod contract;
