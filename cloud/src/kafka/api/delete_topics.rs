//! DeleteTopics (20), versions 1-6; by id from 6 on (KIP-516).
//!
//! All topics of a request go by one atomic write; their records follow in the background. A deleted topic's committed
//! offsets are out of reach at once, since they are kept by topic id, and removed later.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;
use uuid::Uuid;

use super::resolve::{self, TopicRef};
use super::{Kafka, text};
use crate::kafka::errors::KafkaCode as _;

/// What the request said, and the topic that it means.
struct Wanted {
    name: Option<TopicName>,
    id: Uuid,
    topic: Result<KafkaTopic, ResponseError>,
}

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<(Option<TopicName>, Uuid)> = match version {
        6.. => request.topics.into_iter().map(|state| (state.name, state.topic_id)).collect(),
        _ => request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect(),
    };
    let mut wanted = Vec::with_capacity(asked.len());
    for page in asked.chunks(limits::TOPIC_PAGE) {
        resolve::load(kafka, page.iter().map(|(name, id)| which(name.as_ref(), *id))).await;
        for (name, id) in page {
            wanted.push(resolve_state(kafka, name.clone(), *id).await);
        }
    }
    let mut names: Vec<KafkaTopic> =
        wanted.iter().filter_map(|wanted| wanted.topic.clone().ok()).collect();
    names.sort();
    names.dedup();
    let outcomes = kafka.topics.delete(&names).await;
    let outcomes: HashMap<_, _> = names.into_iter().zip(outcomes).collect();
    let answer = |wanted: Wanted| {
        let outcome = match &wanted.topic {
            Err(error) => Err((*error, "there is no such topic".to_owned())),
            Ok(name) => match outcomes.get(name) {
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err((error.kafka(), error.to_string())),
                None => Err((ResponseError::UnknownServerError, "no outcome".to_owned())),
            },
        };
        let mut answer = DeletableTopicResult::default().with_name(wanted.name);
        if version >= 6 {
            answer = answer.with_topic_id(wanted.id);
        }
        match outcome {
            Ok(()) => answer,
            Err((error, message)) => {
                let answer = answer.with_error_code(error.code());
                if version >= 5 { answer.with_error_message(Some(text(message))) } else { answer }
            }
        }
    };
    DeleteTopicsResponse::default().with_responses(wanted.into_iter().map(answer).collect())
}

fn which(name: Option<&TopicName>, id: Uuid) -> TopicRef<'_> {
    match name {
        Some(name) => TopicRef::Name(name),
        None => TopicRef::Id(id),
    }
}

async fn resolve_state(kafka: &Kafka, name: Option<TopicName>, id: Uuid) -> Wanted {
    match resolve::topic(kafka, which(name.as_ref(), id)).await {
        Ok(topic) => Wanted {
            name: Some(TopicName(text(topic.name.as_str()))),
            id: topic.id.0,
            topic: Ok(topic.name.clone()),
        },
        Err(error) => Wanted { name, id, topic: Err(error) },
    }
}
