//! OffsetDelete (47), version 0 (KIP-496).
//!
//! Only for groups without members. Apache Kafka also deletes offsets of topics that a running group does not subscribe to; here
//! that is NON_EMPTY_GROUP, since subscriptions are not decoded.

use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use robustmq_common::ids::PartitionIndex;

use super::Kafka;
use super::resolve::{self, TopicRef};
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(kafka: &Kafka, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut doomed = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.name)).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let index = partition.partition_index;
            let answer = OffsetDeleteResponsePartition::default().with_partition_index(index);
            partitions.push(match &topic {
                Ok(topic) => {
                    doomed.push((topic.id, PartitionIndex(index)));
                    answer
                }
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        let answer = OffsetDeleteResponseTopic::default().with_name(asked.name);
        topics.push(answer.with_partitions(partitions));
    }
    match kafka.groups.delete_offsets(&request.group_id, &doomed).await {
        Ok(()) => OffsetDeleteResponse::default().with_topics(topics),
        Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
    }
}
