//! The memory engine: the contract, and what it can be told to do.

use super::super::contract::contract;
use super::super::{Era, Store, StoreError, WriteBatch, write};
use super::MemoryStore;

contract!(|| ((), MemoryStore::new()));

fn put(key: &'static str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, "value");
    batch
}

#[tokio::test]
async fn a_held_write_is_not_readable_before_it_is_applied() {
    let store = MemoryStore::new();
    store.hold();
    let pending = store.submit(put("a")).expect("there is room");
    assert_eq!(store.get(b"a").await, Ok(None));
    assert_eq!(store.queued(), 1);
    store.apply_held(1);
    assert_eq!(pending.await, Ok(()));
    assert!(store.get(b"a").await.expect("readable").is_some());
}

#[tokio::test]
async fn a_failed_write_takes_with_it_what_waits_behind_it() {
    let store = MemoryStore::new();
    write(&store, put("before")).await.expect("written");
    store.hold();
    let (first, second) = (store.submit(put("a")), store.submit(put("b")));
    let full = StoreError::NoSpace("no room".to_owned());
    store.fail_next(full.clone());
    store.release();
    assert_eq!(first.expect("there is room").await, Err(full.clone()));
    assert_eq!(second.expect("there is room").await, Err(full));
    assert_eq!(store.era(), Era(1));
    let stale = store.submit(put("c").in_era(Era(0)));
    assert_eq!(stale.err(), Some(StoreError::StaleEra));
    write(&store, put("after").in_era(Era(1))).await.expect("there is room again");
    for (key, there) in [("before", true), ("a", false), ("b", false), ("after", true)] {
        assert_eq!(store.get(key.as_bytes()).await.expect("readable").is_some(), there, "{key}");
    }
}

/// Each refused write of a full disk used to be queued, to fail and to start a new era, so that producers of many partitions kept
/// each other from ever hearing why: their partitions read their state again and again.
#[tokio::test]
async fn a_full_disk_refuses_without_a_new_era_and_takes_writes_when_there_is_room() {
    let store = MemoryStore::new();
    write(&store, put("before")).await.expect("written");
    store.set_full(true);
    for _ in 0..3 {
        let refused = write(&store, put("a")).await;
        assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
        assert_eq!(store.era(), Era(1), "only what was on its way when the disk filled up");
        assert!(store.stats().no_space.is_some());
    }
    assert!(store.get(b"before").await.expect("readable").is_some());
    store.set_full(false);
    write(&store, WriteBatch::new()).await.expect("an empty write shows that there is room");
    assert_eq!(store.stats().no_space, None);
    write(&store, put("a").in_era(Era(1))).await.expect("there is room again");
}

#[tokio::test]
async fn a_poisoned_store_takes_no_more_writes_and_can_be_read() {
    let store = MemoryStore::new();
    write(&store, put("before")).await.expect("written");
    let poisoned = StoreError::Poisoned("sync failed".to_owned());
    store.fail_next(poisoned.clone());
    assert_eq!(write(&store, put("a")).await, Err(poisoned.clone()));
    assert_eq!(write(&store, put("b")).await, Err(poisoned.clone()));
    assert_eq!(store.ready().await, Err(poisoned));
    assert!(store.get(b"before").await.expect("readable").is_some());
}

#[tokio::test]
async fn a_crash_keeps_what_was_durable_and_a_prefix_of_the_rest() {
    for survivors in 0..=3 {
        let store = MemoryStore::new();
        write(&store, put("durable")).await.expect("written");
        store.hold();
        let waiting: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|key| store.submit(put(key)).expect("there is room"))
            .collect();
        let after = store.crash(survivors);
        for write in waiting {
            assert_eq!(write.await, Err(StoreError::Closed));
        }
        assert!(after.get(b"durable").await.expect("readable").is_some());
        for (index, key) in ["a", "b", "c"].into_iter().enumerate() {
            let there = after.get(key.as_bytes()).await.expect("readable").is_some();
            assert_eq!(there, index < survivors, "{key} of {survivors}");
        }
    }
}
