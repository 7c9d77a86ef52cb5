//! What clients get wrong, and what happens under them: forged cursors, restarts, deleted records and topics, batches that cannot be read.

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteTopicsRequest};
use robustmq_common::ids::{KafkaTopic, PartitionIndex};

use super::*;
use crate::group::shared::cursor::{Sequence, Token};

#[tokio::test]
async fn cursors_that_are_not_known_are_answered_with_nothing_and_their_members_join_anew() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let forged = CursorOffset { token: Token::of(77), sequence: FIRST }.encode();
    let data = member.fetch_at(forged, 20).await;
    assert_eq!((data.error_code, data.high_watermark), (0, forged));
    assert!(data.records.unwrap_or_default().is_empty());
    assert_eq!(member.heartbeat().await, 0, "somebody else's cursor");
    let sequence = Sequence(FIRST.0 + 1);
    let never = CursorOffset { sequence, ..member.cursor() }.encode();
    let data = member.fetch_at(never, 20).await;
    assert_eq!((data.error_code, data.high_watermark), (0, never));
    assert_eq!(member.heartbeat().await, code(ResponseError::UnknownMemberId));
    let mut other = Member::join(&broker).await;
    assert_eq!(other.fetch().await, numbers(0..8));
}

#[tokio::test]
async fn commits_that_make_no_sense_are_refused_and_change_nothing() {
    let (broker, mut client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let mut other = Member::join(&broker).await;
    let start = member.position;
    assert_eq!(member.fetch().await, numbers(0..8));
    let not_own = code(ResponseError::InvalidRequest);
    assert_eq!(member.commit(8).await, not_own, "a real offset");
    let theirs = other.position;
    assert_eq!(member.commit(theirs).await, not_own);
    let beyond = code(ResponseError::OffsetOutOfRange);
    assert_eq!(member.commit(start + 9).await, beyond);
    let (id, generation) = (member.id.clone(), member.generation);
    let illegal = code(ResponseError::IllegalGeneration);
    assert_eq!(commit(&mut client, &id, generation + 1, start + 8).await, illegal);
    let unknown = code(ResponseError::UnknownMemberId);
    assert_eq!(commit(&mut client, "nobody", 1, start + 8).await, unknown);
    assert_eq!(commit(&mut client, "", -1, 8).await, unknown, "an admin, while it has members");
    member.leave().await;
    assert_eq!(commit(&mut client, &id, generation, start + 8).await, unknown);
    assert_eq!(other.fetch().await, numbers(0..8));
    assert_eq!(committed(&mut client).await, 0);
}

#[tokio::test]
async fn after_a_restart_progress_is_there_and_leases_are_not() {
    let (broker, _client) = broker_with(12).await;
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..12));
    let position = member.position;
    assert_eq!(member.commit(position - 5).await, 0);
    let again = broker.start_again().await;
    let mut stale = Member {
        coordinator: again.client().await,
        fetcher: again.client().await,
        id: member.id.clone(),
        generation: member.generation,
        position,
    };
    assert!(stale.fetch().await.is_empty(), "a cursor of before");
    // librdkafka asks again for the cursor, if the answer did not come, before it sends a heartbeat.
    let asked_again = offset_fetch(&mut stale.coordinator).await;
    assert_eq!(asked_again.error_code, code(ResponseError::CoordinatorLoadInProgress));
    assert_eq!(stale.heartbeat().await, code(ResponseError::UnknownMemberId));
    assert_eq!(stale.commit(position).await, code(ResponseError::UnknownMemberId));
    let mut fresh = Member::join(&again).await;
    assert_ne!(fresh.cursor().token, member.cursor().token, "tokens are not given twice");
    assert_eq!(fresh.fetch().await, numbers(7..12));
}

#[tokio::test]
async fn ids_without_a_name_are_refused() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text("$shared/")))
        .with_session_timeout_ms(10_000);
    let refused = client.call(9, &request).await;
    assert_eq!(refused.error_code, code(ResponseError::InvalidGroupId));
}

/// After a restart, clients that had lost their member id committed where they believed to be, and were taken for an admin: the group was
/// moved to the position on a cursor, 4.5 quadrillion records ahead, and was given nothing any more.
#[tokio::test]
async fn a_position_on_a_cursor_moves_no_group_and_what_is_not_there_yet_is_the_end() {
    let (broker, mut client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    member.fetch().await;
    let position = member.position;
    assert_eq!(member.commit(position - 3).await, 0);
    member.leave().await;
    let refused = commit(&mut client, "", -1, position).await;
    assert_eq!(refused, ResponseError::UnknownMemberId.code());
    assert_eq!(committed(&mut client).await, 5);
    assert_eq!(commit(&mut client, "", -1, 1_000_000).await, 0);
    assert_eq!(committed(&mut client).await, 8);
    fill(&mut client, 8, 12).await;
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(8..12));
}

/// Retention, or DeleteRecords, had passed the beginning of what a member held. It fetched there again (after a seek, or a pause) and was given
/// new records in the place of those that were left: its next commit acknowledged what it never got.
#[tokio::test]
async fn what_is_left_of_a_delivery_is_given_again_where_its_beginning_was_deleted() {
    let (broker, mut client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let start = member.position;
    assert_eq!(member.fetch().await, numbers(0..8));
    fill(&mut client, 8, 12).await;
    let named = KafkaTopic::new("t").expect("a legal name");
    let topic = broker.kafka.topics.get(&named).await.expect("a store").expect("it is there").id;
    let partition =
        broker.kafka.log.partition(topic, PartitionIndex(0)).await.expect("it is there");
    // Within the second batch.
    partition.delete_records(Some(Offset(5))).await.expect("a store that works");
    let data = member.fetch_at(start, 30_000).await;
    member.position = start;
    let found = member.take(data);
    assert!(found.ends_with(&numbers(5..8)), "{found:?}");
    assert_eq!(member.position, start + 8);
    assert_eq!(member.commit(start + 4).await, 0);
    // Behind all of them.
    partition.delete_records(Some(Offset(8))).await.expect("a store that works");
    let data = member.fetch_at(start, 30_000).await;
    let found = member.take(data);
    assert_eq!(found[..2], numbers(8..10), "nothing is left, so something new");
    let position = member.position;
    assert_eq!(member.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 8 + i64::try_from(found.len()).expect("few"));
}

/// Members of the topic that was deleted went on with their cursors, were given nothing, and were told that all is well.
#[tokio::test]
async fn a_member_joins_anew_when_its_topic_was_created_again() {
    let (broker, mut client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..8));
    let deleted = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_name(Some(name("t")))]);
    assert_eq!(client.call(6, &deleted).await.responses[0].error_code, 0);
    create(&mut client, "t").await;
    fill(&mut client, 20, 24).await;
    assert_eq!(member.heartbeat().await, 0, "nothing is known of it yet");
    assert!(member.fetch().await.is_empty());
    assert_eq!(member.heartbeat().await, code(ResponseError::UnknownMemberId));
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(20..24));
    assert_eq!(member.heartbeat().await, 0);
}

/// Produce does not decompress. A group stopped for good at one that holds no records.
#[tokio::test]
async fn a_batch_that_cannot_be_read_stops_no_group() {
    let (broker, mut client) = broker_with(4).await;
    configure(&mut client, "robustmq.shared.strategy", "round-robin").await;
    configure(&mut client, "robustmq.shared.delivery.limit", "2").await;
    let mut junk = batch(&["4", "5", "6"]).to_vec();
    junk[61..].fill(0xff);
    // As if it were compressed (zstd), which Produce leaves to consumers to undo.
    junk[22] = 4;
    let checksum = crc32c::crc32c(&junk[21..]);
    junk[17..21].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(produce(&mut client, "t", Bytes::from(junk)).await.error_code, 0);
    fill(&mut client, 7, 9).await;
    let mut member = Member::join(&broker).await;
    for number in 0..4 {
        assert_eq!(member.fetch().await, [number.to_string()]);
        let position = member.position;
        assert_eq!(member.commit(position).await, 0);
    }
    for _ in 0..2 {
        let position = member.position;
        let data = member.fetch_at(position, 30_000).await;
        let batches = batches(data.records.expect("the whole batch"));
        assert_eq!(batches[0].next_offset(), Offset(position + 3));
        assert_eq!(batches.len(), 1);
        member.leave().await;
        member = Member::join(&broker).await;
    }
    let position = member.position;
    let data = member.fetch_at(position, 30_000).await;
    assert_eq!(member.take(data), ["7"]);
    assert_eq!(committed(&mut client).await, 7);
}

/// Whoever joined before the deletion was durable began where the group had been, and nothing of it was deleted.
#[tokio::test]
async fn whoever_joins_while_a_group_is_deleted_begins_anew() {
    let (broker, mut client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..8));
    let position = member.position;
    assert_eq!(member.commit(position).await, 0);
    member.leave().await;
    broker.store.hold();
    let deleted = tokio::spawn(async move {
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
        client.call(2, &delete).await.results[0].error_code
    });
    while broker.store.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let pools = broker.kafka.shared.pools();
    let released = async {
        let has_begun = async {
            while pools.standings(GROUP).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        // It waits for the store, and so does this.
        let waited = tokio::time::timeout(Duration::from_millis(300), has_begun).await;
        broker.store.release();
        waited.is_err()
    };
    let (mut member, has_waited) = tokio::join!(Member::join(&broker), released);
    assert!(has_waited);
    assert_eq!(deleted.await.expect("no panic"), 0);
    assert_eq!(member.fetch().await, numbers(0..8));
}
