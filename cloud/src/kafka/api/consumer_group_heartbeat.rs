//! ConsumerGroupHeartbeat (68), versions 0-1 (KIP-848), for `$shared/` groups.
//!
//! Epoch 0 joins, -1 and -2 leave: a static member that goes for a while leaves nothing behind in a shared group. Every member is assigned
//! every partition of what it subscribes to. Patterns are those of the `regex` crate, much like RE2's, and match whole names. What the
//! member says that it owns, its rack and its assignor are not looked at. Other groups are refused with UNSUPPORTED_VERSION: they have the
//! classic protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use robustmq_common::ids::TopicId;
use robustmq_common::limits;
use uuid::Uuid;

use super::resolve::{self, TopicRef};
use super::{Kafka, Peer, fixed, owned, text};
use crate::group::coordinator::CoordinatorError;
use crate::group::machine::GroupError;
use crate::group::shared::coordinator::{Client, ConsumerBeat};
use crate::group::shared::is_shared;
use crate::group::shared::members::Subscription;
use crate::kafka::errors::KafkaCode as _;
use crate::topics::PatternError;

const LEAVES: [i32; 2] = [-1, -2];

/// Why a heartbeat is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Group(#[from] CoordinatorError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Refused {
    fn code(&self) -> i16 {
        match self {
            Self::Group(CoordinatorError::Group(GroupError::IllegalGeneration)) => {
                ResponseError::FencedMemberEpoch.code()
            }
            // It has subscribed to nothing.
            Self::Group(CoordinatorError::Group(GroupError::InconsistentProtocol)) => {
                ResponseError::InvalidRequest.code()
            }
            Self::Group(CoordinatorError::Group(GroupError::FencedInstance)) => {
                ResponseError::UnreleasedInstanceId.code()
            }
            Self::Group(error) => error.code(),
            Self::Pattern(PatternError::Invalid(_)) => {
                ResponseError::InvalidRegularExpression.code()
            }
            Self::Pattern(PatternError::Store(_)) => ResponseError::CoordinatorNotAvailable.code(),
        }
    }
}

pub(super) async fn handle(
    kafka: &Kafka,
    peer: &Peer,
    client: Client,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let group = owned(&request.group_id);
    if !is_shared(&group) {
        return ConsumerGroupHeartbeatResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code())
            .with_error_message(Some(fixed("only $shared/ groups have the consumer protocol")));
    }
    let (member_id, epoch) = (owned(&request.member_id), request.member_epoch);
    if LEAVES.contains(&epoch) {
        return match kafka.shared.leave(&group, &member_id, None) {
            Ok(()) => ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text(member_id)))
                .with_member_epoch(epoch),
            Err(error) => failed(&Refused::Group(error)),
        };
    }
    let beat = ConsumerBeat {
        member_id,
        epoch,
        instance_id: request.instance_id.as_ref().map(owned),
        names: request
            .subscribed_topic_names
            .map(|names| names.iter().map(|name| owned(name)).collect()),
        pattern: request.subscribed_topic_regex.as_ref().map(owned),
        client_id: client.client_id,
        client_host: client.client_host,
        fresh_member_id: Uuid::new_v4().to_string(),
    };
    let heard = kafka.shared.consumer_heartbeat(&group, beat, peer.connection, async |wanted| {
        partitions(kafka, wanted).await
    });
    match heard.await {
        Ok(told) => ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(text(told.member_id)))
            .with_member_epoch(told.epoch)
            .with_heartbeat_interval_ms(millis(limits::shared::CONSUMER_HEARTBEAT))
            .with_assignment(told.assignment.map(assignment)),
        Err(error) => {
            tracing::debug!(group, %error, "ConsumerGroupHeartbeat refused");
            failed(&error)
        }
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn failed(error: &Refused) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(error.to_string())))
}

fn assignment(assigned: BTreeMap<TopicId, i32>) -> Assignment {
    let topic = |(topic, partitions): (TopicId, i32)| {
        TopicPartitions::default().with_topic_id(topic.0).with_partitions((0..partitions).collect())
    };
    Assignment::default().with_topic_partitions(assigned.into_iter().map(topic).collect())
}

/// What there is of what is wanted: a topic that does not exist is assigned when it does.
async fn partitions(
    kafka: &Kafka,
    wanted: Subscription,
) -> Result<BTreeMap<TopicId, i32>, Refused> {
    let mut assigned = by_name(kafka, &wanted.names).await;
    if let Some(pattern) = &wanted.pattern {
        assigned.extend(kafka.patterns.matching(&kafka.topics, pattern).await?);
    }
    Ok(assigned)
}

/// What there is of topics, by their names.
pub(super) async fn by_name(kafka: &Kafka, names: &BTreeSet<String>) -> BTreeMap<TopicId, i32> {
    resolve::load(kafka, names.iter().map(|name| TopicRef::Name(name))).await;
    let mut found = BTreeMap::new();
    for name in names {
        if let Ok(topic) = resolve::topic(kafka, TopicRef::Name(name)).await {
            found.insert(topic.id, topic.partitions);
        }
    }
    found
}
