//! The faults that the protocol promises to survive, each a test. Time is simulated: nothing here waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use robustmq_cloud::uplink::Rights;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, TopicId};
use robustmq_common::sync::{
    Answer, BatchBuilder, BatchIdentity, Hello, Intent, LanePosition, NO_INCARNATION, OpenReason,
    Outcome, Refusal, RejectReason, SessionId, SkipReason, StoreId,
};
use robustmq_edge::uplink::MemoryBacklog;

use crate::bench::{
    Gateway, LANE, Link, all_logged, body, eventually, gateway, numbered, payloads, publish, record,
};
use crate::cloud::Cloud;

fn store(number: u128) -> Arc<MemoryBacklog> {
    Arc::new(MemoryBacklog::new(StoreId(number), 1))
}

fn joined(lists: &[Vec<String>]) -> Vec<String> {
    lists.concat()
}

#[tokio::test(start_paused = true)]
async fn what_is_not_synced_is_not_sent() {
    let cloud = Cloud::new(1);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("a", 1..=3));
    edge.backlog.append(LANE, body(&record("unsynced")));
    edge.drained().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(payloads(&cloud).await, numbered("a", 1..=3));
    edge.backlog.sync();
    edge.drained().await;
    assert_eq!(payloads(&cloud).await.last().map(String::as_str), Some("unsynced"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_repeats_nothing() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    link.lose_answers.store(3, Ordering::Relaxed);
    publish(&edge.backlog, numbered("a", 1..=40));
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, numbered("a", 1..=40));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_restarts_goes_on_at_once_where_it_was() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("a", 1..=5));
    edge.drained().await;
    // The cursor was not durable yet: the cloud knows better.
    let found = Arc::new(edge.backlog.after_crash());
    edge.stop().await;
    let start = tokio::time::Instant::now();
    let edge = Gateway::start(found, &link, 2);
    publish(&edge.backlog, numbered("b", 1..=5));
    edge.drained().await;
    assert!(start.elapsed() < Duration::from_secs(3), "it was taken for another gateway");
    let logged = all_logged(&cloud).await;
    assert!(logged.iter().all(|record| record.incarnation == 1));
    assert_eq!(payloads(&cloud).await, joined(&[numbered("a", 1..=5), numbered("b", 1..=5)]));
}

#[tokio::test(start_paused = true)]
async fn a_wiped_queue_gets_a_new_incarnation_and_nothing_of_it_is_taken_for_a_duplicate() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("old", 1..=5));
    edge.drained().await;
    edge.stop().await;
    let edge = Gateway::start(store(2), &link, 2);
    publish(&edge.backlog, numbered("new", 1..=3));
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, joined(&[numbered("old", 1..=5), numbered("new", 1..=3)]));
    assert_eq!(all_logged(&cloud).await.last().expect("records").incarnation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_restored_image_behind_the_cloud_reuses_numbers_and_loses_nothing_by_that() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("a", 1..=5));
    edge.drained().await;
    edge.backlog.sync_cursors();
    let image = Arc::new(edge.backlog.image());
    publish(&edge.backlog, numbered("b", 1..=5));
    edge.drained().await;
    edge.stop().await;
    publish(&image, numbered("c", 1..=7));
    let edge = Gateway::start(image, &link, 2);
    edge.drained().await;
    let expected = [numbered("a", 1..=5), numbered("b", 1..=5), numbered("c", 1..=7)];
    assert_eq!(payloads(&cloud).await, joined(&expected));
    let logged = all_logged(&cloud).await;
    assert_eq!((logged[10].incarnation, logged[10].seq), (2, 6), "a number used again");
}

#[tokio::test(start_paused = true)]
async fn of_two_edges_with_one_id_the_second_is_refused_while_the_first_is_connected() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let first = Gateway::start(store(1), &link, 1);
    publish(&first.backlog, numbered("a", 1..=3));
    first.drained().await;
    let second = Gateway::start(store(2), &link, 2);
    publish(&second.backlog, numbered("b", 1..=3));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payloads(&cloud).await, numbered("a", 1..=3));
    let error = second.uplink.status().last_error.expect("it says why");
    assert!(error.contains("another gateway"), "{error}");

    publish(&first.backlog, numbered("c", 1..=3));
    first.drained().await;
    let first_backlog = first.backlog.clone();
    first.stop().await;
    second.drained().await;
    publish(&first_backlog, numbered("d", 1..=3));
    let first = Gateway::start(first_backlog, &link, 3);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!first.backlog.is_drained(), "the second one is connected now");
    second.stop().await;
    first.drained().await;
    let expected =
        [numbered("a", 1..=3), numbered("c", 1..=3), numbered("b", 1..=3), numbered("d", 1..=3)];
    assert_eq!(payloads(&cloud).await, joined(&expected), "each once");
}

#[tokio::test(start_paused = true)]
async fn a_cloned_gateway_is_told_apart_as_soon_as_the_two_histories_differ() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let first = Gateway::start(store(1), &link, 1);
    publish(&first.backlog, numbered("a", 1..=3));
    first.drained().await;
    first.backlog.sync_cursors();
    let clone = Gateway::start(Arc::new(first.backlog.image()), &link, 2);
    publish(&first.backlog, numbered("b", 1..=3));
    first.drained().await;
    publish(&clone.backlog, numbered("c", 1..=5));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payloads(&cloud).await, joined(&[numbered("a", 1..=3), numbered("b", 1..=3)]));
    assert!(!clone.backlog.is_drained());
    first.stop().await;
    clone.drained().await;
    let expected = [numbered("a", 1..=3), numbered("b", 1..=3), numbered("c", 1..=5)];
    assert_eq!(payloads(&cloud).await, joined(&expected));
}

/// Lets the cloud die after `survivors` of the writes that one batch makes, and starts it again.
async fn die_half_applied(cloud: &Cloud, link: &Link, edge: &Gateway, survivors: usize) {
    cloud.store().hold();
    publish(&edge.backlog, numbered("a", 1..=10));
    for _ in 0..survivors {
        eventually("a write waits", || cloud.store().queued() > 0).await;
        cloud.store().apply_held(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cloud.crash(0);
    link.restart(cloud);
}

#[tokio::test(start_paused = true)]
async fn a_batch_half_applied_when_the_cloud_died_is_completed_exactly_once() {
    // Open batch, three partitions, new position.
    for survivors in 0..=5 {
        let cloud = Cloud::new(3);
        let link = Link::to(&cloud);
        let edge = Gateway::start(store(1), &link, 1);
        publish(&edge.backlog, numbered("first", 1..=1));
        edge.drained().await;
        die_half_applied(&cloud, &link, &edge, survivors).await;
        edge.drained().await;
        let expected = joined(&[numbered("first", 1..=1), numbered("a", 1..=10)]);
        assert_eq!(payloads(&cloud).await, expected, "{survivors} writes survived");
        if (2..=3).contains(&survivors) {
            assert!(cloud.metrics.deduplicated_records() > 0, "{survivors} writes survived");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_half_applied_keeps_its_partition_map() {
    let cloud = Cloud::new(3);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("first", 1..=1));
    edge.drained().await;
    die_half_applied(&cloud, &link, &edge, 3).await;
    cloud.set_topic("plant.temp", |topic| topic.partitions = 7);
    edge.drained().await;
    let expected = joined(&[numbered("first", 1..=1), numbered("a", 1..=10)]);
    assert_eq!(payloads(&cloud).await, expected);
    publish(&edge.backlog, numbered("b", 1..=10));
    edge.drained().await;
    let used = cloud.logged().await.into_values().filter(|records| !records.is_empty()).count();
    assert!(used > 3, "later batches use the new partitions");
}

#[tokio::test(start_paused = true)]
async fn a_batch_half_applied_is_never_completed_with_another_history() {
    let cloud = Cloud::new(3);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("first", 1..=1));
    edge.drained().await;
    edge.backlog.sync_cursors();
    let image = Arc::new(edge.backlog.image());
    die_half_applied(&cloud, &link, &edge, 3).await;
    edge.stop().await;
    let half: Vec<String> = payloads(&cloud).await;
    assert!(half.len() > 1 && half.len() < 11, "half applied: {half:?}");
    publish(&image, numbered("c", 1..=10));
    let edge = Gateway::start(image, &link, 2);
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, joined(&[half, numbered("c", 1..=10)]));
}

#[tokio::test(start_paused = true)]
async fn an_open_batch_is_sent_again_as_it_was_even_if_records_expired_meanwhile() {
    let cloud = Cloud::new(3);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("first", 1..=1));
    edge.drained().await;
    // Nothing of it gets back to the edge before some of it is skipped.
    link.portal.store(false, Ordering::Relaxed);
    die_half_applied(&cloud, &link, &edge, 3).await;
    let before = payloads(&cloud).await;
    edge.backlog.skip(LANE, 2..=6, SkipReason::Expired);
    publish(&edge.backlog, numbered("b", 1..=10));
    edge.drained().await;
    let after = payloads(&cloud).await;
    assert!(before.iter().all(|payload| after.contains(payload)), "{before:?} {after:?}");
    let mut once = after.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), after.len(), "twice: {after:?}");
    for payload in joined(&[numbered("a", 6..=10), numbered("b", 1..=10)]) {
        assert!(after.contains(&payload), "{payload} is missing: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_can_never_accept_is_a_dead_letter_and_holds_up_nothing() {
    let cloud = Cloud::new(2);
    cloud.set_topic("dataset", |topic| topic.writable = false);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    // The answers that tell of the rejections get lost: they are told again.
    link.lose_answers.store(2, Ordering::Relaxed);
    let big = "x".repeat(5_000);
    let backlog = &edge.backlog;
    backlog.append(LANE, body(&record("good 1")));
    let illegal = robustmq_common::sync::EdgeRecord { kafka_topic: Some("no good"), ..record("a") };
    backlog.append(LANE, body(&illegal));
    backlog.append(LANE, body(&record(&big)));
    let dataset = robustmq_common::sync::EdgeRecord { kafka_topic: Some("dataset"), ..record("b") };
    backlog.append(LANE, body(&dataset));
    backlog.append(LANE, b"not a record".to_vec());
    backlog.append(LANE, body(&record("good 2")));
    backlog.sync();
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, ["good 1", "good 2"]);
    let dead = edge.dead.0.lock().expect("not poisoned");
    let reasons: Vec<(u64, RejectReason)> =
        dead.iter().map(|letter| (letter.seq.0, letter.reason)).collect();
    let expected = [
        (2, RejectReason::IllegalTopic),
        (3, RejectReason::TooLarge),
        (4, RejectReason::ReadOnlyTopic),
        (5, RejectReason::Malformed),
    ];
    assert_eq!(reasons, expected);
    assert!(dead.iter().all(|letter| letter.body.is_some()), "with what they said");
}

#[tokio::test(start_paused = true)]
async fn expired_records_leave_gaps_that_are_explained() {
    let cloud = Cloud::new(1);
    let link = Link::to(&cloud);
    let backlog = store(1);
    publish(&backlog, numbered("a", 1..=30));
    backlog.skip(LANE, 1..=3, SkipReason::Expired);
    backlog.skip(LANE, 8..=25, SkipReason::Dropped);
    backlog.skip(LANE, 26..=27, SkipReason::Quarantined);
    let edge = Gateway::start(backlog, &link, 1);
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, joined(&[numbered("a", 4..=7), numbered("a", 28..=30)]));
    assert_eq!(cloud.metrics.skipped_records(), 3 + 18 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_restored_to_an_earlier_state_records_the_loss_and_goes_on() {
    let cloud = Cloud::new(2);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("a", 1..=5));
    edge.drained().await;
    let backup = cloud.back_up();
    link.restart(&cloud);
    publish(&edge.backlog, numbered("b", 1..=5));
    edge.drained().await;
    edge.backlog.sync_cursors();
    cloud.restore(&backup);
    link.restart(&cloud);
    publish(&edge.backlog, numbered("c", 1..=5));
    edge.drained().await;
    assert_eq!(cloud.metrics.lost_records(), 5);
    let status = link.ingest().status(&gateway()).await.expect("reads");
    assert_eq!(status.lost_records, 5, "an operator can see it");
    assert_eq!(payloads(&cloud).await, joined(&[numbered("a", 1..=5), numbered("c", 1..=5)]));
}

#[tokio::test(start_paused = true)]
async fn a_cloud_restored_to_before_it_knew_the_edge_takes_it_in_again() {
    let cloud = Cloud::new(2);
    let backup = cloud.back_up();
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("a", 1..=5));
    edge.drained().await;
    cloud.restore(&backup);
    link.restart(&cloud);
    publish(&edge.backlog, numbered("b", 1..=5));
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, numbered("b", 1..=5));
    assert_eq!(all_logged(&cloud).await[0].incarnation, 2, "an incarnation is never used again");
}

#[tokio::test(start_paused = true)]
async fn a_captive_portals_200_is_no_answer() {
    let cloud = Cloud::new(1);
    let link = Link::to(&cloud);
    link.portal.store(true, Ordering::Relaxed);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("a", 1..=3));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = edge.uplink.status();
    assert!(!status.connected);
    let error = status.last_error.expect("it says why");
    assert!(error.contains("not a robustmq-cloud") && error.contains("Welcome"), "{error}");
    assert_eq!(edge.backlog.acknowledged(LANE), EdgeSeq(0));
    link.portal.store(false, Ordering::Relaxed);
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, numbered("a", 1..=3));
    let status = edge.uplink.status();
    assert!(status.connected && status.last_error.is_none(), "{status:?}");
}

/// An edge that sends by hand.
pub struct Hand {
    pub link: Arc<Link>,
    incarnation: Incarnation,
}

impl Hand {
    pub async fn connect(cloud: &Cloud) -> Self {
        let link = Link::to(cloud);
        let position = LanePosition {
            lane: LANE,
            next_seq: EdgeSeq(1),
            acknowledged_through: EdgeSeq(0),
            digest: ChainDigest(0),
        };
        let (presented, reason) = (NO_INCARNATION, OpenReason::NewStore);
        let intent = Intent::Open { presented, reason, judged: Vec::new() };
        let hello =
            Hello { session: SessionId(1), store: StoreId(1), intent, lanes: vec![position] };
        let answer = link.ingest().hello(&gateway(), &hello.encode()).await;
        let Outcome::Hello { incarnation, .. } = answer.outcome else { panic!("{answer:?}") };
        Self { link, incarnation }
    }

    pub fn frame(&self, from: u64, payload: &str, digests: (u64, u64)) -> Vec<u8> {
        let mut builder = BatchBuilder::new(EdgeSeq(from));
        assert!(builder.push_record(None, &body(&record(payload))));
        let identity = BatchIdentity {
            incarnation: self.incarnation,
            session: SessionId(1),
            lane: LANE,
            digest_before: ChainDigest(digests.0),
            digest_after: ChainDigest(digests.1),
            acknowledged_through: EdgeSeq(0),
        };
        builder.finish(&identity).expect("compresses").1
    }

    pub async fn send(&self, from: u64, payload: &str, digests: (u64, u64)) -> Answer {
        let frame = self.frame(from, payload, digests);
        self.link.ingest().batch(&gateway(), &Rights::all(), LANE, &frame).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_unexplained_gap_is_refused() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    let answer = edge.send(3, "a", (0, 1)).await;
    assert_eq!(answer.outcome, Outcome::Refused(Refusal::Gap { expected: EdgeSeq(1) }));
    assert_eq!(answer.http_status(), 409);
    assert!(matches!(edge.send(1, "a", (0, 1)).await.outcome, Outcome::Lane(_)));
    let answer = edge.send(3, "c", (2, 3)).await;
    assert_eq!(answer.outcome, Outcome::Refused(Refusal::Gap { expected: EdgeSeq(2) }));
    assert_eq!(payloads(&cloud).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_comes_before_its_predecessor_waits_for_it() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    let (second, first) = tokio::join!(edge.send(2, "b", (1, 2)), edge.send(1, "a", (0, 1)));
    for answer in [first, second] {
        assert!(matches!(answer.outcome, Outcome::Lane(_)), "{answer:?}");
    }
    assert_eq!(payloads(&cloud).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_number_of_another_history_is_refused() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    edge.send(1, "a", (0, 1)).await;
    let answer = edge.send(2, "b", (99, 100)).await;
    let Outcome::Refused(Refusal::DigestMismatch { state }) = answer.outcome else {
        panic!("{answer:?}")
    };
    assert_eq!((state.acknowledged_through, state.digest), (EdgeSeq(1), ChainDigest(1)));
    assert_eq!(payloads(&cloud).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn while_a_batch_is_open_only_the_same_range_of_the_same_history_is_taken() {
    let cloud = Cloud::new(1);
    let edge = Hand::connect(&cloud).await;
    cloud.store().hold();
    let begun = tokio::spawn({
        let link = edge.link.clone();
        async move { Hand { link, incarnation: edge.incarnation }.send(1, "a", (0, 1)).await }
    });
    eventually("the open batch waits", || cloud.store().queued() > 0).await;
    cloud.store().apply_held(1);
    eventually("the append waits", || cloud.store().queued() > 0).await;
    cloud.crash(1);
    assert!(matches!(begun.await.expect("answered").outcome, Outcome::Refused(_)));
    edge.link.restart(&cloud);
    assert_eq!(payloads(&cloud).await, ["a"], "half applied");

    let answer = edge.send(1, "b", (0, 2)).await;
    let Outcome::Refused(Refusal::DigestMismatch { state }) = answer.outcome else {
        panic!("{answer:?}")
    };
    let open = state.open.expect("the open batch");
    assert_eq!((open.through, open.digest), (EdgeSeq(1), ChainDigest(1)));
    let answer = edge.send(1, "a", (0, 1)).await;
    let Outcome::Lane(state) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!((state.acknowledged_through, state.open), (EdgeSeq(1), None));
    assert_eq!(payloads(&cloud).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_deleted_while_a_batch_is_open_makes_dead_letters() {
    let cloud = Cloud::new(3);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    publish(&edge.backlog, numbered("first", 1..=1));
    edge.drained().await;
    die_half_applied(&cloud, &link, &edge, 3).await;
    cloud.set_topic("plant.temp", |topic| topic.id = TopicId::random());
    edge.drained().await;
    {
        let dead = edge.dead.0.lock().expect("not poisoned");
        assert_eq!(dead.len(), 10);
        assert!(dead.iter().all(|letter| letter.reason == RejectReason::TopicDeleted));
    }
    publish(&edge.backlog, numbered("b", 1..=3));
    edge.drained().await;
    assert_eq!(payloads(&cloud).await, numbered("b", 1..=3), "to the new topic of that name");
}

/// Compaction is by key, so a record without one would stay for ever; its edge keeps it as a dead letter.
#[tokio::test(start_paused = true)]
async fn a_record_without_a_key_is_rejected_by_a_compacted_topic() {
    let cloud = Cloud::new(1);
    let edge = Gateway::start(store(1), &Link::to(&cloud), 1);
    publish(&edge.backlog, ["before".to_owned()]);
    edge.drained().await;
    cloud.set_topic("plant.temp", |topic| topic.compacted = true);
    publish(&edge.backlog, ["after".to_owned()]);
    edge.drained().await;
    {
        let dead = edge.dead.0.lock().expect("not poisoned");
        let reasons: Vec<RejectReason> = dead.iter().map(|letter| letter.reason).collect();
        assert_eq!(reasons, [RejectReason::NoKey]);
    }
    assert_eq!(payloads(&cloud).await, ["before"]);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_incarnation_is_refused() {
    let cloud = Cloud::new(1);
    let old = Hand::connect(&cloud).await;
    let new = Hand::connect(&cloud).await;
    assert!(new.incarnation > old.incarnation);
    old.link.restart(&cloud);
    let answer = old.send(1, "a", (0, 1)).await;
    let Outcome::Refused(Refusal::Fenced { current, .. }) = answer.outcome else {
        panic!("{answer:?}")
    };
    assert_eq!(current, new.incarnation);
    assert!(payloads(&cloud).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn records_carry_where_they_come_from_and_when_they_were_taken() {
    let cloud = Cloud::new(1);
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    let full = robustmq_common::sync::EdgeRecord {
        retain: true,
        qos: 2,
        content_type: Some("text/plain"),
        user_properties: vec![("unit", "C"), ("unit", "K")],
        ..record("21.5")
    };
    edge.backlog.append(LANE, body(&full));
    edge.backlog.sync();
    edge.drained().await;
    let logged = all_logged(&cloud).await;
    let headers: Vec<(&str, &str)> =
        logged[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("mqtt.topic", "plant/temp"),
        ("mqtt.qos", "2"),
        ("mqtt.retain", "1"),
        ("mqtt.content-type", "text/plain"),
        ("mqtt.user.unit", "C"),
        ("mqtt.user.unit", "K"),
        ("robustmq.edge", "gw"),
        ("robustmq.edge.seq", "1:0:1"),
        ("robustmq.time", "cloud"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(logged[0].timestamp_ms, 1_800_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn topics_beyond_an_edges_limit_go_to_the_overflow_topic() {
    let mut cloud = Cloud::new(1);
    cloud.settings.topics_per_edge = 2;
    let link = Link::to(&cloud);
    let edge = Gateway::start(store(1), &link, 1);
    for topic in ["t/1", "t/2", "t/3", "t/1", "t/4"] {
        let record = robustmq_common::sync::EdgeRecord { mqtt_topic: topic, ..record(topic) };
        edge.backlog.append(LANE, body(&record));
    }
    edge.backlog.sync();
    edge.drained().await;
    let logged = cloud.logged().await;
    let count = |topic: &str| logged.get(&(topic.to_owned(), 0)).map_or(0, Vec::len);
    assert_eq!(
        (count("t.1"), count("t.2"), count("robustmq.overflow"), count("t.3")),
        (2, 1, 2, 0)
    );
}
