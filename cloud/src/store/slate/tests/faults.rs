//! The object store is down, slow, lossy; the process is killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{SlateSettings, SlateStore};
use super::{batch, eventually, keys, open, open_with, settings};
use crate::objects::faulty::FaultyStore;
use crate::store::{Era, Store, StoreError, WriteBatch, write};

/// Small enough that tables are written, merged and read back.
fn small_tables() -> SlateSettings {
    SlateSettings {
        table_bytes: 16 * 1024,
        unflushed_bytes: 64 * 1024,
        cache_bytes: 4 * 1024,
        ..settings()
    }
}

fn numbered(n: u32) -> WriteBatch {
    batch(&[(&format!("key {n:06}"), &format!("{n}"))])
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    for seed in 0..4 {
        let objects = FaultyStore::new(seed);
        objects.fail_of_thousand(50);
        let mut answered = Vec::new();
        for round in 0..4_u32 {
            let store = open_with(&objects, &small_tables()).await;
            let mut pending = Vec::new();
            for n in 0..100 {
                let n = round * 100 + n;
                pending.push((n, store.submit(numbered(n)).expect("there is room")));
            }
            // The last ones are on their way when it ends.
            for (n, write) in pending.drain(..60) {
                write.await.expect("lossy, and it arrives");
                answered.push(n);
            }
            drop(store);
        }
        let store = open(&objects).await;
        for n in answered {
            let value = store.get(format!("key {n:06}").as_bytes()).await.expect("readable");
            assert_eq!(value.as_deref(), Some(n.to_string().as_bytes()), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_writes_then_refuses_them_and_recovers() {
    let objects = FaultyStore::new(1);
    let stall = Duration::from_millis(300);
    let store = open_with(&objects, &SlateSettings { stall, ..settings() }).await;
    write(&store, numbered(0)).await.expect("written");
    objects.set_down(true);
    let on_its_way = store.submit(numbered(1)).expect("nobody knows yet");
    eventually(|| store.stats().unavailable.is_some()).await;
    let behind = store.submit(numbered(2));
    let Err(StoreError::Unavailable(reason)) = behind else { panic!("{behind:?}") };
    assert!(reason.contains("503 Slow Down"), "{reason}");
    assert!(matches!(store.ready().await, Err(StoreError::Unavailable(_))));
    assert_eq!(keys(&store).await, ["key 000000"], "what is not durable is not read");
    assert_eq!(store.era(), Era(0), "nothing failed");

    objects.set_down(false);
    on_its_way.await.expect("it was never given up");
    assert_eq!(store.stats().unavailable, None);
    write(&store, numbered(2)).await.expect("written");
    assert_eq!(keys(&store).await, ["key 000000", "key 000001", "key 000002"]);
    assert_eq!(store.stats().failed_writes, 0);
}

#[tokio::test]
async fn memory_is_bounded_while_the_object_store_is_down() {
    let objects = FaultyStore::new(1);
    let store = open_with(&objects, &settings()).await;
    objects.set_down(true);
    let value = vec![7; 4 * 1024 * 1024];
    let mut pending = Vec::new();
    let refused = loop {
        let mut batch = WriteBatch::new();
        batch.put(format!("{}", pending.len()), value.clone());
        match store.submit(batch) {
            Ok(write) => pending.push(write),
            Err(error) => break error,
        }
        assert!(pending.len() < 64);
    };
    assert!(matches!(refused, StoreError::Busy { .. }), "{refused}");
    objects.set_down(false);
    for write in pending {
        write.await.expect("written in the end");
    }
}

/// Tables are on the object store, and next to nothing of them in memory.
async fn filled() -> Arc<FaultyStore> {
    let objects = FaultyStore::new(1);
    let store = open_with(&objects, &small_tables()).await;
    for n in 0..100 {
        let value = "x".repeat(1000);
        write(&store, batch(&[(&format!("key {n:06}"), &value)])).await.expect("written");
    }
    store.close().await.expect("closed");
    objects
}

#[tokio::test]
async fn reads_from_a_store_that_does_not_answer_end() {
    let objects = filled().await;
    let read = Duration::from_millis(300);
    let store = open_with(&objects, &SlateSettings { read, ..small_tables() }).await;
    objects.set_down(true);
    let found = store.get(b"key 000020").await;
    let Err(StoreError::Read(reason)) = found else { panic!("{found:?}") };
    assert!(reason.contains("did not answer"), "{reason}");
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_asked_for_again() {
    let objects = filled().await;
    let store = open_with(&objects, &small_tables()).await;
    objects.truncate_reads(3);
    let found = store.get(b"key 000020").await.expect("readable");
    assert_eq!(found.map(|value| value.len()), Some(1000));
    assert_eq!(objects.left_to_truncate(), 0);
}

#[tokio::test]
async fn a_group_is_one_put_and_an_idle_store_makes_none() {
    let objects = FaultyStore::new(1);
    let store = open_with(&objects, &settings()).await;
    objects.set_delay(Duration::from_millis(100));
    let first = store.submit(numbered(0)).expect("there is room");
    // SlateDB's own bookkeeping goes on meanwhile, so the groups are counted, and the puts are bounded by them.
    let rest: Vec<_> =
        (1..100).map(|n| store.submit(numbered(n)).expect("there is room")).collect();
    let before = objects.puts.load(Ordering::Relaxed);
    first.await.expect("written");
    for write in rest {
        write.await.expect("written");
    }
    let groups = store.stats().groups;
    assert!(groups <= 3, "{groups} groups for 100 writes");
    let puts = objects.puts.load(Ordering::Relaxed) - before;
    assert!(puts <= 3, "{puts} puts for {groups} groups");
}

#[tokio::test]
async fn a_store_that_is_not_there_cannot_be_opened_and_says_why() {
    let objects = FaultyStore::new(1);
    objects.set_down(true);
    let opened = SlateStore::open(objects.clone(), "store", "s3://bucket", &settings()).await;
    let Err(StoreError::Open { path, reason }) = opened.map(drop) else { panic!("it is down") };
    assert_eq!(path, "s3://bucket");
    assert!(reason.contains("503 Slow Down"), "{reason}");
}

#[tokio::test]
async fn closing_a_store_whose_writes_are_through_is_clean_and_opens_again() {
    let objects: Arc<FaultyStore> = FaultyStore::new(1);
    for n in 0..3 {
        let store = open(&objects).await;
        let pending = store.submit(numbered(n)).expect("there is room");
        store.close().await.expect("closed");
        pending.await.expect("answered before");
    }
    assert_eq!(keys(&open(&objects).await).await.len(), 3);
}
