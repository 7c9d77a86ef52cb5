//! FindCoordinator (10), versions 0-5; from 4 on several keys at once (KIP-699).
//!
//! On one machine this broker coordinates every group. A transaction coordinator does not exist: the answer is
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which makes the Java client and librdkafka fail `initTransactions` at once with a
//! clear error; COORDINATOR_NOT_AVAILABLE would make them ask for ever.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Kafka, text};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) fn handle(
    kafka: &Kafka,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let refusal = match request.key_type {
        GROUP => None,
        TRANSACTION => Some((
            ResponseError::TransactionalIdAuthorizationFailed,
            "transactions are not supported by this broker",
        )),
        _ => Some((ResponseError::InvalidRequest, "this key type is not supported")),
    };
    if version >= 4 {
        let find = |key: StrBytes| coordinator(kafka, refusal).with_key(key);
        let coordinators = request.coordinator_keys.into_iter().map(find).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let one = coordinator(kafka, refusal);
    let response = FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port);
    if version >= 1 { response.with_error_message(one.error_message) } else { response }
}

fn coordinator(kafka: &Kafka, refusal: Option<(ResponseError, &str)>) -> Coordinator {
    match refusal {
        None => Coordinator::default()
            .with_node_id(BrokerId(kafka.settings.node_id))
            .with_host(text(kafka.settings.advertised_host.clone()))
            .with_port(i32::from(kafka.settings.advertised_port))
            .with_error_message(None),
        Some((error, message)) => Coordinator::default()
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(text(message))),
    }
}
