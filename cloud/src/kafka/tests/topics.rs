//! Metadata and everything that changes topics.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeTopicPartitionsRequest, MetadataRequest, TopicName,
};

use super::*;

fn new(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
}

async fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    client.call(7, &CreateTopicsRequest::default().with_topics(topics)).await.topics
}

async fn metadata(client: &mut Client, name: &str, may_create: bool) -> (i16, usize) {
    let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(may_create);
    let answer = client.call(12, &request).await;
    (answer.topics[0].error_code, answer.topics[0].partitions.len())
}

#[tokio::test]
async fn asking_for_a_topic_creates_it_when_both_sides_allow_it() {
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    let settings = KafkaSettings { default_partitions: 3, ..Default::default() };
    let broker = Broker::start_with(settings).await;
    let mut client = broker.client().await;
    assert_eq!(metadata(&mut client, "t", false).await, (unknown, 0));
    assert_eq!(metadata(&mut client, "t", true).await, (0, 3));
    assert_eq!(metadata(&mut client, "t", false).await, (0, 3));
    let invalid = code(ResponseError::InvalidTopicException);
    assert_eq!(metadata(&mut client, "a/b", true).await, (invalid, 0));
    let settings = KafkaSettings { auto_create_topics: false, ..Default::default() };
    let strict = Broker::start_with(settings).await;
    assert_eq!(metadata(&mut strict.client().await, "t", true).await, (unknown, 0));
}

#[tokio::test]
async fn creation_answers_each_topic() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let wrong_config = CreatableTopicConfig::default()
        .with_name(text("no.such.entry"))
        .with_value(Some(text("1")));
    let answers = create(
        &mut client,
        vec![
            new("good", 2),
            new("twice", 1),
            new("twice", 1),
            new("bad/name", 1),
            new("none", 0),
            new("wrong", 1).with_configs(vec![wrong_config]),
            new("copies", 1).with_replication_factor(3),
        ],
    )
    .await;
    let codes: Vec<i16> = answers.iter().map(|answer| answer.error_code).collect();
    let expected = [
        0,
        code(ResponseError::InvalidRequest),
        code(ResponseError::InvalidRequest),
        code(ResponseError::InvalidTopicException),
        code(ResponseError::InvalidPartitions),
        code(ResponseError::InvalidConfig),
        code(ResponseError::InvalidReplicationFactor),
    ];
    assert_eq!(codes, expected);
    assert_eq!(answers[0].num_partitions, 2);
    assert!(answers[0].configs.as_ref().is_some_and(|configs| !configs.is_empty()));
    let again = create(&mut client, vec![new("good", 2)]).await;
    assert_eq!(again[0].error_code, code(ResponseError::TopicAlreadyExists));
    let request = CreateTopicsRequest::default()
        .with_topics(vec![new("only-checked", 1)])
        .with_validate_only(true);
    assert_eq!(client.call(7, &request).await.topics[0].error_code, 0);
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    assert_eq!(metadata(&mut client, "only-checked", false).await, (unknown, 0));
}

#[tokio::test]
async fn thousands_of_topics_are_created_listed_and_deleted_by_one_request_each() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let names: Vec<String> = (0..2500).map(|number| format!("topic-{number:04}")).collect();
    let created = create(&mut client, names.iter().map(|name| new(name, 1)).collect()).await;
    assert!(created.iter().all(|answer| answer.error_code == 0));
    let listed = client.call(12, &MetadataRequest::default().with_topics(None)).await.topics;
    let listed: Vec<&str> =
        listed.iter().filter_map(|topic| topic.name.as_ref().map(|name| name.as_str())).collect();
    assert_eq!(listed, names);
    let by_id =
        created.iter().map(|answer| DeleteTopicState::default().with_topic_id(answer.topic_id));
    let request =
        DeleteTopicsRequest::default().with_topics(by_id.map(|s| s.with_name(None)).collect());
    let deleted = client.call(6, &request).await.responses;
    assert!(deleted.iter().all(|answer| answer.error_code == 0));
    assert!(client.call(12, &MetadataRequest::default().with_topics(None)).await.topics.is_empty());
    let gone = client.call(6, &request).await.responses;
    let unknown = code(ResponseError::UnknownTopicId);
    assert!(gone.iter().all(|answer| answer.error_code == unknown));
}

#[tokio::test]
async fn all_topics_are_answered_as_they_are_one_by_one_in_every_version() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let names: Vec<String> = (0..130).map(|number| format!("t-{number:03}")).collect();
    for round in 0..2 {
        for version in 0..=13 {
            let named = names
                .iter()
                .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
            let mut request = MetadataRequest::default()
                .with_topics(Some(named.take(130 * round).collect()))
                .with_allow_auto_topic_creation(true);
            // Version 0 asks for all by an empty list.
            if version == 0 && round == 0 {
                continue;
            }
            let one_by_one = client.call(version, &request).await;
            request.topics = if version == 0 { Some(vec![]) } else { None };
            let all = client.call(version, &request).await;
            assert_eq!(all, one_by_one, "version {version}");
            assert_eq!(all.topics.len(), 130 * round);
        }
        let more = names.iter().map(|name| new(name, 2)).collect();
        assert!(
            create(&mut client, more)
                .await
                .iter()
                .all(|answer| answer.error_code == 0 || round == 1)
        );
    }
}

#[tokio::test]
async fn the_configuration_of_many_new_topics_is_what_they_set() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let config = CreatableTopicConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1000")));
    let many = (0..=robustmq_common::limits::FULLY_DESCRIBED_TOPICS)
        .map(|number| new(&format!("t-{number}"), 1).with_configs(vec![config.clone()]));
    for answer in create(&mut client, many.collect()).await {
        let configs = answer.configs.expect("they are given from version 5 on");
        assert_eq!(configs.len(), 1);
        assert_eq!((configs[0].name.as_str(), configs[0].config_source), ("retention.ms", 1));
    }
}

#[tokio::test]
async fn partitions_are_described_in_pages() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, vec![new("a", 3), new("b", 3)]).await;
    let mut cursor = None;
    let mut seen = Vec::new();
    loop {
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(vec![
                TopicRequest::default().with_name(TopicName(text("b"))),
                TopicRequest::default().with_name(TopicName(text("a"))),
            ])
            .with_response_partition_limit(2)
            .with_cursor(cursor);
        let answer = client.call(0, &request).await;
        for topic in &answer.topics {
            let name = topic.name.as_ref().map_or("", |name| name.as_str());
            seen.extend(topic.partitions.iter().map(|p| format!("{name}{}", p.partition_index)));
        }
        let Some(next) = answer.next_cursor else { break };
        let next = Cursor::default()
            .with_topic_name(next.topic_name)
            .with_partition_index(next.partition_index);
        cursor = Some(next);
    }
    assert_eq!(seen, ["a0", "a1", "a2", "b0", "b1", "b2"]);
}

#[tokio::test]
async fn a_topics_configuration_is_described_with_its_sources() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let config = CreatableTopicConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1000")));
    create(&mut client, vec![new("t", 1).with_configs(vec![config])]).await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("retention.ms"), text("cleanup.policy")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(4, &request).await;
    let entries: Vec<_> = answer.results[0]
        .configs
        .iter()
        .map(|entry| (entry.name.as_str(), entry.value.as_deref(), entry.config_source))
        .collect();
    assert_eq!(entries, [("cleanup.policy", Some("delete"), 5), ("retention.ms", Some("1000"), 1)]);
}

/// What the topic sets itself.
async fn overrides(client: &mut Client, topic: &str) -> Vec<(String, String)> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(4, &request).await;
    let entries = answer.results[0].configs.iter().filter(|entry| entry.config_source == 1);
    entries
        .map(|entry| (entry.name.to_string(), entry.value.clone().unwrap_or_default().to_string()))
        .collect()
}

/// aiokafka's `alter_configs` and librdkafka's older one failed: there was IncrementalAlterConfigs only.
#[tokio::test]
async fn alter_configs_replaces_all_that_a_topic_sets() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let before = [("retention.ms", "1000"), ("cleanup.policy", "compact")];
    let topic = new("t", 1).with_configs(before.iter().map(config).collect());
    create(&mut client, vec![topic]).await;
    let entry = |name: &str, value: Option<&str>| {
        AlterableConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    let resource = |kind: i8, name: &str, configs: Vec<AlterableConfig>| {
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(configs)
    };
    let request = |resource| AlterConfigsRequest::default().with_resources(vec![resource]);
    let good = || resource(2, "t", vec![entry("retention.bytes", Some("5000"))]);

    let checked = client.call(2, &request(good()).with_validate_only(true)).await;
    assert_eq!(checked.responses[0].error_code, 0);
    let refusals = [
        (resource(2, "t", vec![entry("no.such.entry", Some("1"))]), ResponseError::InvalidConfig),
        (resource(2, "t", vec![entry("retention.ms", Some("soon"))]), ResponseError::InvalidConfig),
        (resource(2, "t", vec![entry("retention.ms", None)]), ResponseError::InvalidRequest),
        (resource(2, "none", Vec::new()), ResponseError::UnknownTopicOrPartition),
        (resource(2, "a/b", Vec::new()), ResponseError::InvalidTopicException),
        (resource(4, "1", Vec::new()), ResponseError::InvalidRequest),
    ];
    for (refused, error) in refusals {
        let answer = client.call(2, &request(refused)).await.responses.remove(0);
        assert_eq!(answer.error_code, code(error), "{answer:?}");
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()));
    }
    let unchanged = [("cleanup.policy", "compact"), ("retention.ms", "1000")];
    let unchanged = unchanged.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(overrides(&mut client, "t").await, unchanged);

    for version in 0..=2 {
        let answer = client.call(version, &request(good())).await;
        assert_eq!(answer.responses[0].error_code, 0);
        let only = ("retention.bytes".to_owned(), "5000".to_owned());
        assert_eq!(
            overrides(&mut client, "t").await,
            [only],
            "cleanup.policy is the default again"
        );
    }
    let answer = client.call(2, &request(resource(2, "t", Vec::new()))).await;
    assert_eq!(answer.responses[0].error_code, 0);
    assert!(overrides(&mut client, "t").await.is_empty());
}

/// The Java client's subscriptions by pattern learn topics by id, and say an empty name with it: that was INVALID_TOPIC_EXCEPTION.
#[tokio::test]
async fn metadata_by_id_does_not_mind_an_empty_name() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = super::records::create(&mut client, "t").await;
    for said in [None, Some(TopicName(text("")))] {
        let wanted = MetadataRequestTopic::default().with_name(said).with_topic_id(id);
        let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
        let answer = client.call(13, &request).await;
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 1));
        assert_eq!(topic.name, Some(TopicName(text("t"))));
    }
}
