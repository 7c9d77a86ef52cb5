//! AlterConfigs (33), versions 0-2. Topics only; what a request names becomes all that the topic sets: entries that it does not name go
//! back to their defaults. That is Apache Kafka's meaning, and why it has IncrementalAlterConfigs (KIP-339) beside it.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::incremental_alter_configs::configured_topic;
use super::{Kafka, owned, text};
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(kafka: &Kafka, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = replace(kafka, &resource, request.validate_only).await;
        let answer = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name);
        responses.push(match outcome {
            Ok(()) => answer.with_error_message(None),
            Err((error, message)) => {
                answer.with_error_code(error.code()).with_error_message(Some(text(message)))
            }
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

async fn replace(
    kafka: &Kafka,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), (ResponseError, String)> {
    let name = configured_topic(resource.resource_type, &resource.resource_name)?;
    let mut overrides = BTreeMap::new();
    for config in &resource.configs {
        let key = owned(&config.name);
        // No value asks for the default, as in Apache Kafka.
        let Some(value) = config.value.as_ref().map(owned) else { continue };
        if overrides.insert(key.clone(), value).is_some() {
            return Err((ResponseError::InvalidConfig, format!("{key} is set twice")));
        }
    }
    let altered = kafka.topics.replace_config(&name, overrides, validate_only).await;
    altered.map(drop).map_err(|error| (error.kafka(), error.to_string()))
}
