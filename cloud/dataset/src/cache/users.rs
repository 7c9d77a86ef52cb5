//! Whose reads fill the cache, and what each has had of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use robustmq_common::limits;
use tokio::time::Instant;

use super::ranks::Rank;
use super::stats::Counts;

/// Who reads: a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u128);

/// Whose extents stay first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// An operator has said so.
    Pinned,
    /// It reads.
    Used,
    /// It has read nothing for [`limits::dataset::IDLE`], or never.
    Idle,
}

/// Where a user's extents stand among those of others: by class, and then by their ranks over its weight. So of two who cannot have all of
/// their data here, one with three times the weight has three times the share of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub class: Class,
    pub weight: u32,
}

impl Standing {
    /// What compares with extents of others: the last goes first.
    pub(super) fn place(self, rank: Rank) -> (Class, Rank) {
        (self.class, Rank(rank.0 / u64::from(self.weight.max(1))))
    }
}

#[derive(Debug)]
struct User {
    last_read: Option<Instant>,
    is_pinned: bool,
    weight: u32,
    counts: Counts,
}

impl Default for User {
    fn default() -> Self {
        let weight = limits::dataset::WEIGHT;
        Self { last_read: None, is_pinned: false, weight, counts: Counts::default() }
    }
}

impl User {
    fn class(&self, now: Instant) -> Class {
        let is_used = |read: Instant| now.duration_since(read) <= limits::dataset::IDLE;
        match self.last_read {
            _ if self.is_pinned => Class::Pinned,
            Some(read) if is_used(read) => Class::Used,
            _ => Class::Idle,
        }
    }
}

/// All users that are known. Its lock is the last that is taken.
#[derive(Debug, Default)]
pub(super) struct Users {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    users: HashMap<UserId, User>,
    total: Counts,
}

impl Known {
    /// The user, who becomes known if there is room.
    fn user(&mut self, id: UserId, now: Instant) -> Option<&mut User> {
        if !self.users.contains_key(&id) {
            if self.users.len() >= limits::dataset::CACHE_USERS {
                self.users.retain(|_, user| user.class(now) != Class::Idle);
            }
            if self.users.len() >= limits::dataset::CACHE_USERS {
                return None;
            }
        }
        Some(self.users.entry(id).or_default())
    }

    pub(super) fn standing(&self, id: UserId, now: Instant) -> Standing {
        let known = self.users.get(&id);
        let (class, weight) = known
            .map_or((Class::Idle, limits::dataset::WEIGHT), |user| (user.class(now), user.weight));
        Standing { class, weight }
    }
}

impl Users {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It reads.
    pub(super) fn reads(&self, id: UserId, now: Instant) {
        if let Some(user) = self.lock().user(id, now) {
            user.last_read = Some(now);
        }
    }

    /// It will not read any more.
    pub(super) fn forget(&self, id: UserId) {
        self.lock().users.remove(&id);
    }

    pub(super) fn set_pinned(&self, id: UserId, is_pinned: bool) {
        match self.lock().user(id, Instant::now()) {
            Some(user) => user.is_pinned = is_pinned,
            None => {
                tracing::warn!(user = id.0, "is not pinned in the cache: it has too many users")
            }
        }
    }

    pub(super) fn set_weight(&self, id: UserId, weight: u32) {
        match self.lock().user(id, Instant::now()) {
            Some(user) => user.weight = weight,
            None => {
                tracing::warn!(user = id.0, "has no weight in the cache: it has too many users")
            }
        }
    }

    /// Counts something, for the user and in total.
    pub(super) fn count(&self, id: UserId, count: impl Fn(&mut Counts)) {
        let mut known = self.lock();
        count(&mut known.total);
        if let Some(user) = known.users.get_mut(&id) {
            count(&mut user.counts);
        }
    }

    pub(super) fn counts(&self, id: Option<UserId>) -> Counts {
        let known = self.lock();
        match id {
            None => known.total,
            Some(id) => known.users.get(&id).map(|user| user.counts).unwrap_or_default(),
        }
    }
}
