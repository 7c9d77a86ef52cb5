//! When which partition in memory has to be looked at by retention, compaction and archiving. No store, no clock.
//!
//! They act on whole chunks, so there is something to do only when a chunk was closed or begun since the last look, when a
//! time that the last look named has come, or when the topic was configured anew: then its looks are forgotten.

use std::collections::{HashMap, HashSet};

use robustmq_common::ids::{Offset, PartitionIndex, TopicId};

/// Which partition.
pub type PartitionId = (TopicId, PartitionIndex);

/// How far a partition had grown: where its open chunk began, and whether there was anything in it. An empty one has no time at
/// which it comes of age, its first records have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth(pub(super) Offset, pub(super) bool);

/// What was found when a partition was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// How far it had grown.
    pub growth: Growth,
    /// When there is something to do though nothing is appended, milliseconds since 1970; `i64::MAX` for never.
    pub due_ms: i64,
}

/// The last look at each partition in memory.
#[derive(Debug, Default)]
pub struct Upkeep {
    looks: HashMap<PartitionId, Look>,
}

impl Upkeep {
    /// Whether a partition has to be looked at. `growth` as it is now.
    #[must_use]
    pub fn is_due(&self, id: PartitionId, growth: Growth, now_ms: i64) -> bool {
        self.looks.get(&id).is_none_or(|look| look.growth != growth || look.due_ms <= now_ms)
    }

    /// Remembers a look.
    pub fn looked(&mut self, id: PartitionId, look: Look) {
        self.looks.insert(id, look);
    }

    /// Forgets the looks at these topics, or at all: they said what an older configuration wants.
    pub fn configured_anew(&mut self, topics: Option<&HashSet<TopicId>>) {
        self.looks.retain(|(topic, _), _| topics.is_some_and(|topics| !topics.contains(topic)));
    }

    /// Forgets the partitions for which `in_memory` says no. Call it now and then: it is what bounds this.
    pub fn keep(&mut self, in_memory: impl Fn(PartitionId) -> bool) {
        self.looks.retain(|id, _| in_memory(*id));
    }

    /// Partitions remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.looks.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.looks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Growth, HashSet, Look, Offset, PartitionIndex, TopicId, Upkeep};

    #[test]
    fn a_partition_is_looked_at_when_it_grew_or_its_time_has_come() {
        let id = (TopicId::random(), PartitionIndex(0));
        let mut upkeep = Upkeep::default();
        assert!(upkeep.is_due(id, Growth(Offset(0), false), 0), "never looked at");
        upkeep.looked(id, Look { growth: Growth(Offset(5), false), due_ms: 9_000 });
        // ((open_from, holds_any), now_ms) -> due
        let cases = [
            ((5, false), 1001, false),
            ((5, false), 8_999, false),
            ((5, false), 9_000, true),
            ((5, true), 1001, true),
            ((6, false), 1001, true),
        ];
        for ((open_from, holds_any), now_ms, due) in cases {
            let growth = Growth(Offset(open_from), holds_any);
            assert_eq!(upkeep.is_due(id, growth, now_ms), due, "{growth:?} {now_ms}");
        }
        upkeep.keep(|_| false);
        assert!(upkeep.is_empty() && upkeep.is_due(id, Growth(Offset(5), false), 1001));
    }

    #[test]
    fn a_topic_that_is_configured_anew_is_looked_at_and_others_are_not() {
        let ids = [0, 1, 2].map(|index| (TopicId::random(), PartitionIndex(index)));
        let growth = Growth(Offset(5), true);
        let mut upkeep = Upkeep::default();
        for id in ids {
            upkeep.looked(id, Look { growth, due_ms: i64::MAX });
        }
        upkeep.configured_anew(Some(&HashSet::from([ids[1].0])));
        let due = |upkeep: &Upkeep| ids.map(|id| upkeep.is_due(id, growth, 0));
        assert_eq!(due(&upkeep), [false, true, false]);
        upkeep.configured_anew(None);
        assert_eq!(due(&upkeep), [true; 3]);
    }
}
