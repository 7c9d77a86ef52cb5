//! What an operator asks about a dataset topic.

use std::sync::Arc;

use robustmq_common::ids::{KafkaTopic, PartitionIndex};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::CacheStats;
use robustmq_dataset::epochs::Shuffle;
use robustmq_dataset::order::PERMUTATION;
use serde::Serialize;

use super::find::Searched;
use super::fit::Known;
use super::partition::{DatasetPartition, PartitionError};
use super::{Datasets, ListError, Warming};
use crate::store::StoreError;
use crate::topics::Topic;

/// A dataset topic.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The topic.
    pub topic: KafkaTopic,
    /// Where its records come from.
    pub source: String,
    /// Objects, as listed.
    pub objects: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When they were listed, milliseconds since 1970.
    pub listed_ms: i64,
    /// Objects that were listed after the last epoch began: they are in those that begin from now on.
    pub new_objects: u64,
    /// Its partitions.
    pub partitions: i32,
    /// Objects whose records are counted, in any epoch.
    pub indexed_objects: u64,
    /// Records of the newest epoch of which all are counted: `records_epoch`.
    pub records: Option<u64>,
    /// Its number. A refresh has the epochs that begin after it have more.
    pub records_epoch: Option<u32>,
    /// All objects of the first epoch are counted.
    pub is_index_complete: bool,
    /// How often the data is repeated.
    pub epochs: u32,
    /// Epochs that have begun.
    pub published_epochs: u32,
    /// The name of the order's permutation, where there is one.
    pub permutation: Option<&'static str>,
    /// Places of objects that cannot be read: the samples there, one or many, are left out.
    pub damaged: u64,
    /// The first of them.
    pub damaged_samples: Vec<Damaged>,
    /// Records that readers have come upon since the topic was opened, and that are not there any more: their objects were deleted or changed.
    pub lost_records: u64,
    /// The first of these objects, and what has become of them.
    pub lost: Vec<String>,
    /// Why partitions do not go on: where each ends, and the object that has to be looked at.
    pub trouble: Vec<String>,
    /// What of it does not fit the cache, and is fetched again and again for that.
    pub warnings: Vec<String>,
    /// Its source is listed again at the moment.
    pub is_refreshing: bool,
    /// How far it is brought into the cache, where that was asked for.
    pub warming: Warming,
    /// What the cache did for it.
    pub cache: CacheStats,
    /// What the cache did for all.
    pub cache_total: CacheStats,
}

/// A sample that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// The partition.
    pub partition: i32,
    /// The object, below the source's prefix.
    pub object: String,
    /// Where it begins: a byte of the object's content, decompressed.
    pub at: u64,
    /// What is wrong.
    pub reason: String,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Its records are its own.
    #[error("topic {0} has no source")]
    NoDataset(KafkaTopic),
    /// Its source cannot be listed again.
    #[error(transparent)]
    List(#[from] ListError),
    /// The broker stops.
    #[error("the broker stops")]
    Stopping,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Datasets {
    /// The partitions of a topic. They stay open for a while, so that what they count is there when somebody looks again.
    async fn looked_at(
        &self,
        topic: &Topic,
    ) -> Result<Option<Vec<Arc<DatasetPartition>>>, StoreError> {
        let mut partitions = Vec::new();
        for index in 0..topic.partitions {
            let partition = self.partition(topic.id, PartitionIndex(index)).await?;
            let Some(partition) = partition else { return Ok(None) };
            partitions.push(partition);
        }
        if let Some(first) = partitions.first() {
            let (open, cancel) = (partitions.clone(), first.dataset.cancel.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(limits::LOOKED_AT) => {}
                    () = cancel.cancelled() => {}
                }
                drop(open);
            });
        }
        Ok(Some(partitions))
    }

    /// Has a topic's partitions counted as far as that needs no reading, so that what they show after a start is what they had before; for
    /// [`limits::SETTLES`] at most. Nothing is done for a topic without a source.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settle(&self, topic: &Topic) -> Result<(), StoreError> {
        if topic.config.source.is_none() {
            return Ok(());
        }
        let Some(partitions) = self.looked_at(topic).await? else { return Ok(()) };
        let counted = async {
            for partition in partitions {
                // What is wrong with it is told where it is asked for.
                let _ = Searched::new(partition).0.known_counted().await;
            }
        };
        let _ = tokio::time::timeout(limits::SETTLES, counted).await;
        Ok(())
    }

    /// What is known of a topic.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn status(&self, topic: &Topic) -> Result<Status, StatusError> {
        let none = || StatusError::NoDataset(topic.name.clone());
        let config = topic.config.source.as_ref().ok_or_else(none)?;
        let dataset = self.dataset(topic.id).await?.ok_or_else(none)?;
        let listed = dataset.manifest.listed();
        let (mut indexed, mut damaged, mut trouble) = (0, 0, Vec::new());
        let (mut is_complete, mut published) = (true, u32::MAX);
        let (mut lost_records, mut lost) = (0, Vec::new());
        let (mut begun_objects, mut damaged_samples) = (0, Vec::new());
        let mut known = Known::default();
        let partitions = self.looked_at(topic).await?.ok_or_else(none)?;
        for partition in &partitions {
            let state = partition.state();
            let first = state.epochs.iter().next();
            indexed += state.known_objects();
            is_complete &= first.is_some_and(|epoch| epoch.is_complete());
            known.include(state.known);
            begun_objects +=
                state.epochs.last().map_or_else(|| partition.objects(), |last| last.objects());
            published = published.min(state.epochs.last().map_or(0, |last| last.number() + 1));
            damaged += state.damaged;
            lost_records += state.lost.records;
            lost.extend(state.lost.reasons.iter().cloned());
            damaged_samples.extend(state.damages.iter().cloned());
            drop(state);
            trouble.extend(dataset.troubles.of(partition.id()));
        }
        let newest = newest_complete(&partitions);
        damaged_samples.truncate(limits::SHOWN_DAMAGES);
        trouble.extend(nothing_readable(&partitions, indexed, &damaged_samples));
        let warnings = self.fit(config, topic.partitions, &listed, known).warnings();
        trouble.extend(self.refreshing(topic.id).and_then(|begun| begun.trouble()));
        Ok(Status {
            topic: topic.name.clone(),
            source: config.url.to_string(),
            objects: listed.objects,
            bytes: listed.bytes,
            listed_ms: listed.listed_ms,
            new_objects: listed.objects.saturating_sub(begun_objects),
            partitions: topic.partitions,
            indexed_objects: indexed,
            records: newest.map(|(_, records)| records),
            records_epoch: newest.map(|(number, _)| number),
            is_index_complete: is_complete,
            epochs: config.live.epochs,
            published_epochs: published,
            permutation: (config.shuffle != Shuffle::None).then_some(PERMUTATION),
            damaged,
            damaged_samples,
            lost_records,
            lost,
            trouble,
            warnings,
            is_refreshing: self.is_refreshing(topic.id),
            warming: dataset.warming().clone(),
            cache: self.cache.stats(Some(dataset.user())),
            cache_total: self.cache.stats(None),
        })
    }
}

/// The newest epoch of which each partition has counted all records, and how many they are.
fn newest_complete(partitions: &[Arc<DatasetPartition>]) -> Option<(u32, u64)> {
    let complete = |partition: &Arc<DatasetPartition>| {
        let state = partition.state();
        let complete = state.epochs.iter().filter(|epoch| epoch.is_complete());
        complete.last().map(|epoch| epoch.number())
    };
    let newest = partitions.iter().map(complete).min()??;
    let records = |partition: &Arc<DatasetPartition>| {
        let state = partition.state();
        state.epochs.epoch(newest).map_or(0, |epoch| epoch.records())
    };
    Some((newest, partitions.iter().map(records).sum()))
}

impl DatasetPartition {
    /// Waits until all is counted that is known without reading, of the epochs that have begun.
    async fn known_counted(&self) -> Result<(), PartitionError> {
        loop {
            let more = self.counted.notified();
            let next = {
                let state = self.state();
                let end = state.epochs.high_watermark();
                let counting = state.epochs.counting();
                let has_begun = state.epochs.last().is_some();
                if (has_begun && counting.is_none())
                    || self.dataset.troubles.has_ended(self.id(), end)
                {
                    return Ok(());
                }
                counting.and_then(|epoch| epoch.next_object())
            };
            if let Some(next) = next
                && !self.is_indexed(next).await?
            {
                return Ok(());
            }
            more.await;
        }
    }
}

/// That nothing of what is counted can be read, which a setting of the topic may be the reason of: a column that there is not, another format.
fn nothing_readable(
    partitions: &[Arc<DatasetPartition>],
    objects: u64,
    damaged: &[Damaged],
) -> Option<String> {
    let Damaged { object, reason, .. } = damaged.first()?;
    let is_empty = |partition: &Arc<DatasetPartition>| {
        let state = partition.state();
        state.epochs.high_watermark() == 0 && state.known.records == 0
    };
    let told = || {
        format!(
            "no record of the objects that are counted ({objects}) can be read; the first, {object}: {reason}"
        )
    };
    (objects > 0 && partitions.iter().all(is_empty)).then(told)
}
