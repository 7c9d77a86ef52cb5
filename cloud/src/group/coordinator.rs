//! All groups: holds the answers that wait, drives timers, writes through the store.
//!
//! A group is loaded when it is first asked for and dropped when it has no members. Each is guarded by its own lock,
//! held across the submission of a write, never across its waiting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::machine::{
    Caller, Event, Group, GroupError, Join, JoinRefused, Joined, Snapshot, State, Sync, Synced,
    Ticket, Timing,
};
use super::shared::coordinator::SharedGroups;
use super::shared::is_shared;
use super::shared::pools::PoolError;
use super::stored::{CommittedOffset, StoredError, decode_group, encode_group};
use super::timers::Timers;
use crate::store::keys::{Family, group as keys};
use crate::store::{PendingWrite, ScanLimit, Store, StoreError, WriteBatch};

mod expiry;
mod listing;
mod offsets;
mod timers;

pub use self::listing::{Described, Listed};

/// Why the coordinator refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// The group itself refuses.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The group id is empty, too long or reserved.
    #[error("group id {group:?} is not valid: {reason}")]
    InvalidGroupId {
        /// The id.
        group: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// There is no such group.
    #[error("group {group:?} does not exist")]
    NotFound {
        /// The id.
        group: String,
    },
    /// More groups are active than the broker coordinates.
    #[error("{limit} groups are active, which is the limit", limit = limits::GROUPS)]
    TooManyGroups,
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored of the group cannot be read.
    #[error("what is stored of group {group:?} cannot be read: {reason}")]
    Damaged {
        /// The id.
        group: String,
        /// What is wrong.
        reason: StoredError,
    },
    /// Whoever asks may be a member of a shared group: it has to ask again once its heartbeat has said so.
    #[error("it is not known yet whether a member of group {group:?} asks: ask again")]
    Unclear {
        /// The group.
        group: String,
    },
    /// The broker is going down.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// A shared group's pool refuses.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// One commit of one partition.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which topic.
    pub topic: TopicId,
    /// Which partition.
    pub partition: PartitionIndex,
    /// The next offset to read.
    pub offset: i64,
    /// The epoch of the record before it; -1 for unknown.
    pub leader_epoch: i32,
    /// The client's note.
    pub metadata: String,
}

type Waiters = HashMap<Ticket, Waiter>;

enum Waiter {
    Join(oneshot::Sender<Result<Joined, JoinRefused>>),
    Sync(oneshot::Sender<Result<Synced, GroupError>>),
}

/// A group in memory.
struct Active {
    group: Group,
    waiters: Waiters,
    /// Its metadata is in the store.
    is_stored: bool,
    /// When it was last stored, in milliseconds since 1970.
    changed_ms: i64,
    /// Writes on their way: until they have ended the store is behind the group, which must not be loaded from there.
    writing: usize,
    /// What the members take of memory, as of the last JoinGroup or SyncGroup.
    bytes: usize,
}

#[derive(Default)]
struct Slot {
    inner: tokio::sync::Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    active: Option<Active>,
    /// The entry in the timers.
    due: Option<Instant>,
    /// What the group takes of [`limits::GROUPS_BYTES`].
    charged_bytes: usize,
    /// The slot left the map; look the group up again.
    retired: bool,
}

/// The coordinator of all groups of this broker. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    timing: Timing,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    timers: Mutex<Timers<String>>,
    tickets: AtomicU64,
    /// What the members of all groups take of memory.
    bytes: AtomicUsize,
    /// Who is in `$shared/` groups, for listings and so that nothing is taken from under them.
    shared_groups: OnceLock<SharedGroups>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A coordinator over `store`. Its timers run until `shutdown`.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, timing: Timing, shutdown: CancellationToken) -> Self {
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            store,
            timing,
            slots: Mutex::default(),
            timers: Mutex::default(),
            tickets: AtomicU64::new(1),
            bytes: AtomicUsize::new(0),
            shared_groups: OnceLock::new(),
            shutdown,
            tasks,
        });
        let coordinator = Self { shared };
        let timers = coordinator.clone();
        coordinator.shared.tasks.spawn(async move { timers.run_timers().await });
        coordinator
    }

    /// Has `shared_groups` among what is listed, described and removed.
    #[must_use]
    pub fn with_shared(self, shared_groups: SharedGroups) -> Self {
        // A second one would be a mistake of the composition root.
        let _ = self.shared.shared_groups.set(shared_groups);
        self
    }

    /// The groups that share records, if there are any.
    #[must_use]
    pub fn sharing(&self) -> Option<&SharedGroups> {
        self.shared.shared_groups.get()
    }

    /// The shared groups, if `id` is the id of one, or of a share group that has members.
    fn shared_group(&self, id: &str) -> Option<&SharedGroups> {
        let shared = self.shared.shared_groups.get();
        shared.filter(|shared| is_shared(id) || shared.share().is_active(id))
    }

    /// Whether a shared group has members.
    fn is_in_use(&self, id: &str) -> bool {
        self.shared_group(id).is_some_and(|shared| shared.is_active(id))
    }

    /// Waits until the timers and all writes that were begun have ended; `shutdown` must have been told.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// JoinGroup: waits for the rebalance.
    ///
    /// # Errors
    /// [`CoordinatorError`]; the member id to answer with comes along.
    pub async fn join(&self, id: &str, join: Join) -> Result<Joined, (CoordinatorError, String)> {
        let member_id = join.member_id.clone();
        let failed = |error: CoordinatorError| (error, member_id.clone());
        check_id(id).map_err(failed)?;
        if self.shared.bytes.load(Ordering::Relaxed) > limits::GROUPS_BYTES {
            return Err(failed(GroupError::MaxSizeReached.into()));
        }
        let (sender, answer) = oneshot::channel();
        let ticket = self.ticket();
        self.with(id, |active, now| {
            active.waiters.insert(ticket, Waiter::Join(sender));
            active.group.join(now, ticket, &join);
            active.bytes = active.group.bytes();
        })
        .await
        .map_err(failed)?;
        match self.wait(answer).await.map_err(failed)? {
            Ok(joined) => Ok(joined),
            Err(refused) => Err((refused.error.into(), refused.member_id)),
        }
    }

    /// SyncGroup: waits for the leader, and for the generation to be durable.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn sync(&self, id: &str, sync: Sync) -> Result<Synced, CoordinatorError> {
        check_id(id)?;
        let (sender, answer) = oneshot::channel();
        let ticket = self.ticket();
        self.with(id, |active, now| {
            active.waiters.insert(ticket, Waiter::Sync(sender));
            active.group.sync(now, ticket, sync);
            active.bytes = active.group.bytes();
        })
        .await?;
        Ok(self.wait(answer).await??)
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn heartbeat(&self, id: &str, caller: &Caller) -> Result<(), CoordinatorError> {
        check_id(id)?;
        Ok(self.with(id, |active, now| active.group.heartbeat(now, caller)).await??)
    }

    /// LeaveGroup for one member, by its id or its instance id.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn leave(
        &self,
        id: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), CoordinatorError> {
        check_id(id)?;
        Ok(self.with(id, |active, now| active.group.leave(now, member_id, instance_id)).await??)
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.shared.tickets.fetch_add(1, Ordering::Relaxed))
    }

    async fn wait<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, CoordinatorError> {
        tokio::select! {
            answer = answer => answer.map_err(|_| CoordinatorError::ShuttingDown),
            () = self.shared.shutdown.cancelled() => Err(CoordinatorError::ShuttingDown),
        }
    }

    fn slot(&self, id: &str) -> Result<Arc<Slot>, CoordinatorError> {
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(id) {
            return Ok(slot.clone());
        }
        if slots.len() >= limits::GROUPS {
            return Err(CoordinatorError::TooManyGroups);
        }
        let slot = Arc::new(Slot::default());
        slots.insert(id.to_owned(), slot.clone());
        Ok(slot)
    }

    /// Runs `act` on the group, loading it if need be, and carries out what it asks for.
    async fn with<T>(
        &self,
        id: &str,
        act: impl FnOnce(&mut Active, Instant) -> T,
    ) -> Result<T, CoordinatorError> {
        loop {
            let slot = self.slot(id)?;
            let mut state = slot.inner.lock().await;
            if state.retired {
                continue;
            }
            if state.active.is_none() {
                match self.load(id).await {
                    Ok(active) => state.active = Some(active),
                    Err(error) => {
                        self.retire(id, &mut state);
                        return Err(error);
                    }
                }
            }
            let Some(active) = &mut state.active else { continue };
            let outcome = act(active, now());
            self.carry_out(id, active);
            self.settle(id, &mut state);
            return Ok(outcome);
        }
    }

    async fn load(&self, id: &str) -> Result<Active, CoordinatorError> {
        let timing = self.shared.timing;
        let Some(value) = self.shared.store.get(&keys::metadata_key(id)).await? else {
            let group = Group::new(timing);
            return Ok(Active {
                group,
                waiters: Waiters::new(),
                is_stored: false,
                changed_ms: 0,
                writing: 0,
                bytes: 0,
            });
        };
        let (snapshot, changed_ms) = decode_group(value)
            .map_err(|reason| CoordinatorError::Damaged { group: id.to_owned(), reason })?;
        let group = Group::restore(timing, snapshot, now());
        Ok(Active {
            group,
            waiters: Waiters::new(),
            is_stored: true,
            changed_ms,
            writing: 0,
            bytes: 0,
        })
    }

    /// Answers who can be answered and begins the writes that were asked for.
    fn carry_out(&self, id: &str, active: &mut Active) {
        for event in active.group.take_events() {
            match event {
                Event::Joined(ticket, answer) => {
                    if let Some(Waiter::Join(waiter)) = active.waiters.remove(&ticket) {
                        // Whoever waited may have gone with its connection.
                        let _ = waiter.send(answer);
                    }
                }
                Event::Synced(ticket, answer) => {
                    if let Some(Waiter::Sync(waiter)) = active.waiters.remove(&ticket) {
                        let _ = waiter.send(answer);
                    }
                }
                Event::Store { generation } => {
                    let coordinator = self.clone();
                    let id = id.to_owned();
                    active.writing += 1;
                    self.shared
                        .tasks
                        .spawn(async move { coordinator.persist(id, generation).await });
                }
            }
        }
    }

    /// Stores the group as it is now, if it is in a state that may be stored, and reports the outcome to it.
    async fn persist(&self, id: String, generation: i32) {
        let mut outcome = self.store_group(&id).await;
        while matches!(outcome, Err(CoordinatorError::Store(StoreError::Busy { .. }))) {
            outcome = match self.shared.store.ready().await {
                Ok(()) => self.store_group(&id).await,
                Err(error) => Err(error.into()),
            };
        }
        if let Err(error) = &outcome {
            tracing::error!(group = %id, %error, "the group could not be stored");
        }
        let durable = outcome.is_ok();
        let reported = self.with(&id, |active, now| {
            active.writing = active.writing.saturating_sub(1);
            active.group.stored(now, generation, durable);
        });
        if let Err(error) = reported.await {
            tracing::warn!(group = %id, %error, "the group's write could not be reported to it");
        }
    }

    async fn store_group(&self, id: &str) -> Result<(), CoordinatorError> {
        let pending = self.with(id, |active, _| self.submit_group(id, active)).await??;
        match pending {
            Some(pending) => Ok(pending.await?),
            None => Ok(()),
        }
    }

    /// What members have agreed on so far is no generation yet, and must not replace the last one in the store.
    fn submit_group(
        &self,
        id: &str,
        active: &mut Active,
    ) -> Result<Option<PendingWrite>, CoordinatorError> {
        match active.group.state() {
            State::PreparingRebalance { .. } => return Ok(None),
            State::CompletingRebalance { storing: false, .. } => return Ok(None),
            State::CompletingRebalance { storing: true, .. } | State::Stable | State::Empty => {}
        }
        let mut batch = WriteBatch::new();
        self.put_group(id, active, &mut batch);
        Ok(Some(self.shared.store.submit(batch)?))
    }

    fn put_group(&self, id: &str, active: &mut Active, batch: &mut WriteBatch) {
        active.changed_ms = wall_ms();
        active.is_stored = true;
        let value = encode_group(&active.group.snapshot(), active.changed_ms);
        batch.put(keys::metadata_key(id), value);
    }

    /// Sets the group's timer, or drops the group when nothing is lost with it.
    fn settle(&self, id: &str, state: &mut SlotState) {
        let Some(active) = &state.active else { return };
        if active.group.is_idle() && active.waiters.is_empty() && active.writing == 0 {
            self.retire(id, state);
            return;
        }
        let (due, bytes) = (active.group.next_deadline(), active.bytes);
        self.recharge(state, bytes);
        self.set_timer(id, state, due);
    }

    fn recharge(&self, state: &mut SlotState, bytes: usize) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.bytes.fetch_sub(state.charged_bytes, Ordering::Relaxed);
        state.charged_bytes = bytes;
    }

    fn retire(&self, id: &str, state: &mut SlotState) {
        self.set_timer(id, state, None);
        self.recharge(state, 0);
        state.active = None;
        state.retired = true;
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Tokio's clock, so that a simulation can drive it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Checks a group id.
fn check_id(id: &str) -> Result<(), CoordinatorError> {
    let invalid = |reason| CoordinatorError::InvalidGroupId { group: id.to_owned(), reason };
    if id.is_empty() {
        return Err(invalid("it is empty"));
    }
    if id.len() > limits::GROUP_ID_BYTES {
        return Err(invalid("it is too long"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
