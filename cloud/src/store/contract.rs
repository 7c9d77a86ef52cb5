//! What every engine has to do, as one suite. [`contract!`] makes a test of each point for an engine.
//!
//! What only a test engine can be told to do (to hold writes back, to fail, to crash) is tested with the engine.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use robustmq_common::limits;

use super::{ScanLimit, Store, StoreError, WriteBatch, write};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn range(from: &str, to: &str) -> Range<Bytes> {
    bytes(from)..bytes(to)
}

async fn fill(store: &dyn Store, keys: &[&str]) {
    let mut batch = WriteBatch::new();
    for key in keys {
        batch.put(bytes(key), format!("value of {key}"));
    }
    write(store, batch).await.expect("written");
}

async fn keys(store: &dyn Store, range: Range<Bytes>) -> Vec<String> {
    let page = store.scan(range, ScanLimit::items(usize::MAX)).await.expect("readable");
    let text = |key: &Bytes| String::from_utf8(key.to_vec()).expect("text");
    page.items.iter().map(|(key, _)| text(key)).collect()
}

pub(super) async fn what_is_written_is_read(store: &dyn Store) {
    assert_eq!(store.get(b"a").await, Ok(None));
    fill(store, &["a", "b"]).await;
    assert_eq!(store.get(b"a").await, Ok(Some(bytes("value of a"))));
    let mut batch = WriteBatch::new();
    batch.put("a", "new").delete("b").delete("never there").put("empty", "");
    write(store, batch).await.expect("written");
    assert_eq!(store.get(b"a").await, Ok(Some(bytes("new"))));
    assert_eq!(store.get(b"b").await, Ok(None));
    assert_eq!(store.get(b"empty").await, Ok(Some(Bytes::new())));
}

pub(super) async fn many_keys_are_read_in_the_order_asked_for(store: &dyn Store) {
    fill(store, &["a", "b", "c"]).await;
    let found = store.get_many(&[bytes("c"), bytes("x"), bytes("a"), bytes("c")]).await;
    let value = |key: &str| Some(bytes(&format!("value of {key}")));
    assert_eq!(found, Ok(vec![value("c"), None, value("a"), value("c")]));
    assert_eq!(store.get_many(&[]).await, Ok(vec![]));
    assert_eq!(store.get_many(&[bytes("b")]).await, Ok(vec![value("b")]));
}

pub(super) async fn large_values_come_back_whole(store: &dyn Store) {
    let value: Bytes = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut batch = WriteBatch::new();
    batch.put("large", value.clone()).put("small", "s");
    write(store, batch).await.expect("written");
    assert_eq!(store.get(b"large").await, Ok(Some(value.clone())));
    let page = store.scan(range("l", "m"), ScanLimit::bytes(1)).await.expect("readable");
    assert_eq!(page.items, [(bytes("large"), value)]);
}

pub(super) async fn a_batchs_changes_apply_in_their_order(store: &dyn Store) {
    fill(store, &["a", "b", "c"]).await;
    let mut batch = WriteBatch::new();
    batch.delete_range(range("a", "c")).put("b", "after").put("x", "gone").delete("x");
    write(store, batch).await.expect("written");
    assert_eq!(keys(store, range("a", "z")).await, ["b", "c"]);
    assert_eq!(store.get(b"b").await, Ok(Some(bytes("after"))));
}

pub(super) async fn a_range_deletion_takes_its_start_and_leaves_its_end(store: &dyn Store) {
    fill(store, &["a", "b", "bb", "c", "d"]).await;
    let mut batch = WriteBatch::new();
    batch.delete_range(range("b", "c"));
    write(store, batch).await.expect("written");
    assert_eq!(keys(store, range("a", "z")).await, ["a", "c", "d"]);
    let mut batch = WriteBatch::new();
    batch.delete_range(range("d", "a")).delete_range(range("c", "c"));
    write(store, batch).await.expect("an empty range deletes nothing");
    assert_eq!(keys(store, range("a", "z")).await, ["a", "c", "d"]);
    assert_eq!(store.get(b"bb").await, Ok(None));
}

pub(super) async fn a_scan_is_ordered_and_goes_on_where_it_stopped(store: &dyn Store) {
    fill(store, &["k3", "k1", "k5", "k2", "k4", "l", "j"]).await;
    let all = ["k1", "k2", "k3", "k4", "k5"];
    assert_eq!(keys(store, range("k", "l")).await, all);
    for items in 1..=6 {
        let mut seen = Vec::new();
        let mut rest = range("k", "l");
        loop {
            let page = store.scan(rest.clone(), ScanLimit::items(items)).await.expect("readable");
            assert!(page.items.len() <= items);
            seen.extend(page.items.into_iter().map(|(key, _)| key));
            let Some(resume) = page.resume else { break };
            rest.start = resume;
        }
        assert_eq!(seen, all);
    }
}

pub(super) async fn a_scan_returns_one_item_whatever_its_size(store: &dyn Store) {
    let mut batch = WriteBatch::new();
    for n in 0..4 {
        batch.put(format!("k{n}"), vec![0; 100]);
    }
    write(store, batch).await.expect("written");
    let check = |limit: usize, expected: usize| async move {
        let page = store.scan(range("k", "l"), ScanLimit::bytes(limit)).await.expect("readable");
        assert_eq!((page.items.len(), page.resume.is_some()), (expected, expected < 4), "{limit}");
    };
    check(0, 1).await;
    check(101, 1).await;
    check(204, 2).await;
    check(10_000, 4).await;
    for empty in [range("x", "y"), range("l", "k"), range("k", "k")] {
        let page = store.scan(empty, ScanLimit::items(9)).await.expect("readable");
        assert_eq!((page.items, page.resume), (Vec::new(), None));
    }
}

pub(super) async fn writes_apply_and_answer_in_the_order_of_submission(store: &dyn Store) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut pending = Vec::new();
    for n in 0..200_u32 {
        let order = Arc::clone(&order);
        let mut batch = WriteBatch::new();
        batch.put("last", n.to_be_bytes().to_vec());
        let batch = batch.on_complete(move |outcome| {
            order.lock().expect("no panic").push((n, outcome.clone()));
        });
        pending.push(store.submit(batch).expect("there is room"));
    }
    for write in pending {
        write.await.expect("written");
    }
    let expected: Vec<_> = (0..200).map(|n| (n, Ok(()))).collect();
    assert_eq!(*order.lock().expect("no panic"), expected);
    assert_eq!(store.get(b"last").await, Ok(Some(Bytes::copy_from_slice(&199_u32.to_be_bytes()))));
}

pub(super) async fn a_dropped_answer_does_not_take_the_write_back(store: &dyn Store) {
    let mut batch = WriteBatch::new();
    batch.put("a", "1");
    drop(store.submit(batch).expect("there is room"));
    fill(store, &["b"]).await;
    assert_eq!(keys(store, range("a", "z")).await, ["a", "b"]);
}

pub(super) async fn a_write_from_another_era_is_refused(store: &dyn Store) {
    let now = store.era();
    let mut batch = WriteBatch::new();
    batch.put("a", "1");
    store.submit(batch.in_era(now)).expect("the era is now").await.expect("written");
    let mut batch = WriteBatch::new();
    batch.put("a", "2");
    let refused = store.submit(batch.in_era(super::Era(now.0 + 1)));
    assert_eq!(refused.err(), Some(StoreError::StaleEra));
    assert_eq!(store.get(b"a").await, Ok(Some(bytes("1"))));
}

pub(super) async fn a_closed_store_refuses_and_has_answered_before(store: &dyn Store) {
    let mut batch = WriteBatch::new();
    batch.put("a", "1");
    let pending = store.submit(batch).expect("there is room");
    store.close().await.expect("closed");
    assert_eq!(pending.await, Ok(()));
    assert_eq!(store.submit(WriteBatch::new()).err(), Some(StoreError::Closed));
    assert_eq!(store.ready().await, Err(StoreError::Closed));
    assert_eq!(store.get(b"a").await, Err(StoreError::Closed));
    let scan = store.scan(range("a", "b"), ScanLimit::items(1)).await;
    assert_eq!(scan, Err(StoreError::Closed));
}

pub(super) async fn the_queue_is_bounded_and_drains(store: &dyn Store) {
    let value = Bytes::from(vec![7; 4 * 1024 * 1024]);
    let mut pending = Vec::new();
    let mut refused = 0;
    for n in 0..64_u32 {
        let mut batch = WriteBatch::new();
        batch.put(format!("{n}"), value.clone());
        match store.submit(batch) {
            Ok(write) => pending.push(write),
            Err(StoreError::Busy { queued_bytes }) => {
                assert!(queued_bytes > limits::STORE_QUEUE_BYTES);
                refused += 1;
                store.ready().await.expect("it drains");
            }
            Err(error) => panic!("{error}"),
        }
        let most = limits::STORE_QUEUE_BYTES + value.len() + 16;
        assert!(store.stats().queued_bytes <= most);
    }
    let submitted = pending.len();
    for write in pending {
        write.await.expect("written");
    }
    let stats = store.stats();
    assert_eq!((stats.queued_bytes, submitted + refused), (0, 64));
    assert_eq!(stats.writes, submitted as u64);
    assert!(stats.groups <= stats.writes);
}

/// Runs the suite for an engine: `open` gives a guard (a directory, say) and a fresh, empty store; `awaits open` gives a future of them.
macro_rules! contract {
    (awaits $open:expr) => {
        $crate::store::contract::contract!([.await] $open);
    };
    ([$($wait:tt)*] $open:expr) => {
        $crate::store::contract::contract!([$($wait)*] $open;
            what_is_written_is_read,
            many_keys_are_read_in_the_order_asked_for,
            large_values_come_back_whole,
            a_batchs_changes_apply_in_their_order,
            a_range_deletion_takes_its_start_and_leaves_its_end,
            a_scan_is_ordered_and_goes_on_where_it_stopped,
            a_scan_returns_one_item_whatever_its_size,
            writes_apply_and_answer_in_the_order_of_submission,
            a_dropped_answer_does_not_take_the_write_back,
            a_write_from_another_era_is_refused,
            a_closed_store_refuses_and_has_answered_before,
            the_queue_is_bounded_and_drains,
        );
    };
    ([$($wait:tt)*] $open:expr; $point:ident $(, $more:ident)* $(,)?) => {
        #[tokio::test]
        async fn $point() {
            let (_guard, store) = ($open)()$($wait)*;
            $crate::store::contract::$point(&store).await;
        }
        $crate::store::contract::contract!([$($wait)*] $open; $($more),*);
    };
    ([$($wait:tt)*] $open:expr;) => {};
    ($open:expr) => {
        $crate::store::contract::contract!([] $open);
    };
}
pub(super) use contract;
