//! How many GETs of one source go on at the same time: as many as it bears.
//!
//! It begins with a few and takes one more for each that succeeds, until the source says for the first time that they are too many; from then on one more
//! for each round of them (additive increase, multiplicative decrease, as TCP does). It grows only while all of them are in use: what was
//! never tried is not known to be borne. And never to more than fill the link ([`Link`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use robustmq_common::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::link::Link;

/// Lets so many GETs through.
#[derive(Debug)]
pub(super) struct Limiter {
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Permits that are still out though the limit has shrunk: so many are not given back.
    debt: usize,
    /// GETs that succeeded since the limit changed.
    succeeded: usize,
    /// How often it was halved.
    round: u64,
    link: Link,
}

/// One GET's.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<Limiter>,
    permit: Option<OwnedSemaphorePermit>,
    /// The round that it began in.
    round: u64,
}

impl Limiter {
    pub(super) fn new() -> Arc<Self> {
        let limit = limits::dataset::GETS_FIRST;
        let state = State { limit, debt: 0, succeeded: 0, round: 0, link: Link::default() };
        Arc::new(Self { permits: Arc::new(Semaphore::new(limit)), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Waits for its turn, first come, first served.
    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        // It fails only if the semaphore was closed, which nobody does; then nothing is limited.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        Permit { limiter: Arc::clone(self), permit, round: self.lock().round }
    }

    fn brought(&self, first_byte: Duration, bytes: u64) {
        self.lock().link.brought(Instant::now(), first_byte, bytes);
        self.succeeded();
    }

    fn succeeded(&self) {
        let mut state = self.lock();
        let enough = state.link.enough();
        if state.limit > enough {
            state.limit -= 1;
            state.succeeded = 0;
            state.debt += 1 - self.permits.forget_permits(1);
            return;
        }
        state.succeeded += 1;
        let is_used = self.permits.available_permits() == 0;
        let is_new = state.round == 0;
        if state.limit < enough.min(limits::dataset::GETS_MOST)
            && is_used
            && (is_new || state.succeeded >= state.limit)
        {
            state.limit += 1;
            state.succeeded = 0;
            if state.debt > 0 {
                state.debt -= 1;
            } else {
                self.permits.add_permits(1);
            }
        }
    }

    fn too_many(&self, round: u64) {
        let mut state = self.lock();
        // Those that were on their way when it was halved say the same once more.
        if round != state.round {
            return;
        }
        state.round += 1;
        state.succeeded = 0;
        let limit = (state.limit / 2).max(limits::dataset::GETS_LEAST);
        let fewer = state.limit - limit;
        state.limit = limit;
        state.debt += fewer - self.permits.forget_permits(fewer);
    }
}

impl Permit {
    /// The GET has brought what was asked for: so many bytes, the first of them after so long.
    pub(super) fn brought(self, first_byte: Duration, bytes: u64) {
        self.limiter.brought(first_byte, bytes);
    }

    /// The GET was answered.
    pub(super) fn succeeded(self) {
        self.limiter.succeeded();
    }

    /// The source said that there are too many, or nothing.
    pub(super) fn too_many(self) {
        self.limiter.too_many(self.round);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        if state.debt > 0
            && let Some(permit) = self.permit.take()
        {
            state.debt -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(limiter: &Arc<Limiter>, count: usize) -> Vec<Permit> {
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(limiter.acquire().await);
        }
        permits
    }

    #[tokio::test]
    async fn it_grows_while_all_are_used_and_no_further_than_its_most() {
        let limiter = Limiter::new();
        for _ in 0..200 {
            let permits = take(&limiter, 2).await;
            permits.into_iter().for_each(Permit::succeeded);
        }
        assert_eq!(limits::dataset::GETS_FIRST, limiter.limit(), "two at a time try nothing");
        for _ in 0..200 {
            let permits = take(&limiter, limiter.limit()).await;
            permits.into_iter().for_each(Permit::succeeded);
        }
        assert_eq!(limits::dataset::GETS_MOST, limiter.limit());
        assert_eq!(limits::dataset::GETS_MOST, limiter.permits.available_permits());
    }

    #[tokio::test]
    async fn one_round_of_complaints_halves_it_once_and_it_comes_back_slowly() {
        let limiter = Limiter::new();
        let permits = take(&limiter, 8).await;
        permits.into_iter().for_each(Permit::too_many);
        assert_eq!((4, 4), (limiter.limit(), limiter.permits.available_permits()));
        let permits = take(&limiter, 4).await;
        permits.into_iter().for_each(Permit::too_many);
        assert_eq!((2, 2), (limiter.limit(), limiter.permits.available_permits()));
        for limit in 2..10 {
            let mut left = limit;
            while left > 0 {
                assert_eq!(limit, limiter.limit(), "one more for each round");
                let mut permits = take(&limiter, limit).await;
                permits.pop().expect("one of them").succeeded();
                left -= 1;
            }
        }
        assert_eq!(limiter.limit(), limiter.permits.available_permits());
    }

    #[tokio::test]
    async fn it_never_shrinks_to_nothing() {
        let limiter = Limiter::new();
        for _ in 0..20 {
            limiter.acquire().await.too_many();
        }
        assert_eq!(limits::dataset::GETS_LEAST, limiter.limit());
        assert_eq!(limits::dataset::GETS_LEAST, limiter.permits.available_permits());
    }
}
