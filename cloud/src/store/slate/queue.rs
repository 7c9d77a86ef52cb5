//! The writes that wait for the writer, which is a task here.
//!
//! **Invariant:** writes are taken and answered in the order of submission.
//! **Invariant:** a failed group fails what waits behind it and starts a new era.
//! **Invariant:** while the object store does not take a group, nothing new is queued once it has had its time, and nothing of what is
//! on its way is answered: it may yet become durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use robustmq_common::limits;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::objects::Health;
use crate::store::write::QueuedWrite;
use crate::store::{Era, PendingWrite, StoreError, StoreStats, WriteBatch};

pub(super) struct WriteQueue {
    /// The store's name, for the log.
    name: String,
    health: Arc<Health>,
    stall: Duration,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Notify,
    /// Wakes those who wait for room.
    room: Notify,
}

#[derive(Default)]
struct State {
    writes: VecDeque<QueuedWrite>,
    /// Of the queue, and of the group that is being written.
    bytes: usize,
    era: Era,
    closing: bool,
    /// When the group that is being written was begun.
    begun: Option<Instant>,
    /// It was told that the object store does not answer.
    stall_logged: bool,
    stats: StoreStats,
}

impl State {
    fn check_writable(&self) -> Result<(), StoreError> {
        if let Some(reason) = &self.stats.poisoned {
            return Err(StoreError::Poisoned(reason.clone()));
        }
        if self.closing { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl WriteQueue {
    pub(super) fn new(name: String, health: Arc<Health>, stall: Duration) -> Self {
        Self {
            name,
            health,
            stall,
            state: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing new is taken, if a group has been on its way for too long.
    fn stalled(&self, state: &mut State) -> Option<String> {
        let waited = state.begun?.elapsed();
        if waited < self.stall {
            return None;
        }
        let trouble = self.health.trouble();
        let reason =
            format!("{} has not taken a write for {} s: {trouble}", self.name, waited.as_secs());
        if !state.stall_logged {
            state.stall_logged = true;
            tracing::warn!(reason, "the store takes no writes until the object store does");
        }
        Some(reason)
    }

    /// As [`crate::store::Store::submit`].
    pub(super) fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError> {
        let mut state = self.lock();
        state.check_writable()?;
        if let Some(reason) = self.stalled(&mut state) {
            return Err(StoreError::Unavailable(reason));
        }
        if state.bytes > limits::STORE_QUEUE_BYTES {
            return Err(StoreError::Busy { queued_bytes: state.bytes });
        }
        if batch.era().is_some_and(|era| era != state.era) {
            return Err(StoreError::StaleEra);
        }
        let (queued, pending) = batch.into_queued();
        state.bytes += queued.bytes;
        state.writes.push_back(queued);
        drop(state);
        self.work.notify_one();
        Ok(pending)
    }

    pub(super) fn era(&self) -> Era {
        self.lock().era
    }

    /// As [`crate::store::Store::ready`].
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let mut state = self.lock();
                state.check_writable()?;
                if let Some(reason) = self.stalled(&mut state) {
                    return Err(StoreError::Unavailable(reason));
                }
                if state.bytes <= limits::STORE_QUEUE_BYTES {
                    return Ok(());
                }
            }
            // A stall wakes nobody.
            let _ = tokio::time::timeout(self.stall, room).await;
        }
    }

    /// Refuses new writes; the writer ends when it has written what waits.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }

    pub(super) fn stats(&self) -> StoreStats {
        let mut state = self.lock();
        let unavailable = self.stalled(&mut state);
        StoreStats { queued_bytes: state.bytes, unavailable, ..state.stats.clone() }
    }

    /// Waits for a write, or for the end. Gives nothing away.
    pub(super) async fn work(&self) {
        loop {
            {
                let state = self.lock();
                if state.closing || !state.writes.is_empty() {
                    return;
                }
            }
            self.work.notified().await;
        }
    }

    /// Whether it was closed and has nothing left.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.closing && state.writes.is_empty()
    }

    /// Whether it was closed.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Takes what the next batch carries, which may be nothing, and begins to measure how long that takes.
    pub(super) fn begin_group(&self) -> Vec<QueuedWrite> {
        let mut state = self.lock();
        let mut bytes = 0;
        let mut group: Vec<QueuedWrite> = Vec::new();
        while let Some(write) = state.writes.front() {
            bytes += write.bytes;
            if !group.is_empty() && bytes > limits::STORE_GROUP_BYTES {
                break;
            }
            group.extend(state.writes.pop_front());
        }
        state.begun = Some(Instant::now());
        group
    }

    /// Settles a group, and on failure what waits behind it.
    pub(super) fn answer(&self, mut group: Vec<QueuedWrite>, outcome: &Result<(), StoreError>) {
        {
            let mut state = self.lock();
            state.begun = None;
            if std::mem::take(&mut state.stall_logged) && outcome.is_ok() {
                tracing::info!(store = self.name, "the store takes writes again");
            }
            if let Err(error) = outcome {
                group.extend(state.writes.drain(..));
                state.era.0 += 1;
                state.stats.failed_writes += group.len() as u64;
                if let StoreError::Poisoned(reason) = error {
                    tracing::error!(store = self.name, reason, "the store takes no more writes");
                    state.stats.poisoned = Some(reason.clone());
                }
            }
            let bytes: usize = group.iter().map(|write| write.bytes).sum();
            state.bytes = state.bytes.saturating_sub(bytes);
            if outcome.is_ok() && !group.is_empty() {
                state.stats.writes += group.len() as u64;
                state.stats.groups += 1;
                state.stats.written_bytes += bytes as u64;
            }
        }
        self.room.notify_waiters();
        for write in group {
            write.answer(outcome);
        }
    }
}
