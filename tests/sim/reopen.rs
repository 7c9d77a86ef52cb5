//! New incarnations: what of each lane goes on, and what must not be applied a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use robustmq_cloud::uplink::Rights;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::sync::{
    BatchBuilder, BatchIdentity, Hello, Intent, JudgedLane, LanePosition, OpenReason, Outcome,
    Refusal, SessionId, StoreId,
};
use robustmq_edge::uplink::MemoryBacklog;

use crate::bench::{
    Gateway, LANE, Link, all_logged, body, eventually, gateway, numbered, payloads, publish, record,
};
use crate::cloud::Cloud;
use crate::faults::Hand;

const OTHER: LaneId = LaneId(1);

fn publish_in(backlog: &MemoryBacklog, lane: LaneId, payloads: Vec<String>) {
    for payload in payloads {
        backlog.append(lane, body(&record(&payload)));
    }
    backlog.sync();
}

/// Waits until the log has so many records.
async fn logged(cloud: &Cloud, records: usize) {
    for _ in 0..1_000 {
        if all_logged(cloud).await.len() == records {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {records} records: {:?}", payloads(cloud).await);
}

async fn sorted(cloud: &Cloud) -> Vec<String> {
    let mut all = payloads(cloud).await;
    all.sort();
    all
}

fn sorted_list(lists: &[Vec<String>]) -> Vec<String> {
    let mut all = lists.concat();
    all.sort();
    all
}

/// Lets `count` writes through, one after the other.
async fn let_through(cloud: &Cloud, count: usize) {
    for _ in 0..count {
        eventually("a write waits", || cloud.store().queued() > 0).await;
        cloud.store().apply_held(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cloud loses power and starts again; the gateway has stopped before.
fn restart(cloud: &Cloud, link: &Link) {
    cloud.crash(0);
    link.restart(cloud);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_front_was_dropped_does_not_make_the_others_repeat_what_was_under_way() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let backlog = Arc::new(MemoryBacklog::new(StoreId(1), 2));
    link.lose_answers.store(u32::MAX, Ordering::Relaxed);
    let edge = Gateway::start(backlog.clone(), &link, 1);
    publish_in(&backlog, LANE, numbered("a", 1..=10));
    publish_in(&backlog, OTHER, numbered("b", 1..=10));
    logged(&cloud, 20).await;
    edge.stop().await;
    publish_in(&backlog, OTHER, numbered("b", 11..=20));
    backlog.drop_front(OTHER, 15);
    link.lose_answers.store(0, Ordering::Relaxed);
    let edge = Gateway::start(backlog, &link, 2);
    edge.drained().await;
    publish_in(&edge.backlog, LANE, numbered("a", 11..=11));
    edge.drained().await;
    let expected = [numbered("a", 1..=11), numbered("b", 1..=10), numbered("b", 16..=20)];
    assert_eq!(sorted(&cloud).await, sorted_list(&expected));
    let last = all_logged(&cloud).await.into_iter().find(|record| record.payload == b"a11");
    let last = last.expect("just published");
    assert_eq!((last.incarnation, last.seq), (2, 11), "the new incarnation goes on");
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_front_was_dropped_does_not_make_the_others_forget_their_open_batch() {
    let cloud = Cloud::new(3);
    let link = Link::to(&cloud);
    let backlog = Arc::new(MemoryBacklog::new(StoreId(1), 2));
    link.lose_answers.store(u32::MAX, Ordering::Relaxed);
    let edge = Gateway::start(backlog.clone(), &link, 1);
    publish_in(&backlog, OTHER, numbered("b", 1..=10));
    logged(&cloud, 10).await;
    cloud.store().hold();
    publish_in(&backlog, LANE, numbered("a", 1..=10));
    let_through(&cloud, 2).await;
    edge.stop().await;
    restart(&cloud, &link);
    let half = all_logged(&cloud).await.len();
    assert!((11..20).contains(&half), "half applied: {half}");
    publish_in(&backlog, OTHER, numbered("b", 11..=20));
    backlog.drop_front(OTHER, 15);
    link.lose_answers.store(0, Ordering::Relaxed);
    let edge = Gateway::start(backlog, &link, 2);
    edge.drained().await;
    let expected = [numbered("a", 1..=10), numbered("b", 1..=10), numbered("b", 16..=20)];
    assert_eq!(sorted(&cloud).await, sorted_list(&expected));
    assert!(cloud.metrics.deduplicated_records() > 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_batch_whose_beginning_was_dropped_is_carried_on_by_its_end() {
    let cloud = Cloud::new(3);
    let link = Link::to(&cloud);
    let edge = Gateway::start(Arc::new(MemoryBacklog::new(StoreId(1), 1)), &link, 1);
    publish(&edge.backlog, numbered("first", 1..=5));
    edge.drained().await;
    cloud.store().hold();
    publish(&edge.backlog, numbered("a", 6..=15));
    let_through(&cloud, 3).await;
    // The cursor was never durable: the edge stands at 0, the cloud at 5 with a batch through 15.
    let found = Arc::new(edge.backlog.after_crash());
    edge.stop().await;
    restart(&cloud, &link);
    let before = payloads(&cloud).await;
    assert!((6..15).contains(&before.len()), "half applied: {before:?}");
    found.drop_front(LANE, 8);
    let edge = Gateway::start(found, &link, 2);
    edge.drained().await;
    let after = sorted(&cloud).await;
    let mut once = after.clone();
    once.dedup();
    assert_eq!(once, after, "each once");
    let kept = numbered("a", 9..=15);
    assert!(before.iter().chain(&kept).all(|payload| after.contains(payload)), "{after:?}");
    assert!(all_logged(&cloud).await.iter().all(|record| record.incarnation == 1));
}

fn position(lane: LaneId, through: u64) -> LanePosition {
    LanePosition {
        lane,
        next_seq: EdgeSeq(through + 1),
        acknowledged_through: EdgeSeq(through),
        digest: ChainDigest(through),
    }
}

fn judged(lane: LaneId, continues: bool, begun_through: u64) -> JudgedLane {
    JudgedLane { lane, continues, begun_through: EdgeSeq(begun_through) }
}

/// Asks for a new incarnation in the place of 1.
async fn open(
    link: &Link,
    store: u128,
    judged: Vec<JudgedLane>,
    lanes: Vec<LanePosition>,
) -> Outcome {
    let (presented, reason) = (Incarnation(1), OpenReason::HistoryMismatch);
    let intent = Intent::Open { presented, reason, judged };
    let hello = Hello { session: SessionId(1), store: StoreId(store), intent, lanes };
    link.ingest().hello(&gateway(), &hello.encode()).await.outcome
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_arrives_after_its_lane_was_judged_makes_the_edge_look_again() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    edge.send(1, "a", (0, 1)).await;
    // The edge looks at the cloud's state, and then comes what was still on its way.
    edge.send(2, "b", (1, 2)).await;
    let lanes = vec![position(LANE, 0)];
    let answer = open(&edge.link, 1, vec![judged(LANE, false, 1)], lanes.clone()).await;
    assert_eq!(answer, Outcome::Refused(Refusal::Moved));
    let answer = open(&edge.link, 1, vec![judged(LANE, false, 2)], lanes).await;
    assert!(matches!(answer, Outcome::Hello { incarnation: Incarnation(2), .. }), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_new_to_the_cloud_does_not_cost_a_fenced_gateway_its_history() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    edge.send(1, "a", (0, 1)).await;
    // Somebody else takes the id meanwhile.
    let other = open(&edge.link, 2, Vec::new(), vec![position(LANE, 0)]).await;
    assert!(matches!(other, Outcome::Hello { incarnation: Incarnation(2), .. }), "{other:?}");
    let lanes = vec![position(LANE, 1), position(OTHER, 0)];
    let intent = Intent::Confirm { incarnation: Incarnation(1) };
    let hello = Hello { session: SessionId(1), store: StoreId(1), intent, lanes: lanes.clone() };
    let answer = edge.link.ingest().hello(&gateway(), &hello.encode()).await.outcome;
    let Outcome::Refused(Refusal::Fenced { current, lanes: told }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(current, Incarnation(2));
    let told: Vec<_> = told.iter().map(|state| (state.lane, state.acknowledged_through)).collect();
    assert_eq!(told, [(LANE, EdgeSeq(1)), (OTHER, EdgeSeq(0))]);
    let verdicts = vec![judged(LANE, true, 1), judged(OTHER, true, 0)];
    let answer = open(&edge.link, 1, verdicts, lanes).await;
    let Outcome::Hello { incarnation, lanes } = answer else { panic!("{answer:?}") };
    assert_eq!((incarnation, lanes[0].acknowledged_through), (Incarnation(3), EdgeSeq(1)));
    let mut builder = BatchBuilder::new(EdgeSeq(1));
    assert!(builder.push_record(None, &body(&record("new lane"))));
    let identity = BatchIdentity {
        incarnation,
        session: SessionId(1),
        lane: OTHER,
        digest_before: ChainDigest(0),
        digest_after: ChainDigest(1),
        acknowledged_through: EdgeSeq(0),
    };
    let (_, frame) = builder.finish(&identity).expect("compresses");
    let answer = edge.link.ingest().batch(&gateway(), &Rights::all(), OTHER, &frame).await;
    assert!(matches!(answer.outcome, Outcome::Lane(_)), "{answer:?}");
    assert_eq!(sorted(&cloud).await, ["a", "new lane"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_tried_under_three_incarnations_is_applied_once() {
    let cloud = Cloud::new(4);
    let link = Link::to(&cloud);
    let backlog = Arc::new(MemoryBacklog::new(StoreId(1), 1));
    let edge = Gateway::start(backlog.clone(), &link, 1);
    publish(&backlog, numbered("first", 1..=1));
    edge.drained().await;
    cloud.store().hold();
    publish(&backlog, numbered("a", 1..=10));
    // The open batch, and one partition of it.
    let_through(&cloud, 2).await;
    edge.stop().await;
    restart(&cloud, &link);
    let mut applied = vec![all_logged(&cloud).await.len()];
    for round in 1..=2 {
        let intruder = Gateway::start(Arc::new(MemoryBacklog::new(StoreId(9), 1)), &link, 100);
        eventually("the id is taken over", || intruder.uplink.status().connected).await;
        intruder.stop().await;
        restart(&cloud, &link);
        cloud.store().hold();
        let edge = Gateway::start(backlog.clone(), &link, 1 + round);
        // The new incarnation, and one more partition.
        let_through(&cloud, 2).await;
        edge.stop().await;
        restart(&cloud, &link);
        applied.push(all_logged(&cloud).await.len());
    }
    assert!(applied.is_sorted_by(|before, after| before < after), "a bit each time: {applied:?}");
    let intruder = Gateway::start(Arc::new(MemoryBacklog::new(StoreId(9), 1)), &link, 100);
    eventually("the id is taken over", || intruder.uplink.status().connected).await;
    intruder.stop().await;
    restart(&cloud, &link);
    let edge = Gateway::start(backlog, &link, 4);
    edge.drained().await;
    let expected = [numbered("first", 1..=1), numbered("a", 1..=10)];
    assert_eq!(sorted(&cloud).await, sorted_list(&expected));
}

/// Says when it is let go.
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_holds_is_held_until_it_is_applied_even_if_the_caller_goes() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    cloud.store().hold();
    let released = Arc::new(AtomicBool::new(false));
    let (frame, held) = (edge.frame(1, "a", (0, 1)), Held(released.clone()));
    let caller = tokio::spawn({
        let ingest = edge.link.ingest();
        async move { ingest.batch_holding(&gateway(), &Rights::all(), LANE, &frame, held).await }
    });
    eventually("the open batch waits", || cloud.store().queued() > 0).await;
    caller.abort();
    assert!(caller.await.is_err(), "gone");
    assert!(!released.load(Ordering::Relaxed), "the work goes on");
    cloud.store().release();
    eventually("the batch is applied", || released.load(Ordering::Relaxed)).await;
    assert_eq!(payloads(&cloud).await, ["a"]);
}
