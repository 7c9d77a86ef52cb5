//! DescribeTopicPartitions (75), version 0: topics in pages (KIP-966). The Java admin client describes topics with it.
//!
//! Topics are answered by name; the cursor says where to go on. Eligible leader replicas do not exist.

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;

use super::resolve::{self, TopicRef};
use super::{Kafka, text};
use crate::topics::Topic;

pub(super) async fn handle(
    kafka: &Kafka,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let wanted = request.response_partition_limit.clamp(1, limits::DESCRIBED_PARTITIONS);
    let cursor = request.cursor.map(|cursor| (cursor.topic_name, cursor.partition_index));
    let mut page = Page { left: wanted, topics: Vec::new(), next: None };
    if request.topics.is_empty() {
        if let Err(error) = all(kafka, cursor, &mut page).await {
            tracing::warn!(%error, "the topics cannot be listed");
        }
    } else {
        let mut names: Vec<TopicName> = request.topics.into_iter().map(|t| t.name).collect();
        names.sort();
        names.dedup();
        if let Some((start, _)) = &cursor {
            names.retain(|name| name >= start);
        }
        for (at, name) in names.iter().enumerate() {
            if at % limits::TOPIC_PAGE == 0 {
                let page = names.iter().skip(at);
                resolve::load(kafka, page.map(|name| TopicRef::Name(name))).await;
            }
            let from = match &cursor {
                Some((start, partition)) if name == start => *partition,
                _ => 0,
            };
            match resolve::topic(kafka, TopicRef::Name(name)).await {
                Ok(topic) => page.add(kafka, &topic, from),
                Err(error) => page.refuse(name.clone(), error.code()),
            }
            if page.next.is_some() {
                break;
            }
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(page.topics).with_next_cursor(page.next)
}

async fn all(
    kafka: &Kafka,
    cursor: Option<(TopicName, i32)>,
    page: &mut Page,
) -> Result<(), crate::store::StoreError> {
    let mut after: Option<KafkaTopic> = None;
    if let Some((name, from)) = &cursor
        && let Ok(name) = KafkaTopic::new(name)
    {
        if let Some(topic) = kafka.topics.get(&name).await? {
            page.add(kafka, &topic, *from);
        }
        after = Some(name);
    }
    while page.next.is_none() {
        let listed = kafka.topics.list(after.as_ref(), limits::TOPIC_PAGE).await?;
        for topic in &listed.topics {
            page.add(kafka, topic, 0);
            if page.next.is_some() {
                return Ok(());
            }
        }
        match listed.topics.last() {
            Some(last) if listed.more => after = Some(last.name.clone()),
            _ => break,
        }
    }
    Ok(())
}

struct Page {
    left: i32,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl Page {
    /// Adds a topic's partitions from `from` on, as many as there is room for.
    fn add(&mut self, kafka: &Kafka, topic: &Topic, from: i32) {
        let node = BrokerId(kafka.settings.node_id);
        let from = from.clamp(0, topic.partitions);
        let until = topic.partitions.min(from.saturating_add(self.left));
        let name = TopicName(text(topic.name.as_str()));
        if until < topic.partitions {
            let next = Cursor::default().with_topic_name(name.clone()).with_partition_index(until);
            self.next = Some(next);
        }
        if until == from {
            return;
        }
        self.left -= until - from;
        let partition = |index| {
            DescribeTopicPartitionsResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(node)
                .with_leader_epoch(-1)
                .with_replica_nodes(vec![node])
                .with_isr_nodes(vec![node])
        };
        self.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(name))
                .with_topic_id(topic.id.0)
                .with_partitions((from..until).map(partition).collect()),
        );
    }

    fn refuse(&mut self, name: TopicName, code: i16) {
        let answer = DescribeTopicPartitionsResponseTopic::default();
        self.topics.push(answer.with_name(Some(name)).with_error_code(code));
    }
}
