//! Metadata (3), versions 0-13; topics by id from 10 on (KIP-516).
//!
//! Asking for a topic by name creates it with the broker's defaults, if both the broker and the client (from 4 on) allow it; it
//! is answered as existing at once. This broker leads every partition. Leader epochs are answered as unknown (-1): a client
//! that got one here would send it with each Fetch, and partitions need not be loaded to be listed. Authorized
//! operations are not reported.
//!
//! All topics at once: see `listing`. What is built is charged to the answer memory before; topics for which there is none are refused
//! with LEADER_NOT_AVAILABLE, which clients retry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Buf as _;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;
use uuid::Uuid;

use super::resolve::{self, TopicRef, wall_ms};
use super::{Answer, Frame, Kafka, RequestError, decode, encode, frame_parts, listing, text};
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::AnswerMemory;
use crate::topics::{NewTopic, Topic, TopicError};

pub(super) async fn answer(kafka: &Kafka, frame: &Frame) -> Result<Answer, RequestError> {
    let request: MetadataRequest = decode(frame)?;
    let (api, version, id) = (frame.api.key, frame.version, frame.correlation_id);
    match request.topics {
        // Version 0 has no null: an empty list asks for everything.
        Some(asked) if version >= 1 || !asked.is_empty() => {
            let mut memory = AnswerMemory::new(&kafka.answer_memory);
            let may_create = request.allow_auto_topic_creation;
            let topics = these_topics(kafka, version, asked, may_create, &mut memory).await;
            let response = this_broker(kafka).with_topics(topics);
            let encoded = encode(api, version, id, &response)?;
            drop(response);
            let memory = memory.sending(encoded.bytes.remaining());
            Ok(Answer { _memory: memory, ..encoded })
        }
        _ => all_topics(kafka, frame).await,
    }
}

async fn all_topics(kafka: &Kafka, frame: &Frame) -> Result<Answer, RequestError> {
    let (api, version, id) = (frame.api.key, frame.version, frame.correlation_id);
    let response = this_broker(kafka);
    let response = match kafka.listings.topics(kafka, version).await {
        Ok(listed) => {
            let body = listing::with_topics(version, &response, &listed);
            let body = body.map_err(|error| RequestError::Encode {
                api,
                version,
                reason: error.to_string(),
            })?;
            return frame_parts(frame, body, listed.memory());
        }
        Err(error) if version >= 13 => response.with_error_code(error.code()),
        // There is no place for an error: an empty list makes clients ask again.
        Err(_) => response,
    };
    encode(api, version, id, &response)
}

fn this_broker(kafka: &Kafka) -> MetadataResponse {
    let settings = &kafka.settings;
    let node = BrokerId(settings.node_id);
    let broker = MetadataResponseBroker::default()
        .with_node_id(node)
        .with_host(text(settings.advertised_host.clone()))
        .with_port(i32::from(settings.advertised_port))
        .with_rack(None);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(settings.cluster_id.clone())))
        .with_controller_id(node)
}

async fn these_topics(
    kafka: &Kafka,
    version: i16,
    mut asked: Vec<MetadataRequestTopic>,
    may_create: bool,
    memory: &mut AnswerMemory,
) -> Vec<MetadataResponseTopic> {
    // The Java client asks for an id with an empty name.
    for wanted in asked.iter_mut().filter(|wanted| !wanted.topic_id.is_nil()) {
        wanted.name = None;
    }
    let mut created = HashMap::new();
    if kafka.settings.auto_create_topics && may_create {
        created = create_missing(kafka, &asked).await;
    }
    let mut topics = Vec::with_capacity(asked.len());
    // Each topic once, as in Apache Kafka: a name takes few bytes in a request, and its partitions many in the answer.
    let mut answered = HashSet::new();
    for page in asked.chunks(limits::TOPIC_PAGE) {
        let which = |wanted: &MetadataRequestTopic| match &wanted.name {
            Some(_) => None,
            None => Some(wanted.topic_id),
        };
        let by_id = page.iter().filter_map(which).map(TopicRef::Id);
        let names = page.iter().filter_map(|wanted| wanted.name.as_ref());
        resolve::load(kafka, names.map(|name| TopicRef::Name(name)).chain(by_id)).await;
        for wanted in page {
            if answered.insert((wanted.name.clone(), wanted.topic_id)) {
                topics.push(one_topic(kafka, version, wanted, &created, memory).await);
            }
        }
    }
    topics
}

type Created = HashMap<KafkaTopic, Result<Arc<Topic>, TopicError>>;

/// Creates what is asked for by name and missing, in one write.
async fn create_missing(kafka: &Kafka, asked: &[MetadataRequestTopic]) -> Created {
    let names = asked.iter().filter_map(|wanted| KafkaTopic::new(wanted.name.as_ref()?).ok());
    let names: Vec<KafkaTopic> = names.collect();
    let Ok(found) = kafka.topics.get_many(&names).await else { return Created::new() };
    let new = |(name, _)| {
        let partitions = kafka.settings.default_partitions;
        NewTopic::new(name, partitions, Default::default())
    };
    let missing: Vec<NewTopic> =
        names.into_iter().zip(found).filter(|(_, found)| found.is_none()).map(new).collect();
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
    wanted: &MetadataRequestTopic,
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
    // Replicas and in-sync replicas: one number each, in an allocation of its own.
    const LISTS_BYTES: usize = 2 * 32;
    let partitions = usize::try_from(topic.partitions).unwrap_or(0);
    size_of::<MetadataResponseTopic>()
        + topic.name.as_str().len()
        + partitions * (size_of::<MetadataResponsePartition>() + LISTS_BYTES)
        + encoded_bytes(topic)
}

/// The most that a topic takes in an encoded answer.
pub(super) fn encoded_bytes(topic: &Topic) -> usize {
    const ENCODED_BYTES: usize = 40;
    let partitions = usize::try_from(topic.partitions).unwrap_or(0);
    topic.name.as_str().len() + (1 + partitions) * ENCODED_BYTES
}

pub(super) fn describe(kafka: &Kafka, version: i16, topic: &Topic) -> MetadataResponseTopic {
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
