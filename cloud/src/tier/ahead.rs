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
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    partitions: HashMap<(uuid::Uuid, i32), Vec<Reader>>,
    /// Those who read along, when that was counted.
    along: usize,
    counted: u32,
    /// Answers so far.
    answers: u32,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    next: Offset,
    blocks: usize,
    /// The number of its last answer.
    answer: u32,
}

impl Ahead {
    /// A reader of `keys` got what is from `from` up to `next`. How many blocks it will want soon: twice as many each time, and no more
    /// than its share of the `budget_blocks` that all readers together may have ahead of them.
    pub(super) fn read(
        &self,
        keys: &PartitionKeys,
        from: Offset,
        next: Offset,
        budget_blocks: usize,
    ) -> usize {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.answers = readers.answers.wrapping_add(1);
        let share = (budget_blocks / readers.along().max(1)).max(1);
        let answer = readers.answers;
        let partition = (keys.topic.0, keys.partition.0);
        let partitions = &mut readers.partitions;
        if partitions.len() >= limits::tier::READ_PARTITIONS && !partitions.contains_key(&partition)
        {
            // Those who go on reading are known again after two answers.
            partitions.clear();
        }
        let known = partitions.entry(partition).or_default();
        let found = known.iter().position(|reader| reader.next == from);
        let blocks = match found.map(|index| known.remove(index)) {
            Some(reader) => {
                (2 * reader.blocks).clamp(1, share.min(limits::tier::READ_AHEAD_BLOCKS))
            }
            None => 0,
        };
        if known.len() >= limits::tier::READERS_PER_PARTITION {
            known.remove(0);
        }
        known.push(Reader { next, blocks, answer });
        blocks
    }
}

impl Readers {
    /// Those who read along and had one of the last answers. Counted now and then.
    fn along(&mut self) -> usize {
        let since = self.answers.wrapping_sub(self.counted);
        if self.along == 0 || since >= limits::tier::READERS_COUNTED {
            let newest = |reader: &&Reader| {
                let age = self.answers.wrapping_sub(reader.answer);
                reader.blocks > 0 && age <= limits::tier::READERS_REMEMBERED
            };
            self.along = self.partitions.values().flatten().filter(newest).count();
            self.counted = self.answers;
        }
        self.along
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
        let read = |from, next| ahead.read(&keys, Offset(from), Offset(next), 1000);
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
    fn many_who_read_along_share_what_may_be_ahead() {
        let ahead = Ahead::default();
        let partitions: Vec<_> = (0..16)
            .map(|index| PartitionKeys {
                topic: TopicId::random(),
                partition: PartitionIndex(index),
            })
            .collect();
        let mut blocks = Vec::new();
        for step in 0..20 {
            let read = |keys| ahead.read(keys, Offset(step), Offset(step + 1), 64);
            blocks = partitions.iter().map(read).collect();
        }
        assert_eq!(blocks, [4; 16]);
        // One is left, and has all of it.
        for step in 20..200 {
            blocks = vec![ahead.read(&partitions[0], Offset(step), Offset(step + 1), 64)];
        }
        assert_eq!(blocks, [limits::tier::READ_AHEAD_BLOCKS]);
    }

    #[test]
    fn partitions_that_are_remembered_are_bounded() {
        let ahead = Ahead::default();
        for index in 0..=i32::try_from(limits::tier::READ_PARTITIONS).expect("some") {
            let keys = PartitionKeys { topic: TopicId::random(), partition: PartitionIndex(index) };
            ahead.read(&keys, Offset(0), Offset(1), 1000);
        }
        let known = ahead.readers.lock().expect("no panic").partitions.len();
        assert!(known <= limits::tier::READ_PARTITIONS, "{known}");
    }
}
