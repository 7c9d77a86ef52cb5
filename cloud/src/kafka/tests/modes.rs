//! Storage modes: CreateTopics, DescribeConfigs, IncrementalAlterConfigs while clients produce.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};

use super::records::{fetch, fetch_request, name, produce, values};
use super::*;

const TOPIC: i8 = 2;
const MODE: &str = "robustmq.storage.mode";

async fn create(client: &mut Client, topic: &str, mode: &str) -> (i16, String) {
    let config = CreatableTopicConfig::default().with_name(text(MODE)).with_value(Some(text(mode)));
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
    let answer = client.call(7, &request).await.topics.remove(0);
    (answer.error_code, answer.error_message.map(|m| m.to_string()).unwrap_or_default())
}

async fn alter(client: &mut Client, topic: &str, mode: &str) -> i16 {
    let config = AlterableConfig::default().with_name(text(MODE)).with_value(Some(text(mode)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).await.responses[0].error_code
}

async fn described(client: &mut Client, topic: &str, key: &str) -> Option<String> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(4, &request).await.results.remove(0);
    answer.configs.first().and_then(|config| config.value.as_ref()).map(ToString::to_string)
}

#[tokio::test]
async fn modes_are_taken_described_and_refused_with_what_is_legal() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    for mode in ["memory", "hybrid", "persistent"] {
        assert_eq!(create(&mut client, mode, mode).await, (0, String::new()));
        assert_eq!(described(&mut client, mode, MODE).await.as_deref(), Some(mode));
    }
    let flush = described(&mut client, "hybrid", "robustmq.flush.ms").await;
    assert_eq!(flush.as_deref(), Some("200"));
    // Without an object store there is no archive.
    for mode in ["tiered", "disk"] {
        let (error, message) = create(&mut client, "t", mode).await;
        assert_eq!(error, code(ResponseError::InvalidConfig));
        assert!(message.contains("memory, hybrid"), "{message}");
    }
}

#[tokio::test]
async fn a_waiting_fetch_is_answered_when_a_batch_is_in_memory() {
    let broker = Broker::start().await;
    let (mut consumer, mut producer) = (broker.client().await, broker.client().await);
    for mode in ["memory", "hybrid"] {
        create(&mut producer, mode, mode).await;
        let waiting = fetch_request(mode, 0, 20_000, 1);
        let (data, produced) = tokio::join!(
            fetch(&mut consumer, &waiting),
            produce(&mut producer, mode, batch(&["a"]))
        );
        assert_eq!((produced.error_code, produced.base_offset), (0, 0));
        assert_eq!((values(&data), data.high_watermark), (vec!["a".to_owned()], 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_mode_changes_under_clients_that_produce() {
    const CHANGES: [&str; 7] =
        ["hybrid", "persistent", "memory", "persistent", "hybrid", "memory", "persistent"];
    let broker = Broker::start().await;
    let mut admin = broker.client().await;
    create(&mut admin, "t", "memory").await;
    let done = CancellationToken::new();
    let producers: Vec<_> = (0..3)
        .map(|id| {
            let (done, address) = (done.clone(), broker.address);
            tokio::spawn(async move {
                let stream = TcpStream::connect(address).await.expect("a listening broker");
                let mut client = Client { stream, next_id: 1 };
                let mut acknowledged = Vec::new();
                while !done.is_cancelled() {
                    let value = format!("{id}-{}", acknowledged.len());
                    let answer = produce(&mut client, "t", batch(&[&value])).await;
                    assert_eq!(answer.error_code, 0, "{value}");
                    acknowledged.push((answer.base_offset, value));
                }
                acknowledged
            })
        })
        .collect();
    for mode in CHANGES {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(alter(&mut admin, "t", mode).await, 0, "{mode}");
    }
    done.cancel();
    let mut acknowledged = Vec::new();
    for producer in producers {
        acknowledged.extend(producer.await.expect("no produce failed"));
    }
    acknowledged.sort();
    let mut read = Vec::new();
    while read.len() < acknowledged.len() {
        let offset = i64::try_from(read.len()).expect("small");
        let data = fetch(&mut admin, &fetch_request("t", offset, 0, 1)).await;
        assert_eq!(data.error_code, 0);
        let values = values(&data);
        assert!(!values.is_empty(), "nothing at {offset}");
        read.extend(values);
    }
    let expected: Vec<_> = acknowledged.into_iter().map(|(_, value)| value).collect();
    assert_eq!(read, expected, "offsets are dense, and each has what was acknowledged for it");
}
