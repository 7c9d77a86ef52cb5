//! Compaction over the memory engine, point by point.

use std::sync::Arc;

use robustmq_common::ids::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, Producer, RecordBatch};

use super::{CompactError, CompactionRules};
use crate::log::{AppendContext, Log, Partition};
use crate::store::keys::partition::{Chunk, trailing_number};
use crate::store::{MemoryStore, ScanLimit, Store, StoreError, WriteBatch};

mod model;

const RULES: CompactionRules = CompactionRules {
    min_dirty_millionths: 0,
    min_lag_ms: 0,
    max_lag_ms: i64::MAX,
    delete_retention_ms: 100,
};
const MAP_BYTES: usize = limits::COMPACTION_MAP_BYTES;

/// Key, value, timestamp.
type Written<'a> = (&'a str, Option<&'a str>, i64);

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

    fn after_crash(&self) -> Self {
        Self::over(self.store.crash(0), self.topic)
    }
}

fn build(records: &[Written<'_>], producer: Option<Producer>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::Lz4);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for (key, value, timestamp_ms) in records {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        let record = NewRecord { timestamp_ms: *timestamp_ms, key, value, ..NewRecord::default() };
        builder.push(&record).expect("it fits");
    }
    builder.build().expect("it fits")
}

async fn append(partition: &Arc<Partition>, batch: RecordBatch) {
    partition.ready().await.expect("the store goes on");
    let pending = partition.append(batch, &AppendContext::at(0)).expect("taken");
    pending.durable().await.expect("durable");
}

/// Appends the records as one batch that is a chunk.
async fn chunk(partition: &Arc<Partition>, records: &[Written<'_>]) {
    append(partition, build(records, None)).await;
    partition.close_open_chunk(|_| true).await.expect("closed");
}

/// Compacts until there is nothing to do.
async fn compact(
    partition: &Arc<Partition>,
    rules: &CompactionRules,
    now_ms: i64,
    map_bytes: usize,
) {
    while partition.compact(rules, now_ms, map_bytes).await.expect("readable").was_due {}
}

async fn batches(partition: &Partition) -> Vec<RecordBatch> {
    let start = partition.offsets().log_start_offset;
    let read = partition.read(start, usize::MAX).await.expect("in range");
    read.batches.into_iter().map(|bytes| RecordBatch::parse(bytes).expect("intact")).collect()
}

/// Offset, key and value of each record.
async fn content(partition: &Partition) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found = Vec::new();
    for batch in batches(partition).await {
        for record in batch.records(1 << 20).expect("readable") {
            let record = record.expect("well-formed");
            let value = record.value.as_deref().map(text);
            found.push((record.offset.0, text(&record.key.unwrap_or_default()), value));
        }
    }
    found
}

fn expect(content: &[(i64, &str, Option<&str>)]) -> Vec<(i64, String, Option<String>)> {
    let own = |(offset, key, value): &(i64, &str, Option<&str>)| {
        (*offset, (*key).to_owned(), value.map(str::to_owned))
    };
    content.iter().map(own).collect()
}

/// The time index: base offset, last offset, whether anything is in it, largest timestamp.
async fn index(partition: &Partition) -> Vec<(i64, i64, bool, i64)> {
    let range = partition.keys().chunks_from(Offset(0));
    let page = partition.store().scan(range, ScanLimit::items(100)).await.expect("readable");
    let entry = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
        let chunk = Chunk::decode(value).expect("a chunk");
        let last = trailing_number(key).expect("a chunk's key");
        (chunk.base_offset.0, last, chunk.bytes > 0, chunk.max_timestamp)
    };
    page.items.iter().map(entry).collect()
}

#[tokio::test]
async fn the_last_record_of_each_key_stays_at_its_offset_and_the_open_chunk_as_it_is() {
    let world = World::new();
    let partition = world.partition().await;
    chunk(&partition, &[("a", Some("1"), 10), ("b", Some("1"), 90), ("a", Some("2"), 20)]).await;
    chunk(&partition, &[("c", Some("1"), 5), ("b", Some("2"), 30)]).await;
    append(&partition, build(&[("a", Some("3"), 7), ("a", Some("4"), 8)], None)).await;
    compact(&partition, &RULES, 1000, MAP_BYTES).await;
    let expected = expect(&[
        (2, "a", Some("2")),
        (3, "c", Some("1")),
        (4, "b", Some("2")),
        (5, "a", Some("3")),
        (6, "a", Some("4")),
    ]);
    assert_eq!(content(&partition).await, expected);
    // Small chunks become one, and look-ups by time see what is left.
    assert_eq!(index(&partition).await, [(0, 4, true, 30)]);
    let max = partition.offset_for_max_timestamp().await.expect("readable").expect("not empty");
    assert_eq!((max.offset, max.timestamp_ms), (Offset(4), 30));
    let size: usize = batches(&partition).await.iter().map(RecordBatch::size).sum();
    assert_eq!(partition.size_bytes().await, Ok(size as u64));
    // A crash changes nothing, and what is clean stays so.
    let partition = world.after_crash().partition().await;
    assert_eq!(content(&partition).await, expected);
    let again = partition.compact(&RULES, 1000, MAP_BYTES).await.expect("readable");
    assert!(!again.was_due);
}

#[tokio::test]
async fn reads_go_over_holes() {
    let world = World::new();
    let partition = world.partition().await;
    for round in 0..3 {
        let value = round.to_string();
        for key in ["a", "b"] {
            chunk(&partition, &[(key, Some(&value), round)]).await;
        }
    }
    compact(&partition, &RULES, 1000, MAP_BYTES).await;
    // Batches at 0 to 3 are gone.
    for (from, next) in [(0, 4), (1, 4), (3, 4), (4, 4), (5, 5)] {
        let read = partition.read(Offset(from), 1).await.expect("in range");
        let batch = RecordBatch::parse(read.batches[0].clone()).expect("intact");
        assert_eq!(batch.base_offset(), Offset(next), "from {from}");
    }
    let found = partition.offset_for_time(1).await.expect("readable").expect("there is one");
    assert_eq!((found.offset, found.timestamp_ms), (Offset(4), 2));
    assert_eq!(partition.offsets().log_start_offset, Offset(0));
}

#[tokio::test]
async fn tombstones_stay_for_their_time_and_no_older_value_comes_back() {
    let world = World::new();
    let partition = world.partition().await;
    chunk(&partition, &[("a", Some("1"), 1), ("b", Some("1"), 2)]).await;
    chunk(&partition, &[("a", None, 3), ("c", Some("1"), 4)]).await;
    compact(&partition, &RULES, 1000, MAP_BYTES).await;
    let with_tombstone = expect(&[(1, "b", Some("1")), (2, "a", None), (3, "c", Some("1"))]);
    assert_eq!(content(&partition).await, with_tombstone);
    let assessed = partition.assess_compaction(&RULES, 1099).await.expect("readable");
    assert_eq!((assessed.is_due, assessed.due_ms), (false, 1100));
    compact(&partition, &RULES, 1099, MAP_BYTES).await;
    assert_eq!(content(&partition).await, with_tombstone);
    // Nothing was appended, and yet it goes when its time has come.
    compact(&partition, &RULES, 1100, MAP_BYTES).await;
    assert_eq!(content(&partition).await, expect(&[(1, "b", Some("1")), (3, "c", Some("1"))]));
    let assessed = partition.assess_compaction(&RULES, i64::MAX - 1).await.expect("readable");
    assert!(!assessed.is_due, "{assessed:?}");
}

#[tokio::test]
async fn more_keys_than_the_map_holds_take_several_passes() {
    let world = World::new();
    let partition = world.partition().await;
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    for round in ["1", "2", "3"] {
        for part in keys.chunks(5) {
            let records: Vec<_> = part.iter().map(|key| (&key[..], Some(round), 0)).collect();
            chunk(&partition, &records).await;
        }
    }
    let mut passes = 0;
    while partition.compact(&RULES, 1000, 37 * 7).await.expect("readable").was_due {
        passes += 1;
    }
    assert!(passes >= 9, "{passes} passes for 60 records, 7 keys at a time");
    let last: Vec<_> = (40..).zip(&keys).map(|(o, key)| (o, &key[..], Some("3"))).collect();
    assert_eq!(content(&partition).await, expect(&last));
}

/// The passes of a small map may lie further apart than tombstones stay. One that a pass gave a horizon, but did not know as the
/// last of its key, must not go before the pass that does.
#[tokio::test]
async fn a_tombstone_beyond_the_map_stays_until_a_pass_covers_it() {
    let world = World::new();
    let partition = world.partition().await;
    chunk(&partition, &[("a", Some("1"), 0)]).await;
    chunk(&partition, &[("b", Some("1"), 0), ("c", Some("1"), 0), ("a", None, 0)]).await;
    let others = [(1, "b", Some("1")), (2, "c", Some("1"))];
    for now_ms in [1000, 2000, 3000] {
        let pass = partition.compact(&RULES, now_ms, 37).await.expect("readable");
        assert!(pass.was_due && pass.is_partial, "at {now_ms}");
        let expected = [&[(0, "a", Some("1"))][..], &others, &[(3, "a", None)]].concat();
        assert_eq!(content(&partition).await, expect(&expected), "at {now_ms}");
    }
    compact(&partition, &RULES, 4000, 37).await;
    assert_eq!(content(&partition).await, expect(&others));
}

#[tokio::test]
async fn a_batch_without_records_stays_for_a_sequence_or_for_the_end_of_the_log() {
    let world = World::new();
    let partition = world.partition().await;
    let producer = |base_sequence| {
        Some(Producer { id: ProducerId(1), epoch: ProducerEpoch(0), base_sequence })
    };
    append(&partition, build(&[("a", Some("1"), 1)], producer(0))).await;
    append(&partition, build(&[("a", Some("2"), 2)], producer(1))).await;
    append(&partition, build(&[("a", Some("3"), 3)], None)).await;
    chunk(&partition, &[("b", None, 4)]).await;
    let shape = async |partition: &Partition| {
        let batches = batches(partition).await;
        batches.iter().map(|b| (b.base_offset().0, b.records_count())).collect::<Vec<_>>()
    };
    compact(&partition, &RULES, 1000, MAP_BYTES).await;
    assert_eq!(shape(&partition).await, [(1, 0), (2, 1), (3, 1)]);
    compact(&partition, &RULES, 2000, MAP_BYTES).await;
    assert_eq!(shape(&partition).await, [(1, 0), (2, 1), (3, 0)]);
    // Neither is needed any more.
    append(&partition, build(&[("a", Some("4"), 5)], producer(2))).await;
    partition.close_open_chunk(|_| true).await.expect("closed");
    compact(&partition, &RULES, 2000, MAP_BYTES).await;
    assert_eq!(shape(&partition).await, [(4, 1)]);
    // The producer's history is as it was.
    let again = build(&[("a", Some("1"), 1)], producer(0));
    let pending = partition.append(again, &AppendContext::at(0)).expect("a duplicate");
    assert!(pending.assigned().duplicate);
}

#[tokio::test]
async fn lags_hold_compaction_back_and_bring_it_about() {
    let world = World::new();
    let partition = world.partition().await;
    chunk(&partition, &[("a", Some("1"), 100)]).await;
    chunk(&partition, &[("a", Some("2"), 200)]).await;
    chunk(&partition, &[("a", Some("3"), 300)]).await;
    let min_lag = CompactionRules { min_lag_ms: 50, ..RULES };
    compact(&partition, &min_lag, 250, MAP_BYTES).await;
    let expected = expect(&[(1, "a", Some("2")), (2, "a", Some("3"))]);
    assert_eq!(content(&partition).await, expected);
    let assessed = partition.assess_compaction(&min_lag, 250).await.expect("readable");
    assert_eq!((assessed.is_due, assessed.due_ms), (false, 350));

    append(&partition, build(&[("a", Some("4"), 400), ("a", Some("5"), 401)], None)).await;
    let max_lag = CompactionRules { min_dirty_millionths: 1_000_000, max_lag_ms: 1000, ..RULES };
    compact(&partition, &max_lag, 1299, MAP_BYTES).await;
    assert_eq!(content(&partition).await.len(), 4, "neither dirty nor old enough");
    // The record of 300 has to be compacted; that of 400, in the open chunk, not yet.
    compact(&partition, &max_lag, 1300, MAP_BYTES).await;
    assert_eq!(content(&partition).await.len(), 3);
    let assessed = partition.assess_compaction(&max_lag, 1300).await.expect("readable");
    assert_eq!((assessed.is_due, assessed.due_ms), (false, 1400));
    compact(&partition, &max_lag, 1400, MAP_BYTES).await;
    assert_eq!(content(&partition).await, expect(&[(4, "a", Some("5"))]));
}

#[tokio::test]
async fn a_failed_write_ends_the_pass_and_the_next_one_goes_on() {
    let world = World::new();
    let partition = world.partition().await;
    for value in ["1", "2", "3"] {
        chunk(&partition, &[("a", Some(value), 0)]).await;
    }
    world.store.fail_next(StoreError::NoSpace("no room".to_owned()));
    let failed = partition.compact(&RULES, 1000, MAP_BYTES).await;
    assert!(matches!(failed, Err(CompactError::Store(StoreError::NoSpace(_)))), "{failed:?}");
    assert_eq!(content(&partition).await.len(), 3);
    partition.ready().await.expect("there is room again");
    compact(&partition, &RULES, 1000, MAP_BYTES).await;
    assert_eq!(content(&partition).await, expect(&[(2, "a", Some("3"))]));
}

#[tokio::test]
async fn a_batch_that_cannot_be_decoded_stops_everything() {
    let world = World::new();
    let partition = world.partition().await;
    chunk(&partition, &[("a", Some("1"), 0)]).await;
    chunk(&partition, &[("a", Some("2"), 0)]).await;
    let key = partition.keys().batch(Offset(1));
    let mut bytes = world.store.get(&key).await.expect("readable").expect("there").to_vec();
    for byte in &mut bytes[61..] {
        *byte = 0xff;
    }
    let mut write = WriteBatch::new();
    write.put(key, bytes);
    crate::store::write(&*world.store, write).await.expect("written");
    let failed = partition.compact(&RULES, 1000, MAP_BYTES).await.err();
    let at = |error: &CompactError| match error {
        CompactError::Batch { base_offset, .. } => Some(*base_offset),
        _ => None,
    };
    assert_eq!(failed.as_ref().and_then(at), Some(Offset(1)), "{failed:?}");
    let first = partition.read(Offset(0), 1).await.expect("in range");
    let first = RecordBatch::parse(first.batches[0].clone()).expect("intact");
    assert_eq!(first.records_count(), 1);
}

#[tokio::test]
async fn nothing_is_written_for_a_topic_that_was_deleted_meanwhile() {
    let world = World::new();
    let partition = world.partition().await;
    for value in ["1", "2"] {
        chunk(&partition, &[("a", Some(value), 0)]).await;
    }
    world.store.hold();
    let before = world.store.stats().disk_bytes;
    world.log.close_topics([world.topic]);
    let task = tokio::spawn(async move { partition.compact(&RULES, 1000, MAP_BYTES).await });
    assert_eq!(task.await.expect("it ends").err(), Some(CompactError::Dropped));
    world.store.release();
    assert_eq!(world.store.stats().disk_bytes, before);
}
