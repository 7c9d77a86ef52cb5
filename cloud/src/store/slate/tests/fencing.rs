//! Two brokers over one object store.

use super::{batch, eventually, keys, open};
use crate::objects::faulty::FaultyStore;
use crate::store::{Store, StoreError, write};

fn is_fenced(outcome: Result<(), StoreError>) {
    match outcome {
        Err(StoreError::Poisoned(reason)) => {
            assert!(reason.contains("another broker has opened"), "{reason}");
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn whoever_opens_last_has_the_store_and_the_other_stops_acknowledging() {
    let objects = FaultyStore::new(1);
    let first = open(&objects).await;
    write(&first, batch(&[("a", "first")])).await.expect("written");
    let second = open(&objects).await;
    is_fenced(write(&first, batch(&[("a", "late")])).await);
    is_fenced(first.submit(batch(&[("a", "later")])).map(drop));
    is_fenced(first.ready().await);
    assert!(first.stats().poisoned.is_some());
    assert_eq!(second.get(b"a").await.expect("readable").as_deref(), Some(&b"first"[..]));
    write(&second, batch(&[("b", "second")])).await.expect("written");
    is_fenced(first.close().await);
    assert_eq!(keys(&second).await, ["a", "b"]);
}

#[tokio::test]
async fn a_store_that_writes_nothing_notices_as_well() {
    let objects = FaultyStore::new(1);
    let first = open(&objects).await;
    let second = open(&objects).await;
    eventually(|| first.stats().poisoned.is_some()).await;
    is_fenced(first.ready().await);
    write(&second, batch(&[("a", "1")])).await.expect("written");
}

/// Each write is acknowledged by the one that the store belongs to, or by nobody.
#[tokio::test]
async fn nothing_acknowledged_is_lost_while_the_store_goes_from_one_to_the_other() {
    for seed in 0..8_u64 {
        let objects = FaultyStore::new(seed);
        let mut store = open(&objects).await;
        let mut acknowledged = Vec::new();
        for round in 0..3 {
            let mut pending = Vec::new();
            for n in 0..20 {
                let key = format!("{round} {n:02}");
                pending.push((key.clone(), store.submit(batch(&[(&key, "")])).expect("room")));
            }
            // Somewhere within these writes the next one opens it.
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            let next = open(&objects).await;
            for (key, write) in pending {
                match write.await {
                    Ok(()) => acknowledged.push(key),
                    outcome => is_fenced(outcome),
                }
            }
            store = next;
        }
        let found = keys(&store).await;
        for key in acknowledged {
            assert!(found.contains(&key), "{key}, seed {seed}");
        }
    }
}
