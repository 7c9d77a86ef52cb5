//! Who is told a cursor by OffsetFetch, who a real offset, and who to ask again.

use super::*;
use crate::group::shared::coordinator::{ConsumerBeat, ConsumerTold};
use crate::group::shared::cursor::FIRST;
use crate::group::shared::pools::wall_ms;

const OBSERVER: u64 = 99;

fn unclear() -> Result<Option<i64>, CoordinatorError> {
    Err(CoordinatorError::Unclear { group: GROUP.to_owned() })
}

/// A member that has an assignment and has not asked for its cursor.
async fn begin(groups: &SharedGroups, connection: u64) -> Member {
    let connection = ConnectionId(connection);
    let joined = groups.join(GROUP, &join_request(None), connection).await.expect("it joins");
    let caller = caller(&joined, None);
    groups.sync(GROUP, sync_request(&caller), None, connection).expect("a member");
    Member { caller, connection, position: -1 }
}

/// Shared groups that have been there for a while, in which the group has begun.
async fn settled() -> SharedGroups {
    let (groups, _shutdown) = groups().await;
    let member = join(&groups, 1000, None).await;
    groups.leave_by(GROUP, &member.caller.member_id, None, member.connection).expect("a member");
    tokio::time::sleep(SECOND * 20).await;
    groups
}

/// The broker was killed between SyncGroup and the answer to OffsetFetch. librdkafka asked again on its new connection, was taken for somebody
/// who only looks, and read on from the real offset, where others had acknowledged what follows, until its heartbeat told it to join.
#[tokio::test(start_paused = true)]
async fn whoever_was_a_member_before_a_start_is_told_no_real_offset() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (before, _shutdown) = start(store.clone()).await;
    append(&before, records(10)).await;
    let mut member = join(&before, 1, None).await;
    assert_eq!(member.fetch(&before).await, 10);
    let late = begin(&before, 2).await;
    // By the wall clock, to which a group's beginning is noted.
    while crate::group::shared::pools::wall_ms()
        <= before.pools().begun_ms(GROUP).await.expect("a store").expect("it has begun")
    {
        tokio::task::yield_now().await;
    }
    let (groups, _shutdown) = start(store).await;
    assert_eq!(asked(&groups, 2).await, unclear(), "it retries before it sends a heartbeat");
    assert_eq!(late.heartbeat(&groups), refused(GroupError::UnknownMember));
    assert_eq!(asked(&groups, 2).await, unclear());
    // Also while another one of its name awaits its own.
    let other = begin(&groups, 3).await;
    assert_eq!(asked(&groups, 2).await, unclear());
    let first = CursorOffset::decode(cursor(&groups, 3).await.expect("a member"));
    assert_eq!(first.expect("a cursor").sequence, FIRST);
    assert_eq!(other.heartbeat(&groups), Ok(()));
    let late = join(&groups, 2, None).await;
    assert!(CursorOffset::decode(late.position).is_some());
    tokio::time::sleep(SECOND * 20).await;
    assert_eq!(asked(&groups, OBSERVER).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_has_begun_since_the_start_is_shown_at_once() {
    let (groups, _shutdown) = groups().await;
    assert_eq!(asked(&groups, OBSERVER).await, unclear(), "it may have been joined before");
    let of_now = |created_ms| {
        let partitions = [(KEYS.topic, KEYS.partition)];
        let groups = groups.clone();
        async move { groups.cursors(GROUP, &client(OBSERVER), &partitions, created_ms).await }
    };
    assert_eq!(of_now(wall_ms()).await, Ok(None), "nobody was assigned what was not there");
    let mut member = join(&groups, 1, None).await;
    assert_eq!(member.fetch(&groups).await, 10);
    assert_eq!(asked(&groups, OBSERVER).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_put_out_is_told_no_real_offset_on_its_connection() {
    let groups = settled().await;
    let silent = begin(&groups, 1).await;
    tokio::time::sleep(SECOND * 11).await;
    assert_eq!(asked(&groups, 1).await, unclear(), "its session is over");
    assert_eq!(asked(&groups, OBSERVER).await, Ok(None));
    assert_eq!(silent.heartbeat(&groups), refused(GroupError::UnknownMember));
    assert_eq!(asked(&groups, 1).await, unclear());
    let member = join(&groups, 1, None).await;
    assert_eq!(asked(&groups, 1).await, Ok(Some(member.position)));
    // It knows that it is none, and may look like anybody.
    groups.leave_by(GROUP, &member.caller.member_id, None, member.connection).expect("a member");
    assert_eq!(asked(&groups, 1).await, Ok(None));
    // An admin puts one out, or a rewind does.
    let removed = begin(&groups, 2).await;
    let left = groups.leave_by(GROUP, &removed.caller.member_id, None, ConnectionId(OBSERVER));
    left.expect("a member");
    assert_eq!(asked(&groups, 2).await, unclear());
    groups.connection_closed(ConnectionId(2));
    assert!(groups.state().put_out.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_offset_fetch_on_another_connection_gets_the_cursor_that_is_awaited() {
    let groups = settled().await;
    assert_eq!(asked(&groups, 9).await, Ok(None));
    let connection = ConnectionId(1);
    let joined = groups.join(GROUP, &join_request(None), connection).await.expect("it joins");
    assert_eq!(asked(&groups, 9).await, Ok(None), "it has no assignment yet");
    let who = caller(&joined, None);
    groups.sync(GROUP, sync_request(&who), None, connection).expect("a member");
    let first = cursor(&groups, 9).await.expect("its client speaks on two connections");
    assert_eq!(asked(&groups, 1).await, Ok(Some(first)), "the member itself, at any time");
    let mut member = Member { caller: who, connection, position: first };
    assert_eq!(member.fetch(&groups).await, 10);
    assert_eq!(asked(&groups, 9).await, Ok(None), "an admin tool with the same name");
}

/// Its connection ended before the answer came, and its session went on: it read beside the group for as long as it lived.
#[tokio::test(start_paused = true)]
async fn a_member_whose_answer_was_lost_gets_its_cursor_on_another_connection() {
    let groups = settled().await;
    let mut member = begin(&groups, 1).await;
    let told = cursor(&groups, 1).await.expect("a member");
    groups.connection_closed(ConnectionId(1));
    assert_eq!(asked(&groups, 2).await, unclear());
    member.connection = ConnectionId(2);
    assert_eq!(member.heartbeat(&groups), Ok(()));
    assert_eq!(asked(&groups, 2).await, Ok(Some(told)));
    member.position = told;
    assert_eq!(member.fetch(&groups).await, 10);
    // It joins again, and the same happens.
    let again = Join { member_id: member.caller.member_id.clone(), ..join_request(None) };
    let joined = groups.join(GROUP, &again, ConnectionId(2)).await.expect("it joins again");
    let who = caller(&joined, None);
    groups.sync(GROUP, sync_request(&who), None, ConnectionId(2)).expect("a member");
    assert_eq!(asked(&groups, 2).await, Ok(Some(told)));
    groups.connection_closed(ConnectionId(2));
    assert_eq!(asked(&groups, 3).await, unclear());
}

/// librdkafka says in no OffsetFetch for whom it asks, whichever protocol it speaks.
#[tokio::test(start_paused = true)]
async fn a_member_that_is_assigned_its_partitions_awaits_its_cursor_too() {
    let groups = settled().await;
    let beat = ConsumerBeat {
        names: Some(["t".to_owned()].into()),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        fresh_member_id: "new".to_owned(),
        ..ConsumerBeat::default()
    };
    let assigned = async |_| Ok::<_, CoordinatorError>([(KEYS.topic, 1)].into());
    let told = groups.consumer_heartbeat(GROUP, beat.clone(), ConnectionId(1), assigned).await;
    let ConsumerTold { member_id, epoch, .. } = told.expect("it joins");
    groups.connection_closed(ConnectionId(1));
    let first = cursor(&groups, 2).await.expect("it asks on its next connection");
    groups.connection_closed(ConnectionId(2));
    assert_eq!(asked(&groups, 3).await, unclear(), "the answer may have been lost");
    let beat = ConsumerBeat { member_id, epoch, names: None, ..beat };
    let told = groups.consumer_heartbeat(GROUP, beat, ConnectionId(3), assigned).await;
    assert_eq!(told.expect("a member").epoch, epoch);
    assert_eq!(asked(&groups, 3).await, Ok(Some(first)));
}

/// Two clients of one name joined at a time, and each was told the cursor of the other: all that they committed was refused.
#[tokio::test(start_paused = true)]
async fn of_two_that_await_a_cursor_none_is_told_that_of_the_other() {
    let groups = settled().await;
    let members = [begin(&groups, 1).await, begin(&groups, 2).await];
    for connection in [11, 12] {
        assert_eq!(asked(&groups, connection).await, unclear());
    }
    for (member, connection) in members.into_iter().zip([11, 12]) {
        let mut member = Member { connection: ConnectionId(connection), ..member };
        assert_eq!(member.heartbeat(&groups), Ok(()));
        member.position = cursor(&groups, connection).await.expect("a member");
        append(&groups, records(1)).await;
        assert!(member.fetch(&groups).await > 0);
        member.commit(&groups).await;
    }
}
