//! From the names and numbers of a request to topics and partitions.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use robustmq_common::ids::{KafkaTopic, LeaderEpoch, PartitionIndex, TopicId};
use robustmq_common::limits;
use uuid::Uuid;

use super::Kafka;
use crate::kafka::errors::KafkaCode as _;
use crate::log::Partition;
use crate::topics::Topic;

/// How a request names a topic: by id in newer versions (KIP-516).
pub(super) enum TopicRef<'a> {
    Name(&'a str),
    Id(Uuid),
}

/// The topic, or Kafka's error.
pub(super) async fn topic(kafka: &Kafka, which: TopicRef<'_>) -> Result<Arc<Topic>, ResponseError> {
    let (found, unknown) = match which {
        TopicRef::Name(name) => {
            let unknown = ResponseError::UnknownTopicOrPartition;
            let name = KafkaTopic::new(name).map_err(|_| unknown)?;
            (kafka.topics.get(&name).await, unknown)
        }
        TopicRef::Id(id) => {
            (kafka.topics.get_by_id(TopicId(id)).await, ResponseError::UnknownTopicId)
        }
    };
    found.map_err(|error| error.kafka())?.ok_or(unknown)
}

/// A topic as an operator knows it: by its name, or by its id if it has been deleted.
pub(super) async fn shown_name(kafka: &Kafka, topic: TopicId) -> String {
    let found = kafka.topics.get_by_id(topic).await.ok().flatten();
    found.map_or_else(|| topic.to_string(), |topic| topic.name.as_str().to_owned())
}

/// Brings topics into memory that [`topic`] is then asked for one by one, up to [`limits::TOPIC_PAGE`] at a time: one reading of
/// the store for all of them. A failure shows when they are asked for.
pub(super) async fn load<'a>(kafka: &Kafka, topics: impl Iterator<Item = TopicRef<'a>>) {
    let (mut names, mut ids) = (Vec::new(), Vec::new());
    for topic in topics.take(limits::TOPIC_PAGE) {
        match topic {
            TopicRef::Name(name) => names.extend(KafkaTopic::new(name)),
            TopicRef::Id(id) => ids.push(TopicId(id)),
        }
    }
    let found = match names.len() + ids.len() {
        0 | 1 => return,
        _ => kafka.topics.get_many(&names).await.map(drop),
    };
    let found = match found {
        Ok(()) => kafka.topics.load_by_ids(&ids).await,
        failed => failed,
    };
    if let Err(error) = found {
        tracing::debug!(%error, "topics could not be read together");
    }
}

/// The partition of a topic, or Kafka's error.
pub(super) async fn partition(
    kafka: &Kafka,
    topic: &Topic,
    index: i32,
) -> Result<Arc<Partition>, ResponseError> {
    if !(0..topic.partitions).contains(&index) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    kafka.log.partition(topic.id, PartitionIndex(index)).await.map_err(|error| error.kafka())
}

/// Compares the leader epoch that a client believes in with ours (KIP-320). An older one is no fault: Metadata tells none, there
/// being one broker, and librdkafka says 0 where it knows none.
pub(super) fn check_epoch(claimed: i32, current: LeaderEpoch) -> Result<(), ResponseError> {
    match claimed > current.0 {
        true => Err(ResponseError::UnknownLeaderEpoch),
        false => Ok(()),
    }
}

/// The broker's wall clock, in milliseconds since 1970.
pub(super) fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
