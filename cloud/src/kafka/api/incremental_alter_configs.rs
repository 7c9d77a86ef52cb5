//! IncrementalAlterConfigs (44), versions 0-1 (KIP-339). Topics and shared groups; a resource's changes apply all or not at all.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;

use super::describe_configs::{GROUP, TOPIC};
use super::{Kafka, owned, text};
use crate::entries::{ConfigChange, ConfigOp};
use crate::kafka::errors::KafkaCode as _;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(
    kafka: &Kafka,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = alter(kafka, &resource, request.validate_only).await;
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
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    kafka: &Kafka,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), (ResponseError, String)> {
    let changes = resource.configs.iter().map(change).collect::<Result<Vec<_>, _>>()?;
    if resource.resource_type == GROUP {
        let group = group(&resource.resource_name)?;
        let altered = kafka.shared.pools().alter_config(group, &changes, validate_only).await;
        return altered.map_err(|error| (error.kafka(), error.to_string()));
    }
    let name = topic_name(resource.resource_type, &resource.resource_name)?;
    let altered = kafka.topics.alter_config(&name, &changes, validate_only).await;
    altered.map(drop).map_err(|error| (error.kafka(), error.to_string()))
}

/// The topic that a resource names; anything else cannot be configured.
pub(super) fn topic_name(
    resource_type: i8,
    name: &StrBytes,
) -> Result<KafkaTopic, (ResponseError, String)> {
    if resource_type != TOPIC {
        let message = "only topics and shared groups can be configured".to_owned();
        return Err((ResponseError::InvalidRequest, message));
    }
    KafkaTopic::new(name).map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))
}

/// The shared group that a resource names.
pub(super) fn group(name: &StrBytes) -> Result<&str, (ResponseError, String)> {
    match (1..=limits::GROUP_ID_BYTES).contains(&name.len()) {
        true => Ok(name),
        false => {
            Err((ResponseError::InvalidGroupId, "a group's id is missing or too long".to_owned()))
        }
    }
}

fn change(config: &AlterableConfig) -> Result<ConfigChange, (ResponseError, String)> {
    let name = owned(&config.name);
    let value = config.value.as_ref().map(owned);
    let op = match (config.config_operation, value) {
        (DELETE, _) => ConfigOp::Delete,
        (SET, Some(value)) => ConfigOp::Set(value),
        (APPEND, Some(value)) => ConfigOp::Append(value),
        (SUBTRACT, Some(value)) => ConfigOp::Subtract(value),
        (SET | APPEND | SUBTRACT, None) => {
            return Err((ResponseError::InvalidConfig, format!("{name} has no value")));
        }
        (operation, _) => {
            let message = format!("{name}: operation {operation} is unknown");
            return Err((ResponseError::InvalidRequest, message));
        }
    };
    Ok(ConfigChange { name, op })
}
