//! DescribeGroups (15), versions 0-6.
//!
//! A group that does not exist is `Dead`; from 6 on it is GROUP_ID_NOT_FOUND (KIP-1043). Authorized operations are not
//! reported. Groups for which there is no memory are refused with COORDINATOR_LOAD_IN_PROGRESS, which clients retry.

use std::collections::HashSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::{Kafka, text};
use crate::group::coordinator::Described;
use crate::group::machine::StoredMember;
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::AnswerMemory;

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: DescribeGroupsRequest,
    memory: &mut AnswerMemory,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    // Each group once: an id takes few bytes in a request, and its members many in the answer.
    let mut answered = HashSet::new();
    for id in request.groups {
        if !answered.insert(id.clone()) {
            continue;
        }
        groups.push(describe(kafka, version, id, memory).await);
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(
    kafka: &Kafka,
    version: i16,
    id: GroupId,
    memory: &mut AnswerMemory,
) -> DescribedGroup {
    let answer = DescribedGroup::default().with_group_id(id.clone());
    match kafka.groups.describe(&id).await {
        Ok(Some(described)) => match memory.grow(answer_bytes(&described)).await {
            Ok(()) => fill(answer, version, described),
            Err(error) => {
                tracing::warn!(group = id.as_str(), %error, "it is left out of a DescribeGroups answer");
                answer.with_error_code(ResponseError::CoordinatorLoadInProgress.code())
            }
        },
        Ok(None) if version >= 6 => answer
            .with_group_state(text("Dead"))
            .with_error_code(ResponseError::GroupIdNotFound.code())
            .with_error_message(Some(text(format!("group {} does not exist", id.as_str())))),
        Ok(None) => answer.with_group_state(text("Dead")),
        Err(error) => answer.with_error_code(error.code()),
    }
}

/// What a group takes of memory in an answer: its texts here and encoded, its members' bytes (shared here) encoded.
fn answer_bytes(described: &Described) -> usize {
    let member = |member: &StoredMember| {
        let texts = member.member_id.len() + member.client_id.len() + member.client_host.len();
        let instance = member.instance_id.as_ref().map_or(0, String::len);
        size_of::<DescribedGroupMember>()
            + 2 * (texts + instance + 32)
            + member.metadata.len()
            + member.assignment.len()
    };
    size_of::<DescribedGroup>() + described.snapshot.members.iter().map(member).sum::<usize>()
}

fn fill(answer: DescribedGroup, version: i16, described: Described) -> DescribedGroup {
    let member = |member: StoredMember| {
        let answer = DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        match version >= 4 {
            true => answer.with_group_instance_id(member.instance_id.map(text)),
            false => answer,
        }
    };
    let snapshot = described.snapshot;
    answer
        .with_group_state(text(described.state))
        .with_protocol_type(text(snapshot.protocol_type.unwrap_or_default()))
        .with_protocol_data(text(snapshot.protocol.unwrap_or_default()))
        .with_members(snapshot.members.into_iter().map(member).collect())
}
