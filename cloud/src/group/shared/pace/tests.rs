use std::time::{Duration, Instant};

use super::{Allowance, Bounds, Crowd, Pace};

/// Plenty to do, and so many members that the first share is nothing.
const PLENTY: Crowd = Crowd { remaining: 100_000_000, rate: 1_000_000, members: 1_000_000 };
const SECOND: Duration = Duration::from_secs(1);
const MOST: Bounds = Bounds { most: 4_000_000, prefetched: 100_000 };
const TEN: Bounds = Bounds { most: 10, ..MOST };

fn records(allowance: Allowance) -> u32 {
    match allowance {
        Allowance::Records(records) => records,
        Allowance::Wait(_) => 0,
    }
}

/// Takes all that is allowed; returns what is in flight then.
fn fill(pace: &mut Pace, now: Instant, in_flight: u32, crowd: Crowd) -> u32 {
    fill_within(MOST, pace, now, in_flight, crowd)
}

fn fill_within(
    bounds: Bounds,
    pace: &mut Pace,
    now: Instant,
    mut in_flight: u32,
    crowd: Crowd,
) -> u32 {
    while let Allowance::Records(records) = pace.allowance(now, in_flight, bounds, crowd) {
        pace.leased(now, in_flight);
        in_flight += records;
    }
    in_flight
}

#[test]
fn a_new_member_starts_small_and_has_a_little_until_it_acknowledges() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    assert_eq!(pace.allowance(now, 0, MOST, PLENTY), Allowance::Records(64));
    assert_eq!(fill(&mut pace, now, 0, PLENTY), 512);
    assert_eq!(records(pace.allowance(now + SECOND * 4, 512, MOST, PLENTY)), 0);
}

/// Fast members that commit every five seconds stood still until their first commit: each had its first share, and more was in flight than its
/// client ever holds.
#[test]
fn who_takes_more_than_a_client_holds_goes_on_before_its_first_commit() {
    let now = Instant::now();
    let crowd = |remaining| Crowd { remaining, rate: 0, members: 8 };
    let bounds = Bounds { most: 4_000_000, prefetched: 60_000 };
    let mut pace = Pace::new(now);
    let held = fill_within(bounds, &mut pace, now, 0, crowd(4_000_000));
    assert_eq!(held, 50_000, "a slow one's client holds all of this");
    let more = records(pace.allowance(now, 62_000, bounds, crowd(4_000_000)));
    assert_eq!(more, 65_536, "a fast one's does not: twice the last answer");
    let little = records(pace.allowance(now, 62_000, bounds, crowd(80_000)));
    assert_eq!(little, 4_000, "others wait for their part of what is left");
}

/// A slow member that was the first to join was alone for a moment: its share was a tenth of everything, and the others were done long
/// before it.
#[test]
fn who_joins_first_is_not_given_the_share_of_those_who_join_next() {
    let now = Instant::now();
    let few = |members| Crowd { remaining: 142_000, rate: 0, members };
    let alone = fill(&mut Pace::new(now), now, 0, few(1));
    assert_eq!(alone, fill(&mut Pace::new(now), now, 0, few(8)));
    assert_eq!(alone, 142_000 / 8 / 10);
    assert_eq!(fill(&mut Pace::new(now), now, 0, few(20)), 142_000 / 20 / 10);
}

/// A client that was gone had 1,600 records. The first of 32 that had nothing to do was given all of them: it had to work on them for eight
/// seconds, while the others waited.
#[test]
fn what_comes_back_is_shared_by_all_who_wait() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    // It had 500 records, and has done with them: 100 a second.
    assert_eq!(records(pace.allowance(now, 0, MOST, PLENTY)), 64);
    pace.leased(now, 0);
    let later = now + SECOND * 5;
    pace.acknowledged(later, 500, 0);
    for _ in 0..5 {
        pace.leased(later, 0);
    }
    let back = Crowd { remaining: 1600, rate: 3_200_000, members: 32 };
    assert_eq!(records(pace.allowance(later, 0, MOST, back)), 64);
    // Of more there is more for each.
    let more = Crowd { remaining: 32_000, ..back };
    assert_eq!(records(pace.allowance(later, 0, MOST, more)), 1000);
    // Nobody else is there.
    let alone = Crowd { members: 1, ..back };
    assert_eq!(records(pace.allowance(later, 0, MOST, alone)), 1600);
}

#[test]
fn a_member_that_takes_5_ms_a_record_never_waits_for_its_commits_of_every_5_s() {
    let mut now = Instant::now();
    let mut pace = Pace::new(now);
    let mut in_flight = fill(&mut pace, now, 0, PLENTY);
    let mut idle_ms = 0;
    let (mut done, mut credit) = (0_u32, 0);
    for tick in 1..120_000_u32 {
        now += Duration::from_millis(1);
        if credit == 0 && in_flight > done {
            credit = 5;
        }
        if credit == 0 {
            idle_ms += 1;
        } else {
            credit -= 1;
            done += u32::from(credit == 0);
        }
        if tick % 5_000 == 0 && done > 0 {
            in_flight -= done;
            pace.acknowledged(now, done, in_flight);
            done = 0;
        }
        if let Allowance::Records(records) = pace.allowance(now, in_flight, MOST, PLENTY) {
            pace.leased(now, in_flight);
            in_flight += records;
        }
        assert!(in_flight <= 3_000, "{in_flight} in flight after {tick} ms");
    }
    assert!(idle_ms < 6_000, "idle for {idle_ms} ms of 120,000");
}

#[test]
fn whoever_acknowledges_all_that_it_had_gets_four_times_as_much() {
    let mut now = Instant::now();
    let mut pace = Pace::new(now);
    let mut expected = 512;
    for _ in 0..4 {
        let in_flight = fill(&mut pace, now, 0, PLENTY);
        assert_eq!(in_flight, expected);
        now += SECOND * 5;
        pace.acknowledged(now, in_flight, 0);
        expected *= 4;
    }
}

#[test]
fn near_the_end_a_slow_member_has_little() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    pace.acknowledged(now + SECOND, 20, 400);
    let now = now + SECOND;
    // 140 records a second without it: 70 are half a second's work, and an eighth of a second's is four of its own.
    let end = Crowd { remaining: 70, rate: 160_000, members: 1 };
    assert_eq!(records(pace.allowance(now, 1, MOST, end)), 3);
    assert_eq!(records(pace.allowance(now, 4, MOST, end)), 0);
    assert_eq!(records(pace.allowance(now, 1, MOST, PLENTY)), 39);
}

#[test]
fn a_member_that_stopped_is_given_no_more_than_a_client_prefetches() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    pace.acknowledged(start + SECOND, 200, 100);
    let mut in_flight = 100;
    for seconds in 1..600 {
        in_flight = fill(&mut pace, start + SECOND * seconds, in_flight, PLENTY);
    }
    assert_eq!(in_flight, 100_000);
}

#[test]
fn a_wait_ends_when_it_says() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    pace.acknowledged(start + SECOND, 200, 100);
    let now = start + SECOND;
    let in_flight = fill(&mut pace, now, 100, PLENTY);
    let Allowance::Wait(Some(until)) = pace.allowance(now, in_flight, MOST, PLENTY) else {
        panic!("it is full");
    };
    assert!(records(pace.allowance(until, in_flight, MOST, PLENTY)) > 0);
    let just_before = until - Duration::from_millis(20);
    assert_eq!(records(pace.allowance(just_before, in_flight, MOST, PLENTY)), 0);
}

#[test]
fn whoever_has_nothing_gets_something_and_the_configured_most_holds() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    assert_eq!(pace.allowance(now, 0, TEN, PLENTY), Allowance::Records(10));
    assert_eq!(pace.allowance(now, 9, TEN, PLENTY), Allowance::Records(1));
    assert_eq!(pace.allowance(now, 10, TEN, PLENTY), Allowance::Wait(None));
    pace.leased(now, 0);
    pace.acknowledged(now + SECOND * 1000, 1, 9);
    let none = Crowd { remaining: 0, rate: 1, members: 1 };
    assert_eq!(pace.allowance(now + SECOND * 1000, 0, MOST, none), Allowance::Records(1));
}

/// A member that commits each thousand records waited for more than the first 512, and the broker for its commit, for ever.
#[test]
fn a_member_that_wants_more_before_it_acknowledges_gets_it_after_a_while() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    let in_flight = fill(&mut pace, start, 0, PLENTY);
    assert_eq!(in_flight, 512);
    let Allowance::Wait(Some(until)) = pace.allowance(start, in_flight, MOST, PLENTY) else {
        panic!("it is full, but not for ever");
    };
    let in_flight = fill(&mut pace, until, in_flight, PLENTY);
    assert_eq!(in_flight, 1024);
    pace.acknowledged(until, 1_000, 24);
    // From now on it is known to be busy, with a thousand records at a time.
    let mut in_flight = fill(&mut pace, until, 24, PLENTY);
    for seconds in 0..60 {
        in_flight = fill(&mut pace, until + SECOND * seconds, in_flight, PLENTY);
    }
    assert!(in_flight > 1_000);
}

/// Eight fast members with the automatic commit of 5 s had five seconds to wait before anything was known of them.
#[test]
fn a_new_member_may_have_a_small_part_of_its_share_at_once() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    let crowd = Crowd { remaining: 1_600_000, rate: 0, members: 8 };
    assert_eq!(fill(&mut pace, now, 0, crowd), 20_000);
    let little = Crowd { remaining: 1_600, ..crowd };
    assert_eq!(fill(&mut Pace::new(now), now, 0, little), 512);
}

#[test]
fn whoever_fetches_with_more_in_flight_than_a_client_prefetches_is_working() {
    let now = Instant::now();
    let mut pace = Pace::new(now);
    let crowd = Crowd { remaining: 100_000_000, rate: 0, members: 8 };
    let small = Bounds { most: 4_000_000, prefetched: 65_536 };
    assert_eq!(fill_within(small, &mut pace, now, 0, crowd), 4_000_000);
    // Where there is less to do, it might keep the others waiting.
    let less = Crowd { remaining: 4_000_000, ..crowd };
    assert_eq!(fill_within(small, &mut Pace::new(now), now, 0, less), 50_000);
}
