//! Consumer groups over the wire.

use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    ListGroupsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    TopicName,
};

use super::*;

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn join_request(name: &str, member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"topics"));
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

async fn join(client: &mut Client, name: &str) -> JoinGroupResponse {
    let first = client.call(9, &join_request(name, "")).await;
    assert_eq!(first.error_code, code(ResponseError::MemberIdRequired));
    let joined = client.call(9, &join_request(name, &first.member_id)).await;
    assert_eq!(joined.error_code, 0);
    joined
}

async fn create(client: &mut Client, topic: &str) {
    let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
    client.call(12, &MetadataRequest::default().with_topics(Some(vec![wanted]))).await;
}

fn commit_request(
    name: &str,
    joined: Option<&JoinGroupResponse>,
    metadata: &str,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(5)
        .with_committed_leader_epoch(0)
        .with_committed_metadata(Some(text(metadata)));
    let missing = OffsetCommitRequestPartition::default().with_partition_index(9);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text("t")))
        .with_partitions(vec![partition, missing]);
    OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_generation_id_or_member_epoch(joined.map_or(-1, |joined| joined.generation_id))
        .with_member_id(joined.map(|joined| joined.member_id.clone()).unwrap_or_default())
        .with_topics(vec![topic])
}

async fn commit(client: &mut Client, request: &OffsetCommitRequest) -> Vec<i16> {
    let answer = client.call(8, request).await;
    answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

async fn committed(client: &mut Client, name: &str, all: bool) -> Vec<(i32, i64)> {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(TopicName(text("t")))
        .with_partition_indexes(vec![0, 1]);
    let topics = if all { None } else { Some(vec![topic]) };
    let asked = OffsetFetchRequestGroup::default().with_group_id(group(name)).with_topics(topics);
    let answer = client.call(8, &OffsetFetchRequest::default().with_groups(vec![asked])).await;
    let partitions = answer.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|p| (p.partition_index, p.committed_offset)).collect()
}

#[tokio::test]
async fn a_member_joins_syncs_commits_and_shows_up() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    let joined = join(&mut client, "g").await;
    assert_eq!(joined.leader, joined.member_id);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"all"));
    let sync = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    let synced = client.call(5, &sync).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    assert_eq!(client.call(4, &heartbeat).await.error_code, 0);
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    let codes = commit(&mut client, &commit_request("g", Some(&joined), "note")).await;
    assert_eq!(codes, [0, unknown]);
    assert_eq!(committed(&mut client, "g", false).await, [(0, 5), (1, -1)]);
    assert_eq!(committed(&mut client, "g", true).await, [(0, 5)]);
    let described =
        client.call(6, &DescribeGroupsRequest::default().with_groups(vec![group("g")])).await;
    let described = &described.groups[0];
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Stable", 1));
    assert_eq!(described.members[0].client_host.as_str(), "/127.0.0.1");
    let listed = client.call(5, &ListGroupsRequest::default()).await.groups;
    assert_eq!((listed.len(), listed[0].group_type.as_str()), (1, "classic"));
}

#[tokio::test]
async fn commits_that_may_not_be_are_refused() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    let too_large = code(ResponseError::OffsetMetadataTooLarge);
    let long = "x".repeat(5000);
    let codes = commit(&mut client, &commit_request("simple", None, &long)).await;
    assert_eq!(codes, [too_large, unknown]);
    assert_eq!(commit(&mut client, &commit_request("simple", None, "")).await, [0, unknown]);
    let joined = join(&mut client, "g").await;
    let not_synced = commit(&mut client, &commit_request("g", Some(&joined), "")).await;
    assert_eq!(not_synced, [code(ResponseError::RebalanceInProgress), unknown]);
    let stranger = commit(&mut client, &commit_request("g", None, "")).await;
    assert_eq!(stranger, [code(ResponseError::UnknownMemberId), unknown]);
}

#[tokio::test]
async fn there_is_a_coordinator_for_groups_and_none_for_transactions() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let keys = vec![text("g"), text("h")];
    let groups = FindCoordinatorRequest::default().with_coordinator_keys(keys.clone());
    let answer = client.call(4, &groups).await;
    assert!(answer.coordinators.iter().all(|found| found.error_code == 0));
    assert_eq!(answer.coordinators[1].port, i32::from(broker.address.port()));
    let transactions =
        FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(keys);
    let answer = client.call(4, &transactions).await;
    let refused = code(ResponseError::TransactionalIdAuthorizationFailed);
    assert!(answer.coordinators.iter().all(|found| found.error_code == refused));
}
