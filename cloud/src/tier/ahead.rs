//! Which blocks a reader will want next. No object store, no clock.
//!
//! Consumers that read along ask for the offset at which their last answer ended. So a reader is known by that offset alone; each
//! time one comes, twice as much is fetched ahead of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use robustmq_common::ids::Offset;
use robustmq_common::limits;

use crate::store::keys::partition::PartitionKeys;

#[derive(Debug, Default)]
pub(super) struct Ahead {
    partitions: Mutex<HashMap<(uuid::Uuid, i32), Vec<Reader>>>,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    next: Offset,
    blocks: usize,
}

impl Ahead {
    /// A reader of `keys` got what is from `from` up to `next`. How many blocks it will want soon.
    pub(super) fn read(&self, keys: &PartitionKeys, from: Offset, next: Offset) -> usize {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let partition = (keys.topic.0, keys.partition.0);
        if partitions.len() >= limits::tier::READ_PARTITIONS && !partitions.contains_key(&partition)
        {
            // Those who go on reading are known again after two answers.
            partitions.clear();
        }
        let readers = partitions.entry(partition).or_default();
        let known = readers.iter().position(|reader| reader.next == from);
        let blocks = match known.map(|index| readers.remove(index)) {
            Some(reader) => (2 * reader.blocks).clamp(1, limits::tier::READ_AHEAD_BLOCKS),
            None => 0,
        };
        if readers.len() >= limits::tier::READERS_PER_PARTITION {
            readers.remove(0);
        }
        readers.push(Reader { next, blocks });
        blocks
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
    use robustmq_common::limits;

    use super::Ahead;
    use crate::store::keys::partition::PartitionKeys;

    #[test]
    fn who_reads_along_is_served_ahead_and_others_are_not() {
        let ahead = Ahead::default();
        let keys = PartitionKeys { topic: TopicId::random(), partition: PartitionIndex(0) };
        let read = |from, next| ahead.read(&keys, Offset(from), Offset(next));
        assert_eq!(read(0, 10), 0);
        assert_eq!((read(10, 20), read(20, 25), read(25, 30)), (1, 2, 4));
        // Another one jumps about; the first goes on.
        assert_eq!((read(500, 510), read(77, 80)), (0, 0));
        assert_eq!(read(30, 40), 8);
        let mut blocks = 0;
        for step in 4..20 {
            blocks = read(step * 10, step * 10 + 10);
        }
        assert_eq!(blocks, limits::tier::READ_AHEAD_BLOCKS);
        // Many that jump about push it out, and it is known again.
        for from in 0..limits::tier::READERS_PER_PARTITION {
            let from = i64::try_from(from).expect("few") * 1_000 + 10_000;
            read(from, from + 1);
        }
        assert_eq!((read(200, 210), read(210, 220)), (0, 1));
    }

    #[test]
    fn partitions_that_are_remembered_are_bounded() {
        let ahead = Ahead::default();
        for index in 0..=i32::try_from(limits::tier::READ_PARTITIONS).expect("some") {
            let keys = PartitionKeys { topic: TopicId::random(), partition: PartitionIndex(index) };
            ahead.read(&keys, Offset(0), Offset(1));
        }
        let known = ahead.partitions.lock().expect("no panic").len();
        assert!(known <= limits::tier::READ_PARTITIONS, "{known}");
    }
}
