//! The one task that archives: an object of about 32 MB at a time, so that one of them is in memory.
//!
//! While the object store does not answer, everything stays in the store and is tried again; `robustmq_cloud_tier_failures_total`
//! grows, and one line in the log says so when it begins and when it ends.

use std::sync::Arc;

use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

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
    /// The last attempts failed.
    is_failing: bool,
}

impl Archiver {
    pub(super) fn new(
        topics: Arc<Catalogue>,
        log: Arc<Log>,
        archive: Arc<Archive>,
        due: Arc<PartitionQueue>,
    ) -> Self {
        let metrics = archive.metrics().clone();
        Self { topics, log, archive, due, metrics, is_failing: false }
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

    /// Returns `false` if it is to be tried again after a pause.
    pub(super) async fn archive_one(&mut self, id: PartitionId, now_ms: i64) -> bool {
        let (topic, index) = id;
        match self.pass(id, now_ms).await {
            Ok(bytes) => {
                if bytes > 0 {
                    self.metrics.archived_bytes.inc_by(bytes);
                    // There may be more of it; others have their turn before.
                    self.due.offer(id, 0);
                    tracing::debug!(%topic, %index, bytes, "archived");
                }
                if bytes > 0 && std::mem::take(&mut self.is_failing) {
                    tracing::info!("records are archived again");
                }
                true
            }
            Err(ArchivePassError::Dropped | ArchivePassError::Store(StoreError::Closed)) => true,
            Err(error) => {
                self.metrics.failures.inc();
                self.due.offer(id, 0);
                let is_outage =
                    matches!(error, ArchivePassError::Archive(ArchiveError::Unavailable(_)));
                if !(is_outage && std::mem::replace(&mut self.is_failing, true)) {
                    tracing::warn!(%topic, %index, %error, "records stay in the store, and are archived later");
                }
                false
            }
        }
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
