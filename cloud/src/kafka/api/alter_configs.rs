//! AlterConfigs (33), versions 0-2. Topics only; a resource's configuration is replaced as a whole or not at all.
//!
//! What the request names is what the topic sets from then on; every other entry goes back to its default, which is why Apache Kafka
//! has IncrementalAlterConfigs (KIP-339). aiokafka and librdkafka's `alter_configs` know only this one. As in Apache Kafka, a
//! value of null is refused with INVALID_REQUEST.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::incremental_alter_configs::topic_name;
use super::{Kafka, owned, text};
use crate::entries::{ConfigChange, ConfigOp};
use crate::kafka::errors::KafkaCode as _;
use crate::topics::KEYS;

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
    let name = topic_name(resource.resource_type, &resource.resource_name)?;
    let mut changes = Vec::with_capacity(resource.configs.len() + KEYS.len());
    for config in &resource.configs {
        let Some(value) = &config.value else {
            let message = format!(
                "{} has no value: leave an entry out to set it back to its default",
                config.name.as_str()
            );
            return Err((ResponseError::InvalidRequest, message));
        };
        let op = ConfigOp::Set(owned(value));
        changes.push(ConfigChange { name: owned(&config.name), op });
    }
    let named = |name: &str| resource.configs.iter().any(|config| config.name.as_str() == name);
    let unnamed = KEYS.iter().filter(|key| !named(key.name));
    changes.extend(
        unnamed.map(|key| ConfigChange { name: key.name.to_owned(), op: ConfigOp::Delete }),
    );
    let altered = kafka.topics.alter_config(&name, &changes, validate_only).await;
    altered.map(drop).map_err(|error| (error.kafka(), error.to_string()))
}
