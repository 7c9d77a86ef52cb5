//! What can be set of topics and groups, from the tables that the broker checks by; and setting it.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::limits;
use serde::Serialize;

use super::client::{Client, check};
use super::{CommandError, print, print_json};
use crate::entries::{ConfigKey, Table};
use crate::group::share::config::table;
use crate::topics::KEYS;

/// The types of resources, as Kafka numbers them.
pub(super) const TOPIC: i8 = 2;
pub(super) const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;

/// `ConfigSource` of DescribeConfigs: nobody sets it.
const DEFAULT_CONFIG: i8 = 5;

/// The entries of a topic or a group that are not at their defaults.
pub(super) async fn set(
    client: &mut Client,
    resource_type: i8,
    name: &str,
) -> Result<BTreeMap<String, Option<String>>, CommandError> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(4, &request).await?;
    let mut set = BTreeMap::new();
    for result in &answer.results {
        check(name, result.error_code, result.error_message.as_ref())?;
        let entries = result.configs.iter().filter(|entry| entry.config_source != DEFAULT_CONFIG);
        set.extend(entries.map(|entry| {
            (entry.name.to_string(), entry.value.as_ref().map(|value| value.to_string()))
        }));
    }
    Ok(set)
}

/// Prints them, one in a line.
pub(super) fn print_set(set: &BTreeMap<String, Option<String>>) {
    for (key, value) in set {
        print(&format!("{key} = {}\n", value.as_deref().unwrap_or("null")));
    }
}

/// What to do about configuration entries that were refused: nothing where each has a name and a value that may be.
pub(super) fn advice(
    resource_type: i8,
    name: &str,
    code: i16,
    entries: &[(String, String)],
) -> String {
    let (table, command) = match resource_type {
        TOPIC => (Table(KEYS), "topic configs".to_owned()),
        _ => (*table(name), format!("group configs '{name}'")),
    };
    let is_wrong = |(key, value): &(String, String)| {
        let entry = BTreeMap::from([(key.clone(), value.clone())]);
        !table.has(key) || (!value.is_empty() && table.check_all(&entry).is_err())
    };
    match code.err() {
        Some(ResponseError::InvalidConfig) if entries.iter().any(is_wrong) => {
            format!("; `robustmq-cloud {command}` lists all entries")
        }
        _ => String::new(),
    }
}

/// KEY=VALUE pairs of the command line, each key once.
pub(super) fn pairs(configs: &[String]) -> Result<Vec<(String, String)>, CommandError> {
    let pair = |config: &String| match config.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CommandError::Usage(format!("--config {config}: it is not KEY=VALUE"))),
    };
    let pairs: Vec<(String, String)> = configs.iter().map(pair).collect::<Result<_, _>>()?;
    let mut keys = BTreeSet::new();
    match pairs.iter().find(|(key, _)| !keys.insert(key)) {
        Some((key, _)) => Err(CommandError::Usage(format!("--config {key} is given twice"))),
        None => Ok(pairs),
    }
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Sets entries of a topic or a group; one without a value goes back to its default. With `validate_only` nothing is changed.
pub(super) async fn alter(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    entries: &[(String, String)],
    validate_only: bool,
) -> Result<(), CommandError> {
    let config = |(key, value): &(String, String)| {
        let config = AlterableConfig::default().with_name(text(key.as_str()));
        match value.is_empty() {
            true => config.with_config_operation(DELETE).with_value(None),
            false => config.with_config_operation(SET).with_value(Some(text(value.as_str()))),
        }
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(entries.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(validate_only);
    let answer = client.call(1, &request).await?;
    for response in &answer.responses {
        let advice = advice(resource_type, name, response.error_code, entries);
        let detail = response.error_message.as_ref();
        let detail = detail.map(|detail| text(format!("{}{advice}", detail.as_str())));
        check(name, response.error_code, detail.as_ref())?;
    }
    Ok(())
}

/// The values of some entries of topics, by topic and entry: without those of topics that are gone meanwhile, and without entries that have
/// none. A few requests, however many topics there are.
pub(super) async fn values(
    client: &mut Client,
    topics: &[String],
    keys: &[&'static str],
) -> Result<BTreeMap<String, BTreeMap<String, String>>, CommandError> {
    let mut values: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for topics in topics.chunks(limits::TOPIC_PAGE) {
        let resource = |name: &String| {
            let keys = keys.iter().map(|key| StrBytes::from_static_str(key)).collect();
            DescribeConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(name.as_str()))
                .with_configuration_keys(Some(keys))
        };
        let request =
            DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
        for result in client.call(4, &request).await?.results {
            let entries = result.configs.into_iter();
            let entries = entries.filter_map(|c| Some((c.name.to_string(), c.value?.to_string())));
            values.insert(result.resource_name.to_string(), entries.collect());
        }
    }
    Ok(values)
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    /// None: it has no value unless one is set.
    default: Option<&'static str>,
    allowed: String,
    meaning: &'static str,
}

/// Prints the entries whose names contain `part`.
pub(super) fn list(keys: &[ConfigKey], part: &str, json: bool) -> Result<(), CommandError> {
    let listed: Vec<Listed> = matching(keys, part).collect();
    if listed.is_empty() {
        return Err(CommandError::Failed(format!(
            "no configuration entry has {part:?} in its name"
        )));
    }
    match json {
        true => Ok(print_json(&listed)?),
        false => {
            print(&listed.iter().map(shown).collect::<Vec<_>>().join("\n"));
            Ok(())
        }
    }
}

fn matching<'a>(keys: &'a [ConfigKey], part: &'a str) -> impl Iterator<Item = Listed> + 'a {
    keys.iter().filter(move |key| key.name.contains(part)).map(|key| Listed {
        name: key.name,
        default: key.default,
        allowed: key.allowed(),
        meaning: key.doc,
    })
}

fn shown(entry: &Listed) -> String {
    let Listed { name, default, allowed, meaning } = entry;
    let default = match default {
        Some("") => "empty by default".to_owned(),
        Some(default) => format!("{default} by default"),
        None => "not set by default".to_owned(),
    };
    format!("{name}\n  {allowed}; {default}\n  {meaning}\n")
}

#[cfg(test)]
mod tests {
    use super::{KEYS, matching, shown};

    #[test]
    fn an_entry_is_listed_with_its_values_its_default_and_what_it_means() {
        let all: Vec<_> = matching(KEYS, "").collect();
        assert_eq!(all.len(), KEYS.len());
        let text = |name: &str| matching(KEYS, name).map(|entry| shown(&entry)).collect::<String>();
        let mode = text("storage.mode");
        let said = "one of memory, hybrid, persistent, tiered; persistent by default";
        assert!(mode.starts_with("robustmq.storage.mode\n") && mode.contains(said), "{mode}");
        assert!(text("source.epochs").contains("a whole number from 1 to 1000000; 1 by default"));
        assert!(text("robustmq.mqtt.topic").contains("not set by default"));
        assert!(text("no.such").is_empty());
    }
}
