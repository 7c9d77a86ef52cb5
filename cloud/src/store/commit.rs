//! Group commit: the writes that wait, and what one sync carries. Engines with a writer thread of their own share it.
//!
//! [`Committer::submit`] queues; the engine's thread takes a group ([`Committer::next_group`]), writes it, and has it answered
//! ([`Committer::answer`]).
//!
//! **Invariant:** groups are taken and answered in the order of submission, by one thread.
//! **Invariant:** a failed group fails what waits behind it and starts a new era.
//! **Invariant:** while the disk is known to be full, a write is refused before it is queued, and starts no new era.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use robustmq_common::disk::Disk;
use robustmq_common::limits;
use tokio::sync::Notify;

use super::write::QueuedWrite;
use super::{Era, PendingWrite, StoreError, StoreStats, WriteBatch, WriteOp};

/// The queue of one store's writer.
pub(super) struct Committer {
    /// Where the store lies.
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// What has to stay free on the disk.
    reserved_disk_bytes: AtomicU64,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for room in the queue.
    room: Notify,
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

    /// What the next synced write carries. Those that move values go by themselves.
    fn take_group(&mut self) -> Vec<QueuedWrite> {
        let mut bytes = 0;
        let mut group: Vec<QueuedWrite> = Vec::new();
        while let Some(write) = self.writes.front() {
            bytes += write.bytes;
            if let Some(first) = group.first()
                && (bytes > limits::STORE_GROUP_BYTES || first.is_guarded() || write.is_guarded())
            {
                break;
            }
            group.extend(self.writes.pop_front());
        }
        group
    }

    fn push(&mut self, write: QueuedWrite) {
        self.bytes += write.bytes;
        self.writes.push_back(write);
    }
}

impl Committer {
    pub(super) fn new(path: PathBuf, disk: Arc<dyn Disk>, reserved_disk_bytes: u64) -> Self {
        Self {
            path,
            disk,
            reserved_disk_bytes: AtomicU64::new(reserved_disk_bytes),
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_reserved_disk_bytes(&self, bytes: u64) {
        self.reserved_disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether writes are taken at all.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        self.lock().check_writable()
    }

    /// Whether the disk has room for `group`.
    pub(super) fn check_space(&self, group: &[QueuedWrite]) -> Result<(), StoreError> {
        self.check_free(group.iter().all(QueuedWrite::makes_room), 0)
    }

    /// Whether the disk has room for a write, of which what makes room may use half of the reserve, when `bytes` more are taken first.
    pub(super) fn check_free(&self, makes_room: bool, bytes: u64) -> Result<(), StoreError> {
        let reserved = self.reserved_disk_bytes.load(Ordering::Relaxed);
        let needed = if makes_room { reserved / 2 } else { reserved };
        // A file system that cannot say how much is free is asked by writing.
        let Some(free) = self.disk.free_bytes(&self.path) else { return Ok(()) };
        if free < needed + bytes {
            return Err(StoreError::NoSpace(format!(
                "{free} bytes are free in {}, {} have to stay free",
                self.path.display(),
                needed + bytes
            )));
        }
        Ok(())
    }

    /// The disk is full, or nearly so: all that can be given back is wanted.
    pub(super) fn is_short_of_room(&self) -> bool {
        let reserved = self.reserved_disk_bytes.load(Ordering::Relaxed);
        self.disk.free_bytes(&self.path).is_some_and(|free| free < 2 * reserved)
    }

    /// As [`super::Store::submit`].
    pub(super) fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError> {
        let mut queue = self.lock();
        queue.check_writable()?;
        if queue.bytes > limits::STORE_QUEUE_BYTES {
            return Err(StoreError::Busy { queued_bytes: queue.bytes });
        }
        if batch.era().is_some_and(|era| era != queue.era) {
            return Err(StoreError::StaleEra);
        }
        let (queued, pending) = batch.into_queued();
        if queue.stats.no_space.is_some() {
            // Queueing it only to fail would start a new era each time, and so keep every partition busy reading its state again.
            self.check_free(queued.makes_room(), 0)?;
        }
        queue.push(queued);
        drop(queue);
        self.work.notify_one();
        Ok(pending)
    }

    /// Queues puts that count only where the key's entry in the index is still the one named beside it. They go as a group of
    /// their own.
    pub(super) fn submit_guarded(
        &self,
        puts: Vec<WriteOp>,
        entries: Vec<Bytes>,
    ) -> Result<PendingWrite, StoreError> {
        let mut queue = self.lock();
        queue.check_writable()?;
        let (queued, pending) = QueuedWrite::guarded(puts, entries);
        queue.push(queued);
        drop(queue);
        self.work.notify_one();
        Ok(pending)
    }

    pub(super) fn era(&self) -> Era {
        self.lock().era
    }

    /// As [`super::Store::ready`].
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let queue = self.lock();
                queue.check_writable()?;
                if queue.bytes <= limits::STORE_QUEUE_BYTES {
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Refuses new writes; the writer ends when it has written what waits.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_all();
        self.room.notify_waiters();
    }

    pub(super) fn stats(&self) -> StoreStats {
        let queue = self.lock();
        StoreStats { queued_bytes: queue.bytes, ..queue.stats.clone() }
    }

    /// Waits for the next group; `None` when the store was closed and everything is written.
    pub(super) fn next_group(&self) -> Option<Vec<QueuedWrite>> {
        let mut queue = self.lock();
        while queue.writes.is_empty() {
            if queue.closing {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(queue.take_group())
    }

    /// Settles a group, and on failure what waits behind it.
    pub(super) fn answer(&self, mut group: Vec<QueuedWrite>, outcome: &Result<(), StoreError>) {
        {
            let mut queue = self.lock();
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
}
