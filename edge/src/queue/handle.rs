//! The queue as its users hold it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::limits::{QUEUE_PENDING_BYTES, QUEUE_REPLAY_BYTES, QUEUE_REPLAY_RECORDS};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::clock::{Clock, Stamp, SystemClock};
use super::disk::{Disk, RealDisk};
use super::errors::{AppendError, OpenError, QueueError};
use super::read::{self, ReadFor, ReadLimits};
use super::recover;
use super::state::{Issued, Shared, State};
use super::ticket::{PendingAppend, Ticket, Wait};
use super::types::{
    Append, Entry, LaneStatus, Position, QueueSettings, ReadBatch, Recovered, StoreId,
};
use super::writer::Writer;

/// A handle to an open queue; clones share it. When the last one is dropped, what was appended is written and the queue
/// is closed.
#[derive(Clone)]
pub struct Queue {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Arc<Engine>,
}

/// How disk work is done.
pub(super) enum Engine {
    /// By a thread of its own, so that appends gather while a sync is in flight.
    Thread { shared: Arc<Shared>, thread: Mutex<Option<JoinHandle<()>>> },
    /// By the caller, before the call returns: for simulations that have to be repeatable.
    Inline { writer: Mutex<Option<Writer>> },
}

impl Queue {
    /// Opens the queue in `dir`, made if need be, and recovers from whatever a crash left.
    ///
    /// # Errors
    /// [`OpenError`]: in use, a setting that cannot work, a later format, or the disk refused.
    pub fn open(dir: &Path, settings: QueueSettings) -> Result<(Self, Recovered), OpenError> {
        Self::open_on(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir, settings)
    }

    /// As [`open`](Self::open), on another disk or clock.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        settings: QueueSettings,
    ) -> Result<(Self, Recovered), OpenError> {
        let (shared, writer, recovered) = recover::open(disk, clock, dir, settings)?;
        let thread_shared = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run(&thread_shared))
            .map_err(|source| OpenError::Disk {
                action: "start the writer of",
                path: dir.to_owned(),
                source,
            })?;
        let engine =
            Engine::Thread { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok((Self { shared, engine: Arc::new(engine) }, recovered))
    }

    /// As [`open_on`](Self::open_on), without a thread: every call does its disk work before it returns, so that a
    /// simulation with a fixed seed always takes the same course.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_inline(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        settings: QueueSettings,
    ) -> Result<(Self, Recovered), OpenError> {
        let (shared, writer, recovered) = recover::open(disk, clock, dir, settings)?;
        let engine = Engine::Inline { writer: Mutex::new(Some(writer)) };
        Ok((Self { shared, engine: Arc::new(engine) }, recovered))
    }

    /// Gives the record its place in its lane, in the order of the calls, and returns at once. The future resolves when
    /// the sync that covers it is done.
    ///
    /// # Errors
    /// [`AppendError`], here or from the future: the record is not in the queue and must not be acknowledged.
    pub fn append(&self, append: &Append) -> Result<PendingAppend, AppendError> {
        let now = self.shared.clock.now();
        let stamp = now.stamp();
        let salt = self.shared.salt(append.lane);
        let result = {
            let mut state = self.shared.lock();
            state.identity_dirty |= state.boots.learn(&now);
            state.append(append, &stamp, &self.shared.settings, salt)
        };
        if !matches!(result, Err(AppendError::Busy { .. } | AppendError::Poisoned { .. })) {
            self.wake();
        }
        result
    }

    /// Waits until less than half of the memory set aside for appends is in use.
    pub async fn room(&self) {
        loop {
            let notified = self.shared.room.notified();
            {
                let state = self.shared.lock();
                if state.pending_bytes < QUEUE_PENDING_BYTES / 2 || state.poisoned.is_some() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// The last synced sequence of a lane, 0 if none, and a way to wait for the next one.
    ///
    /// # Errors
    /// [`QueueError::NoLane`].
    pub fn synced(&self, lane: LaneId) -> Result<watch::Receiver<EdgeSeq>, QueueError> {
        Ok(self.shared.lock().lane(lane)?.watermark.subscribe())
    }

    /// An account of what follows from `from` on, up to the synced watermark: about `max_bytes` and at most `max_records`
    /// records, but at least one if there is one. Starts after the acknowledged sequence if `from` lies before that.
    ///
    /// # Errors
    /// [`QueueError::Disk`] may pass: try again.
    pub async fn read(
        &self,
        lane: LaneId,
        from: EdgeSeq,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<ReadBatch, QueueError> {
        let limits = ReadLimits { max_bytes, max_records };
        self.blocking(move |shared| read::read(shared, lane, from, limits, ReadFor::Uplink)).await
    }

    /// The cloud has everything up to `through`. Durable within `cursor_delay`; whole segments are then removed. Less than
    /// what was acknowledged before changes nothing.
    ///
    /// # Errors
    /// [`QueueError::AheadOfQueue`] if that was never synced here; nothing changes.
    pub fn acknowledge(&self, lane: LaneId, through: EdgeSeq) -> Result<(), QueueError> {
        let uptime = self.shared.clock.now().uptime;
        {
            let mut state = self.shared.lock();
            let found = state.lane_mut(lane)?;
            if through > found.synced {
                let synced = found.synced.0;
                return Err(QueueError::AheadOfQueue { lane, through: through.0, synced });
            }
            match found.marked_digest(EdgeSeq(through.0.saturating_add(1))) {
                Some(digest) => found.set_acknowledged(through, digest, uptime),
                None if through > found.cursor.acknowledged => {
                    found.acknowledge_wanted = found.acknowledge_wanted.max(Some(through));
                }
                None => {}
            }
        }
        self.wake();
        Ok(())
    }

    /// What the edge presents to the cloud.
    ///
    /// # Errors
    /// [`QueueError::NoLane`].
    pub fn position(&self, lane: LaneId) -> Result<Position, QueueError> {
        let state = self.shared.lock();
        let found = state.lane(lane)?;
        Ok(Position {
            store: self.shared.store,
            incarnation: state.incarnation,
            lane,
            next_seq: EdgeSeq(found.synced.0.saturating_add(1)),
            synced_through: found.synced,
            synced_digest: found.synced_digest,
            acknowledged_through: found.cursor.acknowledged,
            acknowledged_digest: found.cursor.digest,
        })
    }

    /// The lane's digest at a sequence: of the last record at or before it. `None` if it is not synced yet, or trimmed
    /// (the acknowledged sequence itself is always known) or dropped.
    ///
    /// # Errors
    /// [`QueueError::Disk`] may pass: try again.
    pub async fn digest_at(
        &self,
        lane: LaneId,
        seq: EdgeSeq,
    ) -> Result<Option<ChainDigest>, QueueError> {
        self.blocking(move |shared| read::digest_at(shared, lane, seq)).await
    }

    /// Stores what the cloud issued to this store; durable when it returns. Sequences go on as they were.
    ///
    /// # Errors
    /// [`QueueError::DiskFull`] (the incarnation is as it was: try again), [`QueueError::Poisoned`] or
    /// [`QueueError::Closed`].
    pub async fn set_incarnation(&self, incarnation: Incarnation) -> Result<(), QueueError> {
        let ticket = {
            let mut state = self.shared.lock();
            if state.closing {
                return Err(QueueError::Closed);
            }
            let stored = match state.issued.take() {
                // Two at once: the later one counts, and both wait for it.
                Some(former) => former.stored,
                None => Ticket::new(),
            };
            state.issued = Some(Issued { incarnation, stored: Arc::clone(&stored) });
            stored
        };
        self.wake();
        Ok(Wait::new(ticket).await?)
    }

    /// What the cloud issued to this store, once it is durable.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.shared.lock().incarnation
    }

    /// The records of a lane after `after` that are still there, in order, expired ones too: what the gateway goes through
    /// at start-up. Reads from disk as it is iterated.
    #[must_use]
    pub fn replay(&self, lane: LaneId, after: EdgeSeq) -> Replay {
        Replay {
            shared: Arc::clone(&self.shared),
            lane,
            next: EdgeSeq(after.0.saturating_add(1)),
            ready: VecDeque::new(),
            done: false,
        }
    }

    /// The gateway's own state has everything up to `through` (with `keep_until_reflected`: segments may go then).
    pub fn reflected(&self, lane: LaneId, through: EdgeSeq) {
        if let Ok(lane) = self.shared.lock().lane_mut(lane) {
            lane.reflected = lane.reflected.max(through);
        }
        if self.shared.settings.keep_until_reflected {
            self.wake();
        }
    }

    /// When a record was received, in milliseconds since 1970; `None` while nobody knows.
    #[must_use]
    pub fn resolve(&self, stamp: &Stamp) -> Option<i64> {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        state.identity_dirty |= state.boots.learn(&now);
        stamp.resolve(&state.boots)
    }

    /// This directory's identity.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.shared.store
    }

    /// All lanes: those that take appends and those that are only drained.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneId> {
        self.shared.lock().lanes.iter().map(|lane| lane.id).collect()
    }

    /// Why the queue refuses everything; `None` as long as it does not.
    #[must_use]
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.shared.lock().poisoned.clone()
    }

    /// Each lane, for status and metrics. Does not read from disk, except for the oldest record's age.
    pub async fn status(&self) -> Result<Vec<LaneStatus>, QueueError> {
        self.blocking(|shared| shared.lanes_status()).await
    }

    /// Returns when everything appended and acknowledged up to now is durable, cursors included.
    ///
    /// # Errors
    /// [`QueueError::DiskFull`] (a cursor found no space; it is tried again), [`QueueError::Poisoned`] or
    /// [`QueueError::Closed`].
    pub async fn flush(&self) -> Result<(), QueueError> {
        let ticket = {
            let mut state = self.shared.lock();
            if state.closing {
                return Err(QueueError::Closed);
            }
            Arc::clone(state.flush.get_or_insert_with(Ticket::new))
        };
        self.wake();
        Ok(Wait::new(ticket).await?)
    }

    /// Writes what is left, stores the cursors and closes the files. Appends are refused from now on, by other handles
    /// too.
    pub async fn close(&self) {
        let engine = Arc::clone(&self.engine);
        let shared = Arc::clone(&self.shared);
        // Fails only if the closing itself panicked, and then there is nothing left to close.
        let _ = spawn_blocking(move || engine.close(&shared)).await;
    }

    fn wake(&self) {
        self.engine.wake(&self.shared);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let shared = Arc::clone(&self.shared);
        if matches!(*self.engine, Engine::Inline { .. }) {
            return work(&shared);
        }
        spawn_blocking(move || work(&shared)).await.map_err(|_| QueueError::Closed)?
    }
}

impl Engine {
    fn wake(&self, shared: &Arc<Shared>) {
        match self {
            Self::Thread { .. } => shared.work.notify_one(),
            Self::Inline { writer } => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(writer) = writer.as_mut() {
                    writer.step(shared);
                }
            }
        }
    }

    pub(super) fn close(&self, shared: &Arc<Shared>) {
        shared.lock().closing = true;
        self.wake(shared);
        match self {
            Self::Thread { thread, .. } => {
                let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(Err(_)) = thread.map(JoinHandle::join) {
                    tracing::error!("the queue's writer ended unexpectedly");
                }
            }
            Self::Inline { writer } => {
                drop(writer.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Self::Thread { shared, .. } = self {
            let shared = Arc::clone(shared);
            self.close(&shared);
        }
    }
}

/// The records of a lane, one after the other. See [`Queue::replay`].
pub struct Replay {
    shared: Arc<Shared>,
    lane: LaneId,
    next: EdgeSeq,
    ready: VecDeque<Entry>,
    done: bool,
}

impl Iterator for Replay {
    type Item = Result<Entry, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.done {
                return None;
            }
            let limits =
                ReadLimits { max_bytes: QUEUE_REPLAY_BYTES, max_records: QUEUE_REPLAY_RECORDS };
            match read::read(&self.shared, self.lane, self.next, limits, ReadFor::Replay) {
                Ok(batch) => {
                    self.done = batch.is_empty();
                    self.next = batch.next;
                    self.ready = batch.entries.into();
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Shared {
    fn lanes_status(&self) -> Result<Vec<LaneStatus>, QueueError> {
        let lanes: Vec<LaneId> = self.lock().lanes.iter().map(|lane| lane.id).collect();
        lanes.into_iter().map(|lane| self.lane_status(lane)).collect()
    }

    fn lane_status(&self, id: LaneId) -> Result<LaneStatus, QueueError> {
        let oldest = read::oldest(self, id)?;
        let now = self.clock.now();
        let state: &State = &self.lock();
        let lane = state.lane(id)?;
        Ok(LaneStatus {
            lane: id,
            depth_records: lane.depth_records(),
            disk_bytes: lane.segments.iter().map(|segment| segment.len).sum(),
            pending_bytes: lane.group.bytes.len(),
            segments: lane.segments.len(),
            oldest: oldest.map(|stamp| stamp.age(&now, &state.boots)),
            drops: lane.cursor.drops,
            appended_records: lane.appended_records,
            syncs: lane.syncs,
        })
    }
}
