//! SyncGroup (14), versions 0-5.
//!
//! Answered when the leader's assignment is durable.

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Kafka, owned, text};
use crate::group::machine::{Caller, Sync};
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let sync = Sync {
        who: Caller {
            member_id: owned(&request.member_id),
            instance_id: request.group_instance_id.as_ref().map(owned),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.as_ref().map(owned),
        protocol: request.protocol_name.as_ref().map(owned),
        assignments: request
            .assignments
            .iter()
            .map(|given| (owned(&given.member_id), Bytes::clone(&given.assignment)))
            .collect(),
    };
    match kafka.groups.sync(&request.group_id, sync).await {
        Ok(synced) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            if version < 5 {
                return response;
            }
            response
                .with_protocol_type(Some(text(synced.protocol_type)))
                .with_protocol_name(Some(text(synced.protocol)))
        }
        Err(error) => {
            tracing::debug!(group = request.group_id.as_str(), %error, "SyncGroup refused");
            SyncGroupResponse::default().with_error_code(error.code())
        }
    }
}
