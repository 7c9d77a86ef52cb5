//! AlterShareGroupOffsets (91), version 0 (KIP-932): moves a group without members. With members it is NON_EMPTY_GROUP.

use kafka_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use kafka_protocol::messages::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse};
use robustmq_common::ids::PartitionIndex;

use super::resolve::{self, TopicRef};
use super::{Kafka, text};
use crate::group::machine::GroupError;
use crate::kafka::errors::KafkaCode as _;
use crate::store::keys::partition::PartitionKeys;

pub(super) async fn handle(
    kafka: &Kafka,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    let failed = |error: &dyn std::fmt::Display, code| {
        AlterShareGroupOffsetsResponse::default()
            .with_error_code(code)
            .with_error_message(Some(text(error.to_string())))
    };
    let group = &request.group_id;
    if kafka.shared.is_active(group) {
        return failed(&GroupError::NonEmpty, GroupError::NonEmpty.code());
    }
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.topic_name)).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let index = partition.partition_index;
            let found = match &topic {
                Ok(topic) => resolve::partition(kafka, topic, index).await.map(|_| topic.id),
                Err(error) => Err(*error),
            };
            let answer =
                AlterShareGroupOffsetsResponsePartition::default().with_partition_index(index);
            partitions.push(match found {
                Ok(topic) => {
                    let keys = PartitionKeys { topic, partition: PartitionIndex(index) };
                    places.push((keys, partition.start_offset));
                    answer
                }
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        let id = topic.as_ref().map(|topic| topic.id.0).unwrap_or_default();
        topics.push(
            AlterShareGroupOffsetsResponseTopic::default()
                .with_topic_name(asked.topic_name)
                .with_topic_id(id)
                .with_partitions(partitions),
        );
    }
    match kafka.shared.reset(group, &places).await {
        Ok(()) => AlterShareGroupOffsetsResponse::default().with_responses(topics),
        Err(error) => failed(&error, error.code()),
    }
}
