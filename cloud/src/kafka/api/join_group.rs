//! JoinGroup (11), versions 0-9.
//!
//! Answered when the rebalance has gathered its members. From 4 on a member without an id is given one and told to come back
//! with it (KIP-394), which a shared group has no use for; static members from 5 on (KIP-345); `skip_assignment` from 9 on (KIP-814).

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::limits;
use uuid::Uuid;

use super::{Kafka, Peer, owned, text};
use crate::group::machine::{GroupError, Join};
use crate::group::shared::is_shared;
use crate::kafka::errors::KafkaCode as _;

/// Who asks.
pub(super) struct Client {
    pub version: i16,
    pub id: Option<StrBytes>,
    pub peer: Peer,
}

pub(super) async fn handle(
    kafka: &Kafka,
    client: Client,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let version = client.version;
    let group = owned(&request.group_id.0);
    let connection = client.peer.connection;
    let join = join(client, request);
    let joined = match is_shared(&group) {
        true => kafka
            .shared
            .join(&group, &join, connection)
            .await
            .map_err(|error| (error, join.member_id.clone())),
        false => match kafka.shared.share().owns(&group).await {
            Ok(false) => kafka.groups.join(&group, join).await,
            Ok(true) => Err((GroupError::InconsistentProtocol.into(), join.member_id)),
            Err(error) => Err((error, join.member_id)),
        },
    };
    match joined {
        Ok(joined) => {
            let member = |(id, instance, metadata): (String, Option<String>, Bytes)| {
                let member = JoinGroupResponseMember::default()
                    .with_member_id(text(id))
                    .with_metadata(metadata);
                if version >= 5 {
                    member.with_group_instance_id(instance.map(text))
                } else {
                    member
                }
            };
            let response = JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_skip_assignment(version >= 9 && joined.skip_assignment)
                .with_member_id(text(joined.member_id))
                .with_members(joined.members.into_iter().map(member).collect());
            if version >= 7 {
                response.with_protocol_type(Some(text(joined.protocol_type)))
            } else {
                response
            }
        }
        Err((error, member_id)) => {
            tracing::debug!(group, %error, "JoinGroup refused");
            JoinGroupResponse::default()
                .with_error_code(error.code())
                .with_generation_id(-1)
                .with_protocol_name(Some(StrBytes::new()))
                .with_member_id(text(member_id))
        }
    }
}

fn join(client: Client, request: JoinGroupRequest) -> Join {
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let client_id = client.id.as_ref().map(owned).unwrap_or_default();
    let session_timeout = millis(request.session_timeout_ms);
    // Before version 1 a rebalance waited as long as a session.
    let rebalance_timeout = match client.version {
        0 => session_timeout,
        _ => millis(request.rebalance_timeout_ms).min(limits::GROUP_REBALANCE_MAX),
    };
    let protocol =
        |name: &StrBytes, metadata: &Bytes| (owned(name), Bytes::copy_from_slice(metadata));
    Join {
        member_id: owned(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(owned),
        fresh_member_id: format!("{client_id}-{}", Uuid::new_v4()),
        client_id,
        client_host: format!("/{}", client.peer.address.ip()),
        protocol_type: owned(&request.protocol_type),
        protocols: request.protocols.iter().map(|p| protocol(&p.name, &p.metadata)).collect(),
        session_timeout,
        rebalance_timeout,
        knows_member_id_required: client.version >= 4,
        knows_skip_assignment: client.version >= 9,
    }
}
