//! The engine on object storage: SlateDB, an LSM tree whose log and tables are objects. For brokers that keep nothing themselves.
//!
//! A group of writes is one object (one PUT); what is acknowledged is durable in the bucket. Opening the store fences whoever had it
//! open: SlateDB's log is numbered, each object is put only if its number is free, and the newcomer takes the next number first.
//! Roles: `queue` (what waits), `writer` (the only task that writes), `ranges` (deleted ranges, which SlateDB does not know) with
//! `removal` (gives their space back), `cache`.
//!
//! **Invariant:** readers see a [`View`]: a snapshot of what was durable when it was made, and the ranges deleted by then.
//! **Invariant:** a fenced store, or one whose write failed in any other way than by waiting, never acknowledges again.
//! **Invariant:** while the object store does not answer, memory is bounded: by the queue, a group, and [`SlateSettings`].
//!
//! Deliberately absent: giving up a write. SlateDB repeats it for as long as it takes, and until then nobody can know whether it will
//! be durable. Why this and what it costs: `cloud/docs/object-store.md`.

use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use robustmq_common::chain::chain;
use robustmq_common::limits;
use slatedb::config::{DurabilityLevel, ReadOptions, ScanOptions};
use slatedb::{Db, DbIterator, DbSnapshot};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Era, PendingWrite, ScanLimit, ScanPage, Store, StoreError, StoreStats, WriteBatch};

mod cache;
mod open;
mod queue;
mod ranges;
mod removal;
mod writer;

use queue::WriteQueue;
use ranges::DeletedRanges;

/// What may be set of a store on object storage. The defaults are those of [`limits`].
#[derive(Debug, Clone)]
pub struct SlateSettings {
    /// The least time between two groups. `1 / flush_interval` PUTs a second are made while writes keep coming, none while they do not.
    pub flush_interval: Duration,
    /// How long a group may be on its way before new writes are refused.
    pub stall: Duration,
    /// How long a read may take.
    pub read: Duration,
    /// The size at which what was written becomes a table.
    pub table_bytes: usize,
    /// What may be in memory because tables are not written yet.
    pub unflushed_bytes: usize,
    /// The cache of blocks.
    pub cache_bytes: usize,
}

impl Default for SlateSettings {
    fn default() -> Self {
        Self {
            flush_interval: limits::object::FLUSH_INTERVAL,
            stall: limits::object::STALL,
            read: limits::object::READ,
            table_bytes: limits::object::TABLE_BYTES,
            unflushed_bytes: limits::object::UNFLUSHED_BYTES,
            cache_bytes: limits::object::CACHE_BYTES,
        }
    }
}

/// A store under a path of an object store. Whoever opens it last has it.
pub struct SlateStore {
    db: Db,
    queue: Arc<WriteQueue>,
    published: Arc<Published>,
    reads: Semaphore,
    read_time: Duration,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// SlateDB's tasks and the writer, so that they take no turn from those who serve clients. Last: it ends them.
    _runtime: OwnRuntime,
}

/// What readers see.
struct View {
    snapshot: Arc<DbSnapshot>,
    deleted: Arc<DeletedRanges>,
}

/// The newest [`View`]; none once closed.
#[derive(Default)]
struct Published(RwLock<Option<Arc<View>>>);

impl Published {
    fn view(&self) -> Option<Arc<View>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has no effect once it is closed.
    fn publish(&self, view: View) {
        let mut newest = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if newest.is_some() {
            *newest = Some(Arc::new(view));
        }
    }

    fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Ends its tasks when it is dropped, without waiting for them.
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn read_failed(error: &slatedb::Error) -> StoreError {
    StoreError::Read(chain(error))
}

impl View {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = ranges::data_key(key);
        let options = ReadOptions::new().with_durability_filter(DurabilityLevel::Remote);
        let row = self.snapshot.get_key_value_with_options(&key, &options).await;
        let row = row.map_err(|error| read_failed(&error))?;
        let alive = row.filter(|row| !self.deleted.hides(&key, row.seq));
        Ok(alive.map(|row| detached(row.value)))
    }

    /// Rows of a range of kept keys, the dead ones too.
    async fn rows(&self, range: &Range<Bytes>, bytes: usize) -> Result<DbIterator, StoreError> {
        let options = ScanOptions::new()
            .with_durability_filter(DurabilityLevel::Remote)
            .with_read_ahead_bytes(bytes.clamp(1, limits::object::READ_AHEAD_BYTES))
            .with_max_fetch_tasks(2)
            .with_cache_blocks(true);
        let rows = self.snapshot.scan_with_options(range.clone(), &options).await;
        rows.map_err(|error| read_failed(&error))
    }

    async fn scan(&self, range: &Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
        let mut page = ScanPage::default();
        if range.start >= range.end {
            return Ok(page);
        }
        let kept = ranges::data_key(&range.start)..ranges::data_key(&range.end);
        let ahead = if limit.items == 1 { 1 } else { limit.bytes };
        let mut rows = self.rows(&kept, ahead).await?;
        let mut bytes = 0;
        while let Some(row) = rows.next().await.map_err(|error| read_failed(&error))? {
            if self.deleted.hides(&row.key, row.seq) {
                continue;
            }
            let key = ranges::told_key(&row.key);
            bytes += key.len() + row.value.len();
            let full = page.items.len() >= limit.items || bytes > limit.bytes;
            if full && !page.items.is_empty() {
                page.resume = Some(key);
                break;
            }
            page.items.push((key, detached(row.value)));
        }
        Ok(page)
    }
}

/// Values are parts of the blocks that they were read with.
fn detached(value: Bytes) -> Bytes {
    if value.len() <= limits::object::COPIED_VALUE_BYTES {
        return Bytes::copy_from_slice(&value);
    }
    value
}

impl SlateStore {
    /// Runs a read within its time.
    async fn read<T>(
        &self,
        read: impl AsyncFnOnce(&View) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let timed = async {
            let _permit = self.reads.acquire().await.map_err(|_| StoreError::Closed)?;
            let view = self.published.view().ok_or(StoreError::Closed)?;
            read(&view).await
        };
        let outcome = tokio::time::timeout(self.read_time, timed).await;
        outcome.unwrap_or_else(|_| {
            let seconds = self.read_time.as_secs();
            Err(StoreError::Read(format!("the object store did not answer within {seconds} s")))
        })
    }
}

#[async_trait]
impl Store for SlateStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(async |view| view.get(key).await).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.read(async |view| {
            let mut values = Vec::with_capacity(keys.len());
            for some in keys.chunks(limits::object::GETS_AT_ONCE) {
                values.extend(try_join_all(some.iter().map(|key| view.get(key))).await?);
            }
            Ok(values)
        })
        .await
    }

    async fn scan(&self, range: Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
        self.read(async |view| view.scan(&range, limit).await).await
    }

    fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError> {
        self.queue.submit(batch)
    }

    fn era(&self) -> Era {
        self.queue.era()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.queue.ready().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.queue.close();
        self.published.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut writer) = writer else { return Ok(()) };
        let Some(written) = within_close(&mut writer).await else {
            // Its writes stay unanswered, and what became of them is known at the next start.
            writer.abort();
            let reason = "it did not take the last writes before the end".to_owned();
            return Err(StoreError::Unavailable(reason));
        };
        written
            .map_err(|error| StoreError::Poisoned(format!("the writer ended early: {error}")))?;
        let closed = within_close(self.db.close()).await;
        if let Some(reason) = self.queue.stats().poisoned {
            return Err(StoreError::Poisoned(reason));
        }
        // What is answered is durable without a clean end; the next start has more to replay.
        if let Some(Err(error)) = closed {
            tracing::warn!(error = chain(&error), "the store did not end cleanly");
        }
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let tables = self.db.manifest().all_sst_views().map(|table| table.estimate_size()).sum();
        StoreStats { engine: "slatedb", disk_bytes: tables, ..self.queue.stats() }
    }
}

async fn within_close<T>(step: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limits::object::CLOSE, step).await.ok()
}

impl Drop for SlateStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests;
