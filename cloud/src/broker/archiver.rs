//! The one task that archives: an object of about 32 MB at a time, so that one of them is in memory.
//!
//! While the object store does not answer, everything stays in the store and is tried again; `robustmq_cloud_tier_failures_total`
//! grows, and one line in the log says so when it begins, now and then while it lasts, and when it ends. A partition that fails is put off, each time for twice as long, so
//! that it does not hold up the others; `robustmq_cloud_tier_put_off_partitions` counts them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::limits;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::names::topic_name;
use crate::log::{ArchivePassError, Log, LogError, PartitionId, PartitionQueue};
use crate::metrics::TierMetrics;
use crate::store::StoreError;
use crate::tier::{Archive, ArchiveError};
use crate::topics::Catalogue;

/// Archives what is offered to its queue.
pub(super) struct Archiver {
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    archive: Arc<Archive>,
    due: Arc<PartitionQueue>,
    metrics: TierMetrics,
    /// The object store did not answer the last time: when the log said so.
    down: Option<Instant>,
    put_off: HashMap<PartitionId, PutOff>,
}

/// A partition that failed, and is not tried again before a time.
#[derive(Debug, Clone, Copy)]
struct PutOff {
    until: Instant,
    pause: Duration,
    /// By an object store that did not answer: when it does, this has no reason any more.
    is_outage: bool,
}

impl Archiver {
    pub(super) fn new(
        topics: Arc<Catalogue>,
        log: Arc<Log>,
        archive: Arc<Archive>,
        due: Arc<PartitionQueue>,
    ) -> Self {
        let metrics = archive.metrics().clone();
        Self { topics, log, archive, due, metrics, down: None, put_off: HashMap::new() }
    }

    /// Runs until `shutdown`. `now_ms` is the wall clock, milliseconds since 1970.
    pub(super) async fn run(mut self, now_ms: fn() -> i64, shutdown: CancellationToken) {
        let work = async {
            loop {
                let id = self.due.take().await;
                if !self.archive_one(id, now_ms()).await {
                    tokio::time::sleep(limits::tier::RETRY).await;
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Returns `false` if nothing should be tried for a moment.
    pub(super) async fn archive_one(&mut self, id: PartitionId, now_ms: i64) -> bool {
        if self.put_off.get(&id).is_some_and(|put_off| Instant::now() < put_off.until) {
            // It is offered again while it is due.
            return true;
        }
        let (topic, partition) = id;
        let outcome = self.pass(id, now_ms).await;
        match &outcome {
            Ok(bytes @ 1..) => {
                self.metrics.archived_bytes.inc_by(*bytes);
                // There may be more of it; others have their turn before.
                self.due.offer(id, 0);
                tracing::debug!(%topic, %partition, bytes, "archived");
                self.is_up();
            }
            Ok(0)
            | Err(ArchivePassError::Dropped | ArchivePassError::Store(StoreError::Closed)) => {}
            Err(error) => {
                self.metrics.failures.inc();
                self.failed(id, error).await;
            }
        }
        let is_over = matches!(outcome, Ok(_) | Err(ArchivePassError::Dropped));
        if is_over && self.put_off.remove(&id).is_some_and(|put_off| !put_off.is_outage) {
            let topic = topic_name(&self.topics, topic).await;
            tracing::info!(%topic, %partition, "the partition is archived again");
        }
        self.count();
        !matches!(outcome, Err(ArchivePassError::Archive(ArchiveError::Unavailable(_))))
    }

    /// The object store answers: whoever it did not answer is tried when it is offered.
    fn is_up(&mut self) {
        if self.down.take().is_some() {
            self.put_off.retain(|_, put_off| !put_off.is_outage);
            tracing::info!("records are archived again");
        }
    }

    async fn failed(&mut self, id: PartitionId, error: &ArchivePassError) {
        let is_outage = matches!(error, ArchivePassError::Archive(ArchiveError::Unavailable(_)));
        let now = Instant::now();
        if self.put_off.len() >= limits::PARTITION_QUEUE {
            self.put_off.retain(|_, put_off| now < put_off.until);
        }
        if self.put_off.len() >= limits::PARTITION_QUEUE {
            self.put_off.clear();
        }
        let before = self.put_off.get(&id).copied();
        let pause = before.map_or(limits::tier::RETRY, |before| before.pause * 2);
        let pause = pause.min(match is_outage {
            true => limits::tier::RETRY_OUTAGE_MOST,
            false => limits::tier::RETRY_MOST,
        });
        self.put_off.insert(id, PutOff { until: now + pause, pause, is_outage });
        let (topic, partition) = (topic_name(&self.topics, id.0).await, id.1);
        if !is_outage {
            // One line for each partition that fails by itself.
            match before.is_some_and(|before| !before.is_outage) {
                true => tracing::debug!(%topic, %partition, %error, "records stay in the store"),
                false => {
                    tracing::warn!(%topic, %partition, %error, "records stay in the store, and are archived later");
                }
            }
            return;
        }
        // And one for all that an outage holds up.
        if self.down.is_some_and(|told| now.duration_since(told) < limits::tier::TOLD_AGAIN) {
            return tracing::debug!(%topic, %partition, %error, "records stay in the store");
        }
        self.down = Some(now);
        let partitions = self.put_off.len() + self.due.count(|id| !self.put_off.contains_key(id));
        tracing::warn!(
            %topic, %partition, partitions, %error,
            "nothing can be archived: records of so many partitions stay in the store, and are archived later"
        );
    }

    fn count(&self) {
        let put_off = i64::try_from(self.put_off.len()).unwrap_or(i64::MAX);
        self.metrics.put_off_partitions.set(put_off);
    }

    async fn pass(&self, id: PartitionId, now_ms: i64) -> Result<u64, ArchivePassError> {
        let topic = self.topics.get_by_id(id.0).await?;
        let Some(rules) = topic.and_then(|topic| topic.config.tier) else { return Ok(0) };
        let partition = match self.log.partition(id.0, id.1).await {
            Err(LogError::Dropped(_)) => return Err(ArchivePassError::Dropped),
            partition => partition?,
        };
        partition.archive(&self.archive, &rules, now_ms).await
    }
}

#[cfg(test)]
pub(super) mod tests;
