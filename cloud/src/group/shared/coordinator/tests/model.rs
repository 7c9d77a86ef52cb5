//! Members that come, work, and go in every way, against a list of who has which record.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};
use robustmq_common::record::BatchHeader;
use tokio::time::{Instant, sleep};

use super::*;

const RECORDS: usize = 120;
const BATCH: usize = 5;
const MEMBERS: usize = 8;
/// As members join with.
const SESSION: Duration = Duration::from_secs(10);
/// Timers fire at milliseconds.
const TICK: Duration = Duration::from_millis(2);

#[derive(Debug, Clone)]
enum Step {
    Join,
    /// A batch at most.
    Fetch {
        who: usize,
    },
    /// A part of what it has, in tenths; on a new connection if it has none.
    Commit {
        who: usize,
        tenths: usize,
    },
    Heartbeat {
        who: usize,
    },
    Leave {
        who: usize,
    },
    LoseConnection {
        who: usize,
    },
    Wait {
        seconds: u32,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..MEMBERS;
    prop_oneof![
        6 => Just(Step::Join),
        12 => who.clone().prop_map(|who| Step::Fetch { who }),
        8 => (who.clone(), 0..=10_usize).prop_map(|(who, tenths)| Step::Commit { who, tenths }),
        4 => who.clone().prop_map(|who| Step::Heartbeat { who }),
        3 => who.clone().prop_map(|who| Step::Leave { who }),
        3 => who.prop_map(|who| Step::LoseConnection { who }),
        3 => (1..6_u32).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Restart),
    ]
}

/// A member, and what the model knows of it.
struct Known {
    member: Member,
    /// Positions and records that it was given and has not acknowledged.
    open: Vec<(i64, usize)>,
    heard: Instant,
    /// When it lost its connection.
    alone: Option<Instant>,
}

impl Known {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.heard + SESSION
    }

    /// What it has has gone back.
    fn is_suspended(&self, now: Instant) -> bool {
        self.alone.is_some_and(|since| now >= since + SECOND * 3)
    }

    /// Whether something becomes of it just now.
    fn is_on_the_edge(&self, now: Instant) -> bool {
        let edges = [Some(self.heard + SESSION), self.alone.map(|since| since + SECOND * 3)];
        edges.into_iter().flatten().any(|at| now + TICK >= at && now <= at + TICK)
    }
}

struct Model {
    store: Arc<dyn Store>,
    groups: SharedGroups,
    shutdown: CancellationToken,
    members: BTreeMap<u64, Known>,
    /// Who has which record, of those whose leases last.
    held: BTreeMap<usize, u64>,
    done: BTreeSet<usize>,
    /// Of members, and of connections.
    last_id: u64,
}

impl Model {
    async fn start() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (groups, shutdown) = start(store.clone()).await;
        for first in (0..RECORDS).step_by(BATCH) {
            let mut batch = BatchBuilder::new(Compression::None);
            for number in first..first + BATCH {
                let value = number.to_string();
                let record = NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() };
                batch.push(&record).expect("small");
            }
            append(&groups, batch.build().expect("a batch")).await;
        }
        let (members, held) = (BTreeMap::new(), BTreeMap::new());
        Self { store, groups, shutdown, members, held, done: BTreeSet::new(), last_id: 0 }
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn nth(&self, who: usize) -> Option<u64> {
        self.members.keys().nth(who).copied()
    }

    async fn join(&mut self) -> u64 {
        let id = self.fresh_id();
        let member = join(&self.groups, id, None).await;
        let heard = Instant::now();
        self.members.insert(id, Known { member, open: Vec::new(), heard, alone: None });
        id
    }

    async fn fetch(&mut self, id: u64, max_bytes: usize) -> usize {
        let known = self.members.get_mut(&id).expect("a member");
        // Whoever has no connection fetches on none.
        if known.alone.is_some() {
            return 0;
        }
        let Some(delivery) = known.member.take(&self.groups, max_bytes).await else { return 0 };
        let mut given = 0;
        for (position, number) in read(&delivery) {
            if position < known.member.position {
                continue;
            }
            known.member.position = position + 1;
            known.open.push((position, number));
            given += 1;
            assert!(!self.done.contains(&number), "{number} was acknowledged");
            assert_eq!(self.held.insert(number, id), None, "{number} has one holder");
        }
        given
    }

    /// It speaks, on a connection that it has or makes.
    fn speak(&mut self, id: u64) -> &mut Known {
        let fresh = ConnectionId(self.fresh_id());
        let now = Instant::now();
        let known = self.members.get_mut(&id).expect("a member");
        if known.alone.is_some() {
            if known.is_suspended(now) {
                self.held.retain(|_, holder| *holder != id);
            }
            known.alone = None;
            known.member.connection = fresh;
        }
        known.heard = now;
        known
    }

    async fn commit(&mut self, id: u64, tenths: usize) {
        let groups = self.groups.clone();
        let known = self.speak(id);
        let count = known.open.len() * tenths / 10;
        let Some((last, _)) = count.checked_sub(1).map(|last| known.open[last]) else {
            assert_eq!(known.member.heartbeat(&groups), Ok(()));
            return;
        };
        let position = known.member.position;
        known.member.position = last + 1;
        known.member.commit(&groups).await;
        known.member.position = position;
        // Whoever acknowledges first, also what has gone back and is with another now.
        for (_, number) in known.open.drain(..count).collect::<Vec<_>>() {
            self.done.insert(number);
            self.held.remove(&number);
        }
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Join if self.members.len() < MEMBERS => {
                self.join().await;
            }
            Step::Join => {}
            Step::Wait { seconds } => sleep(SECOND * *seconds).await,
            Step::Restart => {
                self.shutdown.cancel();
                (self.groups, self.shutdown) = start(self.store.clone()).await;
                self.members.clear();
                self.held.clear();
            }
            Step::Fetch { who }
            | Step::Commit { who, .. }
            | Step::Heartbeat { who }
            | Step::Leave { who }
            | Step::LoseConnection { who } => {
                let Some(id) = self.nth(*who) else { return };
                self.run_for(id, step).await;
            }
        }
    }

    async fn run_for(&mut self, id: u64, step: &Step) {
        match step {
            Step::Commit { tenths, .. } => self.commit(id, *tenths).await,
            Step::Heartbeat { .. } => {
                let groups = self.groups.clone();
                assert_eq!(self.speak(id).member.heartbeat(&groups), Ok(()));
            }
            Step::Leave { .. } => self.leave(id),
            Step::LoseConnection { .. } => {
                let known = self.members.get_mut(&id).expect("a member");
                if known.alone.is_none() {
                    self.groups.connection_closed(known.member.connection);
                    known.alone = Some(Instant::now());
                }
            }
            _ => {
                self.fetch(id, 1).await;
            }
        }
    }

    fn leave(&mut self, id: u64) {
        let known = self.members.remove(&id).expect("a member");
        let left = self.groups.leave(GROUP, &known.member.caller.member_id, None);
        assert_eq!(left, Ok(()));
        self.groups.connection_closed(known.member.connection);
        self.held.retain(|_, holder| *holder != id);
    }

    /// What time has done, and that the broker sees it alike.
    async fn check(&mut self) {
        while self.members.values().any(|known| known.is_on_the_edge(Instant::now())) {
            sleep(TICK).await;
        }
        // The timers' task has its turn.
        sleep(TICK).await;
        let now = Instant::now();
        for known in self.members.values().filter(|known| known.is_over(now)) {
            let told = known.member.heartbeat(&self.groups);
            assert_eq!(told, refused(GroupError::UnknownMember));
            self.groups.connection_closed(known.member.connection);
        }
        self.members.retain(|_, known| !known.is_over(now));
        let members = &self.members;
        self.held.retain(|_, holder| members.get(holder).is_some_and(|m| !m.is_suspended(now)));
        let (seen, standings) = self.groups.standings(GROUP);
        let expected: BTreeSet<&String> =
            members.values().map(|known| &known.member.caller.member_id).collect();
        assert_eq!(seen.values().collect::<BTreeSet<_>>(), expected);
        let first_open = (0..RECORDS).find(|number| !self.done.contains(number));
        for standing in standings {
            assert_eq!(standing.start, i64::try_from(first_open.unwrap_or(RECORDS)).expect("few"));
        }
    }

    /// One member that lives on gets everything that is left; then nothing is left of anybody.
    async fn finish(mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.leave(id);
        }
        let id = self.join().await;
        while self.done.len() < RECORDS {
            assert!(self.fetch(id, 1 << 20).await > 0, "{} are done", self.done.len());
            self.commit(id, 10).await;
        }
        self.check().await;
        self.leave(id);
        sleep(SECOND * 60).await;
        assert!(self.groups.pools().is_empty());
        let state = self.groups.state();
        assert!(state.groups.is_empty() && state.bound.is_empty() && state.timers.is_empty());
        assert!(state.put_out.is_empty());
        assert_eq!(state.bytes, 0);
    }
}

/// The positions of what was delivered, and what it says.
fn read(delivery: &Delivery) -> Vec<(i64, usize)> {
    let mut payload = Bytes::from(delivery.pieces.concat());
    let mut read = Vec::new();
    while !payload.is_empty() {
        let bytes = BatchHeader::parse(&payload).expect("a header").batch_bytes();
        let batch = RecordBatch::parse(payload.split_to(bytes)).expect("a true checksum");
        for record in batch.records(1 << 20).expect("records") {
            let record = record.expect("a record");
            let value = String::from_utf8_lossy(&record.value.expect("a value")).into_owned();
            read.push((record.offset.0, value.parse().expect("a number")));
        }
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_record_is_acknowledged_once_or_given_again(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut model = Model::start().await;
            for step in &steps {
                model.run(step).await;
                model.check().await;
            }
            model.finish().await;
        });
    }
}
