//! Values that were moved to kept segments: they stay, survive, and are given back in their turn.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use robustmq_common::disk::Disk as _;
use robustmq_common::disk::sim::Faults;

use super::{Machine, content, delete_range, put};
use crate::store::{SegmentStore, Store, StoreError, write};

/// Writes 200 values; every tenth is `keepNNNN`, the others are `dropNNNN` and deleted.
async fn churn(store: &SegmentStore) {
    for n in 0..200_u32 {
        let family = if n % 10 == 0 { "keep" } else { "drop" };
        let value = vec![n.to_be_bytes()[3]; 400];
        write(store, put(format!("{family}{n:04}"), value)).await.expect("written");
    }
    write(store, delete_range("drop", "drop~")).await.expect("written");
}

fn kept(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    let bytes = |path: PathBuf| {
        let mut copy = Vec::new();
        machine.disk.corrupt(&path, |bytes| copy.clone_from(bytes));
        (path, copy)
    };
    machine.files("kept").into_iter().map(bytes).collect()
}

/// What was kept for ever shared its segments with what was not, and was moved each time that space was given back.
#[tokio::test]
async fn what_was_moved_stays_where_it_is_while_other_values_come_and_go() {
    let machine = Machine::new(2);
    let store = machine.open();
    churn(&store).await;
    store.collect_now().await;
    let moved = kept(&machine);
    assert!(moved.len() > 1, "{:?}", moved.keys());
    for _ in 0..5 {
        for n in 0..50_u32 {
            write(&store, put(format!("drop{n:04}"), vec![1; 400])).await.expect("written");
        }
        write(&store, delete_range("drop", "drop~")).await.expect("written");
        store.collect_now().await;
    }
    // What the log's end had kept from being moved at first may follow.
    let now = kept(&machine);
    let stayed = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        now.get(path).is_some_and(|now| now.starts_with(bytes))
    };
    assert!(moved.iter().all(stayed), "{:?} became {:?}", moved.keys(), now.keys());
    assert!(machine.segments().len() <= 2, "{:?}", machine.segments());
}

#[tokio::test]
async fn a_kept_segment_is_given_back_when_what_it_holds_is_deleted() {
    let machine = Machine::new(2);
    let store = machine.open();
    churn(&store).await;
    store.collect_now().await;
    let before: usize = kept(&machine).values().map(Vec::len).sum();
    write(&store, delete_range("keep0020", "keep0180")).await.expect("written");
    store.collect_now().await;
    let after: usize = kept(&machine).values().map(Vec::len).sum();
    assert!(after < before * 2 / 3, "{before} bytes became {after}");
    let left = content(&store).await;
    machine.crash(store);
    let store = machine.open();
    assert_eq!(content(&store).await, left);
    assert_eq!(left.len(), 4);
}

/// The machine stops at each call of a move. A kept segment may end in what nobody was told of: it can be emptied all the same.
#[tokio::test]
async fn a_move_that_was_cut_short_loses_nothing_and_its_space_comes_back() {
    let mut torn = 0;
    for calls in 0..60 {
        let machine = Machine::new(u64::from(calls) * 2);
        let store = machine.open();
        churn(&store).await;
        let expected = content(&store).await;
        machine.disk.set_faults(Faults { stop_after: Some(calls), ..Faults::default() });
        store.collect_now().await;
        machine.crash(store);
        let store = machine.open();
        torn += usize::from(!kept(&machine).is_empty());
        assert_eq!(content(&store).await, expected, "stopped after {calls} calls");
        // Fewer live in each, so that all are emptied.
        let few = [Bytes::from("keep0000"), Bytes::from("keep0100")];
        for key in expected.keys().filter(|key| !few.contains(*key)) {
            let mut batch = crate::store::WriteBatch::new();
            batch.delete(key.clone());
            write(&store, batch).await.expect("written");
        }
        // The first seals nothing; what it moves is in segments that the second may look at.
        store.collect_now().await;
        store.collect_now().await;
        assert_eq!(content(&store).await.len(), few.len());
        let held = kept(&machine).values().map(Vec::len).sum::<usize>();
        // Twice 4096 bytes and more if nothing came back; the last segment may have dead bytes.
        assert!(held < 5000, "stopped after {calls} calls: {held} bytes");
    }
    assert!(torn > 10, "{torn}");
}

#[tokio::test]
async fn a_damaged_kept_segment_is_left_where_it_is() {
    let machine = Machine::new(2);
    let store = machine.open();
    churn(&store).await;
    store.collect_now().await;
    let first = machine.files("kept").into_iter().next().expect("a kept segment");
    // Heads, keys and values alike.
    machine.disk.corrupt(&first, |bytes| {
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
    });
    write(&store, delete_range("keep0010", "keep0060")).await.expect("written");
    store.collect_now().await;
    assert!(machine.files("kept").contains(&first));
    let found = store.get(b"keep0000").await.expect("readable");
    assert_eq!(found, Some(Bytes::from(vec![0; 400])));
}

#[tokio::test]
async fn kept_values_without_their_index_are_not_taken_for_nothing() {
    let machine = Machine::new(2);
    let machine = Machine { index: super::MemoryIndex::forgetful(), ..machine };
    let store = machine.open();
    churn(&store).await;
    store.collect_now().await;
    machine.crash(store);
    for segment in machine.segments() {
        machine.disk.remove(&segment).expect("it is there");
    }
    let Err(StoreError::Open { reason, .. }) = machine.try_open() else { panic!("it opened") };
    assert!(reason.contains("kept"), "{reason}");
}
