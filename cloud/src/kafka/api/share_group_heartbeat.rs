//! ShareGroupHeartbeat (76), version 1 (KIP-932).
//!
//! Epoch 0 joins, -1 leaves. A member is assigned every partition of the topics that it subscribes to, whoever else is in the group, and
//! told of it when something changes. A group that is a consumer group already is refused with GROUP_ID_NOT_FOUND.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::consumer_group_heartbeat::by_name;
use super::{Kafka, fixed, owned, text};
use crate::group::share::coordinator::ShareError;
use crate::group::share::members::Beat;
use crate::group::share::{PROTOCOL_TYPE, coordinator::Told};
use crate::group::shared::coordinator::Client;
use crate::group::shared::is_shared;
use crate::kafka::errors::KafkaCode as _;

const LEAVES: i32 = -1;
const JOINS: i32 = 0;

pub(super) async fn handle(
    kafka: &Kafka,
    client: Client,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let group = owned(&request.group_id);
    let member_id = request.member_id.clone();
    if request.member_epoch == LEAVES {
        return match kafka.shared.share().leave(&group, &member_id) {
            Ok(()) => ShareGroupHeartbeatResponse::default()
                .with_member_id(Some(member_id))
                .with_member_epoch(LEAVES),
            Err(error) => failed(&ShareError::Member(error)),
        };
    }
    if request.member_epoch == JOINS && !is_shared(&group) {
        match kafka.groups.describe(&group).await {
            Ok(Some(known)) if known.snapshot.protocol_type.as_deref() != Some(PROTOCOL_TYPE) => {
                return ShareGroupHeartbeatResponse::default()
                    .with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_error_message(Some(fixed("it is a consumer group, and no share group")));
            }
            Ok(_) => {}
            Err(error) => return failed(&ShareError::Group(error)),
        }
    }
    let beat = Beat {
        member_id: owned(&request.member_id),
        epoch: request.member_epoch,
        subscribed: request
            .subscribed_topic_names
            .map(|names| names.iter().map(|name| owned(name)).collect()),
        client_id: client.client_id,
        client_host: client.client_host,
        rack_id: request.rack_id.as_ref().map(owned),
    };
    let heard =
        kafka.shared.share().heartbeat(&group, beat, async |wanted| by_name(kafka, &wanted).await);
    match heard.await {
        Ok(told) => told_answer(told).with_member_id(Some(member_id)),
        Err(error) => {
            tracing::debug!(group, member = member_id.as_str(), %error, "ShareGroupHeartbeat refused");
            failed(&error)
        }
    }
}

fn failed(error: &ShareError) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(error.to_string())))
}

fn told_answer(told: Told) -> ShareGroupHeartbeatResponse {
    let topic = |(topic, partitions): (robustmq_common::ids::TopicId, i32)| {
        TopicPartitions::default().with_topic_id(topic.0).with_partitions((0..partitions).collect())
    };
    let assignment = told.assignment.map(|assignment| {
        Assignment::default().with_topic_partitions(assignment.into_iter().map(topic).collect())
    });
    let interval = i32::try_from(told.timing.heartbeat_interval.as_millis());
    ShareGroupHeartbeatResponse::default()
        .with_member_epoch(told.epoch)
        .with_heartbeat_interval_ms(interval.unwrap_or(i32::MAX))
        .with_assignment(assignment)
}
