//! Log and catalogue as the uplink's ingest sees them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;

use crate::log::Log;
use crate::topics::{Catalogue, NewTopic, Topic, TopicError};
use crate::traffic::Traffic;
use crate::uplink::{IngestLog, IngestTopic, LogFailure, PartitionId};

/// The real log and catalogue.
pub(super) struct StoredLog {
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    traffic: Arc<Traffic>,
    partitions: i32,
}

impl StoredLog {
    /// Topics that edges bring into being get so many `partitions`.
    pub(super) fn new(
        topics: Arc<Catalogue>,
        log: Arc<Log>,
        traffic: Arc<Traffic>,
        partitions: i32,
    ) -> Self {
        Self { topics, log, traffic, partitions }
    }
}

fn seen(topic: &Topic) -> IngestTopic {
    IngestTopic {
        id: topic.id,
        partitions: topic.partitions,
        max_message_bytes: topic.config.max_message_bytes,
        log_append_time: topic.config.log_append_time,
        compacted: topic.config.compaction.is_some(),
        storage: topic.config.storage_mode,
        // Read-only topics come with datasets.
        writable: true,
    }
}

/// A name that is longer than a configuration value can be stands in each record's header alone.
fn overrides(mqtt_topic: Option<&str>) -> BTreeMap<String, String> {
    let largest = ("max.message.bytes".to_owned(), limits::EDGE_TOPIC_MESSAGE_BYTES.to_string());
    let named = mqtt_topic
        .filter(|topic| topic.len() <= limits::TOPIC_CONFIG_VALUE_BYTES)
        .map(|topic| ("robustmq.mqtt.topic".to_owned(), topic.to_owned()));
    BTreeMap::from_iter(std::iter::once(largest).chain(named))
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
        let overrides = overrides(mqtt_topic);
        let new = NewTopic::new(name.clone(), self.partitions, overrides);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        match self.topics.create(vec![new], false, now_ms).await.pop() {
            Some(Ok(topic)) => Ok(seen(&topic)),
            Some(Err(TopicError::Exists(_))) => match self.topic(name).await? {
                Some(topic) => Ok(topic),
                None => Err(LogFailure::Unavailable("the topic was just deleted".to_owned())),
            },
            Some(Err(
                error @ (TopicError::Config(_)
                | TopicError::Source(_)
                | TopicError::Partitions { .. }),
            )) => Err(LogFailure::IllegalTopic(error.to_string())),
            Some(Err(error @ (TopicError::Unknown(_) | TopicError::Store(_)))) => {
                Err(LogFailure::Unavailable(error.to_string()))
            }
            None => Err(LogFailure::Unavailable("the catalogue gave no answer".to_owned())),
        }
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn appended(&self, partition: PartitionId, records: u64, bytes: usize) {
        self.traffic.produced(partition.topic, records, bytes);
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::limits;

    use super::overrides;
    use crate::topics::TopicConfig;

    /// A PUBLISH of almost the announced Maximum Packet Size was acknowledged to the device and then rejected by the cloud as
    /// larger than Kafka's default `max.message.bytes`; so was one whose topic was longer than a configuration value.
    #[test]
    fn topics_of_edges_take_everything_that_an_edge_acknowledges() {
        let check = |mqtt_topic: &str, kept: bool| {
            let config = TopicConfig::parse(&overrides(Some(mqtt_topic))).expect("legal");
            assert!(config.max_message_bytes > limits::SYNC_BATCH_BYTES);
            assert_eq!(config.mqtt_topic.is_some(), kept);
        };
        check("plant/line 1", true);
        check(&"x".repeat(60_000), false);
    }
}
