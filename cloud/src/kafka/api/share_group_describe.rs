//! ShareGroupDescribe (77), version 1 (KIP-932).
//!
//! A group of another kind, or that does not exist, is answered with GROUP_ID_NOT_FOUND. Authorized operations are not reported.

use std::collections::HashSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{
    GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse, TopicName,
};

use super::{Kafka, fixed, text};
use crate::group::share::coordinator::{MemberSnapshot, ShareSnapshot};
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::AnswerMemory;

/// What is not told of authorized operations.
const NOT_TOLD: i32 = i32::MIN;

pub(super) async fn handle(
    kafka: &Kafka,
    request: ShareGroupDescribeRequest,
    memory: &mut AnswerMemory,
) -> ShareGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    // Each group once: an id takes few bytes in a request, and its members many in the answer.
    let mut answered = HashSet::new();
    for id in request.group_ids {
        if answered.insert(id.clone()) {
            groups.push(describe(kafka, id, memory).await);
        }
    }
    ShareGroupDescribeResponse::default().with_groups(groups)
}

async fn describe(kafka: &Kafka, id: GroupId, memory: &mut AnswerMemory) -> DescribedGroup {
    let answer = DescribedGroup::default()
        .with_group_id(id.clone())
        .with_assignor_name(fixed("simple"))
        .with_authorized_operations(NOT_TOLD);
    let share = kafka.shared.share();
    if let Some(snapshot) = share.snapshot(&id) {
        return match memory.grow(answer_bytes(&snapshot)).await {
            Ok(()) => fill(kafka, answer, snapshot).await,
            Err(error) => {
                tracing::warn!(group = id.as_str(), %error, "it is left out of a ShareGroupDescribe answer");
                answer.with_error_code(ResponseError::CoordinatorLoadInProgress.code())
            }
        };
    }
    match share.owns(&id).await {
        Ok(true) => answer.with_group_state(fixed("Empty")),
        Ok(false) => answer
            .with_group_state(fixed("Dead"))
            .with_error_code(ResponseError::GroupIdNotFound.code())
            .with_error_message(Some(text(format!("there is no share group {}", id.as_str())))),
        Err(error) => answer.with_error_code(error.code()),
    }
}

fn answer_bytes(snapshot: &ShareSnapshot) -> usize {
    let member = |member: &MemberSnapshot| {
        let partitions: i32 = member.assigned.values().sum();
        let topics: usize = member.subscribed.iter().map(|name| name.len() + 64).sum();
        let partitions = usize::try_from(partitions).unwrap_or(usize::MAX / 16);
        1024 + 4 * topics + 8 * partitions
    };
    snapshot.members.iter().map(member).sum()
}

async fn fill(kafka: &Kafka, answer: DescribedGroup, snapshot: ShareSnapshot) -> DescribedGroup {
    let mut members = Vec::with_capacity(snapshot.members.len());
    for member in snapshot.members {
        let mut topics = Vec::with_capacity(member.assigned.len());
        for (topic, partitions) in member.assigned {
            let Ok(Some(found)) = kafka.topics.get_by_id(topic).await else { continue };
            let assigned = TopicPartitions::default()
                .with_topic_id(topic.0)
                .with_topic_name(TopicName(text(found.name.as_str())))
                .with_partitions((0..partitions).collect());
            topics.push(assigned);
        }
        let subscribed = member.subscribed.into_iter().map(|name| TopicName(text(name)));
        members.push(
            Member::default()
                .with_member_id(text(member.member_id))
                .with_rack_id(member.rack_id.map(text))
                .with_member_epoch(member.epoch)
                .with_client_id(text(member.client_id))
                .with_client_host(text(member.client_host))
                .with_subscribed_topic_names(subscribed.collect())
                .with_assignment(Assignment::default().with_topic_partitions(topics)),
        );
    }
    answer
        .with_group_state(fixed("Stable"))
        .with_group_epoch(snapshot.epoch)
        .with_assignment_epoch(snapshot.epoch)
        .with_members(members)
}
