//! Which sequences of which edge lanes a partition holds. No store, no clock.

use std::collections::HashMap;

use robustmq_common::ids::{EdgeId, EdgeSeq, Incarnation, LaneId, Offset};
use robustmq_common::limits;

/// One lane of one incarnation of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginKey {
    /// The edge.
    pub edge: EdgeId,
    /// Which of its queue stores.
    pub incarnation: Incarnation,
    /// Which lane.
    pub lane: LaneId,
}

/// Where a batch's records come from. The sequences between need not all be here: a lane feeds many partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The lane.
    pub key: OriginKey,
    /// The edge sequence of the first record of the batch.
    pub first_seq: EdgeSeq,
    /// The edge sequence of the last record of the batch.
    pub last_seq: EdgeSeq,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum OriginCheck {
    /// All its records are new.
    Next,
    /// Some or all were applied before.
    Applied(EdgeSeq),
    /// Not in memory.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// `None`: nothing was applied of this lane.
    applied: Option<EdgeSeq>,
    /// The offset of its last record; `None` if the store has it.
    last_offset: Option<Offset>,
}

/// The positions that are in memory; the others are in the store.
#[derive(Debug, Default)]
pub(super) struct Origins {
    entries: HashMap<OriginKey, Entry>,
}

impl Origins {
    pub(super) fn check(&self, origin: &Origin) -> OriginCheck {
        match self.entries.get(&origin.key) {
            None => OriginCheck::Unknown,
            Some(Entry { applied: Some(applied), .. }) if origin.first_seq <= *applied => {
                OriginCheck::Applied(*applied)
            }
            Some(_) => OriginCheck::Next,
        }
    }

    /// What was applied, and the offset that has to be durable before that may be told; `None` if it is not in memory.
    pub(super) fn get(&self, key: &OriginKey) -> Option<(Option<EdgeSeq>, Option<Offset>)> {
        self.entries.get(key).map(|entry| (entry.applied, entry.last_offset))
    }

    /// What was applied of each lane in memory.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&OriginKey, EdgeSeq)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.applied?)))
    }

    /// Takes over what the store says, unless memory knows better.
    pub(super) fn load(
        &mut self,
        key: &OriginKey,
        applied: Option<EdgeSeq>,
        stored_before: Offset,
    ) {
        if !self.entries.contains_key(key) {
            self.make_room(stored_before);
            self.entries.insert(key.clone(), Entry { applied, last_offset: None });
        }
    }

    /// Records an append.
    pub(super) fn record(&mut self, origin: &Origin, last_offset: Offset, stored_before: Offset) {
        if !self.entries.contains_key(&origin.key) {
            self.make_room(stored_before);
        }
        let entry = Entry { applied: Some(origin.last_seq), last_offset: Some(last_offset) };
        self.entries.insert(origin.key.clone(), entry);
    }

    /// Drops what the store knows as well. Entries whose write is still on its way stay: those are bounded by the store's
    /// queue, and in a volatile mode by what it keeps in memory.
    fn make_room(&mut self, stored_before: Offset) {
        if self.entries.len() >= limits::CACHED_ORIGINS_PER_PARTITION {
            let on_its_way =
                |entry: &Entry| entry.last_offset.is_some_and(|last| last >= stored_before);
            self.entries.retain(|_, entry| on_its_way(entry));
        }
    }

    /// What they take of memory, about.
    pub(super) fn bytes(&self) -> usize {
        // Maps are at worst half empty; names of edges have few characters.
        const ENTRY: usize = 2 * size_of::<(OriginKey, Entry)>() + limits::EDGE_ID_CHARS;
        self.entries.len() * ENTRY
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        EdgeId, EdgeSeq, Incarnation, LaneId, Offset, Origin, OriginCheck, OriginKey, Origins,
    };
    use robustmq_common::limits;

    fn origin(edge: usize, first: u64, last: u64) -> Origin {
        let edge = EdgeId::new(&format!("edge-{edge}")).expect("a legal name");
        let key = OriginKey { edge, incarnation: Incarnation(1), lane: LaneId(0) };
        Origin { key, first_seq: EdgeSeq(first), last_seq: EdgeSeq(last) }
    }

    #[test]
    fn only_sequences_beyond_what_was_applied_are_next() {
        let mut origins = Origins::default();
        assert_eq!(origins.check(&origin(1, 1, 5)), OriginCheck::Unknown);
        origins.load(&origin(1, 1, 5).key, None, Offset(0));
        assert_eq!(origins.check(&origin(1, 1, 5)), OriginCheck::Next);
        origins.record(&origin(1, 1, 5), Offset(4), Offset(0));
        let applied = OriginCheck::Applied(EdgeSeq(5));
        assert_eq!(origins.check(&origin(1, 1, 5)), applied);
        assert_eq!(origins.check(&origin(1, 5, 9)), applied);
        assert_eq!(origins.check(&origin(1, 6, 6)), OriginCheck::Next);
        assert_eq!(origins.check(&origin(1, 60, 61)), OriginCheck::Next);
    }

    #[test]
    fn room_is_made_without_losing_what_is_not_durable() {
        let mut origins = Origins::default();
        origins.record(&origin(0, 1, 1), Offset(100), Offset(50));
        for edge in 1..=limits::CACHED_ORIGINS_PER_PARTITION {
            origins.load(&origin(edge, 1, 1).key, None, Offset(50));
        }
        assert!(origins.len() <= limits::CACHED_ORIGINS_PER_PARTITION);
        assert_eq!(origins.check(&origin(0, 1, 1)), OriginCheck::Applied(EdgeSeq(1)));
    }
}
