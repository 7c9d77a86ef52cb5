#![expect(clippy::single_range_in_vec_init, reason = "lists of ranges of offsets are meant")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{AcknowledgeError, Lease, Ledger, MostInFlight, Offer, Pool};
use crate::group::shared::cursor::{FIRST, NeverDelivered, Sequence, Token};
use crate::group::shared::pace::Allowance;
use crate::group::shared::progress::Progress;

mod model;

fn token(number: u64) -> Token {
    Token::of(number)
}

fn pool_of(members: u64, now: Instant) -> Pool {
    let mut pool = Pool::restore(&Progress::at(0));
    for number in 0..members {
        assert_eq!(pool.join(token(number), now), FIRST);
    }
    pool
}

const MOST: MostInFlight = MostInFlight { records: 1000, bytes: None };

fn lease(
    pool: &mut Pool,
    number: u64,
    offsets: std::ops::Range<i64>,
    is_new: bool,
    now: Instant,
) -> Option<Sequence> {
    pool.lease(token(number), &Lease { offsets, bytes: 100, is_new }, now)
}

fn offered(pool: &Pool, end: i64) -> Option<(std::ops::Range<i64>, u32)> {
    pool.offer(end).map(|Offer { offsets, deliveries }| (offsets, deliveries))
}

#[test]
fn what_one_member_holds_no_other_is_given() {
    let now = Instant::now();
    let mut pool = pool_of(2, now);
    assert_eq!(offered(&pool, 100), Some((0..100, 0)));
    assert_eq!(lease(&mut pool, 0, 0..60, true, now), Some(FIRST));
    assert_eq!(offered(&pool, 100), Some((60..100, 0)));
    assert_eq!(lease(&mut pool, 1, 60..100, true, now), Some(FIRST));
    assert_eq!(offered(&pool, 100), None);
    assert_eq!(pool.remaining(100), 0);
}

#[test]
fn the_start_moves_over_what_is_acknowledged_without_a_gap() {
    let now = Instant::now();
    let mut pool = pool_of(2, now);
    lease(&mut pool, 0, 0..10, true, now);
    lease(&mut pool, 1, 10..20, true, now);
    assert_eq!(pool.acknowledge(token(1), FIRST.after(10), now), Ok(10));
    assert_eq!((pool.start(), pool.progress().acknowledged), (0, vec![10..20]));
    assert_eq!(pool.acknowledge(token(0), FIRST.after(4), now), Ok(4));
    assert_eq!(pool.start(), 4);
    assert_eq!(pool.acknowledge(token(0), FIRST.after(10), now), Ok(6));
    assert_eq!(pool.progress(), Progress::at(20));
}

#[test]
fn what_a_member_left_behind_goes_to_others_first_and_is_counted() {
    let now = Instant::now();
    let mut pool = pool_of(2, now);
    lease(&mut pool, 0, 0..10, true, now);
    pool.acknowledge(token(0), FIRST.after(3), now).expect("delivered");
    assert!(pool.forget(token(0)));
    assert_eq!(offered(&pool, 100), Some((3..10, 1)));
    assert_eq!(lease(&mut pool, 1, 3..10, false, now), Some(FIRST));
    assert_eq!(offered(&pool, 100), Some((10..100, 0)));
    assert!(pool.release(token(1)));
    assert_eq!(offered(&pool, 100), Some((3..10, 2)));
    assert!(!pool.release(token(1)), "it holds nothing any more");
    assert!(!pool.forget(token(0)), "it is gone");
    let expected = Ledger { delivered: 10, redelivered: 7, acknowledged: 3, rejected: 0 };
    assert_eq!(pool.ledger(), expected);
}

#[test]
fn a_member_whose_leases_went_back_may_still_be_the_first_to_acknowledge() {
    let now = Instant::now();
    let mut pool = pool_of(2, now);
    lease(&mut pool, 0, 0..10, true, now);
    pool.release(token(0));
    lease(&mut pool, 1, 0..4, false, now);
    assert_eq!(pool.acknowledge(token(0), FIRST.after(6), now), Ok(6));
    assert_eq!(offered(&pool, 10), Some((6..10, 1)));
    assert_eq!(pool.acknowledge(token(1), FIRST.after(4), now), Ok(0), "no news");
    assert!(!pool.release(token(1)), "what it held is acknowledged");
    assert_eq!(pool.start(), 6);
}

/// The records of two members that died one after the other counted three times, and for as long as their sessions lasted.
#[test]
fn in_flight_is_what_is_leased_now() {
    let now = Instant::now();
    let mut pool = pool_of(3, now);
    let in_flight = |pool: &Pool| pool.in_flight().into_values().collect::<Vec<_>>();
    lease(&mut pool, 0, 0..10, true, now);
    assert_eq!(in_flight(&pool), [10, 0, 0]);
    pool.release(token(0));
    assert_eq!(in_flight(&pool), [0, 0, 0], "it waits for somebody");
    lease(&mut pool, 1, 0..10, false, now);
    pool.release(token(1));
    lease(&mut pool, 2, 0..10, false, now);
    assert_eq!(pool.in_flight(), BTreeMap::from([(token(0), 0), (token(1), 0), (token(2), 10)]));
    pool.acknowledge(token(2), FIRST.after(7), now).expect("delivered");
    assert_eq!(in_flight(&pool), [0, 0, 3]);
    // The first acknowledgement wins, and what it is of is with nobody any more.
    pool.acknowledge(token(0), FIRST.after(9), now).expect("delivered");
    assert_eq!(in_flight(&pool), [0, 0, 1]);
    pool.forget(token(2));
    assert_eq!(in_flight(&pool), [0, 0]);
}

#[test]
fn a_restart_voids_leases_and_keeps_progress_and_counts() {
    let now = Instant::now();
    let mut pool = pool_of(3, now);
    lease(&mut pool, 0, 0..10, true, now);
    lease(&mut pool, 1, 10..20, true, now);
    lease(&mut pool, 2, 20..30, true, now);
    pool.acknowledge(token(1), FIRST.after(10), now).expect("delivered");
    pool.forget(token(2));
    let stored = Progress::decode(&pool.progress().encode()).expect("as it was encoded");
    let pool = Pool::restore(&stored);
    assert_eq!(offered(&pool, 100), Some((0..10, 0)));
    let progress = Progress { start: 0, acknowledged: vec![10..20], deliveries: vec![(20..30, 1)] };
    assert_eq!(pool.progress(), progress);
    assert_eq!(pool.remaining(100), 90);
}

#[test]
fn deleted_records_are_given_to_nobody() {
    let now = Instant::now();
    let mut pool = pool_of(2, now);
    lease(&mut pool, 0, 0..10, true, now);
    pool.release(token(0));
    lease(&mut pool, 1, 0..2, false, now);
    pool.trim(5);
    assert_eq!(offered(&pool, 20), Some((5..10, 1)));
    assert_eq!(pool.acknowledge(token(1), FIRST.after(2), now), Ok(0));
    pool.trim(15);
    assert_eq!(offered(&pool, 20), Some((15..20, 0)));
    assert_eq!((pool.start(), pool.remaining(20)), (15, 5));
}

#[test]
fn what_is_given_up_counts_as_done() {
    let now = Instant::now();
    let mut pool = pool_of(1, now);
    lease(&mut pool, 0, 0..10, true, now);
    pool.release(token(0));
    pool.reject(0..4);
    assert_eq!((pool.start(), pool.ledger().rejected), (4, 4));
    assert_eq!(offered(&pool, 10), Some((4..10, 1)));
}

#[test]
fn unknown_cursors_and_positions_are_refused_without_effect() {
    let now = Instant::now();
    let mut pool = pool_of(1, now);
    assert_eq!(lease(&mut pool, 9, 0..1, true, now), None);
    assert_eq!(pool.acknowledge(token(9), FIRST, now), Err(AcknowledgeError::NoCursor));
    let never = NeverDelivered { position: FIRST.after(1), next: FIRST };
    assert_eq!(pool.acknowledge(token(0), FIRST.after(1), now), Err(never.into()));
    assert_eq!(pool.allowance(token(9), now, 10, MOST), None);
    assert_eq!(offered(&pool, 10), Some((0..10, 0)));
}

#[test]
fn a_member_with_all_that_it_may_have_waits_for_its_own_acknowledgement() {
    let now = Instant::now();
    let mut pool = pool_of(1, now);
    let mut given = 0;
    while let Some(Allowance::Records(records)) = pool.allowance(token(0), now, 5_000, MOST) {
        lease(&mut pool, 0, given..given + i64::from(records), true, now);
        given += i64::from(records);
    }
    assert_eq!(given, 512);
    let later = now + Duration::from_secs(1);
    pool.acknowledge(token(0), FIRST.after(512), later).expect("delivered");
    assert!(matches!(pool.allowance(token(0), later, 5_000, MOST), Some(Allowance::Records(_))));
}

#[test]
fn what_was_acknowledged_between_an_offer_and_its_lease_is_not_leased() {
    let now = Instant::now();
    let mut pool = pool_of(2, now);
    lease(&mut pool, 0, 0..10, true, now);
    pool.release(token(0));
    assert_eq!(offered(&pool, 10), Some((0..10, 1)));
    pool.acknowledge(token(0), FIRST.after(6), now).expect("delivered");
    assert_eq!(lease(&mut pool, 1, 0..10, false, now), None);
    pool.skip(0..10);
    assert_eq!(offered(&pool, 10), Some((6..10, 1)));
    pool.trim(8);
    assert_eq!(lease(&mut pool, 1, 6..10, false, now), None);
    assert_eq!(lease(&mut pool, 1, 8..10, false, now), Some(FIRST));
}

#[test]
fn what_came_back_and_went_to_the_same_member_again_comes_back_once() {
    let now = Instant::now();
    let mut pool = pool_of(1, now);
    lease(&mut pool, 0, 0..10, true, now);
    pool.release(token(0));
    lease(&mut pool, 0, 0..10, false, now);
    pool.release(token(0));
    assert_eq!((pool.remaining(10), offered(&pool, 10)), (10, Some((0..10, 2))));
}

#[test]
fn what_is_not_acknowledged_in_time_waits_for_others() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut pool = pool_of(2, start);
    lease(&mut pool, 0, 0..10, true, at(0));
    lease(&mut pool, 0, 10..20, true, at(5));
    lease(&mut pool, 1, 20..30, true, at(6));
    assert_eq!(pool.oldest(), Some(at(0)));
    pool.acknowledge(token(0), FIRST.after(4), at(7)).expect("delivered");
    pool.expire(at(4));
    assert_eq!(offered(&pool, 30), Some((4..10, 1)));
    assert_eq!((pool.remaining(30), pool.oldest()), (6, Some(at(5))));
    pool.expire(at(4));
    assert_eq!(pool.remaining(30), 6, "it has expired already");
    pool.acknowledge(token(0), FIRST.after(20), at(8)).expect("delivered");
    assert_eq!((pool.remaining(30), pool.oldest()), (0, Some(at(6))));
}

/// A member that was slow once was given the same records again and again, ten times a second, until they were given up: what came back to it
/// counted as given when it was first.
#[test]
fn what_the_same_member_is_given_again_has_its_time_anew() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut pool = pool_of(1, start);
    lease(&mut pool, 0, 0..10, true, at(0));
    assert!(pool.expire(at(4)));
    assert_eq!(offered(&pool, 10), Some((0..10, 1)));
    lease(&mut pool, 0, 0..10, false, at(9));
    assert!(!pool.expire(at(5)), "it has had it for a second");
    assert_eq!((pool.remaining(10), pool.oldest()), (0, Some(at(9))));
    assert!(pool.expire(at(9)));
    assert_eq!(offered(&pool, 10), Some((0..10, 2)));
    // Its connection was gone for a while.
    lease(&mut pool, 0, 0..10, false, at(10));
    assert!(pool.release(token(0)));
    lease(&mut pool, 0, 0..10, false, at(15));
    assert!(!pool.expire(at(14)));
    assert_eq!(pool.acknowledge(token(0), FIRST.after(40), at(16)), Ok(10));
}

#[test]
fn what_follows_a_delivery_that_went_back_is_another_one() {
    let start = Instant::now();
    let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
    let mut pool = pool_of(1, start);
    lease(&mut pool, 0, 0..5, true, at(0));
    assert!(pool.expire(at(0)));
    lease(&mut pool, 0, 5..10, true, at(5));
    assert!(!pool.expire(at(3)));
    assert_eq!((pool.remaining(10), pool.oldest()), (5, Some(at(5))));
    assert!(pool.expire(at(5)));
    assert_eq!(pool.remaining(10), 10);
}

#[test]
fn bytes_in_flight_are_limited_by_what_records_were_lately() {
    let now = Instant::now();
    let mut pool = pool_of(1, now);
    let most = MostInFlight { records: 1000, bytes: Some(1500) };
    assert_eq!(pool.allowance(token(0), now, 100, most), Some(Allowance::Records(64)));
    pool.lease(token(0), &Lease { offsets: 0..10, bytes: 1000, is_new: true }, now);
    assert_eq!(pool.allowance(token(0), now, 100, most), Some(Allowance::Records(5)));
    pool.lease(token(0), &Lease { offsets: 10..15, bytes: 500, is_new: true }, now);
    assert_eq!(pool.allowance(token(0), now, 100, most), Some(Allowance::Wait(None)));
}
