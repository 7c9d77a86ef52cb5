//! Values that were moved to kept segments: they stay, survive, and are given back in their turn.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use robustmq_common::disk::Disk as _;
use robustmq_common::disk::sim::Faults;

use super::{Machine, content, delete_range, put};
use crate::store::segments::SegmentSettings;
use crate::store::{SegmentStore, Store, StoreError, WriteBatch, write};

/// Writes 200 values; every tenth is `keepNNNN`, the others are `dropNNNN`.
async fn fill(store: &SegmentStore) {
    for n in 0..200_u32 {
        let family = if n % 10 == 0 { "keep" } else { "drop" };
        let value = vec![n.to_be_bytes()[3]; 400];
        write(store, put(format!("{family}{n:04}"), value)).await.expect("written");
    }
}

/// The same, and those that are to go are deleted.
async fn churn(store: &SegmentStore) {
    fill(store).await;
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

/// One read that failed, as when a process has no more file handles, kept a segment from being emptied until the next start.
#[tokio::test]
async fn a_segment_that_could_not_be_read_once_is_emptied_the_next_time() {
    let machine = Machine::new(2);
    let store = machine.open();
    fill(&store).await;
    let first = machine.segments().into_iter().next().expect("a segment");
    machine.disk.make_unreadable(&first, 0..100);
    // From now on the keeper may look for space by itself as well.
    write(&store, delete_range("drop", "drop~")).await.expect("written");
    store.collect_now().await;
    assert!(machine.segments().contains(&first));
    machine.disk.make_readable();
    store.collect_now().await;
    assert!(!machine.segments().contains(&first));
    assert_eq!(content(&store).await.len(), 20);
}

/// A full disk refused part of a group, which was cut off; the cut was not durable when the power went, and the next segment had been
/// begun. What is left of the group is nobody's.
#[tokio::test]
async fn a_segment_that_ends_in_a_refused_write_is_emptied() {
    let machine = Machine::new(2);
    let store = machine.open();
    fill(&store).await;
    let first = machine.segments().into_iter().next().expect("a segment");
    machine.disk.corrupt(&first, |bytes| bytes.extend([7; 100]));
    write(&store, delete_range("drop", "drop~")).await.expect("written");
    store.collect_now().await;
    assert!(!machine.segments().contains(&first));
    assert_eq!(content(&store).await.len(), 20);
}

/// Keys counted as dead bytes: segments full of short values with long keys were moved each time that space was given back.
#[tokio::test]
async fn a_segment_in_which_everything_lives_stays_however_long_its_keys_are() {
    let machine = Machine::new(2);
    let store = machine.open();
    let key = |n: u32| format!("{n:0300}");
    for n in 0..200 {
        write(&store, put(key(n), vec![1; 400])).await.expect("written");
        if n % 10 > 0 {
            let mut batch = WriteBatch::new();
            batch.delete(key(n));
            write(&store, batch).await.expect("written");
        }
    }
    store.collect_now().await;
    let moved = kept(&machine);
    assert!(moved.len() > 2, "{:?}", moved.keys());
    for _ in 0..3 {
        store.collect_now().await;
    }
    assert_eq!(kept(&machine), moved);
}

/// Each time that space was looked for on such a disk, the kept segment was sealed, whatever was dead in it.
#[tokio::test]
async fn a_disk_that_stays_short_of_room_does_not_breed_small_segments() {
    let machine = Machine::new(2);
    let settings = SegmentSettings {
        reserved_disk_bytes: 4 << 20,
        segment_bytes: 1 << 20,
        ..machine.settings.clone()
    };
    let machine = Machine { settings, ..machine };
    let store = machine.open();
    machine.disk.set_faults(Faults { capacity_bytes: Some(9 << 20), ..Faults::default() });
    for round in 0..20 {
        for n in 0..270 {
            let family = if n % 10 == 0 { "keep" } else { "drop" };
            let key = format!("{family}{round:02}{n:03}");
            write(&store, put(key, vec![round; 4000])).await.expect("written");
        }
        write(&store, delete_range("drop", "drop~")).await.expect("written");
        store.collect_now().await;
    }
    let kept = kept(&machine);
    let bytes: usize = kept.values().map(Vec::len).sum();
    assert!(bytes > 1 << 20, "{bytes}");
    assert!(kept.len() < 5, "{:?}", kept.keys());
}

/// A disk that was full for a moment left a kept segment behind with little in it.
#[tokio::test]
async fn a_kept_segment_goes_on_after_a_full_disk() {
    let machine = Machine::new(2);
    let store = machine.open();
    churn(&store).await;
    let capacity_bytes = Some(machine.disk.used_bytes() + 1000);
    machine.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    while machine.files("kept").is_empty() {
        store.collect_now().await;
    }
    store.collect_now().await;
    machine.disk.set_faults(Faults::default());
    store.collect_now().await;
    let kept = kept(&machine);
    let first = kept.values().next().expect("a kept segment");
    assert!(first.len() > 3500, "{} bytes", first.len());
    let found = content(&store).await;
    assert_eq!(found.len(), 20);
    machine.crash(store);
    assert_eq!(content(&machine.open()).await, found);
}

#[tokio::test]
async fn small_values_are_moved_in_writes_of_a_thousand() {
    let machine = Machine::new(2);
    let settings = SegmentSettings { segment_bytes: 1 << 20, ..machine.settings.clone() };
    let machine = Machine { settings, ..machine };
    let store = machine.open();
    let mut batch = WriteBatch::new();
    for n in 0..3000 {
        batch.put(format!("keep{n:04}"), vec![1; 64]).put(format!("drop{n:04}"), vec![2; 300]);
    }
    write(&store, batch).await.expect("written");
    write(&store, put("last", vec![3; 64])).await.expect("written to the next segment");
    let before = store.stats().groups;
    write(&store, delete_range("drop", "drop~")).await.expect("written");
    store.collect_now().await;
    assert_eq!(store.stats().groups - before, 1 + 3);
    assert_eq!(content(&store).await.len(), 3001);
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
            let mut batch = WriteBatch::new();
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
