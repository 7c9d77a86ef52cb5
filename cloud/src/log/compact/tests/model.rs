//! A compacted partition against a plain log in memory, over a store that holds writes back and crashes.
//!
//! The model is every record that was ever appended. After each step, everything that can be read is compared with it: what is
//! there is what was written at that offset; what has to be there is; and after a whole compaction, what had to go is gone.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use robustmq_common::ids::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, Producer, RecordBatch};
use uuid::Uuid;

use super::super::CompactionRules;
use crate::log::tests::check_totals;
use crate::log::{AppendContext, Log, Partition, Retention};
use crate::store::keys::partition::{Chunk, Kind, trailing_number};
use crate::store::{MemoryStore, ScanLimit, Store};

const TOPIC: TopicId = TopicId(Uuid::from_bytes([1; 16]));
const TOMBSTONES_MS: i64 = 100;
const RULES: CompactionRules = CompactionRules {
    min_dirty_millionths: 0,
    min_lag_ms: 0,
    max_lag_ms: i64::MAX,
    delete_retention_ms: TOMBSTONES_MS,
};

/// Key, whether it has a value, timestamp.
type New = (Option<u8>, bool, i64);

#[derive(Debug, Clone)]
enum Step {
    Append {
        records: Vec<New>,
        producer: Option<i64>,
        compression: Compression,
    },
    CloseChunk,
    /// To the end, with a map of so many keys.
    Compact {
        keys: usize,
    },
    /// While records are appended and deleted.
    CompactMeanwhile {
        records: Vec<New>,
        delete_back: Option<i64>,
    },
    /// A crash after so many of its writes, of which the disk may have got one more.
    CompactAndCrash {
        keys: usize,
        writes: usize,
        survives: bool,
    },
    Wait {
        ms: i64,
    },
    DeleteRecords {
        back: i64,
    },
    Retain {
        age_ms: Option<i64>,
        bytes: Option<u64>,
    },
    Restart,
}

fn records() -> impl Strategy<Value = Vec<New>> {
    let key = prop_oneof![15 => (0..6_u8).prop_map(Some), 1 => Just(None)];
    vec((key, proptest::bool::weighted(0.75), 0..200_i64), 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Zstd)];
    prop_oneof![
        8 => (records(), option::of(0..2_i64), compression)
            .prop_map(|(records, producer, compression)| Step::Append { records, producer, compression }),
        5 => Just(Step::CloseChunk),
        3 => (1..9_usize).prop_map(|keys| Step::Compact { keys }),
        3 => (records(), option::of(0..30_i64))
            .prop_map(|(records, delete_back)| Step::CompactMeanwhile { records, delete_back }),
        4 => (1..9_usize, 0..5_usize, any::<bool>())
            .prop_map(|(keys, writes, survives)| Step::CompactAndCrash { keys, writes, survives }),
        3 => (1..150_i64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..30_i64).prop_map(|back| Step::DeleteRecords { back }),
        1 => (option::of(0..300_i64), option::of(0..2000_u64))
            .prop_map(|(age_ms, bytes)| Step::Retain { age_ms, bytes }),
        1 => Just(Step::Restart),
    ]
}

/// A record that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    key: Option<u8>,
    value: Option<u64>,
    timestamp_ms: i64,
    /// A compaction has begun since, at this time: a tombstone may have got its horizon then.
    first_begun_ms: Option<i64>,
    /// A compaction has gone over it, at this time: a tombstone has its horizon since then at the latest.
    first_done_ms: Option<i64>,
}

struct World {
    store: Arc<MemoryStore>,
    log: Log,
    partition: Arc<Partition>,
    now_ms: i64,
    written: BTreeMap<i64, Written>,
    /// No compaction has ever gone beyond it.
    untouched_from: i64,
    /// Sequences of the producers.
    sequences: HashMap<i64, i32>,
    log_start: i64,
}

async fn open(store: &Arc<MemoryStore>) -> (Log, Arc<Partition>) {
    let log = Log::new(Arc::clone(store) as Arc<dyn Store>);
    let partition = log.partition(TOPIC, PartitionIndex(0)).await.expect("an intact store");
    (log, partition)
}

/// Lets held writes through until `work` is done.
async fn driven<T>(store: &MemoryStore, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_micros(100)) => store.apply_held(1),
        }
    }
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let (log, partition) = open(&store).await;
        Self {
            store,
            log,
            partition,
            now_ms: 1000,
            written: BTreeMap::new(),
            untouched_from: 0,
            sequences: HashMap::new(),
            log_start: 0,
        }
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Append { records, producer, compression } => {
                self.append(records, *producer, *compression);
            }
            Step::CloseChunk => {
                self.partition.close_open_chunk(|_| true).await.expect("closed");
            }
            Step::Compact { keys } => self.compact(*keys).await,
            Step::CompactMeanwhile { records, delete_back } => {
                self.compact_meanwhile(records, *delete_back).await;
            }
            Step::CompactAndCrash { keys, writes, survives } => {
                self.compact_and_crash(*keys, *writes, *survives).await;
            }
            Step::Wait { ms } => self.now_ms += ms,
            Step::DeleteRecords { back } => {
                let before = (self.high_watermark() - back).max(0);
                let start = self.partition.delete_records(Some(Offset(before))).await;
                self.log_start = self.log_start.max(before);
                assert_eq!(start, Ok(Offset(self.log_start)));
            }
            Step::Retain { age_ms, bytes } => {
                let age = age_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
                let retention = Retention { age, bytes: *bytes };
                let start = self.partition.enforce_retention(retention, 250).await;
                self.log_start = start.expect("enforced").0.max(self.log_start);
            }
            Step::Restart => {
                self.store = Arc::new(self.store.crash(0));
                (self.log, self.partition) = open(&self.store).await;
            }
        }
    }

    fn high_watermark(&self) -> i64 {
        self.written.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// Takes its place at once; whether it is durable is for the store to say.
    fn append(&mut self, records: &[New], producer: Option<i64>, compression: Compression) {
        let mut builder = BatchBuilder::new(compression);
        if let Some(id) = producer {
            let base_sequence = *self.sequences.entry(id).or_default();
            let (id, epoch) = (ProducerId(id), ProducerEpoch(0));
            builder = builder.producer(Producer { id, epoch, base_sequence });
        }
        let base = self.high_watermark();
        for (offset, (key, has_value, timestamp_ms)) in (base..).zip(records) {
            let value = has_value.then_some(offset.unsigned_abs());
            let (key_bytes, value_bytes) =
                (key.map(|key| [key]), value.map(|value| value.to_be_bytes()));
            let record = NewRecord {
                timestamp_ms: *timestamp_ms,
                key: key_bytes.as_ref().map(|key| &key[..]),
                value: value_bytes.as_ref().map(|value| &value[..]),
                ..NewRecord::default()
            };
            builder.push(&record).expect("it fits");
            let written = Written {
                key: *key,
                value,
                timestamp_ms: *timestamp_ms,
                first_begun_ms: None,
                first_done_ms: None,
            };
            self.written.insert(offset, written);
        }
        let batch = builder.build().expect("it fits");
        let pending = self.partition.append(batch, &AppendContext::at(0)).expect("taken");
        assert_eq!(pending.assigned().base_offset, Offset(base));
        if let Some(id) = producer {
            let count = i32::try_from(records.len()).expect("few");
            *self.sequences.get_mut(&id).expect("it has written") += count;
        }
    }

    fn compaction_begins(&mut self) -> i64 {
        let closed_to = self.partition.open_from().0;
        self.untouched_from = self.untouched_from.max(closed_to);
        for written in self.written.values_mut() {
            written.first_begun_ms.get_or_insert(self.now_ms);
        }
        closed_to
    }

    async fn compact(&mut self, keys: usize) {
        let closed_to = self.compaction_begins();
        let compact = || self.partition.compact(&RULES, self.now_ms, keys * 37);
        while compact().await.expect("readable").was_due {}
        self.check_compacted(closed_to).await;
    }

    async fn compact_meanwhile(&mut self, records: &[New], delete_back: Option<i64>) {
        let before = (self.high_watermark() - delete_back.unwrap_or_default()).max(0);
        self.compaction_begins();
        self.store.hold();
        self.append(records, None, Compression::None);
        let compacts = async {
            self.partition.compact(&RULES, self.now_ms, 37 * 3).await.expect("readable");
        };
        let deletes = async {
            if delete_back.is_some() {
                self.partition.delete_records(Some(Offset(before))).await.expect("deleted");
            }
        };
        let both = async { tokio::join!(compacts, deletes) };
        driven(&self.store, both).await;
        self.store.release();
        if delete_back.is_some() {
            self.log_start = self.log_start.max(before);
        }
    }

    async fn compact_and_crash(&mut self, keys: usize, writes: usize, survives: bool) {
        self.compaction_begins();
        self.store.hold();
        let (partition, now_ms) = (Arc::clone(&self.partition), self.now_ms);
        let task = tokio::spawn(async move { partition.compact(&RULES, now_ms, keys * 37).await });
        for _ in 0..writes {
            while self.store.queued() == 0 && !task.is_finished() {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            self.store.apply_held(1);
        }
        self.store = Arc::new(self.store.crash(usize::from(survives)));
        // It has succeeded, or the store is gone.
        let _ = task.await.expect("it does not panic");
        (self.log, self.partition) = open(&self.store).await;
    }

    /// Every record that can be read, with its offset; checks the batches on the way.
    async fn read_all(&self) -> BTreeMap<i64, (Option<u8>, Option<u64>, i64)> {
        let mut found = BTreeMap::new();
        let mut from = self.log_start;
        while from < self.high_watermark() {
            let read = self.partition.read(Offset(from), 300).await.expect("in range");
            assert!(!read.batches.is_empty(), "a reader at {from} would wait for ever");
            for bytes in read.batches {
                let batch = RecordBatch::parse(bytes).expect("an intact batch");
                assert!(batch.last_offset().0 >= from, "batches are in order");
                from = batch.next_offset().0;
                for record in batch.records(1 << 20).expect("readable") {
                    let record = record.expect("well-formed");
                    if record.offset.0 < self.log_start {
                        continue;
                    }
                    let number = |bytes: &bytes::Bytes| {
                        u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"))
                    };
                    let key = record.key.as_ref().map(|key| key[0]);
                    let value = record.value.as_ref().map(number);
                    let before = found.last_key_value().map_or(-1, |(last, _)| *last);
                    assert!(record.offset.0 > before, "offsets increase");
                    found.insert(record.offset.0, (key, value, record.timestamp_ms));
                }
            }
        }
        found
    }

    async fn check(&self) {
        let offsets = self.partition.offsets();
        assert_eq!(offsets.log_start_offset.0, self.log_start);
        assert_eq!(offsets.high_watermark.0, self.high_watermark());
        check_totals(&self.partition).await;
        let found = self.read_all().await;
        for (offset, record) in &found {
            let written = &self.written[offset];
            assert_eq!(record, &(written.key, written.value, written.timestamp_ms), "at {offset}");
        }
        let mut last_of = HashMap::new();
        for (offset, written) in self.written.range(self.log_start..) {
            if *offset >= self.untouched_from {
                assert!(found.contains_key(offset), "{offset} was not compacted and is gone");
            }
            if let Some(key) = written.key {
                last_of.insert(key, (*offset, written));
            }
        }
        for (key, (offset, written)) in last_of {
            let may_be_gone = written.value.is_none()
                && written
                    .first_begun_ms
                    .is_some_and(|begun_ms| self.now_ms >= begun_ms + TOMBSTONES_MS);
            let is_there = found.contains_key(&offset);
            assert!(is_there || may_be_gone, "the last of key {key}, at {offset}, is gone");
        }
        self.check_times(&found).await;
        self.check_index().await;
    }

    /// Look-ups by time are as exact as without compaction.
    async fn check_times(&self, found: &BTreeMap<i64, (Option<u8>, Option<u64>, i64)>) {
        for time in [0, 60, 150, 199] {
            let expected = found.iter().find(|(_, record)| record.2 >= time);
            let answer = self.partition.offset_for_time(time).await.expect("readable");
            let answer = answer.map(|answer| (answer.offset.0, answer.timestamp_ms));
            assert_eq!(answer, expected.map(|(offset, record)| (*offset, record.2)), "{time}");
        }
        let max = found.values().map(|record| record.2).max();
        let answer = self.partition.offset_for_max_timestamp().await.expect("readable");
        assert_eq!(answer.map(|answer| answer.timestamp_ms), max);
    }

    /// The chunk index says what the batches are.
    async fn check_index(&self) {
        let keys = *self.partition.keys();
        let scan = |range| self.store.scan(range, ScanLimit::bytes(usize::MAX));
        let batches = scan(keys.kind_range(Kind::Batch)).await.expect("readable").items;
        let chunks = scan(keys.kind_range(Kind::Chunk)).await.expect("readable").items;
        for (key, _) in batches.iter().chain(&chunks) {
            let last = trailing_number(key).expect("a key that ends in an offset");
            assert!(last >= self.log_start, "what was deleted came back");
        }
        let mut next = 0;
        for (key, value) in chunks {
            let (chunk, last) = (Chunk::decode(&value).expect("a chunk"), trailing_number(&key));
            let last = last.expect("a chunk's key");
            assert!(chunk.base_offset.0 >= next && last >= chunk.base_offset.0);
            next = last + 1;
            let (mut bytes, mut max_timestamp) = (0, -1);
            for (_, batch) in &batches {
                let batch = RecordBatch::parse(batch.clone()).expect("an intact batch");
                if (chunk.base_offset..=Offset(last)).contains(&batch.last_offset()) {
                    bytes += batch.size() as u64;
                    max_timestamp = max_timestamp.max(batch.max_timestamp());
                }
            }
            // Of one that holds the log's start, some may be gone.
            let is_exact = chunk.base_offset.0 >= self.log_start;
            let says = (chunk.bytes, chunk.max_timestamp);
            assert!(
                !is_exact || says == (bytes, max_timestamp),
                "{says:?} {bytes} {max_timestamp}"
            );
            assert!(chunk.bytes >= bytes && chunk.max_timestamp >= max_timestamp);
        }
    }

    /// After a whole compaction nothing superseded is left below `closed_to`, and no tombstone whose time has passed.
    async fn check_compacted(&mut self, closed_to: i64) {
        let found = self.read_all().await;
        let mut last_of = HashMap::new();
        for (offset, written) in self.written.range(..closed_to) {
            last_of.insert(written.key, *offset);
        }
        for (offset, (key, value, _)) in found.range(..closed_to) {
            assert!(key.is_some(), "no key at {offset}");
            assert_eq!(last_of[key], *offset, "superseded and still there");
            let horizon_ms = self.written[offset].first_done_ms.map(|ms| ms + TOMBSTONES_MS);
            let is_old = value.is_none() && horizon_ms.is_some_and(|end| end <= self.now_ms);
            assert!(!is_old, "the tombstone at {offset} had to go");
        }
        for (_, written) in self.written.range_mut(..closed_to) {
            written.first_done_ms.get_or_insert(self.now_ms);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_compacted_partition_behaves_as_its_model(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.run(step).await;
                world.check().await;
            }
            world.run(&Step::CloseChunk).await;
            for _ in 0..2 {
                world.run(&Step::Compact { keys: 100 }).await;
                world.check().await;
                world.run(&Step::Wait { ms: TOMBSTONES_MS }).await;
            }
        });
    }
}
