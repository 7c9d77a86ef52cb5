//! The cache as readers see it: one lock around memory, a task for each load, and the SSD behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use robustmq_common::disk::{Disk, RealDisk, is_full};
use robustmq_common::limits;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::belady::{Access, Trace, least_source_bytes};
use super::lent::Loan;
use super::load::LoadTask;
use super::memory::{Hit, Memory};
use super::ranks::hash_of;
use super::scene::{Changes, Scene};
use super::ssd::Ssd;
use super::stats::{CacheStats, Counts};
use super::users::{UserId, Users};
use super::working::AtWork;
use super::{Ahead, CacheError, CacheSettings, ExtentId, Found, Load, Outcome, Tier};
use crate::fetch::FetchError;
use crate::layout::Extent;

/// Extents in memory, on SSD, and on their way. It is used within a Tokio runtime.
#[derive(Debug)]
pub struct Cache {
    pub(super) memory: Mutex<Memory>,
    pub(super) users: Arc<Users>,
    trace: Mutex<Trace>,
    /// Somebody needs room: for a piece of an object, or for a load that a reader waits for.
    pub(super) room_awaited: Notify,
    pub(super) ssd: Option<Arc<Ssd>>,
    /// What is worked in beside the cache.
    pub(super) working: Arc<AtWork>,
}

/// What is done for who asks.
enum Answer {
    Here(Hit),
    OnItsWay(Outcome),
    Begun { task: LoadTask, outcome: Outcome },
    Refused,
}

/// A reader that waits; it is counted however its wait ends.
struct Waiting<'a> {
    cache: &'a Cache,
    user: UserId,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.cache.users.count(self.user, |counts| {
            counts.waited += 1;
            counts.waited_micros = counts.waited_micros.saturating_add(micros);
        });
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Opens the cache, with what its SSD held before: for that it reads a file of some megabytes.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open(settings: CacheSettings) -> Result<Arc<Self>, CacheError> {
        if settings.memory_bytes < limits::dataset::CACHE_BYTES_MIN {
            return Err(CacheError::MemoryTooSmall(settings.memory_bytes));
        }
        if let Some(ssd) = &settings.ssd
            && ssd.bytes < limits::dataset::SSD_BYTES_MIN
        {
            return Err(CacheError::SsdTooSmall(ssd.bytes));
        }
        Self::open_on(settings, Arc::new(RealDisk))
    }

    /// However small: tests have small ones.
    pub(super) fn open_on(
        settings: CacheSettings,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, CacheError> {
        let memory_bytes = settings.memory_bytes;
        let users = Arc::new(Users::default());
        let queue_bytes = match settings.ssd {
            Some(_) => limits::dataset::SSD_QUEUE_BYTES
                .min(memory_bytes / limits::dataset::SSD_QUEUE_SHARE),
            None => 0,
        };
        let open = |ssd| Ssd::open(ssd, disk, Arc::clone(&users), queue_bytes);
        let ssd = settings.ssd.map(open);
        let ssd = match ssd.transpose() {
            Err(CacheError::Io { dir, source }) if may_pass(&source) => {
                let dir = dir.display();
                tracing::warn!(%dir, error = %source, "the cache's SSD cannot be used; a restart tries again");
                None
            }
            opened => opened?,
        };
        let working = Arc::<AtWork>::default();
        let memory = Memory::new(memory_bytes, queue_bytes, Arc::clone(&working));
        Ok(Arc::new(Self {
            memory: Mutex::new(memory),
            users,
            trace: Mutex::default(),
            room_awaited: Notify::new(),
            ssd,
            working,
        }))
    }

    /// Changes what is in memory, and tells the SSD of it.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Memory, Scene<'_>, &mut Changes) -> T,
    ) -> T {
        let mut changes = Changes::default();
        let changed = {
            let mut memory = locked(&self.memory);
            let users = self.users.lock();
            let scene = Scene { users: &users, now: Instant::now() };
            let changed = change(&mut memory, scene, &mut changes);
            memory.serve(scene, &mut changes);
            changed
        };
        if let Some(ssd) = &self.ssd {
            changes.stay.into_iter().for_each(|id| ssd.is_in_memory(id));
            changes.displaced.into_iter().for_each(|displaced| ssd.offer(displaced));
        }
        changed
    }

    /// An extent, from wherever it is. It is loaded once however many ask for it; all hear the same outcome, and an error is not remembered.
    /// Whoever stops waiting does not end its load.
    ///
    /// # Errors
    /// Those of [`Load`]; [`FetchError::Unavailable`] where too many loads are under way.
    pub async fn get(
        self: &Arc<Self>,
        id: ExtentId,
        user: UserId,
        load: Arc<dyn Load>,
    ) -> Result<Found, FetchError> {
        self.users.reads(user, Instant::now());
        let outcome = match self.find_or_load(id, user, load) {
            Answer::Here(Hit { extent, begins }) => {
                if let Some(source_bytes) = begins {
                    self.count_read(id, user, Tier::Memory, source_bytes);
                }
                return Ok((extent, Tier::Memory));
            }
            Answer::OnItsWay(outcome) => outcome,
            Answer::Begun { task, outcome } => {
                tokio::spawn(task.run());
                outcome
            }
            Answer::Refused => return Err(unavailable(id, TOO_MANY)),
        };
        let _waiting = Waiting { cache: self, user, since: Instant::now() };
        finished(outcome, id).await
    }

    /// A user is about to read, or somebody on its behalf: it has its share of the cache from now on.
    pub fn reads(&self, user: UserId) {
        self.users.reads(user, Instant::now());
    }

    /// An extent for somebody who is no reader: it is loaded as for one, and stays if it ranks, but nothing is counted as read.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub async fn bring(
        self: &Arc<Self>,
        id: ExtentId,
        user: UserId,
        load: Arc<dyn Load>,
    ) -> Result<Arc<Extent>, FetchError> {
        let begun = self.change(|memory, scene, changes| {
            if let Some(here) = memory.extent(id) {
                return Answer::Here(Hit { extent: here.extent, begins: None });
            }
            if let Some(outcome) = memory.loading(id) {
                return Answer::OnItsWay(outcome);
            }
            self.begin(memory, (id, user), load, |memory, outcome| {
                match memory.begin_ahead(id, user, outcome.clone(), scene, changes) {
                    true => None,
                    false => memory.begin_waited(id, (user, false), outcome, scene, changes),
                }
            })
        });
        match begun {
            Answer::Here(hit) => Ok(hit.extent),
            Answer::OnItsWay(outcome) => Ok(finished(outcome, id).await?.0),
            Answer::Begun { task, outcome } => {
                tokio::spawn(task.run());
                let (extent, _) = finished(outcome, id).await?;
                self.change(|memory, scene, changes| memory.brought(id, scene, changes));
                Ok(extent)
            }
            Answer::Refused => Err(unavailable(id, TOO_MANY)),
        }
    }

    fn find_or_load(self: &Arc<Self>, id: ExtentId, user: UserId, load: Arc<dyn Load>) -> Answer {
        self.change(|memory, scene, changes| {
            if let Some(hit) = memory.find(id, user, scene.now) {
                return Answer::Here(hit);
            }
            if let Some(outcome) = memory.join(id, user) {
                return Answer::OnItsWay(outcome);
            }
            self.begin(memory, (id, user), load, |memory, outcome| {
                memory.begin_waited(id, (user, true), outcome, scene, changes)
            })
        })
    }

    /// Begins a load that somebody waits for; `enter` says what it has to wait for.
    fn begin(
        self: &Arc<Self>,
        memory: &mut Memory,
        (id, user): (ExtentId, UserId),
        load: Arc<dyn Load>,
        enter: impl FnOnce(&mut Memory, Outcome) -> Option<oneshot::Receiver<()>>,
    ) -> Answer {
        if memory.loads() >= limits::dataset::LOADS {
            return Answer::Refused;
        }
        let (sender, outcome) = watch::channel(None);
        let turn = enter(memory, outcome.clone());
        if turn.is_some() {
            // Who counts ahead of readers gives up what it has fetched.
            self.room_awaited.notify_waiters();
        }
        let task = LoadTask::new(self, id, user, load, sender, turn);
        Answer::Begun { task, outcome }
    }

    /// Begins to load an extent that nobody waits for yet, from SSD or from the source, if read-ahead has room for it.
    pub fn ahead(self: &Arc<Self>, id: ExtentId, user: UserId, load: Arc<dyn Load>) -> Ahead {
        let begun = self.change(|memory, scene, changes| {
            if memory.is_resident(id) {
                return Err(Ahead::Resident);
            }
            if memory.will_be_read(id, user, scene.now) || memory.is_loading(id) {
                return Err(Ahead::Here);
            }
            let (sender, outcome) = watch::channel(None);
            if memory.loads() >= limits::dataset::LOADS
                || !memory.begin_ahead(id, user, outcome, scene, changes)
            {
                return Err(Ahead::NoRoom);
            }
            Ok(LoadTask::new(self, id, user, load, sender, None))
        });
        match begun {
            Ok(task) => {
                tokio::spawn(task.run());
                Ahead::Begun
            }
            Err(answer) => answer,
        }
    }

    /// Takes an extent that was downloaded for another reason and that a reader will want: it stays if it ranks, else it waits for its reader
    /// where read-ahead has room. Its content must be a buffer of its own: what it is cut out of is not counted. `taken_bytes` of it have room as
    /// [`Taken`](super::Taken), which is given back when it is here.
    pub fn put(&self, id: ExtentId, user: UserId, extent: Arc<Extent>, taken_bytes: usize) {
        self.users.count(user, |counts| counts.source_bytes += u64::from(id.bytes));
        self.change(|memory, scene, changes| {
            memory.instead_of_pieces(taken_bytes, |memory| {
                memory.put(id, user, (extent, taken_bytes > 0), scene, changes);
            });
        });
    }

    /// The content of an extent, parts of which are going to be sent while it may leave the cache. It takes room until all of them are dropped;
    /// `None` where there is none left: then they are copied.
    #[must_use]
    pub fn lend(self: &Arc<Self>, id: ExtentId, extent: &Arc<Extent>) -> Option<Bytes> {
        let bytes = super::memory::cost(extent);
        let new = || Loan::new(self, id, extent);
        self.change(|memory, _, _| memory.lend(id, bytes, new)).map(Loan::content)
    }

    /// The reader of this extent is past it: its room is for others when they need it, unless it ranks among those that stay. To be said of
    /// those that stay too, or their next read is taken for a part of this one.
    pub fn passed(&self, id: ExtentId, user: UserId) {
        self.change(|memory, scene, changes| memory.passed(id, user, scene, changes));
    }

    /// Where an extent is; `None` if it would have to be fetched, or is on its way.
    #[must_use]
    pub fn contains(&self, id: ExtentId) -> Option<Tier> {
        if locked(&self.memory).contains(id) {
            return Some(Tier::Memory);
        }
        self.ssd.as_ref().filter(|ssd| ssd.contains(id)).map(|_| Tier::Ssd)
    }

    /// This user's extents go last, though it reads nothing.
    pub fn pin(&self, user: UserId) {
        self.users.set_pinned(user, true);
    }

    /// This user's extents go as others' do.
    pub fn unpin(&self, user: UserId) {
        self.users.set_pinned(user, false);
    }

    /// This user will not read any more: what it was the last to read goes first.
    pub fn forget(&self, user: UserId) {
        self.users.forget(user);
    }

    /// Of two users whose data does not fit, one with three times the weight has three times the share of its data here. It is
    /// [`limits::dataset::WEIGHT`] unless it is set. What is here already goes as it is needed for what comes.
    pub fn set_weight(&self, user: UserId, weight: u32) {
        self.users.set_weight(user, weight);
    }

    /// Takes this much memory from now on, at least [`limits::dataset::EXTENTS_BYTES_MIN`]. What is on its way is not ended.
    pub fn set_memory_bytes(&self, bytes: usize) {
        let bytes = bytes.max(limits::dataset::EXTENTS_BYTES_MIN);
        self.change(|memory, scene, changes| memory.set_budget(bytes, scene, changes));
    }

    /// What of that is for read-ahead.
    #[must_use]
    pub fn ahead_bytes(&self) -> usize {
        super::memory::ahead_bytes(self.memory_bytes())
    }

    /// About how large extents should be: so that the room of read-ahead holds those that some tens of readers read.
    #[must_use]
    pub fn extent_bytes(&self) -> usize {
        super::memory::extent_bytes(self.memory_bytes())
    }

    /// Of so much memory, what would be for read-ahead, and how large extents would be.
    #[must_use]
    pub fn ahead_and_extent_bytes(memory_bytes: u64) -> (u64, u64) {
        let bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        (super::memory::ahead_bytes(bytes) as u64, super::memory::extent_bytes(bytes) as u64)
    }

    /// What may be read ahead now: what is for that, and what nothing has taken yet that stays. The last quarter of that is left to fill with
    /// what was read: else what is waited for would push out what was read ahead.
    #[must_use]
    pub fn free_ahead_bytes(&self) -> u64 {
        let memory = locked(&self.memory);
        let free = memory.free_bytes().saturating_sub(memory.resident_room() / 4);
        super::memory::ahead_bytes(memory.budget_bytes()) as u64 + free
    }

    /// What it may take of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        locked(&self.memory).budget_bytes()
    }

    /// What it may take of its SSD; 0 where there is none, or it cannot be used.
    #[must_use]
    pub fn ssd_budget_bytes(&self) -> u64 {
        self.ssd.as_ref().map_or(0, |ssd| ssd.bytes())
    }

    /// How it is, for one user or for all: the fields say which of them are the user's own. It goes through the last accesses: some ten milliseconds.
    #[must_use]
    pub fn stats(&self, user: Option<UserId>) -> CacheStats {
        let mut stats = CacheStats { counts: self.users.counts(user), ..CacheStats::default() };
        let mut holds = {
            let memory = locked(&self.memory);
            let residents = memory.residents();
            stats.budget_bytes = memory.budget_bytes() as u64;
            stats.resident_bytes = user.map_or(residents.bytes(), |user| residents.bytes_of(user));
            stats.ahead_bytes = memory.on_their_way_bytes() as u64;
            stats.memory_bytes = residents.bytes() + stats.ahead_bytes;
            memory.resident_room()
        };
        if let Some(ssd) = &self.ssd {
            ssd.fill(&mut stats, user);
            holds += if stats.reads_ssd { ssd.bytes() } else { 0 };
        }
        let accesses = locked(&self.trace).of(user);
        let source_bytes = accesses.iter().map(|access| u64::from(access.source_bytes));
        stats.traced_source_bytes = source_bytes.sum();
        stats.belady_bytes = least_source_bytes(&accesses, holds);
        stats
    }

    /// What all users' reads have come to since the cache was opened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.users.counts(None)
    }

    /// Bytes in memory, and on SSD.
    #[must_use]
    pub fn held_bytes(&self) -> (u64, u64) {
        let memory = {
            let memory = locked(&self.memory);
            memory.residents().bytes() + memory.on_their_way_bytes() as u64
        };
        (memory, self.ssd.as_ref().map_or(0, |ssd| ssd.held_bytes()))
    }

    /// Writes what stays in memory to SSD, where it ranks there and as far as [`limits::dataset::SSD_SPILL`] allows. Nothing is written after
    /// that; readers are still answered.
    pub async fn close(&self) {
        let Some(ssd) = &self.ssd else { return };
        let ids = locked(&self.memory).residents().in_order();
        let extents = ids.into_iter().filter_map(|id| locked(&self.memory).extent(id));
        ssd.close(extents).await;
    }

    /// Counts a read of an extent.
    pub(super) fn count_read(&self, id: ExtentId, user: UserId, tier: Tier, source_bytes: u32) {
        self.users.count(user, |counts| counts.read(tier));
        let extent = hash_of(id);
        locked(&self.trace).push(Access { extent, bytes: id.bytes, user, source_bytes });
    }
}

/// Whether it is the disk's state and not a wrong setting: it is no reason not to start.
fn may_pass(error: &std::io::Error) -> bool {
    const EIO: i32 = 5;
    let is_read_only = error.kind() == std::io::ErrorKind::ReadOnlyFilesystem;
    is_full(error) || is_read_only || error.raw_os_error() == Some(EIO)
}

const TOO_MANY: &str = "too many loads are under way already";

/// What came of a load.
async fn finished(mut outcome: Outcome, id: ExtentId) -> Result<Found, FetchError> {
    let outcome = outcome.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    outcome.unwrap_or_else(|| Err(unavailable(id, "its load ended early")))
}

pub(super) fn unavailable(id: ExtentId, reason: &str) -> FetchError {
    let object = format!("the extent at {} of object {:032x}", id.start, id.object);
    FetchError::Unavailable { object, reason: reason.to_owned() }
}
