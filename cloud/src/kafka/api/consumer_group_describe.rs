//! ConsumerGroupDescribe (69), versions 0-1 (KIP-848), for `$shared/` groups, whatever protocol their members speak: those of the share
//! group protocol are shown like those of this one.
//!
//! Other groups are answered with GROUP_ID_NOT_FOUND, upon which clients ask DescribeGroups. Authorized operations are not reported.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName,
};
use robustmq_common::ids::TopicId;

use super::{Kafka, fixed, text};
use crate::group::coordinator::CoordinatorError;
use crate::group::share::coordinator::MemberSnapshot;
use crate::group::shared::is_shared;
use crate::group::shared::members;
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::AnswerMemory;

const NOT_TOLD: i32 = i32::MIN;
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: ConsumerGroupDescribeRequest,
    memory: &mut AnswerMemory,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    // Each group once: an id takes few bytes in a request, and its members many in the answer.
    let mut answered = HashSet::new();
    for id in request.group_ids {
        if answered.insert(id.clone()) {
            groups.push(describe(kafka, version, id, memory).await);
        }
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

async fn describe(
    kafka: &Kafka,
    version: i16,
    id: GroupId,
    memory: &mut AnswerMemory,
) -> DescribedGroup {
    let answer = DescribedGroup::default()
        .with_group_id(id.clone())
        .with_assignor_name(fixed("shared"))
        .with_authorized_operations(NOT_TOLD);
    let (members, sharers) = match is_shared(&id) {
        true => (kafka.shared.consumers(&id), kafka.shared.share().snapshot(&id)),
        false => (Vec::new(), None),
    };
    let sharers = sharers.map_or_else(Vec::new, |snapshot| snapshot.members);
    if members.is_empty() && sharers.is_empty() {
        return match exists(kafka, &id).await {
            Ok(true) => answer.with_group_state(fixed("Empty")),
            Ok(false) => answer
                .with_group_state(fixed("Dead"))
                .with_error_code(ResponseError::GroupIdNotFound.code())
                .with_error_message(Some(text(format!("{} is no $shared/ group", id.as_str())))),
            Err(error) => answer.with_error_code(error.code()),
        };
    }
    let bytes =
        members.iter().map(|member| 2048 + 2 * member.bytes() + 64 * member.partitions.len());
    let bytes = bytes.chain(sharers.iter().map(sharer_bytes)).sum();
    if let Err(error) = memory.grow(bytes).await {
        tracing::warn!(group = id.as_str(), %error, "it is left out of a ConsumerGroupDescribe answer");
        return answer.with_error_code(ResponseError::CoordinatorLoadInProgress.code());
    }
    let epoch = members.iter().map(members::Member::epoch).max().unwrap_or_default();
    let mut described = Vec::with_capacity(members.len() + sharers.len());
    for member in members {
        described.push(describe_member(kafka, version, member).await);
    }
    for member in sharers {
        described.push(describe_sharer(kafka, version, member).await);
    }
    answer
        .with_group_state(fixed("Stable"))
        .with_group_epoch(epoch)
        .with_assignment_epoch(epoch)
        .with_members(described)
}

async fn exists(kafka: &Kafka, id: &str) -> Result<bool, CoordinatorError> {
    Ok(is_shared(id) && kafka.groups.describe(id).await?.is_some())
}

async fn describe_member(kafka: &Kafka, version: i16, member: members::Member) -> Member {
    let mut topics: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    match &member.subscription {
        Some(subscription) => {
            let all = subscription.assigned.iter();
            topics.extend(all.map(|(topic, partitions)| (*topic, (0..*partitions).collect())));
        }
        // Of a member that assigns itself: what it has asked for.
        None => {
            for (topic, index) in &member.partitions {
                topics.entry(*topic).or_default().push(index.0);
            }
        }
    }
    let assignment = assignment(kafka, topics).await;
    let kind = if member.subscription.is_some() { CONSUMER } else { CLASSIC };
    let epoch = member.epoch();
    let subscription = member.subscription.clone().unwrap_or_default();
    let names = subscription.names.into_iter().map(|name| TopicName(text(name)));
    let stored = member.stored();
    let described = Member::default()
        .with_member_id(text(stored.member_id.clone()))
        .with_instance_id(stored.instance_id.clone().map(text))
        .with_member_epoch(epoch)
        .with_client_id(text(stored.client_id.clone()))
        .with_client_host(text(stored.client_host.clone()))
        .with_subscribed_topic_names(names.collect())
        .with_subscribed_topic_regex(subscription.pattern.map(text))
        .with_assignment(assignment.clone())
        .with_target_assignment(assignment);
    match version >= 1 {
        true => described.with_member_type(kind),
        false => described,
    }
}

async fn assignment(kafka: &Kafka, topics: BTreeMap<TopicId, Vec<i32>>) -> Assignment {
    let mut assigned = Vec::with_capacity(topics.len());
    for (topic, partitions) in topics {
        let Ok(Some(found)) = kafka.topics.get_by_id(topic).await else { continue };
        let partitions = TopicPartitions::default()
            .with_topic_id(topic.0)
            .with_topic_name(TopicName(text(found.name.as_str())))
            .with_partitions(partitions);
        assigned.push(partitions);
    }
    Assignment::default().with_topic_partitions(assigned)
}

fn sharer_bytes(member: &MemberSnapshot) -> usize {
    let names: usize = member.subscribed.iter().map(|name| name.len() + 64).sum();
    let partitions: i32 = member.assigned.values().sum();
    2048 + 2 * names + 16 * usize::try_from(partitions).unwrap_or_default()
}

async fn describe_sharer(kafka: &Kafka, version: i16, member: MemberSnapshot) -> Member {
    let all = member.assigned.into_iter();
    let topics = all.map(|(topic, partitions)| (topic, (0..partitions).collect())).collect();
    let assignment = assignment(kafka, topics).await;
    let names = member.subscribed.into_iter().map(|name| TopicName(text(name)));
    let described = Member::default()
        .with_member_id(text(member.member_id))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(names.collect())
        .with_assignment(assignment.clone())
        .with_target_assignment(assignment);
    match version >= 1 {
        true => described.with_member_type(CONSUMER),
        false => described,
    }
}
