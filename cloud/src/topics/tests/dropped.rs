//! Changes whose caller is gone before they end: its connection broke, or the drain of a shutdown was over.

use std::future::Future;

use super::*;

/// Begins a change, and drops it as soon as it has `writes` writes in the store's queue.
async fn drop_at(store: &MemoryStore, writes: usize, change: impl Future) {
    let mut change = std::pin::pin!(change);
    while store.queued() < writes {
        let begun = futures_util::poll!(&mut change);
        assert!(begun.is_pending(), "it ended before it was dropped");
        tokio::task::yield_now().await;
    }
}

fn world() -> (Arc<MemoryStore>, Arc<Log>, Arc<Catalogue>) {
    let store = Arc::new(MemoryStore::new());
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topics = Arc::new(Catalogue::new(Arc::clone(&log)));
    (store, log, topics)
}

async fn offset_of_append(log: &Log, topic: TopicId, rules: AppendRules) -> Offset {
    let partition = log.partition(topic, PartitionIndex(0)).await.expect("there");
    let context = AppendContext { rules, ..AppendContext::at(0) };
    loop {
        partition.ready().await.expect("the store goes on");
        if let Ok(pending) = partition.append(batch(), &context) {
            return pending.durable().await.expect("acknowledged").base_offset;
        }
    }
}

/// The topic was gone from the store, and stayed in the cache: clients went on producing to it.
#[tokio::test]
async fn a_deletion_whose_client_is_gone_reaches_the_cache() {
    let (store, log, topics) = world();
    let topic = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    let version = topics.version();
    store.hold();
    drop_at(&store, 1, topics.delete(&[name("a")])).await;
    store.release();
    log.stop().await.expect("written");
    assert_eq!(topics.get(&name("a")).await, Ok(None));
    assert!(topics.version() > version);
    let closed = log.partition(topic.id, PartitionIndex(0)).await;
    assert!(matches!(closed, Err(LogError::Dropped(_))));
}

/// The store had the mode that reserves no offsets, and the partition the one that does: after a crash the offsets that it had
/// acknowledged meanwhile were given again.
#[tokio::test]
async fn a_change_of_mode_whose_client_is_gone_gives_no_offset_twice() {
    let (store, log, topics) = world();
    let mut new = new_topic("a", 1);
    new.overrides = entries(&[("robustmq.storage.mode", "hybrid")]);
    let topic = topics.create(vec![new], false, 0).await.remove(0).expect("created");
    let rules = topic.config.append_rules();
    assert_eq!(offset_of_append(&log, topic.id, rules).await, Offset(0));
    let mode = "robustmq.storage.mode".to_owned();
    let change = [ConfigChange { name: mode, op: ConfigOp::Set("persistent".to_owned()) }];
    store.hold();
    drop_at(&store, 1, topics.alter_config(&name("a"), &change, false)).await;
    store.release();
    assert_eq!(offset_of_append(&log, topic.id, rules).await, Offset(1));
    let log = Log::new(Arc::new(store.crash(0)));
    let after = offset_of_append(&log, topic.id, rules).await;
    assert!(after > Offset(1), "offset {after} was given before the crash");
}

/// The start of the log was moved in memory, and nobody was left to move it back when the write failed.
#[tokio::test]
async fn a_deletion_of_records_whose_client_is_gone_ends_as_its_write_does() {
    let (store, log, topics) = world();
    let topic = topics.create(vec![new_topic("a", 1)], false, 0).await.remove(0).expect("created");
    let rules = topic.config.append_rules();
    offset_of_append(&log, topic.id, rules).await;
    let partition = log.partition(topic.id, PartitionIndex(0)).await.expect("there");
    for (failure, start) in [(Some(StoreError::NoSpace("no room".to_owned())), 0), (None, 1)] {
        store.hold();
        drop_at(&store, 1, partition.delete_records(None)).await;
        failure.into_iter().for_each(|failure| store.fail_next(failure));
        store.release();
        // The next one waits for it.
        partition.delete_records(Some(Offset(0))).await.expect("nothing to do");
        assert_eq!(partition.offsets().log_start_offset, Offset(start));
    }
}
