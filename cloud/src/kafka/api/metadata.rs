//! Metadata (3), versions 0-13; topics by id from 10 on (KIP-516).
//!
//! Asking for a topic by name creates it with the broker's defaults, if both the broker and the client (from 4 on) allow it; it
//! is answered as existing at once. This broker leads every partition. Leader epochs are answered as unknown (-1): a client
//! that got one here would send it with each Fetch, and partitions need not be loaded to be listed. Authorized
//! operations are not reported.
//!
//! All topics at once are read in pages; one such answer is built at a time. What is built is charged to the answer memory before; topics
//! for which there is none are refused with LEADER_NOT_AVAILABLE, which clients retry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::resolve::{self, TopicRef, wall_ms};
use super::{Kafka, text};
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::AnswerMemory;
use crate::topics::{NewTopic, Topic, TopicError};

/// Answers with all topics that are built at the same time.
static LISTINGS: Semaphore = Semaphore::const_new(limits::KAFKA_TOPIC_LISTINGS);

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: MetadataRequest,
    memory: &mut AnswerMemory,
) -> MetadataResponse {
    let settings = &kafka.settings;
    let node = BrokerId(settings.node_id);
    let broker = MetadataResponseBroker::default()
        .with_node_id(node)
        .with_host(text(settings.advertised_host.clone()))
        .with_port(i32::from(settings.advertised_port))
        .with_rack(None);
    let response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(settings.cluster_id.clone())))
        .with_controller_id(node);
    let asked = match request.topics {
        // Version 0 has no null: an empty list asks for everything.
        Some(asked) if version >= 1 || !asked.is_empty() => asked,
        _ => {
            return match all_topics(kafka, version, memory).await {
                Ok(topics) => response.with_topics(topics),
                Err(error) if version >= 13 => response.with_error_code(error.code()),
                // There is no place for an error: an empty list makes clients ask again.
                Err(_) => response,
            };
        }
    };
    let mut created = HashMap::new();
    if settings.auto_create_topics && request.allow_auto_topic_creation {
        created = create_missing(kafka, &asked).await;
    }
    let mut topics = Vec::with_capacity(asked.len());
    // Each topic once, as in Apache Kafka: a name takes few bytes in a request, and its partitions many in the answer.
    let mut answered = HashSet::new();
    for wanted in asked {
        if !answered.insert((wanted.name.clone(), wanted.topic_id)) {
            continue;
        }
        topics.push(one_topic(kafka, version, wanted, &created, memory).await);
    }
    response.with_topics(topics)
}

async fn all_topics(
    kafka: &Kafka,
    version: i16,
    memory: &mut AnswerMemory,
) -> Result<Vec<MetadataResponseTopic>, ResponseError> {
    let Ok(_listing) = LISTINGS.acquire().await else {
        return Err(ResponseError::LeaderNotAvailable);
    };
    let failed = |error: &dyn std::fmt::Display, answer: ResponseError| {
        tracing::warn!(%error, "the topics cannot be listed");
        answer
    };
    let mut topics = Vec::new();
    let mut after: Option<KafkaTopic> = None;
    loop {
        let page = kafka.topics.list(after.as_ref(), limits::TOPIC_PAGE).await;
        let page = page.map_err(|error| failed(&error, error.kafka()))?;
        let bytes = page.topics.iter().map(|topic| answer_bytes(topic)).sum();
        memory.grow_alone(bytes).await.map_err(|error| failed(&error, error.kafka()))?;
        topics.extend(page.topics.iter().map(|topic| describe(kafka, version, topic)));
        match page.topics.last() {
            Some(last) if page.more => after = Some(last.name.clone()),
            _ => return Ok(topics),
        }
    }
}

type Created = HashMap<KafkaTopic, Result<Arc<Topic>, TopicError>>;

/// Creates what is asked for by name and missing, in one write.
async fn create_missing(kafka: &Kafka, asked: &[MetadataRequestTopic]) -> Created {
    let mut missing = Vec::new();
    for wanted in asked {
        let name = wanted.name.as_ref().and_then(|name| KafkaTopic::new(name).ok());
        let Some(name) = name else { continue };
        if matches!(kafka.topics.get(&name).await, Ok(None)) {
            let partitions = kafka.settings.default_partitions;
            missing.push(NewTopic { name, partitions, overrides: Default::default() });
        }
    }
    if missing.is_empty() {
        return Created::new();
    }
    let names: Vec<_> = missing.iter().map(|new| new.name.clone()).collect();
    let answers = kafka.topics.create(missing, false, wall_ms()).await;
    names.into_iter().zip(answers).collect()
}

async fn one_topic(
    kafka: &Kafka,
    version: i16,
    wanted: MetadataRequestTopic,
    created: &Created,
    memory: &mut AnswerMemory,
) -> MetadataResponseTopic {
    let refuse = |error: ResponseError, name: Option<TopicName>| {
        let name = if version < 12 { Some(name.unwrap_or_default()) } else { name };
        let answer = MetadataResponseTopic::default().with_error_code(error.code()).with_name(name);
        if version >= 10 { answer.with_topic_id(wanted.topic_id) } else { answer }
    };
    let found = match &wanted.name {
        Some(name) => match KafkaTopic::new(name) {
            Err(_) => Err(ResponseError::InvalidTopicException),
            Ok(valid) => match created.get(&valid) {
                Some(Ok(topic)) => Ok(topic.clone()),
                // Somebody else created it just now.
                Some(Err(TopicError::Exists(_))) | None => {
                    resolve::topic(kafka, TopicRef::Name(name)).await
                }
                Some(Err(error)) => Err(error.kafka()),
            },
        },
        None => resolve::topic(kafka, TopicRef::Id(wanted.topic_id)).await,
    };
    match found {
        Ok(topic) => match memory.grow(answer_bytes(&topic)).await {
            Ok(()) => describe(kafka, version, &topic),
            Err(error) => {
                tracing::warn!(topic = topic.name.as_str(), %error, "it is left out of a Metadata answer");
                refuse(error.kafka(), wanted.name.clone())
            }
        },
        Err(error) => refuse(error, wanted.name.clone()),
    }
}

/// What a topic takes of memory in an answer: as built here, and as encoded.
fn answer_bytes(topic: &Topic) -> usize {
    const ENCODED_PARTITION_BYTES: usize = 40;
    // Replicas and in-sync replicas: one number each, in an allocation of its own.
    const LISTS_BYTES: usize = 2 * 32;
    let partition_bytes =
        size_of::<MetadataResponsePartition>() + LISTS_BYTES + ENCODED_PARTITION_BYTES;
    let partitions = usize::try_from(topic.partitions).unwrap_or(0);
    size_of::<MetadataResponseTopic>()
        + 2 * (topic.name.as_str().len() + ENCODED_PARTITION_BYTES)
        + partitions * partition_bytes
}

fn describe(kafka: &Kafka, version: i16, topic: &Topic) -> MetadataResponseTopic {
    let node = BrokerId(kafka.settings.node_id);
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(node)
            .with_leader_epoch(-1)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    let id = if version >= 10 { topic.id.0 } else { Uuid::nil() };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.as_str()))))
        .with_topic_id(id)
        .with_partitions((0..topic.partitions).map(partition).collect())
}
