//! Which partitions are read at the moment: they share what is for read-ahead.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

/// The partitions that were read lately.
#[derive(Debug, Default)]
pub(super) struct Active {
    read: Mutex<HashMap<(TopicId, PartitionIndex), Instant>>,
}

impl Active {
    /// A partition is read. How many are.
    pub fn note(&self, partition: (TopicId, PartitionIndex), now: Instant) -> usize {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.insert(partition, now).is_none() {
            read.retain(|_, seen| now.saturating_duration_since(*seen) < limits::READER_KEPT);
        }
        read.len().max(1)
    }
}
