//! ListOffsets (2), versions 1-9.
//!
//! By time: the first record at or after a timestamp. -1 is the end (for `read_committed` the last stable offset, which is the
//! same), -2 the start, -3 the record with the largest timestamp (KIP-734), -4 the start of what is on the broker's own disk
//! (KIP-405), -5 the last archived offset, or -1 (KIP-1005). -3 needs version 7, -4 needs 8, -5 needs 9; what a version does not have is
//! answered UNSUPPORTED_VERSION, by Apache Kafka too. Not done: the timeout of 10.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use robustmq_common::limits;

use super::Kafka;
use super::resolve::{self, TopicRef, check_epoch};
use crate::kafka::errors::KafkaCode as _;
use crate::topics::Topic;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub(super) async fn handle(
    kafka: &Kafka,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for (at, asked) in request.topics.iter().enumerate() {
        if at % limits::TOPIC_PAGE == 0 {
            let page = request.topics.iter().skip(at);
            resolve::load(kafka, page.map(|asked| TopicRef::Name(&asked.name))).await;
        }
        let topic = resolve::topic(kafka, TopicRef::Name(&asked.name)).await;
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in &asked.partitions {
            let found = match &topic {
                Ok(topic) => find(kafka, version, topic, partition).await,
                Err(error) => Err(*error),
            };
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index);
            partitions.push(match found {
                Ok(Found { offset, timestamp, leader_epoch }) => {
                    let answer = answer.with_offset(offset).with_timestamp(timestamp);
                    if version >= 4 { answer.with_leader_epoch(leader_epoch) } else { answer }
                }
                Err(error) => {
                    answer.with_error_code(error.code()).with_offset(-1).with_timestamp(-1)
                }
            });
        }
        let answer = ListOffsetsTopicResponse::default().with_name(asked.name.clone());
        topics.push(answer.with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

struct Found {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

async fn find(
    kafka: &Kafka,
    version: i16,
    topic: &Topic,
    asked: &ListOffsetsPartition,
) -> Result<Found, ResponseError> {
    let partition = resolve::partition(kafka, topic, asked.partition_index).await?;
    let offsets = partition.offsets();
    check_epoch(asked.current_leader_epoch, offsets.leader_epoch)?;
    let leader_epoch = offsets.leader_epoch.0;
    let found = match asked.timestamp {
        LATEST => {
            let offset = offsets.last_stable_offset.0;
            return Ok(Found { offset, timestamp: -1, leader_epoch });
        }
        EARLIEST => {
            let offset = offsets.log_start_offset.0;
            return Ok(Found { offset, timestamp: -1, leader_epoch });
        }
        EARLIEST_LOCAL if version >= 8 => {
            let offset = partition.local_start().0;
            return Ok(Found { offset, timestamp: -1, leader_epoch });
        }
        LATEST_TIERED if version >= 9 => {
            let offset = partition.last_archived().map_or(-1, |offset| offset.0);
            return Ok(Found { offset, timestamp: -1, leader_epoch });
        }
        MAX_TIMESTAMP if version >= 7 => partition.offset_for_max_timestamp().await,
        timestamp if timestamp >= 0 => partition.offset_for_time(timestamp).await,
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    Ok(match found.map_err(|error| error.kafka())? {
        Some(found) => Found {
            offset: found.offset.0,
            timestamp: found.timestamp_ms,
            leader_epoch: found.leader_epoch.0,
        },
        // No record is that late.
        None => Found { offset: -1, timestamp: -1, leader_epoch: -1 },
    })
}
