//! How many GETs of one source go on at the same time: as many as it bears.
//!
//! It begins with a few and takes one more for each that succeeds, until the source says for the first time that they are too many; from then on one more
//! for each round of them (additive increase, multiplicative decrease, as TCP does). It grows only while all of them are in use: what was
//! never tried is not known to be borne.
//!
//! And they ask for no more bytes together than fill the link ([`Link`]): what is beyond would share it with what is needed first. Until the
//! link is known that is a little, and with each GET that succeeds as much more as it brought.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use robustmq_common::limits;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::link::Link;

/// Lets so many GETs through.
#[derive(Debug)]
pub(super) struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// GETs that have their turn: more than `limit` after that has shrunk.
    running: usize,
    /// What they ask for together, and what they may before the link is known.
    running_bytes: u64,
    first_bytes: u64,
    /// Those that wait for it, by when they are needed; then first come, first served.
    waiting: BTreeMap<(Instant, u64), Waiting>,
    /// How many have waited so far.
    number: u64,
    /// GETs that succeeded since the limit changed.
    succeeded: usize,
    /// How often it was halved.
    round: u64,
    link: Link,
}

#[derive(Debug)]
struct Waiting {
    turn: oneshot::Sender<Permit>,
    bytes: u64,
}

impl State {
    /// Whether another GET, of so many bytes that are needed at that time, may go on now.
    fn has_room(&self, by: Instant, bytes: u64, now: Instant) -> bool {
        let enough = self.link.enough_bytes();
        let most = enough.unwrap_or(self.first_bytes);
        // Readers mostly begin together: what the first of them want later is not to go before what the others want at once.
        let is_soon = enough.is_some() || by <= now + limits::dataset::GETS_FIRST_SOON;
        let fits = is_soon && self.running_bytes + bytes <= most;
        // One that is larger than all there is room for has company, so that the link is used while its answer is waited for.
        self.running < self.limit && (fits || self.running < limits::dataset::GETS_BESIDE)
    }
}

/// One GET's turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<Limiter>,
    /// What it asks for.
    bytes: u64,
    /// The round that it began in.
    round: u64,
}

impl Limiter {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            limit: limits::dataset::GETS_FIRST,
            running: 0,
            running_bytes: 0,
            first_bytes: limits::dataset::GETS_FIRST_BYTES,
            waiting: BTreeMap::new(),
            number: 0,
            succeeded: 0,
            round: 0,
            link: Link::default(),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    /// How long the first byte takes, in the mean of late; `None` where that is not known yet.
    pub(super) fn first_byte(&self) -> Option<Duration> {
        self.lock().link.first_byte()
    }

    /// Waits for the turn of a GET of so many bytes: whoever needs it first has it first.
    pub(super) async fn acquire(self: &Arc<Self>, by: Instant, bytes: u64) -> Permit {
        let waits = {
            let mut state = self.lock();
            let (turn, waits) = oneshot::channel();
            state.number += 1;
            let place = (by, state.number);
            state.waiting.insert(place, Waiting { turn, bytes });
            waits
        };
        self.let_through();
        match waits.await {
            Ok(permit) => permit,
            // Nobody drops a sender; if somebody did, one GET more would be let through.
            Err(_) => self.let_one_through(&mut self.lock(), bytes),
        }
    }

    fn let_one_through(self: &Arc<Self>, state: &mut State, bytes: u64) -> Permit {
        state.running += 1;
        state.running_bytes += bytes;
        Permit { limiter: Arc::clone(self), bytes, round: state.round }
    }

    /// Gives turns to those that wait, as far as there are any.
    fn let_through(self: &Arc<Self>) {
        loop {
            let (first, permit) = {
                let mut state = self.lock();
                // Those that do not wait any more would only hand theirs back.
                while let Some(first) = state.waiting.first_entry()
                    && first.get().turn.is_closed()
                {
                    first.remove();
                }
                let Some((place, Waiting { bytes, .. })) = state.waiting.first_key_value() else {
                    return;
                };
                let (by, bytes) = (place.0, *bytes);
                if !state.has_room(by, bytes, Instant::now()) {
                    return;
                }
                let Some((_, first)) = state.waiting.pop_first() else { return };
                (first.turn, self.let_one_through(&mut state, bytes))
            };
            // One that has stopped waiting this moment drops its turn here, and the next one has it.
            drop(first.send(permit));
        }
    }

    /// So many bytes have come.
    pub(super) fn came(&self, bytes: u64) {
        self.lock().link.came(Instant::now(), bytes);
    }

    fn brought(&self, first_byte: Duration, bytes: u64) {
        {
            let mut state = self.lock();
            state.first_bytes = state.first_bytes.saturating_add(bytes);
            state.link.brought(first_byte, bytes);
        }
        self.succeeded();
    }

    fn succeeded(&self) {
        let mut state = self.lock();
        state.succeeded += 1;
        let is_used = state.running >= state.limit;
        let is_new = state.round == 0;
        if state.limit < limits::dataset::GETS_MOST
            && is_used
            && (is_new || state.succeeded >= state.limit)
        {
            state.limit += 1;
            state.succeeded = 0;
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
        state.limit = (state.limit / 2).max(limits::dataset::GETS_LEAST);
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
        {
            let mut state = self.limiter.lock();
            state.running = state.running.saturating_sub(1);
            state.running_bytes = state.running_bytes.saturating_sub(self.bytes);
        }
        self.limiter.let_through();
    }
}

#[cfg(test)]
mod tests;
