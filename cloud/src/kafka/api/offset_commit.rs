//! OffsetCommit (8), versions 2-9. In 9 a member of the consumer group protocol may learn that its epoch is stale (KIP-848).
//!
//! All partitions of a request are committed by one atomic write, and answered when it is durable. A negative generation is an
//! admin's or a consumer's without a group, taken while the group has no members. Offsets expire with the broker's
//! retention; the retention time of versions 2-4 is not looked at, as in Apache Kafka since 2.1 for newer ones.
//!
//! In a shared group a member commits positions on its cursors, which acknowledges what was delivered before; each partition by
//! itself. An admin moves the group's place with real offsets.

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use robustmq_common::ids::PartitionIndex;
use robustmq_common::limits;

use super::resolve::{self, TopicRef};
use super::{Kafka, Peer, owned};
use crate::group::coordinator::{Commit, CoordinatorError};
use crate::group::machine::{Caller, GroupError};
use crate::group::shared::is_shared;
use crate::kafka::errors::KafkaCode as _;
use crate::store::keys::partition::PartitionKeys;
use crate::topics::Topic;

pub(super) async fn handle(
    kafka: &Kafka,
    peer: &Peer,
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
    if shares(kafka, &request.group_id, &caller).await {
        shared(kafka, peer, &request.group_id, &caller, &commits, &mut topics).await;
        return OffsetCommitResponse::default().with_topics(topics);
    }
    if let Err(error) = kafka.groups.commit(&request.group_id, &caller, &commits).await {
        tracing::debug!(group = request.group_id.as_str(), %error, "OffsetCommit refused");
        fail(&mut topics, error.code());
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// Whether a commit concerns a shared group, or, by an admin, a share group: members of those do not commit.
async fn shares(kafka: &Kafka, group: &str, caller: &Caller) -> bool {
    let is_admins = caller.generation < 0 && caller.member_id.is_empty();
    let owns = async || kafka.shared.share().owns(group).await.unwrap_or_default();
    is_shared(group) || (is_admins && owns().await)
}

/// Refuses every partition that was not refused before.
fn fail(topics: &mut [OffsetCommitResponseTopic], code: i16) {
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code == 0 {
            partition.error_code = code;
        }
    }
}

/// A commit to a shared group. `commits` are those that `topics` has no error for, in its order.
async fn shared(
    kafka: &Kafka,
    peer: &Peer,
    group: &str,
    caller: &Caller,
    commits: &[Commit],
    topics: &mut [OffsetCommitResponseTopic],
) {
    let keys = |commit: &Commit| PartitionKeys { topic: commit.topic, partition: commit.partition };
    let token = match kafka.shared.may_commit(group, caller, peer.connection) {
        Ok(Some(token)) => token,
        Ok(None) => {
            let places: Vec<_> = commits.iter().map(|c| (keys(c), c.offset)).collect();
            if let Err(error) = kafka.shared.reset(group, &places).await {
                tracing::debug!(group, %error, "the group's place could not be moved");
                fail(topics, error.code());
            }
            return;
        }
        Err(error) => {
            tracing::debug!(group, %error, "OffsetCommit refused");
            let is_stale = matches!(error, CoordinatorError::Group(GroupError::IllegalGeneration))
                && kafka.shared.is_consumer(group, &caller.member_id);
            let code = match is_stale {
                true => ResponseError::StaleMemberEpoch.code(),
                false => error.code(),
            };
            return fail(topics, code);
        }
    };
    // Begun together, so that they share a sync.
    let acknowledged = join_all(commits.iter().map(|commit| async move {
        let keys = PartitionKeys { topic: commit.topic, partition: commit.partition };
        kafka.shared.commit(token, &keys, commit.offset).await
    }));
    let answers = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    let answers = answers.filter(|partition| partition.error_code == 0);
    for (answer, acknowledged) in answers.zip(acknowledged.await) {
        if let Err(error) = acknowledged {
            tracing::debug!(group, member = caller.member_id, %error, "OffsetCommit refused");
            answer.error_code = error.code();
        }
    }
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
