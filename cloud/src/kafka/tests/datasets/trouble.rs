//! What is told where something is wrong with a source, and what is not wrong.

use std::fs::{File, FileTimes};

use prometheus_client::registry::Registry;

use super::*;
use crate::broker::kept_log::KeptLog;
use crate::dataset::{FindError, Refreshed, Wanted};
use crate::traffic::report;

/// A file as it was, which `cp -p`, rsync or a restored backup have put back: it is another inode.
fn put_back(path: &Path) {
    let (content, then) = (std::fs::read(path), std::fs::metadata(path));
    let (content, then) = (content.expect("a disk"), then.expect("a disk").modified());
    let aside = path.with_extension("kept");
    std::fs::rename(path, &aside).expect("a disk");
    std::fs::write(path, content).expect("a disk");
    let times = FileTimes::new().set_modified(then.expect("a time"));
    let file = File::options().write(true).open(path).expect("a disk");
    file.set_times(times).expect("a disk");
    // Not before: the inode would be taken again.
    std::fs::remove_file(aside).expect("a disk");
}

async fn refresh(broker: &Broker, topic: &str) -> Refreshed {
    let topic = broker.topic(topic).await;
    broker.kafka.datasets.refresh(&topic, 7).await.expect("it is listed")
}

pub(super) fn metrics(broker: &Broker) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(broker.kafka.datasets.trouble_metrics()));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).expect("text");
    page
}

/// "Its ETag is another one", of a file with the same bytes, the same size and the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_back_is_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    put_back(&directory.path().join("train-001.tar"));
    let records = read_all(&mut client, "images", 0, 0).await;
    assert_eq!(records.len(), 30);
    put_back(&directory.path().join("train-002.tar"));
    let refreshed = refresh(&broker, "images").await;
    assert_eq!((refreshed.added_objects, refreshed.missing_objects), (0, 0));
    // What was published, with an empty cache.
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    assert_eq!(read_all(&mut client, "images", 0, 0).await, records);
}

/// A refresh said that an object was gone and nothing of what that means, the status not what to do, and metrics nothing at all.
#[tokio::test]
async fn where_a_log_ends_at_an_object_that_is_gone_it_is_told_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 3);
    let (log, _guard) = KeptLog::listen();
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.on.corrupt", "stop")];
    create(&mut client, "images", 1, &configs).await;
    assert!(metrics(&broker).contains("robustmq_cloud_dataset_troubled_partitions 0\n"));
    let gone = directory.path().join("train-001.tar");
    let kept = directory.path().join("kept");
    std::fs::rename(&gone, &kept).expect("a disk");
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), 10);
    let trouble = loop {
        if let Some(trouble) = status(&broker, "images").await.trouble.first() {
            break trouble.clone();
        }
        tokio::task::yield_now().await;
    };
    assert!(
        trouble.starts_with("partition 0 ends at offset 10: train-001.tar is gone"),
        "{trouble}"
    );
    let said = "put it back as it was, leave it out with robustmq.source.on.corrupt=skip, or create another topic";
    assert!(trouble.ends_with(said), "{trouble}");
    assert!(metrics(&broker).contains("robustmq_cloud_dataset_troubled_partitions 1\n"));
    // Topics are known by their names: it was an id.
    let told = log.warnings("a dataset cannot be read on");
    assert!(told.iter().any(|line| line.contains("topic=\"images\" topic_id=")), "{told:?}");
    std::fs::remove_file(directory.path().join("train-000.tar")).expect("a disk");
    let refreshed = refresh(&broker, "images").await;
    assert_eq!(refreshed.missing, ["train-000.tar", "train-001.tar"]);
    assert_eq!(refreshed.uncounted, ["train-001.tar"], "the other one is counted");
    // What it says to do helps.
    std::fs::rename(&kept, &gone).expect("a disk");
    while status(&broker, "images").await.trouble.iter().any(|told| told.contains("ends at")) {
        read_all(&mut client, "images", 0, 20).await;
    }
    assert!(metrics(&broker).contains("robustmq_cloud_dataset_troubled_partitions 0\n"));
}

/// Metrics of samples that are left out, and of records that are lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 2);
    let cut = directory.path().join("train-001.tar");
    cut_off(&cut);
    let memory = Arc::new(MemoryStore::new());
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    let records = read_all(&mut client, "images", 0, 0).await.len();
    let page = metrics(&broker);
    assert!(page.contains("robustmq_cloud_dataset_left_out_places_total 1\n"), "{page}");
    assert!(page.contains("robustmq_cloud_dataset_lost_records_total 0\n"), "{page}");
    std::fs::remove_file(directory.path().join("train-000.tar")).expect("a disk");
    let broker = broker_on(&memory).await;
    let mut client = broker.client().await;
    assert_eq!(read_all(&mut client, "images", 0, 0).await.len(), records);
    let page = metrics(&broker);
    assert!(page.contains("robustmq_cloud_dataset_lost_records_total 10\n"), "{page}");
}

/// Right after a start a topic had no records, no end and no lag, until somebody read it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_the_first_look_at_a_topic_has_what_was_counted_before() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 6);
    let memory = Arc::new(MemoryStore::new());
    let source = format!("file://{}", directory.path().display());
    {
        let broker = broker_on(&memory).await;
        let mut client = broker.client().await;
        create(&mut client, "images", 2, &[("robustmq.source", &source)]).await;
        for partition in 0..2 {
            assert_eq!(read_all(&mut client, "images", partition, 0).await.len(), 30);
        }
    }
    let broker = broker_on(&memory).await;
    let topic = broker.topic("images").await;
    broker.kafka.datasets.settle(&topic).await.expect("a store");
    let log = report::partitions(&broker.kafka.log, &topic).await.expect("there");
    assert_eq!(log.iter().map(|partition| partition.records()).collect::<Vec<_>>(), [30, 30]);
}

/// A limit of 30 MB was met after 85, and one that was met at the end was not told.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_at_its_limit_and_says_where_to_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    shards(directory.path(), 4);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    create(&mut client, "images", 1, &[("robustmq.source", &source)]).await;
    read_all(&mut client, "images", 0, 0).await;
    let mut wanted = Wanted { key: "003-05".to_owned(), limit_bytes: Some(1), ..Wanted::default() };
    for shard in 0..4 {
        let found = broker.find("images", wanted.clone()).await.expect("it is searched");
        assert_eq!(found.searched_objects, u64::from(shard < 3), "one extent each");
        assert_eq!(found.matches.len(), usize::from(shard == 3));
        assert_eq!(found.next.is_some(), shard < 3);
        wanted.after = found.next;
    }
}

/// It went through all objects and found nothing, where the format was not set.
#[tokio::test(flavor = "multi_thread")]
async fn rows_have_no_keys_whoever_says_that_they_are_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    table(&directory.path().join("rows.parquet"), 0..10);
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    create(&mut client, "rows", 1, &[("robustmq.source", &source)]).await;
    let wanted = Wanted { key: "a".to_owned(), ..Wanted::default() };
    let refused = broker.find("rows", wanted).await.expect_err("it has none");
    assert!(matches!(refused, FindError::NoKeys(_)), "{refused}");
}
