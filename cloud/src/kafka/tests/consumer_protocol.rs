//! The consumer group protocol (KIP-848) over the wire: for `$shared/` groups.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    FetchRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
};
use robustmq_common::record::stored_records;

use super::records::{create, fetch_request, name, produce};
use super::*;
use crate::group::shared::cursor::CursorOffset;

const GROUP: &str = "$shared/new";

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn beat(id: &'static str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(id))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(60_000)
}

/// Joins; returns its epoch and how many partitions of how many topics it has.
async fn join(client: &mut Client, id: &'static str, topics: &[&'static str]) -> (i32, Vec<usize>) {
    let topics = topics.iter().map(|topic| name(topic)).collect();
    let told = client.call(1, &beat(id, 0).with_subscribed_topic_names(Some(topics))).await;
    (told.member_epoch, partitions(&told))
}

fn partitions(told: &ConsumerGroupHeartbeatResponse) -> Vec<usize> {
    assert_eq!(told.error_code, 0, "{:?}", told.error_message);
    let assignment = told.assignment.as_ref();
    let topics = assignment.map(|assignment| &assignment.topic_partitions[..]).unwrap_or_default();
    topics.iter().map(|topic| topic.partitions.len()).collect()
}

async fn committed(client: &mut Client, id: &'static str, epoch: i32) -> (i16, i64) {
    let topic =
        OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_member_id(Some(text(id)))
        .with_member_epoch(epoch)
        .with_topics(Some(vec![topic]));
    let answer = client.call(9, &OffsetFetchRequest::default().with_groups(vec![asked])).await;
    let group = &answer.groups[0];
    let offset = group.topics.first().map(|topic| topic.partitions[0].committed_offset);
    (group.error_code, offset.unwrap_or(-1))
}

async fn commit(client: &mut Client, id: &'static str, epoch: i32, position: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(position);
    let topic =
        OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(epoch)
        .with_member_id(text(id))
        .with_topics(vec![topic]);
    client.call(9, &request).await.topics[0].partitions[0].error_code
}

fn at(position: i64) -> FetchRequest {
    fetch_request("t", position, 100, 1)
}

#[tokio::test]
async fn a_member_is_assigned_everything_and_works_on_its_cursor() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    assert_eq!(produce(&mut client, "t", batch(&["a", "b", "c"])).await.error_code, 0);
    let (epoch, had) = join(&mut client, "one", &["t", "later"]).await;
    assert_eq!(had, [1], "what does not exist is assigned when it does");
    // Nothing changes when another one joins.
    let mut other = broker.client().await;
    let (other_epoch, had) = join(&mut other, "two", &["t"]).await;
    assert_eq!(had, [1]);
    let lives = client.call(1, &beat("one", epoch)).await;
    assert_eq!((lives.error_code, lives.member_epoch, lives.assignment), (0, epoch, None));
    create(&mut client, "later").await;
    let told = client.call(1, &beat("one", epoch)).await;
    assert_eq!((told.member_epoch, partitions(&told).len()), (epoch + 1, 2));

    let (error, position) = committed(&mut client, "one", epoch + 1).await;
    assert_eq!(error, 0);
    let cursor = CursorOffset::decode(position).expect("a cursor");
    let (_, others) = committed(&mut other, "two", other_epoch).await;
    assert_ne!(CursorOffset::decode(others).expect("a cursor").token, cursor.token);
    let data = super::records::fetch(&mut client, &at(position)).await;
    assert_eq!(stored_records(&data.records.expect("records")), 3);
    assert_eq!(commit(&mut client, "one", epoch + 1, position + 3).await, 0);
    // The answer with its new epoch may not have come yet.
    assert_eq!(commit(&mut client, "one", epoch, position + 3).await, 0);
    let stale = ResponseError::StaleMemberEpoch.code();
    assert_eq!(commit(&mut client, "one", epoch + 7, position + 3).await, stale);
    assert_eq!(committed(&mut client, "one", epoch + 7).await.0, stale);
    let unknown = ResponseError::UnknownMemberId.code();
    assert_eq!(committed(&mut client, "three", 1).await.0, unknown);
    assert_eq!(commit(&mut client, "three", 1, position).await, unknown);

    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    let described = client.call(1, &request).await;
    let described = &described.groups[0];
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Stable", 2));
    assert!(described.members.iter().all(|member| member.member_type == 1));
    let left = client.call(1, &beat("one", -1)).await;
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    assert_eq!(commit(&mut client, "one", epoch + 1, position + 3).await, unknown);
}

#[tokio::test]
async fn patterns_follow_the_topics() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "metrics-1").await;
    create(&mut client, "logs-1").await;
    let by = |pattern| beat("one", 0).with_subscribed_topic_regex(Some(text(pattern)));
    let told = client.call(1, &by("metrics-.*")).await;
    assert_eq!(partitions(&told).len(), 1);
    create(&mut client, "metrics-2").await;
    let told = client.call(1, &beat("one", told.member_epoch)).await;
    assert_eq!(partitions(&told).len(), 2);
    let refused = client.call(1, &by("(")).await;
    assert_eq!(refused.error_code, ResponseError::InvalidRegularExpression.code());
}

#[tokio::test]
async fn whoever_cannot_go_on_is_told_to_join_again() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    let (epoch, _) = join(&mut client, "one", &["t"]).await;
    let fenced = ResponseError::FencedMemberEpoch.code();
    assert_eq!(client.call(1, &beat("one", epoch + 5)).await.error_code, fenced);
    let unknown = ResponseError::UnknownMemberId.code();
    assert_eq!(client.call(1, &beat("two", 3)).await.error_code, unknown);
    let nothing = client.call(1, &beat("two", 0)).await;
    assert_eq!(nothing.error_code, ResponseError::InvalidRequest.code());
    let (_, before) = committed(&mut client, "one", epoch).await;
    let (again, _) = join(&mut client, "one", &["t"]).await;
    let (_, after) = committed(&mut client, "one", again).await;
    assert_ne!(before, after, "whoever joins again has lost what it had");
    let ordinary = beat("one", 0).with_group_id(GroupId(text("ordinary")));
    let refused = client.call(1, &ordinary.with_subscribed_topic_names(Some(vec![]))).await;
    assert_eq!(refused.error_code, ResponseError::UnsupportedVersion.code());
}
