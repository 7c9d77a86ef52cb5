//! Brings a topic into the cache before anybody reads it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use robustmq_common::ids::PartitionIndex;
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::index::{ExtentIndex, extent_id};
use tokio::time::Instant;

use super::Datasets;
use super::partition::{Dataset, DatasetPartition, Opened, PartitionError, Warming, guarded};
use super::status::StatusError;
use crate::topics::Topic;

impl Datasets {
    /// Begins to bring a topic into the cache; nothing new is begun while that goes on. [`Datasets::status`] tells how far it is.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn warm(&self, topic: &Topic) -> Result<(), StatusError> {
        let none = || StatusError::NoDataset(topic.name.clone());
        let dataset = self.dataset(topic.id).await?.ok_or_else(none)?;
        let mut partitions = Vec::new();
        for index in 0..topic.partitions {
            let partition = self.partition(topic.id, PartitionIndex(index)).await?;
            partitions.push(partition.ok_or_else(none)?);
        }
        {
            let mut warming = dataset.warming();
            if warming.is_running {
                return Ok(());
            }
            *warming = Warming { is_running: true, ..Warming::default() };
        }
        {
            let mut inner = self.lock();
            if inner.topics.contains(&topic.id) {
                inner.warming.insert(topic.id, Arc::clone(&dataset.warming));
            }
        }
        tokio::spawn(async move {
            let _end = End(Arc::clone(&dataset));
            let cancel = dataset.cancel.clone();
            let all = async {
                for partition in partitions {
                    if let Err(error) = guarded(partition.warm_up()).await {
                        let (topic, topic_id) = (dataset.name.as_str(), dataset.topic);
                        let reason = dataset.told(&error);
                        tracing::warn!(topic, %topic_id, reason, "a dataset is not brought into the cache");
                        dataset.warming().error.get_or_insert(reason);
                    }
                }
            };
            tokio::select! {
                () = all => {}
                () = cancel.cancelled() => {}
            }
        });
        Ok(())
    }
}

/// Says that it is over, however it ended.
struct End(Arc<Dataset>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.warming().is_running = false;
    }
}

impl DatasetPartition {
    /// Goes through the first epoch's objects, in its order.
    async fn warm_up(self: &Arc<Self>) -> Result<(), PartitionError> {
        let (mut place, began) = (0, Instant::now());
        while let Some(object) = self.counted_at(place, began).await? {
            place += 1;
            let opened = self.opened(object).await?;
            let mut loads = FuturesUnordered::new();
            for extent in opened.index.readable() {
                if loads.len() >= limits::INDEXING_GETS
                    && let Some(loaded) = loads.next().await
                {
                    loaded?;
                }
                loads.push(self.warm_extent(&opened, *extent));
            }
            while let Some(loaded) = loads.next().await {
                loaded?;
            }
        }
        Ok(())
    }

    async fn warm_extent(
        &self,
        opened: &Arc<Opened>,
        extent: ExtentIndex,
    ) -> Result<(), PartitionError> {
        let (cache, user) = (&self.dataset.cache, self.dataset.user());
        let id = extent_id(opened.id, &extent);
        let load = self.load(opened, &extent, limits::COUNTED_AHEAD_BYTES);
        // It has its share of the cache, as if somebody read it.
        cache.reads(user);
        let loaded = cache.bring(id, user, load).await;
        self.dataset.warming().done_bytes += u64::from(extent.bytes);
        Ok(loaded.map(drop)?)
    }

    /// The object at a place of the first epoch, once it is counted; `None` behind the last. An error if it was found, since it `began`, that it
    /// is never going to be.
    async fn counted_at(&self, place: u64, began: Instant) -> Result<Option<u64>, PartitionError> {
        loop {
            let more = self.counted.notified();
            // Before it is looked what is counted: all that comes before the end is counted by then.
            let trouble = self.dataset.troubles.end_for_good(self.id(), began);
            let counted = {
                let state = self.state();
                let first = state.epochs.iter().next();
                if first.is_some_and(|first| place >= first.objects()) {
                    return Ok(None);
                }
                first.filter(|first| first.counted() > place).map(|first| first.object_at(place))
            };
            if counted.is_some() {
                return Ok(counted);
            }
            if let Some(trouble) = trouble {
                return Err(PartitionError::Ends(trouble));
            }
            // It counts on while the topic is brought into the cache.
            self.demand.send_modify(|_| {});
            more.await;
        }
    }
}
