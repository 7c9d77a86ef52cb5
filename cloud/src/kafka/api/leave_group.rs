//! LeaveGroup (13), versions 0-5; from 3 on several members at once, also by instance id (KIP-345).
//!
//! The reason that version 5 brings (KIP-800) is logged.

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Kafka, Peer};
use crate::group::coordinator::CoordinatorError;
use crate::group::shared::is_shared;
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    peer: &Peer,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let group = request.group_id.as_str();
    if version < 3 {
        let left = leave(kafka, peer, group, &request.member_id, None).await;
        return LeaveGroupResponse::default().with_error_code(code(&left));
    }
    let mut members = Vec::with_capacity(request.members.len());
    for member in request.members {
        let instance = member.group_instance_id.as_deref();
        let left = leave(kafka, peer, group, &member.member_id, instance).await;
        if let Some(reason) = &member.reason {
            let reason = reason.as_str();
            tracing::debug!(group, member = member.member_id.as_str(), reason, "member leaves");
        }
        members.push(
            MemberResponse::default()
                .with_member_id(member.member_id)
                .with_group_instance_id(member.group_instance_id)
                .with_error_code(code(&left)),
        );
    }
    LeaveGroupResponse::default().with_members(members)
}

async fn leave(
    kafka: &Kafka,
    peer: &Peer,
    group: &str,
    member_id: &str,
    instance_id: Option<&str>,
) -> Result<(), CoordinatorError> {
    match is_shared(group) {
        true => kafka.shared.leave_by(group, member_id, instance_id, peer.connection),
        false => kafka.groups.leave(group, member_id, instance_id).await,
    }
}

fn code(left: &Result<(), CoordinatorError>) -> i16 {
    left.as_ref().err().map_or(0, |error| error.code())
}
