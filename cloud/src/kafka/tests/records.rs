//! Produce, Fetch, ListOffsets, DeleteRecords, OffsetForLeaderEpoch.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    TopicName, TransactionalId,
};
use robustmq_common::ids::KafkaTopic;
use robustmq_common::record::split_batches;

use super::*;
use crate::topics::NewTopic;

#[tokio::test]
async fn log_dirs_tell_the_size_of_what_is_stored() {
    use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
    use kafka_protocol::messages::{DescribeLogDirsRequest, TopicName};
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    for name in ["empty", "full"] {
        create(&mut client, name).await;
    }
    broker
        .kafka
        .topics
        .create_partitions(&robustmq_common::ids::KafkaTopic::new("full").expect("legal"), 2, false)
        .await
        .expect("a second partition");
    let (sent, mut expected) = (batch(&["a", "b"]), 0);
    for _ in 0..3 {
        assert_eq!(produce(&mut client, "full", sent.clone()).await.error_code, 0);
        expected += i64::try_from(sent.len()).expect("small");
    }
    for version in 1..=4 {
        let all = client.call(version, &DescribeLogDirsRequest::default().with_topics(None)).await;
        let [dir] = &all.results[..] else { panic!("one directory") };
        let held =
            |topic: &kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic| {
                let sizes = topic.partitions.iter().map(|p| (p.partition_index, p.partition_size));
                (topic.name.as_str().to_owned(), sizes.collect::<Vec<_>>())
            };
        let topics: Vec<_> = dir.topics.iter().map(held).collect();
        assert_eq!(topics, [("full".to_owned(), vec![(0, expected)])]);
        let wanted = |name: &str, partitions| {
            DescribableLogDirTopic::default()
                .with_topic(TopicName(text(name)))
                .with_partitions(partitions)
        };
        let wanted = vec![wanted("full", vec![1, 0, 7, -1]), wanted("none", vec![0])];
        let some = DescribeLogDirsRequest::default().with_topics(Some(wanted));
        let some = client.call(version, &some).await;
        let topics: Vec<_> = some.results[0].topics.iter().map(held).collect();
        assert_eq!(topics, [("full".to_owned(), vec![(0, expected), (1, 0)])]);
        // The same from the store as from memory.
        broker.kafka.log.evict_idle(Duration::ZERO);
    }
}

const NEWEST_FETCH: i16 = 12;

pub(super) fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// Brings a topic into being by asking for it.
pub(super) async fn create(client: &mut Client, topic: &str) -> uuid::Uuid {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let answer = client.call(12, &request).await;
    assert_eq!(answer.topics[0].error_code, 0);
    answer.topics[0].topic_id
}

fn produce_request(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(records));
    let data =
        TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![data])
}

pub(super) async fn produce(
    client: &mut Client,
    topic: &str,
    records: Bytes,
) -> PartitionProduceResponse {
    let answer = client.call(11, &produce_request(topic, -1, records)).await;
    answer.responses[0].partition_responses[0].clone()
}

pub(super) fn fetch_request(
    topic: &str,
    offset: i64,
    max_wait_ms: i32,
    min_bytes: i32,
) -> FetchRequest {
    let partition =
        FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let asked = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}

pub(super) async fn fetch(client: &mut Client, request: &FetchRequest) -> PartitionData {
    client.call(NEWEST_FETCH, request).await.responses[0].partitions[0].clone()
}

pub(super) fn values(data: &PartitionData) -> Vec<String> {
    let records = data.records.clone().unwrap_or_default();
    let batches = split_batches(records, usize::MAX).expect("whole batches");
    let mut values = Vec::new();
    for batch in batches {
        for record in batch.records(1 << 20).expect("readable records") {
            let record = record.expect("a readable record");
            let value = record.value.expect("a value");
            values.push(String::from_utf8(value.to_vec()).expect("text"));
        }
    }
    values
}

#[tokio::test]
async fn what_is_produced_is_fetched_at_its_offsets() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = create(&mut client, "t").await;
    assert_eq!(produce(&mut client, "t", batch(&["a", "b"])).await.base_offset, 0);
    assert_eq!(produce(&mut client, "t", batch(&["c"])).await.base_offset, 2);
    let all = fetch(&mut client, &fetch_request("t", 0, 0, 1)).await;
    assert_eq!(values(&all), ["a", "b", "c"]);
    assert_eq!((all.high_watermark, all.last_stable_offset, all.log_start_offset), (3, 3, 0));
    let tail = fetch(&mut client, &fetch_request("t", 1, 0, 1)).await;
    assert_eq!(values(&tail), ["a", "b", "c"], "the batch that holds the offset comes whole");
    let end = fetch(&mut client, &fetch_request("t", 3, 0, 1)).await;
    assert_eq!((end.error_code, values(&end).len()), (0, 0));
    // By id, from version 13 on.
    let mut by_id = fetch_request("", 0, 0, 1);
    by_id.topics[0].topic_id = id;
    let answer = client.call(16, &by_id).await;
    assert_eq!(answer.responses[0].topic_id, id);
    assert_eq!(values(&answer.responses[0].partitions[0]), ["a", "b", "c"]);
    by_id.topics[0].topic_id = uuid::Uuid::from_u128(5);
    let unknown = client.call(16, &by_id).await;
    let error = unknown.responses[0].partitions[0].error_code;
    assert_eq!(error, code(ResponseError::UnknownTopicId));
}

#[tokio::test]
async fn batches_that_cannot_be_taken_are_refused_each_with_its_error() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    let good = batch(&["a"]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= byte;
        Bytes::from(bytes)
    };
    let last = good.len() - 1;
    let cases = [
        (changed(last, 1), ResponseError::CorruptMessage),
        (good.slice(..last), ResponseError::CorruptMessage),
        (Bytes::new(), ResponseError::InvalidRecord),
        ([&good[..], &good[..]].concat().into(), ResponseError::InvalidRecord),
        (changed(16, 2 ^ 1), ResponseError::UnsupportedForMessageFormat),
        (batch(&[&"x".repeat(2 << 20)]), ResponseError::MessageTooLarge),
    ];
    for (records, expected) in cases {
        let answer = produce(&mut client, "t", records).await;
        assert_eq!(answer.error_code, code(expected), "{expected}");
        assert_eq!(answer.base_offset, -1);
    }
    let unknown = produce(&mut client, "nowhere", good.clone()).await;
    assert_eq!(unknown.error_code, code(ResponseError::UnknownTopicOrPartition));
    let mut request = produce_request("t", 7, good.clone());
    let answer = client.call(11, &request).await;
    let error = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(error, code(ResponseError::InvalidRequiredAcks));
    request = produce_request("t", -1, good.clone());
    request.transactional_id = Some(TransactionalId(text("tx")));
    let answer = client.call(11, &request).await;
    let error = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(error, code(ResponseError::TransactionalIdAuthorizationFailed));
    assert_eq!(produce(&mut client, "t", good).await.base_offset, 0, "none of them took a place");
}

/// Records with these keys.
fn keyed(compression: Compression, keys: &[Option<&str>]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for key in keys {
        let key = key.map(str::as_bytes);
        let record = NewRecord { key, value: Some(b"value"), ..NewRecord::default() };
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("a batch").into_bytes()
}

/// An intact batch whose records only look compressed.
fn not_gzip() -> Bytes {
    const ATTRIBUTES_AT: usize = 21;
    let mut bytes = keyed(Compression::None, &[Some("k")]).to_vec();
    bytes[ATTRIBUTES_AT + 1] |= Compression::Gzip.code();
    let checksum = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]).to_be_bytes();
    bytes[ATTRIBUTES_AT - 4..ATTRIBUTES_AT].copy_from_slice(&checksum);
    bytes.into()
}

/// Compacted topics took records without a key, which compaction could never remove.
#[tokio::test]
async fn compacted_topics_take_only_records_with_a_key_and_others_are_not_looked_into() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    for policy in ["delete", "compact", "compact,delete"] {
        let name = KafkaTopic::new(&policy.replace(',', "-")).expect("a legal name");
        let overrides = [("cleanup.policy".to_owned(), policy.to_owned())];
        let new = NewTopic::new(name, 1, overrides.into());
        broker.kafka.topics.create(vec![new], false, 0).await.remove(0).expect("created");
    }
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let (all, some) = ([Some("a"), Some("")], [Some("a"), None]);
        for topic in ["compact", "compact-delete"] {
            let answer = produce(&mut client, topic, keyed(compression, &all)).await;
            assert_eq!(answer.error_code, 0, "{topic} {compression}");
            let answer = produce(&mut client, topic, keyed(compression, &some)).await;
            assert_eq!(answer.error_code, code(ResponseError::InvalidRecord), "{topic}");
            let message = answer.error_message.unwrap_or_default();
            assert!(message.contains("record 1") && message.contains("no key"), "{message}");
        }
        let answer = produce(&mut client, "delete", keyed(compression, &some)).await;
        assert_eq!(answer.error_code, 0, "{compression}");
    }
    let answer = produce(&mut client, "compact", not_gzip()).await;
    assert_eq!(answer.error_code, code(ResponseError::CorruptMessage));
    let answer = produce(&mut client, "delete", not_gzip()).await;
    assert_eq!(answer.error_code, 0, "nobody looked");
}

#[tokio::test]
async fn old_produce_versions_are_told_that_their_format_is_gone() {
    let broker = Broker::start().await;
    let api = crate::kafka::versions::find(0).expect("Produce is served");
    for (version, answer_bytes) in [(0_i16, 4), (1, 8), (2, 16)] {
        let mut client = broker.client().await;
        client.send_raw(&crate::kafka::frame::samples::sample(api, version)).await;
        let answer = client.receive_raw().await.expect("an answer");
        // Correlation id, one topic "topic", one partition 3, the error, offset -1.
        let head =
            [&[0, 0, 0, 7, 0, 0, 0, 1, 0, 5][..], b"topic", &[0, 0, 0, 1, 0, 0, 0, 3]].concat();
        assert_eq!(answer.get(..head.len()), Some(&head[..]), "version {version}");
        let error = code(ResponseError::UnsupportedForMessageFormat).to_be_bytes();
        assert_eq!(answer.get(head.len()..head.len() + 2), Some(&error[..]));
        assert_eq!(answer.len(), head.len() + 2 + 8 + (answer_bytes - 4), "version {version}");
    }
}

#[tokio::test]
async fn pipelined_produces_keep_their_order_and_acks_0_has_no_answer() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    let mut ids = Vec::new();
    for number in 0..200 {
        let acks = if number % 10 == 9 { 0 } else { -1 };
        let id = client.send(11, &produce_request("t", acks, batch(&[&number.to_string()]))).await;
        if acks != 0 {
            ids.push((number, id));
        }
    }
    for (number, id) in ids {
        let answer = client.receive::<ProduceRequest>(11, id).await;
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, number));
    }
}

#[tokio::test]
async fn a_fetch_waits_until_enough_is_there_and_wakes_on_the_append() {
    let broker = Broker::start().await;
    let (mut reader, mut writer) = (broker.client().await, broker.client().await);
    create(&mut writer, "t").await;
    let two_batches = i32::try_from(batch(&["a"]).len() * 2).expect("small");
    let started = std::time::Instant::now();
    let id = reader.send(NEWEST_FETCH, &fetch_request("t", 0, 60_000, two_batches)).await;
    produce(&mut writer, "t", batch(&["a"])).await;
    produce(&mut writer, "t", batch(&["b"])).await;
    let answer = reader.receive::<FetchRequest>(NEWEST_FETCH, id).await;
    assert_eq!(values(&answer.responses[0].partitions[0]), ["a", "b"]);
    assert!(started.elapsed() < Duration::from_secs(30), "it did not wait for max_wait");
    // Without enough data it answers with what there is when its time is over.
    let short = fetch(&mut reader, &fetch_request("t", 1, 30, 1_000_000)).await;
    assert_eq!(values(&short), ["b"]);
}

#[tokio::test]
async fn a_fetch_ends_its_wait_when_the_broker_shuts_down() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    let id = client.send(NEWEST_FETCH, &fetch_request("t", 0, 60_000, 1)).await;
    // Answered requests show that the wait has begun: there is nothing else to see of it.
    broker.client().await.call(0, &kafka_protocol::messages::ApiVersionsRequest::default()).await;
    broker.shutdown.cancel();
    let answer = client.receive_raw().await;
    if let Some(answer) = answer {
        assert_eq!(answer.get(..4), Some(&id.to_be_bytes()[..]));
    }
    tokio::time::timeout(Duration::from_secs(5), broker.served)
        .await
        .expect("the drain does not wait for the client's minute")
        .expect("no panic");
}

#[tokio::test]
async fn fetches_that_make_no_sense_are_refused_each_with_its_error() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    produce(&mut client, "t", batch(&["a"])).await;
    let mut check = async |request: FetchRequest, expected: ResponseError| {
        let answer = fetch(&mut client, &request).await;
        assert_eq!(answer.error_code, code(expected), "{expected}");
        assert_eq!(answer.records.map(|records| records.len()), Some(0));
    };
    check(fetch_request("t", 5, 1000, 1), ResponseError::OffsetOutOfRange).await;
    check(fetch_request("t", -1, 1000, 1), ResponseError::OffsetOutOfRange).await;
    check(fetch_request("nowhere", 0, 1000, 1), ResponseError::UnknownTopicOrPartition).await;
    let mut other = fetch_request("t", 0, 1000, 1);
    other.topics[0].partitions[0].partition = 9;
    check(other, ResponseError::UnknownTopicOrPartition).await;
    let mut newer = fetch_request("t", 0, 1000, 1);
    newer.topics[0].partitions[0].current_leader_epoch = 9;
    check(newer, ResponseError::UnknownLeaderEpoch).await;
    let mut session = fetch_request("t", 0, 1000, 1);
    session.session_id = 4;
    session.session_epoch = 2;
    let answer = client.call(NEWEST_FETCH, &session).await;
    assert_eq!(answer.error_code, code(ResponseError::FetchSessionIdNotFound));
    // A client that asks for a session gets its data and no session.
    session.session_id = 0;
    session.session_epoch = 0;
    let answer = client.call(NEWEST_FETCH, &session).await;
    assert_eq!((answer.error_code, answer.session_id), (0, 0));
    assert_eq!(values(&answer.responses[0].partitions[0]), ["a"]);
}

#[tokio::test]
async fn limits_are_kept_but_at_least_one_batch_is_returned() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    for value in ["a", "b", "c"] {
        produce(&mut client, "t", batch(&[value])).await;
    }
    let one = i32::try_from(batch(&["a"]).len()).expect("small");
    let mut request = fetch_request("t", 0, 0, 1);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    assert_eq!(values(&fetch(&mut client, &request).await), ["a"]);
    // Keys count too, some 30 bytes for each batch.
    request.topics[0].partitions[0].partition_max_bytes = one * 2 + 80;
    assert_eq!(values(&fetch(&mut client, &request).await), ["a", "b"]);
    request.max_bytes = 1;
    assert_eq!(values(&fetch(&mut client, &request).await), ["a"]);
}

#[tokio::test]
async fn answers_that_nobody_takes_leave_room_for_others() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    produce(&mut client, "t", batch(&["a"])).await;
    let memory = &broker.kafka.answer_memory;
    let _stalled = memory.try_charge(memory.available_bytes() - (4 << 20)).expect("it is free");
    let mut request = fetch_request("t", 0, 0, 1).with_max_bytes(16 << 20);
    request.topics[0].partitions[0].partition_max_bytes = 16 << 20;
    let fetched = tokio::time::timeout(Duration::from_secs(10), fetch(&mut client, &request));
    assert_eq!(values(&fetched.await.expect("an answer at once")), ["a"]);
}

#[tokio::test]
async fn offsets_are_listed_by_place_and_by_time() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    produce(&mut client, "t", batch(&["a", "b", "c"])).await;
    for (timestamp, offset, found_ms) in
        [(-1, 3, -1), (-2, 0, -1), (-3, 2, 1002), (0, 0, 1000), (1001, 1, 1001), (5000, -1, -1)]
    {
        let partition =
            ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
        let asked =
            ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        let answer = client.call(7, &ListOffsetsRequest::default().with_topics(vec![asked])).await;
        let answer = &answer.topics[0].partitions[0];
        assert_eq!(
            (answer.error_code, answer.offset, answer.timestamp),
            (0, offset, found_ms),
            "timestamp {timestamp}"
        );
    }
}

#[tokio::test]
async fn producer_ids_are_fresh_and_transactions_are_refused() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let idempotent = InitProducerIdRequest::default().with_transactional_id(None);
    let first = client.call(4, &idempotent).await;
    let second = client.call(4, &idempotent).await;
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    assert_ne!(first.producer_id, second.producer_id);
    let transactional =
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("tx"))));
    let refused = client.call(4, &transactional).await;
    assert_eq!(refused.error_code, code(ResponseError::TransactionalIdAuthorizationFailed));
}
