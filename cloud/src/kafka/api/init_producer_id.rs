//! InitProducerId (22), versions 0-5: ids for idempotent producers (KIP-98).
//!
//! Each request gets a fresh id with epoch 0, also the one that comes with an old id after an error (KIP-360): a fresh id is
//! as good as a bumped epoch. Transactional ids are refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, see
//! `find_coordinator`.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::Kafka;
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: i16| {
        InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    match kafka.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id.0))
            .with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "no producer id could be reserved");
            // Retriable for every client, unlike a storage error here.
            let retriable = ResponseError::CoordinatorNotAvailable.code();
            refused(if error.kafka().is_retriable() { retriable } else { error.code() })
        }
    }
}
