//! All pools of this broker: loading, durable acknowledgement, who may be given what.
//!
//! A pool lies where its partition does: it is the partition's leader that knows it, and the group's coordinator that asks. Every call
//! here may wait and may fail, though on one machine few do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::sync::{Notify, OnceCell};

use super::config::GroupConfig;
use super::cursor::{CursorOffset, Sequence, Token};
use super::dead_letter::DeadLetters;
use super::now;
use super::pool::{AcknowledgeError, Ledger, Pool};
use crate::entries::ConfigError;
use crate::log::{IdBlocks, Log, LogError};
use crate::store::keys::partition::PartitionKeys;
use crate::store::keys::system::IdKind;
use crate::store::{PendingWrite, Store, StoreError, WriteBatch};

mod configure;
mod replace;
mod share_members;
mod standing;
mod stored;

pub use self::share_members::SettleError;
pub use self::standing::{GroupStanding, Standing};

/// Why a pool refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The acknowledgement makes no sense.
    #[error(transparent)]
    Acknowledge(#[from] AcknowledgeError),
    /// The partition cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The group has members.
    #[error("the group has members on the partition")]
    InUse,
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl From<StoreError> for PoolError {
    fn from(error: StoreError) -> Self {
        Self::Log(LogError::Store(error))
    }
}

/// One group on one partition, shared by everybody who works on it.
pub struct SharedPool {
    group: String,
    keys: PartitionKeys,
    /// Whoever holds it is the next to be given something: it waits in the order in which members asked.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Something came back. Told to whoever has the turn.
    pub(super) returned: Notify,
    /// Fetches that wait for records.
    pub(super) waiting: AtomicUsize,
    config: Mutex<Arc<GroupConfig>>,
    state: OnceCell<Mutex<State>>,
}

pub(super) struct State {
    pub pool: Pool,
    /// Counts the acknowledgements that were news.
    version: u64,
    /// That which is durable.
    stored: u64,
    /// The pool is no longer in memory for anybody who joins: whoever holds it still writes nothing any more.
    is_retired: bool,
}

/// One member on one partition.
pub(super) struct Cursor {
    pub pool: Arc<SharedPool>,
    /// It acknowledged something, or is back: it may be given more.
    pub moved: Notify,
    pub is_suspended: AtomicBool,
    /// Its member has fetched since it was last told where it goes on.
    pub is_read: AtomicBool,
}

type PoolKey = (String, TopicId, PartitionIndex);
type CursorKey = (Token, TopicId, PartitionIndex);

#[derive(Default)]
struct Map {
    pools: HashMap<PoolKey, Arc<SharedPool>>,
    cursors: HashMap<CursorKey, Arc<Cursor>>,
    /// Those of members.
    tokens: HashSet<Token>,
    /// Members that have to join again.
    lost: HashSet<Token>,
    /// Whoever fetched at a cursor that is not known, and when.
    strangers: HashMap<Token, Instant>,
    /// What was done in pools that are no longer in memory, by group.
    past: HashMap<String, Ledger>,
}

/// All pools.
pub struct Pools {
    store: Arc<dyn Store>,
    log: Arc<Log>,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    token_ids: IdBlocks,
    /// What shared groups have that do not set it themselves.
    defaults: OnceLock<BTreeMap<String, String>>,
    /// One change of a configuration at a time.
    altering: tokio::sync::Mutex<()>,
    /// One snapshot, or rewind, at a time.
    snapshots: tokio::sync::Mutex<()>,
    /// Held while what is stored of a group is replaced: nobody begins with what was there before.
    replacing: tokio::sync::RwLock<()>,
    map: Mutex<Map>,
}

impl Map {
    fn remember(&mut self, group: &str, ledger: Ledger) {
        if self.past.len() < limits::shared::PAST_LEDGERS || self.past.contains_key(group) {
            *self.past.entry(group.to_owned()).or_default() += ledger;
        }
    }
}

impl State {
    /// Something changed that has to be durable.
    pub(super) fn touch(&mut self) {
        self.version += 1;
    }
}

impl SharedPool {
    fn new(group: &str, keys: PartitionKeys, config: Arc<GroupConfig>) -> Self {
        Self {
            group: group.to_owned(),
            keys,
            turn: tokio::sync::Mutex::default(),
            returned: Notify::new(),
            waiting: AtomicUsize::new(0),
            config: Mutex::new(config),
            state: OnceCell::new(),
        }
    }

    /// The group's configuration.
    pub(super) fn config(&self) -> Arc<GroupConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The group's id.
    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// The partition.
    pub(super) fn keys(&self) -> &PartitionKeys {
        &self.keys
    }

    pub(super) fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.get().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pools {
    /// The pools over a log.
    #[must_use]
    pub fn new(log: Arc<Log>, dead_letters: Option<Arc<dyn DeadLetters>>) -> Self {
        let store = log.store().clone();
        let token_ids = IdBlocks::new(store.clone(), IdKind::Cursor, limits::shared::TOKEN_BLOCK);
        Self {
            store,
            log,
            dead_letters,
            token_ids,
            defaults: OnceLock::new(),
            altering: tokio::sync::Mutex::default(),
            snapshots: tokio::sync::Mutex::default(),
            replacing: tokio::sync::RwLock::default(),
            map: Mutex::default(),
        }
    }

    pub(super) fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        self.dead_letters.as_deref()
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that no member has, for a new one until [`Pools::end`]; `None` if there are too many members.
    ///
    /// # Errors
    /// [`StoreError`] when ids cannot be reserved.
    pub async fn new_token(&self) -> Result<Option<Token>, StoreError> {
        loop {
            let token = Token::of(self.token_ids.next().await?);
            let mut map = self.map();
            if map.tokens.len() >= limits::shared::TOKENS {
                return Ok(None);
            }
            // They have come round once a million members have joined.
            if map.tokens.insert(token) {
                return Ok(Some(token));
            }
        }
    }

    /// A member's cursor on a partition, at which it goes on; begins one where there is none.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn open(
        &self,
        group: &str,
        keys: PartitionKeys,
        token: Token,
        config: &Arc<GroupConfig>,
    ) -> Result<CursorOffset, PoolError> {
        let sequence = self.take_part(group, keys, config, |map, shared, pool| {
            let key = (token, keys.topic, keys.partition);
            let cursor = map.cursors.entry(key).or_insert_with(|| {
                let (moved, not_yet) = (Notify::new(), || AtomicBool::new(false));
                let (is_suspended, is_read) = (not_yet(), not_yet());
                Arc::new(Cursor { pool: shared.clone(), moved, is_suspended, is_read })
            });
            cursor.is_read.store(false, Ordering::Relaxed);
            pool.join(token, now())
        });
        Ok(CursorOffset { token, sequence: sequence.await? })
    }

    /// Has somebody take part in a pool, which is loaded first if it has to be.
    async fn take_part<T>(
        &self,
        group: &str,
        keys: PartitionKeys,
        config: &Arc<GroupConfig>,
        begin: impl FnOnce(&mut Map, &Arc<SharedPool>, &mut Pool) -> T,
    ) -> Result<T, PoolError> {
        let pool_key = (group.to_owned(), keys.topic, keys.partition);
        loop {
            let pool = self
                .map()
                .pools
                .entry(pool_key.clone())
                .or_insert_with(|| Arc::new(SharedPool::new(group, keys, config.clone())))
                .clone();
            let loaded = pool.state.get_or_try_init(|| self.load(&pool, config.start)).await;
            let mut map = self.map();
            let is_there = map.pools.get(&pool_key).is_some_and(|found| Arc::ptr_eq(found, &pool));
            if let Err(error) = loaded {
                if is_there {
                    map.pools.remove(&pool_key);
                }
                return Err(error);
            }
            // It may have been given up by its last member in between.
            let Some(mut state) = pool.state().filter(|_| is_there) else { continue };
            return Ok(begin(&mut map, &pool, &mut state.pool));
        }
    }

    pub(super) fn cursor(&self, token: Token, keys: &PartitionKeys) -> Option<Arc<Cursor>> {
        self.map().cursors.get(&(token, keys.topic, keys.partition)).cloned()
    }

    /// The member with this token has to join again: its cursor cannot go on.
    pub(super) fn lose(&self, token: Token) {
        self.map().lost.insert(token);
    }

    /// Somebody fetches at a cursor that is not known. If that is a member, it has to join again: its topic was deleted and created again,
    /// and its client went on where it was.
    pub(super) fn note_stranger(&self, token: Token) {
        let now = now();
        let strangers = &mut self.map().strangers;
        if strangers.len() >= limits::shared::STRANGERS {
            strangers.retain(|_, since| now - *since < limits::shared::STRANGER_KEPT);
        }
        if strangers.len() < limits::shared::STRANGERS {
            strangers.insert(token, now);
        }
    }

    /// Whether the member with this token has to join again.
    #[must_use]
    pub fn is_lost(&self, token: Token) -> bool {
        let map = self.map();
        map.lost.contains(&token) || map.strangers.contains_key(&token)
    }

    /// Acknowledges what was delivered before `position` on a cursor, and waits until that is durable.
    ///
    /// # Errors
    /// [`PoolError`]. After [`PoolError::Log`] it is acknowledged and perhaps not durable: acknowledge it again.
    pub async fn acknowledge(
        &self,
        keys: &PartitionKeys,
        token: Token,
        position: Sequence,
    ) -> Result<(), PoolError> {
        let cursor = self.cursor(token, keys).ok_or(AcknowledgeError::NoCursor)?;
        let pool = &cursor.pool;
        {
            let mut state = pool.state().ok_or(AcknowledgeError::NoCursor)?;
            let news = state.pool.acknowledge(token, position, now())?;
            state.version += u64::from(news > 0);
        }
        cursor.moved.notify_one();
        self.persist(pool).await
    }

    /// Makes what was acknowledged so far durable.
    pub(super) async fn persist(&self, pool: &SharedPool) -> Result<(), PoolError> {
        loop {
            let submitted = {
                let Some(state) = pool.state() else { return Ok(()) };
                match state.version == state.stored || state.is_retired {
                    true => return Ok(()),
                    false => self.submit(pool, &state).map(|pending| (pending, state.version)),
                }
            };
            match submitted {
                Ok((pending, version)) => {
                    pending.await?;
                    if let Some(mut state) = pool.state() {
                        state.stored = state.stored.max(version);
                    }
                    return Ok(());
                }
                Err(StoreError::Busy { .. }) => self.store.ready().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Under the state's lock, so that an older progress never replaces a newer one.
    fn submit(&self, pool: &SharedPool, state: &State) -> Result<PendingWrite, StoreError> {
        let mut batch = WriteBatch::new();
        stored::put_progress(&mut batch, &pool.group, &pool.keys, &state.pool.progress());
        self.store.submit(batch)
    }

    /// What a member holds goes back; its cursors stay.
    pub fn suspend(
        &self,
        token: Token,
        partitions: impl IntoIterator<Item = (TopicId, PartitionIndex)>,
    ) {
        for (topic, partition) in partitions {
            let Some(cursor) = self.cursor(token, &PartitionKeys { topic, partition }) else {
                continue;
            };
            cursor.is_suspended.store(true, Ordering::Release);
            let returned = cursor.pool.state().is_some_and(|mut state| {
                let returned = state.pool.release(token);
                state.version += u64::from(returned);
                returned
            });
            if returned {
                cursor.pool.returned.notify_one();
            }
        }
    }

    /// A member that was suspended is back.
    pub fn resume(
        &self,
        token: Token,
        partitions: impl IntoIterator<Item = (TopicId, PartitionIndex)>,
    ) {
        for (topic, partition) in partitions {
            if let Some(cursor) = self.cursor(token, &PartitionKeys { topic, partition }) {
                cursor.is_suspended.store(false, Ordering::Release);
                cursor.moved.notify_one();
            }
        }
    }

    /// A member is no more: its cursors end, and its token may be another's.
    pub fn end(
        self: &Arc<Self>,
        token: Token,
        partitions: impl IntoIterator<Item = (TopicId, PartitionIndex)>,
    ) {
        {
            let mut map = self.map();
            map.tokens.remove(&token);
            map.lost.remove(&token);
            map.strangers.remove(&token);
        }
        self.close(token, partitions);
    }

    /// A member's cursors on some partitions end; what it holds of them goes back.
    pub fn close(
        self: &Arc<Self>,
        token: Token,
        partitions: impl IntoIterator<Item = (TopicId, PartitionIndex)>,
    ) {
        let mut map = self.map();
        for (topic, partition) in partitions {
            let Some(cursor) = map.cursors.remove(&(token, topic, partition)) else { continue };
            self.part(&cursor.pool, token);
        }
    }

    /// A member no longer takes part in a pool: what it holds goes back.
    fn part(self: &Arc<Self>, pool: &Arc<SharedPool>, token: Token) {
        let Some(mut state) = pool.state() else { return };
        if state.pool.forget(token) {
            // How often it was delivered has to be known after a restart.
            state.touch();
            pool.returned.notify_one();
        }
        if state.pool.is_deserted() {
            let (pools, pool) = (self.clone(), pool.clone());
            tokio::spawn(async move { pools.retire(&pool).await });
        }
    }

    /// Waits until nothing of a group is in memory but pools that have members.
    pub async fn settle(&self, group: &str) {
        let pools: Vec<Arc<SharedPool>> = {
            let map = self.map();
            map.pools.values().filter(|pool| pool.group == group).cloned().collect()
        };
        for pool in pools {
            if pool.state().is_some_and(|state| state.pool.is_deserted()) {
                self.retire(&pool).await;
            }
        }
    }

    /// Drops a pool without members, once what it knows is durable: what is stored is read again when somebody joins.
    async fn retire(&self, pool: &Arc<SharedPool>) {
        while let Err(error) = self.persist(pool).await {
            tracing::warn!(group = pool.group, %error, "a shared group's progress is not stored yet");
            tokio::time::sleep(limits::shared::PERSIST_PAUSE).await;
        }
        let mut map = self.map();
        let Some(mut state) = pool.state() else { return };
        let key = (pool.group.clone(), pool.keys.topic, pool.keys.partition);
        let is_same = map.pools.get(&key).is_some_and(|found| Arc::ptr_eq(found, pool));
        if is_same && state.pool.is_deserted() && state.version == state.stored {
            state.is_retired = true;
            let ledger = state.pool.ledger();
            drop(state);
            map.pools.remove(&key);
            map.remember(&pool.group, ledger);
        }
    }

    /// Held while a snapshot is taken, removed or gone back to.
    pub(super) async fn snapshots_lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.snapshots.lock().await
    }

    /// The store underneath.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether nobody takes part in any group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let map = self.map();
        map.pools.is_empty()
            && map.cursors.is_empty()
            && map.lost.is_empty()
            && map.tokens.is_empty()
    }

    /// The log underneath.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

pub(super) fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
