use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::{Strategy, prop_oneof, proptest};

use super::{
    Caller, Event, Group, GroupError, Join, JoinRefused, Joined, State, Sync, Synced, Ticket,
    Timing,
};

const DELAY: Duration = Duration::from_millis(500);
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// A group with a clock, tickets and a store that is told when to be done.
struct Bench {
    group: Group,
    now: Instant,
    tickets: u64,
    fresh: u64,
    joined: BTreeMap<u64, Result<Joined, JoinRefused>>,
    synced: BTreeMap<u64, Result<Synced, GroupError>>,
    /// Generations that the group wants stored.
    to_store: Vec<i32>,
}

impl Bench {
    fn new() -> Self {
        let timing = Timing { initial_delay: DELAY, ..Timing::default() };
        Self {
            group: Group::new(timing),
            now: Instant::now(),
            tickets: 0,
            fresh: 0,
            joined: BTreeMap::new(),
            synced: BTreeMap::new(),
            to_store: Vec::new(),
        }
    }

    fn collect(&mut self) {
        for event in self.group.take_events() {
            let again = match event {
                Event::Joined(ticket, answer) => self.joined.insert(ticket.0, answer).is_some(),
                Event::Synced(ticket, answer) => self.synced.insert(ticket.0, answer).is_some(),
                Event::Store { generation } => {
                    self.to_store.push(generation);
                    false
                }
            };
            assert!(!again, "a ticket is answered once");
        }
    }

    fn join_with(&mut self, change: impl FnOnce(&mut Join)) -> u64 {
        self.tickets += 1;
        self.fresh += 1;
        let mut join = Join {
            member_id: String::new(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            fresh_member_id: format!("m{}", self.fresh),
            knows_member_id_required: false,
            knows_skip_assignment: true,
        };
        change(&mut join);
        self.group.join(self.now, Ticket(self.tickets), &join);
        self.collect();
        self.tickets
    }

    fn join(&mut self, member_id: &str) -> u64 {
        self.join_with(|join| join.member_id = member_id.to_owned())
    }

    fn caller(&self, member_id: &str, generation: i32) -> Caller {
        Caller { member_id: member_id.to_owned(), instance_id: None, generation }
    }

    fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> u64 {
        self.tickets += 1;
        let assignments = assignments
            .iter()
            .map(|(id, part)| ((*id).to_owned(), Bytes::copy_from_slice(part.as_bytes())));
        let sync = Sync {
            who: self.caller(member_id, generation),
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: assignments.collect(),
        };
        self.group.sync(self.now, Ticket(self.tickets), sync);
        self.collect();
        self.tickets
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let caller = self.caller(member_id, generation);
        self.group.heartbeat(self.now, &caller)
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.group.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.group.tick(self.now);
            self.collect();
            assert!(
                self.group.next_deadline().is_none_or(|next| next > due),
                "ticks make progress"
            );
        }
        self.now = until;
    }

    fn store_all(&mut self, durable: bool) {
        for generation in std::mem::take(&mut self.to_store) {
            self.group.stored(self.now, generation, durable);
        }
        self.collect();
    }

    fn answer(&self, ticket: u64) -> &Joined {
        let answer = self.joined.get(&ticket).expect("the JoinGroup is answered");
        answer.as_ref().expect("the JoinGroup is granted")
    }

    fn refusal(&self, ticket: u64) -> GroupError {
        let answer = self.joined.get(&ticket).expect("the JoinGroup is answered");
        answer.as_ref().expect_err("the JoinGroup is refused").error
    }

    /// Members m1..=count in generation 1, each with its own id as assignment.
    fn stable(count: u64) -> Self {
        let mut bench = Self::new();
        let tickets: Vec<u64> = (0..count).map(|_| bench.join("")).collect();
        bench.pass(DELAY);
        let leader = bench.answer(tickets[0]).leader.clone();
        let ids: Vec<String> = (1..=count).map(|number| format!("m{number}")).collect();
        let pairs: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        for id in &ids {
            let assignments = if *id == leader { pairs.as_slice() } else { &[] };
            bench.sync(id, 1, assignments);
        }
        bench.store_all(true);
        assert_eq!(bench.group.state(), State::Stable);
        bench
    }
}

#[test]
fn the_first_generation_waits_for_company_and_has_one_leader() {
    let mut bench = Bench::new();
    let first = bench.join("");
    bench.pass(DELAY / 2);
    let second = bench.join("");
    bench.pass(DELAY / 2);
    assert!(bench.joined.is_empty(), "the second member moved the deadline");
    bench.pass(DELAY / 2);
    let (one, two) = (bench.answer(first), bench.answer(second));
    assert_eq!((one.generation, two.generation), (1, 1));
    assert_eq!(one.leader, two.leader);
    let (leader, follower) = if one.leader == one.member_id { (one, two) } else { (two, one) };
    assert_eq!(leader.members.len(), 2, "the leader learns of everybody");
    assert_eq!(follower.members.len(), 0);
}

#[test]
fn syncs_are_answered_when_the_leaders_assignment_is_durable() {
    let mut bench = Bench::new();
    let (first, _) = (bench.join(""), bench.join(""));
    bench.pass(DELAY);
    let leader = bench.answer(first).leader.clone();
    let follower = if leader == "m1" { "m2" } else { "m1" };
    let waits = bench.sync(follower, 1, &[]);
    let leads = bench.sync(&leader, 1, &[(&leader, "a"), (follower, "b")]);
    assert!(bench.synced.is_empty(), "nothing is told before it is durable");
    bench.store_all(true);
    let got = |ticket| bench.synced[&ticket].as_ref().map(|synced| synced.assignment.clone());
    assert_eq!(got(leads), Ok(Bytes::from_static(b"a")));
    assert_eq!(got(waits), Ok(Bytes::from_static(b"b")));
    assert_eq!(bench.group.state(), State::Stable);
}

#[test]
fn an_assignment_that_could_not_be_stored_starts_over() {
    let mut bench = Bench::new();
    bench.join("");
    bench.pass(DELAY);
    let sync = bench.sync("m1", 1, &[("m1", "a")]);
    bench.store_all(false);
    assert_eq!(bench.synced[&sync], Err(GroupError::NotStored));
    assert_eq!(bench.heartbeat("m1", 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_new_member_makes_the_others_rejoin() {
    let mut bench = Bench::stable(1);
    let newcomer = bench.join("");
    assert_eq!(bench.heartbeat("m1", 1), Err(GroupError::RebalanceInProgress));
    assert!(!bench.joined.contains_key(&newcomer));
    let rejoined = bench.join("m1");
    assert_eq!(bench.answer(rejoined).generation, 2);
    assert_eq!(bench.answer(newcomer).generation, 2);
    assert_eq!(bench.heartbeat("m1", 1), Err(GroupError::IllegalGeneration));
}

#[test]
fn who_does_not_rejoin_in_time_is_out() {
    let mut bench = Bench::stable(2);
    let newcomer = bench.join("");
    let rejoined = bench.join("m1");
    bench.pass(SESSION);
    assert_eq!(bench.answer(newcomer).generation, 2);
    assert_eq!(bench.answer(rejoined).generation, 2);
    assert_eq!(bench.heartbeat("m2", 1), Err(GroupError::UnknownMember));
}

#[test]
fn a_silent_member_is_out_after_its_session_and_the_last_one_empties_the_group() {
    let mut bench = Bench::stable(2);
    bench.pass(SESSION / 2);
    assert_eq!(bench.heartbeat("m1", 1), Ok(()));
    bench.pass(SESSION / 2);
    assert_eq!(bench.heartbeat("m1", 1), Err(GroupError::RebalanceInProgress));
    bench.pass(SESSION * 2);
    assert_eq!(bench.group.state(), State::Empty);
    assert!(bench.group.may_delete().is_ok());
    assert!(bench.to_store.last().is_some_and(|generation| *generation > 1));
}

#[test]
fn a_member_that_waits_for_its_answer_does_not_expire() {
    let mut bench = Bench::stable(2);
    let newcomer = bench.join("");
    // m1 and m2 send heartbeats and take their time.
    for _ in 0..5 {
        bench.pass(SESSION / 2);
        let _ = (bench.heartbeat("m1", 1), bench.heartbeat("m2", 1));
    }
    assert!(!bench.joined.contains_key(&newcomer));
    assert_eq!(bench.group.snapshot().members.len(), 3);
}

#[test]
fn who_does_not_sync_is_out_when_the_rebalance_time_is_over() {
    let mut bench = Bench::new();
    bench.join("");
    bench.join("");
    bench.pass(DELAY);
    let leader = bench.answer(1).leader.clone();
    let follower = if leader == "m1" { "m2" } else { "m1" }.to_owned();
    let waits = bench.sync(&follower, 1, &[]);
    bench.pass(SESSION);
    assert_eq!(bench.synced[&waits], Err(GroupError::RebalanceInProgress));
    assert_eq!(bench.heartbeat(&leader, 1), Err(GroupError::UnknownMember), "its session ended");
}

#[test]
fn a_lost_answer_is_given_again() {
    let mut bench = Bench::stable(2);
    let leader = bench.answer(1).leader.clone();
    let follower = if leader == "m1" { "m2" } else { "m1" }.to_owned();
    let again = bench.join(&follower);
    assert_eq!(bench.answer(again).generation, 1, "a follower's repeated join changes nothing");
    let again = bench.sync(&follower, 1, &[]);
    assert!(bench.synced[&again].is_ok());
    bench.join(&leader);
    assert!(matches!(bench.group.state(), State::PreparingRebalance { .. }), "a leader's does");
}

#[test]
fn members_learn_their_id_first_when_the_client_understands() {
    let mut bench = Bench::new();
    let first = bench.join_with(|join| join.knows_member_id_required = true);
    assert_eq!(bench.refusal(first), GroupError::MemberIdRequired);
    assert_eq!(bench.group.may_delete(), Err(GroupError::NonEmpty), "it is expected");
    let second = bench.join("m1");
    bench.pass(DELAY);
    assert_eq!(bench.answer(second).member_id, "m1");
    // An id that nobody was given is unknown.
    let wrong = bench.join("made-up");
    assert_eq!(bench.refusal(wrong), GroupError::UnknownMember);
}

#[test]
fn an_id_that_is_not_used_expires() {
    let mut bench = Bench::new();
    bench.join_with(|join| join.knows_member_id_required = true);
    bench.pass(SESSION);
    assert!(bench.group.is_idle());
    let late = bench.join("m1");
    assert_eq!(bench.refusal(late), GroupError::UnknownMember);
}

#[test]
fn joins_that_do_not_fit_are_refused() {
    let mut bench = Bench::stable(1);
    let check = |bench: &mut Bench, change: &dyn Fn(&mut Join), expected: GroupError| {
        let ticket = bench.join_with(|join| change(join));
        assert_eq!(bench.refusal(ticket), expected);
    };
    let other = |join: &mut Join| join.protocols = vec![("sticky".to_owned(), Bytes::new())];
    check(&mut bench, &other, GroupError::InconsistentProtocol);
    let connect = |join: &mut Join| join.protocol_type = "connect".to_owned();
    check(&mut bench, &connect, GroupError::InconsistentProtocol);
    let none = |join: &mut Join| join.protocols.clear();
    check(&mut bench, &none, GroupError::InconsistentProtocol);
    let short = |join: &mut Join| join.session_timeout = Duration::from_millis(1);
    check(&mut bench, &short, GroupError::InvalidSessionTimeout);
    let long = |join: &mut Join| join.session_timeout = Duration::from_secs(1 << 30);
    check(&mut bench, &long, GroupError::InvalidSessionTimeout);
    let big = |join: &mut Join| {
        let bytes = vec![0; robustmq_common::limits::GROUP_BYTES];
        join.protocols = vec![("range".to_owned(), bytes.into())];
    };
    check(&mut bench, &big, GroupError::MaxSizeReached);
    assert_eq!(bench.group.state(), State::Stable, "none of them disturbed the group");
}

#[test]
fn ids_that_were_given_out_count_as_memory_until_they_expire() {
    let mut bench = Bench::new();
    let ticket = bench.join_with(|join| {
        join.knows_member_id_required = true;
        join.fresh_member_id = "x".repeat(1000);
    });
    assert_eq!(bench.refusal(ticket), GroupError::MemberIdRequired);
    assert_eq!(bench.group.bytes(), 1000);
    bench.pass(SESSION);
    assert_eq!(bench.group.bytes(), 0);
}

#[test]
fn a_static_member_that_asks_for_no_rebalance_time_does_not_keep_the_timers_busy() {
    let mut bench = Bench::new();
    bench.join_with(|join| {
        join.instance_id = Some("static".to_owned());
        join.rebalance_timeout = Duration::ZERO;
    });
    bench.join("");
    bench.pass(DELAY);
    bench.sync("m1", 1, &[("m1", "a"), ("m2", "b")]);
    bench.sync("m2", 1, &[]);
    bench.store_all(true);
    assert_eq!(bench.group.state(), State::Stable);
    bench.group.leave(bench.now, "m2", None).expect("a member may leave");
    bench.collect();
    // `pass` checks that each tick moves the next deadline on.
    bench.pass(Duration::from_secs(1));
    assert!(matches!(bench.group.state(), State::PreparingRebalance { .. }));
}

#[test]
fn the_protocol_that_most_prefer_among_those_that_all_know_is_chosen() {
    let mut bench = Bench::new();
    let named = |names: &[&str]| -> Vec<(String, Bytes)> {
        names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect()
    };
    let lists = [named(&["a", "b", "c"]), named(&["b", "c"]), named(&["c", "b", "x"])];
    let tickets: Vec<u64> =
        lists.iter().map(|list| bench.join_with(|join| join.protocols = list.clone())).collect();
    bench.pass(DELAY);
    // The first and second member vote for b, the third for c.
    assert_eq!(bench.answer(tickets[0]).protocol, "b");
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_former_self() {
    let mut bench = Bench::new();
    let join_static =
        |bench: &mut Bench| bench.join_with(|join| join.instance_id = Some("rack-1".to_owned()));
    let first = join_static(&mut bench);
    bench.pass(DELAY);
    assert_eq!(bench.answer(first).member_id, "m1");
    bench.sync("m1", 1, &[("m1", "part")]);
    bench.store_all(true);
    let back = join_static(&mut bench);
    let answer = bench.answer(back);
    assert_eq!((answer.generation, answer.skip_assignment), (1, true));
    assert_eq!(answer.member_id, "m2");
    assert_eq!(bench.group.state(), State::Stable);
    let sync = bench.sync("m2", 1, &[]);
    let assigned = bench.synced[&sync].as_ref().map(|synced| synced.assignment.clone());
    assert_eq!(assigned, Ok(Bytes::from_static(b"part")));
    let former = Caller {
        member_id: "m1".to_owned(),
        instance_id: Some("rack-1".to_owned()),
        generation: 1,
    };
    assert_eq!(bench.group.heartbeat(bench.now, &former), Err(GroupError::FencedInstance));
    // An admin removes it by its instance id alone.
    assert_eq!(bench.group.leave(bench.now, "", Some("rack-1")), Ok(()));
    assert_eq!(bench.group.state(), State::Empty);
}

#[test]
fn commits_are_for_members_of_the_generation_or_for_groups_without_members() {
    let mut bench = Bench::stable(1);
    let now = bench.now;
    let mut check = |member: &str, generation: i32, expected: Result<(), GroupError>| {
        let caller = Caller { member_id: member.to_owned(), instance_id: None, generation };
        assert_eq!(bench.group.may_commit(now, &caller), expected, "{member} {generation}");
    };
    check("m1", 1, Ok(()));
    check("m1", 0, Err(GroupError::IllegalGeneration));
    check("m9", 1, Err(GroupError::UnknownMember));
    check("", -1, Err(GroupError::UnknownMember));
    let mut empty = Bench::new();
    let admin = empty.caller("", -1);
    assert_eq!(empty.group.may_commit(empty.now, &admin), Ok(()));
}

#[test]
fn a_restored_group_goes_on_where_it_was() {
    let bench = Bench::stable(2);
    let snapshot = bench.group.snapshot();
    let mut restored = Bench::new();
    restored.group = Group::restore(Timing::default(), snapshot.clone(), restored.now);
    assert_eq!(restored.group.snapshot(), snapshot);
    assert_eq!(restored.heartbeat("m1", 1), Ok(()));
    let sync = restored.sync("m2", 1, &[]);
    let assigned = restored.synced[&sync].as_ref().map(|synced| synced.assignment.clone());
    assert_eq!(assigned, Ok(Bytes::from_static(b"m2")));
    // Members that are gone leave when their sessions end.
    restored.pass(SESSION * 2);
    assert_eq!(restored.group.state(), State::Empty);
}

/// One step of a random walk.
#[derive(Debug, Clone)]
enum Step {
    JoinNew { instance: Option<u8>, careful: bool },
    JoinAgain(usize),
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Pass(u64),
    Store(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let instance = prop_oneof![3 => proptest::strategy::Just(None), 1 => (0..3_u8).prop_map(Some)];
    prop_oneof![
        2 => (instance, proptest::bool::ANY)
            .prop_map(|(instance, careful)| Step::JoinNew { instance, careful }),
        4 => (0..8_usize).prop_map(Step::JoinAgain),
        4 => (0..8_usize).prop_map(Step::Sync),
        2 => (0..8_usize).prop_map(Step::Heartbeat),
        1 => (0..8_usize).prop_map(Step::Leave),
        3 => (0..9_000_u64).prop_map(Step::Pass),
        3 => proptest::bool::weighted(0.9).prop_map(Step::Store),
    ]
}

/// What earlier steps have shown.
#[derive(Default)]
struct Seen {
    /// Whom each generation was told of as its leader.
    leaders: BTreeMap<i32, String>,
    /// Generations that had static members.
    with_static_members: BTreeSet<i32>,
}

/// What is true of a group after every step.
fn check_invariants(bench: &Bench, seen: &mut Seen) {
    let snapshot = bench.group.snapshot();
    let ids: BTreeSet<&String> = snapshot.members.iter().map(|m| &m.member_id).collect();
    assert_eq!(ids.len(), snapshot.members.len(), "no id twice");
    let instances: Vec<_> =
        snapshot.members.iter().filter_map(|m| m.instance_id.as_ref()).collect();
    assert_eq!(instances.iter().collect::<BTreeSet<_>>().len(), instances.len());
    match bench.group.state() {
        State::Empty => assert!(snapshot.members.is_empty()),
        State::Stable | State::CompletingRebalance { .. } => {
            let leader = snapshot.leader.as_ref().expect("a generation has a leader");
            assert!(ids.contains(leader), "the leader is a member");
            assert!(snapshot.protocol.is_some());
        }
        State::PreparingRebalance { .. } => assert!(!snapshot.members.is_empty()),
    }
    // Within one generation everybody is told of the same leader, unless it may have been a static one that was replaced (and
    // may be gone by now).
    if !instances.is_empty() {
        seen.with_static_members.insert(snapshot.generation);
    }
    for answer in bench.joined.values().flatten().filter(|joined| !joined.skip_assignment) {
        let generation = answer.generation;
        let leader = seen.leaders.entry(generation).or_insert_with(|| answer.leader.clone());
        if !seen.with_static_members.contains(&generation) {
            assert_eq!(*leader, answer.leader, "generation {generation}");
        }
    }
}

proptest! {
    #[test]
    fn a_random_walk_keeps_the_invariants(steps in proptest::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        let mut seen = Seen::default();
        for step in steps {
            let snapshot = bench.group.snapshot();
            let ids: Vec<String> = snapshot.members.iter().map(|m| m.member_id.clone()).collect();
            let pick = |index: usize| ids.get(index % ids.len().max(1)).cloned().unwrap_or_default();
            match step {
                Step::JoinNew { instance, careful } => {
                    let ticket = bench.join_with(|join| {
                        join.instance_id = instance.map(|number| format!("i{number}"));
                        join.knows_member_id_required = careful;
                    });
                    if let Some(Err(refused)) = bench.joined.get(&ticket)
                        && refused.error == GroupError::MemberIdRequired
                    {
                        let id = refused.member_id.clone();
                        bench.join(&id);
                    }
                }
                Step::JoinAgain(index) => {
                    let id = pick(index);
                    if !id.is_empty() {
                        let known = snapshot.members.iter().find(|m| m.member_id == id);
                        let instance = known.and_then(|m| m.instance_id.clone());
                        bench.join_with(|join| {
                            join.member_id = id;
                            join.instance_id = instance;
                        });
                    }
                }
                Step::Sync(index) => {
                    let pairs: Vec<(&str, &str)> =
                        ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
                    bench.sync(&pick(index), snapshot.generation, &pairs);
                }
                Step::Heartbeat(index) => {
                    let _ = bench.heartbeat(&pick(index), snapshot.generation);
                }
                Step::Leave(index) => {
                    let _ = bench.group.leave(bench.now, &pick(index), None);
                    bench.collect();
                }
                Step::Pass(millis) => bench.pass(Duration::from_millis(millis)),
                Step::Store(durable) => bench.store_all(durable),
            }
            check_invariants(&bench, &mut seen);
            if bench.group.state() == State::Stable {
                for member in bench.group.snapshot().members {
                    // The leaders above assign each member its id; a replaced static member keeps the old one's.
                    assert!(!member.assignment.is_empty() || member.instance_id.is_some());
                }
            }
        }
        // Left alone, a group comes to rest, with every request answered.
        bench.store_all(true);
        for _ in 0..20 {
            bench.pass(REBALANCE * 2);
            bench.store_all(true);
        }
        assert_eq!(bench.group.state(), State::Empty);
        assert!(bench.group.is_idle());
    }
}
