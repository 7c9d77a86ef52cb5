//! Topics that nobody reads: they are counted, brought into the cache and looked at all the same.

use super::*;
use crate::dataset::Status;

/// The state of a topic once it is as it should be.
pub(super) async fn status_when(
    broker: &Broker,
    name: &str,
    is_so: impl Fn(&Status) -> bool,
) -> Status {
    let looked_at = async {
        loop {
            let status = status(broker, name).await;
            if is_so(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked_at).await.expect("it comes")
}

/// Each look opened the partitions, had them counted, and they were closed before the next look: it was never complete for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_counted_at_once_is_counted_without_a_reader_and_stays_so() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 5);
    let memory = Arc::new(MemoryStore::new());
    let source = format!("file://{}", directory.path().display());
    let is_complete = |status: &Status| status.is_index_complete && status.published_epochs == 2;
    let mut broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let configs = [
        ("robustmq.source", &source[..]),
        ("robustmq.source.index", "eager"),
        ("robustmq.source.epochs", "3"),
    ];
    create(&mut client, "eager", 2, &configs).await;
    for _ in 0..2 {
        let counted = status_when(&broker, "eager", is_complete).await;
        assert_eq!((counted.records, counted.indexed_objects), (Some(50), 5));
        let id = broker.topic("eager").await.id;
        broker.kafka.log.close_topics([id]);
        for _ in 0..20 {
            tokio::task::yield_now().await;
            assert!(is_complete(&status(&broker, "eager").await));
        }
        broker = broker_on(&memory).await;
    }
}

/// It waited for objects that were never going to be counted, without a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_brought_into_the_cache_is_told_and_does_not_go_on_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 4);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.on.corrupt", "stop")];
    create(&mut client, "images", 1, &configs).await;
    let changed = directory.path().join("train-002.tar");
    std::fs::write(&changed, b"another").expect("a disk");
    let datasets = &broker.kafka.datasets;
    datasets.warm(&*broker.topic("images").await).await.expect("it begins");
    let over = |status: &Status| !status.warming.is_running;
    let warmed = status_when(&broker, "images", over).await;
    let error = warmed.warming.error.expect("it cannot all be there");
    assert!(error.starts_with("partition 0 ends at offset 20: train-002.tar"), "{error}");
    assert!(warmed.warming.done_bytes > 100_000, "{}", warmed.warming.done_bytes);
    let counts = warmed.cache.counts;
    assert_eq!((counts.source_reads, counts.waited), (0, 0), "nobody has read");
    // What a listing finds is told as long as it is so.
    std::fs::remove_file(&changed).expect("a disk");
    let listed = datasets.begin_refresh(&broker.topic("images").await, 0).expect("it begins");
    let listed = listed.clone().outcome(Duration::from_secs(60)).await.expect("it ends");
    assert!(listed.is_ok(), "{listed:?}");
    let trouble = status(&broker, "images").await.trouble;
    let said = "when it was listed last, objects were gone: train-002.tar; what was not counted before is left out as long as objects next to it can be read, and the topic does not go on behind it otherwise";
    assert!(trouble.iter().any(|trouble| trouble.starts_with(said)), "{trouble:?}");
}

/// It was counted, and downloaded, to its end for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_not_counted_on() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.index", "eager")];
    create(&mut client, "eager", 1, &configs).await;
    let id = broker.topic("eager").await.id;
    // One that is opened only to be looked at is another.
    let begun = async {
        loop {
            match broker.kafka.datasets.cancel_of(id) {
                Some(cancel) => return cancel,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let begun = tokio::time::timeout(Duration::from_secs(60), begun);
    let cancel = begun.await.expect("counting begins without a reader");
    assert!(!cancel.is_cancelled());
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_name(Some(TopicName(text("eager"))))]);
    client.call(6, &request).await;
    let gone = tokio::time::timeout(Duration::from_secs(60), cancel.cancelled());
    gone.await.expect("counting, reading ahead and warming end with it");
}

/// The index of a false index file was that of the object for each other topic, whatever that left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_a_false_index_file_is_counted_by_its_objects() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 1);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let index = directory.path().join("train-000.idx");
    std::fs::write(&index, index_file(0, 9)).expect("a disk");
    let mut configs = vec![("robustmq.source", &source[..])];
    create(&mut client, "false", 1, &configs).await;
    let records = read_all(&mut client, "false", 0, 0).await;
    assert_eq!(records.iter().filter(|record| record.value.is_none()).count(), 9);
    configs.push(("robustmq.source.exclude", "**/*.idx"));
    create(&mut client, "without", 1, &configs).await;
    std::fs::write(&index, index_file(0, 10)).expect("a disk");
    create(&mut client, "right", 1, &configs[..1]).await;
    for topic in ["without", "right"] {
        let records = read_all(&mut client, topic, 0, 0).await;
        let values = records.iter().filter(|record| record.value.is_some()).count();
        assert_eq!(values, 10, "{topic}");
    }
}
