//! Files that are not as they were written.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::ids::{EdgeSeq, LaneId};

use super::super::segment::{self, HEADER_BYTES, Place, Salt};
use super::super::{OpenError, Queue, SkipReason};
use super::{Clock, DIR, Machine, append, bodies, check_gapless, now, read_all, record};

/// A queue with records "1" to "N", each with 300 more bytes, as it lies on a disk after the machine stopped.
fn written(records: u32) -> Machine {
    let machine = Machine::new(3);
    let (queue, _) = machine.open();
    for n in 1..=records {
        append(&queue, &record(0, format!("{n:>300}"))).unwrap();
    }
    drop(queue);
    machine.crash();
    machine
}

fn numbers(queue: &Queue) -> Vec<u64> {
    let batch = read_all(queue, 0).unwrap();
    check_gapless(&batch);
    bodies(&batch).iter().map(|body| body.trim().parse().unwrap()).collect()
}

const RECORD: usize = 56 + 8 + 300;

#[test]
fn a_torn_tail_is_cut_off() {
    for cut in [1, 10, RECORD - 1] {
        let machine = written(5);
        let [path] = &machine.segments(0)[..] else { panic!("one segment") };
        machine.disk.corrupt(path, |bytes| bytes.truncate(HEADER_BYTES + 5 * RECORD - cut));
        let (queue, recovered) = machine.open();
        assert_eq!(recovered.lanes[0].truncated_bytes, (RECORD - cut) as u64);
        assert_eq!(recovered.damage, []);
        assert_eq!(numbers(&queue), [1, 2, 3, 4]);
        assert_eq!(
            append(&queue, &record(0, "5")),
            Ok(EdgeSeq(5)),
            "nobody was promised the old one"
        );
        drop(queue);
        machine.crash();
        let (queue, recovered) = machine.open();
        assert_eq!(recovered.lanes[0].truncated_bytes, 0);
        assert_eq!(numbers(&queue), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn garbage_after_the_last_record_is_cut_off() {
    let machine = written(5);
    let [path] = &machine.segments(0)[..] else { panic!("one segment") };
    machine.disk.corrupt(path, |bytes| bytes.extend_from_slice(&[0u8; 5000]));
    let (queue, recovered) = machine.open();
    assert_eq!(recovered.lanes[0].truncated_bytes, 5000);
    assert_eq!(recovered.damage, []);
    assert_eq!(numbers(&queue), [1, 2, 3, 4, 5]);
}

#[test]
fn damage_among_promised_records_costs_only_what_is_unreadable() {
    let machine = written(8);
    let [path] = &machine.segments(0)[..] else { panic!("one segment") };
    machine.disk.corrupt(path, |bytes| bytes[HEADER_BYTES + 2 * RECORD + 100] ^= 1);
    let (queue, recovered) = machine.open();
    let [damage] = &recovered.damage[..] else { panic!("{recovered:?}") };
    assert_eq!((damage.from, damage.to), (EdgeSeq(3), EdgeSeq(4)));
    assert_eq!(damage.at_byte, (HEADER_BYTES + 2 * RECORD) as u64);
    assert_eq!(numbers(&queue), [1, 2, 4, 5, 6, 7, 8]);
    let skips = read_all(&queue, 0).unwrap().skips;
    assert_eq!((skips[0].from, skips[0].reason), (EdgeSeq(3), SkipReason::Quarantined));
    now(queue.flush()).unwrap();
    assert_eq!(now(queue.status()).unwrap()[0].drops.quarantined_records, 1);
    assert!(damage.segment.ends_with(".bad"));
    assert!(machine.disk.paths().iter().any(|path| path.ends_with(&damage.segment)));

    assert_eq!(append(&queue, &record(0, "9")), Ok(EdgeSeq(9)));
    drop(queue);
    machine.crash();
    let (queue, _) = machine.open();
    assert_eq!(numbers(&queue), [1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(now(queue.status()).unwrap()[0].drops.quarantined_records, 1, "counted once");
    queue.acknowledge(LaneId(0), EdgeSeq(9)).unwrap();
    assert!(
        machine.disk.paths().iter().any(|path| path.ends_with(&damage.segment)),
        "kept as evidence"
    );
}

#[test]
fn damage_within_one_synced_write_is_shown_by_any_later_record() {
    let machine = written(6);
    let (queue, _) = machine.open();
    let store = queue.store_id();
    drop(queue);
    let [path] = &machine.segments(0)[..] else { panic!("one segment") };
    machine.disk.corrupt(path, |bytes| {
        // As if the first five had shared one sync: none of them was appended after another was synced.
        bytes.truncate(HEADER_BYTES);
        let stamp = machine.clock.now().stamp();
        let salt = Salt::new(store, LaneId(0));
        let mut before = segment::first_digest(store, LaneId(0));
        for n in 1..=6 {
            let synced = EdgeSeq(if n == 6 { 5 } else { 0 });
            let place = Place { seq: EdgeSeq(n), before, synced };
            let append = record(0, format!("{n:>300}"));
            before = segment::encode(&append, &stamp, &place, salt, bytes);
        }
        bytes[HEADER_BYTES + RECORD + 100] ^= 1;
    });
    let (queue, recovered) = machine.open();
    let [damage] = &recovered.damage[..] else { panic!("{recovered:?}") };
    assert_eq!((damage.from, damage.to), (EdgeSeq(2), EdgeSeq(3)));
    assert_eq!(recovered.lanes[0].truncated_bytes, 0);
    assert_eq!(numbers(&queue), [1, 3, 4, 5, 6]);
}

#[test]
fn a_damaged_length_does_not_hide_the_records_behind_it() {
    let check = |length: u32| {
        let machine = written(8);
        let [path] = &machine.segments(0)[..] else { panic!("one segment") };
        let at = HEADER_BYTES + 4 * RECORD;
        machine
            .disk
            .corrupt(path, |bytes| bytes[at..at + 4].copy_from_slice(&length.to_le_bytes()));
        let (queue, _) = machine.open();
        assert_eq!(numbers(&queue), [1, 2, 3, 4, 6, 7, 8], "length {length}");
    };
    for length in [0, 1, 56, 400, 3_000_000, u32::MAX] {
        check(length);
    }
}

#[test]
fn damage_in_an_older_segment_is_found_when_it_is_read() {
    let machine = written(60);
    let segments = machine.segments(0);
    assert!(segments.len() > 4);
    machine.disk.corrupt(&segments[1], |bytes| bytes[HEADER_BYTES + RECORD + 5] ^= 0x40);
    let (queue, recovered) = machine.open();
    assert_eq!(recovered.damage, []);
    let found = numbers(&queue);
    assert_eq!(found.len(), 59);
    now(queue.flush()).unwrap();
    assert_eq!(now(queue.status()).unwrap()[0].drops.quarantined_records, 1);
    let renamed = machine.segments(0).into_iter().filter(|p| p.extension().unwrap() == "bad");
    assert_eq!(renamed.count(), 1);
    assert_eq!(numbers(&queue), found, "and it reads the same afterwards");
}

#[test]
fn a_segment_without_a_readable_header_still_gives_its_records() {
    let machine = written(60);
    let segments = machine.segments(0);
    machine.disk.corrupt(&segments[1], |bytes| bytes[..HEADER_BYTES].fill(0));
    let (queue, _) = machine.open();
    assert_eq!(numbers(&queue), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_bad_sector_costs_its_records_and_does_not_hold_up_the_lane() {
    let machine = written(60);
    let segments = machine.segments(0);
    machine.disk.make_unreadable(&segments[1], 1000..1100);
    let (queue, _) = machine.open();
    let mut failed = 0;
    let batch = loop {
        match read_all(&queue, 0) {
            Ok(batch) => break batch,
            Err(_) => failed += 1,
        }
        assert!(failed < 20);
    };
    assert!(failed > 1, "it may have been a passing fault");
    check_gapless(&batch);
    let [skip] = batch.skips[..] else { panic!("{:?}", batch.skips) };
    assert_eq!(skip.reason, SkipReason::Quarantined);
    assert!(skip.to.0 - skip.from.0 <= 11, "{skip:?}: the segment is one block");
}

#[test]
fn a_bad_sector_in_the_last_segment_or_a_header_does_not_stop_the_start() {
    for at in [10, 1000] {
        let machine = written(60);
        let last = machine.segments(0).pop().unwrap();
        machine.disk.make_unreadable(&last, at..at + 1);
        let (queue, _) = machine.open();
        append(&queue, &record(0, "61")).unwrap();
        check_gapless(&read_all(&queue, 0).unwrap());
    }
}

#[test]
fn segments_that_vanish_are_skips() {
    let machine = written(60);
    let segments = machine.segments(0);
    let gone: Vec<_> = segments[1..3].to_vec();
    for path in &gone {
        super::super::disk::Disk::remove(&machine.disk, path).unwrap();
    }
    let (queue, _) = machine.open();
    let batch = read_all(&queue, 0).unwrap();
    check_gapless(&batch);
    let [skip] = batch.skips[..] else { panic!("{:?}", batch.skips) };
    assert_eq!(skip.reason, SkipReason::Quarantined);
    assert_eq!(batch.entries.len() as u64 + skip.to.0 - skip.from.0, 60);
}

#[test]
fn a_payload_made_up_to_look_like_a_record_is_not_taken_for_one() {
    let machine = Machine::new(3);
    let (queue, _) = machine.open();
    // The device knows the format, but not the store id; it guesses zeros.
    let forged = |store| {
        let mut bytes = Vec::new();
        let place = Place {
            seq: EdgeSeq(1),
            before: segment::first_digest(store, LaneId(0)),
            synced: EdgeSeq(0),
        };
        let stamp = machine.clock.now().stamp();
        let salt = Salt::new(store, LaneId(0));
        segment::encode(&record(0, "forged"), &stamp, &place, salt, &mut bytes);
        bytes
    };
    append(&queue, &record(0, forged(super::super::StoreId([0; 16])))).unwrap();
    append(&queue, &record(0, "honest")).unwrap();
    drop(queue);
    let [path] = &machine.segments(0)[..] else { panic!("one segment") };
    machine.disk.corrupt(path, |bytes| bytes[HEADER_BYTES + 8] ^= 1);
    let (queue, _) = machine.open();
    assert_eq!(bodies(&read_all(&queue, 0).unwrap()), ["honest"]);
}

#[test]
fn a_lost_cursor_sends_everything_again_under_the_same_sequences() {
    let machine = written(60);
    let (queue, _) = machine.open();
    let before = read_all(&queue, 0).unwrap();
    queue.acknowledge(LaneId(0), EdgeSeq(30)).unwrap();
    drop(queue);
    machine.disk.corrupt(&Path::new(DIR).join("lane-0/cursor"), |bytes| bytes.fill(0xee));
    let (queue, recovered) = machine.open();
    assert!(!recovered.notes.is_empty());
    let after = read_all(&queue, 0).unwrap();
    check_gapless(&after);
    assert_eq!(after.next, EdgeSeq(61));
    assert!(after.from <= EdgeSeq(31) && after.from > EdgeSeq(1));
    assert!(before.entries.ends_with(&after.entries));
}

#[test]
fn one_damaged_cursor_slot_falls_back_to_the_other() {
    for slot in [0, 4096] {
        let machine = written(60);
        let (queue, _) = machine.open();
        queue.acknowledge(LaneId(0), EdgeSeq(20)).unwrap();
        queue.acknowledge(LaneId(0), EdgeSeq(21)).unwrap();
        drop(queue);
        let path = Path::new(DIR).join("lane-0/cursor");
        machine.disk.corrupt(&path, |bytes| bytes[slot + 30] ^= 1);
        let (queue, recovered) = machine.open();
        assert_eq!(recovered.notes.len(), 1);
        let through = queue.position(LaneId(0)).unwrap().acknowledged_through.0;
        assert!((20..=21).contains(&through), "{through}");
        check_gapless(&read_all(&queue, 0).unwrap());
    }
}

#[test]
fn losing_the_last_records_never_gives_their_sequences_out_again_once_the_cursor_knew_them() {
    let machine = written(10);
    let (queue, _) = machine.open();
    queue.acknowledge(LaneId(0), EdgeSeq(1)).unwrap();
    drop(queue);
    let path = machine.segments(0).pop().unwrap();
    machine.disk.corrupt(&path, |bytes| bytes.truncate(HEADER_BYTES + RECORD / 2));
    let (queue, _) = machine.open();
    assert_eq!(append(&queue, &record(0, "11")), Ok(EdgeSeq(11)));
    let batch = read_all(&queue, 0).unwrap();
    check_gapless(&batch);
    assert_eq!(batch.skips.last().unwrap().reason, SkipReason::Quarantined);
}

#[test]
fn a_later_format_is_refused_with_its_number() {
    let machine = written(1);
    let [path] = &machine.segments(0)[..] else { panic!("one segment") };
    machine.disk.corrupt(path, |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    let opened = Queue::open_inline(
        Arc::new(machine.disk.clone()),
        Arc::new(machine.clock.clone()),
        Path::new(DIR),
        machine.settings.clone(),
    );
    assert!(matches!(opened, Err(OpenError::Version { found: 2, known: 1, .. })));
}

#[test]
fn no_bytes_make_it_panic() {
    let machine = written(20);
    let segments = machine.segments(0);
    for seed in 0..300usize {
        let path = &segments[seed % segments.len()];
        machine.disk.corrupt(path, |bytes| {
            let at = (seed * 7919) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(1 + u8::try_from(seed % 200).unwrap());
            }
        });
        let (queue, _) = machine.open();
        check_gapless(&read_all(&queue, 0).unwrap());
        let _ = append(&queue, &record(0, Bytes::from_static(b"more")));
        drop(queue);
        machine.crash();
    }
}
