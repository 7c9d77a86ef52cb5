//! Heartbeat (12), versions 0-4.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Kafka, Peer, owned};
use crate::group::machine::Caller;
use crate::group::shared::is_shared;
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    peer: &Peer,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let caller = Caller {
        member_id: owned(&request.member_id),
        instance_id: request.group_instance_id.as_ref().map(owned),
        generation: request.generation_id,
    };
    let group = &request.group_id;
    let heard = match is_shared(group) {
        true => kafka.shared.heartbeat(group, &caller, peer.connection),
        false => kafka.groups.heartbeat(group, &caller).await,
    };
    match heard {
        Ok(()) => HeartbeatResponse::default(),
        Err(error) => HeartbeatResponse::default().with_error_code(error.code()),
    }
}
