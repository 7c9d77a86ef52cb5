//! DescribeShareGroupOffsets (90), version 0 (KIP-932): the first offset of each partition that the group is not done with; -1 where it has
//! not begun.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use kafka_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, TopicName,
};
use robustmq_common::ids::{PartitionIndex, TopicId};

use super::resolve::{self, TopicRef};
use super::{Kafka, text};
use crate::group::coordinator::CoordinatorError;
use crate::kafka::errors::KafkaCode as _;

type Topics = Vec<DescribeShareGroupOffsetsResponseTopic>;

pub(super) async fn handle(
    kafka: &Kafka,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let answer =
            DescribeShareGroupOffsetsResponseGroup::default().with_group_id(group.group_id.clone());
        groups.push(match describe(kafka, group).await {
            Ok(topics) => answer.with_topics(topics),
            Err(error) => answer
                .with_error_code(error.code())
                .with_error_message(Some(text(error.to_string()))),
        });
    }
    DescribeShareGroupOffsetsResponse::default().with_groups(groups)
}

async fn describe(
    kafka: &Kafka,
    group: DescribeShareGroupOffsetsRequestGroup,
) -> Result<Topics, CoordinatorError> {
    let id = &group.group_id;
    let Some(asked) = group.topics else { return everything(kafka, id).await };
    let mut topics = Topics::with_capacity(asked.len());
    for topic in asked {
        let found = resolve::topic(kafka, TopicRef::Name(&topic.topic_name)).await;
        let answer = DescribeShareGroupOffsetsResponseTopic::default()
            .with_topic_name(topic.topic_name.clone());
        let Ok(found) = found.as_ref() else {
            let code = found.err().map_or(0, |error| error.code());
            let failed = |index| partition(index, -1).with_error_code(code);
            let partitions = topic.partitions.into_iter().map(failed).collect();
            topics.push(answer.with_partitions(partitions));
            continue;
        };
        let wanted = topic.partitions.iter().map(|index| (found.id, PartitionIndex(*index)));
        let committed = kafka.groups.committed(id, &wanted.collect::<Vec<_>>()).await?;
        let starts = topic.partitions.iter().zip(committed);
        let starts = starts.map(|(index, start)| partition(*index, start.map_or(-1, |s| s.offset)));
        topics.push(answer.with_topic_id(found.id.0).with_partitions(starts.collect()));
    }
    Ok(topics)
}

/// Of every partition on which the group has begun.
async fn everything(kafka: &Kafka, id: &str) -> Result<Topics, CoordinatorError> {
    let mut begun: BTreeMap<TopicId, Vec<(i32, i64)>> = BTreeMap::new();
    for (topic, index, start) in kafka.groups.all_committed(id).await? {
        begun.entry(topic).or_default().push((index.0, start.offset));
    }
    let mut topics = Topics::with_capacity(begun.len());
    for (topic, partitions) in begun {
        // What is known of topics that are gone waits for its removal.
        let Some(found) = kafka.topics.get_by_id(topic).await? else { continue };
        let partitions = partitions.into_iter().map(|(index, start)| partition(index, start));
        topics.push(
            DescribeShareGroupOffsetsResponseTopic::default()
                .with_topic_name(TopicName(text(found.name.as_str())))
                .with_topic_id(topic.0)
                .with_partitions(partitions.collect()),
        );
    }
    Ok(topics)
}

fn partition(index: i32, start: i64) -> DescribeShareGroupOffsetsResponsePartition {
    DescribeShareGroupOffsetsResponsePartition::default()
        .with_partition_index(index)
        .with_start_offset(start)
        .with_leader_epoch(0)
}
