//! Anything in any order: the books are right, and what stays are those that rank first.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::*;
use crate::cache::memory::Memory;
use crate::cache::ranks::Rank;
use crate::cache::scene::{Changes, Scene};
use crate::cache::users::Users;

const BUDGET: usize = 48 << 20;

#[derive(Debug, Clone)]
enum Step {
    Get(u64),
    Ahead(u64),
    /// One of the loads that are under way brings its extent, or fails.
    Ends {
        which: usize,
        is_ok: bool,
    },
    Passed(u64),
    Put(u64),
    /// Room for a piece of so many bytes is taken, or all of it given back.
    Piece(usize),
    GiveBack,
    Wait(u64),
    Budget(usize),
}

fn step(changes_budget: bool) -> impl Strategy<Value = Step> {
    let starts = || 0..120_u64;
    let (budgets, pieces) = if changes_budget { (1, 3) } else { (0, 0) };
    prop_oneof![
        8 => starts().prop_map(Step::Get),
        8 => starts().prop_map(Step::Ahead),
        12 => (any::<usize>(), prop::bool::weighted(0.9))
            .prop_map(|(which, is_ok)| Step::Ends { which, is_ok }),
        8 => starts().prop_map(Step::Passed),
        3 => starts().prop_map(Step::Put),
        pieces => (0..8_usize << 20).prop_map(Step::Piece),
        pieces => Just(Step::GiveBack),
        1 => (0..90_u64).prop_map(Step::Wait),
        budgets => (BUDGET / 2..BUDGET * 2).prop_map(Step::Budget),
    ]
}

struct Model {
    memory: Memory,
    users: Users,
    now: Instant,
    bytes_of: fn(u64) -> u32,
    /// Under way, and what each waits for.
    loads: BTreeMap<u64, Option<oneshot::Receiver<()>>>,
    /// Room that was taken for pieces of objects.
    pieces: Vec<usize>,
    displaced: BTreeSet<u64>,
    extents: HashMap<ExtentId, Arc<Extent>>,
}

impl Model {
    fn new(bytes_of: fn(u64) -> u32) -> Self {
        let users = Users::default();
        users.set_pinned(READER, true);
        Self {
            memory: Memory::new(BUDGET, 0, Arc::default()),
            users,
            now: Instant::now(),
            bytes_of,
            loads: BTreeMap::new(),
            pieces: Vec::new(),
            displaced: BTreeSet::new(),
            extents: HashMap::new(),
        }
    }

    fn id(&self, start: u64) -> ExtentId {
        id(start, (self.bytes_of)(start))
    }

    fn extent(&mut self, id: ExtentId) -> Arc<Extent> {
        // Content that takes no memory for each case.
        static ZEROES: [u8; 4 << 20] = [0; 4 << 20];
        let content = Bytes::from_static(&ZEROES[..id.bytes as usize]);
        let extent = || Arc::new(Extent { content, layout: Layout::default() });
        self.extents.entry(id).or_insert_with(extent).clone()
    }

    fn take(&mut self, step: &Step) {
        let mut changes = Changes::default();
        let extent = match step {
            Step::Put(start) => Some(self.extent(self.id(*start))),
            Step::Ends { which, .. } if !self.loads.is_empty() => {
                let start = *self.loads.keys().nth(which % self.loads.len()).expect("one of them");
                Some(self.extent(self.id(start)))
            }
            _ => None,
        };
        let known = self.users.lock();
        let scene = Scene { users: &known, now: self.now };
        let memory = &mut self.memory;
        match step {
            Step::Get(start) => {
                let id = super::id(*start, (self.bytes_of)(*start));
                let is_there = memory.find(id, READER, self.now).is_some();
                if !is_there && memory.join(id, READER).is_none() {
                    let outcome = watch::channel(None).1;
                    let who = (READER, true);
                    let turn = memory.begin_waited(id, who, outcome, scene, &mut changes);
                    assert!(self.loads.insert(*start, turn).is_none(), "loaded twice at once");
                }
            }
            Step::Ahead(start) => {
                let id = super::id(*start, (self.bytes_of)(*start));
                if !memory.contains(id) && !memory.is_loading(id) {
                    let outcome = watch::channel(None).1;
                    if memory.begin_ahead(id, READER, outcome, scene, &mut changes) {
                        assert!(self.loads.insert(*start, None).is_none(), "loaded twice at once");
                    }
                }
            }
            Step::Ends { which, is_ok } => {
                if let Some(extent) = extent {
                    let which = which % self.loads.len();
                    let start = *self.loads.keys().nth(which).expect("one of them");
                    // One that waits for room has not begun, and may fail only.
                    let turn = self.loads.remove(&start).expect("one of them");
                    let is_ok = *is_ok && turn.is_none_or(|mut turn| turn.try_recv().is_ok());
                    let id = super::id(start, (self.bytes_of)(start));
                    if is_ok {
                        memory.settle(id, extent, id.bytes, scene, &mut changes);
                    } else {
                        memory.abandon(id);
                    }
                }
            }
            Step::Passed(start) => {
                let id = super::id(*start, (self.bytes_of)(*start));
                memory.passed(id, READER, scene, &mut changes);
            }
            Step::Put(start) => {
                let id = super::id(*start, (self.bytes_of)(*start));
                if let Some(extent) = extent {
                    memory.put(id, READER, (extent, false), scene, &mut changes);
                }
            }
            Step::Piece(bytes) => {
                let has_room = memory.take_piece(*bytes, scene, &mut changes);
                self.pieces.extend(has_room.then_some(*bytes));
            }
            Step::GiveBack => self.pieces.drain(..).for_each(|bytes| memory.give_back_piece(bytes)),
            Step::Wait(seconds) => self.now += Duration::from_secs(*seconds),
            Step::Budget(bytes) => memory.set_budget(*bytes, scene, &mut changes),
        }
        memory.serve(scene, &mut changes);
        for displaced in changes.displaced {
            assert!(!memory.contains(displaced.id), "it is not in memory any more");
            self.displaced.insert(displaced.id.start);
        }
    }

    fn check_books(&mut self) {
        let memory = &self.memory;
        assert!(memory.residents().bytes() <= memory.resident_room());
        assert_eq!(self.loads.len(), memory.loads());
        let mut resident_bytes = 0;
        let mut pool_bytes = 0;
        for extent in self.extents.keys() {
            if memory.contains(*extent) {
                let bytes = extent.bytes as usize + limits::dataset::EXTENT_COST_BYTES;
                match memory.residents().user_of(*extent) {
                    Some(_) => resident_bytes += bytes,
                    None => pool_bytes += bytes,
                }
            }
        }
        let waits = |turn: &mut oneshot::Receiver<()>| {
            matches!(turn.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        };
        for (start, turn) in &mut self.loads {
            let bytes = (self.bytes_of)(*start) as usize + limits::dataset::EXTENT_COST_BYTES;
            if turn.as_mut().is_some_and(waits) {
                continue;
            }
            *turn = None;
            pool_bytes += bytes;
        }
        assert_eq!(memory.pieces_bytes(), self.pieces.iter().sum::<usize>());
        assert_eq!(memory.residents().bytes(), resident_bytes as u64);
        assert_eq!(memory.pool_bytes() + memory.free_loading_bytes(), pool_bytes);
        let on_its_way: usize =
            self.loads.keys().map(|start| (self.bytes_of)(*start) as usize).sum();
        let all = resident_bytes + memory.pool_bytes() + memory.free_loading_bytes();
        let resident_room = usize::try_from(memory.resident_room()).expect("small");
        let room = (memory.budget_bytes() - resident_room).max(on_its_way + 120 * 512);
        assert!(memory.pool_bytes() <= room, "only loads that go on may be more");
        // What was begun while there was room for it to stay may come when that was taken.
        let budget = memory.budget_bytes() + memory.free_loading_bytes();
        let budget = budget.max(resident_room + on_its_way + 120 * 512);
        assert!(all <= budget, "only loads that go on may be more than the budget");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_never_more_than_its_budget(
        steps in prop::collection::vec(step(true), 1..400)
    ) {
        let sizes = |start: u64| u32::try_from(1 + start * 7919 % 40 * 100_000).expect("small");
        let mut model = Model::new(sizes);
        for step in &steps {
            model.take(step);
            model.check_books();
        }
    }

    #[test]
    fn those_stay_that_rank_first_of_all_that_could_have(
        steps in prop::collection::vec(step(false), 1..600)
    ) {
        let mut model = Model::new(|_| 1 << 20);
        let (own_room, mut was_strained) = (model.memory.resident_room(), false);
        for step in &steps {
            model.take(step);
            // What went for what was being read is not here again when that has given its room back.
            if model.memory.resident_room() < own_room {
                model.displaced.clear();
                was_strained = true;
            }
        }
        let residents = model.memory.residents().in_order();
        let last = residents.last().map(|id| Rank::of(*id));
        let gone = model.displaced.iter().map(|start| model.id(*start));
        let gone = gone.filter(|id| !residents.contains(id)).map(Rank::of).min();
        if let (Some(last), Some(gone)) = (last, gone) {
            prop_assert!(last < gone, "one that went ranks before one that stays");
            prop_assert!(was_strained || residents.len() == 23);
        }
    }
}
