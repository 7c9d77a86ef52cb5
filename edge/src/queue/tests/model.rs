//! The queue against a model, over random appends, acknowledgements, faults and crashes.
//!
//! What was promised (an append that resolved `Ok`) is there afterwards with the same sequence, digest and bytes, until it
//! was acknowledged, dropped or expired; what was refused may turn up, but only once, and only after what was promised.
//! Every account is gapless, and a sequence is never given out twice once anybody has seen it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};

use super::super::sim_disk::Faults;
use super::super::ticket::PendingAppend;
use super::super::{Append, FullPolicy, Queue, SkipReason};
use super::{Clock, DIR, Machine, check_gapless, now, read_all, record};

#[derive(Clone, Debug)]
enum Step {
    /// This many records share a write and a sync.
    Append {
        lane: u8,
        count: u8,
        size: u16,
        ttl: bool,
    },
    /// Acknowledge this share, in percent, of what is there.
    Acknowledge {
        lane: u8,
        percent: u8,
    },
    Crash,
    Kill,
    Close,
    /// The machine stops after this many disk calls, wherever that is.
    StopAfter(u32),
    /// The machine stops while it recovers.
    StopInOpen(u32),
    FailSync(u32),
    /// The disk has only so much room left.
    Fill(u16),
    Advance(u16),
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    let lane = 0..2u8;
    prop_oneof![
        12 => (lane.clone(), 1..6u8, 0..3000u16, any::<bool>())
            .prop_map(|(lane, count, size, ttl)| Step::Append { lane, count, size, ttl }),
        4 => (lane, 0..=100u8).prop_map(|(lane, percent)| Step::Acknowledge { lane, percent }),
        2 => Just(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        2 => (0..20u32).prop_map(Step::StopAfter),
        1 => (0..12u32).prop_map(Step::StopInOpen),
        1 => (0..4u32).prop_map(Step::FailSync),
        1 => (0..4000u16).prop_map(Step::Fill),
        1 => (0..100u16).prop_map(Step::Advance),
        3 => Just(Step::Check),
    ]
}

#[derive(Default)]
struct LaneModel {
    promised: BTreeMap<u64, (Vec<u8>, ChainDigest)>,
    /// Asked for, outcome bad or unknown.
    attempted: HashSet<Vec<u8>>,
    /// Acknowledged when their digest could not be known any more.
    unknown: HashSet<u64>,
    /// The furthest that was acknowledged.
    acknowledged: u64,
}

struct World {
    machine: Machine,
    queue: Option<Queue>,
    lanes: [LaneModel; 2],
    counter: u32,
    short: bool,
}

impl World {
    fn new(seed: u64, policy: FullPolicy, short: bool) -> Self {
        let mut machine = Machine::new(seed);
        machine.settings.lanes = 2;
        machine.settings.policy = policy;
        let mut world = Self { machine, queue: None, lanes: Default::default(), counter: 0, short };
        world.reopen();
        world
    }

    fn faults(&self) -> Faults {
        Faults { short: self.short, ..Faults::default() }
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("open between steps")
    }

    fn reopen(&mut self) {
        self.queue = Some(self.machine.open().0);
        self.machine.disk.set_faults(self.faults());
        self.check();
    }

    fn crash(&mut self) {
        self.queue = None;
        self.machine.crash();
        self.reopen();
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append { lane, count, size, ttl } => self.append(lane, count, size, ttl),
            Step::Acknowledge { lane, percent } => self.acknowledge(lane, percent),
            Step::Crash => self.crash(),
            Step::Kill => {
                // What a failed sync left in the kernel's memory looks synced to the next process; the model leaves out a
                // queue that goes on after that without a restart of the machine.
                self.queue = None;
                self.machine.disk.kill();
                self.reopen();
            }
            Step::Close => {
                let queue = self.queue();
                queue.engine.close(&queue.shared);
                if queue.poisoned().is_some() {
                    return self.crash();
                }
                self.queue = None;
                self.machine.disk.set_faults(self.faults());
                self.reopen();
            }
            Step::StopAfter(calls) => {
                let faults = Faults { stop_after: Some(calls), ..self.faults() };
                self.machine.disk.set_faults(faults);
            }
            Step::StopInOpen(calls) => self.stop_in_open(calls),
            Step::FailSync(syncs) => {
                let faults = Faults { fail_sync_after: Some(syncs), ..self.faults() };
                self.machine.disk.set_faults(faults);
            }
            Step::Fill(room) => {
                let capacity_bytes = Some(self.machine.disk.used_bytes() + u64::from(room));
                self.machine.disk.set_faults(Faults { capacity_bytes, ..self.faults() });
            }
            Step::Advance(seconds) => {
                self.machine.clock.advance(Duration::from_secs(u64::from(seconds)));
            }
            Step::Check => self.check(),
        }
        if self.queue().poisoned().is_some() {
            self.crash();
        }
    }

    fn stop_in_open(&mut self, calls: u32) {
        self.queue = None;
        self.machine.crash();
        let faults = Faults { stop_after: Some(calls), ..self.faults() };
        self.machine.disk.set_faults(faults);
        let opened = Queue::open_inline(
            Arc::new(self.machine.disk.clone()),
            Arc::new(self.machine.clock.clone()),
            std::path::Path::new(DIR),
            self.machine.settings.clone(),
        );
        drop(opened);
        self.crash();
    }

    /// Appends without telling the writer in between, then waits for all.
    fn append(&mut self, lane: u8, count: u8, size: u16, ttl: bool) {
        let queue = self.queue().clone();
        let stamp = self.machine.clock.now().stamp();
        let salt = queue.shared.salt(LaneId(lane));
        let mut waiting: Vec<(Vec<u8>, PendingAppend)> = Vec::new();
        for _ in 0..count {
            self.counter += 1;
            let mut body = self.counter.to_le_bytes().to_vec();
            body.resize(4 + usize::from(size), b'.');
            let append =
                Append { ttl: ttl.then(|| Duration::from_secs(50)), ..record(lane, body.clone()) };
            let mut state = queue.shared.lock();
            // What is refused at once can never turn up.
            if let Ok(pending) = state.append(&append, &stamp, &queue.shared.settings, salt) {
                waiting.push((body, pending));
            }
        }
        let _ = now(queue.flush());
        for (body, pending) in waiting {
            let outcome = pending.outcome().expect("resolved by the flush");
            let model = &mut self.lanes[usize::from(lane)];
            match outcome {
                Ok(seq) => {
                    let digest = now(queue.digest_at(LaneId(lane), seq)).ok().flatten();
                    let Some(digest) = digest else { continue };
                    let before = model.promised.insert(seq.0, (body, digest));
                    assert_eq!(before, None, "sequence {seq} was given out twice");
                }
                Err(_) => {
                    model.attempted.insert(body);
                }
            }
        }
    }

    fn acknowledge(&mut self, lane: u8, percent: u8) {
        let queue = self.queue();
        let position = queue.position(LaneId(lane)).unwrap();
        let span = position.synced_through.0 - position.acknowledged_through.0;
        let through = position.acknowledged_through.0 + span * u64::from(percent) / 100;
        let digest = now(queue.digest_at(LaneId(lane), EdgeSeq(through)));
        queue.acknowledge(LaneId(lane), EdgeSeq(through)).unwrap();
        let model = &mut self.lanes[usize::from(lane)];
        if matches!(digest, Ok(None)) {
            // It was dropped meanwhile, and nothing is left that knows.
            model.unknown.insert(through);
        }
        model.acknowledged = model.acknowledged.max(through);
    }

    fn check(&mut self) {
        let queue = self.queue().clone();
        let drops_allowed = self.machine.settings.policy == FullPolicy::DropOldest;
        for (id, model) in (0u8..).zip(&mut self.lanes) {
            let position = queue.position(LaneId(id)).unwrap();
            let acknowledged = position.acknowledged_through.0;
            assert!(acknowledged <= model.acknowledged, "nothing acknowledges itself");
            if let Some((_, digest)) = model.promised.get(&acknowledged)
                && !model.unknown.contains(&acknowledged)
            {
                assert_eq!(position.acknowledged_digest, *digest);
            }
            let batch = read_all(&queue, id).unwrap();
            check_gapless(&batch);
            assert_eq!(batch.from.0, acknowledged + 1);
            assert_eq!(batch.next, position.next_seq);
            let mut due = model.promised.range(batch.from.0..);
            for entry in &batch.entries {
                match model.promised.get(&entry.seq.0) {
                    Some((body, digest)) => {
                        assert_eq!((&entry.body[..], entry.digest), (&body[..], *digest));
                    }
                    None => assert!(
                        model.attempted.remove(&entry.body[..]),
                        "{} was never asked for, or turned up twice",
                        entry.seq
                    ),
                }
            }
            for skip in &batch.skips {
                match skip.reason {
                    SkipReason::Expired => {}
                    SkipReason::Dropped => assert!(drops_allowed),
                    SkipReason::Quarantined => panic!("nothing was damaged: {skip:?}"),
                }
            }
            assert!(due.all(|(seq, _)| *seq < batch.next.0), "a promised record is gone");
            // From here on these are promised too: the uplink may have sent them.
            for entry in batch.entries {
                model.promised.insert(entry.seq.0, (entry.body.to_vec(), entry.digest));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_promised_survives_everything(
        seed in any::<u64>(),
        drop_oldest in any::<bool>(),
        short in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let policy = if drop_oldest { FullPolicy::DropOldest } else { FullPolicy::Reject };
        let mut world = World::new(seed, policy, short);
        for step in steps {
            world.run(step);
        }
        world.crash();
    }
}
