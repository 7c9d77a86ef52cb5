//! What has to be done now and then: idle partitions, offsets that nobody needs, a look at the store's health. Retention is
//! in [`super::upkeep`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use robustmq_common::admin::Component;
use robustmq_common::ids::TopicId;
use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use crate::group::coordinator::Coordinator;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::topics::Catalogue;

pub(super) struct Housekeeping {
    pub store: Arc<dyn Store>,
    pub store_ready: Component,
    pub topics: Arc<Catalogue>,
    pub log: Arc<Log>,
    pub groups: Coordinator,
    pub metrics: Arc<Metrics>,
    pub offset_retention: Duration,
}

impl Housekeeping {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut evict = tokio::time::interval(limits::PARTITION_IDLE / 4);
        let mut expire = tokio::time::interval(limits::GROUP_EXPIRY_INTERVAL);
        let mut health = tokio::time::interval(limits::STORE_HEALTH_INTERVAL);
        for interval in [&mut evict, &mut expire] {
            // The first tick comes at once, and a start has other things to do.
            interval.reset();
        }
        loop {
            let work = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = health.tick() => Work::Health,
                _ = evict.tick() => Work::Evict,
                _ = expire.tick() => Work::Expire,
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.work(work) => {}
            }
        }
    }

    async fn work(&self, work: Work) {
        match work {
            Work::Health => match self.store.stats().poisoned {
                // It refuses writes until it is opened again: the broker has to be restarted.
                Some(reason) => self.store_ready.not_ready(reason),
                None => self.store_ready.ready(),
            },
            Work::Evict => {
                let evicted = self.log.evict_idle(limits::PARTITION_IDLE);
                tracing::debug!(evicted, "idle partitions given back");
            }
            Work::Expire => self.expire().await,
        }
    }

    async fn expire(&self) {
        let exists = |id: TopicId| {
            let topics = Arc::clone(&self.topics);
            // A topic that cannot be read now keeps its offsets.
            async move { topics.get_by_id(id).await.map_or(true, |topic| topic.is_some()) }
        };
        match self.groups.expire(self.offset_retention, wall_ms(), exists).await {
            Ok(expired) => {
                self.metrics.expired_offsets.inc_by(expired as u64);
                tracing::debug!(expired, "offsets that nobody needs removed");
            }
            Err(error) => tracing::warn!(%error, "offsets could not be expired"),
        }
    }
}

enum Work {
    Health,
    Evict,
    Expire,
}

pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
