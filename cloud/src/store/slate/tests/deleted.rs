//! Deleted ranges: hidden at once, gone later, and the same after a crash, whatever was written meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::ranges::{self, DeletedRanges, Note, NoteId};
use super::super::{SlateSettings, SlateStore};
use super::{batch, eventually, keys, open, open_with, settings};
use crate::objects::faulty::FaultyStore;
use crate::store::memory::apply_ops;
use crate::store::{ScanLimit, Store, WriteBatch, WriteOp, write};

fn range(from: &str, to: &str) -> Range<Bytes> {
    Bytes::copy_from_slice(from.as_bytes())..Bytes::copy_from_slice(to.as_bytes())
}

/// Rows and notes that SlateDB holds, dead or not.
async fn kept(store: &SlateStore) -> (usize, usize) {
    let mut counts = (0, 0);
    let mut rows = store.db.scan(Bytes::new()..).await.expect("readable");
    while let Some(row) = rows.next().await.expect("readable") {
        match row.key.first() {
            Some(1) => counts.0 += 1,
            _ if NoteId::of_key(&row.key).is_some() => counts.1 += 1,
            _ => {}
        }
    }
    counts
}

async fn settled(store: &SlateStore) -> (usize, usize) {
    for _ in 0..600 {
        let counts = kept(store).await;
        if counts.1 == 0 {
            return counts;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("notes are left: {:?}", kept(store).await);
}

#[tokio::test]
async fn a_large_range_is_hidden_at_once_and_removed_in_steps() {
    let objects = FaultyStore::new(1);
    let store = open(&objects).await;
    let mut fill = WriteBatch::new();
    for n in 0..5000 {
        fill.put(format!("k{n:05}"), "v");
    }
    write(&store, fill).await.expect("written");
    let mut delete = WriteBatch::new();
    delete.delete_range(range("k00010", "k04990"));
    write(&store, delete).await.expect("written");
    assert_eq!(keys(&store).await.len(), 20);
    assert_eq!(store.get(b"k02000").await, Ok(None));
    write(&store, batch(&[("k02000", "again")])).await.expect("written");
    assert_eq!(settled(&store).await, (21, 0));
    assert_eq!(store.get(b"k02000").await.expect("readable").as_deref(), Some(&b"again"[..]));
    assert_eq!(keys(&store).await.len(), 21);
}

#[tokio::test]
async fn a_crash_before_the_removal_brings_nothing_back() {
    let objects = FaultyStore::new(1);
    for round in 0..5_u32 {
        let store = open(&objects).await;
        assert_eq!(keys(&store).await.len(), round as usize, "one key of each round");
        let mut fill = WriteBatch::new();
        for n in 0..3000 {
            fill.put(format!("{round} {n:05}"), "v");
        }
        write(&store, fill).await.expect("written");
        let mut delete = WriteBatch::new();
        delete.delete_range(range(&format!("{round} 00001"), &format!("{round} 9")));
        write(&store, delete).await.expect("written");
        // Dropped with the removal somewhere on its way.
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
    }
    let store = open(&objects).await;
    assert_eq!(settled(&store).await, (5, 0));
}

#[tokio::test]
async fn growing_ranges_leave_one_note() {
    let objects = FaultyStore::new(1);
    // Nothing is read, so nothing is removed, and the notes pile up if they can.
    let store = open(&objects).await;
    for n in 0..50 {
        let mut trim = WriteBatch::new();
        trim.put(format!("log {n:03}"), "v").delete_range(range("log 000", &format!("log {n:03}")));
        write(&store, trim).await.expect("written");
        assert!(kept(&store).await.1 <= 2, "a wider note replaces the one before");
    }
    assert_eq!(keys(&store).await, ["log 049"]);
    eventually(|| store.stats().queued_bytes == 0).await;
    assert_eq!(settled(&store).await, (1, 0));
}

/// What a test does to both stores.
#[derive(Debug, Clone)]
enum Deed {
    Write(Vec<WriteOp>),
    Crash,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof!["[ab]{0,2}", "[a-d]"].prop_map(|text| Bytes::from(text.into_bytes()))
}

fn op() -> impl Strategy<Value = WriteOp> {
    prop_oneof![
        4 => (key(), "[xyz]").prop_map(|(key, value)| WriteOp::Put(key, value.into())),
        1 => key().prop_map(WriteOp::Delete),
        2 => (key(), key()).prop_map(|(from, to)| WriteOp::DeleteRange(from..to)),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        12 => proptest::collection::vec(op(), 0..6).prop_map(Deed::Write),
        1 => Just(Deed::Crash),
    ]
}

async fn agree(deeds: Vec<Deed>, tables: &SlateSettings) {
    let objects = FaultyStore::new(7);
    let mut store = open_with(&objects, tables).await;
    let mut model = BTreeMap::new();
    for deed in deeds {
        match deed {
            Deed::Crash => {
                drop(store);
                store = open_with(&objects, tables).await;
            }
            Deed::Write(ops) => {
                let mut batch = WriteBatch::new();
                for op in &ops {
                    match op.clone() {
                        WriteOp::Put(key, value) => batch.put(key, value),
                        WriteOp::Delete(key) => batch.delete(key),
                        WriteOp::DeleteRange(range) => batch.delete_range(range),
                    };
                }
                write(&store, batch).await.expect("written");
                apply_ops(&mut model, &ops);
            }
        }
        let all = Bytes::new()..Bytes::from_static(&[255]);
        let page = store.scan(all, ScanLimit::items(1000)).await.expect("readable");
        let expected: Vec<_> = model.clone().into_iter().collect();
        assert_eq!(page.items, expected);
        for (key, value) in &model {
            assert_eq!(store.get(key).await, Ok(Some(value.clone())));
        }
    }
    assert_eq!(settled(&store).await, (model.len(), 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_deleted_it_holds_what_a_map_holds(deeds in proptest::collection::vec(deed(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
        runtime.block_on(agree(deeds, &settings()));
    }

    #[test]
    fn spans_say_what_their_notes_say(notes in proptest::collection::vec((key(), key()), 0..12), gone in 0_usize..12) {
        let mut spans = DeletedRanges::default();
        let mut told = Vec::new();
        for (n, (from, to)) in (0_u64..).zip(notes) {
            let note = Note { range: from..to, seq: n + 1 };
            spans.insert(NoteId(n), &note);
            told.push(note);
        }
        if gone < told.len() && gone + 1 == told.len() {
            let note = told.pop().expect("there is one");
            spans.remove(NoteId(gone as u64), &note.range);
            // What it covered of others was dead by it as well, and is gone with it: nothing hides there.
            for key in ["", "a", "aa", "ab", "b", "ba", "bb", "c", "d"] {
                if note.range.contains(key.as_bytes()) {
                    prop_assert!(!spans.covers(key.as_bytes()));
                }
            }
            return Ok(());
        }
        for key in ["", "a", "aa", "ab", "b", "ba", "bb", "c", "d"] {
            for seq in 0..14 {
                let dead = told.iter().any(|note| note.range.contains(key.as_bytes()) && seq < note.seq);
                prop_assert_eq!(spans.hides(key.as_bytes(), seq), dead, "{:?} {}", key, seq);
            }
        }
    }
}

#[test]
fn notes_are_written_as_drawn() {
    let value = ranges::encode_note(&range("ab", "c"));
    assert_eq!(value.as_ref(), [1, 0, 0, 0, 2, b'a', b'b', b'c']);
    assert_eq!(NoteId(258).key().as_ref(), [0, b'r', 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(NoteId::of_key(&NoteId(258).key()), Some(NoteId(258)));
    assert_eq!(ranges::decode_note(b"k", &value), Ok(range("ab", "c")));
    for damaged in [&[][..], &[1, 0, 0], &[2, 0, 0, 0, 0], &[1, 0, 0, 0, 9, b'a']] {
        let decoded = ranges::decode_note(b"k", &Bytes::copy_from_slice(damaged));
        assert!(decoded.is_err(), "{damaged:?}");
    }
}
