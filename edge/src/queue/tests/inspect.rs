//! What an operator sees of a queue's files.

use std::path::Path;

use robustmq_common::ids::{EdgeSeq, LaneId};

use super::super::inspect::{Depth, Inspection, inspect, inspect_on};
use super::super::segment::HEADER_BYTES;
use super::super::{Queue, QueueSettings};
use super::{DIR, Machine, append, drop_oldest, record};

fn look(machine: &Machine, depth: Depth) -> Inspection {
    inspect_on(&machine.disk, Path::new(DIR), depth).unwrap()
}

fn written(records: usize) -> Machine {
    let machine = Machine::new(5);
    let (queue, _) = machine.open();
    for _ in 0..records {
        append(&queue, &record(0, vec![7u8; 500])).unwrap();
    }
    queue.acknowledge(LaneId(0), EdgeSeq(10)).unwrap();
    machine
}

#[test]
fn a_sound_queue_has_no_problems() {
    let machine = written(40);
    for depth in [Depth::Inspect, Depth::Verify] {
        let found = look(&machine, depth);
        assert!(found.is_sound(), "{found}");
        let lane = &found.lanes[0];
        assert_eq!((lane.acknowledged_through, lane.next_sequence), (10, 41));
    }
    let all = look(&machine, Depth::Verify);
    let records: u64 = all.lanes[0].segments.iter().map(|s| s.records.unwrap()).sum();
    assert_eq!(records, 41 - all.lanes[0].segments[0].first_sequence);
}

#[test]
fn damage_and_missing_files_are_named() {
    let machine = written(40);
    let segments = machine.segments(0);
    machine.disk.corrupt(&segments[1], |bytes| bytes[HEADER_BYTES + 20] ^= 1);
    super::super::disk::Disk::remove(&machine.disk, &segments[2]).unwrap();
    let found = look(&machine, Depth::Verify);
    assert_eq!(found.problems.len(), 2, "{found}");
    assert!(found.problems[0].contains("damaged at byte 64"), "{found}");
    assert!(look(&machine, Depth::Inspect).is_sound(), "headers alone do not tell");
}

#[test]
fn an_unfinished_append_is_no_problem() {
    let machine = written(40);
    // After the cursor was stored, so that nothing says that it was ever synced.
    append(&machine.open().0, &record(0, vec![7u8; 500])).unwrap();
    let last = machine.segments(0).pop().unwrap();
    machine.disk.corrupt(&last, |bytes| bytes.truncate(bytes.len() - 3));
    let found = look(&machine, Depth::Verify);
    assert!(found.is_sound(), "{found}");
    assert!(found.lanes[0].segments.last().unwrap().unfinished_bytes > 0);
}

#[test]
fn a_segment_that_was_being_made_is_no_problem() {
    for written_bytes in [0, 10, 64, 100] {
        let machine = written(40);
        let path = machine.segments(0).pop().unwrap();
        let next = Path::new(DIR).join("lane-0/00000000000000000041.seg");
        let file = super::super::disk::Disk::open(&machine.disk, &next, true).unwrap();
        let mut bytes = Vec::new();
        machine.disk.corrupt(&path, |first| bytes = first[..written_bytes].to_vec());
        if let Some(lane) = bytes.get_mut(10) {
            *lane = 99;
        }
        super::super::disk::write_all(file.as_ref(), &bytes, 0).unwrap();
        let found = look(&machine, Depth::Verify);
        assert!(found.is_sound(), "{written_bytes}: {found}");
        assert_eq!(found.lanes[0].next_sequence, 41);
    }
}

#[test]
fn dropped_ranges_are_shown() {
    let mut machine = Machine::new(5);
    drop_oldest(&mut machine);
    let (queue, _) = machine.open();
    for _ in 0..30 {
        append(&queue, &record(0, vec![1u8; 100_000])).unwrap();
    }
    let found = look(&machine, Depth::Verify);
    assert!(found.is_sound(), "{found}");
    assert_eq!((found.lanes[0].skips[0].from, found.lanes[0].skips[0].reason), (1, "dropped"));
    assert!(found.to_string().contains("dropped"));
}

#[test]
fn looking_changes_nothing_even_while_the_queue_is_open() {
    let dir = tempfile::tempdir().unwrap();
    assert!(inspect(dir.path(), Depth::Inspect).is_err(), "there is no queue");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let (_queue, _) = Queue::open(dir.path(), QueueSettings::default()).unwrap();
    let found = inspect(dir.path(), Depth::Verify).unwrap();
    assert_eq!(found.lanes.len(), 3);
    assert!(found.lanes.iter().all(|lane| lane.segments.is_empty()));
    assert!(found.is_sound(), "{found}");
}

/// `verify` judged the last segment by a rule that recovery had left behind: it called cut short what the cursor, or a
/// record further on, showed to have been synced, said that all was well, and the next start reported damage.
#[test]
fn verify_and_recovery_say_the_same_of_a_damaged_last_segment() {
    let same = |what: &str, cursor: bool, harm: &dyn Fn(&mut Vec<u8>)| {
        let machine = Machine::new(5);
        let (queue, _) = machine.open();
        for _ in 0..5 {
            append(&queue, &record(0, vec![7u8; 500])).unwrap();
        }
        if cursor {
            queue.acknowledge(LaneId(0), EdgeSeq(1)).unwrap();
        }
        append(&queue, &record(0, vec![7u8; 500])).unwrap();
        drop(queue);
        machine.crash();
        let [path] = &machine.segments(0)[..] else { panic!("one segment") };
        machine.disk.corrupt(path, harm);
        let found = look(&machine, Depth::Verify);
        let (queue, recovered) = machine.open();
        assert_eq!(found.is_sound(), recovered.damage.is_empty(), "{what}: {found}{recovered:?}");
        let unfinished: u64 = found.lanes[0].segments.iter().map(|s| s.unfinished_bytes).sum();
        assert_eq!(unfinished, recovered.lanes[0].truncated_bytes, "{what}: {found}");
        assert_eq!(found.lanes[0].next_sequence, recovered.lanes[0].next_seq.0, "{what}: {found}");
        let readable: u64 = found.lanes[0].segments.iter().filter_map(|s| s.records).sum();
        assert_eq!(readable, queue.replay(LaneId(0), EdgeSeq(0)).count() as u64, "{what}: {found}");
        found.is_sound()
    };
    const RECORD: usize = 56 + 8 + 500;
    for cursor in [false, true] {
        for n in 0..6 {
            let at = HEADER_BYTES + n * RECORD;
            let flip = |bytes: &mut Vec<u8>| bytes[at + 100] ^= 1;
            same(&format!("record {n} flipped"), cursor, &flip);
            same(&format!("cut in record {n}"), cursor, &|bytes| bytes.truncate(at + 100));
            same(&format!("cut before record {n}"), cursor, &|bytes| bytes.truncate(at));
            same(&format!("zeros from record {n}"), cursor, &|bytes| bytes[at..].fill(0));
        }
        same("header gone", cursor, &|bytes| bytes[3] ^= 1);
        same("empty", cursor, &Vec::clear);
        same("more behind", cursor, &|bytes| bytes.extend_from_slice(&[3; 5000]));
    }
    let cut_in_the_fifth = |bytes: &mut Vec<u8>| bytes.truncate(HEADER_BYTES + 4 * RECORD + 9);
    assert!(same("nothing says that it was synced", false, &cut_in_the_fifth));
    assert!(!same("the cursor says so", true, &cut_in_the_fifth));
}
