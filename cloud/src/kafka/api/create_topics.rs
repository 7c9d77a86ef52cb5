//! CreateTopics (19), versions 2-7.
//!
//! All topics of a request are created by one atomic write, thousands of them as well as one. A replication factor above 1 is
//! refused as by a cluster of one broker; durability comes from the store. `timeout_ms` is not needed: the answer comes
//! when the topics exist. The configuration in the answer (from 5 on) is complete for few topics; for many it is what each topic sets
//! itself, since everything else is the same for all. The message of a topic that was created is null, or says what is odd about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, CreateTopicsResponse, TopicName};
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;

use super::describe_configs::{DYNAMIC_TOPIC_CONFIG, source_code};
use super::resolve::wall_ms;
use super::{Kafka, fixed, owned, text};
use crate::entries::{ConfigEntry, ConfigError, ConfigSource};
use crate::kafka::errors::KafkaCode as _;
use crate::store::StoreError;
use crate::topics::{NewTopic, Topic, TopicError, describe};

type Refusal = (ResponseError, String);

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut times: HashMap<&TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let twice = |topic: &CreatableTopic| times.get(&topic.name).is_some_and(|times| *times > 1);
    let mut refused: HashMap<usize, Refusal> = HashMap::new();
    let mut new = Vec::with_capacity(request.topics.len());
    for (at, topic) in request.topics.iter().enumerate() {
        let checked = match twice(topic) {
            true => Err((ResponseError::InvalidRequest, "it is in the request twice".to_owned())),
            false => check(kafka, topic),
        };
        match checked {
            Ok(topic) => new.push((at, topic)),
            Err(refusal) => {
                refused.insert(at, refusal);
            }
        }
    }
    let mut notes: HashMap<usize, String> = HashMap::new();
    let topics = with_sources(kafka, request.validate_only, new, &mut refused, &mut notes).await;
    let mut created =
        kafka.topics.create(topics.clone(), request.validate_only, wall_ms()).await.into_iter();
    let wish = Wish { version, defaults: request.topics.len() <= limits::FULLY_DESCRIBED_TOPICS };
    let mut answers = Vec::with_capacity(request.topics.len());
    for (at, topic) in request.topics.iter().enumerate() {
        let outcome = match refused.remove(&at) {
            Some(refusal) => Err(refusal),
            None => match created.next() {
                Some(Ok(topic)) => {
                    if topic.config.source.is_some() && !request.validate_only {
                        kafka.log.source_changed(topic.id);
                    }
                    Ok(topic)
                }
                Some(Err(error)) => {
                    forget_source(kafka, topic, &topics).await;
                    Err((error.kafka(), error.to_string()))
                }
                None => Err((ResponseError::UnknownServerError, "no outcome".to_owned())),
            },
        };
        answers.push(answer(wish, topic.name.clone(), outcome, notes.remove(&at)));
    }
    CreateTopicsResponse::default().with_topics(answers)
}

/// Lists the sources of topics that have one, if they could be created otherwise. What cannot be listed is refused; of what is odd the creator
/// gets a note.
async fn with_sources(
    kafka: &Kafka,
    validate_only: bool,
    new: Vec<(usize, NewTopic)>,
    refused: &mut HashMap<usize, Refusal>,
    notes: &mut HashMap<usize, String>,
) -> Vec<NewTopic> {
    let mut topics = Vec::with_capacity(new.len());
    for (at, topic) in new {
        if topic.overrides.contains_key(SOURCE) && !validate_only {
            match list_source(kafka, &topic).await {
                Ok(note) => notes.extend(note.map(|note| (at, note))),
                Err(refusal) => {
                    refused.insert(at, refusal);
                    continue;
                }
            }
        }
        topics.push(topic);
    }
    topics
}

/// The entry that makes a dataset topic.
const SOURCE: &str = "robustmq.source";

async fn list_source(kafka: &Kafka, topic: &NewTopic) -> Result<Option<String>, Refusal> {
    let checked = kafka.topics.create(vec![topic.clone()], true, wall_ms()).await;
    let checked = checked.into_iter().next().unwrap_or_else(|| Err(StoreError::Closed.into()));
    let checked = checked.map_err(|error| (error.kafka(), error.to_string()))?;
    let Some(config) = &checked.config.source else { return Ok(None) };
    let listed = kafka.datasets.create(topic.id, config, wall_ms()).await;
    let listed = listed.map_err(|error| {
        let message = format!("configuration entry {SOURCE} cannot be used: {error}");
        (ResponseError::InvalidConfig, message)
    })?;
    let empty = empty_partitions(topic.partitions, listed.objects);
    let warnings = kafka.datasets.warnings(config, topic.partitions, &listed);
    let notes: Vec<String> = empty.into_iter().chain(warnings).collect();
    for note in &notes {
        tracing::warn!(topic = topic.name.as_str(), "{note}");
    }
    Ok((!notes.is_empty()).then(|| notes.join("; ")))
}

/// Objects are not split, so further partitions have nothing. They are allowed: objects may come, and the number of partitions is for good.
fn empty_partitions(partitions: i32, objects: u64) -> Option<String> {
    let empty = u64::from(partitions.max(0).cast_unsigned()).saturating_sub(objects);
    let there_is = match objects {
        1 => "there is 1 object".to_owned(),
        _ => format!("there are {objects} objects"),
    };
    (empty > 0).then(|| {
        format!(
            "{empty} of {partitions} partitions are empty, since {there_is}, and each is in one partition as a whole; a refresh fills \
             them when more have come"
        )
    })
}

/// Somebody else has created it meanwhile, or the store failed.
async fn forget_source(kafka: &Kafka, topic: &CreatableTopic, topics: &[NewTopic]) {
    let of_name = |new: &&NewTopic| new.name.as_str() == topic.name.as_str();
    let Some(new) = topics.iter().find(of_name) else { return };
    if new.overrides.contains_key(SOURCE)
        && let Err(error) = kafka.datasets.forget(new.id).await
    {
        tracing::warn!(%error, "the manifest of a topic that was not created is removed at the next start");
    }
}

fn check(kafka: &Kafka, topic: &CreatableTopic) -> Result<NewTopic, Refusal> {
    let name = KafkaTopic::new(&topic.name)
        .map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
    let partitions = if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            let message = format!(
                "replication factor {}: there is one broker, and durability comes from its store; use 1 or -1",
                topic.replication_factor
            );
            return Err((ResponseError::InvalidReplicationFactor, message));
        }
        match topic.num_partitions {
            -1 => kafka.settings.default_partitions,
            partitions => partitions,
        }
    } else {
        assigned_partitions(kafka, topic)?
    };
    let mut overrides = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("configuration {} has no value", config.name.as_str());
            return Err((ResponseError::InvalidConfig, message));
        };
        if overrides.insert(owned(&config.name), owned(value)).is_some() {
            let twice = TopicError::Config(ConfigError::Twice { name: owned(&config.name) });
            return Err((twice.kafka(), twice.to_string()));
        }
    }
    Ok(NewTopic::new(name, partitions, overrides))
}

/// A manual assignment has to number its partitions from 0 and put each on this broker.
fn assigned_partitions(kafka: &Kafka, topic: &CreatableTopic) -> Result<i32, Refusal> {
    let invalid = |message: &str| (ResponseError::InvalidReplicaAssignment, message.to_owned());
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "give either an assignment or counts, which are -1 then".to_owned();
        return Err((ResponseError::InvalidRequest, message));
    }
    let here = [BrokerId(kafka.settings.node_id)];
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
    indexes.sort_unstable();
    if !indexes.iter().zip(0..).all(|(index, expected)| *index == expected) {
        return Err(invalid("partitions have to be numbered from 0 without gaps"));
    }
    if topic.assignments.iter().any(|assignment| assignment.broker_ids != here) {
        return Err(invalid("every partition has one replica, on this broker"));
    }
    i32::try_from(indexes.len()).map_err(|_| invalid("too many partitions"))
}

/// What the answer says of each topic.
#[derive(Clone, Copy)]
struct Wish {
    version: i16,
    /// Configuration that the topic does not set.
    defaults: bool,
}

fn answer(
    Wish { version, defaults }: Wish,
    name: TopicName,
    outcome: Result<Arc<Topic>, Refusal>,
    note: Option<String>,
) -> CreatableTopicResult {
    let answer = CreatableTopicResult::default().with_name(name);
    let topic = match outcome {
        Ok(topic) => topic,
        Err((error, message)) => {
            let answer =
                answer.with_error_code(error.code()).with_error_message(Some(text(message)));
            let nothing = if version >= 5 { None } else { Some(Vec::new()) };
            return answer.with_configs(nothing);
        }
    };
    let answer = answer.with_error_message(note.map(text));
    if version < 5 {
        return answer;
    }
    let config = |entry: ConfigEntry<'_>| {
        let value = match entry.source {
            ConfigSource::Default => entry.key.default.map(fixed),
            ConfigSource::Resource | ConfigSource::Broker => entry.value.map(text),
        };
        CreatableTopicConfigs::default()
            .with_name(fixed(entry.key.name))
            .with_value(value)
            .with_config_source(source_code(entry.source, DYNAMIC_TOPIC_CONFIG))
    };
    let shown = |entry: &ConfigEntry<'_>| defaults || entry.source == ConfigSource::Resource;
    let configs = match topic.overrides.is_empty() && !defaults {
        true => Vec::new(),
        false => describe(&topic.overrides).filter(shown).map(config).collect(),
    };
    let answer = answer
        .with_num_partitions(topic.partitions)
        .with_replication_factor(1)
        .with_configs(Some(configs));
    if version >= 7 { answer.with_topic_id(topic.id.0) } else { answer }
}
