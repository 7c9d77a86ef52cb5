//! Partitions over the memory engine, point by point.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use robustmq_common::ids::{
    EdgeId, EdgeSeq, Incarnation, LaneId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch,
    ProducerId, TopicId,
};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, Producer, RecordBatch};

use super::{
    AppendContext, AppendError, AppendRules, Appended, Budgets, DeleteRecordsError, FoundOffset,
    Log, LogError, Origin, OriginKey, Partition, ProducerError, ProducerIds, ReadError, Retention,
};
use crate::log::totals::Part;
use crate::store::{MemoryStore, Store, StoreError};

mod model;
mod tiered;
mod tiered_model;
mod totals;
mod volatile;
mod volatile_model;

struct World {
    store: Arc<MemoryStore>,
    log: Log,
    topic: TopicId,
}

impl World {
    fn new() -> Self {
        Self::over(MemoryStore::new(), TopicId::random())
    }

    fn over(store: MemoryStore, topic: TopicId) -> Self {
        let store = Arc::new(store);
        Self { log: Log::new(Arc::clone(&store) as Arc<dyn Store>), store, topic }
    }

    async fn partition(&self) -> Arc<Partition> {
        self.log.partition(self.topic, PartitionIndex(0)).await.expect("an intact store")
    }

    /// What is there after a power cut now.
    fn after_crash(&self) -> Self {
        Self::over(self.store.crash(0), self.topic)
    }
}

/// A batch with one record for each timestamp.
fn at_times(times: &[i64]) -> RecordBatch {
    build(times, None, b"value")
}

fn build(times: &[i64], producer: Option<Producer>, value: &[u8]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for timestamp_ms in times {
        let record =
            NewRecord { timestamp_ms: *timestamp_ms, value: Some(value), ..NewRecord::default() };
        builder.push(&record).expect("it fits");
    }
    builder.build().expect("it fits")
}

fn produced(id: i64, epoch: i16, sequence: i32, records: usize) -> RecordBatch {
    let producer =
        Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence: sequence };
    build(&vec![0; records], Some(producer), b"value")
}

fn origin(first: u64, last: u64) -> Origin {
    let edge = EdgeId::new("gateway").expect("a legal name");
    let key = OriginKey { edge, incarnation: Incarnation(1), lane: LaneId(0) };
    Origin { key, first_seq: EdgeSeq(first), last_seq: EdgeSeq(last) }
}

async fn append(partition: &Arc<Partition>, batch: RecordBatch) -> Result<Appended, AppendError> {
    append_at(partition, batch, 0).await
}

async fn append_at(
    partition: &Arc<Partition>,
    batch: RecordBatch,
    now_ms: i64,
) -> Result<Appended, AppendError> {
    partition.ready().await.expect("the store goes on");
    partition.append(batch, &AppendContext::at(now_ms))?.durable().await
}

async fn base_offsets(partition: &Partition, from: i64, max_bytes: usize) -> Vec<i64> {
    let result = partition.read(Offset(from), max_bytes).await.expect("in range");
    let base = |bytes| RecordBatch::parse(bytes).expect("an intact batch").base_offset().0;
    result.batches.into_iter().map(base).collect()
}

/// The totals are what a walk through the time index finds.
pub(in crate::log) async fn check_totals(partition: &Partition) {
    for (part, from) in
        [(Part::Whole, partition.log_start()), (Part::Local, partition.local_start())]
    {
        let mut resume = partition.keys().chunks_from(from);
        let mut bytes = 0;
        while !resume.is_empty() {
            let page = partition.chunk_page(&mut resume).await.expect("readable");
            bytes += page.iter().map(|(chunk, _)| chunk.bytes).sum::<u64>();
        }
        assert_eq!(partition.closed_bytes(part).await, Ok(bytes), "{part:?} from {from}");
    }
}

#[tokio::test]
async fn offsets_are_dense_and_survive_a_crash() {
    let world = World::new();
    let partition = world.partition().await;
    for (records, base) in [(1, 0), (3, 1), (2, 4)] {
        let appended = append(&partition, at_times(&vec![0; records])).await.expect("taken");
        assert_eq!(appended.base_offset, Offset(base));
    }
    let partition = world.after_crash().partition().await;
    let appended = append(&partition, at_times(&[0])).await.expect("taken");
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(6), Offset(6)));
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 1, 4, 6]);
}

#[tokio::test]
async fn nothing_is_readable_before_it_is_durable_and_readers_are_woken_then() {
    let world = World::new();
    let partition = world.partition().await;
    let mut visible = partition.subscribe();
    world.store.hold();
    let pending = partition.append(at_times(&[0, 0]), &AppendContext::at(0)).expect("taken");
    assert_eq!(partition.offsets().high_watermark, Offset(0));
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0; 0]);
    // Assigned and not durable yet: nothing there, and not out of range.
    assert_eq!(base_offsets(&partition, 2, usize::MAX).await, [0; 0]);
    assert!(visible.changed().now_or_never().is_none());
    world.store.release();
    visible.changed().await.expect("the partition lives");
    assert_eq!(visible.borrow().high_watermark, Offset(2));
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0]);
    assert_eq!(pending.durable().await.expect("durable").base_offset, Offset(0));
}

#[tokio::test]
async fn a_stored_batch_is_the_clients_with_its_place() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, at_times(&[7])).await.expect("taken");
    let batch = at_times(&[1, 2]);
    append(&partition, batch.clone()).await.expect("taken");
    let result = partition.read(Offset(2), 1).await.expect("in range");
    let stored = RecordBatch::parse(result.batches[0].clone()).expect("an intact batch");
    assert_eq!(stored, batch.placed(Offset(1), LeaderEpoch(0)));
}

#[tokio::test]
async fn reads_are_bounded_and_give_at_least_one_batch() {
    let world = World::new();
    let partition = world.partition().await;
    for _ in 0..4 {
        append(&partition, at_times(&[0, 0])).await.expect("taken");
    }
    let size = at_times(&[0, 0]).size() + 64;
    assert_eq!(base_offsets(&partition, 0, 0).await, [0]);
    assert_eq!(base_offsets(&partition, 3, 1).await, [2]);
    assert_eq!(base_offsets(&partition, 3, 2 * size).await, [2, 4]);
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 2, 4, 6]);
    assert_eq!(base_offsets(&partition, 8, usize::MAX).await, [0; 0]);
    let out_of_range = |from| ReadError::OutOfRange {
        from: Offset(from),
        log_start_offset: Offset(0),
        end: Offset(8),
    };
    for from in [-1, 9] {
        let refused = partition.read(Offset(from), 1).await.err();
        assert_eq!(refused, Some(out_of_range(from)));
    }
}

#[tokio::test]
async fn batches_that_may_not_be_here_are_refused() {
    let world = World::new();
    let partition = world.partition().await;
    let rules = AppendRules { max_batch_bytes: 100, ..AppendRules::default() };
    let context = AppendContext { rules, ..AppendContext::at(0) };
    let large = build(&[0], None, &[0; 200]);
    let bytes = large.size();
    let refused = partition.append(large, &context).err();
    assert_eq!(refused, Some(AppendError::TooLarge { bytes, limit: 100 }));
    let producer = Producer { id: ProducerId(1), epoch: ProducerEpoch(0), base_sequence: 0 };
    let mut builder = BatchBuilder::new(Compression::None).producer(producer).transactional();
    builder.push(&NewRecord::default()).expect("it fits");
    let transactional = builder.build().expect("it fits");
    let refused = partition.append(transactional, &AppendContext::at(0)).err();
    assert_eq!(refused, Some(AppendError::Transactional));
    assert_eq!(world.store.stats().writes, 0);
}

#[tokio::test]
async fn log_append_time_replaces_the_producers() {
    let world = World::new();
    let partition = world.partition().await;
    let rules = AppendRules { log_append_time: true, ..AppendRules::default() };
    let context = AppendContext { rules, ..AppendContext::at(5000) };
    let pending = partition.append(at_times(&[1, 2]), &context).expect("taken");
    let appended = pending.durable().await.expect("durable");
    assert_eq!(appended.log_append_time, Some(5000));
    let result = partition.read(Offset(0), 1).await.expect("in range");
    let batch = RecordBatch::parse(result.batches[0].clone()).expect("a true checksum");
    let times = batch.records(1000).expect("plain").map(|r| r.expect("well-formed").timestamp_ms);
    assert_eq!(times.collect::<Vec<_>>(), [5000, 5000]);
}

#[tokio::test]
async fn idempotent_producers_follow_kafkas_rules() {
    const MAX: i32 = i32::MAX;
    let world = World::new();
    let partition = world.partition().await;
    let invalid_epoch = |epoch, current| {
        let (epoch, current) = (ProducerEpoch(epoch), ProducerEpoch(current));
        Err(AppendError::Producer(ProducerError::InvalidEpoch {
            id: ProducerId(1),
            epoch,
            current,
        }))
    };
    let out_of_order = |id, sequence, expected| {
        let id = ProducerId(id);
        Err(AppendError::Producer(ProducerError::OutOfOrderSequence { id, sequence, expected }))
    };
    // (producer, epoch, first sequence, records) -> base offset and whether it is a duplicate
    type Case = ((i64, i16, i32, usize), Result<(i64, bool), AppendError>);
    let cases: [Case; 20] = [
        ((1, 0, 0, 2), Ok((0, false))),
        ((1, 0, 0, 2), Ok((0, true))),
        ((1, 0, 3, 1), out_of_order(1, 3, 2)),
        ((1, 0, 0, 1), out_of_order(1, 0, 2)),
        ((1, 0, 2, 1), Ok((2, false))),
        ((1, 0, 3, 1), Ok((3, false))),
        ((1, 0, 4, 1), Ok((4, false))),
        ((1, 0, 5, 1), Ok((5, false))),
        ((1, 0, 0, 2), Ok((0, true))),
        ((1, 0, 6, 1), Ok((6, false))),
        // Six batches ago: no longer remembered.
        ((1, 0, 0, 2), out_of_order(1, 0, 7)),
        ((1, 0, 2, 1), Ok((2, true))),
        // A new epoch starts at 0, and ends the old one.
        ((1, 1, 7, 1), out_of_order(1, 7, 0)),
        ((1, 1, 0, 1), Ok((7, false))),
        ((1, 0, 7, 1), invalid_epoch(0, 1)),
        // An unknown producer may start anywhere: its entry may have expired.
        ((2, 3, 100, 1), Ok((8, false))),
        ((2, 3, 100, 1), Ok((8, true))),
        // Sequences wrap from the largest to 0.
        ((3, 0, MAX - 1, 3), Ok((9, false))),
        ((3, 0, 0, 1), out_of_order(3, 0, 1)),
        ((3, 0, 1, 1), Ok((12, false))),
    ];
    for ((id, epoch, sequence, records), expected) in cases {
        let answer = append(&partition, produced(id, epoch, sequence, records)).await;
        let place = answer.map(|appended| (appended.base_offset.0, appended.duplicate));
        assert_eq!(place, expected, "producer {id} epoch {epoch} sequence {sequence}");
    }
    // All of it survives a crash.
    let partition = world.after_crash().partition().await;
    let again = append(&partition, produced(3, 0, MAX - 1, 3)).await.expect("a duplicate");
    assert_eq!((again.base_offset, again.duplicate), (Offset(9), true));
    assert_eq!(append(&partition, produced(1, 0, 7, 1)).await.err(), invalid_epoch(0, 1).err());
}

#[tokio::test]
async fn a_duplicate_waits_for_its_original() {
    let world = World::new();
    let partition = world.partition().await;
    world.store.hold();
    let context = AppendContext::at(0);
    let original = partition.append(produced(1, 0, 0, 1), &context).expect("taken");
    let mut duplicate =
        Box::pin(partition.append(produced(1, 0, 0, 1), &context).expect("taken").durable());
    assert!((&mut duplicate).now_or_never().is_none());
    world.store.release();
    let appended = duplicate.await.expect("durable");
    assert!(appended.duplicate);
    assert_eq!(appended.base_offset, original.durable().await.expect("durable").base_offset);
}

#[tokio::test]
async fn a_failed_write_fails_what_was_assigned_after_it_and_gives_the_offsets_again() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, at_times(&[0])).await.expect("taken");
    world.store.hold();
    let context = AppendContext::at(0);
    let first = partition.append(produced(1, 0, 0, 1), &context).expect("taken");
    let duplicate = partition.append(produced(1, 0, 0, 1), &context).expect("taken");
    let second = partition.append(produced(1, 0, 1, 1), &context).expect("taken");
    let full = StoreError::NoSpace("no room".to_owned());
    world.store.fail_next(full.clone());
    world.store.release();
    assert_eq!(first.durable().await.err(), Some(AppendError::Store(full.clone())));
    assert_eq!(second.durable().await.err(), Some(AppendError::Store(full)));
    assert!(duplicate.durable().await.is_err());
    let refused = partition.append(produced(1, 0, 2, 1), &context).err();
    assert_eq!(refused, Some(AppendError::NotReady));
    // The client sends both again.
    let again = append(&partition, produced(1, 0, 0, 1)).await.expect("taken");
    assert_eq!((again.base_offset, again.duplicate), (Offset(1), false));
    append(&partition, produced(1, 0, 1, 1)).await.expect("taken");
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_poisoned_store_is_said_and_not_waited_for() {
    let world = World::new();
    let partition = world.partition().await;
    let poisoned = StoreError::Poisoned("sync failed".to_owned());
    world.store.fail_next(poisoned.clone());
    let answer = append(&partition, at_times(&[0])).await;
    assert_eq!(answer.err(), Some(AppendError::Store(poisoned.clone())));
    assert_eq!(partition.ready().await, Err(LogError::Store(poisoned)));
}

#[tokio::test]
async fn records_of_an_edge_are_applied_once() {
    let world = World::new();
    let partition = world.partition().await;
    let send = |partition: Arc<Partition>, origin: Origin| async move {
        let context = AppendContext { origin: Some(origin), ..AppendContext::at(0) };
        partition.append(at_times(&[0]), &context)?.durable().await
    };
    let unknown = send(Arc::clone(&partition), origin(1, 3)).await;
    assert_eq!(unknown.err(), Some(AppendError::OriginNotLoaded));
    assert_eq!(partition.origin_applied(&origin(1, 3).key).await, Ok(None));
    send(Arc::clone(&partition), origin(1, 3)).await.expect("taken");

    let partition = world.after_crash().partition().await;
    assert_eq!(partition.origin_applied(&origin(1, 3).key).await, Ok(Some(EdgeSeq(3))));
    for repeated in [origin(1, 3), origin(3, 5)] {
        let refused = send(Arc::clone(&partition), repeated).await.err();
        assert_eq!(refused, Some(AppendError::AlreadyApplied { applied: EdgeSeq(3) }));
    }
    send(Arc::clone(&partition), origin(4, 9)).await.expect("taken");
    let mut other = origin(1, 1);
    other.key.incarnation = Incarnation(2);
    assert_eq!(partition.origin_applied(&other.key).await, Ok(None));
    send(Arc::clone(&partition), other).await.expect("another incarnation starts anew");
    assert_eq!(base_offsets(&partition, 0, usize::MAX).await, [0, 1, 2]);
}

async fn found(partition: &Partition, timestamp_ms: i64) -> Option<(i64, i64)> {
    let found = partition.offset_for_time(timestamp_ms).await.expect("readable");
    found.map(|FoundOffset { offset, timestamp_ms, .. }| (offset.0, timestamp_ms))
}

/// A batch that fills a chunk of the time index by itself.
fn chunk_at_times(times: &[i64]) -> RecordBatch {
    build(times, None, &vec![0; limits::LOG_CHUNK_BYTES / times.len()])
}

#[tokio::test]
async fn a_time_is_found_whatever_the_order_of_timestamps() {
    let world = World::new();
    let partition = world.partition().await;
    let context = || AppendContext {
        rules: AppendRules { max_batch_bytes: usize::MAX, ..AppendRules::default() },
        ..AppendContext::at(0)
    };
    // Offsets 0-2, 3-4 and 5-6 are closed chunks, 7-9 is open.
    let batches =
        [chunk_at_times(&[10, 50, 20]), chunk_at_times(&[30, 5]), chunk_at_times(&[90, 40])];
    for batch in batches.into_iter().chain([at_times(&[60]), at_times(&[15, 95])]) {
        let pending = partition.append(batch, &context()).expect("taken");
        pending.durable().await.expect("durable");
    }
    let cases = [
        (0, Some((0, 10))),
        (10, Some((0, 10))),
        (11, Some((1, 50))),
        (50, Some((1, 50))),
        (51, Some((5, 90))),
        (91, Some((9, 95))),
        (96, None),
    ];
    for (time, expected) in cases {
        assert_eq!(found(&partition, time).await, expected, "time {time}");
    }
    let max = partition.offset_for_max_timestamp().await.expect("readable").expect("not empty");
    assert_eq!((max.offset, max.timestamp_ms), (Offset(9), 95));

    // What is below the log start is not found, also in the middle of a batch.
    partition.delete_records(Some(Offset(2))).await.expect("deleted");
    assert_eq!(found(&partition, 11).await, Some((2, 20)));
    assert_eq!(found(&partition, 21).await, Some((3, 30)));
    partition.delete_records(Some(Offset(9))).await.expect("deleted");
    assert_eq!(found(&partition, 0).await, Some((9, 95)));
    partition.delete_records(None).await.expect("deleted");
    assert_eq!(found(&partition, 0).await, None);
    assert_eq!(partition.offset_for_max_timestamp().await, Ok(None));
}

#[tokio::test]
async fn the_largest_timestamp_is_one_that_can_still_be_read() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, at_times(&[90, 10])).await.expect("taken");
    append(&partition, at_times(&[20, 5])).await.expect("taken");
    partition.delete_records(Some(Offset(1))).await.expect("deleted");
    let max = partition.offset_for_max_timestamp().await.expect("readable").expect("not empty");
    assert_eq!((max.offset, max.timestamp_ms), (Offset(2), 20));
}

#[tokio::test]
async fn deleted_records_are_gone_for_good() {
    let world = World::new();
    let partition = world.partition().await;
    for _ in 0..3 {
        append(&partition, at_times(&[0, 0])).await.expect("taken");
    }
    assert_eq!(partition.delete_records(Some(Offset(3))).await, Ok(Offset(3)));
    assert_eq!(partition.delete_records(Some(Offset(1))).await, Ok(Offset(3)));
    let refused = partition.delete_records(Some(Offset(7))).await.err();
    let (before, high_watermark) = (Offset(7), Offset(6));
    assert_eq!(refused, Some(DeleteRecordsError::OutOfRange { before, high_watermark }));

    let partition = world.after_crash().partition().await;
    assert_eq!(partition.offsets().log_start_offset, Offset(3));
    assert!(matches!(partition.read(Offset(2), 1).await, Err(ReadError::OutOfRange { .. })));
    // The batch that holds the start is there whole: clients skip what is below their position.
    assert_eq!(base_offsets(&partition, 3, usize::MAX).await, [2, 4]);
    assert_eq!(append(&partition, at_times(&[0])).await.expect("taken").base_offset, Offset(6));
}

#[tokio::test]
async fn retention_drops_whole_chunks_by_size_and_age() {
    let world = World::new();
    let partition = world.partition().await;
    let context = || AppendContext {
        rules: AppendRules { max_batch_bytes: usize::MAX, ..AppendRules::default() },
        ..AppendContext::at(0)
    };
    for times in [[10, 20], [500, 15], [30, 40]] {
        let pending = partition.append(chunk_at_times(&times), &context()).expect("taken");
        pending.durable().await.expect("durable");
    }
    append(&partition, at_times(&[1])).await.expect("taken");
    let none = partition.enforce_retention(Retention::default(), 1_000_000).await;
    assert_eq!(none, Ok(Offset(0)));
    // The chunk of 500 is young enough, and what comes after it stays with it.
    let age = Retention { age: Some(Duration::from_millis(600)), bytes: None };
    assert_eq!(partition.enforce_retention(age, 1000).await, Ok(Offset(2)));
    let chunk = limits::LOG_CHUNK_BYTES as u64;
    // Of two chunks, one may go without less than half a chunk being left.
    let bytes = Retention { age: None, bytes: Some(chunk / 2) };
    assert_eq!(partition.enforce_retention(bytes, 1000).await, Ok(Offset(4)));
    // The open chunk stays, however large,
    let none = Retention { age: None, bytes: Some(0) };
    assert_eq!(partition.enforce_retention(none, 1_000_000).await, Ok(Offset(6)));
    assert_eq!(base_offsets(&partition, 6, usize::MAX).await, [6]);
    // and while one of its records is young enough.
    append(&partition, at_times(&[900])).await.expect("taken");
    let age = Duration::from_millis(100);
    let by_age = Retention { age: Some(age), bytes: None };
    assert_eq!(partition.expires_ms(age).await, Ok(Some(1001)));
    assert_eq!(partition.enforce_retention(by_age, 1000).await, Ok(Offset(6)));
    assert_eq!(partition.enforce_retention(by_age, 1001).await, Ok(Offset(8)));
    assert_eq!(partition.expires_ms(age).await, Ok(None));
    assert_eq!(partition.size_bytes().await, Ok(0));
    // Records without a timestamp have no age.
    let appended = append(&partition, at_times(&[-1])).await.expect("taken");
    assert_eq!(appended.base_offset, Offset(8));
    assert_eq!(partition.enforce_retention(by_age, i64::MAX).await, Ok(Offset(8)));
    let partition = world.after_crash().partition().await;
    assert_eq!(partition.offsets().log_start_offset, Offset(8));
    assert_eq!(base_offsets(&partition, 8, usize::MAX).await, [8]);
}

#[tokio::test]
async fn producers_are_forgotten_when_they_expire_or_are_too_many() {
    let world = World::new();
    let partition = world.partition().await;
    let day = i64::try_from(limits::PRODUCER_EXPIRY.as_millis()).expect("a day");
    append_at(&partition, produced(1, 0, 0, 1), 1).await.expect("taken");
    append_at(&partition, produced(2, 0, 0, 1), day).await.expect("taken");
    append_at(&partition, produced(3, 0, 0, 1), day + 100_000).await.expect("taken");
    // Producer 1 is unknown now, so any sequence is taken; producer 2 is not.
    append_at(&partition, produced(1, 0, 77, 1), day + 100_001).await.expect("taken");
    assert!(append_at(&partition, produced(2, 0, 77, 1), day + 100_001).await.is_err());

    let many = i64::try_from(limits::PRODUCERS_PER_PARTITION).expect("some");
    for id in 10..10 + many {
        append_at(&partition, produced(id, 0, 0, 1), day + 200_000 + id).await.expect("taken");
    }
    assert_eq!(partition.sequencer().producers.len(), limits::PRODUCERS_PER_PARTITION);
    let partition = world.after_crash().partition().await;
    assert_eq!(partition.sequencer().producers.len(), limits::PRODUCERS_PER_PARTITION);
    let last = append(&partition, produced(9 + many, 0, 0, 1)).await.expect("a duplicate");
    assert!(last.duplicate);
}

#[tokio::test]
async fn idle_partitions_give_their_memory_back_and_used_ones_stay() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, at_times(&[0])).await.expect("taken");
    assert_eq!(world.log.evict_idle(Duration::ZERO), 0);
    drop(partition);
    assert_eq!(world.log.evict_idle(Duration::from_secs(3600)), 0);
    assert_eq!(world.log.evict_idle(Duration::ZERO), 1);
    assert_eq!(world.log.loaded(), 0);
    assert_eq!(world.partition().await.offsets().high_watermark, Offset(1));
}

#[tokio::test]
async fn a_dropped_topic_takes_nothing_more_and_wakes_its_readers() {
    let world = World::new();
    let partition = world.partition().await;
    append(&partition, at_times(&[0])).await.expect("taken");
    let mut visible = partition.subscribe();
    world.log.close_topics([world.topic]);
    visible.changed().await.expect("the partition lives");
    assert!(visible.borrow().closed);
    let refused = partition.append(at_times(&[0]), &AppendContext::at(0)).err();
    assert_eq!(refused, Some(AppendError::Dropped(world.topic)));
    assert_eq!(partition.read(Offset(0), 1).await.err(), Some(ReadError::Dropped));
    let refused = partition.delete_records(None).await.err();
    assert_eq!(refused, Some(DeleteRecordsError::Dropped));
    let gone = world.log.partition(world.topic, PartitionIndex(0)).await.err();
    assert_eq!(gone, Some(LogError::Dropped(world.topic)));
}

#[tokio::test]
async fn state_stays_within_its_bytes_and_what_was_used_last_stays_longest() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let budget = 200 * 1024;
    let log = Log::with_budgets(store, Budgets { state_bytes: budget, ..Budgets::default() });
    let topic = TopicId::random();
    let load = async |index| log.partition(topic, PartitionIndex(index)).await;
    for index in 0..5000 {
        load(index).await.expect("what is not used makes room");
        load(0).await.expect("it is used all the time");
        assert!(log.memory_bytes() <= budget, "{} of {budget}", log.memory_bytes());
    }
    assert!(log.loaded_partition(topic, PartitionIndex(0)).is_some());
    assert!(log.loaded_partition(topic, PartitionIndex(4999)).is_some());
    assert!(log.loaded_partition(topic, PartitionIndex(1)).is_none());
    assert!(log.loaded() > 50, "{} fit", log.loaded());

    let mut held = Vec::new();
    let refused = loop {
        match load(10_000 + i32::try_from(held.len()).expect("few")).await {
            Ok(partition) => held.push(partition),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::TooManyPartitions(_)), "{refused}");
    assert!(log.memory_bytes() <= budget + 4096);
    held.clear();
    load(20_000).await.expect("there is room again");
}

#[tokio::test]
async fn producers_of_a_partition_count() {
    let world = World::new();
    let partition = world.partition().await;
    let before = world.log.memory_bytes();
    for id in 0..100 {
        append(&partition, produced(id, 0, 0, 1)).await.expect("taken");
    }
    let grown = world.log.memory_bytes() - before;
    assert!((100 * 100..100 * 1000).contains(&grown), "{grown}");
    drop(partition);
    world.log.evict_idle(Duration::ZERO);
    assert_eq!(world.log.memory_bytes(), 0);
}

#[tokio::test]
async fn the_end_of_a_leader_epoch_is_the_high_watermark_while_it_is_the_last() {
    let world = World::new();
    let partition = world.partition().await;
    assert_eq!(partition.end_of_epoch(LeaderEpoch(0)).await, Ok(Some((LeaderEpoch(0), Offset(0)))));
    append(&partition, at_times(&[0, 0])).await.expect("taken");
    assert_eq!(partition.end_of_epoch(LeaderEpoch(0)).await, Ok(Some((LeaderEpoch(0), Offset(2)))));
    assert_eq!(partition.end_of_epoch(LeaderEpoch(1)).await, Ok(None));
    assert_eq!(partition.end_of_epoch(LeaderEpoch(-1)).await, Ok(None));
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let mut store = Arc::new(MemoryStore::new());
    let mut last = None;
    for _ in 0..3 {
        let ids = ProducerIds::new(Arc::clone(&store) as Arc<dyn Store>);
        for _ in 0..limits::ID_BLOCK + 2 {
            let id = ids.next().await.expect("there is room");
            assert!(Some(id) > last);
            last = Some(id);
        }
        store = Arc::new(store.crash(0));
    }
    let ids = ProducerIds::new(Arc::clone(&store) as Arc<dyn Store>);
    store.fail_next(StoreError::NoSpace("no room".to_owned()));
    assert!(ids.next().await.is_err());
    assert!(Some(ids.next().await.expect("there is room again")) > last);
}
