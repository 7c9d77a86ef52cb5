//! Topics whose records lie in files.

use std::collections::BTreeSet;
use std::path::Path;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, IncrementalAlterConfigsRequest,
    TopicName,
};
use robustmq_common::ids::{KafkaTopic, Offset};
use robustmq_common::record::{Record, RecordBatch};

use self::unread::status_when;
use super::*;
use crate::store::ScanLimit;
use crate::store::keys::Family;
use crate::topics::Topic;

mod bombs;
mod chunks;
mod find;
mod fit;
mod gone;
mod panics;
mod trouble;
mod unread;

/// A tar archive as WebDataset has it.
fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, data) in files {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        let fields = [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0")];
        for (at, field) in fields {
            block[at..at + field.len()].copy_from_slice(field.as_bytes());
        }
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[136..148].copy_from_slice(b"00000000000\0");
        block[148..156].fill(b' ');
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(block);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

fn image(shard: u32, sample: u32) -> Vec<u8> {
    let seed = (shard * 1000 + sample).to_le_bytes();
    seed.iter().copied().cycle().take(5_000 + sample as usize).collect()
}

/// Shards of ten samples each.
fn shards(directory: &Path, count: u32) {
    for shard in 0..count {
        let files = (0..10).flat_map(|sample| {
            let name = format!("{shard:03}-{sample:02}");
            [
                (format!("{name}.cls"), sample.to_string().into_bytes()),
                (format!("{name}.jpg"), image(shard, sample)),
            ]
        });
        let archive = tar(&files.collect::<Vec<_>>());
        std::fs::write(directory.join(format!("train-{shard:03}.tar")), archive).expect("a disk");
    }
}

async fn create(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> (i16, String) {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000);
    let answer = client.call(7, &request).await;
    let answer = &answer.topics[0];
    let message = answer.error_message.as_ref().map(|message| message.to_string());
    (answer.error_code, message.unwrap_or_default())
}

/// All records of a partition from `from` on, until there are no more for a while.
async fn read_all(client: &mut Client, topic: &str, partition: i32, from: i64) -> Vec<Record> {
    let mut found: Vec<Record> = Vec::new();
    let mut next = from;
    loop {
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(next)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(30_000);
        let topics =
            FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![asked]);
        let request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![topics]);
        let answer = client.call(12, &request).await;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let records = partition.records.clone().unwrap_or_default();
        if records.is_empty() {
            return found;
        }
        for batch in robustmq_common::record::split_batches(records, usize::MAX).expect("batches") {
            let records = RecordBatch::records(&batch, 1 << 24).expect("readable");
            found.extend(records.map(|record| record.expect("a good record")));
            next = batch.next_offset().0;
        }
    }
}

fn key(record: &Record) -> String {
    String::from_utf8_lossy(record.key.as_ref().expect("a key")).into_owned()
}

fn header(record: &Record, name: &str) -> String {
    String::from_utf8_lossy(record.header(name).expect(name)).into_owned()
}

async fn broker_on(memory: &Arc<MemoryStore>) -> Broker {
    let log = Arc::new(Log::new(memory.clone() as Arc<dyn Store>));
    Broker::start_with_log(memory.clone(), log, KafkaSettings::default(), 1 << 30).await
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_samples_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    std::fs::write(directory.path().join("_SUCCESS"), "").expect("a disk");
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let created = create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    assert_eq!(created, (0, String::new()));
    let records = read_all(&mut client, "images", 0, 0).await;
    assert_eq!(records.len(), 30);
    for (record, number) in records.iter().zip(0..) {
        let (shard, sample) = (number / 10, number % 10);
        assert_eq!(record.offset, Offset(i64::from(number)));
        assert_eq!(key(record), format!("{shard:03}-{sample:02}"));
        assert_eq!(record.value.as_ref().expect("a value")[..], image(shard, sample));
        assert_eq!(header(record, "cls"), sample.to_string());
        assert_eq!(header(record, "robustmq.value"), "jpg");
        assert_eq!(header(record, "robustmq.object"), format!("train-{shard:03}.tar"));
        assert_eq!(header(record, "robustmq.epoch"), "0");
    }
    let middle = read_all(&mut client, "images", 0, 17).await;
    assert!(middle == records[17..]);
}

/// The index file of so many samples of a shard, as `wds2idx` writes it.
fn index_file(shard: u32, samples: u32) -> String {
    let (mut at, mut lines) = (0, format!("v1.2 {samples}\n"));
    for sample in 0..samples {
        let name = format!("{shard:03}-{sample:02}");
        let (class, picture, bytes) = (at + 512, at + 1536, image(shard, sample).len());
        lines += &format!("cls {class} 1 {name}.cls jpg {picture} {bytes} {name}.jpg\n");
        at = picture + bytes.next_multiple_of(512);
    }
    lines
}

/// What an index file says is counted without the object being read, so one that is wrong shows: where it could be true, and the samples lie
/// elsewhere, offsets stay and records are null; where it cannot be true, it is not used.
#[tokio::test(flavor = "multi_thread")]
async fn index_files_say_how_many_samples_there_are_until_they_are_found_to_be_false() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    let write = |name: &str, text: String| {
        std::fs::write(directory.path().join(name), text).expect("a disk");
    };
    write("train-000.idx", index_file(0, 10));
    write("train-001.tar.idx", index_file(1, 9));
    write("train-002.idx", index_file(2, 9).replace("v1.2 9", "v1.2 10"));
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    for format in ["auto", "webdataset"] {
        let configs = [("robustmq.source", source.as_str()), ("robustmq.source.format", format)];
        assert_eq!(create(&mut client, format, 1, &configs).await, (0, String::new()));
        let records = read_all(&mut client, format, 0, 0).await;
        assert_eq!(records.len(), 29, "{format}");
        for (number, record) in records.iter().enumerate() {
            assert_eq!(record.value.is_none(), (10..19).contains(&number), "{format} {number}");
        }
        assert!(header(&records[10], "robustmq.error").contains("10 records of 9"));
        assert_eq!(key(&records[9]), "000-09");
        assert_eq!(key(&records[19]), "002-00");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_epoch_has_each_sample_once_in_an_order_of_its_own_and_partitions_share_them() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 7);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}/", directory.path().display());
    for shuffle in ["shards", "window:16"] {
        let name = shuffle.replace(':', "-");
        let configs = [
            ("robustmq.source", &source[..]),
            ("robustmq.source.epochs", "3"),
            ("robustmq.source.shuffle", shuffle),
            ("robustmq.source.seed", "9"),
        ];
        assert_eq!(create(&mut client, &name, 2, &configs).await, (0, String::new()));
        let mut of_epochs = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        for partition in 0..2 {
            let records = read_all(&mut client, &name, partition, 0).await;
            let mut orders = BTreeSet::new();
            for (epoch, part) in records.chunks(records.len() / 3).enumerate() {
                for record in part {
                    assert_eq!(header(record, "robustmq.epoch"), epoch.to_string());
                    assert!(of_epochs[epoch].insert(key(record)), "twice: {}", key(record));
                }
                orders.insert(part.iter().map(key).collect::<Vec<_>>());
            }
            assert!(orders.len() > 1, "epochs have orders of their own");
            let again = read_all(&mut client, &name, partition, 5).await;
            assert!(again == records[5..], "and keeps it");
        }
        assert!(of_epochs.iter().all(|epoch| epoch.len() == 70));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_offsets_stand_for_the_same_records() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 4);
    let memory = Arc::new(MemoryStore::new());
    let source = format!("file://{}", directory.path().display());
    let configs = [
        ("robustmq.source", &source[..]),
        ("robustmq.source.epochs", "2"),
        ("robustmq.source.shuffle", "shards"),
    ];
    let before = {
        let broker = broker_on(&memory).await;
        let mut client = broker.client().await;
        assert_eq!(create(&mut client, "images", 1, &configs).await, (0, String::new()));
        let records = read_all(&mut client, "images", 0, 0).await;
        broker.shutdown.cancel();
        records
    };
    assert_eq!(before.len(), 80);
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    // Nothing is counted again yet: whoever was there before is not told that there is nothing.
    assert!(read_all(&mut client, "images", 0, 63).await == before[63..]);
    assert!(read_all(&mut client, "images", 0, 0).await == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_cannot_be_listed_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let invalid = code(ResponseError::InvalidConfig);
    let empty = format!("file://{}", directory.path().display());
    let check = async |client: &mut Client, configs: &[(&str, &str)], said: &str| {
        let (error, message) = create(client, "t", 1, configs).await;
        assert_eq!(error, invalid, "{message}");
        assert!(message.contains(said), "{message}");
    };
    check(&mut client, &[("robustmq.source", &empty)], "has no objects").await;
    let missing = format!("{empty}/nowhere");
    check(&mut client, &[("robustmq.source", &missing)], "nowhere").await;
    shards(directory.path(), 1);
    let none = [("robustmq.source", &empty[..]), ("robustmq.source.include", "*.parquet")];
    check(&mut client, &none, "none of the 1 objects").await;
    // What was refused has left nothing.
    let created = create(&mut client, "t", 1, &[("robustmq.source", &empty)]).await;
    assert_eq!(created, (0, String::new()));
}

/// All of these were taken, and turned out to be wrong when somebody read.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_has_no_use_for_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 2);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let invalid = code(ResponseError::InvalidConfig);
    let source = format!("file://{}", directory.path().display());
    let source = ("robustmq.source", &source[..]);
    let kept = ("retention.ms", "1000");
    let (error, message) = create(&mut client, "t", 1, &[source, kept]).await;
    assert_eq!(error, invalid);
    assert!(message.contains("retention.ms") && message.contains("not stored here"), "{message}");
    let parquet = ("robustmq.source.format", "parquet");
    let (error, message) = create(&mut client, "t", 1, &[source, parquet]).await;
    assert_eq!(error, invalid);
    let said = "robustmq.source.format=parquet fits none of the 2 objects";
    assert!(message.contains(said), "{message}");
    assert!(message.contains("train-000.tar, is webdataset"), "{message}");
    let file = format!("{}/train-001.tar", source.1);
    let (error, message) = create(&mut client, "t", 1, &[("robustmq.source", &file)]).await;
    assert_eq!(error, invalid);
    let said =
        "is a file: name the directory that it is in, and robustmq.source.include=train-001.tar";
    assert!(message.contains(said), "{message}");
    // Objects may come, so this is no error.
    let (error, note) = create(&mut client, "t", 3, &[source]).await;
    assert_eq!(error, 0);
    assert!(note.starts_with("1 of 3 partitions are empty, since there are 2 objects"), "{note}");
    let name = KafkaTopic::new("t").expect("a legal name");
    let set = |name: &str, value: &str| crate::entries::ConfigChange {
        name: name.to_owned(),
        op: crate::entries::ConfigOp::Set(value.to_owned()),
    };
    let change = [set("retention.bytes", "5")];
    let altered = broker.kafka.topics.alter_config(&name, &change, false);
    let refused = altered.await.expect_err("a source").to_string();
    assert!(
        refused.contains("retention.bytes") && refused.contains("not stored here"),
        "{refused}"
    );
}

/// The status of a topic by its name.
impl Broker {
    async fn topic(&self, name: &str) -> Arc<Topic> {
        let name = KafkaTopic::new(name).expect("a legal name");
        self.kafka.topics.get(&name).await.expect("a store").expect("the topic")
    }
}

async fn status(broker: &Broker, name: &str) -> crate::dataset::Status {
    let topic = broker.topic(name).await;
    broker.kafka.datasets.status(&topic).await.expect("its status")
}

/// Half of a file is left.
fn cut_off(path: &std::path::Path) {
    let whole = std::fs::read(path).expect("a disk");
    std::fs::write(path, &whole[..whole.len() / 2]).expect("a disk");
}

/// A consumer stood still, and the status had nothing to say; what was left out was in the log only.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_lists_what_is_left_out_and_where_a_log_ends_and_why() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    let cut = directory.path().join("train-001.tar");
    cut_off(&cut);
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let mut configs = vec![("robustmq.source", &source[..])];
    create(&mut client, "skips", 1, &configs).await;
    configs.push(("robustmq.source.on.corrupt", "stop"));
    create(&mut client, "stops", 1, &configs).await;
    let read = read_all(&mut client, "skips", 0, 0).await.len() as u64;
    let skips = status(&broker, "skips").await;
    assert_eq!((skips.records, skips.indexed_objects, skips.trouble.len()), (Some(read), 3, 0));
    assert_eq!((skips.damaged, skips.damaged_samples.len()), (1, 1));
    assert_eq!(skips.damaged_samples[0].object, "train-001.tar");
    let end = read_all(&mut client, "stops", 0, 0).await.len();
    let trouble = loop {
        let stops = status(&broker, "stops").await;
        if let Some(trouble) = stops.trouble.first() {
            break trouble.clone();
        }
        tokio::task::yield_now().await;
    };
    let said =
        format!("partition 0 ends at offset {end}: train-001.tar has samples that cannot be read");
    assert!(trouble.starts_with(&said), "{trouble}");
    // Nobody reads any more: the partition is closed, and it is told still.
    broker.kafka.log.close_topics([broker.topic("stops").await.id]);
    assert_eq!(status(&broker, "stops").await.trouble, [trouble]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_read_only_and_stays_what_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 2);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    create(&mut client, "t", 2, &[("robustmq.source", &source)]).await;
    let name = robustmq_common::ids::KafkaTopic::new("t").expect("a legal name");
    let wider = broker.kafka.topics.create_partitions(&name, 3, false).await;
    assert!(wider.is_err());
    let change = |value: &str| crate::entries::ConfigChange {
        name: "robustmq.source.seed".to_owned(),
        op: crate::entries::ConfigOp::Set(value.to_owned()),
    };
    let changed = broker.kafka.topics.alter_config(&name, &[change("4")], false).await;
    assert!(changed.expect_err("fixed").to_string().contains("another topic"));
    let topic = broker.kafka.topics.get(&name).await.expect("a store").expect("the topic");
    let partition = robustmq_common::ids::PartitionIndex(0);
    let partition = broker.kafka.log.partition(topic.id, partition).await.expect("there");
    let record = RecordBatch::parse(batch(&["x"])).expect("a batch");
    let context = crate::log::AppendContext::at(0);
    assert!(matches!(partition.append(record, &context), Err(crate::log::AppendError::ReadOnly)));
}

/// A job stood still for good at an object that had been deleted while it trained.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_and_is_deleted_or_replaced_then_is_null_and_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 4);
    let memory = Arc::new(MemoryStore::new());
    let source = format!("file://{}", directory.path().display());
    for (name, on_corrupt) in [("skips", "skip"), ("stops", "stop")] {
        let broker = broker_on(&memory).await;
        let mut client = broker.client().await;
        let configs =
            [("robustmq.source", &source[..]), ("robustmq.source.on.corrupt", on_corrupt)];
        assert_eq!(create(&mut client, name, 1, &configs).await, (0, String::new()));
        assert_eq!(read_all(&mut client, name, 0, 0).await.len(), 40);
    }
    std::fs::remove_file(directory.path().join("train-001.tar")).expect("a disk");
    std::fs::write(directory.path().join("train-002.tar"), "another").expect("a disk");
    // With an empty cache.
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let records = read_all(&mut client, "skips", 0, 0).await;
    assert_eq!(records.len(), 40, "offsets stay what they are");
    for (record, number) in records.iter().zip(0..) {
        let (shard, sample) = (number / 10, number % 10);
        assert_eq!(record.offset, Offset(i64::from(number)));
        assert_eq!(header(record, "robustmq.object"), format!("train-{shard:03}.tar"));
        match shard {
            1 => assert!(header(record, "robustmq.error").contains("gone"), "{number}"),
            2 => assert!(header(record, "robustmq.error").contains("changed"), "{number}"),
            _ => assert_eq!(record.value.as_ref().expect("a value")[..], image(shard, sample)),
        }
        assert_eq!(record.value.is_none(), [1, 2].contains(&shard), "{number}");
    }
    let told = read_all_or_error(&mut client, "stops").await;
    assert_eq!(told, Err(code(ResponseError::KafkaStorageError)));
    // Clients try that again without a word: the status has to say it.
    let said = "partition 0 cannot be read at offset 10: train-001.tar is gone";
    let trouble = status(&broker, "stops").await.trouble;
    assert!(trouble.iter().any(|trouble| trouble.starts_with(said)), "{trouble:?}");
    // What may be changed is in effect at once, and a topic that is deleted leaves nothing.
    let skip = AlterableConfig::default()
        .with_name(text("robustmq.source.on.corrupt"))
        .with_value(Some(text("skip")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("stops"))
        .with_configs(vec![skip]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(1, &request).await.responses[0].error_code, 0);
    while read_all_or_error(&mut client, "stops").await != Ok(40) {
        tokio::task::yield_now().await;
    }
    assert!(status(&broker, "stops").await.trouble.is_empty(), "it is over");
    let named = |name| DeleteTopicState::default().with_name(Some(TopicName(text(name))));
    let delete = DeleteTopicsRequest::default().with_topics(vec![named("stops"), named("skips")]);
    let deleted = client.call(6, &delete).await;
    assert!(deleted.responses.iter().all(|topic| topic.error_code == 0));
    let is_empty = async || {
        let page = memory.scan(Family::Dataset.range(), ScanLimit::items(1)).await;
        page.expect("a store that works").items.is_empty()
    };
    while !is_empty().await {
        tokio::task::yield_now().await;
    }
}

/// How many records a partition has from its beginning on, or the error that a Fetch has met.
async fn read_all_or_error(client: &mut Client, topic: &str) -> Result<i64, i16> {
    let mut next = 0;
    loop {
        let partition = FetchPartition::default()
            .with_fetch_offset(next)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(30_000);
        let topics = FetchTopic::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![topics]);
        let answer = client.call(12, &request).await.responses[0].partitions[0].clone();
        if answer.error_code != 0 {
            return Err(answer.error_code);
        }
        let records = answer.records.unwrap_or_default();
        if records.is_empty() {
            return Ok(next);
        }
        let batches = robustmq_common::record::split_batches(records, usize::MAX);
        next = batches.expect("batches").last().expect("one").next_offset().0;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_appends_what_is_new_and_refuses_what_was_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 2);
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let created = create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    assert_eq!(created, (0, String::new()));
    let first = read_all(&mut client, "images", 0, 0).await;
    let named = KafkaTopic::new("images").expect("a legal name");
    let topic = || async { broker.kafka.topics.get(&named).await.expect("a store").expect("it") };
    // Its name lies between those of the others.
    let another = tar(&[("new.jpg".to_owned(), b"new".to_vec())]);
    std::fs::write(directory.path().join("train-000-b.tar"), another).expect("a disk");
    let refreshed = broker.kafka.datasets.refresh(&*topic().await, 7).await.expect("it is listed");
    assert_eq!((refreshed.objects, refreshed.added_objects, refreshed.missing_objects), (3, 1, 0));
    // It said 2 of 3, and complete.
    let shown = status(&broker, "images").await;
    assert_eq!((shown.objects, shown.new_objects, shown.indexed_objects), (3, 1, 2));
    assert!(shown.is_index_complete);
    assert_eq!(read_all(&mut client, "images", 0, 0).await, first, "the epoch has begun");
    let set = async |client: &mut Client, epochs: &str| {
        let config = AlterableConfig::default()
            .with_name(text("robustmq.source.epochs"))
            .with_value(Some(text(epochs)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("images"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        client.call(1, &request).await.responses[0].error_code
    };
    assert_eq!(set(&mut client, "2").await, 0);
    assert_eq!(set(&mut client, "1").await, code(ResponseError::InvalidConfig), "never fewer");
    let mut second = Vec::new();
    while second.len() < 21 {
        second = read_all(&mut client, "images", 0, 20).await;
    }
    let expected = first.iter().map(key).chain(["new".to_owned()]);
    assert_eq!(second.iter().map(key).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let shown = status(&broker, "images").await;
    assert_eq!((shown.objects, shown.new_objects, shown.indexed_objects), (3, 0, 3));
    assert_eq!((shown.records, shown.records_epoch), (Some(21), Some(1)), "it was the first's");
    std::fs::write(directory.path().join("train-001.tar"), "another").expect("a disk");
    let refused = broker.kafka.datasets.refresh(&*topic().await, 8).await.expect_err("it changed");
    assert!(refused.to_string().contains("train-001.tar was changed"), "{refused}");
    std::fs::remove_file(directory.path().join("train-001.tar")).expect("a disk");
    let refreshed = broker.kafka.datasets.refresh(&*topic().await, 9).await.expect("it is listed");
    assert_eq!((refreshed.objects, refreshed.missing), (3, vec!["train-001.tar".to_owned()]));
    // Also after a restart.
    drop((client, broker));
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let mut all = Vec::new();
    while all.len() < 41 {
        all = read_all(&mut client, "images", 0, 0).await;
    }
    assert!(all[..10] == first[..10]);
    assert_eq!(key(&all[40]), "new");
}

/// A table of a number, a text and bytes, in row groups of four.
fn table(path: &Path, rows: std::ops::Range<i64>) {
    let texts = rows.clone().map(|row| format!("text {row}"));
    let bytes = rows.clone().map(|row| row.to_le_bytes());
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone()))),
        ("text", Arc::new(StringArray::from_iter_values(texts))),
        ("bytes", Arc::new(BinaryArray::from_iter_values(bytes))),
    ];
    let batch = arrow_array::RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(4))
        .build();
    let file = std::fs::File::create(path).expect("a disk");
    let writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties));
    let mut writer = writer.expect("a schema");
    writer.write(&batch).expect("a disk");
    writer.close().expect("a disk");
}

/// The values of all records from an offset on.
async fn lines(client: &mut Client, topic: &str, from: i64) -> Vec<String> {
    let records = read_all(client, topic, 0, from).await;
    let line = |record: &Record| {
        String::from_utf8_lossy(record.value.as_ref().expect("a value")).into_owned()
    };
    records.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_parquet_are_records_with_the_columns_that_a_topic_asks_for() {
    let directory = tempfile::tempdir().expect("a directory");
    table(&directory.path().join("0.parquet"), 0..10);
    table(&directory.path().join("1.parquet"), 10..15);
    let memory = Arc::new(MemoryStore::new());
    let source = format!("file://{}", directory.path().display());
    let arrow = ("robustmq.source.rows", "arrow");
    let topics = [
        ("all", vec![]),
        ("some", vec![("robustmq.source.columns", "text,id")]),
        ("batches", vec![("robustmq.source.format", "parquet"), arrow]),
        ("none", vec![("robustmq.source.columns", "image")]),
    ];
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    for (name, mut configs) in topics {
        configs.push(("robustmq.source", &source));
        assert_eq!(create(&mut client, name, 1, &configs).await, (0, String::new()));
    }
    let all = lines(&mut client, "all", 0).await;
    assert_eq!(all.len(), 15);
    assert_eq!(all[14], "{\"id\":14,\"text\":\"text 14\",\"bytes\":\"DgAAAAAAAAA=\"}");
    let some = lines(&mut client, "some", 0).await;
    assert_eq!(some[14], "{\"id\":14,\"text\":\"text 14\"}");
    let batches = lines(&mut client, "batches", 0).await;
    assert_eq!(batches.len(), 5, "one for each row group");
    assert_eq!(lines(&mut client, "none", 0).await.len(), 0);
    let none = status_when(&broker, "none", |status| status.is_index_complete).await;
    let said = "no record of the objects that are counted (2) can be read; the first, 0.parquet: it has no column \"image\" \
                (robustmq.source.columns); it has id, text, bytes";
    assert_eq!(none.trouble, [said]);
    assert!(status(&broker, "all").await.trouble.is_empty(), "others have nothing to tell");
    let first = read_all(&mut client, "some", 0, 0).await.remove(0);
    assert_eq!(header(&first, "robustmq.object"), "0.parquet");
    broker.shutdown.cancel();
    // Nothing is cached, and what was counted is known.
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    assert_eq!(lines(&mut client, "some", 6).await, some[6..]);
    assert_eq!(lines(&mut client, "all", 0).await, all);
}
