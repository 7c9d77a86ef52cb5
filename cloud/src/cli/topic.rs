//! `robustmq-cloud topic`.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Subcommand};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    ListOffsetsRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use robustmq_common::cli::complain;
use serde::Serialize;

use super::client::{Client, check};
use super::configs::{self, TOPIC, pairs};
use super::dataset::LISTING;
use super::table::{print_listing, print_table};
use super::units::counted;
use super::{Bootstrap, CommandError, print, print_json};
use crate::entries::Rule;
use crate::topics::KEYS;

const SOURCE: &str = "robustmq.source";
const STORAGE_MODE: &str = "robustmq.storage.mode";
pub(super) const LATEST: i64 = -1;
pub(super) const EARLIEST: i64 = -2;

#[derive(Args)]
pub(super) struct Topic {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand)]
enum TopicCommand {
    /// Create a topic
    #[command(
        after_help = "Examples:\n  robustmq-cloud topic create telemetry --partitions 4 --config retention.ms=86400000\n  robustmq-cloud topic create images --source s3://bucket/train/ --config robustmq.source.epochs=90\n\n`robustmq-cloud topic configs` lists what --config takes."
    )]
    Create {
        /// Its name
        name: String,
        /// How many partitions; the broker's default if left out
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        partitions: Option<i32>,
        /// `robustmq.storage.mode`: when records are acknowledged, and where they are kept; `topic configs storage.mode` says more
        #[arg(long, value_name = "MODE", value_parser = storage_modes())]
        storage_mode: Option<String>,
        /// `robustmq.source`: the data set that the topic serves
        #[arg(long, value_name = "URL")]
        source: Option<String>,
        /// A configuration entry; may be given several times
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// List all topics, with their storage modes or the sources of their records
    #[command(after_help = "Example:\n  robustmq-cloud topic list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Show a topic's partitions, with their first offsets and ends, and configuration
    #[command(after_help = "Example:\n  robustmq-cloud topic describe telemetry")]
    Describe {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// List what can be set of a topic: allowed values, default, meaning
    #[command(
        after_help = "Examples:\n  robustmq-cloud topic configs\n  robustmq-cloud topic configs robustmq.source"
    )]
    Configs {
        /// Only entries with this in their names
        #[arg(default_value = "", hide_default_value = true)]
        part: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a topic's configuration, or give it more partitions: all that is asked for, or nothing
    #[command(
        group(ArgGroup::new("change").args(["configs", "partitions", "storage_mode"]).required(true).multiple(true)),
        after_help = "Examples:\n  robustmq-cloud topic alter telemetry --config retention.bytes=1000000000\n  robustmq-cloud topic alter telemetry --config retention.bytes=\n  robustmq-cloud topic alter telemetry --storage-mode hybrid --partitions 8"
    )]
    Alter {
        /// Its name
        name: String,
        /// A configuration entry; may be given several times. Without a value it goes back to its default
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
        /// How many partitions it is to have: more than it has
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        partitions: Option<i32>,
        /// `robustmq.storage.mode`: when records are acknowledged from now on, and where they are kept
        #[arg(long, value_name = "MODE", value_parser = storage_modes())]
        storage_mode: Option<String>,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Delete topics with their records
    #[command(after_help = "Example:\n  robustmq-cloud topic delete telemetry images")]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
}

pub(super) async fn run(args: Topic) -> Result<(), CommandError> {
    match args.command {
        TopicCommand::Create { name, partitions, storage_mode, source, configs, bootstrap } => {
            let mut entries = pairs(&configs)?;
            let options =
                [("--storage-mode", STORAGE_MODE, storage_mode), ("--source", SOURCE, source)];
            for (option, key, value) in options {
                add(&mut entries, option, key, value)?;
            }
            create(&bootstrap, &name, checked(partitions)?, entries).await
        }
        TopicCommand::List { json, bootstrap } => list(&bootstrap, json).await,
        TopicCommand::Describe { name, json, bootstrap } => describe(&bootstrap, &name, json).await,
        TopicCommand::Configs { part, json } => configs::list(KEYS, &part, json),
        TopicCommand::Alter { name, configs, partitions, storage_mode, bootstrap } => {
            let mut entries = pairs(&configs)?;
            add(&mut entries, "--storage-mode", STORAGE_MODE, storage_mode)?;
            alter(&bootstrap, &name, checked(partitions)?, &entries).await
        }
        TopicCommand::Delete { names, bootstrap } => delete(&bootstrap, &names).await,
    }
}

/// An entry that has an option of its own, which may not say otherwise than `--config` does.
fn add(
    entries: &mut Vec<(String, String)>,
    option: &str,
    key: &str,
    value: Option<String>,
) -> Result<(), CommandError> {
    let Some(value) = value else { return Ok(()) };
    match entries.iter().find(|(given, _)| given == key) {
        Some((_, other)) if *other != value => Err(CommandError::Usage(format!(
            "{option} {value} and --config {key}={other} contradict each other: leave one out"
        ))),
        Some(_) => Ok(()),
        None => {
            entries.push((key.to_owned(), value));
            Ok(())
        }
    }
}

/// A number of partitions; what stands for "none given" in the protocol is not one.
fn checked(partitions: Option<i32>) -> Result<Option<i32>, CommandError> {
    match partitions {
        Some(partitions @ ..=0) => Err(CommandError::Usage(format!(
            "--partitions {partitions}: a topic has at least one partition"
        ))),
        partitions => Ok(partitions),
    }
}

/// The storage modes, from the table that the broker checks by.
fn storage_modes() -> PossibleValuesParser {
    let modes = KEYS.iter().find(|key| key.name == STORAGE_MODE).map(|key| key.rule);
    match modes {
        Some(Rule::OneOf(modes)) => PossibleValuesParser::new(modes),
        _ => PossibleValuesParser::new([""; 0]),
    }
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

async fn create(
    bootstrap: &Bootstrap,
    name: &str,
    partitions: Option<i32>,
    configs: Vec<(String, String)>,
) -> Result<(), CommandError> {
    let has_source = configs.iter().any(|(key, _)| key == SOURCE);
    let config = |(key, value): &(String, String)| {
        let config = CreatableTopicConfig::default().with_name(text(key.as_str()));
        config.with_value(Some(text(value.as_str())))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions.unwrap_or(-1))
        .with_replication_factor(-1)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let mut client = bootstrap.connect().await?;
    if has_source {
        // It is answered when the source is listed.
        client.wait_up_to(LISTING);
    }
    let answer = client.call(7, &request).await?;
    for topic in &answer.topics {
        let advice = configs::advice(TOPIC, name, topic.error_code, &configs);
        let detail = topic.error_message.as_ref();
        let detail = detail.map(|detail| text(format!("{}{advice}", detail.as_str())));
        check(name, topic.error_code, detail.as_ref())?;
        if let Some(note) = &topic.error_message {
            complain("robustmq-cloud", &format!("warning: {}", note.as_str()));
        }
        let partitions = u64::try_from(topic.num_partitions).unwrap_or_default();
        print(&format!("created {name} with {}\n", counted(partitions, "partition")));
    }
    Ok(())
}

#[derive(Serialize)]
struct ListedTopic {
    name: String,
    id: String,
    partitions: usize,
    /// None: it has a source, or is gone meanwhile.
    storage_mode: Option<String>,
    source: Option<String>,
}

/// Metadata of the topics named, or of all. Nothing is created.
pub(super) async fn metadata(
    client: &mut Client,
    names: Option<Vec<&str>>,
) -> Result<Vec<MetadataResponseTopic>, CommandError> {
    let wanted =
        |name: &str| MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let topics = names.map(|names| names.into_iter().map(wanted).collect());
    let request =
        MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
    Ok(client.call(12, &request).await?.topics)
}

/// The storage mode of a topic, which one with a source has not, and its source.
pub(super) async fn modes(
    client: &mut Client,
    topics: &[String],
) -> Result<impl FnMut(&str) -> (Option<String>, Option<String>) + use<>, CommandError> {
    let mut values = configs::values(client, topics, &[STORAGE_MODE, SOURCE]).await?;
    Ok(move |topic: &str| {
        let mut values = values.remove(topic).unwrap_or_default();
        let source = values.remove(SOURCE);
        (values.remove(STORAGE_MODE).filter(|_| source.is_none()), source)
    })
}

async fn list(bootstrap: &Bootstrap, json: bool) -> Result<(), CommandError> {
    let mut client = bootstrap.connect().await?;
    let found = metadata(&mut client, None).await?;
    let name = |topic: &MetadataResponseTopic| {
        topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default()
    };
    let names: Vec<String> = found.iter().map(name).collect();
    let mut modes = modes(&mut client, &names).await?;
    let shown = |(topic, name): (&MetadataResponseTopic, String)| {
        let (storage_mode, source) = modes(&name);
        let (id, partitions) = (topic.topic_id.to_string(), topic.partitions.len());
        ListedTopic { name, id, partitions, storage_mode, source }
    };
    let topics: Vec<_> = found.iter().zip(names).map(shown).collect();
    print_listing(json, &topics, &["TOPIC", "PARTITIONS", "MODE", "ID", "SOURCE"], |topic| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (partitions, mode) = (topic.partitions.to_string(), or_dash(&topic.storage_mode));
        let source = topic.source.clone().unwrap_or_default();
        vec![topic.name.clone(), partitions, mode, topic.id.clone(), source]
    })
}

#[derive(Serialize)]
struct DescribedTopic {
    name: String,
    id: String,
    partitions: Vec<DescribedPartition>,
    /// Also where the topic does not set it; none where it has a source.
    storage_mode: Option<String>,
    /// The entries that the topic sets.
    config: std::collections::BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    log_start_offset: i64,
    high_watermark: i64,
}

async fn describe(bootstrap: &Bootstrap, name: &str, json: bool) -> Result<(), CommandError> {
    let mut client = bootstrap.connect().await?;
    let mut found = metadata(&mut client, Some(vec![name])).await?;
    let Some(topic) = found.pop() else {
        return Err(CommandError::Failed(format!("{name}: the broker says nothing about it")));
    };
    check(name, topic.error_code, None)?;
    let indexes: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
    let starts = offsets(&mut client, name, &indexes, EARLIEST).await?;
    let ends = offsets(&mut client, name, &indexes, LATEST).await?;
    let partitions = starts.into_iter().zip(ends).map(|((partition, start), (_, end))| {
        DescribedPartition { partition, log_start_offset: start, high_watermark: end }
    });
    let (storage_mode, _) = modes(&mut client, &[name.to_owned()]).await?(name);
    let described = DescribedTopic {
        storage_mode,
        name: name.to_owned(),
        id: topic.topic_id.to_string(),
        partitions: partitions.collect(),
        config: configs::set(&mut client, TOPIC, name).await?,
    };
    if json {
        return Ok(print_json(&described)?);
    }
    print(&format!("topic {} ({})\n", described.name, described.id));
    let mode = described.storage_mode.as_ref();
    if let Some(mode) = mode.filter(|_| !described.config.contains_key(STORAGE_MODE)) {
        print(&format!("{STORAGE_MODE} = {mode} (by default)\n"));
    }
    configs::print_set(&described.config);
    print_table(&described.partitions, &["PARTITION", "START", "END"], |p| {
        vec![p.partition.to_string(), p.log_start_offset.to_string(), p.high_watermark.to_string()]
    });
    Ok(())
}

/// One offset of each partition, by ListOffsets' timestamp.
pub(super) async fn offsets(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Result<Vec<(i32, i64)>, CommandError> {
    let partition = |index: &i32| {
        ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp)
    };
    let asked = ListOffsetsTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.iter().map(partition).collect());
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer = client.call(7, &request).await?;
    let mut found = Vec::with_capacity(partitions.len());
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        check(&format!("{topic} {}", partition.partition_index), partition.error_code, None)?;
        found.push((partition.partition_index, partition.offset));
    }
    Ok(found)
}

/// Changes a topic, if all can be changed that is asked for.
async fn alter(
    bootstrap: &Bootstrap,
    name: &str,
    partitions: Option<i32>,
    entries: &[(String, String)],
) -> Result<(), CommandError> {
    let mut client = bootstrap.connect().await?;
    for validate_only in [true, false] {
        if !entries.is_empty() {
            configs::alter(&mut client, TOPIC, name, entries, validate_only).await?;
        }
        if let Some(partitions) = partitions {
            widen(&mut client, name, partitions, validate_only).await?;
        }
    }
    print(&format!("altered {name}\n"));
    Ok(())
}

/// Gives a topic more partitions; with `validate_only` only says whether it may have them.
async fn widen(
    client: &mut Client,
    name: &str,
    partitions: i32,
    validate_only: bool,
) -> Result<(), CommandError> {
    let topic = CreatePartitionsTopic::default()
        .with_name(TopicName(text(name)))
        .with_count(partitions)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000)
        .with_validate_only(validate_only);
    let answer = client.call(3, &request).await?;
    for result in &answer.results {
        check(name, result.error_code, result.error_message.as_ref())?;
    }
    Ok(())
}

/// Deletes those that there are; of those that are not, the first one's reason comes last.
async fn delete(bootstrap: &Bootstrap, names: &[String]) -> Result<(), CommandError> {
    let topic =
        |name: &String| DeleteTopicState::default().with_name(Some(TopicName(text(name.as_str()))));
    let topics = names.iter().map(topic).collect();
    let request = DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000);
    let answer = bootstrap.connect().await?.call(6, &request).await?;
    let mut first = Ok(());
    for response in &answer.responses {
        let name = response.name.as_ref().map_or("", |name| name.as_str());
        // Its message says no more than that there is none.
        let is_missing = response.error_code == ResponseError::UnknownTopicOrPartition.code();
        let detail = response.error_message.as_ref().filter(|_| !is_missing);
        match check(name, response.error_code, detail) {
            Ok(()) => print(&format!("deleted {name}\n")),
            Err(error) if first.is_ok() => first = Err(error),
            Err(error) => complain("robustmq-cloud", &error),
        }
    }
    Ok(first?)
}
