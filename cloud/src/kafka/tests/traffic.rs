//! What is counted of topics, and told about them.

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest, ProduceRequest};
use prometheus_client::registry::Registry;
use robustmq_common::ids::{KafkaTopic, PartitionIndex, TopicId};

use super::*;
use crate::group::coordinator::Commit;
use crate::group::machine::Caller;
use crate::topics::Topic;
use crate::traffic::report::{GroupLag, Lags, lags, partitions};
use crate::traffic::{Busiest, Totals};

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

async fn create(client: &mut Client, names: &[&str]) {
    let new = |topic: &&str| {
        CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(2)
            .with_replication_factor(1)
    };
    let topics = names.iter().map(new).collect();
    client.call(7, &CreateTopicsRequest::default().with_topics(topics)).await;
}

async fn produce(client: &mut Client, topic: &str, index: i32, records: Bytes) {
    let data = PartitionProduceData::default().with_index(index).with_records(Some(records));
    let data = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![data]);
    let answer = client.call(11, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

async fn fetch(client: &mut Client, topic: &str, index: i32) {
    let partition =
        FetchPartition::default().with_partition(index).with_partition_max_bytes(1 << 20);
    let asked = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(5000)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked]);
    client.call(12, &request).await;
}

async fn commit(broker: &Broker, group: &str, topic: TopicId, offsets: &[i64]) {
    let commit = |(partition, offset): (i32, &i64)| Commit {
        topic,
        partition: PartitionIndex(partition),
        offset: *offset,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let commits: Vec<_> = (0..).zip(offsets).map(commit).collect();
    let nobody = Caller { member_id: String::new(), instance_id: None, generation: -1 };
    broker.kafka.groups.commit(group, &nobody, &commits).await.expect("a group without members");
}

async fn topic(broker: &Broker, name: &str) -> Arc<Topic> {
    let name = KafkaTopic::new(name).expect("a legal name");
    broker.kafka.topics.get(&name).await.expect("readable").expect("there")
}

/// How many records of topic `t` a group has not read.
pub(super) async fn lag(broker: &Broker, group: &str) -> u64 {
    let topic = topic(broker, "t").await;
    let log = partitions(&broker.kafka.log, &topic).await.expect("readable");
    let reported = [(topic.clone(), log)];
    let found = lags(&broker.kafka.groups, &reported, 10).await.expect("readable");
    let found = found[&topic.id].groups.iter().find(|found| found.group == group);
    found.expect("it reads the topic").lag
}

#[tokio::test]
async fn traffic_bytes_and_lag_of_a_topic_are_known() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, &["busy", "quiet"]).await;
    let (three, two) = (batch(&["a", "b", "c"]), batch(&["d", "e"]));
    let bytes = (three.len() + two.len()) as u64;
    produce(&mut client, "busy", 0, three).await;
    produce(&mut client, "busy", 1, two.clone()).await;
    fetch(&mut client, "busy", 1).await;

    let (busy, quiet) = (topic(&broker, "busy").await, topic(&broker, "quiet").await);
    let (totals, _) = broker.kafka.traffic.of(busy.id).expect("it is active");
    let expected = Totals {
        produced_records: 5,
        produced_bytes: bytes,
        fetched_records: 2,
        fetched_bytes: two.len() as u64,
    };
    assert_eq!(totals, expected);
    assert_eq!(broker.kafka.traffic.of(quiet.id), None);

    let log = partitions(&broker.kafka.log, &busy).await.expect("readable");
    let shown: Vec<_> = log.iter().map(|p| (p.partition, p.high_watermark, p.records())).collect();
    assert_eq!(shown, [(0, 3, 3), (1, 2, 2)]);
    assert_eq!(log.iter().map(|p| p.bytes).sum::<u64>(), bytes);

    commit(&broker, "behind", busy.id, &[1, 0]).await;
    commit(&broker, "done", busy.id, &[3, 2]).await;
    commit(&broker, "half", busy.id, &[2]).await;
    commit(&broker, "other", quiet.id, &[0, 0]).await;
    let reported = [(busy.clone(), log)];
    let lag = |group: &str, partitions, lag| GroupLag { group: group.to_owned(), partitions, lag };
    let all = vec![lag("behind", 2, 4), lag("half", 1, 1), lag("done", 2, 0)];
    let found = lags(&broker.kafka.groups, &reported, 10).await.expect("readable");
    assert_eq!(found[&busy.id], Lags { groups: all.clone(), more: false });
    assert_eq!(found[&busy.id].backlog(), Some(4));
    let found = lags(&broker.kafka.groups, &reported, 2).await.expect("readable");
    assert_eq!(found[&busy.id], Lags { groups: all[..2].to_vec(), more: true });
}

#[tokio::test]
async fn metrics_name_the_busiest_topics_only() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, &["first", "second", "third"]).await;
    for (topic, times) in [("first", 3), ("second", 2), ("third", 1)] {
        for _ in 0..times {
            produce(&mut client, topic, 0, batch(&["value"])).await;
        }
    }
    commit(&broker, "readers", topic(&broker, "second").await.id, &[1]).await;
    let kafka = &broker.kafka;
    let (traffic, topics) = (kafka.traffic.clone(), kafka.topics.clone());
    let busiest = Busiest::new(traffic, topics, kafka.log.clone(), kafka.groups.clone(), 2);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(busiest.clone()));
    busiest.look_up().await;
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).expect("text");
    for line in [
        r#"robustmq_cloud_topic_produced_records_total{topic="first"} 3"#,
        r#"robustmq_cloud_topic_produced_records_total{topic="second"} 2"#,
        r#"robustmq_cloud_topic_held_records{topic="first"} 3"#,
        r#"robustmq_cloud_topic_backlog_records{topic="second"} 1"#,
        r#"robustmq_cloud_topic_group_lag_records{topic="second",group="readers"} 1"#,
        "robustmq_cloud_topics_active 3",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in:\n{page}");
    }
    assert!(!page.contains("third"), "{page}");
    assert!(!page.contains(r#"backlog_records{topic="first"}"#), "nobody reads it: {page}");
}
