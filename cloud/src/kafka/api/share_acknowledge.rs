//! ShareAcknowledge (79), version 1 (KIP-932): what becomes of records that a member has acquired, without fetching more.
//!
//! Answered when it is durable. Epoch -1 ends the share session afterwards: what is still acquired goes back.

use std::collections::BTreeSet;

use kafka_protocol::messages::share_acknowledge_response::{
    PartitionData, ShareAcknowledgeTopicResponse,
};
use kafka_protocol::messages::{ShareAcknowledgeRequest, ShareAcknowledgeResponse};
use robustmq_common::ids::TopicId;

use super::share_session::{self, Acknowledgements, FIRST, LAST};
use super::{Kafka, Peer};
use crate::group::share::members::SessionError;
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    peer: &Peer,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    let group = request.group_id.as_ref().map(|group| &group.0);
    let who = share_session::who(group, request.member_id.as_ref());
    let (group, member_id) = match who {
        Ok(who) => who,
        Err(error) => return ShareAcknowledgeResponse::default().with_error_code(error.code()),
    };
    let share = kafka.shared.share();
    let epoch = request.share_session_epoch;
    let session = match epoch {
        FIRST => Err(SessionError::AcknowledgesTooEarly),
        LAST => share.check_session(&group, &member_id, peer.connection),
        _ => {
            let nothing = BTreeSet::new();
            let session =
                share.advance_session(&group, &member_id, epoch, peer.connection, [], &nothing);
            session.map(drop)
        }
    };
    if let Err(error) = session {
        tracing::debug!(group, member_id, %error, "ShareAcknowledge refused");
        return ShareAcknowledgeResponse::default().with_error_code(error.code());
    }
    let mut acknowledgements = Acknowledgements::new();
    for topic in request.topics {
        for partition in topic.partitions {
            let batches = partition.acknowledgement_batches.into_iter();
            let batches = batches.map(|b| (b.first_offset, b.last_offset, b.acknowledge_types));
            let at = (TopicId(topic.topic_id), partition.partition_index);
            acknowledgements.entry(at).or_default().extend(batches);
        }
    }
    let done = share_session::acknowledge(kafka, (&group, &member_id), acknowledgements).await;
    if epoch == LAST {
        share.end_session(&group, &member_id);
    }
    let answers = done.into_iter().map(|(at, error)| {
        let answer = PartitionData::default()
            .with_partition_index(at.1)
            .with_error_code(error.map_or(0, |error| error.code()));
        (at, answer)
    });
    let responses = share_session::by_topic(answers).into_iter().map(|(topic, partitions)| {
        ShareAcknowledgeTopicResponse::default().with_topic_id(topic).with_partitions(partitions)
    });
    ShareAcknowledgeResponse::default().with_responses(responses.collect())
}
