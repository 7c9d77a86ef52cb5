//! What the queue promises, one behaviour at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};

use super::super::sim_disk::Faults;
use super::super::{Append, AppendError, OpenError, Origin, Queue, QueueError, Skip, SkipReason};
use super::{
    DIR, MIB, Machine, append, bodies, check_gapless, drop_oldest, now, read, read_all, record,
};

const LANE: LaneId = LaneId(0);

#[test]
fn what_is_read_is_what_was_appended() {
    let machine = Machine::new(1);
    let (queue, recovered) = machine.open();
    assert!(recovered.new_store);
    let written = Append {
        lane: LANE,
        origin: Origin {
            client_id: Bytes::from_static("gerät-7".as_bytes()),
            packet_id: Some(65_535),
            qos: 2,
            retain: true,
        },
        ttl: Some(Duration::from_millis(1500)),
        body: Bytes::from_static(b"{\"t\":21.5}"),
    };
    assert_eq!(append(&queue, &written), Ok(EdgeSeq(1)));
    assert_eq!(append(&queue, &record(0, "")), Ok(EdgeSeq(2)));

    let batch = read_all(&queue, 0).unwrap();
    check_gapless(&batch);
    let [first, second] = &batch.entries[..] else { panic!("two records: {batch:?}") };
    assert_eq!((&first.origin, &first.body), (&written.origin, &written.body));
    assert_eq!(first.ttl, Some(Duration::from_secs(2)), "rounded up");
    assert_eq!(first.stamp, super::Clock::now(&machine.clock).stamp());
    assert_eq!((second.seq, second.ttl, second.body.len()), (EdgeSeq(2), None, 0));
    assert_eq!(batch.digest, second.digest);
}

#[test]
fn nothing_is_read_before_it_is_synced() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let stamp = super::Clock::now(&machine.clock).stamp();
    let pending = {
        // Appended, but the writer has not been told yet.
        let mut state = queue.shared.lock();
        let salt = queue.shared.salt(LANE);
        state.append(&record(0, "a"), &stamp, &queue.shared.settings, salt).unwrap()
    };
    assert_eq!(pending.outcome(), None);
    assert!(read(&queue, 0, 1).is_empty());
    let synced = queue.synced(LANE).unwrap();
    assert_eq!(*synced.borrow(), EdgeSeq(0));
    now(queue.flush()).unwrap();
    assert_eq!(pending.outcome(), Some(Ok(EdgeSeq(1))));
    assert!(synced.has_changed().unwrap());
    assert_eq!(read(&queue, 0, 1).entries.len(), 1);
}

#[test]
fn lanes_count_on_their_own() {
    let mut machine = Machine::new(1);
    machine.settings.lanes = 2;
    let (queue, _) = machine.open();
    append(&queue, &record(0, "a")).unwrap();
    assert_eq!(append(&queue, &record(1, "b")), Ok(EdgeSeq(1)));
    assert_eq!(append(&queue, &record(1, "c")), Ok(EdgeSeq(2)));
    assert_eq!(append(&queue, &record(2, "d")), Err(AppendError::NoLane { lane: LaneId(2) }));
    assert_eq!(bodies(&read_all(&queue, 1).unwrap()), ["b", "c"]);
    assert_ne!(
        queue.position(LaneId(0)).unwrap().acknowledged_digest,
        queue.position(LaneId(1)).unwrap().acknowledged_digest,
        "lanes of one store never agree by accident"
    );
}

#[test]
fn a_lane_that_is_no_longer_configured_is_drained_but_takes_nothing() {
    let mut machine = Machine::new(1);
    machine.settings.lanes = 2;
    let (queue, _) = machine.open();
    append(&queue, &record(1, "left over")).unwrap();
    drop(queue);
    machine.disk.kill();
    machine.settings.lanes = 1;
    let (queue, _) = machine.open();
    assert_eq!(queue.lanes().len(), 2);
    assert_eq!(bodies(&read_all(&queue, 1).unwrap()), ["left over"]);
    assert_eq!(append(&queue, &record(1, "x")), Err(AppendError::NoLane { lane: LaneId(1) }));
}

#[test]
fn acknowledged_segments_go_and_the_cursor_survives() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    for _ in 0..50 {
        append(&queue, &record(0, vec![7u8; 500])).unwrap();
    }
    let before = machine.segments(0).len();
    assert!(before > 5);
    queue.acknowledge(LANE, EdgeSeq(40)).unwrap();
    assert!(machine.segments(0).len() < before / 2);
    let position = queue.position(LANE).unwrap();
    let digest = now(queue.digest_at(LANE, EdgeSeq(40))).unwrap();
    assert_eq!(Some(position.acknowledged_digest), digest);
    drop(queue);
    machine.crash();

    let (queue, recovered) = machine.open();
    let after = queue.position(LANE).unwrap();
    assert_eq!(after, position);
    assert_eq!(recovered.lanes[0].acknowledged_through, EdgeSeq(40));
    let rest = read_all(&queue, 0).unwrap();
    assert_eq!((rest.from, rest.next, rest.entries.len()), (EdgeSeq(41), EdgeSeq(51), 10));
    queue.acknowledge(LANE, EdgeSeq(50)).unwrap();
    assert!(machine.segments(0).len() <= 1, "only a segment with room is kept");
}

#[test]
fn sequences_go_on_after_everything_was_trimmed_and_restarted() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    for _ in 0..8 {
        append(&queue, &record(0, vec![7u8; 500])).unwrap();
    }
    queue.acknowledge(LANE, EdgeSeq(8)).unwrap();
    for path in machine.segments(0) {
        assert!(path.exists() || machine.disk.used_bytes() > 0);
    }
    let position = queue.position(LANE).unwrap();
    drop(queue);
    machine.crash();
    let (queue, _) = machine.open();
    assert_eq!(queue.position(LANE).unwrap(), position);
    assert_eq!(append(&queue, &record(0, "next")), Ok(EdgeSeq(9)));
    assert_eq!(bodies(&read_all(&queue, 0).unwrap()), ["next"]);
}

#[test]
fn an_acknowledgement_of_what_was_never_synced_is_refused() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    append(&queue, &record(0, "a")).unwrap();
    let refused = queue.acknowledge(LANE, EdgeSeq(2));
    assert!(matches!(refused, Err(QueueError::AheadOfQueue { through: 2, synced: 1, .. })));
    assert_eq!(queue.position(LANE).unwrap().acknowledged_through, EdgeSeq(0));
}

#[test]
fn a_full_queue_rejects_and_takes_again_after_an_acknowledgement() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let big = record(0, vec![1u8; 100_000]);
    let mut taken = 0;
    let refused = loop {
        match append(&queue, &big) {
            Ok(seq) => taken = seq.0,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { max_bytes: MIB, .. }));
    assert_eq!(taken, 10, "{refused}");
    assert!(machine.disk.used_bytes() <= MIB + 64 * 1024, "what was asked for is kept to");
    queue.acknowledge(LANE, EdgeSeq(3)).unwrap();
    assert_eq!(append(&queue, &big), Ok(EdgeSeq(11)));
    check_gapless(&read_all(&queue, 0).unwrap());
}

#[test]
fn drop_oldest_explains_what_it_dropped_even_after_a_crash() {
    let mut machine = Machine::new(1);
    drop_oldest(&mut machine);
    let (queue, _) = machine.open();
    for _ in 0..30 {
        append(&queue, &record(0, vec![1u8; 100_000])).unwrap();
    }
    let all = read_all(&queue, 0).unwrap();
    check_gapless(&all);
    let [skip] = all.skips[..] else { panic!("one range: {:?}", all.skips) };
    assert_eq!((skip.from, skip.reason), (EdgeSeq(1), SkipReason::Dropped));
    let dropped = skip.to.0 - 1;
    assert_eq!(now(queue.status()).unwrap()[0].drops.dropped_records, dropped);
    drop(queue);
    machine.crash();
    let (queue, _) = machine.open();
    assert_eq!(read_all(&queue, 0).unwrap(), all);
    assert_eq!(now(queue.status()).unwrap()[0].drops.dropped_records, dropped);
    queue.acknowledge(LANE, EdgeSeq(skip.to.0 + 1)).unwrap();
    assert!(read_all(&queue, 0).unwrap().skips.is_empty());
}

/// The gauge counted sequences: of 160 records that it showed, 98 had been dropped long ago.
#[test]
fn what_was_dropped_is_not_in_the_queue_any_more() {
    let mut machine = Machine::new(1);
    drop_oldest(&mut machine);
    let (queue, _) = machine.open();
    for n in 1..=40 {
        append(&queue, &record(0, vec![n; 100_000])).unwrap();
    }
    let check = |queue: &Queue, what: &str| {
        let account = read_all(queue, 0).unwrap();
        let status = now(queue.status()).unwrap()[0];
        assert!(status.drops.dropped_records > 0);
        assert_eq!(status.depth_records, account.entries.len() as u64, "{what}");
        account
    };
    let account = check(&queue, "after the drops");
    let dropped = account.skips[0];
    queue.acknowledge(LANE, EdgeSeq(dropped.from.0 + 3)).unwrap();
    check(&queue, "the cloud has heard of some of the drops");
    queue.acknowledge(LANE, EdgeSeq(dropped.to.0 + 1)).unwrap();
    check(&queue, "and has two records");
    drop(queue);
    machine.crash();
    check(&machine.open().0, "after a crash");
}

#[test]
fn drop_oldest_takes_from_less_important_lanes_first_and_never_from_more_important_ones() {
    let mut machine = Machine::new(1);
    drop_oldest(&mut machine);
    machine.settings.lanes = 2;
    let (queue, _) = machine.open();
    let big = |lane| record(lane, vec![1u8; 100_000]);
    for lane in [0, 0, 0, 0, 0, 1, 1, 1, 1, 1] {
        append(&queue, &big(lane)).unwrap();
    }
    append(&queue, &big(1)).unwrap();
    append(&queue, &big(0)).unwrap();
    let drops = |queue: &Queue| {
        let status = now(queue.status()).unwrap();
        (status[0].drops.dropped_records, status[1].drops.dropped_records)
    };
    let (important, other) = drops(&queue);
    assert_eq!(important, 0);
    assert_eq!(other, 2);
    while append(&queue, &big(0)).is_ok() {
        if drops(&queue).0 > 0 {
            break;
        }
    }
    assert_eq!(drops(&queue).1, 6, "its own oldest only when nothing less important is left");
    let refused = append(&queue, &big(1));
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
}

#[test]
fn expired_records_are_skipped_and_counted_once() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let with_ttl = |seconds| Append {
        ttl: Some(Duration::from_secs(seconds)),
        ..record(0, format!("for {seconds} s"))
    };
    for record in [with_ttl(10), with_ttl(10), with_ttl(60), record(0, "for ever")] {
        append(&queue, &record).unwrap();
    }
    assert_eq!(read_all(&queue, 0).unwrap().entries.len(), 4);
    machine.clock.advance(Duration::from_secs(10));
    for _ in 0..2 {
        let batch = read_all(&queue, 0).unwrap();
        check_gapless(&batch);
        assert_eq!(bodies(&batch), ["for 60 s", "for ever"]);
        let expected = Skip { from: EdgeSeq(1), to: EdgeSeq(3), reason: SkipReason::Expired };
        assert_eq!(batch.skips, [expected]);
    }
    queue.acknowledge(LANE, EdgeSeq(4)).unwrap();
    assert_eq!(now(queue.status()).unwrap()[0].drops.expired_records, 2);
}

#[test]
fn after_a_reboot_a_time_to_live_runs_by_the_wall_clock_if_both_are_known() {
    let check = |wall_then: Option<i64>, wall_now: Option<i64>, uptime: u64, expired: bool| {
        let machine = Machine::new(1);
        machine.clock.set(|now| now.wall_ms = wall_then);
        let (queue, _) = machine.open();
        let append_one = Append { ttl: Some(Duration::from_secs(60)), ..record(0, "a") };
        append(&queue, &append_one).unwrap();
        drop(queue);
        machine.crash();
        machine.clock.set(|now| {
            now.wall_ms = wall_now;
            now.uptime = Duration::from_secs(uptime);
        });
        let (queue, _) = machine.open();
        assert_eq!(read_all(&queue, 0).unwrap().entries.is_empty(), expired);
    };
    let then = 1_800_000_000_000;
    check(Some(then), Some(then + 59_000), 1, false);
    check(Some(then), Some(then + 60_000), 1, true);
    // Unknown: at least the present uptime has passed.
    check(None, Some(then + 60_000), 59, false);
    check(Some(then), None, 60, true);
    // A wall clock set back proves nothing against the uptime.
    check(Some(then), Some(then - 60_000), 61, true);
}

#[test]
fn a_full_queue_gives_up_expired_segments_even_if_it_rejects() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let big = Append { ttl: Some(Duration::from_secs(10)), ..record(0, vec![1u8; 100_000]) };
    while append(&queue, &big).is_ok() {}
    machine.clock.advance(Duration::from_secs(20));
    let _ = append(&queue, &big);
    assert_eq!(append(&queue, &big), Ok(EdgeSeq(11)));
    let batch = read_all(&queue, 0).unwrap();
    let expected = Skip { from: EdgeSeq(1), to: EdgeSeq(11), reason: SkipReason::Expired };
    assert_eq!(batch.skips, [expected]);
    queue.acknowledge(LANE, EdgeSeq(11)).unwrap();
    assert_eq!(now(queue.status()).unwrap()[0].drops.expired_records, 10);
}

#[test]
fn a_full_disk_refuses_with_its_reason_and_recovers() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    append(&queue, &record(0, "before")).unwrap();
    let capacity_bytes = Some(machine.disk.used_bytes() + 100);
    machine.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    let refused = append(&queue, &record(0, vec![0u8; 1000]));
    assert!(matches!(refused, Err(AppendError::DiskFull { .. })), "{refused:?}");
    assert_eq!(queue.poisoned(), None);
    assert_eq!(append(&queue, &record(0, "small")), Ok(EdgeSeq(2)), "what fits is still taken");
    queue.acknowledge(LANE, EdgeSeq(1)).unwrap();
    now(queue.flush()).unwrap();
    machine.disk.set_faults(Faults::default());
    assert_eq!(append(&queue, &record(0, "after")), Ok(EdgeSeq(3)));
    drop(queue);
    machine.crash();
    let (queue, recovered) = machine.open();
    assert_eq!(recovered.lanes[0].truncated_bytes, 0, "the partial write was cut back");
    assert_eq!(bodies(&read_all(&queue, 0).unwrap()), ["small", "after"]);
}

#[test]
fn a_disk_too_full_for_a_new_segment_leaves_nothing_behind() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let used = machine.disk.used_bytes();
    for room in [0, 30, 64, 100] {
        let capacity_bytes = Some(used + room);
        machine.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
        let refused = append(&queue, &record(0, vec![0u8; 1000]));
        assert!(matches!(refused, Err(AppendError::DiskFull { .. })), "{refused:?}");
    }
    machine.disk.set_faults(Faults::default());
    assert_eq!(append(&queue, &record(0, "after")), Ok(EdgeSeq(1)));
}

#[test]
fn a_failed_sync_poisons_until_the_queue_is_opened_again() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    append(&queue, &record(0, "safe")).unwrap();
    machine.disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
    let refused = append(&queue, &record(0, "lost"));
    assert!(matches!(refused, Err(AppendError::Poisoned { .. })), "{refused:?}");
    let again = append(&queue, &record(0, "later"));
    assert!(matches!(again, Err(AppendError::Poisoned { .. })), "{again:?}");
    assert!(queue.poisoned().unwrap().contains("simulated sync failure"));
    assert_eq!(
        bodies(&read_all(&queue, 0).unwrap()),
        ["safe"],
        "what was synced can still be sent"
    );
    assert!(matches!(now(queue.flush()), Err(QueueError::Poisoned { .. })));
    drop(queue);
    machine.crash();
    let (queue, _) = machine.open();
    append(&queue, &record(0, "again")).unwrap();
    let found = bodies(&read_all(&queue, 0).unwrap());
    assert_eq!(
        (found.first(), found.last()),
        (Some(&"safe".to_owned()), Some(&"again".to_owned()))
    );
}

#[test]
fn the_identity_stays_with_the_directory() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let store = queue.store_id();
    append(&queue, &record(0, "a")).unwrap();
    now(queue.set_incarnation(Incarnation(9))).unwrap();
    drop(queue);
    machine.crash();
    let (queue, recovered) = machine.open();
    assert!(!recovered.new_store);
    assert_eq!((queue.store_id(), queue.incarnation()), (store, Some(Incarnation(9))));
    assert_eq!(queue.position(LANE).unwrap().incarnation, Some(Incarnation(9)));
    drop(queue);

    // The identity lost: the segments still know the store, but the cloud has to issue a new incarnation.
    machine.disk.corrupt(&Path::new(DIR).join("queue.id"), |bytes| bytes.fill(0xff));
    machine.disk.kill();
    let (queue, recovered) = machine.open();
    assert_eq!((queue.store_id(), queue.incarnation()), (store, None));
    assert!(!recovered.new_store && !recovered.notes.is_empty(), "{recovered:?}");
    assert_eq!(bodies(&read_all(&queue, 0).unwrap()), ["a"]);

    let (wiped, recovered) = Machine::new(1).open();
    assert!(recovered.new_store);
    assert_ne!(wiped.store_id(), store);
}

/// The identity's register is overwritten in place, which on a file system that copies on write takes space. The queue said
/// that a new incarnation was durable while the disk was full, and the uplink began to send under it: after a power cut the
/// queue did not know the incarnation under which the cloud had its records.
#[test]
fn an_incarnation_that_found_no_space_does_not_count_and_can_be_tried_again() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    now(queue.set_incarnation(Incarnation(8))).unwrap();
    let capacity_bytes = Some(machine.disk.used_bytes());
    machine.disk.set_faults(Faults { capacity_bytes, copies_on_write: true, ..Faults::default() });
    for _ in 0..2 {
        let refused = now(queue.set_incarnation(Incarnation(9)));
        assert!(matches!(refused, Err(QueueError::DiskFull { .. })), "{refused:?}");
        assert_eq!(queue.incarnation(), Some(Incarnation(8)), "nothing may be sent under it");
        assert_eq!(queue.position(LANE).unwrap().incarnation, Some(Incarnation(8)));
    }
    assert_eq!(queue.poisoned(), None);
    machine.disk.set_faults(Faults::default());
    now(queue.flush()).unwrap();
    assert_eq!(queue.incarnation(), Some(Incarnation(8)), "nobody asks for it any more");
    now(queue.set_incarnation(Incarnation(9))).unwrap();
    drop(queue);
    machine.crash();
    assert_eq!(machine.open().0.incarnation(), Some(Incarnation(9)));
}

/// The same fault for cursors: a flush said that an acknowledgement was durable although its cursor had found no space.
#[test]
fn a_flush_on_a_full_disk_does_not_say_that_cursors_are_durable() {
    let mut machine = Machine::new(1);
    machine.settings.cursor_delay = Duration::from_secs(3600);
    let (queue, _) = machine.open();
    append(&queue, &record(0, "a")).unwrap();
    let capacity_bytes = Some(machine.disk.used_bytes());
    machine.disk.set_faults(Faults { capacity_bytes, copies_on_write: true, ..Faults::default() });
    queue.acknowledge(LANE, EdgeSeq(1)).unwrap();
    let refused = now(queue.flush());
    assert!(matches!(refused, Err(QueueError::DiskFull { .. })), "{refused:?}");
    machine.disk.set_faults(Faults::default());
    now(queue.flush()).unwrap();
    drop(queue);
    machine.crash();
    assert_eq!(machine.open().0.position(LANE).unwrap().acknowledged_through, EdgeSeq(1));
}

#[test]
fn a_directory_is_open_once() {
    let machine = Machine::new(1);
    let (_queue, _) = machine.open();
    let again = Queue::open_inline(
        Arc::new(machine.disk.clone()),
        Arc::new(machine.clock.clone()),
        Path::new(DIR),
        machine.settings.clone(),
    );
    assert!(matches!(again, Err(OpenError::Locked { .. })));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let check = |change: fn(&mut super::QueueSettings), expected: &str| {
        let mut machine = Machine::new(1);
        change(&mut machine.settings);
        let opened = Queue::open_inline(
            Arc::new(machine.disk.clone()),
            Arc::new(machine.clock.clone()),
            Path::new(DIR),
            machine.settings,
        );
        let Err(OpenError::Setting { key, .. }) = opened else { panic!("{expected} was taken") };
        assert_eq!(key, expected);
    };
    check(|settings| settings.lanes = 0, "lanes");
    check(|settings| settings.lanes = 9, "lanes");
    check(|settings| settings.max_bytes = 1000, "max_bytes");
}

#[test]
fn records_that_are_too_large_are_refused() {
    let mut machine = Machine::new(1);
    machine.settings.max_bytes = 64 * MIB;
    let (queue, _) = machine.open();
    let huge = record(0, vec![0u8; 4 * 1024 * 1024]);
    assert!(matches!(append(&queue, &huge), Err(AppendError::TooLarge { .. })));
    let mut long_client = record(0, "a");
    long_client.origin.client_id = vec![b'c'; 65_536].into();
    assert!(matches!(append(&queue, &long_client), Err(AppendError::TooLarge { .. })));
    let largest = record(0, vec![0u8; 3 * 1024 * 1024]);
    assert_eq!(append(&queue, &largest), Ok(EdgeSeq(1)), "larger than a segment is fine");
    assert_eq!(append(&queue, &record(0, "b")), Ok(EdgeSeq(2)));
    assert_eq!(read(&queue, 0, 1).entries.len(), 1, "one record is returned whatever its size");
    check_gapless(&read_all(&queue, 0).unwrap());
}

#[test]
fn reads_keep_to_their_limits() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    for _ in 0..20 {
        append(&queue, &record(0, vec![0u8; 500])).unwrap();
    }
    let limited = |bytes, records| now(queue.read(LANE, EdgeSeq(1), bytes, records)).unwrap();
    assert_eq!(limited(1 << 20, 3).entries.len(), 3);
    assert_eq!(limited(1200, 1000).entries.len(), 3);
    assert_eq!(limited(0, 0).entries.len(), 1);
}

#[test]
fn the_digest_tells_histories_apart() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    for n in 0..20 {
        append(&queue, &record(0, format!("{n}"))).unwrap();
    }
    let digests: Vec<ChainDigest> =
        read_all(&queue, 0).unwrap().entries.iter().map(|entry| entry.digest).collect();
    for (index, digest) in digests.iter().enumerate() {
        let seq = EdgeSeq(index as u64 + 1);
        assert_eq!(now(queue.digest_at(LANE, seq)).unwrap(), Some(*digest));
    }
    assert_eq!(now(queue.digest_at(LANE, EdgeSeq(21))).unwrap(), None);
    let start = queue.position(LANE).unwrap().acknowledged_digest;
    assert_eq!(now(queue.digest_at(LANE, EdgeSeq(0))).unwrap(), Some(start));
    queue.acknowledge(LANE, EdgeSeq(20)).unwrap();
    assert_eq!(now(queue.digest_at(LANE, EdgeSeq(20))).unwrap(), digests.last().copied());
}

#[test]
fn replay_goes_through_the_tail_that_the_gateway_has_not_seen() {
    let mut machine = Machine::new(1);
    machine.settings.keep_until_reflected = true;
    let (queue, _) = machine.open();
    for n in 1..=3000u32 {
        append(&queue, &record(0, format!("{n}"))).unwrap();
    }
    queue.reflected(LANE, EdgeSeq(1000));
    queue.acknowledge(LANE, EdgeSeq(3000)).unwrap();
    drop(queue);
    machine.crash();
    let (queue, _) = machine.open();
    let tail: Vec<u64> =
        queue.replay(LANE, EdgeSeq(1000)).map(|entry| entry.unwrap().seq.0).collect();
    assert_eq!(tail, (1001..=3000).collect::<Vec<_>>(), "acknowledged ones are still there");
    assert!(read_all(&queue, 0).unwrap().is_empty(), "but they are not sent again");
    queue.reflected(LANE, EdgeSeq(3000));
    assert!(queue.replay(LANE, EdgeSeq(1000)).count() < 100);
}

#[test]
fn a_full_queue_does_not_release_what_the_gateway_has_not_seen() {
    let mut machine = Machine::new(1);
    machine.settings.keep_until_reflected = true;
    let (queue, _) = machine.open();
    let mut taken = 0;
    while append(&queue, &record(0, vec![0; 2000])).is_ok() {
        taken += 1;
    }
    queue.acknowledge(LANE, EdgeSeq(taken)).unwrap();
    machine.clock.advance(Duration::from_secs(60));
    let refused = append(&queue, &record(0, vec![0; 2000]));
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    assert_eq!(queue.replay(LANE, EdgeSeq(0)).count() as u64, taken);
    queue.reflected(LANE, EdgeSeq(taken));
    assert_eq!(append(&queue, &record(0, "room again")), Ok(EdgeSeq(taken + 1)));
}

#[test]
fn a_packet_id_of_0_is_told_from_none() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    let ids = [Some(0), None, Some(1), Some(u16::MAX)];
    for packet_id in ids {
        let mut append_one = record(0, "a");
        append_one.origin.packet_id = packet_id;
        append(&queue, &append_one).unwrap();
    }
    let found: Vec<_> =
        read_all(&queue, 0).unwrap().entries.iter().map(|e| e.origin.packet_id).collect();
    assert_eq!(found, ids);
}

#[test]
fn wall_time_is_resolved_once_it_is_known() {
    let machine = Machine::new(1);
    machine.clock.set(|now| now.wall_ms = None);
    let (queue, _) = machine.open();
    append(&queue, &record(0, "early")).unwrap();
    let stamp = read(&queue, 0, 1).entries[0].stamp;
    assert_eq!((stamp.wall_ms, queue.resolve(&stamp)), (None, None));
    machine.clock.advance(Duration::from_secs(30));
    machine.clock.set(|now| now.wall_ms = Some(1_800_000_030_000));
    assert_eq!(queue.resolve(&stamp), Some(1_800_000_000_000));
    append(&queue, &record(0, "late")).unwrap();
    drop(queue);
    machine.crash();
    let (queue, _) = machine.open();
    let stamp = read(&queue, 0, 1).entries[0].stamp;
    assert_eq!(queue.resolve(&stamp), Some(1_800_000_000_000), "it survives the reboot");
}

#[test]
fn a_closed_queue_refuses() {
    let machine = Machine::new(1);
    let (queue, _) = machine.open();
    append(&queue, &record(0, "a")).unwrap();
    queue.engine.close(&queue.shared);
    assert_eq!(append(&queue, &record(0, "b")), Err(AppendError::Closed));
    assert!(matches!(now(queue.flush()), Err(QueueError::Closed)));
    let (queue, _) = machine.open();
    assert_eq!(bodies(&read_all(&queue, 0).unwrap()), ["a"]);
}
