//! What other policies would have fetched for the same accesses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::s3::Request;

/// What is fetched and held together, in the order in which it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Bytes of each unit.
    pub sizes: Vec<u64>,
    /// Indexes of units.
    pub accesses: Vec<usize>,
    /// Accesses from this one on are counted.
    pub counted_from: usize,
}

impl Trace {
    /// Of files that were read whole, one after the other, in each epoch. The units of a file begin where GETs for it began.
    ///
    /// `files` are keys and sizes; `order` names the files of each epoch by their index.
    #[must_use]
    pub fn of(files: &[(String, u64)], requests: &[Request], order: &[Vec<usize>]) -> Self {
        let mut starts: HashMap<&str, BTreeSet<u64>> = HashMap::new();
        let gets = requests.iter().filter(|seen| seen.method == "GET" && seen.bytes > 0);
        for seen in gets {
            let start = seen.range.as_ref().map_or(0, |range| range.start);
            starts.entry(&seen.key).or_default().insert(start);
        }
        let mut sizes = Vec::new();
        let mut units: Vec<Range<usize>> = Vec::new();
        for (key, bytes) in files {
            let mut edges = starts.remove(key.as_str()).unwrap_or_default();
            edges.extend([0, *bytes]);
            let edges: Vec<u64> = edges.into_iter().collect();
            let first = sizes.len();
            sizes.extend(edges.windows(2).map(|edge| edge[1] - edge[0]));
            units.push(first..sizes.len());
        }
        let accesses_of = |epoch: &Vec<usize>| -> Vec<usize> {
            epoch.iter().filter_map(|file| units.get(*file)).cloned().flatten().collect()
        };
        let epochs: Vec<Vec<usize>> = order.iter().map(accesses_of).collect();
        let counted_from = epochs.first().map_or(0, Vec::len);
        Self { sizes, accesses: epochs.concat(), counted_from }
    }

    fn size(&self, unit: usize) -> u64 {
        self.sizes.get(unit).copied().unwrap_or_default()
    }

    /// Runs a cache over the accesses; `is_hit` does with each what the cache does. What was missed, in bytes.
    fn missed(&self, mut is_hit: impl FnMut(usize, usize) -> bool) -> u64 {
        let mut missed = 0;
        for (at, unit) in self.accesses.iter().copied().enumerate() {
            if !is_hit(at, unit) && at >= self.counted_from {
                missed += self.size(unit);
            }
        }
        missed
    }

    /// Without a cache.
    #[must_use]
    pub fn uncached(&self) -> u64 {
        self.missed(|_, _| false)
    }

    /// The least there can be: what is used again last goes first, or is not kept at all (Belady, "A study of replacement algorithms for
    /// a virtual-storage computer", 1966).
    #[must_use]
    pub fn belady(&self, capacity: u64) -> u64 {
        let mut next_use = vec![usize::MAX; self.accesses.len()];
        let mut seen = HashMap::new();
        for (at, unit) in self.accesses.iter().enumerate().rev() {
            next_use[at] = seen.insert(*unit, at).unwrap_or(usize::MAX);
        }
        let (mut held, mut used) = (BTreeSet::new(), 0);
        self.missed(|at, unit| {
            // What is held was to be used next at this very access.
            let is_hit = held.remove(&(at, unit));
            if !is_hit {
                used += self.size(unit);
            }
            held.insert((next_use[at], unit));
            while used > capacity {
                let Some((_, last)) = held.pop_last() else { break };
                used -= self.size(last);
            }
            is_hit
        })
    }

    /// What was used longest ago goes first.
    #[must_use]
    pub fn lru(&self, capacity: u64) -> u64 {
        let (mut by_use, mut last_use, mut used) = (BTreeMap::new(), HashMap::new(), 0);
        self.missed(|at, unit| {
            let before = last_use.insert(unit, at);
            let is_hit = before.is_some_and(|before| by_use.remove(&before).is_some());
            if !is_hit {
                used += self.size(unit);
            }
            by_use.insert(at, unit);
            while used > capacity {
                let Some((_, oldest)) = by_use.pop_first() else { break };
                used -= self.size(oldest);
            }
            is_hit
        })
    }

    /// Any goes, by a seed.
    #[must_use]
    pub fn random(&self, capacity: u64, seed: u64) -> u64 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut held, mut place, mut used) = (Vec::new(), HashMap::new(), 0);
        self.missed(|_, unit| {
            if place.contains_key(&unit) {
                return true;
            }
            while used + self.size(unit) > capacity && !held.is_empty() {
                let index = rng.random_range(0..held.len());
                let gone = held.swap_remove(index);
                place.remove(&gone);
                if let Some(moved) = held.get(index) {
                    place.insert(*moved, index);
                }
                used -= self.size(gone);
            }
            if self.size(unit) <= capacity {
                used += self.size(unit);
                place.insert(unit, held.len());
                held.push(unit);
            }
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Trace;
    use crate::s3::Request;

    fn cyclic(units: usize, epochs: usize) -> Trace {
        let accesses: Vec<usize> = (0..epochs).flat_map(|_| 0..units).collect();
        Trace { sizes: vec![10; units], accesses, counted_from: units }
    }

    #[test]
    fn policies_fetch_of_a_cyclic_scan_what_theory_says() {
        let trace = cyclic(100, 11);
        let epoch = 1000.0;
        let of = |missed: u64| missed as f64 / 10.0 / epoch;
        assert!((of(trace.uncached()) - 1.0).abs() < 1e-9);
        // Nothing lives until it is used again.
        assert!((of(trace.lru(700)) - 1.0).abs() < 1e-9);
        let least = of(trace.belady(700));
        assert!((0.28..=0.31).contains(&least), "{least}");
        // What is held outlives a round if none of its misses chose it: 1 - m = exp(-m / 0.7), so the share of misses m is 0.53.
        let random = of(trace.random(700, 1));
        assert!((0.49..=0.57).contains(&random), "{random}");
        for missed in [trace.lru(1000), trace.belady(1000), trace.random(1000, 1)] {
            assert_eq!(missed, 0);
        }
        for missed in [trace.lru(0), trace.belady(0), trace.random(0, 1)] {
            assert_eq!(missed, trace.uncached());
        }
    }

    #[test]
    fn what_is_used_next_is_kept_and_what_comes_last_is_not() {
        let trace =
            Trace { sizes: vec![1; 4], accesses: vec![0, 1, 2, 0, 1, 3, 0, 1], counted_from: 0 };
        assert_eq!((trace.belady(2), trace.lru(2)), (4, 8));
        assert_eq!((trace.belady(3), trace.lru(3)), (4, 4));
    }

    #[test]
    fn units_are_where_requests_began() {
        let seen = |method: &str, key: &str, start: u64, end: u64, bytes| Request {
            at: Duration::ZERO,
            method: method.to_owned(),
            bucket: "bucket".to_owned(),
            key: key.to_owned(),
            range: Some(start..end),
            status: 206,
            bytes,
        };
        let requests = [
            seen("GET", "a", 8, 16, 8),
            seen("GET", "a", 0, 8, 8),
            seen("GET", "a", 16, 20, 4),
            seen("GET", "a", 8, 16, 8),
            seen("GET", "b", 3, 5, 0),
            seen("HEAD", "b", 2, 5, 1),
        ];
        let files = [("a".to_owned(), 20), ("b".to_owned(), 5)];
        let trace = Trace::of(&files, &requests, &[vec![1, 0], vec![0, 1]]);
        let accesses = vec![3, 0, 1, 2, 0, 1, 2, 3];
        assert_eq!(trace, Trace { sizes: vec![8, 8, 4, 5], accesses, counted_from: 4 });
    }
}
