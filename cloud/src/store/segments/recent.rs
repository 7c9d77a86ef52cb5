//! The values written last, as they came: who reads at the end of a log, as most do, gets the bytes that the producer's request left in
//! memory, and nothing is read or copied.
//!
//! **Invariant:** what is remembered is durable, and is what lies at its place: places are never written twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::index::Locator;

/// Values, up to so many bytes of them.
pub(super) struct Recent {
    most_bytes: usize,
    remembered: Mutex<Remembered>,
}

type Place = (u32, u32);

#[derive(Default)]
struct Remembered {
    values: HashMap<Place, Bytes>,
    /// The oldest first.
    order: VecDeque<Place>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, remembered: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what a group has written, and forgets the oldest.
    pub(super) fn remember(&self, written: impl Iterator<Item = (Locator, Bytes)>) {
        let mut remembered = self.lock();
        let Remembered { values, order, bytes } = &mut *remembered;
        for (place, value) in written {
            *bytes += value.len();
            order.push_back((place.segment, place.offset));
            values.insert((place.segment, place.offset), value);
        }
        while *bytes > self.most_bytes {
            let Some(oldest) = order.pop_front() else { break };
            if let Some(value) = values.remove(&oldest) {
                *bytes -= value.len();
            }
        }
    }

    /// The values at those of `places` that are remembered.
    pub(super) fn find(&self, places: &[Locator]) -> Vec<Option<Bytes>> {
        let remembered = self.lock();
        places
            .iter()
            .map(|place| remembered.values.get(&(place.segment, place.offset)).cloned())
            .collect()
    }
}
