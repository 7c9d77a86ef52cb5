//! Log compaction (`cleanup.policy=compact`), with the semantics of Apache Kafka's log cleaner.
//!
//! A partition is clean up to an offset, and dirty from there to its open chunk. A pass reads the dirty part and
//! remembers the last offset of each key, as many as fit ([`map`]); then it goes through the log from its start and
//! rewrites, chunk by chunk, what holds superseded records ([`rewrite`], [`pass`]). When a pass is due is decided from the
//! chunk index alone ([`assess`]). [`Queue`] holds the partitions that are, the dirtiest first.
//!
//! **Invariant:** a record keeps its offset. Batches keep their range; a batch without records goes, unless it holds the last
//! sequence of a producer or the last offset of the log.
//! **Invariant:** a record goes only if a later one has its key, if it is a tombstone past its delete horizon, or if it has no
//! key (which a compacted topic does not take: it is from before the topic was compacted).
//! **Invariant:** when a tombstone goes, every earlier record of its key has gone before it, since a pass goes through the log
//! in order. So no older value comes back.
//! **Invariant:** a rewritten chunk, its entry in the chunk index and the cleaner's position are one atomic write. After a
//! crash the pass goes on there, with a map of the same offsets.
//! **Invariant:** the open chunk is not touched.
//! **Invariant:** a batch that cannot be decoded stops the partition's compaction; nothing is decided without it.
//!
//! Deliberately absent: transaction markers. There are no transactions yet; control batches are left as they are.

use robustmq_common::ids::Offset;
use robustmq_common::record::BatchError;

use crate::log::maintenance::MaintenanceError;
use crate::store::StoreError;

mod assess;
mod map;
mod pass;
mod rewrite;

pub use assess::{Assessment, CompactionRules};
pub use pass::PassSummary;

/// Why a partition was not compacted, or not to the end. What was rewritten before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// A stored batch cannot be decoded.
    #[error("the batch at offset {base_offset} cannot be decoded: {source}")]
    Batch {
        /// Its first offset.
        base_offset: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Dropped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MaintenanceError> for CompactError {
    fn from(error: MaintenanceError) -> Self {
        match error {
            MaintenanceError::Dropped => Self::Dropped,
            MaintenanceError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests;
