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
