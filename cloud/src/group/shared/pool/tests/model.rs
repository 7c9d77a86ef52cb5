//! Random joins, leases, acknowledgements, losses and restarts against a plain list of what each offset has been through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{FIRST, Lease, Pool, Progress, Token};
use crate::group::shared::cursor::Sequence;
use crate::group::shared::pool::Verdict;

const END: i64 = 300;

#[derive(Debug, Clone)]
enum Step {
    Join,
    Lease {
        who: usize,
        most: i64,
    },
    /// A part of what is in flight on a cursor, in tenths.
    Acknowledge {
        who: usize,
        tenths: u32,
    },
    Release {
        who: usize,
    },
    Forget {
        who: usize,
    },
    /// A member of a share group comes.
    Enter,
    Acquire {
        who: usize,
        most: u64,
    },
    /// Says something of some of what it holds.
    Settle {
        who: usize,
        skip: usize,
        take: usize,
        verdict: Verdict,
    },
    /// All locks run out.
    Expire,
    Leave {
        who: usize,
    },
    Trim {
        by: i64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..6_usize;
    prop_oneof![
        2 => Just(Step::Join),
        6 => (who.clone(), 1..40_i64).prop_map(|(who, most)| Step::Lease { who, most }),
        6 => (who.clone(), 0..=10_u32).prop_map(|(who, tenths)| Step::Acknowledge { who, tenths }),
        1 => who.clone().prop_map(|who| Step::Release { who }),
        1 => who.clone().prop_map(|who| Step::Forget { who }),
        2 => Just(Step::Enter),
        6 => (who.clone(), 1..40_u64).prop_map(|(who, most)| Step::Acquire { who, most }),
        6 => (who.clone(), 0..40_usize, 1..40_usize, verdict()).prop_map(
            |(who, skip, take, verdict)| Step::Settle { who, skip, take, verdict }),
        1 => Just(Step::Expire),
        1 => who.prop_map(|who| Step::Leave { who }),
        1 => (0..20_i64).prop_map(|by| Step::Trim { by }),
        1 => Just(Step::Restart),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Accept),
        2 => Just(Verdict::Release),
        1 => Just(Verdict::Reject),
        1 => Just(Verdict::Gap),
    ]
}

/// What each member was given, in order, and how much of it it has acknowledged.
#[derive(Default)]
struct Member {
    given: Vec<i64>,
    acknowledged: usize,
}

#[derive(Default)]
struct Model {
    pool: Option<Pool>,
    log_start: i64,
    /// By whom each offset was acknowledged.
    done: BTreeMap<i64, Token>,
    /// Who holds what.
    held: BTreeMap<i64, Token>,
    members: BTreeMap<Token, Member>,
    /// Members of share groups.
    sharers: BTreeSet<Token>,
    joined: u64,
}

impl Model {
    fn pool(&mut self) -> &mut Pool {
        self.pool.get_or_insert_with(|| Pool::restore(&Progress::at(0)))
    }

    fn member(&self, who: usize) -> Option<Token> {
        self.members.keys().nth(who).copied()
    }

    fn lease(&mut self, token: Token, most: i64, now: Instant) {
        let Some(offer) = self.pool().offer(END) else { return };
        let offsets = offer.offsets.start..offer.offsets.end.min(offer.offsets.start + most);
        let is_new = offer.deliveries == 0;
        let lease = Lease { offsets: offsets.clone(), bytes: 1, is_new };
        self.pool().lease(token, &lease, now).expect("a member");
        for offset in offsets {
            assert!(offset >= self.log_start && !self.done.contains_key(&offset), "{offset}");
            assert_eq!(self.held.insert(offset, token), None, "{offset} has one holder");
            self.members.get_mut(&token).expect("a member").given.push(offset);
        }
    }

    fn acknowledge(&mut self, token: Token, tenths: u32, now: Instant) {
        let member = self.members.get_mut(&token).expect("a member");
        let open = member.given.len() - member.acknowledged;
        let to = member.acknowledged + open * tenths as usize / 10;
        let position = Sequence(FIRST.0 + u32::try_from(to).expect("few"));
        let mut news = 0;
        for offset in &member.given[member.acknowledged..to] {
            if *offset >= self.log_start && !self.done.contains_key(offset) {
                self.done.insert(*offset, token);
                news += 1;
            }
            self.held.remove(offset);
        }
        member.acknowledged = to;
        assert_eq!(self.pool().acknowledge(token, position, now), Ok(news));
    }

    fn acquire(&mut self, token: Token, most: u64, now: Instant) {
        let mut given = 0;
        for offer in self.pool().offers(END, most) {
            let offsets = offer.offsets;
            given += u64::try_from(offsets.end - offsets.start).expect("some");
            let lease = Lease { offsets: offsets.clone(), bytes: 1, is_new: offer.deliveries == 0 };
            assert!(self.pool().acquire(token, &lease, now));
            for offset in offsets {
                assert!(offset >= self.log_start && !self.done.contains_key(&offset), "{offset}");
                assert_eq!(self.held.insert(offset, token), None, "{offset} has one holder");
            }
        }
        assert!(given <= most);
    }

    fn settle(&mut self, token: Token, skip: usize, take: usize, verdict: Verdict) {
        let held = self.held.iter().filter(|(_, holder)| **holder == token);
        let held: Vec<i64> = held.map(|(offset, _)| *offset).skip(skip).take(take).collect();
        let verdicts: Vec<_> = held.iter().map(|at| (*at..at + 1, verdict)).collect();
        assert_eq!(self.pool().settle(token, &verdicts), Ok(()));
        for offset in held {
            self.held.remove(&offset);
            if verdict != Verdict::Release {
                self.done.insert(offset, token);
            }
        }
    }

    fn drop_leases(&mut self, token: Token) {
        self.held.retain(|_, holder| *holder != token);
    }

    fn run(&mut self, step: &Step, now: Instant) {
        match step {
            Step::Join => {
                if self.members.len() < 6 {
                    let token = Token::of(self.joined);
                    self.joined += 1;
                    assert_eq!(self.pool().join(token, now), FIRST);
                    self.members.insert(token, Member::default());
                }
            }
            Step::Trim { by } => {
                self.log_start = (self.log_start + by).min(END);
                let log_start = self.log_start;
                self.pool().trim(log_start);
                self.held.retain(|offset, _| *offset >= log_start);
            }
            Step::Restart => {
                let stored = self.pool().progress().encode();
                let progress = Progress::decode(&stored).expect("as it was encoded");
                self.pool = Some(Pool::restore(&progress));
                self.members.clear();
                self.sharers.clear();
                self.held.clear();
            }
            Step::Enter => {
                if self.sharers.len() < 6 {
                    let token = Token::of(self.joined);
                    self.joined += 1;
                    self.pool().enter(token);
                    self.sharers.insert(token);
                }
            }
            Step::Expire => {
                let held = self.held.values().any(|holder| self.sharers.contains(holder));
                assert_eq!(self.pool().expire_locks(now), held);
                self.held.retain(|_, holder| !self.sharers.contains(holder));
            }
            Step::Acquire { who, .. } | Step::Settle { who, .. } | Step::Leave { who } => {
                let Some(token) = self.sharers.iter().nth(*who).copied() else { return };
                match step {
                    Step::Acquire { most, .. } => self.acquire(token, *most, now),
                    Step::Settle { skip, take, verdict, .. } => {
                        self.settle(token, *skip, *take, *verdict);
                    }
                    _ => {
                        self.pool().forget(token);
                        self.drop_leases(token);
                        self.sharers.remove(&token);
                    }
                }
            }
            Step::Lease { who, .. }
            | Step::Acknowledge { who, .. }
            | Step::Release { who }
            | Step::Forget { who } => {
                let Some(token) = self.member(*who) else { return };
                self.run_for(step, token, now);
            }
        }
    }

    fn run_for(&mut self, step: &Step, token: Token, now: Instant) {
        match step {
            Step::Lease { most, .. } => self.lease(token, *most, now),
            Step::Acknowledge { tenths, .. } => self.acknowledge(token, *tenths, now),
            Step::Release { .. } => {
                let held = self.held.values().any(|holder| *holder == token);
                assert_eq!(self.pool().release(token), held);
                self.drop_leases(token);
            }
            _ => {
                self.pool().forget(token);
                self.drop_leases(token);
                self.members.remove(&token);
            }
        }
    }

    fn check(&mut self) {
        let (log_start, done, held) = (self.log_start, self.done.clone(), self.held.clone());
        let free = (log_start..END).filter(|o| !done.contains_key(o) && !held.contains_key(o));
        let first_open = (log_start..END).find(|offset| !done.contains_key(offset)).unwrap_or(END);
        let free = free.count() as u64;
        let mut in_flight: BTreeMap<Token, u64> =
            self.members.keys().chain(&self.sharers).map(|token| (*token, 0)).collect();
        for holder in held.values() {
            *in_flight.entry(*holder).or_default() += 1;
        }
        let pool = self.pool();
        assert_eq!(pool.in_flight(), in_flight);
        assert_eq!(pool.remaining(END), free, "everything is in one place");
        assert_eq!(pool.start(), first_open);
        let is_done =
            |offset: i64| pool.progress().acknowledged.iter().any(|r| r.contains(&offset));
        for offset in (first_open..END).step_by(7) {
            assert_eq!(is_done(offset), done.contains_key(&offset), "{offset}");
        }
    }
}

proptest! {
    #[test]
    fn every_offset_is_acknowledged_once_or_delivered_again(
        steps in proptest::collection::vec(step(), 1..120), finish in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut model = Model::default();
        for step in &steps {
            model.run(step, now);
            model.check();
        }
        if finish {
            // One member that lives on gets everything that is left.
            let tokens = model.members.keys().chain(&model.sharers).copied();
            for token in tokens.collect::<Vec<Token>>() {
                model.pool().forget(token);
                model.drop_leases(token);
                model.members.remove(&token);
                model.sharers.remove(&token);
            }
            model.run(&Step::Join, now);
            let token = model.member(0).expect("it has joined");
            while model.pool().offer(END).is_some() {
                model.lease(token, END, now);
                model.acknowledge(token, 10, now);
            }
            model.check();
            let start = model.log_start;
            assert!((start..END).all(|offset| model.done.contains_key(&offset)));
        }
    }
}
