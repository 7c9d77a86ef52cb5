//! The one task that compacts: the dirtiest partition first, one at a time, so that it takes one core at most and one map
//! of keys.

use std::collections::HashMap;
use std::sync::Arc;

use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use super::names::topic_name;
use crate::log::{CompactError, Log, LogError, PartitionId, PartitionQueue, PassSummary};
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::topics::Catalogue;

/// Why a partition was not compacted.
#[derive(Debug, thiserror::Error)]
enum CleanError {
    #[error(transparent)]
    Compact(#[from] CompactError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CleanError {
    /// Nothing is wrong: the topic was deleted.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Compact(CompactError::Dropped) | Self::Log(LogError::Dropped(_)))
    }

    /// It will be the same the next time.
    fn stays(&self) -> bool {
        matches!(self, Self::Compact(CompactError::Batch { .. }))
    }
}

/// Compacts what is offered to its queue.
pub(super) struct Cleaner {
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    dirty: Arc<PartitionQueue>,
    metrics: Arc<Metrics>,
    /// Partitions that are not tried again before a time, milliseconds since 1970.
    put_off: HashMap<PartitionId, i64>,
}

impl Cleaner {
    pub(super) fn new(
        topics: Arc<Catalogue>,
        log: Arc<Log>,
        dirty: Arc<PartitionQueue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { topics, log, dirty, metrics, put_off: HashMap::new() }
    }

    /// Runs until `shutdown`. `now_ms` is the wall clock, milliseconds since 1970.
    pub(super) async fn run(mut self, now_ms: fn() -> i64, shutdown: CancellationToken) {
        let work = async {
            loop {
                let id = self.dirty.take().await;
                self.clean(id, now_ms()).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    async fn clean(&mut self, id: PartitionId, now_ms: i64) {
        if self.put_off.get(&id).is_some_and(|until| now_ms < *until) {
            return;
        }
        match self.pass(id, now_ms).await {
            Ok(PassSummary { was_due: false, .. }) => {}
            Ok(PassSummary { removed_bytes, is_partial, .. }) => {
                if is_partial {
                    // Behind all others: it has just had its turn.
                    self.dirty.offer(id, 0);
                }
                self.metrics.compaction_passes.inc();
                self.metrics.compaction_removed_bytes.inc_by(removed_bytes);
                let (topic, partition) = id;
                tracing::debug!(%topic, %partition, removed_bytes, "partition compacted");
            }
            Err(error) if error.is_gone() => {}
            Err(error) => {
                self.metrics.compaction_failures.inc();
                if error.stays() {
                    self.put_off(id, now_ms);
                }
                let (topic, partition) = (topic_name(&self.topics, id.0).await, id.1);
                tracing::warn!(%topic, %partition, %error, "compaction failed; it is tried again later");
            }
        }
    }

    async fn pass(&self, id: PartitionId, now_ms: i64) -> Result<PassSummary, CleanError> {
        let topic = self.topics.get_by_id(id.0).await?;
        let Some(rules) = topic.and_then(|topic| topic.config.compaction) else {
            return Ok(PassSummary::default());
        };
        let partition = self.log.partition(id.0, id.1).await?;
        partition.ready_for_upkeep().await?;
        Ok(partition.compact(&rules, now_ms, limits::COMPACTION_MAP_BYTES).await?)
    }

    fn put_off(&mut self, id: PartitionId, now_ms: i64) {
        if self.put_off.len() >= limits::PARTITION_QUEUE {
            self.put_off.clear();
        }
        let pause = i64::try_from(limits::COMPACTION_RETRY.as_millis()).unwrap_or(i64::MAX);
        self.put_off.insert(id, now_ms.saturating_add(pause));
    }
}

#[cfg(test)]
mod tests;
