//! OffsetForLeaderEpoch (23), versions 2-4: where an epoch ends, so that a consumer notices a truncation (KIP-320).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use robustmq_common::ids::LeaderEpoch;

use super::Kafka;
use super::resolve::{self, TopicRef, check_epoch};
use crate::kafka::errors::KafkaCode as _;
use crate::topics::Topic;

pub(super) async fn handle(
    kafka: &Kafka,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.topic)).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let found = match &topic {
                Ok(topic) => end_of_epoch(kafka, topic, &partition).await,
                Err(error) => Err(*error),
            };
            let answer = EpochEndOffset::default().with_partition(partition.partition);
            partitions.push(match found {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        let answer = OffsetForLeaderTopicResult::default().with_topic(asked.topic);
        topics.push(answer.with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn end_of_epoch(
    kafka: &Kafka,
    topic: &Topic,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ResponseError> {
    let partition = resolve::partition(kafka, topic, asked.partition).await?;
    check_epoch(asked.current_leader_epoch, partition.offsets().leader_epoch)?;
    let found = partition.end_of_epoch(LeaderEpoch(asked.leader_epoch)).await;
    // -1 says that the epoch is unknown.
    Ok(found.map_err(|error| error.kafka())?.map_or((-1, -1), |(epoch, end)| (epoch.0, end.0)))
}
