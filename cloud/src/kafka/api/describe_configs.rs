//! DescribeConfigs (32), versions 1-4.
//!
//! Topics: every entry that a topic may have, with its source, type and documentation. The broker: the few entries that this
//! broker has, read-only. Groups: every entry that a shared group or a share group may have, by its id, also of one that does not exist yet. Other resources are refused with INVALID_REQUEST, and resources for which there is no memory with
//! LEADER_NOT_AVAILABLE.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::limits;

use super::incremental_alter_configs::group;
use super::resolve::{self, TopicRef};
use super::{Kafka, fixed, text};
use crate::entries::{ConfigEntry, ConfigSource, ConfigType};
use crate::group::share::config::table;
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::AnswerMemory;
use crate::topics::describe;

pub(super) const TOPIC: i8 = 2;
const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

pub(super) const DYNAMIC_TOPIC_CONFIG: i8 = 1;
const STATIC_BROKER_CONFIG: i8 = 4;
const DYNAMIC_GROUP_CONFIG: i8 = 8;

const NO_SUCH_RESOURCE: &str = "there is no such resource";

/// The number of a source (`ConfigSource` in Apache Kafka's `DescribeConfigsResponse`); `set` is that of what the resource sets.
pub(super) fn source_code(source: ConfigSource, set: i8) -> i8 {
    match source {
        ConfigSource::Resource => set,
        ConfigSource::Broker => STATIC_BROKER_CONFIG,
        ConfigSource::Default => 5,
    }
}

fn type_code(kind: ConfigType) -> i8 {
    match kind {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
    }
}

/// What the client wants to see of each entry.
struct Wish {
    version: i16,
    synonyms: bool,
    documentation: bool,
}

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: DescribeConfigsRequest,
    memory: &mut AnswerMemory,
) -> DescribeConfigsResponse {
    let wish = Wish {
        version,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let mut results = Vec::with_capacity(request.resources.len());
    for (at, resource) in request.resources.iter().enumerate() {
        if at % limits::TOPIC_PAGE == 0 {
            let page = request.resources.iter().skip(at).take(limits::TOPIC_PAGE);
            let topics = page.filter(|resource| resource.resource_type == TOPIC);
            resolve::load(kafka, topics.map(|topic| TopicRef::Name(&topic.resource_name))).await;
        }
        let keys = resource.configuration_keys.as_ref();
        let keys = keys.map(|keys| keys.iter().map(|key| key.as_str()).collect::<HashSet<_>>());
        let wanted = |name: &str| keys.as_ref().is_none_or(|keys| keys.contains(name));
        let described = match resource.resource_type {
            TOPIC => describe_topic(kafka, &wish, resource, &wanted, memory).await,
            BROKER => match memory.grow(limits::DESCRIBED_BROKER_BYTES).await {
                Ok(()) => Ok(describe_broker(kafka, &wish, &wanted)),
                Err(error) => Err((error.kafka(), error.to_string())),
            },
            GROUP => describe_group(kafka, &wish, &resource.resource_name, &wanted, memory).await,
            _ => Err((ResponseError::InvalidRequest, NO_SUCH_RESOURCE.to_owned())),
        };
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        results.push(match described {
            Ok(entries) => answer.with_error_message(None).with_configs(entries),
            Err((error, message)) => {
                answer.with_error_code(error.code()).with_error_message(Some(text(message)))
            }
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

async fn describe_topic(
    kafka: &Kafka,
    wish: &Wish,
    resource: &DescribeConfigsResource,
    wanted: &impl Fn(&str) -> bool,
    memory: &mut AnswerMemory,
) -> Result<Vec<DescribeConfigsResourceResult>, (ResponseError, String)> {
    let topic = resolve::topic(kafka, TopicRef::Name(&resource.resource_name)).await;
    let topic = topic.map_err(|error| (error, NO_SUCH_RESOURCE.to_owned()))?;
    let entries = describe(&topic.overrides).filter(|entry| wanted(entry.key.name));
    results(wish, entries.collect(), DYNAMIC_TOPIC_CONFIG, memory).await
}

async fn describe_group(
    kafka: &Kafka,
    wish: &Wish,
    name: &StrBytes,
    wanted: &impl Fn(&str) -> bool,
    memory: &mut AnswerMemory,
) -> Result<Vec<DescribeConfigsResourceResult>, (ResponseError, String)> {
    let overrides = kafka.shared.pools().overrides(group(name)?).await;
    let overrides = overrides.map_err(|error| (error.kafka(), error.to_string()))?;
    let defaults = kafka.shared.pools().defaults(name);
    let entries = table(name).describe(&overrides).filter(|entry| wanted(entry.key.name));
    let entries = entries.map(|entry| match defaults.get(entry.key.name) {
        Some(value) if entry.source == ConfigSource::Default => {
            ConfigEntry { value: Some(value), source: ConfigSource::Broker, ..entry }
        }
        _ => entry,
    });
    results(wish, entries.collect(), DYNAMIC_GROUP_CONFIG, memory).await
}

async fn results(
    wish: &Wish,
    entries: Vec<ConfigEntry<'_>>,
    set: i8,
    memory: &mut AnswerMemory,
) -> Result<Vec<DescribeConfigsResourceResult>, (ResponseError, String)> {
    let bytes = entries.iter().map(|entry| answer_bytes(wish, entry)).sum();
    memory.grow(bytes).await.map_err(|error| (error.kafka(), error.to_string()))?;
    Ok(entries.iter().map(|entry| result(wish, entry, set)).collect())
}

/// What an entry takes of memory in an answer: its texts and its synonyms, as built here and as encoded.
fn answer_bytes(wish: &Wish, entry: &ConfigEntry<'_>) -> usize {
    let key = entry.key;
    let value = entry.value.map_or(0, str::len);
    let mut texts = key.name.len() + value;
    let mut structs = size_of::<DescribeConfigsResourceResult>();
    if wish.synonyms {
        texts += 2 * key.name.len() + value + key.default.map_or(0, str::len);
        structs += 2 * size_of::<DescribeConfigsSynonym>();
    }
    if wish.documentation {
        texts += key.doc.len();
    }
    structs + 2 * (texts + 32)
}

fn result(wish: &Wish, entry: &ConfigEntry<'_>, set: i8) -> DescribeConfigsResourceResult {
    let key = entry.key;
    let value = match entry.source {
        ConfigSource::Default => key.default.map(fixed),
        ConfigSource::Resource | ConfigSource::Broker => entry.value.map(text),
    };
    let mut answer = DescribeConfigsResourceResult::default()
        .with_name(fixed(key.name))
        .with_value(value.clone())
        .with_config_source(source_code(entry.source, set));
    if wish.synonyms {
        let synonym = |value: Option<StrBytes>, source| {
            DescribeConfigsSynonym::default()
                .with_name(fixed(key.name))
                .with_value(value)
                .with_source(source_code(source, set))
        };
        let mut synonyms = Vec::new();
        if entry.source != ConfigSource::Default {
            synonyms.push(synonym(value, entry.source));
        }
        synonyms.push(synonym(key.default.map(fixed), ConfigSource::Default));
        answer = answer.with_synonyms(synonyms);
    }
    if wish.version >= 3 {
        answer = answer.with_config_type(type_code(key.kind));
        let documentation = wish.documentation.then(|| fixed(key.doc));
        answer = answer.with_documentation(documentation);
    }
    answer
}

fn describe_broker(
    kafka: &Kafka,
    wish: &Wish,
    wanted: &impl Fn(&str) -> bool,
) -> Vec<DescribeConfigsResourceResult> {
    let settings = &kafka.settings;
    let entries = BTreeMap::from([
        (
            "auto.create.topics.enable",
            (ConfigType::Boolean, settings.auto_create_topics.to_string()),
        ),
        ("broker.id", (ConfigType::Int, settings.node_id.to_string())),
        ("default.replication.factor", (ConfigType::Int, "1".to_owned())),
        ("num.partitions", (ConfigType::Int, settings.default_partitions.to_string())),
        ("socket.request.max.bytes", (ConfigType::Int, settings.frame_bytes.to_string())),
    ]);
    let entry = |(name, (kind, value)): (&'static str, (ConfigType, String))| {
        let answer = DescribeConfigsResourceResult::default()
            .with_name(fixed(name))
            .with_value(Some(text(value)))
            .with_read_only(true)
            .with_config_source(STATIC_BROKER_CONFIG);
        match wish.version >= 3 {
            true => answer.with_config_type(type_code(kind)).with_documentation(None),
            false => answer,
        }
    };
    entries.into_iter().filter(|(name, _)| wanted(name)).map(entry).collect()
}
