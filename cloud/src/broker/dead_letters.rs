//! Where records go that a shared group gives up: an ordinary topic, made when it is first needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use async_trait::async_trait;
use robustmq_common::ids::{KafkaTopic, PartitionIndex, TopicId};
use robustmq_common::record::RecordBatch;

use super::housekeeping::wall_ms;
use crate::group::shared::dead_letter::DeadLetters;
use crate::log::{AppendContext, AppendError, Log};
use crate::topics::{Catalogue, NewTopic, Topic, TopicError};
use crate::traffic::Traffic;

/// The log's topics as dead-letter topics.
pub(super) struct LetterTopics {
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    traffic: Arc<Traffic>,
    next: AtomicI32,
}

impl LetterTopics {
    /// Over this catalogue and log.
    pub(super) fn new(topics: Arc<Catalogue>, log: Arc<Log>, traffic: Arc<Traffic>) -> Self {
        Self { topics, log, traffic, next: AtomicI32::new(0) }
    }

    /// Warns of a default for all groups into which nothing can be put: records that are given up hold their partitions up then.
    pub(super) async fn check_default(&self, topic: Option<&str>) {
        let Some(topic) = topic.and_then(|name| KafkaTopic::new(name.trim()).ok()) else { return };
        if let Err(error) = self.check(&topic).await {
            tracing::warn!(topic = topic.as_str(), %error, "[shared] dead_letter_topic cannot be one");
        }
    }

    async fn topic(&self, name: &KafkaTopic) -> Result<Arc<Topic>, TopicError> {
        if let Some(topic) = self.topics.get(name).await? {
            return Ok(topic);
        }
        let new = NewTopic::new(name.clone(), 1, BTreeMap::new());
        match self.topics.create(vec![new], false, wall_ms()).await.pop() {
            Some(Ok(topic)) => Ok(topic),
            // Somebody else was as quick.
            Some(Err(TopicError::Exists(_))) | None => {
                let found = self.topics.get(name).await?;
                found.ok_or_else(|| TopicError::Unknown(name.clone()))
            }
            Some(Err(error)) => Err(error),
        }
    }
}

#[async_trait]
impl DeadLetters for LetterTopics {
    async fn bury(&self, topic: &KafkaTopic, batch: RecordBatch) -> Result<(), String> {
        let topic = self.topic(topic).await.map_err(|error| error.to_string())?;
        let index = self.next.fetch_add(1, Ordering::Relaxed).rem_euclid(topic.partitions.max(1));
        let partition = self.log.partition(topic.id, PartitionIndex(index)).await;
        let partition = partition.map_err(|error| error.to_string())?;
        let mut context = AppendContext::at(wall_ms());
        context.rules = topic.config.append_rules();
        // With its headers a record may be larger than what a producer may send.
        context.rules.max_batch_bytes = usize::MAX;
        let (records, bytes) = (u64::from(batch.records_count().unsigned_abs()), batch.size());
        loop {
            partition.ready().await.map_err(|error| error.to_string())?;
            match partition.append(batch.clone(), &context) {
                Ok(pending) => {
                    pending.durable().await.map_err(|error| error.to_string())?;
                    self.traffic.produced(topic.id, records, bytes);
                    return Ok(());
                }
                Err(AppendError::NotReady) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn check(&self, topic: &KafkaTopic) -> Result<Option<TopicId>, String> {
        let found = self.topics.get(topic).await.map_err(|error| error.to_string())?;
        let Some(found) = found else { return Ok(None) };
        if found.config.source.is_some() {
            return Err("it has a source, so that nothing can be put into it".to_owned());
        }
        if found.config.compaction.is_some() {
            return Err(
                "it is compacted: nothing without a key can be put into it, and what has one replaces what had it before"
                    .to_owned(),
            );
        }
        Ok(Some(found.id))
    }

    async fn name(&self, topic: TopicId) -> Option<String> {
        let found = self.topics.get_by_id(topic).await.ok().flatten()?;
        Some(found.name.as_str().to_owned())
    }
}
