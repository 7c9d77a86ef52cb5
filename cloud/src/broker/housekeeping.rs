//! What has to be done now and then: retention, idle partitions, offsets that nobody needs, a look at the store's health.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use robustmq_common::admin::Component;
use robustmq_common::ids::{KafkaTopic, PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use crate::group::coordinator::Coordinator;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::topics::{Catalogue, Topic};

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
        let mut retain = tokio::time::interval(limits::RETENTION_INTERVAL);
        let mut expire = tokio::time::interval(limits::GROUP_EXPIRY_INTERVAL);
        let mut health = tokio::time::interval(limits::STORE_HEALTH_INTERVAL);
        for interval in [&mut evict, &mut retain, &mut expire] {
            // The first tick comes at once, and a start has other things to do.
            interval.reset();
        }
        loop {
            let work = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = health.tick() => Work::Health,
                _ = evict.tick() => Work::Evict,
                _ = retain.tick() => Work::Retain,
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
            Work::Health => {
                let memory_bytes = i64::try_from(self.log.memory_bytes()).unwrap_or(i64::MAX);
                self.metrics.log_memory_bytes.set(memory_bytes);
                match self.store.stats().poisoned {
                    // It refuses writes until it is opened again: the broker has to be restarted.
                    Some(reason) => self.store_ready.not_ready(reason),
                    None => self.store_ready.ready(),
                }
            }
            Work::Evict => {
                self.log.settle_idle(limits::PARTITION_IDLE).await;
                let evicted = self.log.evict_idle(limits::PARTITION_IDLE);
                tracing::debug!(evicted, "idle partitions given back");
            }
            Work::Retain => {
                if let Err(error) = self.retain().await {
                    tracing::warn!(%error, "retention did not go through all topics");
                }
            }
            Work::Expire => self.expire().await,
        }
    }

    async fn retain(&self) -> Result<(), StoreError> {
        let mut after: Option<KafkaTopic> = None;
        loop {
            let page = self.topics.list(after.as_ref(), limits::TOPIC_PAGE).await?;
            for topic in &page.topics {
                self.retain_topic(topic).await;
            }
            match page.topics.last() {
                Some(last) if page.more => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn retain_topic(&self, topic: &Topic) {
        let retention = topic.config.retention;
        if retention.age.is_none() && retention.bytes.is_none() {
            return;
        }
        for index in 0..topic.partitions {
            let Ok(partition) = self.log.partition(topic.id, PartitionIndex(index)).await else {
                continue; // deleted meanwhile, or the broker is busy: next time
            };
            if let Err(error) = partition.enforce_retention(retention, wall_ms()).await {
                let topic = topic.name.as_str();
                tracing::warn!(topic, index, %error, "retention failed; it is tried again");
            }
        }
    }

    async fn expire(&self) {
        let listed_ms = wall_ms();
        let known = match self.topic_ids().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "the topics cannot be listed; offsets are kept");
                return;
            }
        };
        let exists = |topic| known.contains(&topic);
        match self.groups.expire(self.offset_retention, listed_ms, exists).await {
            Ok(expired) => {
                self.metrics.expired_offsets.inc_by(expired as u64);
                tracing::debug!(expired, "offsets that nobody needs removed");
            }
            Err(error) => tracing::warn!(%error, "offsets could not be expired"),
        }
    }

    async fn topic_ids(&self) -> Result<HashSet<TopicId>, StoreError> {
        let mut ids = HashSet::new();
        let mut after: Option<KafkaTopic> = None;
        loop {
            let page = self.topics.list(after.as_ref(), limits::TOPIC_PAGE).await?;
            ids.extend(page.topics.iter().map(|topic| topic.id));
            match page.topics.last() {
                Some(last) if page.more => after = Some(last.name.clone()),
                _ => return Ok(ids),
            }
        }
    }
}

enum Work {
    Health,
    Evict,
    Retain,
    Expire,
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
