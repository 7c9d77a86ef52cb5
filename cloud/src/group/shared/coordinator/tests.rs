use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Client, ConnectionId, SharedGroups};
use crate::group::coordinator::CoordinatorError;
use crate::group::machine::{Caller, GroupError, Join, Joined, Sync, Timing};
use crate::group::shared::cursor::{CursorOffset, Token};
use crate::group::shared::deliver::Delivery;
use crate::log::{AppendContext, Log};
use crate::store::keys::partition::PartitionKeys;
use crate::store::{MemoryStore, Store};

mod cursors;
mod model;

const GROUP: &str = "$shared/g";
const KEYS: PartitionKeys =
    PartitionKeys { topic: TopicId(Uuid::from_u128(7)), partition: PartitionIndex(0) };
const SECOND: Duration = Duration::from_secs(1);

/// Shared groups whose sessions end, over a partition of ten records.
async fn groups() -> (SharedGroups, CancellationToken) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (groups, shutdown) = start(store).await;
    append(&groups, records(10)).await;
    (groups, shutdown)
}

/// Shared groups whose sessions end, over a partition as it is.
async fn start(store: Arc<dyn Store>) -> (SharedGroups, CancellationToken) {
    let log = Arc::new(Log::new(store));
    let partition = log.partition(KEYS.topic, KEYS.partition).await.expect("a partition");
    partition.ready().await.expect("a store that works");
    let groups = SharedGroups::new(log, Timing::default(), None);
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let (groups, shutdown) = (groups.clone(), shutdown.clone());
        async move { groups.run(shutdown).await }
    });
    (groups, shutdown)
}

async fn append(groups: &SharedGroups, batch: RecordBatch) {
    let log = groups.pools().log();
    let partition = log.partition(KEYS.topic, KEYS.partition).await.expect("a partition");
    let appended = partition.append(batch, &AppendContext::at(0)).expect("a good batch");
    appended.durable().await.expect("it is durable");
}

fn records(count: i64) -> RecordBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        batch.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("small");
    }
    batch.build().expect("a batch")
}

/// A member as its client sees it.
struct Member {
    caller: Caller,
    connection: ConnectionId,
    position: i64,
}

fn join_request(instance_id: Option<&str>) -> Join {
    Join {
        member_id: String::new(),
        instance_id: instance_id.map(str::to_owned),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        session_timeout: SECOND * 10,
        rebalance_timeout: SECOND * 60,
        fresh_member_id: Uuid::new_v4().to_string(),
        knows_member_id_required: true,
        knows_skip_assignment: true,
    }
}

fn caller(joined: &Joined, instance_id: Option<&str>) -> Caller {
    Caller {
        member_id: joined.member_id.clone(),
        instance_id: instance_id.map(str::to_owned),
        generation: joined.generation,
    }
}

fn sync_request(who: &Caller) -> Sync {
    Sync { who: who.clone(), protocol_type: None, protocol: None, assignments: Vec::new() }
}

fn client(connection: u64) -> Client {
    Client {
        connection: ConnectionId(connection),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        member: None,
    }
}

/// A cursor for whoever asks on a connection; `None` if that is somebody who only looks.
async fn asked(groups: &SharedGroups, connection: u64) -> Result<Option<i64>, CoordinatorError> {
    let partitions = [(KEYS.topic, KEYS.partition)];
    let cursors = groups.cursors(GROUP, &client(connection), &partitions, 0).await;
    Ok(cursors?.map(|cursors| cursors[0].encode()))
}

async fn cursor(groups: &SharedGroups, connection: u64) -> Option<i64> {
    asked(groups, connection).await.expect("a store that works")
}

async fn join(groups: &SharedGroups, connection: u64, instance_id: Option<&str>) -> Member {
    let request = join_request(instance_id);
    let joined = groups.join(GROUP, &request, ConnectionId(connection)).await.expect("it joins");
    let caller = caller(&joined, instance_id);
    let synced = groups.sync(GROUP, sync_request(&caller), None, ConnectionId(connection));
    synced.expect("a member");
    let position = cursor(groups, connection).await.expect("a member");
    Member { caller, connection: ConnectionId(connection), position }
}

impl Member {
    /// What comes at its position, if anything does within a moment.
    async fn take(&self, groups: &SharedGroups, max_bytes: usize) -> Option<Delivery> {
        let at = CursorOffset::decode(self.position).expect("a cursor");
        let partition =
            groups.pools().log().partition(KEYS.topic, KEYS.partition).await.expect("a partition");
        let claim = groups.pools().claim(at, partition);
        let take = async {
            let turn = groups.pools().turn(&claim, true).await.expect("a log that can be read");
            turn.take(groups.pools(), &claim, max_bytes).await.expect("a log that can be read")
        };
        tokio::time::timeout(Duration::from_millis(10), take).await.ok().flatten()
    }

    /// How many records come.
    async fn fetch(&mut self, groups: &SharedGroups) -> u64 {
        let records = self.take(groups, 1 << 20).await.map_or(0, |delivery| delivery.records);
        self.position += i64::try_from(records).expect("few");
        records
    }

    fn heartbeat(&self, groups: &SharedGroups) -> Result<(), CoordinatorError> {
        groups.heartbeat(GROUP, &self.caller, self.connection)
    }

    async fn commit(&self, groups: &SharedGroups) {
        let token = groups.may_commit(GROUP, &self.caller, self.connection);
        let token = token.expect("a member").expect("no admin");
        groups.commit(token, &KEYS, self.position).await.expect("it was delivered");
    }
}

fn refused(error: GroupError) -> Result<(), CoordinatorError> {
    Err(error.into())
}

#[tokio::test(start_paused = true)]
async fn what_a_member_holds_that_lost_its_connection_goes_to_others_after_3_s() {
    let (groups, _shutdown) = groups().await;
    let mut first = join(&groups, 1, None).await;
    assert_eq!(first.fetch(&groups).await, 10);
    let mut second = join(&groups, 2, None).await;
    groups.connection_closed(ConnectionId(1));
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(second.fetch(&groups).await, 0);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(second.fetch(&groups).await, 10);
    let in_flight = || groups.pools().busiest(1)[0].1.in_flight;
    assert_eq!(in_flight(), 10, "once, though the first one's session lasts");
    // It comes back on another connection: what it did counts, and it may be given more.
    first.connection = ConnectionId(3);
    assert_eq!(first.heartbeat(&groups), Ok(()));
    first.commit(&groups).await;
    assert_eq!((groups.pools().standings(GROUP)[0].start, in_flight()), (10, 0));
    groups.leave(GROUP, &second.caller.member_id, None).expect("a member");
    assert_eq!(first.fetch(&groups).await, 0, "all is acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_back_before_that_keeps_what_it_holds() {
    let (groups, _shutdown) = groups().await;
    let mut first = join(&groups, 1, None).await;
    assert_eq!(first.fetch(&groups).await, 10);
    let mut second = join(&groups, 2, None).await;
    groups.connection_closed(ConnectionId(1));
    tokio::time::sleep(SECOND * 2).await;
    first.connection = ConnectionId(3);
    assert_eq!(first.heartbeat(&groups), Ok(()));
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(second.fetch(&groups).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_says_nothing_is_out_after_its_session() {
    let (groups, _shutdown) = groups().await;
    let mut silent = join(&groups, 1, None).await;
    assert_eq!(silent.fetch(&groups).await, 10);
    let mut other = join(&groups, 2, None).await;
    for _ in 0..4 {
        tokio::time::sleep(SECOND * 4).await;
        assert_eq!(other.heartbeat(&groups), Ok(()));
    }
    assert_eq!(silent.heartbeat(&groups), refused(GroupError::UnknownMember));
    assert_eq!(other.fetch(&groups).await, 10);
    let (members, _) = groups.standings(GROUP);
    assert_eq!(members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_static_member_that_joins_anew_takes_over_from_itself() {
    let (groups, _shutdown) = groups().await;
    let mut before = join(&groups, 1, Some("rack-7")).await;
    assert_eq!(before.fetch(&groups).await, 10);
    let mut after = join(&groups, 2, Some("rack-7")).await;
    assert_eq!(after.fetch(&groups).await, 10, "what it held is delivered again");
    assert_eq!(before.heartbeat(&groups), refused(GroupError::FencedInstance));
    assert_eq!(groups.leave(GROUP, "", Some("rack-7")), Ok(()));
    assert!(!groups.is_active(GROUP));
}

#[tokio::test(start_paused = true)]
async fn what_a_member_no_longer_wants_goes_to_others() {
    let (groups, _shutdown) = groups().await;
    let mut first = join(&groups, 1, None).await;
    assert_eq!(first.fetch(&groups).await, 10);
    let mut second = join(&groups, 2, None).await;
    let nothing = super::Assignment::new();
    let synced = groups.sync(GROUP, sync_request(&first.caller), Some(&nothing), first.connection);
    synced.expect("a member");
    assert_eq!(second.fetch(&groups).await, 10);
    assert_eq!(first.heartbeat(&groups), Ok(()), "it is a member still");
}

#[tokio::test(start_paused = true)]
async fn everything_is_given_back_when_all_are_gone() {
    let (groups, _shutdown) = groups().await;
    for connection in 0..20 {
        let mut member = join(&groups, connection, None).await;
        member.fetch(&groups).await;
        if connection % 2 == 0 {
            groups.leave(GROUP, &member.caller.member_id, None).expect("a member");
        }
        groups.connection_closed(ConnectionId(connection));
    }
    tokio::time::sleep(SECOND * 60).await;
    assert!(groups.pools().is_empty());
    let state = groups.state();
    assert!(state.groups.is_empty() && state.bound.is_empty() && state.timers.is_empty());
    assert!(state.put_out.is_empty());
    assert_eq!(state.bytes, 0);
}

/// Names of all kinds were free: 20,000 joins with long ones took 3.5 GB.
#[tokio::test(start_paused = true)]
async fn a_member_is_charged_for_its_names_and_for_its_partitions() {
    let (groups, _shutdown) = groups().await;
    let long = "x".repeat(10_000);
    let charged = || groups.state().bytes;
    let request = Join { client_id: long.clone(), ..join_request(Some(&long)) };
    let joined = groups.join(GROUP, &request, ConnectionId(1)).await.expect("it joins");
    assert!(charged() > 30_000, "{}", charged());
    let who = caller(&joined, Some(&long));
    groups.sync(GROUP, sync_request(&who), None, ConnectionId(1)).expect("a member");
    let before = charged();
    cursor(&groups, 1).await.expect("a member");
    assert!(charged() > before);
    // With another instance id nothing is left of the first one.
    let again = Join {
        member_id: joined.member_id.clone(),
        client_id: String::new(),
        instance_id: Some("short".to_owned()),
        ..request
    };
    groups.join(GROUP, &again, ConnectionId(1)).await.expect("it joins again");
    assert!(charged() < 10_000, "{}", charged());
    assert_eq!(groups.leave(GROUP, "", Some(&long)), refused(GroupError::UnknownMember));
    assert_eq!(groups.leave(GROUP, "", Some("short")), Ok(()));
    assert_eq!(charged(), 0);
}

/// There are a million tokens. The million-and-first member had the token of the first, member or not: two worked on one cursor.
#[tokio::test(start_paused = true)]
async fn a_token_is_not_given_to_another_while_its_member_is_there() {
    let (groups, _shutdown) = groups().await;
    let member = join(&groups, 1, None).await;
    let own = CursorOffset::decode(member.position).expect("a cursor").token;
    let pools = groups.pools();
    for _ in 0..Token::COUNT {
        let token = pools.new_token().await.expect("a store").expect("there is one");
        assert_ne!(token, own);
        pools.end(token, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_joins_again_keeps_its_cursor() {
    let (groups, _shutdown) = groups().await;
    let mut member = join(&groups, 1, None).await;
    assert_eq!(member.fetch(&groups).await, 10);
    member.commit(&groups).await;
    let again = Join { member_id: member.caller.member_id.clone(), ..join_request(None) };
    let joined = groups.join(GROUP, &again, ConnectionId(1)).await.expect("it joins again");
    let who = caller(&joined, None);
    groups.sync(GROUP, sync_request(&who), None, ConnectionId(1)).expect("a member");
    assert_eq!(cursor(&groups, 1).await, Some(member.position));
}

/// Whoever joined before the move was durable began where the group had been, and stored that with the next commit: the move was answered, and lost.
#[tokio::test(start_paused = true)]
async fn whoever_joins_while_a_group_is_moved_begins_where_it_is_moved_to() {
    let store = Arc::new(MemoryStore::new());
    let (groups, _shutdown) = start(store.clone()).await;
    append(&groups, records(10)).await;
    let mut first = join(&groups, 1, None).await;
    assert_eq!(first.fetch(&groups).await, 10);
    first.commit(&groups).await;
    assert_eq!(groups.leave(GROUP, &first.caller.member_id, None), Ok(()));
    store.hold();
    let moving = groups.clone();
    let moved = tokio::spawn(async move { moving.reset(GROUP, &[(KEYS, 4)]).await });
    while store.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let joining = groups.clone();
    let joined = tokio::spawn(async move { join(&joining, 2, None).await });
    tokio::time::sleep(SECOND).await;
    store.release();
    assert_eq!(moved.await.expect("no panic"), Ok(()));
    assert_eq!(joined.await.expect("no panic").fetch(&groups).await, 6);
}

/// Counters that fell whenever the last member of a partition left would be taken for a restart of the broker.
#[tokio::test(start_paused = true)]
async fn what_a_group_did_is_told_also_when_nobody_is_left() {
    let (groups, _shutdown) = groups().await;
    let mut first = join(&groups, 1, None).await;
    assert_eq!(first.fetch(&groups).await, 10);
    let busiest = || {
        let groups = groups.pools().busiest(10);
        groups.first().map(|(name, group)| (name.clone(), group.clone())).expect("one")
    };
    let (name, standing) = busiest();
    assert_eq!((name.as_str(), standing.in_flight, standing.partitions), (GROUP, 10, 1));
    assert_eq!((standing.ledger.delivered, standing.ledger.redelivered), (10, 0));
    assert_eq!(groups.leave(GROUP, &first.caller.member_id, None), Ok(()));
    tokio::time::sleep(SECOND).await;
    let (_, standing) = busiest();
    assert_eq!((standing.in_flight, standing.partitions, standing.ledger.delivered), (0, 0, 10));
    let mut second = join(&groups, 2, None).await;
    assert_eq!(second.fetch(&groups).await, 10);
    let (_, standing) = busiest();
    assert_eq!((standing.ledger.delivered, standing.ledger.redelivered), (10, 10));
    assert!(groups.pools().busiest(0).is_empty());
}
