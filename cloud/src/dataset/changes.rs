//! What is changed of a topic while it is there, and what it leaves when it is deleted.

use std::sync::Weak;

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_dataset::cache::{Cache, UserId};

use super::{Datasets, ListError, Refreshed, StatusError};
use crate::objects::locate_source;
use crate::store::StoreError;
use crate::topics::{LiveSource, Topic};

/// Who a topic is to the cache.
pub(super) fn user(topic: TopicId) -> UserId {
    UserId(topic.0.as_u128())
}

/// What the cache is to know of a topic's configuration.
pub(super) fn take_over_cache(cache: &Cache, topic: TopicId, live: LiveSource) {
    let user = user(topic);
    match live.is_pinned {
        true => cache.pin(user),
        false => cache.unpin(user),
    }
    cache.set_weight(user, live.cache_weight);
}

impl Datasets {
    /// Lists a topic's source again. What is new is in the epochs that begin from now on.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn refresh(&self, topic: &Topic, now_ms: i64) -> Result<Refreshed, StatusError> {
        let none = || StatusError::NoDataset(topic.name.clone());
        let config = topic.config.source.as_ref().ok_or_else(none)?;
        let dataset = self.dataset(topic.id).await?.ok_or_else(none)?;
        let location = locate_source(&config.url)
            .map_err(|reason| ListError(format!("{}: {reason}", config.url)))?;
        let roots = self.file_roots.as_deref();
        let (mut refreshed, missing) =
            dataset.manifest.refresh(&location, config, roots, now_ms).await?;
        for (name, ordinal) in refreshed.missing.iter().zip(missing) {
            if !dataset.is_indexed(ordinal).await? {
                refreshed.uncounted.push(name.clone());
            }
        }
        self.wake(topic.id);
        Ok(refreshed)
    }

    /// Keeps the partitions of a topic that is counted at once, and those of no other.
    async fn keep(&self, topic: TopicId) -> Result<(), StoreError> {
        let Some(topics) = self.topics.upgrade() else { return Ok(()) };
        let found = topics.get_by_id(topic).await?;
        let config = found.as_ref().and_then(|found| found.config.source.as_ref());
        let is_kept = config.is_some_and(|config| config.live.is_eager);
        let mut partitions = Vec::new();
        for index in 0..found.filter(|_| is_kept).map_or(0, |found| found.partitions) {
            partitions.extend(self.partition(topic, PartitionIndex(index)).await?);
        }
        let _before = {
            let mut inner = self.lock();
            // It may have been deleted meanwhile.
            match is_kept && inner.topics.contains(&topic) {
                true => inner.kept.insert(topic, partitions),
                false => inner.kept.remove(&topic),
            }
        };
        Ok(())
    }

    /// What ends with a topic that is counted at once, as soon as it is.
    #[cfg(test)]
    pub fn cancel_of(&self, topic: TopicId) -> Option<tokio_util::sync::CancellationToken> {
        let inner = self.lock();
        Some(inner.kept.get(&topic)?.first()?.dataset.cancel.clone())
    }

    /// A topic that is not open yet reads these bytes, for as long as somebody holds what is returned.
    #[cfg(test)]
    pub fn read_from(
        &self,
        config: &crate::topics::SourceConfig,
        source: std::sync::Arc<dyn robustmq_dataset::fetch::Source>,
    ) -> std::sync::Arc<dyn std::any::Any + Send + Sync> {
        let key = super::group_key(config);
        let group = super::Group::new(key, source, self.store.clone());
        let group = std::sync::Arc::new(group);
        self.lock().groups.insert(key, std::sync::Arc::downgrade(&group));
        group
    }

    /// The partitions of a topic that are open look whether there is more to count.
    fn wake(&self, topic: TopicId) {
        let open: Vec<_> = {
            let inner = self.lock();
            let own = inner.partitions.iter().filter(|((of, _), _)| *of == topic);
            own.filter_map(|(_, partition)| partition.upgrade()).collect()
        };
        open.iter().for_each(|partition| partition.demand.send_modify(|_| {}));
    }

    /// A topic was created, its configuration was changed, or it was deleted.
    pub(super) async fn follow(&self, topic: TopicId) {
        if let Err(error) = self.take_over(topic).await {
            // Both are done at the next start.
            tracing::warn!(topic_id = %topic, %error, "a change of a dataset topic is not in effect yet");
        }
    }

    async fn take_over(&self, topic: TopicId) -> Result<(), StoreError> {
        let _one_at_a_time = self.following.lock().await;
        let Some(topics) = self.topics.upgrade() else { return Ok(()) };
        let found = topics.get_by_id(topic).await?;
        let Some(config) = found.and_then(|found| found.config.source.clone()) else {
            return self.forget(topic).await;
        };
        let open = self.lock().datasets.get(&topic).and_then(Weak::upgrade);
        take_over_cache(&self.cache, topic, config.live);
        if let Some(open) = open {
            open.set_live(config.live);
        }
        // All of it is to be counted now, perhaps, or there is another epoch.
        self.wake(topic);
        self.keep(topic).await
    }
}
