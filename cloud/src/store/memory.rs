//! The in-memory engine: for tests and simulation. It behaves as the engines on disk do, and can be told to hold writes
//! back, to fail, and to crash.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::limits;
use tokio::sync::Notify;

use super::write::QueuedWrite;
use super::{
    Era, PendingWrite, ScanLimit, ScanPage, Store, StoreError, StoreStats, WriteBatch, WriteOp,
};

/// An ordered map behind the [`Store`] seam. Nothing outlives the process.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Default)]
struct State {
    durable: BTreeMap<Bytes, Bytes>,
    queue: VecDeque<QueuedWrite>,
    queued_bytes: usize,
    /// Writes wait in the queue until they are let go.
    held: bool,
    /// Somebody is applying the queue, and will also apply what is added meanwhile.
    applying: bool,
    failures: VecDeque<StoreError>,
    /// The disk that is played is full.
    full: bool,
    /// It has nothing left but what is reserved for writes that make room.
    short: bool,
    closed: bool,
    /// So many submissions that follow find the queue full.
    busy: usize,
    /// Items that scans have returned.
    scanned: usize,
    stats: StoreStats,
    era: Era,
}

impl MemoryStore {
    /// An empty store that makes each write durable at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with_content(durable: BTreeMap<Bytes, Bytes>) -> Self {
        Self { state: Mutex::new(State { durable, ..State::default() }), room: Notify::new() }
    }

    /// From now on writes wait, as they do on a slow disk.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// Applies what waits, and from now on each write at once.
    pub fn release(&self) {
        self.lock().held = false;
        self.apply(usize::MAX);
    }

    /// Applies the `count` writes that have waited longest.
    pub fn apply_held(&self, count: usize) {
        self.apply(count);
    }

    /// Writes that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// Items that scans have returned so far.
    #[must_use]
    pub fn scanned(&self) -> usize {
        self.lock().scanned
    }

    /// The next write that is applied fails with `error`, and with it what waits behind it.
    /// [`StoreError::Poisoned`] ends all writing, as it does on disk.
    pub fn fail_next(&self, error: StoreError) {
        self.lock().failures.push_back(error);
    }

    /// The next `submissions` find the queue full, as when others were quicker.
    pub fn be_busy(&self, submissions: usize) {
        self.lock().busy = submissions;
    }

    /// Whether the disk is full from now on: writes then fail with [`StoreError::NoSpace`].
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether from now on the disk takes only what makes room: other writes fail with [`StoreError::NoSpace`].
    pub fn set_short_of_room(&self, short: bool) {
        self.lock().short = short;
    }

    /// Ends this store as a power cut would and returns what is found afterwards: what was durable, and of the writes that
    /// waited unanswered the first `survivors` (a disk may have got some of them). This store is closed, its waiting
    /// writes fail.
    pub fn crash(&self, survivors: usize) -> Self {
        let (content, lost) = {
            let mut state = self.lock();
            state.closed = true;
            let mut content = state.durable.clone();
            for write in state.queue.iter().take(survivors) {
                apply_ops(&mut content, &write.ops);
            }
            state.queued_bytes = 0;
            (content, std::mem::take(&mut state.queue))
        };
        for write in lost {
            write.answer(&Err(StoreError::Closed));
        }
        self.room.notify_waiters();
        Self::with_content(content)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Applies queued writes in order. Completions run without the lock, and one at a time.
    fn apply(&self, mut count: usize) {
        let mut state = self.lock();
        if state.applying {
            return;
        }
        state.applying = true;
        while count > 0 {
            let Some(write) = state.queue.pop_front() else { break };
            count -= 1;
            let makes_room = write.makes_room();
            let mut answered = vec![write];
            let outcome = match state.next_failure(makes_room) {
                Some(error) => {
                    answered.extend(state.queue.drain(..));
                    state.record_failure(&error, answered.len());
                    Err(error)
                }
                None => {
                    state.record_success(&answered);
                    Ok(())
                }
            };
            for write in &answered {
                state.queued_bytes = state.queued_bytes.saturating_sub(write.bytes);
            }
            drop(state);
            self.room.notify_waiters();
            for write in answered {
                write.answer(&outcome);
            }
            state = self.lock();
        }
        state.applying = false;
    }
}

impl State {
    fn next_failure(&mut self, makes_room: bool) -> Option<StoreError> {
        self.failures.pop_front().or_else(|| self.check_space(makes_room).err())
    }

    fn check_space(&self, makes_room: bool) -> Result<(), StoreError> {
        match self.full || (self.short && !makes_room) {
            true => Err(StoreError::NoSpace("0 bytes are free".to_owned())),
            false => Ok(()),
        }
    }

    fn record_failure(&mut self, error: &StoreError, writes: usize) {
        self.era.0 += 1;
        self.stats.failed_writes += writes as u64;
        match error {
            StoreError::Poisoned(reason) => self.stats.poisoned = Some(reason.clone()),
            StoreError::NoSpace(reason) => self.stats.no_space = Some(reason.clone()),
            _ => {}
        }
    }

    fn record_success(&mut self, writes: &[QueuedWrite]) {
        self.stats.no_space = None;
        for write in writes {
            apply_ops(&mut self.durable, &write.ops);
            self.stats.writes += 1;
            self.stats.groups += 1;
            self.stats.written_bytes += write.bytes as u64;
        }
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        match &self.stats.poisoned {
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    fn check_readable(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Closed) } else { Ok(()) }
    }
}

pub(super) fn apply_ops(content: &mut BTreeMap<Bytes, Bytes>, ops: &[WriteOp]) {
    for op in ops {
        match op {
            WriteOp::Put(key, value) => {
                content.insert(key.clone(), value.clone());
            }
            WriteOp::Delete(key) => {
                content.remove(key);
            }
            WriteOp::DeleteRange(range) if range.start < range.end => {
                let doomed: Vec<Bytes> =
                    content.range(range.clone()).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    content.remove(&key);
                }
            }
            WriteOp::DeleteRange(_) => {}
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let state = self.lock();
        state.check_readable()?;
        Ok(state.durable.get(key).cloned())
    }

    async fn scan(&self, range: Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
        let mut state = self.lock();
        state.check_readable()?;
        let mut page = ScanPage::default();
        if range.start >= range.end {
            return Ok(page);
        }
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        let mut bytes = 0;
        for (key, value) in state.durable.range::<Bytes, _>(bounds) {
            bytes += key.len() + value.len();
            let full = page.items.len() >= limit.items || bytes > limit.bytes;
            if full && !page.items.is_empty() {
                page.resume = Some(key.clone());
                break;
            }
            page.items.push((key.clone(), value.clone()));
        }
        state.scanned += page.items.len();
        Ok(page)
    }

    fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError> {
        let (pending, held) = {
            let mut state = self.lock();
            state.check_writable()?;
            let is_busy = state.busy > 0;
            state.busy = state.busy.saturating_sub(1);
            if is_busy || state.queued_bytes > limits::STORE_QUEUE_BYTES {
                return Err(StoreError::Busy { queued_bytes: state.queued_bytes });
            }
            if batch.era().is_some_and(|era| era != state.era) {
                return Err(StoreError::StaleEra);
            }
            let (queued, pending) = batch.into_queued();
            if state.stats.no_space.is_some() {
                state.check_space(queued.makes_room())?;
            }
            state.queued_bytes += queued.bytes;
            state.queue.push_back(queued);
            (pending, state.held)
        };
        if !held {
            self.apply(usize::MAX);
        }
        Ok(pending)
    }

    fn era(&self) -> Era {
        self.lock().era
    }

    async fn ready(&self) -> Result<(), StoreError> {
        loop {
            let notified = self.room.notified();
            {
                let state = self.lock();
                state.check_writable()?;
                if state.queued_bytes <= limits::STORE_QUEUE_BYTES {
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.apply(usize::MAX);
        self.lock().closed = true;
        self.room.notify_waiters();
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let state = self.lock();
        let content: usize = state.durable.iter().map(|(key, value)| key.len() + value.len()).sum();
        StoreStats {
            engine: "memory",
            queued_bytes: state.queued_bytes,
            disk_bytes: content as u64,
            ..state.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests;
