//! OffsetCommit (8), versions 2-8.
//!
//! All partitions of a request are committed by one atomic write, and answered when it is durable. A negative generation is an
//! admin's or a consumer's without a group, taken while the group has no members. Offsets expire with the broker's
//! retention; the retention time of versions 2-4 is not looked at, as in Apache Kafka since 2.1 for newer ones.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use robustmq_common::ids::PartitionIndex;
use robustmq_common::limits;

use super::resolve::{self, TopicRef};
use super::{Kafka, owned};
use crate::group::coordinator::Commit;
use crate::group::machine::Caller;
use crate::kafka::errors::KafkaCode as _;
use crate::topics::Topic;

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let caller = Caller {
        member_id: owned(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(owned),
        generation: request.generation_id_or_member_epoch,
    };
    let mut commits = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.name)).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let checked = match &topic {
                Ok(topic) => check(version, topic, &partition),
                Err(error) => Err(*error),
            };
            let index = partition.partition_index;
            let answer = OffsetCommitResponsePartition::default().with_partition_index(index);
            partitions.push(match checked {
                Ok(commit) => {
                    commits.push(commit);
                    answer
                }
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        let answer = OffsetCommitResponseTopic::default().with_name(asked.name);
        topics.push(answer.with_partitions(partitions));
    }
    if let Err(error) = kafka.groups.commit(&request.group_id, &caller, &commits).await {
        tracing::debug!(group = request.group_id.as_str(), %error, "OffsetCommit refused");
        for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if partition.error_code == 0 {
                partition.error_code = error.code();
            }
        }
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn check(
    version: i16,
    topic: &Topic,
    asked: &OffsetCommitRequestPartition,
) -> Result<Commit, ResponseError> {
    if !(0..topic.partitions).contains(&asked.partition_index) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let metadata = asked.committed_metadata.as_ref().map(owned).unwrap_or_default();
    if metadata.len() > limits::OFFSET_METADATA_BYTES {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(Commit {
        topic: topic.id,
        partition: PartitionIndex(asked.partition_index),
        offset: asked.committed_offset,
        leader_epoch: if version >= 6 { asked.committed_leader_epoch } else { -1 },
        metadata,
    })
}
