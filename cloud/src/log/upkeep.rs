//! When which partition in memory has to be looked at by retention and compaction. No store, no clock.
//!
//! Both act on whole closed chunks, so there is something to do only when a chunk was closed since the last look, when
//! a time that the last look named has come, or when the topic's configuration may have changed.

use std::collections::HashMap;

use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;

/// Which partition.
pub type PartitionId = (TopicId, PartitionIndex);

/// What was found when a partition was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Where its open chunk began: moves when a chunk is closed.
    pub open_from: Offset,
    /// The catalogue's version then.
    pub catalogue_version: u64,
    /// When it was, milliseconds since 1970.
    pub at_ms: i64,
    /// When there is something to do though nothing is appended, milliseconds since 1970; `i64::MAX` for never.
    pub due_ms: i64,
}

/// The last look at each partition in memory.
#[derive(Debug, Default)]
pub struct Upkeep {
    looks: HashMap<PartitionId, Look>,
}

impl Upkeep {
    /// Whether a partition has to be looked at. `open_from` and `catalogue_version` as they are now.
    #[must_use]
    pub fn is_due(
        &self,
        id: PartitionId,
        open_from: Offset,
        catalogue_version: u64,
        now_ms: i64,
    ) -> bool {
        let Some(look) = self.looks.get(&id) else { return true };
        let interval = i64::try_from(limits::RETENTION_INTERVAL.as_millis()).unwrap_or(i64::MAX);
        // Topics may be created all the time, which says nothing about this one: not at each tick, then.
        let may_be_configured_anew = look.catalogue_version != catalogue_version
            && now_ms.saturating_sub(look.at_ms) >= interval;
        look.open_from != open_from || look.due_ms <= now_ms || may_be_configured_anew
    }

    /// Remembers a look.
    pub fn looked(&mut self, id: PartitionId, look: Look) {
        self.looks.insert(id, look);
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
    use super::{Look, Offset, PartitionIndex, TopicId, Upkeep};

    #[test]
    fn a_partition_is_looked_at_when_it_grew_or_its_time_has_come() {
        let id = (TopicId::random(), PartitionIndex(0));
        let mut upkeep = Upkeep::default();
        assert!(upkeep.is_due(id, Offset(0), 1, 0), "never looked at");
        let look =
            Look { open_from: Offset(5), catalogue_version: 1, at_ms: 1000, due_ms: 9_000_000 };
        upkeep.looked(id, look);
        // (open_from, catalogue_version, now_ms) -> due
        let cases = [
            ((5, 1, 1001), false),
            ((5, 1, 8_999_999), false),
            ((5, 1, 9_000_000), true),
            ((6, 1, 1001), true),
            ((5, 2, 1001), false),
            ((5, 2, 301_000), true),
        ];
        for ((open_from, version, now_ms), due) in cases {
            let is_due = upkeep.is_due(id, Offset(open_from), version, now_ms);
            assert_eq!(is_due, due, "{open_from} {version} {now_ms}");
        }
        upkeep.keep(|_| false);
        assert!(upkeep.is_empty() && upkeep.is_due(id, Offset(5), 1, 1001));
    }
}
