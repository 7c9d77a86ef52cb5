//! `$shared/` groups over the wire, as stock clients of the classic protocol speak.

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    FetchRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
};
use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex};
use robustmq_common::record::{BatchHeader, RecordBatch};

use super::records::{create, name, produce};
use super::*;
use crate::group::shared::cursor::{CursorOffset, FIRST, Sequence, Token};

const GROUP: &str = "$shared/pool";

fn group() -> GroupId {
    GroupId(text(GROUP))
}

/// A consumer of topic `t` in the group.
struct Member {
    coordinator: Client,
    fetcher: Client,
    id: StrBytes,
    generation: i32,
    position: i64,
}

impl Member {
    /// Joins and gets its cursor.
    async fn join(broker: &Broker) -> Self {
        let mut coordinator = broker.client().await;
        let fetcher = broker.client().await;
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"topics"));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(60_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = coordinator.call(9, &request).await;
        assert_eq!(joined.error_code, 0);
        assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1));
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"mine"));
        let sync = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![assignment]);
        let synced = coordinator.call(5, &sync).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"mine"[..]));
        let mut member = Self {
            coordinator,
            fetcher,
            id: joined.member_id,
            generation: joined.generation_id,
            position: 0,
        };
        member.position = committed(&mut member.coordinator).await;
        member
    }

    fn cursor(&self) -> CursorOffset {
        CursorOffset::decode(self.position).expect("a cursor")
    }

    /// What a Fetch at a position is answered with.
    async fn fetch_at(&mut self, position: i64, wait_ms: i32) -> PartitionData {
        let request = fetch_request(position, wait_ms);
        let answer = self.fetcher.call(12, &request).await;
        answer.responses[0].partitions[0].clone()
    }

    /// The values that come next; the position moves behind them.
    async fn fetch(&mut self) -> Vec<String> {
        let position = self.position;
        let data = self.fetch_at(position, 100).await;
        self.take(data)
    }

    fn take(&mut self, data: PartitionData) -> Vec<String> {
        assert_eq!(data.error_code, 0);
        let mut values = Vec::new();
        for (offset, value) in records(data.records.unwrap_or_default()) {
            if offset >= self.position {
                values.push(value);
                self.position = offset + 1;
            }
        }
        values
    }

    async fn commit(&mut self, position: i64) -> i16 {
        let (id, generation) = (self.id.clone(), self.generation);
        commit(&mut self.coordinator, &id, generation, position).await
    }

    async fn heartbeat(&mut self) -> i16 {
        let heartbeat = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        self.coordinator.call(4, &heartbeat).await.error_code
    }

    async fn leave(mut self) {
        let member = MemberIdentity::default().with_member_id(self.id.clone());
        let request =
            LeaveGroupRequest::default().with_group_id(group()).with_members(vec![member]);
        assert_eq!(self.coordinator.call(5, &request).await.members[0].error_code, 0);
    }
}

fn fetch_request(position: i64, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(position)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(0);
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// The batches of an answer, which may hold fewer records than offsets.
fn batches(mut payload: Bytes) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while !payload.is_empty() {
        let bytes = BatchHeader::parse(&payload).expect("a header").batch_bytes();
        batches.push(RecordBatch::parse(payload.split_to(bytes)).expect("a true checksum"));
    }
    batches
}

fn records(payload: Bytes) -> Vec<(i64, String)> {
    let batches = batches(payload);
    let records = batches.iter().flat_map(|batch| batch.records(1 << 20).expect("records"));
    let text = |record: robustmq_common::record::Record| {
        let value = record.value.expect("a value");
        (record.offset.0, String::from_utf8_lossy(&value).into_owned())
    };
    records.map(|record| text(record.expect("a record"))).collect()
}

async fn commit(client: &mut Client, member_id: &str, generation: i32, position: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(position);
    let topic =
        OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member_id))
        .with_topics(vec![topic]);
    client.call(8, &request).await.topics[0].partitions[0].error_code
}

async fn committed(client: &mut Client) -> i64 {
    let topic =
        OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let asked =
        OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
    let answer = client.call(8, &OffsetFetchRequest::default().with_groups(vec![asked])).await;
    assert_eq!(answer.groups[0].error_code, 0);
    answer.groups[0].topics[0].partitions[0].committed_offset
}

/// A broker with a topic of batches of four records, `0` to `count`.
async fn broker_with(count: usize) -> (Broker, Client) {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    create(&mut client, "t").await;
    fill(&mut client, 0, count).await;
    (broker, client)
}

async fn fill(client: &mut Client, from: usize, to: usize) {
    let values: Vec<String> = (from..to).map(|number| number.to_string()).collect();
    for chunk in values.chunks(4) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        assert_eq!(produce(client, "t", batch(&chunk)).await.error_code, 0);
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn members_share_a_partition_and_tools_see_real_offsets() {
    let (broker, mut client) = broker_with(8).await;
    let mut first = Member::join(&broker).await;
    assert_eq!(first.cursor().sequence, FIRST);
    assert_eq!(first.fetch().await, numbers(0..8));
    fill(&mut client, 8, 12).await;
    let mut second = Member::join(&broker).await;
    assert_ne!(first.cursor().token, second.cursor().token);
    assert_eq!(second.fetch().await, numbers(8..12));
    assert_eq!(committed(&mut client).await, 0, "whoever is no member learns real offsets");
    let position = second.position;
    assert_eq!(second.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 0, "the first eight are still open");
    let position = first.position;
    assert_eq!(first.commit(position - 3).await, 0);
    assert_eq!(committed(&mut client).await, 5);
    assert_eq!(first.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 12);
    assert_eq!((first.fetch().await, second.fetch().await), (vec![], vec![]));
}

#[tokio::test]
async fn a_fetch_at_a_place_that_was_delivered_gives_the_same_records() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let start = member.position;
    assert_eq!(member.fetch().await, numbers(0..8));
    for (back, expected) in [(start, 0..8), (start + 3, 3..8), (start + 7, 7..8)] {
        member.position = back;
        assert_eq!(member.fetch().await, numbers(expected));
    }
    let position = member.position;
    assert_eq!(member.commit(position).await, 0);
    member.position = start + 5;
    assert_eq!(member.fetch().await, numbers(5..8), "also when it is acknowledged");
}

#[tokio::test]
async fn batches_carry_no_leader_epoch_and_the_end_is_in_the_cursors_space() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    let position = member.position;
    let data = member.fetch_at(position, 100).await;
    let batches = batches(data.records.clone().expect("records"));
    assert!(batches.iter().all(|batch| batch.header().partition_leader_epoch.0 == -1));
    assert_eq!((data.high_watermark, data.last_stable_offset), (position + 8, position + 8));
    let end = member.fetch_at(position + 8, 0).await;
    assert_eq!((end.high_watermark, end.error_code), (position + 8, 0));
    fill(&mut broker.client().await, 8, 12).await;
    let mut other = Member::join(&broker).await;
    let position = other.position;
    let end = other.fetch_at(position, 0).await;
    assert_eq!(end.high_watermark, position + 4, "what is left for the group");
}

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
    assert_eq!(committed(&mut client).await, 0);
    assert_eq!(other.fetch().await, numbers(0..8));
}

#[tokio::test]
async fn what_a_member_leaves_behind_wakes_another_that_waits() {
    let (broker, _client) = broker_with(8).await;
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..8));
    let acknowledged = member.position - 2;
    assert_eq!(member.commit(acknowledged).await, 0);
    let mut other = Member::join(&broker).await;
    let id = other.fetcher.send(12, &fetch_request(other.position, 30_000)).await;
    member.leave().await;
    let answer = other.fetcher.receive::<FetchRequest>(12, id).await;
    let data = answer.responses[0].partitions[0].clone();
    assert_eq!(other.take(data), numbers(6..8));
}

#[tokio::test]
async fn an_append_wakes_the_member_that_waits_longest() {
    let (broker, mut client) = broker_with(0).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut member = Member::join(&broker).await;
        let id = member.fetcher.send(12, &fetch_request(member.position, 30_000)).await;
        waiting.push((member, id));
        // Its place in the queue is taken before the next one's.
        while broker.kafka.shared.pools().standings(GROUP)[0].waiting < waiting.len() {
            tokio::task::yield_now().await;
        }
    }
    for (round, (mut member, id)) in waiting.into_iter().enumerate() {
        fill(&mut client, round * 4, round * 4 + 4).await;
        let answer = member.fetcher.receive::<FetchRequest>(12, id).await;
        let data = answer.responses[0].partitions[0].clone();
        assert_eq!(member.take(data), numbers(round * 4..round * 4 + 4));
    }
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
    assert_eq!(stale.heartbeat().await, code(ResponseError::UnknownMemberId));
    assert_eq!(stale.commit(position).await, code(ResponseError::UnknownMemberId));
    let mut fresh = Member::join(&again).await;
    assert_ne!(fresh.cursor().token, member.cursor().token, "tokens are not given twice");
    assert_eq!(fresh.fetch().await, numbers(7..12));
}

#[tokio::test]
async fn an_admin_moves_lists_describes_and_deletes_a_group_without_members() {
    let (broker, mut client) = broker_with(12).await;
    assert_eq!(commit(&mut client, "", -1, 6).await, 0);
    assert_eq!(committed(&mut client).await, 6);
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(6..12));
    let describe = DescribeGroupsRequest::default().with_groups(vec![group()]);
    let described = client.call(6, &describe).await.groups.remove(0);
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Stable", 1));
    assert_eq!(&described.members[0].member_assignment[..], b"mine");
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let not_empty = code(ResponseError::NonEmptyGroup);
    assert_eq!(client.call(2, &delete).await.results[0].error_code, not_empty);
    member.leave().await;
    let described = client.call(6, &describe).await.groups.remove(0);
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Empty", 0));
    let listed = client.call(5, &ListGroupsRequest::default()).await.groups;
    assert_eq!(listed[0].group_id, group());
    assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
    assert_eq!(committed(&mut client).await, -1);
    let mut member = Member::join(&broker).await;
    assert_eq!(member.fetch().await, numbers(0..12), "a deleted group begins anew");
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

/// Sets an entry of the group's configuration; says what the broker answers.
async fn configure(client: &mut Client, name: &str, value: &str) -> (i16, String) {
    let config = AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(GROUP))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.call(1, &request).await.responses.remove(0);
    (answer.error_code, answer.error_message.map(|m| m.to_string()).unwrap_or_default())
}

#[tokio::test]
async fn a_groups_configuration_is_set_and_shown_and_nonsense_is_refused() {
    let (_broker, mut client) = broker_with(0).await;
    let set = configure(&mut client, "robustmq.shared.start", "latest").await;
    assert_eq!(set, (0, String::new()));
    let (code_of, message) = configure(&mut client, "robustmq.shared.start", "middle").await;
    assert_eq!(code_of, code(ResponseError::InvalidConfig));
    assert!(message.contains("robustmq.shared.start") && message.contains("earliest, latest"));
    let resource = DescribeConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(GROUP))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let described = client.call(4, &request).await.results.remove(0);
    let values: Vec<_> = described
        .configs
        .iter()
        .map(|c| (c.name.as_str(), c.value.as_ref().map(|v| v.as_str()), c.config_source))
        .collect();
    assert!(values.contains(&("robustmq.shared.start", Some("latest"), 8)), "{values:?}");
    assert!(values.contains(&("robustmq.shared.strategy", Some("batch"), 5)), "{values:?}");
}

#[tokio::test]
async fn a_group_that_starts_at_the_end_gets_what_comes_then() {
    let (broker, mut client) = broker_with(8).await;
    configure(&mut client, "robustmq.shared.start", "latest").await;
    let mut member = Member::join(&broker).await;
    assert!(member.fetch().await.is_empty());
    fill(&mut client, 8, 12).await;
    assert_eq!(member.fetch().await, numbers(8..12));
}

#[tokio::test]
async fn round_robin_gives_one_record_to_each_member_that_waits() {
    let (broker, mut client) = broker_with(0).await;
    configure(&mut client, "robustmq.shared.strategy", "round-robin").await;
    let mut members = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        members.push(Member::join(&broker).await);
    }
    for (number, member) in members.iter_mut().enumerate() {
        waiting.push(member.fetcher.send(12, &fetch_request(member.position, 30_000)).await);
        while broker.kafka.shared.pools().standings(GROUP)[0].waiting <= number {
            tokio::task::yield_now().await;
        }
    }
    // Three rounds, each member asking again as soon as it has been given something, in the same order.
    fill(&mut client, 0, 12).await;
    let mut taken: Vec<Vec<String>> = vec![Vec::new(); 4];
    for round in 0..3 {
        for (number, member) in members.iter_mut().enumerate() {
            let id = waiting[number];
            let answer = member.fetcher.receive::<FetchRequest>(12, id).await;
            let data = answer.responses[0].partitions[0].clone();
            let values = member.take(data);
            assert_eq!(values.len(), 1);
            taken[number].extend(values);
            if round < 2 {
                let request = fetch_request(member.position, 30_000);
                waiting[number] = member.fetcher.send(12, &request).await;
            }
        }
    }
    let mut all: Vec<usize> =
        taken.iter().flatten().map(|n| n.parse().expect("a number")).collect();
    all.sort_unstable();
    assert_eq!(all, (0..12).collect::<Vec<_>>());
    let first: Vec<&str> = taken.iter().map(|values| values[0].as_str()).collect();
    assert_eq!(first, ["0", "1", "2", "3"], "one to each, in the order in which they wait");
}

/// Batches have four records: `batch` would give one of them, and the next to another member.
#[tokio::test]
async fn adaptive_gives_as_many_records_as_a_member_may_have_and_more_to_whom_acknowledges() {
    let (broker, mut client) = broker_with(16).await;
    configure(&mut client, "robustmq.shared.strategy", "adaptive").await;
    configure(&mut client, "robustmq.shared.max.inflight.records", "6").await;
    let (mut busy, mut stuck) = (Member::join(&broker).await, Member::join(&broker).await);
    assert_eq!(busy.fetch().await, numbers(0..6));
    assert_eq!(stuck.fetch().await, numbers(6..12));
    assert!(busy.fetch().await.is_empty(), "it has what it may have");
    let mut rest = Vec::new();
    for _ in 0..20 {
        let position = busy.position;
        assert_eq!(busy.commit(position).await, 0);
        rest.extend(busy.fetch().await);
        if rest.len() == 4 {
            break;
        }
        assert!(stuck.fetch().await.is_empty(), "it acknowledged nothing");
    }
    assert_eq!(rest, numbers(12..16));
    let standing = &broker.kafka.shared.pools().standings(GROUP)[0];
    assert_eq!((standing.ledger.delivered, standing.ledger.redelivered), (16, 0));
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_goes_to_another_that_waits() {
    let (broker, mut client) = broker_with(8).await;
    configure(&mut client, "robustmq.shared.ack.timeout.ms", "300").await;
    let mut slow = Member::join(&broker).await;
    assert_eq!(slow.fetch().await, numbers(0..8));
    let mut other = Member::join(&broker).await;
    let id = other.fetcher.send(12, &fetch_request(other.position, 30_000)).await;
    let answer = other.fetcher.receive::<FetchRequest>(12, id).await;
    let data = answer.responses[0].partitions[0].clone();
    assert_eq!(other.take(data), numbers(0..8));
    assert_eq!(slow.heartbeat().await, 0, "it is a member still");
    let position = slow.position;
    assert_eq!(slow.commit(position).await, 0);
    assert_eq!(committed(&mut client).await, 8, "the first acknowledgement counts");
}

#[tokio::test]
async fn records_that_nobody_acknowledges_are_given_up_after_so_many_deliveries() {
    let (broker, mut client) = broker_with(8).await;
    configure(&mut client, "robustmq.shared.delivery.limit", "2").await;
    for _ in 0..2 {
        let mut member = Member::join(&broker).await;
        assert_eq!(member.fetch().await, numbers(0..8));
        member.leave().await;
    }
    let mut member = Member::join(&broker).await;
    assert!(member.fetch().await.is_empty());
    assert_eq!(committed(&mut client).await, 8);
    let ledger = broker.kafka.shared.pools().standings(GROUP)[0].ledger;
    assert_eq!((ledger.rejected, ledger.acknowledged), (8, 0));
}

#[tokio::test]
async fn a_groups_configuration_tells_where_it_comes_from() {
    let broker = Broker::start().await;
    let pools = broker.kafka.shared.pools();
    let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let defaults =
        [entry("robustmq.shared.start", "latest"), entry("robustmq.shared.delivery.limit", "7")];
    pools.set_defaults(std::collections::BTreeMap::from(defaults));
    let name = "robustmq.shared.delivery.limit".to_owned();
    let op = crate::entries::ConfigOp::Set("2".to_owned());
    let change = crate::entries::ConfigChange { name, op };
    pools.alter_config(GROUP, &[change], false).await.expect("a legal value");
    let config = pools.config(GROUP).await.expect("a store that works");
    assert_eq!(config.delivery_limit, Some(2));
    assert_eq!(config.start, crate::group::shared::config::Start::Latest);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(GROUP))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = broker.client().await.call(4, &request).await;
    let of = |name: &str| {
        let entry = answer.results[0].configs.iter().find(|entry| entry.name.as_str() == name);
        let entry = entry.expect("it is shown");
        (entry.value.as_ref().map(|value| value.to_string()), entry.config_source)
    };
    assert_eq!(of("robustmq.shared.start"), (Some("latest".to_owned()), 4));
    assert_eq!(of("robustmq.shared.delivery.limit"), (Some("2".to_owned()), 8));
    assert_eq!(of("robustmq.shared.strategy"), (Some("batch".to_owned()), 5));
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
