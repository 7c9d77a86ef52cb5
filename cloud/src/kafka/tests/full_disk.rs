//! What clients are told while the disk is full. Producers used to hear NOT_LEADER_OR_FOLLOWER, and looked for another leader.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, GroupId, InitProducerIdRequest, MetadataRequest,
    OffsetCommitRequest, ProduceRequest, TopicName,
};
use robustmq_common::ids::KafkaTopic;

use super::*;

const PARTITIONS: i32 = 20;

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

async fn ask_for(client: &mut Client, topic: &str) -> i16 {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    client.call(12, &request).await.topics[0].error_code
}

/// One batch to each partition, in one request.
async fn produce(client: &mut Client, value: &str) -> Vec<PartitionProduceResponse> {
    let partition = |index| {
        PartitionProduceData::default().with_index(index).with_records(Some(batch(&[value])))
    };
    let data = TopicProduceData::default()
        .with_name(name("t"))
        .with_partition_data((0..PARTITIONS).map(partition).collect());
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(5000).with_topic_data(vec![data]);
    client.call(11, &request).await.responses.remove(0).partition_responses
}

async fn fetched_bytes(client: &mut Client) -> usize {
    let partition =
        FetchPartition::default().with_current_leader_epoch(-1).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer = client.call(12, &request).await;
    answer.responses[0].partitions[0].records.as_ref().map_or(0, Bytes::len)
}

async fn commit(client: &mut Client) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
    let topic =
        OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    client.call(8, &request).await.topics[0].partitions[0].error_code
}

#[tokio::test]
async fn writes_are_refused_as_storage_errors_that_say_so_and_reads_go_on() {
    let settings = KafkaSettings { default_partitions: PARTITIONS, ..Default::default() };
    let broker = Broker::start_with(settings).await;
    let mut client = broker.client().await;
    assert_eq!(ask_for(&mut client, "t").await, 0);
    assert!(produce(&mut client, "before").await.iter().all(|answer| answer.error_code == 0));
    let before = fetched_bytes(&mut client).await;

    broker.store.set_full(true);
    let full = code(ResponseError::KafkaStorageError);
    for round in 0..3 {
        for answer in produce(&mut client, "refused").await {
            let message = answer.error_message.unwrap_or_default();
            assert_eq!(answer.error_code, full, "round {round}: {message}");
            assert!(message.contains("full"), "round {round}: {message}");
        }
    }
    let new = CreatableTopic::default()
        .with_name(name("new"))
        .with_num_partitions(1)
        .with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![new]);
    let created = client.call(7, &request).await.topics.remove(0);
    assert_eq!(created.error_code, full);
    assert!(created.error_message.is_some_and(|message| message.contains("full")));
    assert_eq!(ask_for(&mut client, "new").await, full);
    let new = KafkaTopic::new("new").expect("a legal name");
    assert_eq!(broker.kafka.topics.get(&new).await, Ok(None), "it says the truth");
    // Clients of these know no storage error: what they retry is this one.
    let retried = code(ResponseError::CoordinatorNotAvailable);
    assert_eq!(commit(&mut client).await, retried);
    let idempotent = InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(client.call(4, &idempotent).await.error_code, retried);
    assert_eq!(fetched_bytes(&mut client).await, before, "reads go on");

    broker.store.set_full(false);
    for answer in produce(&mut client, "after").await {
        assert_eq!((answer.error_code, answer.base_offset), (0, 1), "nothing took a place");
    }
    assert_eq!(commit(&mut client).await, 0);
    assert_eq!(ask_for(&mut client, "new").await, 0);
}
