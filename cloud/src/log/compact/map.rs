//! The last offset of each key, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use robustmq_common::ids::Offset;

/// What a key takes: two hashes and an offset are 24 bytes, and a table may be seven eighths full.
const ENTRY_BYTES: usize = 37;

/// Keys by a hash of 128 bits, as Apache Kafka's offset map has them by MD5. The hash is keyed with numbers that nobody
/// outside knows: two keys are taken for one by chance only, and that once in 10^26 for a million of them.
#[derive(Debug)]
pub(super) struct OffsetMap {
    offsets: HashMap<(u64, u64), Offset>,
    hashers: (RandomState, RandomState),
    most: usize,
}

impl OffsetMap {
    /// A map that takes at most about `bytes`, and one key at least.
    pub(super) fn new(bytes: usize) -> Self {
        let hashers = (RandomState::new(), RandomState::new());
        Self { offsets: HashMap::new(), hashers, most: (bytes / ENTRY_BYTES).max(1) }
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }

    /// Remembers that `key` was last written at `offset`; offsets come in ascending order. Returns `false`, and remembers
    /// nothing, when the key is new and the map is full.
    pub(super) fn insert(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        if self.offsets.len() >= self.most && !self.offsets.contains_key(&hash) {
            return false;
        }
        self.offsets.insert(hash, offset);
        true
    }

    /// The last offset of `key`, if it was remembered.
    pub(super) fn last(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(&self.hash(key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{ENTRY_BYTES, Offset, OffsetMap};

    #[test]
    fn the_last_offset_of_each_key_is_remembered_while_there_is_room() {
        let mut map = OffsetMap::new(2 * ENTRY_BYTES);
        // (key, offset) -> taken
        let cases = [("a", 1, true), ("b", 2, true), ("c", 3, false), ("a", 4, true)];
        for (key, offset, taken) in cases {
            assert_eq!(map.insert(key.as_bytes(), Offset(offset)), taken, "{key} at {offset}");
        }
        for (key, last) in [("a", Some(4)), ("b", Some(2)), ("c", None), ("", None)] {
            assert_eq!(map.last(key.as_bytes()), last.map(Offset), "{key}");
        }
        assert!(OffsetMap::new(0).insert(b"one at least", Offset(0)));
    }
}
