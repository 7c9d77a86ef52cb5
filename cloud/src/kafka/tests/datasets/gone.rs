//! Objects that are gone, or are others, before they were counted to their ends.

use std::ops::Range;

use object_store::local::LocalFileSystem;
use robustmq_dataset::fetch::{FetchError, Object, ObjectSource, Source};
use tokio::sync::watch;

use super::trouble::metrics;
use super::unread::status_when;
use super::*;
use crate::broker::kept_log::KeptLog;
use crate::dataset::{Status, Wanted};
use crate::store::keys::dataset::decode_promise;
use crate::topics::TopicConfig;

/// Files, of which one is not given from a byte on before that is let through.
struct Held {
    source: ObjectSource,
    name: &'static str,
    from: u64,
    is_open: watch::Sender<bool>,
}

#[async_trait::async_trait]
impl Source for Held {
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        if object.path.as_ref().ends_with(self.name) && range.end > self.from {
            let mut is_open = self.is_open.subscribe();
            is_open.wait_for(|is_open| *is_open).await.expect("it is held");
        }
        self.source.get(object, range).await
    }
}

/// A topic over a directory, of whose `b.tar` no more than so much comes.
async fn held(
    broker: &Broker,
    client: &mut Client,
    directory: &Path,
    from: u64,
) -> (Arc<Held>, Arc<dyn std::any::Any + Send + Sync>) {
    let source = format!("file://{}", directory.display());
    let entries = [("robustmq.source".to_owned(), source.clone())];
    let config = TopicConfig::parse(&entries.into()).expect("legal").source.expect("a source");
    let files = LocalFileSystem::new_with_prefix(directory).expect("a directory");
    let source_held = Arc::new(Held {
        source: ObjectSource::of_files(files),
        name: "b.tar",
        from,
        is_open: watch::channel(false).0,
    });
    let kept = broker.kafka.datasets.read_from(&config, source_held.clone());
    let created = create(client, "images", 1, &[("robustmq.source", &source)]).await;
    assert_eq!(created, (0, String::new()));
    (source_held, kept)
}

/// One archive of some megabytes between small ones.
fn archives(directory: &Path) {
    let file = |name: &str, bytes: usize| (name.to_owned(), name.as_bytes().repeat(bytes / 6));
    let large: Vec<_> = (0..20).map(|sample| file(&format!("b{sample:02}.jp"), 300_000)).collect();
    for (name, files) in [
        ("a.tar", vec![file("a00.jp", 600)]),
        ("b.tar", large),
        ("c.tar", vec![file("c00.jp", 600), file("c01.jp", 600)]),
    ] {
        std::fs::write(directory.join(name), tar(&files)).expect("a disk");
    }
}

/// What is promised of objects.
async fn promises(memory: &MemoryStore) -> Vec<u64> {
    let page = memory.scan(Family::Promise.range(), ScanLimit::items(10)).await;
    let items = page.expect("a store that works").items;
    items.iter().map(|(_, value)| decode_promise(value).expect("its layout")).collect()
}

fn keys(records: &[Record]) -> Vec<String> {
    records.iter().map(key).collect()
}

/// The log ended there, though the setting says to go on; and an operator had no other choice than another topic.
#[tokio::test]
async fn what_is_gone_or_changed_before_it_is_counted_is_left_out_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 5);
    let memory = Arc::new(MemoryStore::new());
    let (log, _guard) = KeptLog::listen();
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.epochs", "2")];
    create(&mut client, "images", 1, &configs).await;
    let (gone, kept) = (directory.path().join("train-001.tar"), directory.path().join("kept"));
    std::fs::rename(&gone, &kept).expect("a disk");
    std::fs::write(directory.path().join("train-003.tar"), b"another").expect("a disk");
    let records = read_all(&mut client, "images", 0, 0).await;
    let left = [0, 2, 4].map(|shard| (0..10).map(move |it| format!("{shard:03}-{it:02}")));
    let left: Vec<String> = left.into_iter().flatten().collect();
    assert_eq!(keys(&records), [&left[..], &left[..]].concat());
    let told = status(&broker, "images").await;
    assert_eq!((told.trouble.len(), told.damaged, told.records), (0, 2, Some(30)));
    let named = told.damaged_samples.iter().map(|damaged| (&damaged.object[..], &damaged.reason));
    let [(first, is_gone), (second, is_changed)] = named.collect::<Vec<_>>()[..] else {
        panic!("{:?}", told.damaged_samples)
    };
    assert_eq!((first, second), ("train-001.tar", "train-003.tar"));
    assert!(is_gone.starts_with("it is gone"), "{is_gone}");
    assert!(
        is_changed.starts_with("it was changed") && is_changed.contains("size"),
        "{is_changed}"
    );
    assert!(metrics(&broker).contains("robustmq_cloud_dataset_left_out_places_total 2\n"));
    for object in ["train-001.tar", "train-003.tar"] {
        assert_eq!(log.warnings(object).len(), 1, "{:?}", log.warnings(object));
    }
    broker.shutdown.cancel();
    // It comes too late: what an offset stands for does not change.
    std::fs::rename(&kept, &gone).expect("a disk");
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    assert!(read_all(&mut client, "images", 0, 0).await == records);
}

/// Nobody knew which records of it had offsets, so nothing could follow them.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_offsets_of_an_object_that_is_gone_after_a_restart_is_null() {
    let directory = tempfile::tempdir().expect("a directory");
    archives(directory.path());
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let _held = held(&broker, &mut client, directory.path(), 2_500_000).await;
    let before = read_all(&mut client, "images", 0, 0).await;
    let promised = usize::try_from(promises(&memory).await[0]).expect("few");
    assert!((1..20).contains(&promised));
    assert_eq!(before.len(), 1 + promised);
    broker.shutdown.cancel();
    std::fs::remove_file(directory.path().join("b.tar")).expect("a disk");
    let mut first = None;
    for _ in 0..2 {
        let broker = broker_on(&memory).await;
        let mut client = broker.client().await;
        let records = read_all(&mut client, "images", 0, 0).await;
        assert_eq!(records.len(), before.len() + 2);
        assert!(records[0] == before[0]);
        for record in &records[1..before.len()] {
            assert_eq!((&record.key, &record.value), (&None, &None));
            assert_eq!(header(record, "robustmq.object"), "b.tar");
            assert!(header(record, "robustmq.error").contains("it is gone"));
        }
        assert_eq!(keys(&records[before.len()..]), ["c00", "c01"]);
        assert!(promises(&memory).await.is_empty(), "the index has it now");
        let told = status(&broker, "images").await;
        assert_eq!((told.damaged, told.lost_records), (1, promised as u64));
        assert!(told.lost[0].starts_with("b.tar has lost records: it is gone"), "{:?}", told.lost);
        let wanted = |key: &str| Wanted { key: key.to_owned(), ..Wanted::default() };
        let found = broker.find("images", wanted("b00")).await.expect("it is searched");
        assert_eq!((&found.matches[..], &found.unreadable), (&[][..], &told.lost));
        let found = broker.find("images", wanted("c01")).await.expect("it is searched");
        let offset = i64::try_from(before.len() + 1).expect("few");
        assert_eq!(found.matches[0].offset, Some(offset));
        broker.kafka.datasets.warm(&*broker.topic("images").await).await.expect("it begins");
        let over = |status: &Status| !status.warming.is_running;
        let told = status_when(&broker, "images", over).await;
        assert_eq!(told.warming.error, None);
        assert_eq!(told.cache.counts.failed_loads, 0, "nothing is fetched of what is lost");
        assert!(*first.get_or_insert_with(|| records.clone()) == records);
        broker.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_cache_of_an_object_that_is_gone_is_read_still() {
    let directory = tempfile::tempdir().expect("a directory");
    archives(directory.path());
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let (held, _kept) = held(&broker, &mut client, directory.path(), 2_500_000).await;
    let before = read_all(&mut client, "images", 0, 0).await;
    assert!(before.len() > 1);
    std::fs::remove_file(directory.path().join("b.tar")).expect("a disk");
    held.is_open.send_replace(true);
    status_when(&broker, "images", |status| status.is_index_complete).await;
    let records = read_all(&mut client, "images", 0, 0).await;
    assert!(records[..before.len()] == before);
    assert_eq!(keys(&records[before.len()..]), ["c00", "c01"]);
}

/// A promise that is not durable would not be kept.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_before_it_is_durable_that_it_has_an_offset() {
    let directory = tempfile::tempdir().expect("a directory");
    archives(directory.path());
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let (held, _kept) = held(&broker, &mut client, directory.path(), 0).await;
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 1);
    memory.set_full(true);
    held.is_open.send_replace(true);
    let told = status_when(&broker, "images", |status| !status.trouble.is_empty()).await;
    assert!(told.trouble[0].contains("is full"), "{:?}", told.trouble);
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 1);
    memory.set_full(false);
    status_when(&broker, "images", |status| status.is_index_complete).await;
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 23);
    assert!(promises(&memory).await.is_empty());
}

/// A directory that is not mounted is not an epoch without records.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_next_to_it_can_be_read_either_the_log_waits() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, elsewhere) = (directory.path().join("data"), directory.path().join("elsewhere"));
    std::fs::create_dir(&data).expect("a disk");
    shards(&data, 3);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", data.display());
    create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    std::fs::rename(&data, &elsewhere).expect("a disk");
    std::fs::create_dir(&data).expect("a disk");
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 0);
    let told = status_when(&broker, "images", |status| !status.trouble.is_empty()).await;
    let said = "partition 0 ends at offset 0: train-000.tar is gone";
    assert!(told.trouble[0].starts_with(said), "{:?}", told.trouble);
    assert!(told.trouble[0].contains("none of the objects next to it"), "{:?}", told.trouble);
    std::fs::remove_dir(&data).expect("a disk");
    std::fs::rename(&elsewhere, &data).expect("a disk");
    let over = |status: &Status| status.is_index_complete && status.trouble.is_empty();
    assert_eq!(status_when(&broker, "images", over).await.damaged, 0);
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 30);
}

/// Readers were given null records of all that was published before, and committed their offsets: an epoch was over without a sample.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_is_not_lost_where_nothing_next_to_it_can_be_read_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, elsewhere) = (directory.path().join("data"), directory.path().join("elsewhere"));
    std::fs::create_dir(&data).expect("a disk");
    shards(&data, 3);
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", data.display());
    create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    let records = read_all(&mut client, "images", 0, 0).await;
    broker.shutdown.cancel();
    // Nothing is in the cache of the next one.
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    std::fs::rename(&data, &elsewhere).expect("a disk");
    std::fs::create_dir(&data).expect("a disk");
    assert_eq!(read_all_or_error(&mut client, "images").await, Err(56));
    let told = status(&broker, "images").await;
    assert_eq!(told.lost_records, 0);
    assert!(told.trouble.iter().any(|told| told.contains("is the source mounted?")), "{told:?}");
    // One that is back says that the others are gone.
    let first = "train-000.tar";
    std::fs::rename(elsewhere.join(first), data.join(first)).expect("a disk");
    let found = read_all(&mut client, "images", 0, 0).await;
    assert!(found[..10] == records[..10] && found.len() == 30);
    assert!(found[10..].iter().all(|record| record.value.is_none()));
    assert_eq!(status(&broker, "images").await.lost_records, 20);
    for number in 1..3 {
        let name = format!("train-{number:03}.tar");
        std::fs::rename(elsewhere.join(&name), data.join(&name)).expect("a disk");
    }
    assert!(read_all(&mut client, "images", 0, 0).await == records);
    let told = status(&broker, "images").await;
    assert_eq!((told.lost_records, told.lost.len(), told.trouble.len()), (0, 0, 0));
}

/// Promises of a group that no topic belongs to go with its indexes.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_goes_with_the_last_topic() {
    let directory = tempfile::tempdir().expect("a directory");
    archives(directory.path());
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let _held = held(&broker, &mut client, directory.path(), 2_500_000).await;
    read_all(&mut client, "images", 0, 0).await;
    broker.shutdown.cancel();
    let broker = broker_on(&memory).await;
    assert_eq!(promises(&memory).await.len(), 1, "the topic is there");
    let mut client = broker.client().await;
    let named = DeleteTopicState::default().with_name(Some(TopicName(text("images"))));
    let delete = DeleteTopicsRequest::default().with_topics(vec![named]);
    assert_eq!(client.call(6, &delete).await.responses[0].error_code, 0);
    broker.shutdown.cancel();
    let _broker = broker_on(&memory).await;
    assert!(promises(&memory).await.is_empty());
}
