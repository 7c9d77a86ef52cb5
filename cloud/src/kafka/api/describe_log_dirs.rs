//! DescribeLogDirs (35), versions 1-4.
//!
//! There is one directory, the store's. A partition's size is that of its batches as they were sent, from the time index; nothing is
//! loaded for it. A request for all topics (null) is answered with the partitions that hold something, since a million
//! empty ones would say nothing. How large the disk is (version 4) is not told (-1).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use robustmq_common::ids::{KafkaTopic, PartitionIndex};
use robustmq_common::limits;
use tokio::sync::Semaphore;

use super::resolve::{self, TopicRef};
use super::{Kafka, text};
use crate::kafka::errors::KafkaCode as _;
use crate::store::keys::partition::PartitionKeys;

/// Answers that are built at the same time.
static LISTINGS: Semaphore = Semaphore::const_new(limits::LOG_DIR_LISTINGS);

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let _listing = LISTINGS.acquire().await;
    let topics = match request.topics {
        None => all(kafka).await,
        Some(asked) => these(kafka, asked).await,
    };
    let result = DescribeLogDirsResult::default().with_log_dir(text(&kafka.settings.log_dir));
    let result = match topics {
        Ok(topics) => result.with_topics(topics),
        Err(error) => result.with_error_code(error.code()),
    };
    let result = match version {
        4.. => result.with_total_bytes(-1).with_usable_bytes(-1),
        _ => result,
    };
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn partition(index: PartitionIndex, size: u64) -> DescribeLogDirsPartition {
    DescribeLogDirsPartition::default()
        .with_partition_index(index.0)
        .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX))
}

fn topic(name: &str, partitions: Vec<DescribeLogDirsPartition>) -> DescribeLogDirsTopic {
    DescribeLogDirsTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
}

async fn all(kafka: &Kafka) -> Result<Vec<DescribeLogDirsTopic>, ResponseError> {
    let mut topics = Vec::new();
    let mut after: Option<KafkaTopic> = None;
    loop {
        let page = kafka.topics.list(after.as_ref(), limits::TOPIC_PAGE).await;
        let page = page.map_err(|error| error.kafka())?;
        let keys = page.topics.iter().flat_map(|topic| {
            let keys = |n| PartitionKeys { topic: topic.id, partition: PartitionIndex(n) };
            (0..topic.partitions).map(keys)
        });
        let keys: Vec<PartitionKeys> = keys.collect();
        let sizes = kafka.log.sizes(&keys).await.map_err(|error| error.kafka())?;
        let mut sizes = keys.iter().map(|keys| keys.partition).zip(sizes);
        for listed in &page.topics {
            let own = sizes.by_ref().take(usize::try_from(listed.partitions).unwrap_or(0));
            let held = own.filter(|(_, size)| *size > 0);
            let partitions: Vec<_> = held.map(|(index, size)| partition(index, size)).collect();
            if !partitions.is_empty() {
                topics.push(topic(listed.name.as_str(), partitions));
            }
        }
        match page.topics.last() {
            Some(last) if page.more => after = Some(last.name.clone()),
            _ => return Ok(topics),
        }
    }
}

/// Topics and partitions that do not exist are left out, as in Apache Kafka.
async fn these(
    kafka: &Kafka,
    asked: Vec<DescribableLogDirTopic>,
) -> Result<Vec<DescribeLogDirsTopic>, ResponseError> {
    let mut wanted: BTreeMap<TopicName, Vec<i32>> = BTreeMap::new();
    for DescribableLogDirTopic { topic, partitions, .. } in asked {
        wanted.entry(topic).or_default().extend(partitions);
    }
    let wanted: Vec<(TopicName, Vec<i32>)> = wanted.into_iter().collect();
    let mut topics = Vec::new();
    for page in wanted.chunks(limits::TOPIC_PAGE) {
        resolve::load(kafka, page.iter().map(|(name, _)| TopicRef::Name(name))).await;
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        for (name, indexes) in page {
            let Ok(found) = resolve::topic(kafka, TopicRef::Name(name)).await else { continue };
            let mut indexes = indexes.clone();
            indexes.sort_unstable();
            indexes.dedup();
            indexes.retain(|index| (0..found.partitions).contains(index));
            names.push((name, indexes.len()));
            let of = |n| PartitionKeys { topic: found.id, partition: PartitionIndex(n) };
            keys.extend(indexes.into_iter().map(of));
        }
        let sizes = kafka.log.sizes(&keys).await.map_err(|error| error.kafka())?;
        let mut sizes = keys.iter().zip(sizes);
        for (name, count) in names {
            let own = sizes.by_ref().take(count);
            let own = own.map(|(keys, size)| partition(keys.partition, size)).collect();
            topics.push(topic(name, own));
        }
    }
    Ok(topics)
}
