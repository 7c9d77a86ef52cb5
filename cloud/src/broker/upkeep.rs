//! Retention, and what is to be compacted: in time and without visiting every partition.
//!
//! Partitions in memory are asked every `[storage] upkeep_interval_ms`; [`Upkeep`] says from memory alone which of them have
//! something to do. Those that are not in memory had their turn while they were; what has come due since, or was missed
//! because the broker stopped, is found by a walk that never ends: [`limits::UPKEEP_STEP_PARTITIONS`] a second, in the
//! order of the catalogue. So a start reads nothing, a million idle topics cost as much as those few, and active ones
//! what they are.
//!
//! **Invariant:** nothing is deleted by a configuration that is older than the read of its topic a moment before.

use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::{KafkaTopic, PartitionIndex};
use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use crate::log::{
    DeleteRecordsError, Log, LogError, Look, Partition, PartitionId, PartitionQueue, StorageMode,
    Upkeep,
};
use crate::store::StoreError;
use crate::store::keys::partition::PartitionKeys;
use crate::topics::{Catalogue, Topic, TopicConfig};

/// Why a partition was not looked at, or not to the end.
#[derive(Debug, thiserror::Error)]
enum UpkeepError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Delete(#[from] DeleteRecordsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks after the partitions of one log.
pub(super) struct Upkeeper {
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    cleaner: Arc<PartitionQueue>,
    archiver: Arc<PartitionQueue>,
    interval: Duration,
    upkeep: Upkeep,
    /// The catalogue's version up to which `upkeep` knows what was configured anew.
    catalogue_version: u64,
    walk: Walk,
    /// Partitions that failed since the last warning.
    failed: usize,
}

/// Where the walk over all partitions is.
#[derive(Debug, Default)]
struct Walk {
    /// The topic before the next one.
    after: Option<KafkaTopic>,
    /// The next topic's next partition.
    partition: i32,
    /// When the round began, milliseconds since 1970.
    began_ms: i64,
    /// The round is over.
    is_over: bool,
}

impl Upkeeper {
    /// What is to be compacted is offered to `cleaner`, what is to be archived to `archiver`.
    pub(super) fn new(
        topics: Arc<Catalogue>,
        log: Arc<Log>,
        cleaner: Arc<PartitionQueue>,
        archiver: Arc<PartitionQueue>,
        interval: Duration,
    ) -> Self {
        let (upkeep, walk) = (Upkeep::default(), Walk::default());
        let catalogue_version = topics.version();
        Self {
            topics,
            log,
            cleaner,
            archiver,
            interval,
            upkeep,
            catalogue_version,
            walk,
            failed: 0,
        }
    }

    /// Runs until `shutdown`. `now_ms` is the wall clock, milliseconds since 1970.
    pub(super) async fn run(mut self, now_ms: fn() -> i64, shutdown: CancellationToken) {
        let mut ask = tokio::time::interval(self.interval);
        let mut step = tokio::time::interval(limits::UPKEEP_STEP_INTERVAL);
        for interval in [&mut ask, &mut step] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            // The first tick comes at once, and a start has other things to do.
            interval.reset();
        }
        loop {
            let walks = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ask.tick() => false,
                _ = step.tick() => true,
            };
            let work = async {
                match walks {
                    true => self.step(now_ms()).await,
                    false => self.ask(now_ms()).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = work => {}
            }
        }
    }

    /// Looks at those partitions in memory that have something to do. Returns nothing: what fails is tried again.
    pub(super) async fn ask(&mut self, now_ms: i64) {
        // What is configured anew after this is known at the next tick, also to a look that has seen it.
        let version = self.topics.version();
        let configured = self.topics.configured_since(self.catalogue_version);
        self.upkeep.configured_anew(configured.as_ref());
        self.catalogue_version = version;
        let mut after = None;
        loop {
            let page = self.log.in_memory(after, limits::UPKEEP_PAGE);
            let Some(last) = page.last() else { break };
            after = Some(id_of(last));
            for partition in page {
                let id = id_of(&partition);
                if !self.upkeep.is_due(id, partition.growth(), now_ms) {
                    continue;
                }
                match self.topics.get_by_id(id.0).await {
                    Ok(Some(topic)) => self.look(&topic, &partition, now_ms).await,
                    Ok(None) => {} // deleted meanwhile
                    Err(error) => tracing::warn!(topic = %id.0, %error, "a topic cannot be read"),
                }
            }
        }
        let log = Arc::clone(&self.log);
        self.upkeep.keep(|id| log.is_in_memory(id));
        if self.failed > 1 {
            // A store that takes no writes fails all of them: one line says it.
            tracing::warn!(partitions = self.failed, "retention failed; it is tried again");
        }
        self.failed = 0;
    }

    /// One step of the walk over the partitions that are not in memory.
    pub(super) async fn step(&mut self, now_ms: i64) {
        if self.walk.is_over {
            let interval = i64::try_from(limits::RETENTION_INTERVAL.as_millis());
            if now_ms.saturating_sub(self.walk.began_ms) < interval.unwrap_or(i64::MAX) {
                return;
            }
            self.walk = Walk { began_ms: now_ms, ..Walk::default() };
        }
        let page = self.topics.list(self.walk.after.as_ref(), limits::UPKEEP_STEP_PARTITIONS).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "retention could not list the topics"),
        };
        let mut left = limits::UPKEEP_STEP_PARTITIONS;
        for topic in &page.topics {
            if needs_upkeep(topic) {
                while self.walk.partition < topic.partitions {
                    if left == 0 {
                        return;
                    }
                    left -= 1;
                    let index = PartitionIndex(self.walk.partition);
                    self.walk.partition += 1;
                    self.visit(topic, index, now_ms).await;
                }
            }
            self.walk.after = Some(topic.name.clone());
            self.walk.partition = 0;
        }
        self.walk.is_over = !page.more;
    }

    /// Looks at a partition that is not in memory, if it holds anything, and leaves it as it was.
    async fn visit(&mut self, topic: &Topic, index: PartitionIndex, now_ms: i64) {
        let id = (topic.id, index);
        if self.log.is_in_memory(id) {
            return;
        }
        let keys = PartitionKeys { topic: topic.id, partition: index };
        match self.log.store().get(&keys.end()).await {
            Ok(Some(_)) => {}
            Ok(None) => return, // never written
            Err(error) => {
                let topic = topic.name.as_str();
                return tracing::warn!(topic, partition = %index, %error, "retention failed");
            }
        }
        // Deleted meanwhile, or too many are in use: next time.
        let Ok(partition) = self.log.partition(topic.id, index).await else { return };
        self.look(topic, &partition, now_ms).await;
        drop(partition);
        self.log.unload(id);
    }

    /// Does what is to be done for one partition now.
    async fn look(&mut self, topic: &Topic, partition: &Arc<Partition>, now_ms: i64) {
        // Before the look: what comes meanwhile is seen by the next one.
        let growth = partition.growth();
        match self.enforce(topic, partition, now_ms).await {
            Ok(due_ms) => {
                self.upkeep.looked(id_of(partition), Look { growth, due_ms });
            }
            // The topic was deleted meanwhile.
            Err(
                UpkeepError::Log(LogError::Dropped(_))
                | UpkeepError::Delete(DeleteRecordsError::Dropped),
            ) => {}
            Err(error) => {
                self.failed += 1;
                if self.failed == 1 {
                    let (topic, partition) = (topic.name.as_str(), id_of(partition).1);
                    tracing::warn!(topic, %partition, %error, "retention failed; it is tried again");
                }
            }
        }
    }

    /// Returns when there is something to do next though nothing is appended.
    async fn enforce(
        &mut self,
        topic: &Topic,
        partition: &Arc<Partition>,
        now_ms: i64,
    ) -> Result<i64, UpkeepError> {
        let retention = topic.config.retention;
        let mut due_ms = i64::MAX;
        let is_ring = matches!(topic.config.storage_mode, StorageMode::Memory { .. });
        if retention.age.is_some() || retention.bytes.is_some() || is_ring {
            partition.ready_for_upkeep().await?;
            partition.enforce_retention(retention, now_ms).await?;
        }
        if let Some(age) = retention.age
            && let Some(expires_ms) = partition.expires_ms(age).await?
        {
            due_ms = due_ms.min(expires_ms);
        }
        if let Some(rules) = topic.config.compaction {
            let assessed = partition.assess_compaction(&rules, now_ms).await?;
            if assessed.is_due {
                self.cleaner.offer(id_of(partition), assessed.urgency);
                // What it finds to do next is known when it is done: look again.
                due_ms = now_ms;
            }
            due_ms = due_ms.min(assessed.due_ms);
        }
        if let Some(rules) = topic.config.tier.filter(|_| self.log.archive().is_some()) {
            let plan = partition.plan_archive(&rules, now_ms).await?;
            if plan.is_due {
                self.archiver.offer(id_of(partition), 1);
            }
            // When it is archived, the next one is looked for at once; this is for the rest.
            due_ms = due_ms.min(match plan.is_due {
                true => now_ms,
                false => plan.due_ms,
            });
        }
        Ok(due_ms)
    }
}

fn needs_upkeep(topic: &Topic) -> bool {
    let TopicConfig { retention, compaction, storage_mode, tier, .. } = &topic.config;
    retention.age.is_some()
        || retention.bytes.is_some()
        || compaction.is_some()
        || tier.is_some()
        || matches!(storage_mode, StorageMode::Memory { .. })
}

fn id_of(partition: &Partition) -> PartitionId {
    let PartitionKeys { topic, partition } = *partition.keys();
    (topic, partition)
}

#[cfg(test)]
mod tests;
