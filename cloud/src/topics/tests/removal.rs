//! Many topics at once, and the removal of what deleted ones held.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::TopicId;
use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::keys::partition::topic_range;
use crate::store::{Era, PendingWrite, ScanPage, StoreStats, WriteBatch, WriteOp};

/// Counts what is asked of a store in memory.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    calls: std::sync::Mutex<Calls>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    reads: usize,
    writes: usize,
    ranges: usize,
    largest_bytes: usize,
}

impl Counting {
    fn count(&self, count: impl FnOnce(&mut Calls)) {
        count(&mut self.calls.lock().expect("no panic"));
    }

    fn take(&self) -> Calls {
        std::mem::take(&mut self.calls.lock().expect("no panic"))
    }
}

#[async_trait]
impl Store for Counting {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.count(|calls| calls.reads += 1);
        self.store.get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.count(|calls| calls.reads += 1);
        self.store.get_many(keys).await
    }

    async fn scan(&self, range: Range<Bytes>, limit: ScanLimit) -> Result<ScanPage, StoreError> {
        self.count(|calls| calls.reads += 1);
        self.store.scan(range, limit).await
    }

    fn submit(&self, batch: WriteBatch) -> Result<PendingWrite, StoreError> {
        let is_range =
            |op: &&WriteOp| matches!(op, WriteOp::DeleteRange(range) if range.start < range.end);
        let ranges = batch.ops().iter().filter(is_range).count();
        self.count(|calls| {
            calls.writes += 1;
            calls.ranges += ranges;
            calls.largest_bytes = calls.largest_bytes.max(batch.bytes());
        });
        self.store.submit(batch)
    }

    fn era(&self) -> Era {
        self.store.era()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.store.ready().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }
}

fn many(count: usize) -> Vec<NewTopic> {
    (0..count).map(|number| new_topic(&format!("t-{number:05}"), 1)).collect()
}

async fn write_to(log: &Log, topic: TopicId, batches: usize) {
    let partition = log.partition(topic, PartitionIndex(0)).await.expect("loaded");
    for _ in 0..batches {
        let append = partition.append(batch(), &AppendContext::at(0)).expect("taken");
        append.durable().await.expect("durable");
    }
}

async fn left(store: &dyn Store, family: Family) -> Vec<Bytes> {
    let mut range = family.range();
    let mut keys = Vec::new();
    loop {
        let page = store.scan(range.clone(), ScanLimit::items(1000)).await.expect("readable");
        keys.extend(page.items.into_iter().map(|(key, _)| key));
        match page.resume {
            Some(resume) => range.start = resume,
            None => return keys,
        }
    }
}

#[tokio::test]
async fn twenty_thousand_topics_cost_one_write_and_few_reads() {
    let store = Arc::new(Counting::default());
    let topics = Arc::new(Catalogue::new(Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>))));
    let count = 20_000;
    let created = topics.create(many(count), false, 0).await;
    assert!(created.iter().all(Result::is_ok));
    let calls = store.take();
    assert_eq!(calls.writes, 1);
    assert!(calls.reads <= 1 + count / limits::STORE_SCAN_ITEMS, "{calls:?}");

    let again = topics.create(many(count), false, 0).await;
    assert!(again.iter().all(|answer| matches!(answer, Err(TopicError::Exists(_)))));
    assert_eq!(store.take().writes, 0);

    let names: Vec<_> = many(count).into_iter().map(|new| new.name).collect();
    let deleted = topics.delete(&names).await;
    assert!(deleted.iter().all(Result::is_ok));
    let calls = store.take();
    assert_eq!((calls.writes, calls.ranges), (1, 0));
    assert!(calls.reads <= 1 + count / limits::STORE_SCAN_ITEMS, "{calls:?}");

    assert_eq!(topics.removal().finish().await, Ok(count));
    let calls = store.take();
    assert_eq!(calls.ranges, 0, "nothing was ever written to them");
    assert!(calls.largest_bytes <= limits::STORE_FREEING_WRITE_BYTES, "{calls:?}");
    assert!(calls.reads <= 4 * (1 + count / limits::REMOVED_TOPICS), "{calls:?}");
    for family in [Family::TopicName, Family::TopicId, Family::TopicDeletion, Family::Partition] {
        assert!(left(&*store, family).await.is_empty(), "{family:?}");
    }
}

#[tokio::test]
async fn removal_takes_exactly_what_deleted_topics_held() {
    let store = Arc::new(Counting::default());
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    let created: Vec<_> =
        topics.create(many(60), false, 0).await.into_iter().map(|t| t.expect("created")).collect();
    // Of each three one is never written, one has few keys, one has many; every second one of all is deleted.
    for (number, topic) in created.iter().enumerate() {
        write_to(&log, topic.id, [0, 3, limits::REMOVED_SINGLE_KEYS + 1][number % 3]).await;
    }
    let doomed: Vec<_> = created.iter().step_by(2).map(|topic| topic.name.clone()).collect();
    let stay: BTreeSet<_> = created.iter().skip(1).step_by(2).map(|topic| topic.id).collect();
    let before = left(&*store, Family::Partition).await;
    topics.delete(&doomed).await;
    store.take();
    assert_eq!(topics.removal().finish().await, Ok(30));
    assert_eq!(store.take().ranges, 10);
    let kept = |key: &Bytes| stay.iter().any(|id| topic_range(*id).contains(key));
    let expected: Vec<_> = before.into_iter().filter(kept).collect();
    assert_eq!(left(&*store, Family::Partition).await, expected);
}

#[tokio::test]
async fn an_append_that_was_on_its_way_when_its_topic_was_deleted_leaves_nothing() {
    let store = Arc::new(MemoryStore::new());
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    let topic = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    let partition = log.partition(topic.id, PartitionIndex(0)).await.expect("loaded");
    topics.delete(&[name("a")]).await.remove(0).expect("deleted");
    // As if the append had come a moment before: submitted, and not applied when the removal begins.
    store.hold();
    let mut late = WriteBatch::new();
    late.put(partition.keys().end(), Bytes::from_static(b"late"));
    let late = store.submit(late).expect("there is room");
    let removal = tokio::spawn(async move { topics.removal().finish().await });
    while store.queued() < 2 {
        tokio::task::yield_now().await;
    }
    store.release();
    late.await.expect("written");
    assert_eq!(removal.await.expect("no panic"), Ok(1));
    assert!(left(&*store, Family::Partition).await.is_empty());
}

#[tokio::test]
async fn a_removal_that_crashes_at_any_write_goes_on_after_the_start() {
    let count = 3 * limits::REMOVED_TOPICS;
    for crash_after in 0..5 {
        let store = Arc::new(MemoryStore::new());
        let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
        let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
        let created = topics.create(many(count), false, 0).await;
        for topic in created.iter().flatten().step_by(100) {
            write_to(&log, topic.id, 2).await;
        }
        let names: Vec<_> = many(count).into_iter().map(|new| new.name).collect();
        topics.delete(&names).await;
        // The name is free at once; its new topic is not touched by what follows.
        let again = topics.create(many(1), false, 0).await.remove(0).expect("the name is free");
        write_to(&log, again.id, 1).await;

        store.hold();
        let removal = Arc::clone(&topics);
        let removal = tokio::spawn(async move { removal.removal().finish().await });
        for _ in 0..crash_after {
            while store.queued() == 0 {
                tokio::task::yield_now().await;
            }
            store.apply_held(1);
        }
        while store.queued() == 0 {
            tokio::task::yield_now().await;
        }
        let store = Arc::new(store.crash(0));
        assert!(removal.await.expect("no panic").is_err());

        let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
        let topics = Arc::new(Catalogue::new(log));
        let (running, shutdown) = (Arc::clone(&topics), CancellationToken::new());
        let stop = shutdown.clone();
        let running = tokio::spawn(async move { running.removal().run(stop).await });
        let emptied = async {
            while !left(&*store, Family::TopicDeletion).await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), emptied).await.expect("it goes on");
        shutdown.cancel();
        running.await.expect("no panic");
        let kept = left(&*store, Family::Partition).await;
        assert!(!kept.is_empty());
        assert!(kept.iter().all(|key| topic_range(again.id).contains(key)), "{crash_after}");
        assert_eq!(topics.get(&again.name).await, Ok(Some(again)));
    }
}
