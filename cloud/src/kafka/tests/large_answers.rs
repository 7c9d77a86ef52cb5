//! Answers that are much larger than their requests. Only Fetch's were charged to the answer memory: a Metadata request for many large
//! topics, or one configuration named a hundred thousand times, could have taken all memory there is.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeTopicPartitionsRequest, GroupId,
    JoinGroupRequest, MetadataRequest, SyncGroupRequest, TopicName,
};
use robustmq_common::ids::KafkaTopic;

use super::*;
use crate::topics::NewTopic;

const TOPICS: usize = 20;
const PARTITIONS: i32 = 1000;
/// Half of it is one answer's share, which a few of the topics fill.
const ANSWER_BYTES: usize = 1 << 20;

fn topic(number: usize) -> TopicName {
    TopicName(text(&format!("topic-{number:02}")))
}

/// A broker with little memory for answers, and some large topics.
async fn start() -> Broker {
    let broker = Broker::start_with_memory(KafkaSettings::default(), ANSWER_BYTES).await;
    let new = |number| {
        NewTopic::new(
            KafkaTopic::new(&topic(number)).expect("a legal name"),
            PARTITIONS,
            BTreeMap::new(),
        )
    };
    let created = broker.kafka.topics.create((0..TOPICS).map(new).collect(), false, 0).await;
    assert!(created.iter().all(Result::is_ok));
    broker
}

/// Topics with their partitions, and topics that were refused for want of memory.
async fn metadata(client: &mut Client, topics: std::ops::Range<usize>) -> (usize, usize) {
    let wanted = |number| MetadataRequestTopic::default().with_name(Some(topic(number)));
    let request = MetadataRequest::default().with_topics(Some(topics.map(wanted).collect()));
    let answer = client.call(12, &request).await;
    let refused = answer.topics.iter().filter(|topic| topic.error_code != 0);
    let no_memory = code(ResponseError::LeaderNotAvailable);
    assert!(refused.clone().all(|t| t.error_code == no_memory && t.partitions.is_empty()));
    let whole = answer.topics.iter().filter(|topic| topic.partitions.len() == 1000);
    (whole.count(), refused.count())
}

#[tokio::test]
async fn metadata_of_many_large_topics_is_charged_and_bounded() {
    let broker = start().await;
    let mut client = broker.client().await;
    let (whole, refused) = metadata(&mut client, 0..TOPICS).await;
    assert!(whole >= 1 && refused >= 1 && whole + refused == TOPICS, "{whole} and {refused}");
    assert_eq!(metadata(&mut client, TOPICS - 1..TOPICS).await, (1, 0), "one at a time they go");

    // All of them at once have no place for a part of the answer, and up to version 12 none for an error either.
    let all = MetadataRequest::default().with_topics(None);
    assert!(client.call(12, &all).await.topics.is_empty());
    let answer = client.call(13, &all).await;
    assert_eq!(answer.error_code, code(ResponseError::LeaderNotAvailable));

    // The connection answers one after the other, so what went before has been sent and given back.
    assert_eq!(broker.kafka.answer_memory.available_bytes(), ANSWER_BYTES);
    let _others = broker.kafka.answer_memory.try_charge(ANSWER_BYTES).expect("it is free");
    let missing = MetadataRequestTopic::default().with_name(Some(TopicName(text("small"))));
    let small = MetadataRequest::default().with_topics(Some(vec![missing]));
    let small = client.call(12, &small.with_allow_auto_topic_creation(true)).await;
    assert_eq!(small.topics[0].error_code, 0, "small answers go whoever has the memory");
}

#[tokio::test]
async fn a_page_of_partitions_ends_where_memory_does() {
    let broker = start().await;
    let mut client = broker.client().await;
    let _others = broker.kafka.answer_memory.try_charge(ANSWER_BYTES - (400 << 10));
    let (mut cursor, mut pages, mut seen) = (None, 0, 0);
    loop {
        let wanted = |number| TopicRequest::default().with_name(topic(number));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics((0..TOPICS).map(wanted).collect())
            .with_response_partition_limit(2000)
            .with_cursor(cursor);
        let answer = client.call(0, &request).await;
        pages += 1;
        seen += answer.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
        let Some(next) = answer.next_cursor else { break };
        cursor = Some(
            Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index),
        );
    }
    assert_eq!(seen, TOPICS * 1000, "nothing is left out or comes twice");
    assert!(pages > TOPICS / 2, "pages of two topics do not fit: {pages}");
}

#[tokio::test]
async fn configurations_are_charged_each_time_they_are_named() {
    let broker = start().await;
    let mut client = broker.client().await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic-00"))
        .with_configuration_keys(None);
    let broker_itself = resource.clone().with_resource_type(4).with_resource_name(text("1"));
    for resource in [resource, broker_itself] {
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource; 2000])
            .with_include_documentation(true)
            .with_include_synonyms(true);
        let answer = client.call(4, &request).await;
        let refused = answer.results.iter().filter(|result| result.error_code != 0);
        let no_memory = code(ResponseError::LeaderNotAvailable);
        assert!(refused.clone().all(|r| r.error_code == no_memory && r.configs.is_empty()));
        let refused = refused.count();
        assert!(refused > 0 && refused < 2000, "{refused} of 2000");
    }
}

#[tokio::test]
async fn groups_for_which_there_is_no_memory_are_to_be_asked_for_again() {
    let broker = start().await;
    let mut client = broker.client().await;
    let groups: Vec<GroupId> = ["a", "b", "c"].map(|name| GroupId(text(name))).to_vec();
    for group in &groups {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(vec![7; ANSWER_BYTES / 5].into());
        let join = JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(60_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = client.call(3, &join).await;
        assert_eq!(joined.error_code, 0);
        let sync = SyncGroupRequest::default()
            .with_group_id(group.clone())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id);
        assert_eq!(client.call(3, &sync).await.error_code, 0);
    }
    let request = DescribeGroupsRequest::default().with_groups(groups);
    let answer = client.call(5, &request).await;
    let codes: Vec<i16> = answer.groups.iter().map(|group| group.error_code).collect();
    assert_eq!(codes, [0, 0, code(ResponseError::CoordinatorLoadInProgress)]);
}
