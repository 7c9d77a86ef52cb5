//! `$shared/` groups over the wire, as stock clients of the classic protocol speak.

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
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FetchRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, JoinGroupRequest,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use robustmq_common::ids::Offset;
use robustmq_common::record::{BatchHeader, RecordBatch};

use super::records::{create, name, produce};
use super::traffic::lag;
use super::*;
use crate::group::shared::cursor::{CursorOffset, FIRST};

mod configuration;
mod deliveries;
mod faults;

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

async fn offset_fetch(client: &mut Client) -> OffsetFetchResponseGroup {
    let topic =
        OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![0]);
    let asked =
        OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
    client.call(8, &OffsetFetchRequest::default().with_groups(vec![asked])).await.groups.remove(0)
}

async fn committed(client: &mut Client) -> i64 {
    let answer = offset_fetch(client).await;
    assert_eq!(answer.error_code, 0);
    answer.topics[0].partitions[0].committed_offset
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
