//! Heartbeat (12), versions 0-4.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Kafka, owned};
use crate::group::machine::Caller;
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(kafka: &Kafka, request: HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: owned(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(owned),
        generation: request.generation_id,
    };
    match kafka.groups.heartbeat(&request.group_id, &caller).await {
        Ok(()) => HeartbeatResponse::default(),
        Err(error) => HeartbeatResponse::default().with_error_code(error.code()),
    }
}
