use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{NotHeld, Verdict};
use crate::group::shared::cursor::Token;
use crate::group::shared::pool::{Lease, Offer, Pool};
use crate::group::shared::progress::Progress;

const SECOND: Duration = Duration::from_secs(1);

fn token(number: u64) -> Token {
    Token::of(number)
}

fn pool_of(members: u64) -> Pool {
    let mut pool = Pool::restore(&Progress::at(0));
    for number in 0..members {
        pool.enter(token(number));
    }
    pool
}

/// Acquires up to `most` offsets below 100; returns them with how often they were delivered before.
fn acquire(pool: &mut Pool, number: u64, most: u64, now: Instant) -> Vec<(i64, i64, u32)> {
    let offers = pool.offers(100, most);
    for Offer { offsets, deliveries } in &offers {
        let lease = Lease { offsets: offsets.clone(), bytes: 1, is_new: *deliveries == 0 };
        assert!(pool.acquire(token(number), &lease, now));
    }
    offers.into_iter().map(|o| (o.offsets.start, o.offsets.end, o.deliveries)).collect()
}

#[test]
fn records_are_settled_one_by_one_and_what_is_released_comes_first() {
    let now = Instant::now();
    let mut pool = pool_of(2);
    assert_eq!(acquire(&mut pool, 0, 10, now), [(0, 10, 0)]);
    let verdicts = [
        (0..2, Verdict::Accept),
        (4..5, Verdict::Release),
        (6..7, Verdict::Reject),
        (9..10, Verdict::Release),
    ];
    pool.settle(token(0), &verdicts).expect("all are held");
    assert_eq!(pool.start(), 2);
    assert_eq!(pool.acquired(token(0)), Some(5));
    assert_eq!(acquire(&mut pool, 1, 4, now), [(4, 5, 1), (9, 10, 1), (10, 12, 0)]);
    let ledger = pool.ledger();
    let counts = (ledger.delivered, ledger.redelivered, ledger.acknowledged, ledger.rejected);
    assert_eq!(counts, (12, 2, 2, 1));
}

#[test]
fn a_verdict_on_what_is_not_held_is_refused_with_all_that_came_along() {
    let now = Instant::now();
    let mut pool = pool_of(2);
    acquire(&mut pool, 0, 10, now);
    for (who, offsets) in [(0, 5..11), (1, 0..1), (2, 0..1)] {
        let verdicts = [(0..1, Verdict::Accept), (offsets.clone(), Verdict::Accept)];
        let refused = pool.settle(token(who), &verdicts);
        let expected = if who == 0 { offsets } else { 0..1 };
        assert_eq!(refused, Err(NotHeld(expected)));
        assert_eq!((pool.start(), pool.acquired(token(0))), (0, Some(10)));
    }
    pool.settle(token(0), &[(0..10, Verdict::Accept)]).expect("all are held");
    // Below the start there is nothing to be said any more.
    assert_eq!(pool.settle(token(0), &[(0..10, Verdict::Accept)]), Ok(()));
}

#[test]
fn locks_run_out_and_what_was_settled_in_time_stays_settled() {
    let start = Instant::now();
    let mut pool = pool_of(2);
    acquire(&mut pool, 0, 10, start);
    acquire(&mut pool, 0, 10, start + SECOND);
    pool.settle(token(0), &[(2..4, Verdict::Accept)]).expect("all are held");
    assert_eq!(pool.oldest_lock(), Some(start));
    assert!(pool.expire_locks(start));
    assert!(!pool.expire_locks(start));
    assert_eq!(pool.oldest_lock(), Some(start + SECOND));
    assert_eq!(acquire(&mut pool, 1, 9, start), [(0, 2, 1), (4, 10, 1), (20, 21, 0)]);
    assert_eq!(
        pool.settle(token(0), &[(5..6, Verdict::Accept)]),
        Err(NotHeld(5..6)),
        "it is with somebody else"
    );
    pool.settle(token(0), &[(10..20, Verdict::Accept)]).expect("these have not run out");
}

#[test]
fn whoever_leaves_gives_everything_back_and_counts_survive_a_restart() {
    let now = Instant::now();
    let mut pool = pool_of(1);
    acquire(&mut pool, 0, 10, now);
    pool.settle(token(0), &[(3..5, Verdict::Accept)]).expect("all are held");
    assert!(pool.forget(token(0)));
    assert!(pool.is_deserted());
    let mut pool = Pool::restore(&pool.progress());
    pool.enter(token(1));
    assert_eq!(acquire(&mut pool, 1, 12, now), [(0, 3, 1), (5, 10, 1), (10, 14, 0)]);
    assert_eq!((pool.deliveries_at(0), pool.deliveries_at(3)), (1, 0));
}

#[test]
fn both_kinds_of_members_work_on_one_pool() {
    let now = Instant::now();
    let mut pool = pool_of(1);
    let first = pool.join(token(7), now);
    acquire(&mut pool, 0, 5, now);
    let lease = Lease { offsets: 5..8, bytes: 1, is_new: true };
    assert_eq!(pool.lease(token(7), &lease, now), Some(first));
    let refused = pool.settle(token(0), &[(5..8, Verdict::Accept)]);
    assert_eq!(refused, Err(NotHeld(5..8)));
    pool.release(token(7));
    assert_eq!(acquire(&mut pool, 0, 3, now), [(5, 8, 1)]);
    // The first acknowledgement wins.
    assert_eq!(pool.acknowledge(token(7), first.after(3), now), Ok(3));
    assert!(pool.settle(token(0), &[(5..8, Verdict::Accept)]).is_err());
    assert_eq!(pool.in_flight(), BTreeMap::from([(token(0), 5), (token(7), 0)]));
    assert!(pool.forget(token(0)));
    assert_eq!(acquire(&mut pool_with(&pool), 3, 9, now), [(0, 5, 1), (8, 12, 0)]);
}

/// As it would be after a restart, with another member.
fn pool_with(pool: &Pool) -> Pool {
    let mut pool = Pool::restore(&pool.progress());
    pool.enter(token(3));
    pool
}
