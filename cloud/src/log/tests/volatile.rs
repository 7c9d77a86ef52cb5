//! The modes `memory` and `hybrid`, and changes of the mode, point by point.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use robustmq_common::ids::{EdgeSeq, LeaderEpoch, Offset, PartitionIndex};
use robustmq_common::limits;
use robustmq_common::record::RecordBatch;

use super::{World, at_times, base_offsets, build, found, origin, produced};
use crate::log::write_behind::Purpose;
use crate::log::{
    AppendContext, AppendError, AppendRules, Appended, Budgets, Log, LogError, Partition,
    ReadError, Retention, StorageMode,
};
use crate::store::{MemoryStore, Store, StoreError};

const MEMORY: StorageMode = StorageMode::MEMORY;
const HYBRID: StorageMode = StorageMode::HYBRID;
const PERSISTENT: StorageMode = StorageMode::Persistent;

fn context(storage: StorageMode) -> AppendContext {
    let rules = AppendRules { storage, max_batch_bytes: usize::MAX, ..AppendRules::default() };
    AppendContext { rules, ..AppendContext::at(0) }
}

/// As a produce handler does it.
async fn append_with(
    partition: &Arc<Partition>,
    batch: RecordBatch,
    context: &AppendContext,
) -> Result<Appended, AppendError> {
    for _ in 0..10 {
        partition.ready().await.map_err(|error| match error {
            LogError::Store(error) => AppendError::Store(error),
            error => panic!("{error}"),
        })?;
        match partition.append(batch.clone(), context) {
            Err(AppendError::NotReady) => {}
            answer => return answer?.durable().await,
        }
    }
    Err(AppendError::NotReady)
}

async fn append(partition: &Arc<Partition>, mode: StorageMode, batch: RecordBatch) -> Appended {
    append_with(partition, batch, &context(mode)).await.expect("taken")
}

#[tokio::test]
async fn what_is_in_memory_is_acknowledged_and_readable_at_once() {
    for mode in [MEMORY, HYBRID] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, mode, at_times(&[0, 0])).await;
        world.store.hold();
        let writes = world.store.stats().writes;
        let mut visible = partition.subscribe();
        let appended = append(&partition, mode, at_times(&[0, 0])).await;
        assert_eq!((appended.base_offset, appended.last_offset), (Offset(2), Offset(3)));
        visible.changed().now_or_never().expect("woken at once").expect("the partition lives");
        assert_eq!(visible.borrow().high_watermark, Offset(4));
        assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 2]);
        assert_eq!(base_offsets(&partition, 3, usize::MAX).await, [2]);
        assert_eq!((world.store.stats().writes, world.store.queued()), (writes, 0));
    }
}

#[tokio::test]
async fn no_offset_is_given_before_it_is_reserved_durably() {
    let world = World::new();
    let partition = world.partition().await;
    world.store.hold();
    let refused = partition.append(at_times(&[0]), &context(MEMORY)).err();
    assert_eq!(refused, Some(AppendError::NotReady));
    let mut ready = Box::pin(partition.ready());
    assert!((&mut ready).now_or_never().is_none());
    let refused = partition.append(at_times(&[0]), &context(MEMORY)).err();
    assert_eq!(refused, Some(AppendError::NotReady));
    world.store.release();
    ready.await.expect("reserved");
    append(&partition, MEMORY, at_times(&[0])).await;
    // A disk without room is said, and nothing is taken beyond what was reserved.
    let world = World::new();
    let full = StoreError::NoSpace("no room".to_owned());
    world.store.fail_next(full.clone());
    let partition = world.partition().await;
    let refused = append_with(&partition, at_times(&[0]), &context(MEMORY)).await;
    assert_eq!(refused.err(), Some(AppendError::Store(full)));
    assert_eq!(partition.offsets().high_watermark, Offset(0));
    append(&partition, MEMORY, at_times(&[0])).await;
}

#[tokio::test]
async fn after_a_crash_memory_goes_on_behind_a_hole_with_a_new_epoch() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, MEMORY, at_times(&[0, 0, 0])).await;
    let world = world.after_crash();
    let partition = world.partition().await;
    let offsets = partition.offsets();
    let resumed = offsets.high_watermark;
    assert!(resumed >= Offset(limits::OFFSET_BLOCK));
    assert_eq!(offsets.log_start_offset, resumed);
    assert_eq!(offsets.leader_epoch, LeaderEpoch(1));
    // A consumer that had read up to 2, or all, waits; it is not sent anywhere.
    for position in [0, 2, 3, resumed.0] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [0; 0]);
    }
    assert!(matches!(
        partition.read(Offset(resumed.0 + 1), 1).await,
        Err(ReadError::OutOfRange { .. })
    ));
    let appended = append(&partition, MEMORY, at_times(&[0])).await;
    assert_eq!(appended.base_offset, resumed);
    for position in [0, 2, 3, resumed.0] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [resumed.0]);
    }
    let end = |epoch| partition.end_of_epoch(LeaderEpoch(epoch));
    assert_eq!(end(0).await, Ok(Some((LeaderEpoch(0), resumed))));
    assert_eq!(end(1).await, Ok(Some((LeaderEpoch(1), Offset(resumed.0 + 1)))));
    assert_eq!(end(2).await, Ok(None));
    // Once more.
    let partition = world.after_crash().partition().await;
    assert_eq!(partition.offsets().leader_epoch, LeaderEpoch(2));
    assert!(partition.offsets().high_watermark > resumed);
    assert_eq!(partition.end_of_epoch(LeaderEpoch(1)).await.map(|end| end.is_some()), Ok(true));
}

#[tokio::test]
async fn a_clean_stop_wastes_no_offsets_and_keeps_what_hybrid_took() {
    for (mode, kept) in [(MEMORY, &[][..]), (HYBRID, &[0, 3][..])] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, mode, produced(1, 0, 0, 3)).await;
        append(&partition, mode, produced(1, 0, 3, 1)).await;
        world.log.stop().await.expect("there is room");
        let partition = world.after_crash().partition().await;
        let offsets = partition.offsets();
        assert_eq!((offsets.high_watermark, offsets.leader_epoch), (Offset(4), LeaderEpoch(0)));
        assert_eq!(base_offsets(&partition, 0, usize::MAX).await, kept);
        let again = append(&partition, mode, produced(1, 0, 3, 1)).await;
        assert_eq!((again.base_offset, again.duplicate), (Offset(3), true));
        assert_eq!(append(&partition, mode, produced(1, 0, 4, 1)).await.base_offset, Offset(4));
    }
}

#[tokio::test]
async fn a_crash_takes_from_hybrid_what_came_after_the_last_write() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, HYBRID, produced(1, 0, 0, 2)).await;
    append(&partition, HYBRID, produced(2, 0, 0, 1)).await;
    let before = world.store.stats().writes;
    partition.flush().await.expect("written");
    assert_eq!(world.store.stats().writes, before + 1, "one write carries both");
    append(&partition, HYBRID, produced(1, 0, 2, 2)).await;
    let world = world.after_crash();
    let partition = world.partition().await;
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 2]);
    assert_eq!(base_offsets(&partition, 4, usize::MAX).await, [0; 0]);
    // The producer goes on where it was: what is between was acknowledged and is lost. What is durable is still known.
    let again = append(&partition, HYBRID, produced(1, 0, 0, 2)).await;
    assert_eq!((again.base_offset, again.duplicate), (Offset(0), true));
    let next = append(&partition, HYBRID, produced(1, 0, 4, 1)).await;
    assert!(next.base_offset > Offset(5) && !next.duplicate);
    assert_eq!(base_offsets(&partition, 3, usize::MAX).await, [next.base_offset.0]);
    let skipped = append_with(&partition, produced(1, 0, 9, 1), &context(HYBRID)).await;
    assert!(skipped.is_err(), "a gap after the crash is the producer's");
}

#[tokio::test(start_paused = true)]
async fn hybrid_is_written_when_it_is_due() {
    let world = World::new();
    let log = Arc::new(Log::new(Arc::clone(&world.store) as Arc<dyn Store>));
    let partition = log.partition(world.topic, PartitionIndex(0)).await.expect("an empty store");
    let writer = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.write_behind().await }
    });
    let mode = StorageMode::Hybrid { write_behind: Duration::from_millis(500) };
    append(&partition, mode, at_times(&[0])).await;
    let before = world.store.stats().writes;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.store.stats().writes, before);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.store.stats().writes, before + 1);
    // A full disk is tried again.
    append(&partition, mode, at_times(&[0])).await;
    world.store.fail_next(StoreError::NoSpace("no room".to_owned()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.store.stats().writes, before + 2);
    // Edges wait for the write, which does not let them wait.
    partition.ready().await.expect("the store goes on");
    assert_eq!(partition.origin_applied(&origin(1, 1).key).await, Ok(None));
    let began = tokio::time::Instant::now();
    for seq in 1..=3 {
        let context = AppendContext { origin: Some(origin(seq, seq)), ..context(mode) };
        append_with(&partition, at_times(&[0]), &context).await.expect("written");
    }
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    let after = world.after_crash();
    assert_eq!(base_offsets(&*after.partition().await, 0, usize::MAX).await, [0, 1, 2, 3, 4]);
    writer.abort();
}

/// A store that has seen a full disk refuses at once, without a write that could fail: nobody tried again, and what `hybrid` had
/// acknowledged stayed in memory for good.
#[tokio::test(start_paused = true)]
async fn hybrid_is_written_when_there_is_room_again_however_long_that_takes() {
    let world = World::new();
    let log = Arc::new(Log::new(Arc::clone(&world.store) as Arc<dyn Store>));
    let partition = log.partition(world.topic, PartitionIndex(0)).await.expect("an empty store");
    let writer = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.write_behind().await }
    });
    append(&partition, HYBRID, at_times(&[0])).await;
    world.store.set_full(true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    append(&partition, HYBRID, at_times(&[0])).await;
    world.store.set_full(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = world.after_crash();
    assert_eq!(base_offsets(&*after.partition().await, 0, usize::MAX).await, [0, 1]);
    writer.abort();
}

#[tokio::test]
async fn a_full_write_behind_buffer_makes_appends_wait() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, HYBRID, at_times(&[0])).await;
    world.store.hold();
    let large = build(&[0], None, &vec![0; limits::WRITE_BEHIND_BYTES]);
    append(&partition, HYBRID, large).await;
    let refused = partition.append(at_times(&[0]), &context(HYBRID)).err();
    assert_eq!(refused, Some(AppendError::NotReady));
    let mut ready = Box::pin(partition.ready());
    assert!((&mut ready).now_or_never().is_none());
    let mut flush = Box::pin(partition.flush());
    assert!((&mut flush).now_or_never().is_none());
    world.store.release();
    flush.await.expect("written");
    ready.await.expect("there is room");
    append(&partition, HYBRID, at_times(&[0])).await;
}

#[tokio::test]
async fn a_failed_write_behind_loses_nothing_and_a_poisoned_store_is_said() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, HYBRID, produced(1, 0, 0, 1)).await;
    let full = StoreError::NoSpace("no room".to_owned());
    world.store.fail_next(full.clone());
    assert_eq!(partition.flush().await, Err(full));
    append(&partition, HYBRID, produced(1, 0, 1, 1)).await;
    partition.flush().await.expect("there is room again");
    let world = world.after_crash();
    let partition = world.partition().await;
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 1]);
    let again = append(&partition, HYBRID, produced(1, 0, 1, 1)).await;
    assert!(again.duplicate);

    append(&partition, HYBRID, at_times(&[0])).await;
    let poisoned = StoreError::Poisoned("sync failed".to_owned());
    world.store.fail_next(poisoned.clone());
    assert_eq!(partition.flush().await, Err(poisoned.clone()));
    let refused = append_with(&partition, at_times(&[0]), &context(HYBRID)).await;
    assert_eq!(refused.err(), Some(AppendError::Store(poisoned)));
}

#[tokio::test]
async fn an_edges_batch_is_acknowledged_in_hybrid_when_written_and_in_memory_when_taken() {
    for (mode, at_once) in [(MEMORY, true), (HYBRID, false)] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, mode, at_times(&[0])).await;
        let key = origin(1, 3).key;
        assert_eq!(partition.origin_applied(&key).await, Ok(None));
        let context = AppendContext { origin: Some(origin(1, 3)), ..context(mode) };
        let pending = partition.append(at_times(&[0]), &context).expect("taken");
        let mut pending = Box::pin(pending.durable());
        assert_eq!((&mut pending).now_or_never().is_some(), at_once);
        let refused = partition.append(at_times(&[0]), &context).err();
        assert_eq!(refused, Some(AppendError::AlreadyApplied { applied: EdgeSeq(3) }));
        let told = partition.origin_applied(&key).now_or_never();
        assert_eq!(told.is_some(), at_once);
        partition.flush().await.expect("written");
        if !at_once {
            pending.await.expect("written");
        }
        assert_eq!(partition.origin_applied(&key).await, Ok(Some(EdgeSeq(3))));
        let after = world.after_crash().partition().await;
        let known = (!at_once).then_some(EdgeSeq(3));
        assert_eq!(after.origin_applied(&key).await, Ok(known));
    }
}

#[tokio::test]
async fn a_ring_keeps_what_there_is_room_for() {
    let world = World::new();
    let partition = world.partition().await;
    let value = vec![0; 10_000];
    let batch = || build(&[0], None, &value);
    let ring = StorageMode::Memory { ring_bytes: Some(35_000) };
    for _ in 0..10 {
        append(&partition, ring, batch()).await;
    }
    assert_eq!(base_offsets(&partition, 7, usize::MAX).await, [7, 8, 9]);
    assert_eq!(partition.offsets().log_start_offset, Offset(7));
    assert!(matches!(partition.read(Offset(6), 1).await, Err(ReadError::OutOfRange { .. })));
}

#[tokio::test]
async fn one_budget_bounds_all_rings_and_the_largest_give() {
    let store = Arc::new(MemoryStore::new());
    let budgets = Budgets { unstored_bytes: limits::UNSTORED_BYTES_MIN, ..Budgets::default() };
    let log = Log::with_budgets(Arc::clone(&store) as Arc<dyn Store>, budgets);
    let topic = World::new().topic;
    let of = |index| log.partition(topic, PartitionIndex(index));
    let (small, large) = (of(0).await.expect("loads"), of(1).await.expect("loads"));
    let batch = || build(&[0], None, &vec![0; 10_000]);
    for _ in 0..20 {
        append(&small, MEMORY, batch()).await;
    }
    for _ in 0..500 {
        append(&large, MEMORY, batch()).await;
        assert!(log.unstored_bytes() <= limits::UNSTORED_BYTES_MIN);
    }
    assert_eq!(small.offsets().log_start_offset, Offset(0));
    assert_eq!(base_offsets(&small, 0, usize::MAX).await.len(), 20);
    let kept = base_offsets(&large, large.offsets().log_start_offset.0, usize::MAX).await;
    assert!((50..100).contains(&kept.len()), "{}", kept.len());
    // It was silent.
    let gone = 500 - kept.len() as u64;
    assert_eq!((small.pushed_out(), large.pushed_out()), (0, gone));
    assert_eq!(log.pushed_out(), (gone, gone * batch().size() as u64));
    drop((small, large, log));
}

#[tokio::test]
async fn retention_deletes_from_rings_by_age_and_size() {
    let world = World::new();
    let partition = world.partition().await;
    for time in [10, 20, 500, 30] {
        append(&partition, MEMORY, at_times(&[time])).await;
    }
    let age = Retention { age: Some(Duration::from_millis(600)), bytes: None };
    assert_eq!(partition.enforce_retention(age, 1000).await, Ok(Offset(2)));
    let size = at_times(&[0]).size() as u64;
    let bytes = Retention { age: None, bytes: Some(size) };
    assert_eq!(partition.enforce_retention(bytes, 1000).await, Ok(Offset(3)));
    assert_eq!(base_offsets(&partition, 3, usize::MAX).await, [3]);
    assert_eq!(partition.delete_records(None).await, Ok(Offset(4)));
    assert_eq!(base_offsets(&partition, 4, usize::MAX).await, [0; 0]);
    assert_eq!(partition.size_bytes().await, Ok(0));
    assert_eq!(append(&partition, MEMORY, at_times(&[0])).await.base_offset, Offset(4));
}

#[tokio::test]
async fn times_are_found_in_memory_and_in_the_store() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, HYBRID, at_times(&[10, 50])).await;
    partition.flush().await.expect("written");
    append(&partition, HYBRID, at_times(&[30, 90])).await;
    for (time, expected) in [(0, (0, 10)), (11, (1, 50)), (51, (3, 90))] {
        assert_eq!(found(&partition, time).await, Some(expected), "time {time}");
    }
    let max = partition.offset_for_max_timestamp().await.expect("readable").expect("not empty");
    assert_eq!(max.offset, Offset(3));
}

#[tokio::test]
async fn a_mode_changes_in_every_direction_and_loses_nothing() {
    for from in [MEMORY, HYBRID, PERSISTENT] {
        for to in [MEMORY, HYBRID, PERSISTENT] {
            let world = World::new();
            let partition = world.partition().await;
            append(&partition, from, produced(1, 0, 0, 2)).await;
            append(&partition, from, produced(1, 0, 2, 1)).await;
            world.log.change_mode(world.topic, to).await.expect("there is room");
            // A request that knows only the old mode follows the new one.
            let again = append(&partition, from, produced(1, 0, 2, 1)).await;
            assert!(again.duplicate);
            append(&partition, from, produced(1, 0, 3, 1)).await;
            assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 2, 3], "{from:?} {to:?}");
            let (end, kept) = match (from, to) {
                (_, PERSISTENT) => (Some(Offset(4)), &[0, 2, 3][..]),
                // Nothing changed, so nothing was written.
                _ if from == to => (None, &[][..]),
                _ => (None, &[0, 2][..]),
            };
            let after = world.after_crash().partition().await;
            assert_eq!(base_offsets(&after, 0, usize::MAX).await, kept, "{from:?} {to:?}");
            if let Some(end) = end {
                assert_eq!(after.offsets().high_watermark, end);
                assert_eq!(after.offsets().leader_epoch, LeaderEpoch(0));
            }
        }
    }
}

#[tokio::test]
async fn a_change_waits_for_writes_on_their_way_and_survives_their_failure() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, PERSISTENT, at_times(&[0])).await;
    world.store.hold();
    let pending = partition.append(at_times(&[0]), &context(PERSISTENT)).expect("taken");
    let mut change = Box::pin(world.log.change_mode(world.topic, HYBRID));
    assert!((&mut change).now_or_never().is_none());
    let refused = partition.append(at_times(&[0]), &context(PERSISTENT)).err();
    assert_eq!(refused, Some(AppendError::NotReady));
    world.store.fail_next(StoreError::NoSpace("no room".to_owned()));
    world.store.release();
    assert!(pending.durable().await.is_err());
    change.await.expect("nothing is left to write");
    assert_eq!(append(&partition, HYBRID, at_times(&[0])).await.base_offset, Offset(1));

    // To a mode that promises more, nothing is promised before it is written.
    world.store.fail_next(StoreError::NoSpace("no room".to_owned()));
    assert!(world.log.change_mode(world.topic, PERSISTENT).await.is_err());
    append(&partition, HYBRID, at_times(&[0])).await;
    world.log.change_mode(world.topic, PERSISTENT).await.expect("there is room");
    let after = world.after_crash().partition().await;
    assert_eq!(base_offsets(&after, 0, usize::MAX).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_ring_larger_than_one_write_is_written_in_parts() {
    let world = World::new();
    let partition = world.partition().await;
    let value = vec![0; limits::WRITE_OUT_BYTES / 3];
    for _ in 0..10 {
        append(&partition, MEMORY, build(&[0], None, &value)).await;
    }
    let before = world.store.stats().writes;
    world.log.change_mode(world.topic, PERSISTENT).await.expect("there is room");
    assert!(world.store.stats().writes > before + 2);
    let after = world.after_crash().partition().await;
    let all = base_offsets(&after, 0, usize::MAX).await;
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    assert_eq!(after.offsets().leader_epoch, LeaderEpoch(0));
}

#[tokio::test]
async fn old_records_of_a_topic_that_became_memory_go_by_retention() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, PERSISTENT, at_times(&[10])).await;
    world.log.change_mode(world.topic, MEMORY).await.expect("there is room");
    append(&partition, MEMORY, at_times(&[20])).await;
    append(&partition, MEMORY, at_times(&[2000])).await;
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 1, 2]);
    let age = Retention { age: Some(Duration::from_millis(100)), bytes: None };
    assert_eq!(partition.enforce_retention(age, 1000).await, Ok(Offset(2)));
    assert_eq!(base_offsets(&partition, 2, usize::MAX).await, [2]);
}

#[tokio::test]
async fn partitions_with_records_in_memory_only_are_not_given_back() {
    for mode in [MEMORY, HYBRID] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, mode, at_times(&[0])).await;
        drop(partition);
        assert_eq!(world.log.evict_idle(Duration::ZERO), 0);
        world.log.settle_idle(Duration::ZERO).await;
        let given_back = usize::from(mode == HYBRID);
        assert_eq!(world.log.evict_idle(Duration::ZERO), given_back);
        let partition = world.partition().await;
        assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0]);
        // An empty ring can go, and wastes nothing.
        partition.delete_records(None).await.expect("deleted");
        drop(partition);
        world.log.settle_idle(Duration::ZERO).await;
        world.log.evict_idle(Duration::ZERO);
        assert_eq!(world.log.loaded(), 0);
        assert_eq!(append(&world.partition().await, mode, at_times(&[0])).await.base_offset.0, 1);
    }
}

#[tokio::test]
async fn a_dropped_topic_writes_nothing_more_and_gives_its_memory_back() {
    for mode in [MEMORY, HYBRID] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, mode, at_times(&[0])).await;
        world.log.close_topics([world.topic]);
        assert!(partition.flush().await.is_err() || mode == MEMORY);
        let refused = partition.append(at_times(&[0]), &context(mode)).err();
        assert_eq!(refused, Some(AppendError::Dropped(world.topic)));
        assert_eq!(world.log.unstored_bytes(), 0);
    }
}

/// The ring had moved the log start in memory only: after a crash records that had been deleted could be read again.
#[tokio::test]
async fn what_a_ring_gave_up_of_an_earlier_mode_does_not_come_back() {
    let world = World::new();
    let partition = world.partition().await;
    let batch = || build(&[0], None, &[0; 1000]);
    for _ in 0..3 {
        append(&partition, PERSISTENT, batch()).await;
    }
    let ring = StorageMode::Memory { ring_bytes: Some(3000) };
    world.log.change_mode(world.topic, ring).await.expect("there is room");
    for _ in 0..4 {
        append(&partition, ring, batch()).await;
    }
    assert_eq!(partition.offsets().log_start_offset, Offset(5));
    let keep_all = Retention::default();
    assert_eq!(partition.enforce_retention(keep_all, 1).await, Ok(Offset(5)));
    let world = world.after_crash();
    let partition = world.partition().await;
    assert!(matches!(partition.read(Offset(2), 1).await, Err(ReadError::OutOfRange { .. })));
    assert!(partition.offsets().log_start_offset >= Offset(5));
}

/// A hole that a crash left is not a deletion: retention must not make it one, or consumers in it would be sent elsewhere.
#[tokio::test]
async fn retention_leaves_the_hole_after_a_crash_as_it_is() {
    let world = World::new();
    append(&world.partition().await, MEMORY, at_times(&[0, 0, 0])).await;
    let world = world.after_crash();
    let partition = world.partition().await;
    append(&partition, MEMORY, at_times(&[0])).await;
    partition.enforce_retention(Retention::default(), 1).await.expect("nothing to do");
    let partition = world.after_crash().partition().await;
    assert_eq!(base_offsets(&partition, 2, usize::MAX).await, [0; 0]);
}

#[tokio::test]
async fn a_chunk_closed_in_hybrid_is_found_by_time_whatever_fails_meanwhile() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, HYBRID, at_times(&[10])).await;
    partition.flush().await.expect("there is room");
    world.store.fail_next(StoreError::NoSpace("no room".to_owned()));
    assert!(partition.close_open_chunk(|_| true).await.is_err());
    append(&partition, HYBRID, at_times(&[20])).await;
    partition.flush().await.expect("there is room again");
    assert_eq!(partition.close_open_chunk(|_| true).await.ok(), Some(Some(Offset(1))));
    append(&partition, HYBRID, at_times(&[5])).await;
    // Not while a write decides what the end is.
    world.store.hold();
    let flush = tokio::spawn({
        let partition = Arc::clone(&partition);
        async move { partition.flush().await }
    });
    while world.store.queued() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(partition.close_open_chunk(|_| true).await.ok(), Some(None));
    world.store.release();
    flush.await.expect("no panic").expect("there is room");
    for (time, offset) in [(5, 0), (11, 1), (20, 1)] {
        let found = partition.offset_for_time(time).await.expect("readable");
        assert_eq!(found.map(|found| found.offset), Some(Offset(offset)), "{time}");
    }
    let partition = world.after_crash().partition().await;
    let found = partition.offset_for_time(11).await.expect("readable");
    assert_eq!(found.map(|found| found.offset), Some(Offset(1)));
}

/// A consumer that reads to the end waited for a million offsets that a crash had skipped, and its lag was as large.
#[tokio::test]
async fn after_a_crash_the_end_is_behind_the_last_record_until_more_comes() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, HYBRID, at_times(&[0, 0])).await;
    partition.flush().await.expect("there is room");
    append(&partition, HYBRID, at_times(&[0, 0])).await;
    let world = world.after_crash();
    let partition = world.partition().await;
    assert_eq!(partition.offsets().high_watermark, Offset(2));
    // Those who were further wait where they are, and go on when more comes.
    for position in [2, 4, limits::OFFSET_BLOCK] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [0; 0], "{position}");
    }
    let next = append(&partition, HYBRID, at_times(&[0])).await.base_offset;
    assert!(next >= Offset(limits::OFFSET_BLOCK));
    assert_eq!(partition.offsets().high_watermark, Offset(next.0 + 1));
    for position in [2, 4, limits::OFFSET_BLOCK] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [next.0], "{position}");
    }
}

/// As the former: the end that clients are told goes back to behind the last record that is there. Were it where the next one comes, whoever
/// reads to the end would wait between the two for a record that nobody sends.
#[tokio::test]
async fn after_a_crash_the_end_of_a_topic_that_became_memory_is_behind_what_is_stored() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, PERSISTENT, at_times(&[0, 0])).await;
    world.log.change_mode(world.topic, MEMORY).await.expect("there is room");
    append(&partition, MEMORY, at_times(&[0, 0])).await;
    assert_eq!(partition.offsets().high_watermark, Offset(4));
    let world = world.after_crash();
    let partition = world.partition().await;
    let offsets = partition.offsets();
    assert_eq!((offsets.log_start_offset, offsets.high_watermark), (Offset(0), Offset(2)));
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0]);
    // Who was further is not out of range.
    for position in [2, 3, 4] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [0; 0], "{position}");
    }
    let next = append(&partition, MEMORY, at_times(&[0])).await.base_offset;
    assert!(next >= Offset(limits::OFFSET_BLOCK));
    for position in [2, 3, 4] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [next.0], "{position}");
    }
}

/// The log start was moved back, and the hole before it was forgotten: consumers that stood in it were told that they had missed
/// something.
#[tokio::test]
async fn a_deletion_that_fails_leaves_readers_in_a_hole_where_they_are() {
    let world = World::new();
    append(&world.partition().await, MEMORY, at_times(&[0, 0])).await;
    let world = world.after_crash();
    let partition = world.partition().await;
    let resumed = append(&partition, MEMORY, at_times(&[0])).await.base_offset;
    let full = StoreError::NoSpace("no room".to_owned());
    world.store.fail_next(full.clone());
    assert_eq!(partition.delete_records(None).await, Err(full.into()));
    assert_eq!(partition.offsets().log_start_offset, resumed);
    for position in [0, 1, resumed.0] {
        assert_eq!(base_offsets(&partition, position, usize::MAX).await, [resumed.0]);
    }
    partition.delete_records(None).await.expect("there is room");
    assert!(matches!(partition.read(Offset(1), 1).await, Err(ReadError::OutOfRange { .. })));
}

/// After a crash, a write other than an append's could be the first to tell the store of the new leader epoch, and did not say where it
/// started: from the next start on it began at 0, so that clients that asked where the old one ended were sent to the end of the log.
#[tokio::test]
async fn the_start_of_an_epoch_is_stored_by_whatever_tells_of_the_epoch_first() {
    for closes_a_chunk in [false, true] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, HYBRID, at_times(&[10])).await;
        partition.flush().await.expect("written");
        let world = world.after_crash();
        let partition = world.partition().await;
        let resumed = partition.sequencer().next_offset;
        if closes_a_chunk {
            let age = Retention { age: Some(Duration::from_millis(1)), bytes: None };
            partition.enforce_retention(age, 1000).await.expect("deleted");
        } else {
            let refused = partition.append(at_times(&[0]), &context(HYBRID)).err();
            assert_eq!(refused, Some(AppendError::NotReady));
            world.log.change_mode(world.topic, PERSISTENT).await.expect("there is room");
        }
        let world = world.after_crash();
        let partition = world.partition().await;
        assert_eq!(append(&partition, PERSISTENT, at_times(&[0])).await.base_offset, resumed);
        assert_eq!(partition.offsets().leader_epoch, LeaderEpoch(1));
        let end = partition.end_of_epoch(LeaderEpoch(0)).await;
        assert_eq!(end, Ok(Some((LeaderEpoch(0), resumed))), "{closes_a_chunk}");
    }
}

/// A partition that was idle a moment ago was stopped with the record that had come since, as if that had been written: the next
/// change of the mode left it out.
#[tokio::test]
async fn an_append_that_overtakes_a_rest_is_kept_by_a_change_of_the_mode() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, MEMORY, at_times(&[0])).await;
    // It was idle, and without records, when it was chosen.
    partition.stop(Purpose::Rest).await.expect("there is room");
    append(&partition, MEMORY, at_times(&[0])).await;
    world.log.change_mode(world.topic, PERSISTENT).await.expect("there is room");
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 1]);
    let after = world.after_crash();
    assert_eq!(base_offsets(&*after.partition().await, 0, usize::MAX).await, [0, 1]);
}

/// An append that came behind the last write was acknowledged, and lost with the process.
#[tokio::test]
async fn after_a_stop_nothing_is_acknowledged() {
    for mode in [MEMORY, HYBRID, PERSISTENT] {
        let world = World::new();
        let partition = world.partition().await;
        append(&partition, mode, at_times(&[0])).await;
        world.log.stop().await.expect("there is room");
        let refused = append_with(&partition, at_times(&[0]), &context(mode)).await;
        assert_eq!(refused.err(), Some(AppendError::Store(StoreError::Closed)), "{mode:?}");
        let resumed = world.after_crash().partition().await.sequencer().next_offset;
        assert_eq!(resumed, Offset(1), "{mode:?}");
    }
}

/// Each was written and synced by itself, in the middle of a request that needed room for one more partition.
#[tokio::test]
async fn idle_partitions_are_brought_to_rest_together() {
    let world = World::new();
    const PARTITIONS: usize = 100;
    for index in 0..i32::try_from(PARTITIONS).expect("few") {
        let partition = world.log.partition(world.topic, PartitionIndex(index)).await;
        append(&partition.expect("loads"), HYBRID, at_times(&[0])).await;
    }
    // So many wait for one sync.
    let waiting = async |writes: usize, work: &mut (dyn Future<Output = ()> + Unpin)| {
        world.store.hold();
        while world.store.queued() < writes {
            assert!(work.now_or_never().is_none(), "it ended without waiting for all");
            tokio::task::yield_now().await;
        }
        world.store.release();
        work.await;
    };
    waiting(PARTITIONS, &mut Box::pin(world.log.settle_idle(Duration::ZERO))).await;
    assert_eq!(world.log.evict_idle(Duration::ZERO), PARTITIONS);
    // So are those of a topic whose mode changes.
    for index in 0..i32::try_from(PARTITIONS).expect("few") {
        let partition = world.log.partition(world.topic, PartitionIndex(index)).await;
        append(&partition.expect("loads"), HYBRID, at_times(&[0])).await;
    }
    let change =
        async { world.log.change_mode(world.topic, PERSISTENT).await.expect("there is room") };
    waiting(limits::WRITE_OUTS_AT_ONCE, &mut Box::pin(change)).await;
}

#[tokio::test]
async fn room_for_more_partitions_is_made_before_somebody_needs_it() {
    let store = Arc::new(MemoryStore::new()) as Arc<dyn Store>;
    let log = Log::with_budgets(store, Budgets { state_bytes: 200 * 1024, ..Budgets::default() });
    let topic = World::new().topic;
    let mut loaded = 0;
    while log.make_room() {
        let partition = log.partition(topic, PartitionIndex(loaded)).await.expect("there is room");
        append(&partition, HYBRID, at_times(&[0])).await;
        loaded += 1;
    }
    // None of them could go.
    assert_eq!(log.loaded(), usize::try_from(loaded).expect("some"));
    log.settle_idle(Duration::ZERO).await;
    assert!(log.make_room());
    assert!(log.loaded() < usize::try_from(loaded).expect("some"));
}
