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
    /// List all topics
    #[command(after_help = "Example:\n  robustmq-cloud topic list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Show a topic's partitions and configuration
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
    /// Change a topic's configuration, or give it more partitions
    #[command(
        group(ArgGroup::new("change").args(["configs", "partitions"]).required(true).multiple(true)),
        after_help = "Examples:\n  robustmq-cloud topic alter telemetry --config retention.bytes=1000000000\n  robustmq-cloud topic alter telemetry --config retention.bytes=\n  robustmq-cloud topic alter telemetry --partitions 8"
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
        TopicCommand::Alter { name, configs, partitions, bootstrap } => {
            let (entries, partitions) = (pairs(&configs)?, checked(partitions)?);
            if !entries.is_empty() {
                configs::alter(&bootstrap, TOPIC, &name, entries).await?;
            }
            if let Some(partitions) = partitions {
                widen(&bootstrap, &name, partitions).await?;
            }
            print(&format!("altered {name}\n"));
            Ok(())
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
    let config = |(key, value): (String, String)| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions.unwrap_or(-1))
        .with_replication_factor(-1)
        .with_configs(configs.into_iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let mut client = bootstrap.connect().await?;
    if has_source {
        // It is answered when the source is listed.
        client.wait_up_to(LISTING);
    }
    let answer = client.call(7, &request).await?;
    for topic in &answer.topics {
        let detail = topic.error_message.as_ref().map(|detail| {
            text(format!("{}{}", detail.as_str(), configs::advice(TOPIC, topic.error_code)))
        });
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

async fn list(bootstrap: &Bootstrap, json: bool) -> Result<(), CommandError> {
    let mut client = bootstrap.connect().await?;
    let shown = |topic: &MetadataResponseTopic| ListedTopic {
        name: topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default(),
        id: topic.topic_id.to_string(),
        partitions: topic.partitions.len(),
    };
    let topics: Vec<_> = metadata(&mut client, None).await?.iter().map(shown).collect();
    print_listing(json, &topics, &["TOPIC", "PARTITIONS", "ID"], |topic| {
        vec![topic.name.clone(), topic.partitions.to_string(), topic.id.clone()]
    })
}

#[derive(Serialize)]
struct DescribedTopic {
    name: String,
    id: String,
    partitions: Vec<DescribedPartition>,
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
    let described = DescribedTopic {
        name: name.to_owned(),
        id: topic.topic_id.to_string(),
        partitions: partitions.collect(),
        config: configs::set(&mut client, TOPIC, name).await?,
    };
    if json {
        return Ok(print_json(&described)?);
    }
    print(&format!("topic {} ({})\n", described.name, described.id));
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

/// Gives a topic more partitions.
async fn widen(bootstrap: &Bootstrap, name: &str, partitions: i32) -> Result<(), CommandError> {
    let topic = CreatePartitionsTopic::default()
        .with_name(TopicName(text(name)))
        .with_count(partitions)
        .with_assignments(None);
    let request =
        CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer = bootstrap.connect().await?.call(3, &request).await?;
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
