//! DeleteShareGroupOffsets (92), version 0 (KIP-932): a group without members forgets what it has done of topics. With members it is
//! NON_EMPTY_GROUP.

use kafka_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use kafka_protocol::messages::{DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse};

use super::resolve::{self, TopicRef};
use super::{Kafka, text};
use crate::kafka::errors::KafkaCode as _;

pub(super) async fn handle(
    kafka: &Kafka,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let group = &request.group_id;
    let mut doomed = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let answer = DeleteShareGroupOffsetsResponseTopic::default()
            .with_topic_name(asked.topic_name.clone());
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.topic_name)).await;
        topics.push(match topic {
            Ok(topic) => {
                match kafka.groups.committed_of(group, topic.id).await {
                    Ok(begun) => {
                        doomed.extend(begun.into_iter().map(|(index, _)| (topic.id, index)))
                    }
                    Err(error) => return failed(&error, error.code()),
                }
                answer.with_topic_id(topic.id.0)
            }
            Err(error) => answer.with_error_code(error.code()),
        });
    }
    match kafka.groups.delete_offsets(group, &doomed).await {
        Ok(()) => DeleteShareGroupOffsetsResponse::default().with_responses(topics),
        Err(error) => failed(&error, error.code()),
    }
}

fn failed(error: &dyn std::fmt::Display, code: i16) -> DeleteShareGroupOffsetsResponse {
    DeleteShareGroupOffsetsResponse::default()
        .with_error_code(code)
        .with_error_message(Some(text(error.to_string())))
}
