//! What goes on in each topic: records and bytes in and out, and from the log and the groups what is held and how far readers are
//! behind.
//!
//! Counters exist for topics that are active, and are dropped when they are idle: a million topics cost what the active ones cost.
//! A batch costs a look-up and two additions, a record nothing. Everything else ([`report`]) is looked up when it is asked for, or for
//! the busiest topics now and then ([`Busiest`]).
//!
//! **Invariant:** at most [`limits::TRACKED_TOPICS`] topics are counted; batches of others are counted together.
//! **Invariant:** `/metrics` names at most `[admin] metrics_topics` topics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use robustmq_common::ids::TopicId;
use robustmq_common::limits;
use serde::Serialize;

mod busiest;
pub mod report;
mod sharing;

pub use busiest::Busiest;
pub use sharing::Sharing;

/// Counted since the topic became active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records taken from producers and edges.
    pub produced_records: u64,
    /// Bytes of their batches.
    pub produced_bytes: u64,
    /// Records given to consumers, in whole batches.
    pub fetched_records: u64,
    /// Bytes of those batches.
    pub fetched_bytes: u64,
}

/// For each second, averaged with a weight that halves about every 40 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    /// See [`Totals::produced_records`].
    pub produced_records: f64,
    /// See [`Totals::produced_bytes`].
    pub produced_bytes: f64,
    /// See [`Totals::fetched_records`].
    pub fetched_records: f64,
    /// See [`Totals::fetched_bytes`].
    pub fetched_bytes: f64,
}

impl Rates {
    /// What the busiest topics are chosen by: bytes in and out.
    fn bytes(&self) -> f64 {
        self.produced_bytes + self.fetched_bytes
    }
}

#[derive(Debug, Default)]
struct Counters {
    produced_records: AtomicU64,
    produced_bytes: AtomicU64,
    fetched_records: AtomicU64,
    fetched_bytes: AtomicU64,
    averaged: Mutex<Averaged>,
}

/// What a tick knows from the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Averaged {
    totals: Totals,
    rates: Rates,
    /// Nothing has happened for so long.
    idle: Duration,
}

impl Counters {
    fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            produced_records: load(&self.produced_records),
            produced_bytes: load(&self.produced_bytes),
            fetched_records: load(&self.fetched_records),
            fetched_bytes: load(&self.fetched_bytes),
        }
    }

    fn averaged(&self) -> Averaged {
        *self.averaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `weight` is what the time since the last tick counts, 0 to 1. Returns for how long nothing has happened.
    fn tick(&self, elapsed: Duration, weight: f64) -> Duration {
        let totals = self.totals();
        let mut averaged = self.averaged.lock().unwrap_or_else(PoisonError::into_inner);
        let before = averaged.totals;
        let seconds = elapsed.as_secs_f64();
        let rates = &mut averaged.rates;
        let average = |rate: &mut f64, now: u64, before: u64| {
            // Exact up to 2^53 in one tick.
            let latest = now.saturating_sub(before) as f64 / seconds;
            *rate += weight * (latest - *rate);
        };
        average(&mut rates.produced_records, totals.produced_records, before.produced_records);
        average(&mut rates.produced_bytes, totals.produced_bytes, before.produced_bytes);
        average(&mut rates.fetched_records, totals.fetched_records, before.fetched_records);
        average(&mut rates.fetched_bytes, totals.fetched_bytes, before.fetched_bytes);
        averaged.idle = if totals == before { averaged.idle + elapsed } else { Duration::ZERO };
        averaged.totals = totals;
        averaged.idle
    }
}

type Shard = RwLock<HashMap<TopicId, Arc<Counters>>>;

/// The counters of all active topics.
#[derive(Debug)]
pub struct Traffic {
    shards: Vec<Shard>,
    tracked: AtomicUsize,
    most: usize,
    untracked_batches: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self::with_room(limits::TRACKED_TOPICS)
    }
}

/// Topic ids are random, so that their first byte spreads them evenly.
const SHARDS: usize = 64;

impl Traffic {
    /// Counts for at most `most` topics.
    #[must_use]
    pub fn with_room(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, tracked: AtomicUsize::new(0), most, untracked_batches: AtomicU64::new(0) }
    }

    /// A batch was taken from a producer or an edge.
    pub fn produced(&self, topic: TopicId, records: u64, bytes: usize) {
        self.with(topic, |counters| {
            counters.produced_records.fetch_add(records, Ordering::Relaxed);
            counters.produced_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        });
    }

    /// Batches were given to a consumer.
    pub fn fetched(&self, topic: TopicId, records: u64, bytes: usize) {
        self.with(topic, |counters| {
            counters.fetched_records.fetch_add(records, Ordering::Relaxed);
            counters.fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        });
    }

    fn shard(&self, topic: TopicId) -> Option<&Shard> {
        self.shards.get(usize::from(topic.as_bytes()[0]) % SHARDS)
    }

    fn with(&self, topic: TopicId, count: impl FnOnce(&Counters)) {
        let Some(shard) = self.shard(topic) else { return };
        if let Some(counters) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&topic) {
            return count(counters);
        }
        if self.tracked.load(Ordering::Relaxed) >= self.most {
            self.untracked_batches.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        let counters = shard.entry(topic).or_insert_with(|| {
            self.tracked.fetch_add(1, Ordering::Relaxed);
            Arc::default()
        });
        count(counters);
    }

    fn counters(&self, topic: TopicId) -> Option<Arc<Counters>> {
        let shard = self.shard(topic)?.read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&topic).cloned()
    }

    /// What was counted of a topic, and its rates; `None` if it is not active.
    #[must_use]
    pub fn of(&self, topic: TopicId) -> Option<(Totals, Rates)> {
        let counters = self.counters(topic)?;
        Some((counters.totals(), counters.averaged().rates))
    }

    /// Topics that are counted.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked.load(Ordering::Relaxed)
    }

    /// Batches of topics that were not counted because too many are active.
    #[must_use]
    pub fn untracked_batches(&self) -> u64 {
        self.untracked_batches.load(Ordering::Relaxed)
    }

    /// Moves the rates on by `elapsed`, and drops topics that are idle: for long, or at all when room is short.
    pub fn tick(&self, elapsed: Duration) {
        if elapsed.is_zero() {
            return;
        }
        let weight = 1.0 - (-elapsed.as_secs_f64() / limits::TRAFFIC_AVERAGE.as_secs_f64()).exp();
        let short = self.tracked() > self.most / 4 * 3;
        let patience = if short { Duration::ZERO } else { limits::TRAFFIC_IDLE };
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|_, counters| counters.tick(elapsed, weight) <= patience);
            self.tracked.fetch_sub(before - shard.len(), Ordering::Relaxed);
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
    }

    /// The `most` topics with the highest rates of bytes, the busiest first.
    #[must_use]
    pub fn busiest(&self, most: usize) -> Vec<TopicId> {
        let mut all: Vec<(f64, u64, TopicId)> = Vec::with_capacity(self.tracked());
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(topic, counters)| {
                let totals = counters.totals();
                let moved = totals.produced_bytes.saturating_add(totals.fetched_bytes);
                (counters.averaged().rates.bytes(), moved, *topic)
            }));
        }
        let busier = |a: &(f64, u64, TopicId), b: &(f64, u64, TopicId)| {
            b.0.total_cmp(&a.0).then_with(|| (b.1, b.2).cmp(&(a.1, a.2)))
        };
        if all.len() > most && most > 0 {
            all.select_nth_unstable_by(most - 1, busier);
        }
        all.truncate(most);
        all.sort_unstable_by(busier);
        all.into_iter().map(|(_, _, topic)| topic).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rates_follow_what_happens_and_decay() {
        let traffic = Traffic::default();
        let topic = TopicId::random();
        for _ in 0..600 {
            traffic.produced(topic, 10, 1000);
            traffic.fetched(topic, 5, 500);
            traffic.tick(SECOND);
        }
        let (totals, rates) = traffic.of(topic).expect("it is active");
        assert_eq!((totals.produced_records, totals.produced_bytes), (6000, 600_000));
        assert_eq!((totals.fetched_records, totals.fetched_bytes), (3000, 300_000));
        let near = |rate: f64, expected: f64| assert!((rate - expected).abs() < 1.0, "{rate}");
        near(rates.produced_records, 10.0);
        near(rates.produced_bytes, 1000.0);
        near(rates.fetched_bytes, 500.0);
        for _ in 0..60 {
            traffic.tick(SECOND);
        }
        let (_, rates) = traffic.of(topic).expect("not idle for long");
        assert!((300.0..400.0).contains(&rates.produced_bytes), "{rates:?}");
        traffic.tick(limits::TRAFFIC_IDLE);
        assert_eq!((traffic.of(topic), traffic.tracked()), (None, 0));
    }

    #[test]
    fn only_so_many_are_counted_and_idle_ones_make_room() {
        let traffic = Traffic::with_room(100);
        let topics: Vec<_> = (0..150).map(|_| TopicId::random()).collect();
        topics.iter().for_each(|topic| traffic.produced(*topic, 1, 1));
        assert_eq!((traffic.tracked(), traffic.untracked_batches()), (100, 50));
        traffic.tick(SECOND);
        assert_eq!(traffic.tracked(), 100);
        traffic.produced(topics[0], 1, 1);
        traffic.tick(SECOND);
        assert_eq!(traffic.tracked(), 1);
        traffic.produced(topics[149], 1, 1);
        assert!(traffic.of(topics[149]).is_some() && traffic.of(topics[0]).is_some());
    }

    #[test]
    fn the_busiest_come_first() {
        let traffic = Traffic::default();
        let topics: Vec<_> = (0..20).map(|_| TopicId::random()).collect();
        for (bytes, topic) in topics.iter().enumerate() {
            traffic.produced(*topic, 1, bytes);
        }
        traffic.tick(SECOND);
        let expected: Vec<_> = topics.iter().rev().take(3).copied().collect();
        assert_eq!(traffic.busiest(3), expected);
        assert_eq!(traffic.busiest(100).len(), 20);
        assert!(traffic.busiest(0).is_empty());
    }
}
