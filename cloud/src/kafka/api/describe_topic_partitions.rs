//! DescribeTopicPartitions (75), version 0: topics in pages (KIP-966). The Java admin client describes topics with it.
//!
//! Topics are answered by name; the cursor says where to go on. A page also ends where there is no memory for more. Eligible leader replicas do not exist.

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
use crate::kafka::memory::AnswerMemory;
use crate::topics::Topic;

pub(super) async fn handle(
    kafka: &Kafka,
    request: DescribeTopicPartitionsRequest,
    memory: &mut AnswerMemory,
) -> DescribeTopicPartitionsResponse {
    let wanted = request.response_partition_limit.clamp(1, limits::DESCRIBED_PARTITIONS);
    let cursor = request.cursor.map(|cursor| (cursor.topic_name, cursor.partition_index));
    let mut page = Page { left: wanted, topics: Vec::new(), next: None, memory };
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
                Ok(topic) => page.add(kafka, &topic, from).await,
                Err(error) => page.refuse(name.clone(), error.code()).await,
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
    page: &mut Page<'_>,
) -> Result<(), crate::store::StoreError> {
    let mut after: Option<KafkaTopic> = None;
    if let Some((name, from)) = &cursor
        && let Ok(name) = KafkaTopic::new(name)
    {
        if let Some(topic) = kafka.topics.get(&name).await? {
            page.add(kafka, &topic, *from).await;
        }
        after = Some(name);
    }
    while page.next.is_none() {
        let listed = kafka.topics.list(after.as_ref(), limits::TOPIC_PAGE).await?;
        for topic in &listed.topics {
            page.add(kafka, topic, 0).await;
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

struct Page<'a> {
    left: i32,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
    memory: &'a mut AnswerMemory,
}

impl Page<'_> {
    /// Adds a topic's partitions from `from` on, as many as there is room for.
    async fn add(&mut self, kafka: &Kafka, topic: &Topic, from: i32) {
        let node = BrokerId(kafka.settings.node_id);
        let from = from.clamp(0, topic.partitions);
        let until = topic.partitions.min(from.saturating_add(self.left));
        let name = TopicName(text(topic.name.as_str()));
        if !self.has_room(&name, from, until).await {
            return;
        }
        if until < topic.partitions {
            self.go_on_at(name.clone(), until);
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

    async fn refuse(&mut self, name: TopicName, code: i16) {
        if !self.has_room(&name, 0, 0).await {
            return;
        }
        let answer = DescribeTopicPartitionsResponseTopic::default();
        self.topics.push(answer.with_name(Some(name)).with_error_code(code));
    }

    /// Whether there is memory for these partitions of a topic; if not, the page ends before them.
    async fn has_room(&mut self, name: &TopicName, from: i32, until: i32) -> bool {
        let partitions = usize::try_from(until - from).unwrap_or(0);
        // Each list of replicas is an allocation of its own; what is encoded takes less.
        let partition_bytes = size_of::<DescribeTopicPartitionsResponsePartition>() + 128;
        let topic_bytes = size_of::<DescribeTopicPartitionsResponseTopic>() + 2 * name.len() + 64;
        let grown = self.memory.grow(topic_bytes + partitions * partition_bytes).await;
        if let Err(error) = &grown {
            tracing::warn!(topic = name.as_str(), %error, "a DescribeTopicPartitions page ends early");
            self.go_on_at(name.clone(), from);
        }
        grown.is_ok()
    }

    fn go_on_at(&mut self, name: TopicName, partition: i32) {
        self.next = Some(Cursor::default().with_topic_name(name).with_partition_index(partition));
    }
}
