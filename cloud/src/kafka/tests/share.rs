//! Share groups (KIP-932) over the wire.

use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::share_acknowledge_request as ack;
use kafka_protocol::messages::share_fetch_request as fetch;
use kafka_protocol::messages::share_fetch_response::PartitionData;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    DescribeShareGroupOffsetsRequest, GroupId, JoinGroupRequest, ListGroupsRequest,
    OffsetFetchRequest, ShareAcknowledgeRequest, ShareFetchRequest, ShareFetchResponse,
    ShareGroupDescribeRequest, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use uuid::Uuid;

use super::records::{create, name, produce};
use super::traffic::lag;
use super::*;

const GROUP: &str = "sharers";

fn group() -> GroupId {
    GroupId(text(GROUP))
}

/// A broker with a topic of one batch of ten records, and the topic's id.
async fn broker() -> (Broker, Uuid) {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let topic = create(&mut client, "t").await;
    let values: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    assert_eq!(produce(&mut client, "t", batch(&values)).await.error_code, 0);
    (broker, topic)
}

struct Member {
    client: Client,
    id: StrBytes,
    topic: Uuid,
    next_epoch: i32,
}

impl Member {
    async fn join(broker: &Broker, topic: Uuid, id: &'static str) -> Self {
        let mut client = broker.client().await;
        let told = heartbeat(&mut client, id, 0, Some(vec![name("t")])).await;
        assert_eq!((told.error_code, told.member_epoch > 0), (0, true));
        let assignment = told.assignment.expect("it is new");
        assert_eq!(assignment.topic_partitions.len(), 1);
        assert_eq!(assignment.topic_partitions[0].topic_id, topic);
        assert_eq!(assignment.topic_partitions[0].partitions, [0]);
        Self { client, id: text(id), topic, next_epoch: 0 }
    }

    async fn call(&mut self, batches: &[(i64, i64, &[i8])], most: i32) -> ShareFetchResponse {
        let batch = |(first, last, types): &(i64, i64, &[i8])| {
            fetch::AcknowledgementBatch::default()
                .with_first_offset(*first)
                .with_last_offset(*last)
                .with_acknowledge_types(types.to_vec())
        };
        let partition = fetch::FetchPartition::default()
            .with_acknowledgement_batches(batches.iter().map(batch).collect());
        let topic =
            fetch::FetchTopic::default().with_topic_id(self.topic).with_partitions(vec![partition]);
        let request = ShareFetchRequest::default()
            .with_group_id(Some(group()))
            .with_member_id(Some(self.id.clone()))
            .with_share_session_epoch(self.next_epoch)
            .with_max_wait_ms(100)
            .with_max_bytes(1 << 20)
            .with_max_records(most)
            .with_topics(vec![topic]);
        self.next_epoch += 1;
        self.client.call(1, &request).await
    }

    /// What is acquired: offsets with delivery counts, and the first and last offsets of the batches that come along.
    async fn fetch(&mut self, batches: &[(i64, i64, &[i8])], most: i32) -> Option<PartitionData> {
        let mut answer = self.call(batches, most).await;
        assert_eq!((answer.error_code, answer.acquisition_lock_timeout_ms), (0, 30_000));
        let mut topic = answer.responses.pop()?;
        assert_eq!((topic.topic_id, topic.partitions.len()), (self.topic, 1));
        topic.partitions.pop()
    }

    async fn acknowledge(&mut self, epoch: i32, first: i64, last: i64, types: &[i8]) -> (i16, i16) {
        let batch = ack::AcknowledgementBatch::default()
            .with_first_offset(first)
            .with_last_offset(last)
            .with_acknowledge_types(types.to_vec());
        let partition =
            ack::AcknowledgePartition::default().with_acknowledgement_batches(vec![batch]);
        let topic = ack::AcknowledgeTopic::default()
            .with_topic_id(self.topic)
            .with_partitions(vec![partition]);
        let request = ShareAcknowledgeRequest::default()
            .with_group_id(Some(group()))
            .with_member_id(Some(self.id.clone()))
            .with_share_session_epoch(epoch)
            .with_topics(vec![topic]);
        let answer = self.client.call(1, &request).await;
        let partition = answer.responses.first().map(|topic| topic.partitions[0].error_code);
        (answer.error_code, partition.unwrap_or_default())
    }
}

async fn heartbeat(
    client: &mut Client,
    id: &'static str,
    epoch: i32,
    topics: Option<Vec<kafka_protocol::messages::TopicName>>,
) -> ShareGroupHeartbeatResponse {
    let request = ShareGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(id))
        .with_member_epoch(epoch)
        .with_subscribed_topic_names(topics);
    client.call(1, &request).await
}

fn acquired(data: &PartitionData) -> Vec<(i64, i64, i16)> {
    let acquired = data.acquired_records.iter();
    acquired.map(|a| (a.first_offset, a.last_offset, a.delivery_count)).collect()
}

/// The group begins with the first record.
async fn from_the_start(broker: &Broker) {
    let name = "share.auto.offset.reset".to_owned();
    let op = crate::entries::ConfigOp::Set("earliest".to_owned());
    let change = crate::entries::ConfigChange { name, op };
    let altered = broker.kafka.shared.pools().alter_config(GROUP, &[change], false).await;
    altered.expect("a legal value");
}

async fn start_of(client: &mut Client) -> i64 {
    let asked =
        DescribeShareGroupOffsetsRequestGroup::default().with_group_id(group()).with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked]);
    let answer = client.call(0, &request).await;
    let group = &answer.groups[0];
    assert_eq!(group.error_code, 0);
    group.topics.first().map_or(-1, |topic| topic.partitions[0].start_offset)
}

/// What tools learn of the group: its kind, and what is acknowledged behind its offset.
async fn told(broker: &Broker) -> (String, String) {
    let mut client = broker.client().await;
    let describe = DescribeGroupsRequest::default().with_groups(vec![group()]);
    let described = client.call(6, &describe).await.groups.remove(0);
    let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let answer = client.call(8, &request).await;
    let note = answer.groups[0].topics[0].partitions[0].metadata.clone();
    (described.protocol_type.to_string(), note.map(|note| note.to_string()).unwrap_or_default())
}

#[tokio::test]
async fn members_acquire_and_settle_record_by_record() {
    let (broker, topic) = broker().await;
    from_the_start(&broker).await;
    let mut first = Member::join(&broker, topic, "a").await;
    let mut second = Member::join(&broker, topic, "b").await;
    let data = first.fetch(&[], 6).await.expect("records");
    assert_eq!(acquired(&data), [(0, 5, 1)]);
    let records = data.records.expect("a batch");
    assert_eq!(
        robustmq_common::record::BatchHeader::parse(&records).expect("a header").batch_bytes(),
        records.len(),
        "one whole batch"
    );
    let data = second.fetch(&[], 100).await.expect("records");
    assert_eq!(acquired(&data), [(6, 9, 1)]);
    // Accepted, released, a gap, rejected, and the rest in one.
    let said: &[(i64, i64, &[i8])] = &[(0, 3, &[1, 2, 0, 3]), (4, 5, &[1])];
    let data = first.fetch(said, 100).await.expect("what it released");
    assert_eq!((data.acknowledge_error_code, acquired(&data)), (0, vec![(1, 1, 2)]));
    assert_eq!(start_of(&mut broker.client().await).await, 1);
    assert_eq!(lag(&broker, GROUP).await, 5, "what is accepted and rejected behind it is none");
    assert_eq!(told(&broker).await, ("share".to_owned(), "acknowledged-ahead=4".to_owned()));
    assert_eq!(second.acknowledge(1, 6, 9, &[1]).await, (0, 0));
    assert_eq!(first.acknowledge(2, 1, 1, &[1]).await, (0, 0));
    assert_eq!(start_of(&mut broker.client().await).await, 10);
    assert!(
        first
            .client
            .call(1, &ShareGroupDescribeRequest::default().with_group_ids(vec![group()]))
            .await
            .groups[0]
            .members
            .len()
            == 2
    );
}

#[tokio::test]
async fn what_is_not_ones_own_or_makes_no_sense_is_refused() {
    let (broker, topic) = broker().await;
    from_the_start(&broker).await;
    let mut member = Member::join(&broker, topic, "a").await;
    let code = |error: ResponseError| error.code();
    member.fetch(&[], 4).await.expect("records");
    let invalid = code(ResponseError::InvalidRecordState);
    assert_eq!(member.acknowledge(1, 3, 4, &[1]).await, (0, invalid));
    let nonsense = code(ResponseError::InvalidRequest);
    assert_eq!(member.acknowledge(2, 3, 2, &[1]).await, (0, nonsense));
    assert_eq!(member.acknowledge(3, 0, 1, &[9]).await, (0, nonsense));
    assert_eq!(member.acknowledge(0, 0, 1, &[1]).await.0, nonsense);
    let epoch = code(ResponseError::InvalidShareSessionEpoch);
    assert_eq!(member.acknowledge(3, 0, 1, &[1]).await.0, epoch);
    let mut stranger =
        Member { client: broker.client().await, id: text("b"), topic, next_epoch: 0 };
    let unknown = code(ResponseError::UnknownMemberId);
    assert_eq!(stranger.call(&[], 1).await.error_code, unknown);
    let mut elsewhere =
        Member { client: broker.client().await, id: text("a"), topic, next_epoch: 4 };
    let not_found = code(ResponseError::ShareSessionNotFound);
    assert_eq!(elsewhere.call(&[], 1).await.error_code, not_found);
    // None of that has changed anything.
    assert_eq!(member.acknowledge(4, 0, 3, &[1]).await, (0, 0));
    assert_eq!(start_of(&mut broker.client().await).await, 4);
    assert_eq!(
        heartbeat(&mut member.client, "a", 7, None).await.error_code,
        code(ResponseError::FencedMemberEpoch)
    );
}

#[tokio::test]
async fn a_client_that_is_gone_loses_what_it_had_to_the_others() {
    let (broker, topic) = broker().await;
    from_the_start(&broker).await;
    let mut first = Member::join(&broker, topic, "a").await;
    first.fetch(&[], 10).await.expect("records");
    drop(first);
    let mut second = Member::join(&broker, topic, "b").await;
    let mut got = None;
    while got.is_none() {
        got = second.fetch(&[], 10).await;
    }
    assert_eq!(acquired(&got.expect("records")), [(0, 9, 2)]);
    // It leaves, and says afterwards what became of the records, as clients of librdkafka do.
    assert_eq!(heartbeat(&mut second.client, "b", -1, None).await.error_code, 0);
    assert_eq!(second.acknowledge(-1, 0, 7, &[1]).await, (0, 0));
    assert_eq!(start_of(&mut broker.client().await).await, 8);
}

#[tokio::test]
async fn groups_are_of_one_kind_and_an_empty_one_can_be_moved_and_deleted() {
    let (broker, topic) = broker().await;
    let mut client = broker.client().await;
    let mut member = Member::join(&broker, topic, "a").await;
    assert!(member.fetch(&[], 10).await.is_none(), "a share group begins with the next record");
    let protocol =
        kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol::default()
            .with_name(text("range"));
    let join = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let refused = client.call(9, &join).await.error_code;
    assert_eq!(refused, ResponseError::InconsistentGroupProtocol.code());
    let listed =
        client.call(5, &ListGroupsRequest::default().with_types_filter(vec![text("share")])).await;
    let listed: Vec<_> =
        listed.groups.iter().map(|g| (g.group_id.as_str(), g.group_state.as_str())).collect();
    assert_eq!(listed, [(GROUP, "Stable")]);
    let move_to = |offset| {
        let partition = AlterShareGroupOffsetsRequestPartition::default().with_start_offset(offset);
        let topic = AlterShareGroupOffsetsRequestTopic::default()
            .with_topic_name(name("t"))
            .with_partitions(vec![partition]);
        AlterShareGroupOffsetsRequest::default().with_group_id(group()).with_topics(vec![topic])
    };
    let refused = client.call(0, &move_to(3)).await.error_code;
    assert_eq!(refused, ResponseError::NonEmptyGroup.code());
    assert_eq!(heartbeat(&mut member.client, "a", -1, None).await.error_code, 0);
    assert_eq!(member.acknowledge(-1, 0, 0, &[0]).await.0, 0);
    assert_eq!(client.call(0, &move_to(3)).await.error_code, 0);
    assert_eq!(start_of(&mut client).await, 3);
    let mut member = Member::join(&broker, topic, "c").await;
    assert_eq!(acquired(&member.fetch(&[], 10).await.expect("records")), [(3, 9, 1)]);
    drop(member);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let refused = client.call(2, &delete).await.results[0].error_code;
    assert_eq!(refused, ResponseError::NonEmptyGroup.code(), "it has not left");
    assert_eq!(heartbeat(&mut client, "c", -1, None).await.error_code, 0);
    assert_eq!(client.call(2, &delete).await.results[0].error_code, 0);
    assert_eq!(start_of(&mut client).await, -1);
    let described = ShareGroupDescribeRequest::default().with_group_ids(vec![group()]);
    let described = client.call(1, &described).await;
    assert_eq!(described.groups[0].error_code, ResponseError::GroupIdNotFound.code());
}
