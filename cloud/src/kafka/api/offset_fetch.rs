//! OffsetFetch (9), versions 1-9; several groups at once from 8 on (KIP-709), all partitions from 2 on.
//!
//! A member of a shared group that asks for explicit partitions is given its cursors on them; anybody else learns the real offsets
//! below which the group has acknowledged everything, and from their metadata how much is acknowledged behind them
//! (`acknowledged-ahead=N`, if there is any). Where it is not known yet whether a member asks, the answer is COORDINATOR_LOAD_IN_PROGRESS.
//!
//! Offset -1 says that nothing is committed. `require_stable` (KIP-447) is met always, as there are no transactions.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use robustmq_common::ids::{PartitionIndex, TopicId};

use super::resolve::{self, TopicRef};
use super::{Frame, Kafka, Peer, owned, text};
use crate::group::coordinator::CoordinatorError;
use crate::group::machine::GroupError;
use crate::group::shared::coordinator::Client;
use crate::group::shared::cursor::CursorOffset;
use crate::group::shared::is_shared;
use crate::group::stored::CommittedOffset;
use crate::kafka::errors::KafkaCode as _;
use crate::store::keys::partition::PartitionKeys;
use crate::topics::Topic;

/// The partitions asked for, by topic; `None` for all.
type Asked = Option<Vec<(TopicName, Vec<i32>)>>;

/// What is committed: topics with partitions, and `None` for partitions without.
type Found = Vec<(TopicName, Vec<(i32, Option<CommittedOffset>)>)>;

/// Who asks: an old OffsetFetch does not say for which member.
pub(super) fn client(peer: &Peer, frame: &Frame) -> Client {
    Client {
        connection: peer.connection,
        client_id: frame.client_id.as_ref().map(owned).unwrap_or_default(),
        client_host: format!("/{}", peer.address.ip()),
        member: None,
    }
}

pub(super) async fn handle(
    kafka: &Kafka,
    client: &Client,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if version < 8 {
        let asked: Asked = request
            .topics
            .map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        return single(kafka, client, version, &request.group_id, asked).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let asked: Asked = group
            .topics
            .map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        // From version 9 on members of the consumer group protocol say who they are (KIP-848).
        let member_id = group.member_id.as_ref().filter(|_| version >= 9);
        let member = member_id.filter(|id| !id.is_empty() && group.member_epoch >= 0);
        let member = member.map(|id| (owned(id), group.member_epoch));
        let client = Client { member, ..client.clone() };
        groups.push(match find(kafka, &client, &group.group_id, asked).await {
            Ok(found) => answer.with_topics(found.into_iter().map(topic_of_group).collect()),
            Err(CoordinatorError::Group(GroupError::IllegalGeneration)) => {
                answer.with_error_code(ResponseError::StaleMemberEpoch.code())
            }
            Err(error) => answer.with_error_code(error.code()),
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}

async fn single(
    kafka: &Kafka,
    client: &Client,
    version: i16,
    group: &str,
    asked: Asked,
) -> OffsetFetchResponse {
    // Version 1 has no place for the group's error: it goes to each partition.
    let names = if version < 2 { asked.clone() } else { None };
    match find(kafka, client, group, asked).await {
        Ok(found) => {
            let topics = found.into_iter().map(|topic| topic_alone(topic, version, 0)).collect();
            OffsetFetchResponse::default().with_topics(topics)
        }
        Err(error) if version >= 2 => OffsetFetchResponse::default().with_error_code(error.code()),
        Err(error) => {
            let nothing = |(name, partitions): (TopicName, Vec<i32>)| {
                let partitions = partitions.into_iter().map(|index| (index, None)).collect();
                topic_alone((name, partitions), version, error.code())
            };
            let topics = names.unwrap_or_default().into_iter().map(nothing).collect();
            OffsetFetchResponse::default().with_topics(topics)
        }
    }
}

async fn find(
    kafka: &Kafka,
    client: &Client,
    group: &str,
    asked: Asked,
) -> Result<Found, CoordinatorError> {
    let Some(asked) = asked else { return find_all(kafka, group).await };
    let mut found = Vec::with_capacity(asked.len());
    for (name, partitions) in asked {
        let topic = resolve::topic(kafka, TopicRef::Name(&name)).await;
        let committed = match &topic {
            Ok(topic) => {
                let wanted: Vec<(TopicId, PartitionIndex)> =
                    partitions.iter().map(|index| (topic.id, PartitionIndex(*index))).collect();
                match cursors(kafka, client, group, topic, &wanted).await? {
                    Some(cursors) => cursors,
                    None => {
                        let mut committed = kafka.groups.committed(group, &wanted).await?;
                        if is_shared(group) {
                            for ((topic, partition), found) in wanted.iter().zip(&mut committed) {
                                let keys = PartitionKeys { topic: *topic, partition: *partition };
                                note_ahead(kafka, group, &keys, found.as_mut()).await?;
                            }
                        }
                        committed
                    }
                }
            }
            // A topic that does not exist has no commits; that is no error.
            Err(_) => vec![None; partitions.len()],
        };
        found.push((name, partitions.into_iter().zip(committed).collect()));
    }
    Ok(found)
}

/// The cursors of a member of a shared group; `None` for everybody else.
async fn cursors(
    kafka: &Kafka,
    client: &Client,
    group: &str,
    topic: &Topic,
    wanted: &[(TopicId, PartitionIndex)],
) -> Result<Option<Vec<Option<CommittedOffset>>>, CoordinatorError> {
    let is_there = |partition: &PartitionIndex| (0..topic.partitions).contains(&partition.0);
    if !is_shared(group) || !wanted.iter().all(|(_, partition)| is_there(partition)) {
        return Ok(None);
    }
    let cursors = kafka.shared.cursors(group, client, wanted, topic.created_ms).await?;
    let committed = |cursor: CursorOffset| {
        Some(CommittedOffset {
            offset: cursor.encode(),
            leader_epoch: -1,
            metadata: String::new(),
            committed_ms: 0,
        })
    };
    Ok(cursors.map(|cursors| cursors.into_iter().map(committed).collect()))
}

/// A group that shares records says in an offset's metadata how much is acknowledged behind it: the offset alone is that of the slowest
/// member, and a lag counted from it is too high by that.
async fn note_ahead(
    kafka: &Kafka,
    group: &str,
    keys: &PartitionKeys,
    committed: Option<&mut CommittedOffset>,
) -> Result<(), CoordinatorError> {
    let Some(committed) = committed else { return Ok(()) };
    if let Some(progress) = kafka.groups.progress(group, keys).await? {
        let partition = kafka.log.partition(keys.topic, keys.partition).await;
        let log = partition.map_or(0..i64::MAX, |partition| {
            let offsets = partition.offsets();
            offsets.log_start_offset.0..offsets.high_watermark.0
        });
        committed.metadata = progress.note(committed.offset, log);
    }
    Ok(())
}

async fn find_all(kafka: &Kafka, group: &str) -> Result<Found, CoordinatorError> {
    let mut topics: BTreeMap<TopicId, Vec<(i32, Option<CommittedOffset>)>> = BTreeMap::new();
    let shares = kafka.groups.shares_records(group).await?;
    for (topic, partition, mut committed) in kafka.groups.all_committed(group).await? {
        if shares {
            let keys = PartitionKeys { topic, partition };
            note_ahead(kafka, group, &keys, Some(&mut committed)).await?;
        }
        topics.entry(topic).or_default().push((partition.0, Some(committed)));
    }
    let mut found = Vec::with_capacity(topics.len());
    for (id, partitions) in topics {
        // Offsets of topics that are gone wait for their removal.
        if let Some(topic) = kafka.topics.get_by_id(id).await? {
            found.push((TopicName(text(topic.name.as_str())), partitions));
        }
    }
    Ok(found)
}

fn topic_alone(
    (name, partitions): (TopicName, Vec<(i32, Option<CommittedOffset>)>),
    version: i16,
    code: i16,
) -> OffsetFetchResponseTopic {
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let answer = OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code);
        let Some(committed) = committed else {
            return answer.with_committed_offset(-1).with_metadata(Some(text("")));
        };
        let answer = answer
            .with_committed_offset(committed.offset)
            .with_metadata(Some(text(committed.metadata)));
        match version >= 5 {
            true => answer.with_committed_leader_epoch(committed.leader_epoch),
            false => answer,
        }
    };
    let partitions = partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
}

fn topic_of_group(
    (name, partitions): (TopicName, Vec<(i32, Option<CommittedOffset>)>),
) -> OffsetFetchResponseTopics {
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
        match committed {
            None => answer.with_committed_offset(-1).with_metadata(Some(text(""))),
            Some(committed) => answer
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(text(committed.metadata))),
        }
    };
    let partitions = partitions.into_iter().map(partition).collect();
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
}
