//! Partitions that wait for the task that compacts, or for the one that archives.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use robustmq_common::limits;
use tokio::sync::Notify;

use super::PartitionId;

/// The most urgent partitions that are known, at most [`limits::PARTITION_QUEUE`]: what finds no place is offered again.
#[derive(Debug, Default)]
pub struct PartitionQueue {
    waiting: Mutex<HashMap<PartitionId, u32>>,
    added: Notify,
}

impl PartitionQueue {
    /// Puts a partition into the queue. Of too many, the one with the least `urgency` goes.
    pub fn offer(&self, id: PartitionId, urgency: u32) {
        let mut waiting = self.lock();
        waiting.insert(id, urgency);
        if waiting.len() > limits::PARTITION_QUEUE
            && let Some(least) = waiting.iter().min_by_key(|(_, urgency)| **urgency)
        {
            let least = *least.0;
            waiting.remove(&least);
        }
        drop(waiting);
        self.added.notify_one();
    }

    /// How many wait for which `is_meant`.
    pub fn count(&self, is_meant: impl Fn(&PartitionId) -> bool) -> usize {
        self.lock().keys().filter(|id| is_meant(id)).count()
    }

    /// Takes the most urgent partition; waits for one.
    pub async fn take(&self) -> PartitionId {
        loop {
            let most = {
                let mut waiting = self.lock();
                let most = waiting.iter().max_by_key(|(_, urgency)| **urgency).map(|(id, _)| *id);
                if let Some(id) = most {
                    waiting.remove(&id);
                }
                most
            };
            match most {
                Some(id) => return id,
                None => self.added.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PartitionId, u32>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use robustmq_common::ids::{PartitionIndex, TopicId};

    use super::{PartitionQueue, limits};

    #[test]
    fn the_most_urgent_comes_first_and_the_least_urgent_finds_no_place() {
        let queue = PartitionQueue::default();
        let id = |index| (TopicId(uuid::Uuid::nil()), PartitionIndex(index));
        assert!(queue.take().now_or_never().is_none());
        for (index, urgency) in [(1, 10), (2, 30), (3, 20), (1, 40)] {
            queue.offer(id(index), urgency);
        }
        for index in [1, 2, 3] {
            assert_eq!(queue.take().now_or_never(), Some(id(index)));
        }
        assert!(queue.take().now_or_never().is_none());
        for index in 0..=i32::try_from(limits::PARTITION_QUEUE).expect("some") {
            queue.offer(id(index), u32::try_from(index).expect("positive"));
        }
        let taken = std::iter::from_fn(|| queue.take().now_or_never());
        let taken: Vec<_> = taken.map(|id| id.1.0).collect();
        assert_eq!((taken.len(), taken.last()), (limits::PARTITION_QUEUE, Some(&1)));
    }
}
