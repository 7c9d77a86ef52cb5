//! A partition against a model of it, over a store that holds writes back, fails and crashes.
//!
//! The model is the list of batches in their order, and how many of them are durable. After each step everything that can be read is
//! compared with it, and every answer with what the model says. So: nothing acknowledged is lost, nothing is read before it is
//! durable, no offset ever shows two different records, and nothing is stored twice.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use robustmq_common::ids::{
    EdgeId, EdgeSeq, Incarnation, LaneId, Offset, PartitionIndex, ProducerEpoch, ProducerId,
    TopicId,
};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, Producer, RecordBatch};
use uuid::Uuid;

use crate::log::{
    AppendContext, AppendError, Appended, Log, Origin, OriginKey, Partition, ProducerError,
};
use crate::store::{MemoryStore, Store, StoreError};

const TOPIC: TopicId = TopicId(Uuid::from_bytes([1; 16]));

#[derive(Debug, Clone)]
enum Step {
    /// A batch without a producer.
    Append {
        records: i32,
    },
    /// The producer's next batch.
    Produce {
        producer: i64,
        records: i32,
    },
    /// One of its last batches again, `back` before the last.
    Repeat {
        producer: i64,
        back: usize,
    },
    /// A batch with a gap before it.
    Skip {
        producer: i64,
    },
    /// A batch of a newer instance of the producer, or of an older one.
    Epoch {
        producer: i64,
        newer: bool,
        sequence: i32,
    },
    /// Records of an edge: `ahead` of what was applied (0 repeats the last one).
    Edge {
        lane: u8,
        ahead: u64,
        records: i32,
    },
    Hold,
    ApplyOne,
    Release,
    Fail,
    Crash {
        survivors: usize,
    },
    Evict,
    DeleteRecords {
        back: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let producer = 0..2_i64;
    prop_oneof![
        3 => (1..4).prop_map(|records| Step::Append { records }),
        6 => (producer.clone(), 1..4).prop_map(|(producer, records)| Step::Produce { producer, records }),
        4 => (producer.clone(), 0..7_usize).prop_map(|(producer, back)| Step::Repeat { producer, back }),
        1 => producer.clone().prop_map(|producer| Step::Skip { producer }),
        1 => (producer, proptest::bool::ANY, 0..2)
            .prop_map(|(producer, newer, sequence)| Step::Epoch { producer, newer, sequence }),
        4 => (0..2_u8, 0..3_u64, 1..3)
            .prop_map(|(lane, ahead, records)| Step::Edge { lane, ahead, records }),
        2 => Just(Step::Hold),
        3 => Just(Step::ApplyOne),
        2 => Just(Step::Release),
        1 => Just(Step::Fail),
        1 => (0..6_usize).prop_map(|survivors| Step::Crash { survivors }),
        1 => Just(Step::Evict),
        1 => (0..6_i64).prop_map(|back| Step::DeleteRecords { back }),
    ]
}

/// A batch that was assigned.
#[derive(Debug, Clone)]
struct Entry {
    payload: u64,
    base: i64,
    records: i32,
    producer: Option<Producer>,
    origin: Option<Origin>,
}

impl Entry {
    fn next(&self) -> i64 {
        self.base + i64::from(self.records)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Appended, AppendError>>>>;

/// An append that was taken and not answered yet.
struct Waiting {
    payload: u64,
    base: i64,
    duplicate: bool,
    answer: Answer,
}

struct World {
    store: Arc<MemoryStore>,
    log: Log,
    partition: Arc<Partition>,
    held: bool,
    entries: Vec<Entry>,
    durable: usize,
    log_start: i64,
    /// What a read has shown once, forever.
    shown: HashMap<i64, (u64, i32)>,
    waiting: Vec<Waiting>,
    next_payload: u64,
}

/// What has to be ready at once, since the memory engine never makes anybody wait for a read.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

fn open(store: &Arc<MemoryStore>) -> (Log, Arc<Partition>) {
    let log = Log::new(Arc::clone(store) as Arc<dyn Store>);
    let partition = at_once(log.partition(TOPIC, PartitionIndex(0))).expect("an intact store");
    (log, partition)
}

fn batch(payload: u64, records: i32, producer: Option<Producer>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for index in 0..records {
        let value = [&payload.to_be_bytes()[..], &index.to_be_bytes()].concat();
        let record = NewRecord { value: Some(&value), ..NewRecord::default() };
        builder.push(&record).expect("it fits");
    }
    builder.build().expect("it fits")
}

fn lane(lane: u8) -> OriginKey {
    let edge = EdgeId::new("edge").expect("a legal name");
    OriginKey { edge, incarnation: Incarnation(1), lane: LaneId(lane) }
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let (log, partition) = open(&store);
        Self {
            store,
            log,
            partition,
            held: false,
            entries: Vec::new(),
            durable: 0,
            log_start: 0,
            shown: HashMap::new(),
            waiting: Vec::new(),
            next_payload: 0,
        }
    }

    fn high_watermark(&self) -> i64 {
        self.entries[..self.durable].last().map_or(0, Entry::next)
    }

    fn of_producer(&self, id: i64) -> Vec<&Entry> {
        let mine = |entry: &&Entry| entry.producer.is_some_and(|producer| producer.id.0 == id);
        self.entries.iter().filter(mine).collect()
    }

    /// The producer's next batch, as an honest client that knows the log would send it.
    fn next_of(&self, id: i64) -> Producer {
        let fresh = Producer { id: ProducerId(id), epoch: ProducerEpoch(0), base_sequence: 0 };
        self.of_producer(id).last().map_or(fresh, |last| {
            let producer = last.producer.expect("it has one");
            let base_sequence = producer.base_sequence + last.records;
            Producer { base_sequence, ..producer }
        })
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append { records } => self.append(records, None, None),
            Step::Produce { producer, records } => {
                self.append(records, Some(self.next_of(producer)), None);
            }
            Step::Repeat { producer, back } => {
                let again = self.of_producer(producer).into_iter().rev().nth(back).cloned();
                if let Some(entry) = again {
                    self.append(entry.records, entry.producer, None);
                }
            }
            Step::Skip { producer } => {
                let next = self.next_of(producer);
                let base_sequence = next.base_sequence + 100;
                self.append(1, Some(Producer { base_sequence, ..next }), None);
            }
            Step::Epoch { producer, newer, sequence } => {
                let next = self.next_of(producer);
                let epoch = ProducerEpoch(next.epoch.0 + if newer { 1 } else { -1 });
                if epoch.0 >= 0 {
                    let base_sequence = sequence;
                    self.append(1, Some(Producer { epoch, base_sequence, ..next }), None);
                }
            }
            Step::Edge { lane: number, ahead, records } => {
                let applied = self.applied(number).unwrap_or(0);
                let first = (applied + ahead).max(1);
                let key = lane(number);
                let last_seq = EdgeSeq(first + u64::try_from(records).expect("positive") - 1);
                let origin = Origin { key, first_seq: EdgeSeq(first), last_seq };
                self.append(records, None, Some(origin));
            }
            Step::Hold => {
                self.store.hold();
                self.held = true;
            }
            Step::ApplyOne => {
                self.store.apply_held(1);
                self.durable = self.entries.len() - self.store.queued();
            }
            Step::Release => {
                self.store.release();
                self.held = false;
                self.durable = self.entries.len();
            }
            Step::Fail if self.store.queued() > 0 => {
                self.store.fail_next(StoreError::NoSpace("no room".to_owned()));
                self.store.apply_held(1);
                self.entries.truncate(self.durable);
            }
            Step::Fail => {}
            Step::Crash { survivors } => self.crash(survivors),
            Step::Evict => self.evict(),
            Step::DeleteRecords { back } => self.delete_records(back),
        }
    }

    fn applied(&self, number: u8) -> Option<u64> {
        let mine = |entry: &Entry| {
            entry.origin.as_ref().filter(|o| o.key.lane.0 == number).map(|o| o.last_seq.0)
        };
        self.entries.iter().rev().find_map(mine)
    }

    /// What the partition has to say to a batch: a place (and whether it is an old one), or an error.
    fn expected(
        &self,
        producer: Option<Producer>,
        records: i32,
        origin: Option<&Origin>,
    ) -> Result<(u64, i64, bool), AppendError> {
        if let Some(origin) = origin
            && let Some(applied) = self.applied(origin.key.lane.0)
            && origin.first_seq.0 <= applied
        {
            return Err(AppendError::AlreadyApplied { applied: EdgeSeq(applied) });
        }
        let new = (self.next_payload, self.entries.last().map_or(0, Entry::next), false);
        let Some(Producer { id, epoch, base_sequence: sequence }) = producer else {
            return Ok(new);
        };
        let history = self.of_producer(id.0);
        let Some(last) = history.last() else { return Ok(new) };
        let current = last.producer.expect("it has one").epoch;
        if epoch < current {
            return Err(ProducerError::InvalidEpoch { id, epoch, current }.into());
        }
        let of_epoch: Vec<_> =
            history.iter().filter(|e| e.producer.is_some_and(|p| p.epoch == epoch)).collect();
        let same = |entry: &&&&Entry| {
            entry.records == records && entry.producer.is_some_and(|p| p.base_sequence == sequence)
        };
        if let Some(original) = of_epoch.iter().rev().take(5).find(same) {
            return Ok((original.payload, original.base, true));
        }
        let expected = of_epoch
            .last()
            .map_or(0, |last| last.producer.expect("it has one").base_sequence + last.records);
        if sequence != expected {
            return Err(ProducerError::OutOfOrderSequence { id, sequence, expected }.into());
        }
        Ok(new)
    }

    fn append(&mut self, records: i32, producer: Option<Producer>, origin: Option<Origin>) {
        at_once(self.partition.ready()).expect("the store goes on");
        if let Some(origin) = &origin {
            self.check_origin(origin);
        }
        let expected = self.expected(producer, records, origin.as_ref());
        let context = AppendContext { origin: origin.clone(), ..AppendContext::at(0) };
        let taken = self.partition.append(batch(self.next_payload, records, producer), &context);
        let (payload, base, duplicate) = match (taken, expected) {
            (Ok(pending), Ok((payload, base, duplicate))) => {
                let assigned = pending.assigned();
                assert_eq!((assigned.base_offset.0, assigned.duplicate), (base, duplicate));
                let answer = Box::pin(pending.durable());
                self.waiting.push(Waiting { payload, base, duplicate, answer });
                (payload, base, duplicate)
            }
            (Err(error), Err(expected)) => return assert_eq!(error, expected),
            (taken, expected) => panic!("{taken:?} where {expected:?} was expected"),
        };
        if !duplicate {
            self.next_payload += 1;
            self.entries.push(Entry { payload, base, records, producer, origin });
            if !self.held {
                self.durable = self.entries.len();
            }
        }
    }

    /// The lane's position is told at once if it is durable, and not before.
    fn check_origin(&self, origin: &Origin) {
        let number = origin.key.lane.0;
        let pending = self.entries[self.durable..]
            .iter()
            .any(|entry| entry.origin.as_ref().is_some_and(|o| o.key.lane.0 == number));
        let told = self.partition.origin_applied(&origin.key).now_or_never();
        match told {
            Some(applied) => {
                assert_eq!(applied, Ok(self.applied(number).map(EdgeSeq)));
                assert!(!pending, "told before it was durable");
            }
            None => assert!(pending, "kept waiting for nothing"),
        }
    }

    fn crash(&mut self, survivors: usize) {
        let survivors = survivors.min(self.store.queued());
        self.durable = self.entries.len() - self.store.queued() + survivors;
        self.entries.truncate(self.durable);
        self.store = Arc::new(self.store.crash(survivors));
        self.held = false;
        for mut waiting in self.waiting.drain(..) {
            let answer = at_once(&mut waiting.answer);
            // What was durable before the crash may have been unanswered; what was not is an error, and may be there all the same.
            if let Ok(appended) = answer {
                assert_eq!(appended.base_offset.0, waiting.base);
            }
        }
        (self.log, self.partition) = open(&self.store);
    }

    fn evict(&mut self) {
        let idle = self.waiting.is_empty() && self.store.queued() == 0;
        let (log, partition) = open(&Arc::new(MemoryStore::new()));
        self.partition = partition;
        drop(log);
        assert_eq!(self.log.evict_idle(Duration::ZERO), usize::from(idle));
        let loaded = self.log.partition(TOPIC, PartitionIndex(0));
        self.partition = at_once(loaded).expect("an intact store");
    }

    fn delete_records(&mut self, back: i64) {
        if self.held || self.store.queued() > 0 {
            return;
        }
        let before = (self.high_watermark() - back).max(0);
        let start = at_once(self.partition.remove_before(Some(Offset(before))));
        self.log_start = self.log_start.max(before);
        assert_eq!(start, Ok(Offset(self.log_start)));
    }

    /// Every answer that is there is the right one, and it is there as soon as it can be.
    fn check_answers(&mut self) {
        let mut still = Vec::new();
        for mut waiting in std::mem::take(&mut self.waiting) {
            let position = self.entries.iter().position(|e| e.payload == waiting.payload);
            match (&mut waiting.answer).now_or_never() {
                Some(Ok(appended)) => {
                    let position = position.expect("acknowledged, so it is in the log");
                    assert!(position < self.durable, "acknowledged before it was durable");
                    assert_eq!(appended.base_offset.0, waiting.base);
                    assert_eq!(appended.duplicate, waiting.duplicate);
                }
                Some(Err(error)) => {
                    assert!(position.is_none(), "{error} for what is in the log");
                }
                None => {
                    let position = position.expect("what failed is answered at once");
                    assert!(position >= self.durable, "durable and not answered");
                    still.push(waiting);
                }
            }
        }
        self.waiting = still;
    }

    /// Everything between log start and high watermark is readable, dense, and what the model has; nothing else is.
    fn check_reads(&mut self) {
        let offsets = self.partition.offsets();
        assert_eq!(offsets.high_watermark.0, self.high_watermark());
        assert_eq!(offsets.log_start_offset.0, self.log_start);
        let mut from = self.log_start;
        while from < self.high_watermark() {
            let result = at_once(self.partition.read(Offset(from), 200)).expect("in range");
            assert!(!result.batches.is_empty(), "nothing at {from}");
            for bytes in result.batches {
                let batch = RecordBatch::parse(bytes).expect("an intact batch");
                let entry = self.entries[..self.durable]
                    .iter()
                    .find(|entry| entry.base == batch.base_offset().0)
                    .expect("a batch of the model");
                assert_eq!(batch.records_count(), entry.records);
                for (index, record) in (0..).zip(batch.records(1 << 20).expect("plain")) {
                    let record = record.expect("well-formed");
                    let value =
                        [&entry.payload.to_be_bytes()[..], &i32::to_be_bytes(index)].concat();
                    assert_eq!(record.value.as_deref(), Some(&value[..]));
                    let content = (entry.payload, index);
                    let before = self.shown.insert(record.offset.0, content);
                    assert!(before.is_none_or(|before| before == content), "an offset was reused");
                }
                from = batch.next_offset().0;
            }
        }
        assert_eq!(from.max(self.high_watermark()), from);
        let past = at_once(self.partition.read(Offset(self.high_watermark()), 200));
        assert!(past.expect("in range").batches.is_empty());
    }
}

proptest! {
    #[test]
    fn a_partition_behaves_as_its_model(steps in vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check_answers();
            world.check_reads();
        }
        world.run(&Step::Release);
        world.check_answers();
        world.check_reads();
        assert!(world.waiting.is_empty());
    }
}
