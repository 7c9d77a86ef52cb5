use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::{PartitionIndex, TopicId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Commit, Coordinator, CoordinatorError, wall_ms};
use crate::group::machine::{Caller, GroupError, Join, Joined, Sync, Timing};
use crate::store::{MemoryStore, Store};

const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

fn coordinator(store: &Arc<dyn Store>) -> (Coordinator, CancellationToken) {
    let shutdown = CancellationToken::new();
    let timing = Timing { initial_delay: Duration::from_millis(10), ..Timing::default() };
    (Coordinator::start(store.clone(), timing, shutdown.clone()), shutdown)
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn join(member_id: &str) -> Join {
    Join {
        member_id: member_id.to_owned(),
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(60),
        fresh_member_id: "fresh".to_owned(),
        knows_member_id_required: false,
        knows_skip_assignment: true,
    }
}

fn caller(member_id: &str, generation: i32) -> Caller {
    Caller { member_id: member_id.to_owned(), instance_id: None, generation }
}

fn commit(partition: i32, offset: i64) -> Commit {
    Commit {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        offset,
        leader_epoch: 3,
        metadata: "note".to_owned(),
    }
}

async fn member_of(groups: &Coordinator) -> Joined {
    let joined = groups.join("g", join("")).await.expect("a free group");
    let sync = Sync {
        who: caller(&joined.member_id, joined.generation),
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"everything"))],
    };
    groups.sync("g", sync).await.expect("the leader's own assignment");
    joined
}

#[tokio::test(start_paused = true)]
async fn members_and_offsets_survive_a_restart() {
    let store = memory();
    let (groups, shutdown) = coordinator(&store);
    let joined = member_of(&groups).await;
    let who = caller(&joined.member_id, joined.generation);
    groups.commit("g", &who, &[commit(0, 5), commit(1, 6)]).await.expect("a member's commit");
    shutdown.cancel();
    groups.stopped().await;

    let (groups, _shutdown) = coordinator(&store);
    assert_eq!(groups.heartbeat("g", &who).await, Ok(()), "the member is still one");
    groups.commit("g", &who, &[commit(0, 8)]).await.expect("it commits on");
    let sync = Sync { who, protocol_type: None, protocol: None, assignments: Vec::new() };
    let synced = groups.sync("g", sync).await.expect("its assignment is kept");
    assert_eq!(synced.assignment, Bytes::from_static(b"everything"));
    let wanted = [0, 1, 2].map(|partition| (TOPIC, PartitionIndex(partition)));
    let found = groups.committed("g", &wanted).await.expect("readable offsets");
    let offsets: Vec<Option<i64>> =
        found.into_iter().map(|offset| offset.map(|offset| offset.offset)).collect();
    assert_eq!(offsets, [Some(8), Some(6), None]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_emptied_is_empty_after_a_restart() {
    let store = memory();
    let (groups, shutdown) = coordinator(&store);
    let joined = member_of(&groups).await;
    groups.leave("g", &joined.member_id, None).await.expect("a member may leave");
    shutdown.cancel();
    groups.stopped().await;
    let (groups, _shutdown) = coordinator(&store);
    let described = groups.describe("g").await.expect("readable").expect("it exists");
    assert_eq!(described.state, "Empty");
    assert!(described.snapshot.generation > joined.generation);
    groups.delete("g").await.expect("an empty group may go");
    assert_eq!(groups.describe("g").await, Ok(None));
    assert!(groups.list().await.expect("readable").is_empty());
}

#[tokio::test(start_paused = true)]
async fn silent_members_leave_without_anybody_asking() {
    let store = memory();
    let (groups, _shutdown) = coordinator(&store);
    member_of(&groups).await;
    assert_eq!(groups.delete("g").await, Err(GroupError::NonEmpty.into()));
    tokio::time::sleep(Duration::from_secs(11)).await;
    groups.delete("g").await.expect("its only member's session is over");
}

#[tokio::test(start_paused = true)]
async fn consumers_without_a_group_commit_and_are_listed() {
    let store = memory();
    let (groups, _shutdown) = coordinator(&store);
    groups.commit("simple", &caller("", -1), &[commit(0, 1)]).await.expect("no members");
    groups.commit("other", &caller("", -1), &[commit(0, 2)]).await.expect("no members");
    let listed = groups.list().await.expect("readable");
    let names: Vec<&str> = listed.iter().map(|listed| listed.group.as_str()).collect();
    assert_eq!(names, ["other", "simple"]);
    assert_eq!(listed[0].state, "Empty");
    let all = groups.all_committed("simple").await.expect("readable");
    assert_eq!(all.len(), 1);
    groups.delete_offsets("simple", &[(TOPIC, PartitionIndex(0))]).await.expect("no members");
    assert!(groups.all_committed("simple").await.expect("readable").is_empty());
}

#[tokio::test(start_paused = true)]
async fn group_ids_that_cannot_be_served_are_refused() {
    let store = memory();
    let (groups, _shutdown) = coordinator(&store);
    for id in ["", &"x".repeat(2000)] {
        let refused = groups.heartbeat(id, &caller("m", 1)).await;
        assert!(matches!(refused, Err(CoordinatorError::InvalidGroupId { .. })), "{id}");
    }
    assert_eq!(
        groups.heartbeat("unknown", &caller("m", 1)).await,
        Err(GroupError::UnknownMember.into())
    );
    let gone = groups.delete("unknown").await;
    assert!(matches!(gone, Err(CoordinatorError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn offsets_expire_with_their_topic_or_with_a_group_long_empty() {
    let store = memory();
    let (groups, _shutdown) = coordinator(&store);
    groups.commit("g", &caller("", -1), &[commit(0, 1), commit(1, 2)]).await.expect("committed");
    let day = Duration::from_secs(24 * 3600);
    let (there, gone) = (|_| std::future::ready(true), |_| std::future::ready(false));
    let now_ms = wall_ms();
    let later_ms = now_ms + 2 * 24 * 3600 * 1000;
    assert_eq!(groups.expire(day, now_ms, there).await, Ok(0), "nothing is old");
    assert_eq!(groups.expire(day, now_ms, gone).await, Ok(2), "the topic is gone");
    assert!(groups.all_committed("g").await.expect("readable").is_empty());
    groups.commit("g", &caller("", -1), &[commit(0, 1), commit(1, 2)]).await.expect("committed");
    let asked = std::cell::Cell::new(0);
    let count = |_| {
        asked.set(asked.get() + 1);
        std::future::ready(true)
    };
    assert_eq!(groups.expire(day, later_ms, count).await, Ok(2), "old offsets expire");
    assert_eq!(asked.get(), 1, "a topic is asked for once");
    assert_eq!(groups.describe("g").await, Ok(None), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn what_members_take_of_memory_is_given_back_when_they_are_gone() {
    let store = memory();
    let (groups, _shutdown) = coordinator(&store);
    let taken = || groups.shared.bytes.load(std::sync::atomic::Ordering::Relaxed);
    let joined = member_of(&groups).await;
    assert!(taken() >= "topics".len() + "everything".len());
    groups.leave("g", &joined.member_id, None).await.expect("a member may leave");
    // The group is dropped when what it wrote is durable.
    while taken() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
