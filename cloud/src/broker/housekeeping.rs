//! What has to be done now and then: idle partitions, offsets that nobody needs, a look at the store's health. Retention is
//! in [`super::upkeep`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use robustmq_common::admin::Component;
use robustmq_common::ids::TopicId;
use robustmq_common::limits;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::dataset::Caches;
use crate::group::coordinator::Coordinator;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, WriteBatch, write};
use crate::topics::Catalogue;

pub(super) struct Housekeeping {
    pub store: Arc<dyn Store>,
    pub store_ready: Component,
    pub topics: Arc<Catalogue>,
    pub log: Arc<Log>,
    pub caches: Caches,
    pub groups: Coordinator,
    pub metrics: Arc<Metrics>,
    pub offset_retention: Duration,
}

impl Housekeeping {
    /// Runs until `shutdown`. None of its parts waits for another: `/ready` says what is true while partitions are written.
    pub async fn run(self, shutdown: CancellationToken) {
        let work = async {
            tokio::join!(
                self.look_at_health(),
                self.make_room(),
                self.share_cache(),
                self.caches.make_way(),
                self.give_back(),
                self.expire_offsets(),
            )
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = work => {}
        }
    }

    async fn look_at_health(&self) {
        let mut ticks = every(limits::STORE_HEALTH_INTERVAL);
        loop {
            ticks.tick().await;
            let unstored_bytes = i64::try_from(self.log.unstored_bytes()).unwrap_or(i64::MAX);
            self.metrics.log_unstored_bytes.set(unstored_bytes);
            match refusal(&*self.store).await {
                Some(reason) => self.store_ready.not_ready(reason),
                None => self.store_ready.ready(),
            }
        }
    }

    /// Before somebody needs it.
    async fn make_room(&self) {
        let mut ticks = every(limits::PARTITION_IDLE_WHEN_FULL);
        loop {
            ticks.tick().await;
            if !self.log.make_room() {
                self.log.settle_idle(limits::PARTITION_IDLE_WHEN_FULL).await;
                self.log.make_room();
            }
        }
    }

    /// Extents of datasets may have what others do not take.
    async fn share_cache(&self) {
        let mut ticks = every(limits::STORE_HEALTH_INTERVAL);
        loop {
            ticks.tick().await;
            self.caches.share();
        }
    }

    async fn give_back(&self) {
        let mut ticks = every(limits::PARTITION_IDLE / 4);
        loop {
            ticks.tick().await;
            self.log.settle_idle(limits::PARTITION_IDLE).await;
            let evicted = self.log.evict_idle(limits::PARTITION_IDLE);
            tracing::debug!(evicted, "idle partitions given back");
        }
    }

    async fn expire_offsets(&self) {
        let mut ticks = every(limits::GROUP_EXPIRY_INTERVAL);
        loop {
            ticks.tick().await;
            self.expire().await;
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

/// Why the store takes no writes, and what to do; `None` while it does. After it was full, only a write that works shows
/// that it takes them again.
async fn refusal(store: &dyn Store) -> Option<String> {
    let stats = store.stats();
    if stats.poisoned.is_none() && stats.no_space.is_none() && stats.unavailable.is_none() {
        return None;
    }
    let error = write(store, WriteBatch::new()).await.err()?;
    let what_to_do = match error {
        StoreError::NoSpace(_) => "make room; writes are taken again as soon as there is some",
        StoreError::Unavailable(_) => "writes are taken again as soon as it does",
        StoreError::Poisoned(_) => "look at the disk and at the log, then restart the broker",
        _ => "look at the log",
    };
    Some(format!("{error}; {what_to_do}"))
}

/// The first tick comes after one `interval`: a start has other things to do.
fn every(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

pub(super) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::refusal;
    use crate::store::{MemoryStore, Store, StoreError, WriteBatch, write};

    async fn refused_write(store: &MemoryStore) {
        let mut batch = WriteBatch::new();
        batch.put("key", "value");
        write(store, batch).await.expect_err("the store takes none");
    }

    async fn check(store: &MemoryStore, expected: Option<&str>) {
        let found = refusal(store).await;
        let says = found.as_deref().zip(expected).is_some_and(|(found, text)| found.contains(text));
        assert!(says || (found.is_none() && expected.is_none()), "{found:?} and not {expected:?}");
    }

    /// `/ready` said 200 while every write was refused, since only a failed sync counted.
    #[tokio::test]
    async fn a_full_disk_is_told_until_a_write_works_again() {
        let store = MemoryStore::new();
        check(&store, None).await;
        store.set_full(true);
        refused_write(&store).await;
        check(&store, Some("is full")).await;
        check(&store, Some("make room")).await;
        // There is room, and the first write into it fails still, as it does until RocksDB itself has noticed.
        store.set_full(false);
        store.fail_next(StoreError::NoSpace("not yet".to_owned()));
        check(&store, Some("not yet")).await;
        check(&store, None).await;
        assert_eq!(store.stats().no_space, None);
    }

    #[tokio::test]
    async fn a_failed_store_is_told_with_what_to_do() {
        let store = MemoryStore::new();
        store.fail_next(StoreError::Poisoned("sync failed".to_owned()));
        refused_write(&store).await;
        check(&store, Some("sync failed")).await;
        check(&store, Some("restart the broker")).await;
    }
}
