//! The writer thread: merges what waits into one synced transaction, over and over.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;
use robustmq_common::limits;
use tokio::sync::watch;

use super::file::{Opener, commit};
use super::{Change, ChangeSet};

/// The number of a submitted change set: dense, from 1, in order of submission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitTicket(pub u64);

/// How far the writer got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every change set up to this one is durable.
    pub committed: CommitTicket,
    /// Why the disk refuses at the moment; the writer keeps trying.
    pub failing: Option<String>,
    /// The writer has ended; nothing more will be committed.
    pub closed: bool,
}

#[derive(Default)]
struct Pending {
    sets: Vec<ChangeSet>,
    /// Of the sets that wait and of those being written.
    bytes: usize,
    submitted: u64,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A holder cannot leave `Pending` half changed, so a poisoned lock is still good.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running state store. Dropping it without [`State::close`] abandons what was not committed yet, as a crash does.
pub struct State {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl State {
    pub(super) fn start(database: Database, opener: Opener) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, progress) = watch::channel(Progress::default());
        let writer = Writer { shared: Arc::clone(&shared), opener, progress: sender };
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .stack_size(limits::STORAGE_THREAD_STACK_BYTES)
            .spawn(move || writer.run(database))?;
        Ok(Self { shared, progress, thread: Some(thread) })
    }

    /// Hands over a change set. It is durable when [`Progress::committed`] has reached the ticket.
    ///
    /// Never blocks and never refuses: who calls it asks [`State::is_saturated`] before taking in more work.
    pub fn submit(&self, set: ChangeSet) -> CommitTicket {
        let weight: usize = set.changes.iter().map(Change::weight_bytes).sum();
        let mut pending = self.shared.lock();
        pending.bytes = pending.bytes.saturating_add(weight);
        pending.sets.push(set);
        pending.submitted += 1;
        let ticket = CommitTicket(pending.submitted);
        drop(pending);
        self.shared.wake.notify_one();
        ticket
    }

    /// Whether so much waits for the disk that no more input should be taken in.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        let pending = self.shared.lock();
        pending.bytes > limits::STATE_PENDING_BYTES
            || pending.sets.len() > limits::STATE_PENDING_CHANGE_SETS
    }

    /// Follows the writer.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Commits what was submitted and ends the writer; blocks until then. While the disk fails, one more attempt is made.
    ///
    /// # Errors
    /// What the disk said when not everything could be committed.
    pub fn close(mut self) -> Result<(), String> {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err("the state writer panicked".to_owned());
        }
        let progress = self.progress.borrow().clone();
        match progress.failing {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let mut pending = self.shared.lock();
        pending.closing = true;
        pending.sets.clear();
        drop(pending);
        self.shared.wake.notify_one();
    }
}

struct Writer {
    shared: Arc<Shared>,
    opener: Opener,
    progress: watch::Sender<Progress>,
}

impl Writer {
    fn run(self, database: Database) {
        let mut database = Some(database);
        while let Some(sets) = self.next_sets() {
            if !self.commit_until_durable(&mut database, &sets) {
                break;
            }
            let weight: usize =
                sets.iter().flat_map(|s| &s.changes).map(Change::weight_bytes).sum();
            let mut pending = self.shared.lock();
            pending.bytes = pending.bytes.saturating_sub(weight);
            drop(pending);
            let count = u64::try_from(sets.len()).unwrap_or(u64::MAX);
            self.progress.send_modify(|progress| {
                progress.committed.0 = progress.committed.0.saturating_add(count);
                progress.failing = None;
            });
        }
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// All that waits; `None` when the store is closing and nothing does.
    fn next_sets(&self) -> Option<Vec<ChangeSet>> {
        let mut pending = self.shared.lock();
        loop {
            if !pending.sets.is_empty() {
                return Some(std::mem::take(&mut pending.sets));
            }
            if pending.closing {
                return None;
            }
            pending = self.shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tries until the sets are durable. `false` when the store is closing and the disk still refuses.
    fn commit_until_durable(&self, database: &mut Option<Database>, sets: &[ChangeSet]) -> bool {
        let mut delay = limits::STATE_RETRY_MIN;
        loop {
            let closing = self.shared.lock().closing;
            let reason = match self.attempt(database, sets) {
                Ok(()) => return true,
                Err(reason) => reason,
            };
            // redb refuses all work after a failed write; the file itself is whole, so it is opened again.
            *database = None;
            if self.progress.borrow().failing.is_none() {
                tracing::error!(%reason, "the state cannot be written; trying again until the disk recovers");
            }
            self.progress.send_modify(|progress| progress.failing = Some(reason));
            if closing {
                return false;
            }
            self.wait(delay);
            delay = (delay * 2).min(limits::STATE_RETRY_MAX);
        }
    }

    fn attempt(&self, database: &mut Option<Database>, sets: &[ChangeSet]) -> Result<(), String> {
        let open = match database.take() {
            Some(open) => open,
            None => (self.opener)().map_err(|error| error.to_string())?,
        };
        commit(&open, sets).map_err(|error| error.to_string())?;
        *database = Some(open);
        Ok(())
    }

    /// Waits for `delay`, or less when the store is closed meanwhile.
    fn wait(&self, delay: Duration) {
        let pending = self.shared.lock();
        let waited = self.shared.wake.wait_timeout_while(pending, delay, |p| !p.closing);
        drop(waited);
    }
}
