//! The volatile modes against a model, over a store that holds writes back, fails and crashes.
//!
//! The model remembers every record that was ever acknowledged or read, by its offset, and which of them a completed flush had to
//! keep. After each step everything readable is compared with it. So: no offset is ever given to two different records, `hybrid`
//! loses at most what came after the last completed flush, `persistent` nothing, a change of the mode nothing that was
//! readable, and between log start and end no offset is out of range.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};
use robustmq_common::ids::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};
use robustmq_common::record::{Producer, RecordBatch};
use uuid::Uuid;

use super::{build, check_totals};
use crate::log::{
    AppendContext, AppendError, AppendRules, Budgets, Log, Partition, PendingAppend, StorageMode,
};
use crate::store::{MemoryStore, Store, StoreError};

const TOPIC: TopicId = TopicId(Uuid::from_bytes([2; 16]));

#[derive(Debug, Clone)]
enum Step {
    Append {
        records: usize,
    },
    /// The producer's next batch.
    Produce {
        producer: i64,
    },
    /// Its last batch again.
    Repeat {
        producer: i64,
    },
    Flush,
    Change {
        mode: u8,
    },
    Fail,
    Crash {
        survivors: usize,
    },
    Stop,
    Evict,
    DeleteRecords {
        back: i64,
    },
    /// Writes wait while this is appended.
    Held {
        records: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4_usize).prop_map(|records| Step::Append { records }),
        4 => (0..2_i64).prop_map(|producer| Step::Produce { producer }),
        2 => (0..2_i64).prop_map(|producer| Step::Repeat { producer }),
        3 => Just(Step::Flush),
        2 => (0..3_u8).prop_map(|mode| Step::Change { mode }),
        1 => Just(Step::Fail),
        1 => (0..4_usize).prop_map(|survivors| Step::Crash { survivors }),
        1 => Just(Step::Stop),
        1 => Just(Step::Evict),
        1 => (0..6_i64).prop_map(|back| Step::DeleteRecords { back }),
        2 => (1..3_usize).prop_map(|records| Step::Held { records }),
    ]
}

fn mode(number: u8) -> StorageMode {
    match number {
        0 => StorageMode::MEMORY,
        1 => StorageMode::HYBRID,
        _ => StorageMode::Persistent,
    }
}

/// A batch that was taken: which one, and how far it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    payload: u64,
    last: i64,
}

struct World {
    store: Arc<MemoryStore>,
    log: Log,
    partition: Arc<Partition>,
    mode: StorageMode,
    /// Every batch that was ever acknowledged, by its first offset.
    ever: BTreeMap<i64, Taken>,
    /// Those that have to be readable now.
    live: BTreeMap<i64, Taken>,
    /// Those that have to be readable after a crash.
    kept: BTreeMap<i64, Taken>,
    end: i64,
    log_start: i64,
    /// The last batch of each producer, and whether a crash came since.
    producers: BTreeMap<i64, (i32, i64)>,
    next_payload: u64,
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

fn open(store: &Arc<MemoryStore>) -> (Log, Arc<Partition>) {
    let budgets = Budgets { unstored_bytes: 1 << 20, ..Budgets::default() };
    let log = Log::with_budgets(Arc::clone(store) as Arc<dyn Store>, budgets);
    let partition = at_once(log.partition(TOPIC, PartitionIndex(0))).expect("an intact store");
    (log, partition)
}

fn payload_of(batch: &RecordBatch) -> u64 {
    let first = batch.records(1 << 20).expect("plain").next().expect("a record");
    let value = first.expect("well-formed").value.expect("a value");
    u64::from_be_bytes(value[..8].try_into().expect("eight bytes"))
}

impl World {
    fn new(mode: StorageMode) -> Self {
        let store = Arc::new(MemoryStore::new());
        let (log, partition) = open(&store);
        Self {
            store,
            log,
            partition,
            mode,
            ever: BTreeMap::new(),
            live: BTreeMap::new(),
            kept: BTreeMap::new(),
            end: 0,
            log_start: 0,
            producers: BTreeMap::new(),
            next_payload: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append { records } => {
                self.append(records, None);
            }
            Step::Produce { producer } => self.produce(producer),
            Step::Repeat { producer } => self.repeat(producer),
            Step::Flush => {
                at_once(self.partition.flush()).expect("the store goes on");
                self.durable();
            }
            Step::Change { mode: to } => self.change(mode(to)),
            Step::Fail => self.fail(),
            Step::Crash { survivors } => self.crash(survivors),
            Step::Stop => {
                at_once(self.log.stop()).expect("the store goes on");
                self.durable();
                let end = self.end;
                self.crash(0);
                assert_eq!(self.end, end, "a stop wastes no offsets");
            }
            Step::Evict => self.evict(),
            Step::DeleteRecords { back } => self.delete_records(back),
            Step::Held { records } => self.held(records),
        }
    }

    /// What a completed flush keeps.
    fn durable(&mut self) {
        if !matches!(self.mode, StorageMode::Memory { .. }) {
            self.kept = self.live.clone();
        }
    }

    fn context(&self) -> AppendContext {
        let rules = AppendRules { storage: self.mode, ..AppendRules::default() };
        AppendContext { rules, ..AppendContext::at(0) }
    }

    /// As a produce handler does it: `ready`, then append, until it is taken.
    fn submit(&self, batch: &RecordBatch) -> Result<PendingAppend, AppendError> {
        for _ in 0..10 {
            at_once(self.partition.ready()).expect("the store goes on");
            match self.partition.append(batch.clone(), &self.context()) {
                Err(AppendError::NotReady) => {}
                answer => return answer,
            }
        }
        panic!("never ready");
    }

    fn batch(&self, records: usize, producer: Option<Producer>) -> RecordBatch {
        build(&vec![0; records], producer, &self.next_payload.to_be_bytes())
    }

    fn append(&mut self, records: usize, producer: Option<Producer>) -> i64 {
        let batch = self.batch(records, producer);
        let pending = self.submit(&batch).expect("taken");
        let appended = at_once(pending.durable()).expect("acknowledged");
        assert!(!appended.duplicate);
        self.took(appended.base_offset.0, appended.last_offset.0);
        if self.mode == StorageMode::Persistent {
            self.kept = self.live.clone();
        }
        appended.base_offset.0
    }

    fn took(&mut self, base: i64, last: i64) {
        assert_eq!(base, self.end, "an offset was skipped or given twice");
        let taken = Taken { payload: self.next_payload, last };
        self.ever.insert(base, taken);
        self.live.insert(base, taken);
        self.end = last + 1;
        self.next_payload += 1;
    }

    fn produce(&mut self, id: i64) {
        let sequence = self.producers.get(&id).map_or(0, |(sequence, _)| sequence + 1);
        let producer =
            Producer { id: ProducerId(id), epoch: ProducerEpoch(0), base_sequence: sequence };
        let base = self.append(1, Some(producer));
        self.producers.insert(id, (sequence, base));
    }

    /// The original if it is still there; after a crash that took it, it is new.
    fn repeat(&mut self, id: i64) {
        let Some((sequence, base)) = self.producers.get(&id).copied() else { return };
        let producer =
            Producer { id: ProducerId(id), epoch: ProducerEpoch(0), base_sequence: sequence };
        let batch = self.batch(1, Some(producer));
        let pending = self.submit(&batch).expect("taken");
        let appended = at_once(pending.durable()).expect("acknowledged");
        if appended.duplicate {
            assert_eq!(appended.base_offset.0, base);
        } else {
            assert!(!self.live.contains_key(&base), "it was there, and was stored again");
            self.took(appended.base_offset.0, appended.last_offset.0);
            if self.mode == StorageMode::Persistent {
                self.kept = self.live.clone();
            }
            self.producers.insert(id, (sequence, appended.base_offset.0));
        }
    }

    fn change(&mut self, to: StorageMode) {
        // The partition has a mode, as it has once it is used.
        self.append(1, None);
        at_once(self.log.change_mode(TOPIC, to)).expect("the store goes on");
        if to != self.mode {
            self.kept = self.live.clone();
        }
        self.mode = to;
    }

    /// A write-behind, or a change to a more durable mode, fails: nothing is lost by that.
    fn fail(&mut self) {
        self.append(1, None);
        if self.mode == StorageMode::HYBRID {
            self.store.fail_next(StoreError::NoSpace("no room".to_owned()));
            assert!(at_once(self.partition.flush()).is_err());
            self.append(1, None);
        }
    }

    fn crash(&mut self, survivors: usize) {
        self.store = Arc::new(self.store.crash(survivors));
        (self.log, self.partition) = open(&self.store);
        let offsets = self.partition.offsets();
        let next = self.partition.sequencer().next_offset.0;
        assert!(next >= self.end, "offsets went back");
        self.end = next;
        // What a mode before this one stored is still there, and a crash may keep more than it has to.
        let kept = std::mem::take(&mut self.kept);
        self.live = self.readable();
        for (base, taken) in &kept {
            assert_eq!(self.live.get(base), Some(taken), "{base} is lost");
        }
        for (base, taken) in &self.live {
            assert_eq!(self.ever.get(base), Some(taken), "{base} was never taken");
        }
        self.log_start = offsets.log_start_offset.0;
        self.kept = self.live.clone();
    }

    fn evict(&mut self) {
        let (log, other) = open(&Arc::new(MemoryStore::new()));
        drop((log, std::mem::replace(&mut self.partition, other)));
        self.log.evict_idle(Duration::ZERO);
        let loaded = self.log.partition(TOPIC, PartitionIndex(0));
        self.partition = at_once(loaded).expect("an intact store");
        self.log_start = self.log_start.max(self.partition.offsets().log_start_offset.0);
    }

    fn delete_records(&mut self, back: i64) {
        let before = (self.partition.offsets().high_watermark.0 - back).max(0);
        let start = at_once(self.partition.remove_before(Some(Offset(before))));
        self.log_start = self.log_start.max(before);
        assert_eq!(start, Ok(Offset(self.log_start)));
        self.live.retain(|_, taken| taken.last >= before);
        self.kept.retain(|_, taken| taken.last >= before);
    }

    /// A disk that is slow, and then a crash that finds some of what was on its way.
    fn held(&mut self, records: usize) {
        if self.mode == StorageMode::Persistent {
            return;
        }
        self.append(1, None);
        self.store.hold();
        self.append(records, None);
        let partition = Arc::clone(&self.partition);
        let mut flush = Box::pin(partition.flush());
        let waits = (&mut flush).now_or_never().is_none();
        assert_eq!(waits, self.mode == StorageMode::HYBRID);
        self.append(records, None);
        self.check();
        self.store.release();
        drop(flush);
    }

    /// Everything that can be read from the log start on.
    fn readable(&self) -> BTreeMap<i64, Taken> {
        let mut found = BTreeMap::new();
        let offsets = self.partition.offsets();
        let mut from = offsets.log_start_offset;
        while from < offsets.high_watermark {
            let result = at_once(self.partition.read(from, 200)).expect("in range");
            if result.batches.is_empty() {
                break;
            }
            for bytes in result.batches {
                let batch = RecordBatch::parse(bytes).expect("an intact batch");
                let (base, last) = (batch.base_offset().0, batch.next_offset().0 - 1);
                found.insert(base, Taken { payload: payload_of(&batch), last });
                from = batch.next_offset();
            }
        }
        found
    }

    fn check(&self) {
        let offsets = self.partition.offsets();
        // Behind the last record there may be a hole, in which readers are at the end.
        let last = self.live.values().map(|taken| taken.last + 1).max().unwrap_or(self.log_start);
        let shown = offsets.high_watermark.0;
        let is_behind_all = (last..self.end).contains(&shown);
        assert!(shown == self.end || is_behind_all, "{shown} of {}", self.end);
        assert_eq!(offsets.log_start_offset.0, self.log_start);
        assert_eq!(self.readable(), self.live);
        at_once(check_totals(&self.partition));
        // From anywhere a reader gets what comes next.
        for from in [self.log_start, self.end - 3, self.end - 1, self.end] {
            if from >= self.log_start {
                let read = at_once(self.partition.read(Offset(from), 1)).expect("in range");
                let next = self.live.values().any(|taken| taken.last >= from);
                assert_eq!(!read.batches.is_empty(), next, "at {from}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn volatile_modes_behave_as_their_model(first in 0..3_u8, steps in vec(step(), 1..40)) {
        let mut world = World::new(mode(first));
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.run(&Step::Crash { survivors: 0 });
        world.check();
    }
}
