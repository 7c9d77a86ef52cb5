//! DeleteRecords (21), versions 0-2: moves the log start forward (KIP-107). -1 means the high watermark.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use robustmq_common::ids::Offset;

use super::Kafka;
use super::resolve::{self, TopicRef};
use crate::kafka::errors::KafkaCode as _;
use crate::topics::Topic;

pub(super) async fn handle(kafka: &Kafka, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.name)).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let deleted = match &topic {
                Ok(topic) => delete(kafka, topic, &partition).await,
                Err(error) => Err(*error),
            };
            let answer = DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index);
            partitions.push(match deleted {
                Ok(start) => answer.with_low_watermark(start.0),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        let answer = DeleteRecordsTopicResult::default().with_name(asked.name);
        topics.push(answer.with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(
    kafka: &Kafka,
    topic: &Topic,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ResponseError> {
    let partition = resolve::partition(kafka, topic, asked.partition_index).await?;
    if partition.is_read_only() {
        return Err(ResponseError::PolicyViolation);
    }
    let before = if asked.offset == -1 { None } else { Some(Offset(asked.offset)) };
    partition.delete_records(before).await.map_err(|error| error.kafka())
}
