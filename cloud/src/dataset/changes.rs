//! What is changed of a topic while it is there, and what it leaves when it is deleted.

use std::sync::Weak;

use robustmq_common::ids::TopicId;
use robustmq_dataset::cache::UserId;

use super::Datasets;
use super::partition::DatasetPartition;
use crate::store::StoreError;

/// Who a topic is to the cache.
pub(super) fn user(topic: TopicId) -> UserId {
    UserId(topic.0.as_u128())
}

impl Datasets {
    /// A topic's configuration was changed, or it was deleted.
    pub(super) async fn follow(&self, topic: TopicId) {
        if let Err(error) = self.take_over(topic).await {
            // Both are done at the next start.
            tracing::warn!(%topic, %error, "a change of a dataset topic is not in effect yet");
        }
    }

    async fn take_over(&self, topic: TopicId) -> Result<(), StoreError> {
        let Some(topics) = self.topics.upgrade() else { return Ok(()) };
        let found = topics.get_by_id(topic).await?;
        let Some(config) = found.and_then(|found| found.config.source.clone()) else {
            return self.forget(topic).await;
        };
        let (open, partitions) = {
            let inner = self.lock();
            let own = inner.partitions.iter().filter(|((of, _), _)| *of == topic);
            let own: Vec<_> = own.filter_map(|(_, partition)| partition.upgrade()).collect();
            (inner.datasets.get(&topic).and_then(Weak::upgrade), own)
        };
        match config.live.is_pinned {
            true => self.cache.pin(user(topic)),
            false => self.cache.unpin(user(topic)),
        }
        if let Some(open) = open {
            open.set_live(config.live);
        }
        for partition in partitions {
            let DatasetPartition { demand, .. } = &*partition;
            // All of it is to be counted now, perhaps.
            demand.send_modify(|_| {});
        }
        Ok(())
    }
}
