//! CreatePartitions (37), versions 0-3. Assignments are not looked at: there is one broker to assign to.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use robustmq_common::ids::KafkaTopic;

use super::{Kafka, text};
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let outcome = match KafkaTopic::new(&asked.name) {
            Ok(name) => kafka
                .topics
                .create_partitions(&name, asked.count, request.validate_only)
                .await
                .map_err(|error| (error.kafka(), error.to_string())),
            Err(error) => Err((ResponseError::InvalidTopicException, error.to_string())),
        };
        let answer = CreatePartitionsTopicResult::default().with_name(asked.name);
        results.push(match outcome {
            Ok(_) => answer.with_error_message(None),
            Err((error, message)) => {
                answer.with_error_code(error.code()).with_error_message(Some(text(message)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}
