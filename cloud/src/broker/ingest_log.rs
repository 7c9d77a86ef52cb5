//! Log and catalogue as the uplink's ingest sees them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use robustmq_common::ids::{EdgeSeq, KafkaTopic};
use robustmq_common::record::RecordBatch;

use crate::log::{Log, Origin, OriginKey};
use crate::topics::{Catalogue, NewTopic, Topic, TopicError};
use crate::uplink::{
    AppendLimits, IngestLog, IngestTopic, LogFailure, PartitionId, append_to, applied_in,
};

/// The real log and catalogue.
pub(super) struct StoredLog {
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    partitions: i32,
}

impl StoredLog {
    /// Topics that edges bring into being get so many `partitions`.
    pub(super) fn new(topics: Arc<Catalogue>, log: Arc<Log>, partitions: i32) -> Self {
        Self { topics, log, partitions }
    }
}

fn seen(topic: &Topic) -> IngestTopic {
    IngestTopic {
        id: topic.id,
        partitions: topic.partitions,
        max_message_bytes: topic.config.max_message_bytes,
        log_append_time: topic.config.log_append_time,
        // Read-only topics come with datasets.
        writable: true,
    }
}

#[async_trait]
impl IngestLog for StoredLog {
    async fn topic(&self, name: &KafkaTopic) -> Result<Option<IngestTopic>, LogFailure> {
        let found = self.topics.get(name).await;
        let found = found.map_err(|error| LogFailure::Unavailable(error.to_string()))?;
        Ok(found.map(|topic| seen(&topic)))
    }

    async fn create(
        &self,
        name: &KafkaTopic,
        mqtt_topic: Option<&str>,
    ) -> Result<IngestTopic, LogFailure> {
        let mqtt_topic =
            mqtt_topic.map(|topic| ("robustmq.mqtt.topic".to_owned(), topic.to_owned()));
        let new = NewTopic {
            name: name.clone(),
            partitions: self.partitions,
            overrides: BTreeMap::from_iter(mqtt_topic),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        match self.topics.create(vec![new], false, now_ms).await.pop() {
            Some(Ok(topic)) => Ok(seen(&topic)),
            Some(Err(TopicError::Exists(_))) => match self.topic(name).await? {
                Some(topic) => Ok(topic),
                None => Err(LogFailure::Unavailable("the topic was just deleted".to_owned())),
            },
            Some(Err(error @ (TopicError::Config(_) | TopicError::Partitions { .. }))) => {
                Err(LogFailure::IllegalTopic(error.to_string()))
            }
            Some(Err(error @ (TopicError::Unknown(_) | TopicError::Store(_)))) => {
                Err(LogFailure::Unavailable(error.to_string()))
            }
            None => Err(LogFailure::Unavailable("the catalogue gave no answer".to_owned())),
        }
    }

    async fn applied(
        &self,
        partition: PartitionId,
        origin: &OriginKey,
    ) -> Result<Option<EdgeSeq>, LogFailure> {
        applied_in(&self.log, partition, origin).await
    }

    async fn append(
        &self,
        partition: PartitionId,
        batch: RecordBatch,
        origin: Origin,
        limits: AppendLimits,
    ) -> Result<(), LogFailure> {
        append_to(&self.log, partition, batch, origin, limits).await
    }
}
