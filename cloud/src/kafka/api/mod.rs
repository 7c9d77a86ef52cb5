//! One file per Kafka API: which versions, how it behaves, what is not done.
//!
//! Each file turns a decoded request into an answer; decoding, headers and encoding are here.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};

use super::frame::{Frame, FrameError};
use super::memory::{AnswerMemory, Charge};
use super::parts::Parts;
use super::{Kafka, Peer};

mod alter_configs;
mod alter_share_group_offsets;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_share_group_offsets;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_share_group_offsets;
mod describe_topic_partitions;
mod fetch;
mod fetch_answer;
mod fetch_shared;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod listing;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod resolve;
mod share_acknowledge;
mod share_fetch;
mod share_group_describe;
mod share_group_heartbeat;
mod share_session;
mod sync_group;

pub use listing::Listings;

/// A request that cannot be answered: the connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The frame has the right shape, and the decoder refuses it still: a null or text where none may be.
    #[error("malformed {api:?} request, version {version}: {reason}")]
    Decode { api: ApiKey, version: i16, reason: String },
    /// A mistake here: a field that this version does not have was set.
    #[error("{api:?} answer, version {version}, cannot be encoded: {reason}")]
    Encode { api: ApiKey, version: i16, reason: String },
    /// A Produce with acks=0 failed, and closing the connection is the only way to say so.
    #[error("a Produce with acks=0 failed with error code {code}")]
    Unanswerable { code: i16 },
}

impl RequestError {
    /// For an API in the version table that nothing serves; a test goes through the table.
    fn no_handler(api: ApiKey, version: i16) -> Self {
        Self::Decode { api, version, reason: "it has no handler".to_owned() }
    }
}

/// An encoded answer with its size prefix; empty where there is none.
pub(super) struct Answer {
    pub bytes: Parts,
    /// Memory that it takes, where that was asked for.
    pub _memory: Charge,
}

impl Answer {
    fn none() -> Self {
        Self { bytes: Parts::default(), _memory: Charge::default() }
    }
}

/// A request that was begun.
pub(super) enum Begun {
    /// It is answered.
    Ready(Answer),
    /// It took its effect in order; the answer comes when it is durable.
    Later(BoxFuture<'static, Result<Answer, RequestError>>),
}

/// Begins a request: whatever has to happen in the order of arrival has happened when this returns.
pub(super) async fn begin(
    kafka: &Arc<Kafka>,
    peer: &Peer,
    frame: Frame,
) -> Result<Begun, RequestError> {
    let answer = match frame.api.key {
        ApiKey::Produce => return produce::begin(kafka, &frame).await,
        ApiKey::Fetch => fetch::answer(kafka, &frame).await,
        ApiKey::JoinGroup
        | ApiKey::SyncGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::OffsetDelete
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteGroups => answer_group(kafka, peer, &frame).await,
        ApiKey::ConsumerGroupHeartbeat | ApiKey::ConsumerGroupDescribe => {
            answer_consumer_group(kafka, peer, &frame).await
        }
        ApiKey::ShareGroupHeartbeat
        | ApiKey::ShareGroupDescribe
        | ApiKey::ShareFetch
        | ApiKey::ShareAcknowledge
        | ApiKey::DescribeShareGroupOffsets
        | ApiKey::AlterShareGroupOffsets
        | ApiKey::DeleteShareGroupOffsets => answer_share(kafka, peer, &frame).await,
        _ => answer_topic(kafka, &frame).await,
    };
    answer.map(Begun::Ready)
}

/// The APIs of consumer groups.
async fn answer_group(kafka: &Kafka, peer: &Peer, frame: &Frame) -> Result<Answer, RequestError> {
    let version = frame.version;
    match frame.api.key {
        ApiKey::JoinGroup => {
            let client = join_group::Client { version, id: frame.client_id.clone(), peer: *peer };
            answer(frame, async |r| join_group::handle(kafka, client, r).await).await
        }
        ApiKey::SyncGroup => {
            answer(frame, async |r| sync_group::handle(kafka, peer, version, r).await).await
        }
        ApiKey::Heartbeat => answer(frame, async |r| heartbeat::handle(kafka, peer, r).await).await,
        ApiKey::LeaveGroup => {
            answer(frame, async |r| leave_group::handle(kafka, peer, version, r).await).await
        }
        ApiKey::OffsetCommit => {
            answer(frame, async |r| offset_commit::handle(kafka, peer, version, r).await).await
        }
        ApiKey::OffsetFetch => {
            let client = offset_fetch::client(peer, frame);
            answer(frame, async |r| offset_fetch::handle(kafka, &client, version, r).await).await
        }
        ApiKey::OffsetDelete => {
            answer(frame, async |r| offset_delete::handle(kafka, r).await).await
        }
        ApiKey::DescribeGroups => {
            answer_charged(kafka, frame, async |r, memory| {
                describe_groups::handle(kafka, version, r, memory).await
            })
            .await
        }
        ApiKey::ListGroups => {
            answer(frame, async |r| list_groups::handle(kafka, version, r).await).await
        }
        ApiKey::DeleteGroups => {
            answer(frame, async |r| delete_groups::handle(kafka, r).await).await
        }
        key => Err(RequestError::no_handler(key, version)),
    }
}

/// The APIs of the consumer group protocol (KIP-848).
async fn answer_consumer_group(
    kafka: &Kafka,
    peer: &Peer,
    frame: &Frame,
) -> Result<Answer, RequestError> {
    match frame.api.key {
        ApiKey::ConsumerGroupHeartbeat => {
            let client = offset_fetch::client(peer, frame);
            answer(frame, async |r| consumer_group_heartbeat::handle(kafka, peer, client, r).await)
                .await
        }
        ApiKey::ConsumerGroupDescribe => {
            answer_charged(kafka, frame, async |r, memory| {
                consumer_group_describe::handle(kafka, frame.version, r, memory).await
            })
            .await
        }
        key => Err(RequestError::no_handler(key, frame.version)),
    }
}

/// The APIs of share groups (KIP-932).
async fn answer_share(kafka: &Kafka, peer: &Peer, frame: &Frame) -> Result<Answer, RequestError> {
    match frame.api.key {
        ApiKey::ShareGroupHeartbeat => {
            let client = offset_fetch::client(peer, frame);
            answer(frame, async |r| share_group_heartbeat::handle(kafka, client, r).await).await
        }
        ApiKey::ShareGroupDescribe => {
            answer_charged(kafka, frame, async |r, memory| {
                share_group_describe::handle(kafka, r, memory).await
            })
            .await
        }
        ApiKey::ShareFetch => share_fetch::answer(kafka, peer, frame).await,
        ApiKey::ShareAcknowledge => {
            answer(frame, async |r| share_acknowledge::handle(kafka, peer, r).await).await
        }
        ApiKey::DescribeShareGroupOffsets => {
            answer(frame, async |r| describe_share_group_offsets::handle(kafka, r).await).await
        }
        ApiKey::AlterShareGroupOffsets => {
            answer(frame, async |r| alter_share_group_offsets::handle(kafka, r).await).await
        }
        ApiKey::DeleteShareGroupOffsets => {
            answer(frame, async |r| delete_share_group_offsets::handle(kafka, r).await).await
        }
        key => Err(RequestError::no_handler(key, frame.version)),
    }
}

/// Everything else but Produce and Fetch.
async fn answer_topic(kafka: &Kafka, frame: &Frame) -> Result<Answer, RequestError> {
    let version = frame.version;
    match frame.api.key {
        ApiKey::ApiVersions => answer(frame, async |r| api_versions::handle(&r)).await,
        ApiKey::Metadata => metadata::answer(kafka, frame).await,
        ApiKey::FindCoordinator => {
            answer(frame, async |r| find_coordinator::handle(kafka, version, r)).await
        }
        ApiKey::ListOffsets => {
            answer(frame, async |r| list_offsets::handle(kafka, version, r).await).await
        }
        ApiKey::OffsetForLeaderEpoch => {
            answer(frame, async |r| offset_for_leader_epoch::handle(kafka, r).await).await
        }
        ApiKey::InitProducerId => {
            answer(frame, async |r| init_producer_id::handle(kafka, r).await).await
        }
        ApiKey::CreateTopics => {
            answer(frame, async |r| create_topics::handle(kafka, version, r).await).await
        }
        ApiKey::DeleteTopics => {
            answer(frame, async |r| delete_topics::handle(kafka, version, r).await).await
        }
        ApiKey::CreatePartitions => {
            answer(frame, async |r| create_partitions::handle(kafka, r).await).await
        }
        ApiKey::DeleteRecords => {
            answer(frame, async |r| delete_records::handle(kafka, r).await).await
        }
        ApiKey::DescribeConfigs => {
            answer_charged(kafka, frame, async |r, memory| {
                describe_configs::handle(kafka, version, r, memory).await
            })
            .await
        }
        ApiKey::AlterConfigs => {
            answer(frame, async |r| alter_configs::handle(kafka, r).await).await
        }
        ApiKey::DescribeLogDirs => {
            answer(frame, async |r| describe_log_dirs::handle(kafka, version, r).await).await
        }
        ApiKey::IncrementalAlterConfigs => {
            answer(frame, async |r| incremental_alter_configs::handle(kafka, r).await).await
        }
        ApiKey::DescribeCluster => {
            answer(frame, async |r| describe_cluster::handle(kafka, version, &r)).await
        }
        ApiKey::DescribeTopicPartitions => {
            answer_charged(kafka, frame, async |r, memory| {
                describe_topic_partitions::handle(kafka, r, memory).await
            })
            .await
        }
        key => Err(RequestError::no_handler(key, version)),
    }
}

/// ApiVersions in a version that is not served is answered in version 0, which every client reads, so that the client can
/// choose a version that is (KIP-35). Anything else that is not served has no answer.
pub(super) fn answer_unsupported(error: &FrameError) -> Option<Result<Answer, RequestError>> {
    match error {
        FrameError::UnsupportedVersion { api: ApiKey::ApiVersions, correlation_id, .. } => {
            Some(encode(ApiKey::ApiVersions, 0, *correlation_id, &api_versions::unsupported()))
        }
        _ => None,
    }
}

async fn answer<R: Request>(
    frame: &Frame,
    handle: impl AsyncFnOnce(R) -> R::Response,
) -> Result<Answer, RequestError> {
    let response = handle(decode(frame)?).await;
    encode(frame.api.key, frame.version, frame.correlation_id, &response)
}

/// As [`answer`], where a short request may have a long answer.
async fn answer_charged<R: Request>(
    kafka: &Kafka,
    frame: &Frame,
    handle: impl AsyncFnOnce(R, &mut AnswerMemory) -> R::Response,
) -> Result<Answer, RequestError> {
    let mut memory = AnswerMemory::new(&kafka.answer_memory);
    let response = handle(decode(frame)?, &mut memory).await;
    let encoded = encode(frame.api.key, frame.version, frame.correlation_id, &response)?;
    drop(response);
    let memory = memory.sending(encoded.bytes.remaining());
    Ok(Answer { _memory: memory, ..encoded })
}

fn decode<R: Request>(frame: &Frame) -> Result<R, RequestError> {
    let (api, version) = (frame.api.key, frame.version);
    R::decode(&mut frame.body.clone(), version).map_err(|error| RequestError::Decode {
        api,
        version,
        reason: error.to_string(),
    })
}

fn encode<R: Encodable + HeaderVersion>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<Answer, RequestError> {
    let failed = |reason: String| RequestError::Encode { api, version, reason };
    let size = response.compute_size(version).map_err(|error| failed(error.to_string()))?;
    let mut out = BytesMut::with_capacity(size + 9);
    out.put_i32(0);
    out.put_i32(correlation_id);
    if R::header_version(version) >= 1 {
        out.put_u8(0); // no tagged fields
    }
    response.encode(&mut out, version).map_err(|error| failed(error.to_string()))?;
    finish(out).map_err(failed)
}

/// Puts size prefix and header in front of a body that was encoded here.
fn frame_parts(frame: &Frame, mut body: Parts, memory: Charge) -> Result<Answer, RequestError> {
    let mut head = BytesMut::with_capacity(9);
    let header_bytes = if frame.api.is_flexible(frame.version) { 5 } else { 4 };
    let size = body.remaining() + header_bytes;
    let prefix = i32::try_from(size).map_err(|_| RequestError::Encode {
        api: frame.api.key,
        version: frame.version,
        reason: format!("{size} bytes are more than a frame may have"),
    })?;
    head.put_i32(prefix);
    head.put_i32(frame.correlation_id);
    if header_bytes == 5 {
        head.put_u8(0); // no tagged fields
    }
    body.prepend(head.freeze());
    Ok(Answer { bytes: body, _memory: memory })
}

/// Fills in the size prefix.
fn finish(mut out: BytesMut) -> Result<Answer, String> {
    let body_bytes = out.len().saturating_sub(4);
    let prefix = i32::try_from(body_bytes)
        .map_err(|_| format!("{body_bytes} bytes are more than a frame may have"))?;
    if let Some(place) = out.get_mut(..4) {
        place.copy_from_slice(&prefix.to_be_bytes());
    }
    Ok(Answer { bytes: out.freeze().into(), _memory: Charge::default() })
}

/// Text for an answer.
fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Text for an answer that is part of the program: nothing is copied.
fn fixed(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// Text of a request, kept beyond it: a slice would keep the whole frame in memory.
fn owned(text: &StrBytes) -> String {
    text.as_str().to_owned()
}

/// Decodes a request of any API and drops it.
#[cfg(test)]
pub(super) fn decode_any(frame: &Frame) -> Result<(), RequestError> {
    use kafka_protocol::messages as m;
    match frame.api.key {
        ApiKey::Produce if frame.version < 3 => Ok(()),
        ApiKey::Produce => decode::<m::ProduceRequest>(frame).map(drop),
        ApiKey::Fetch => decode::<m::FetchRequest>(frame).map(drop),
        ApiKey::ListOffsets => decode::<m::ListOffsetsRequest>(frame).map(drop),
        ApiKey::Metadata => decode::<m::MetadataRequest>(frame).map(drop),
        ApiKey::OffsetCommit => decode::<m::OffsetCommitRequest>(frame).map(drop),
        ApiKey::OffsetFetch => decode::<m::OffsetFetchRequest>(frame).map(drop),
        ApiKey::FindCoordinator => decode::<m::FindCoordinatorRequest>(frame).map(drop),
        ApiKey::JoinGroup => decode::<m::JoinGroupRequest>(frame).map(drop),
        ApiKey::Heartbeat => decode::<m::HeartbeatRequest>(frame).map(drop),
        ApiKey::LeaveGroup => decode::<m::LeaveGroupRequest>(frame).map(drop),
        ApiKey::SyncGroup => decode::<m::SyncGroupRequest>(frame).map(drop),
        ApiKey::DescribeGroups => decode::<m::DescribeGroupsRequest>(frame).map(drop),
        ApiKey::ListGroups => decode::<m::ListGroupsRequest>(frame).map(drop),
        ApiKey::ApiVersions => decode::<m::ApiVersionsRequest>(frame).map(drop),
        ApiKey::CreateTopics => decode::<m::CreateTopicsRequest>(frame).map(drop),
        ApiKey::DeleteTopics => decode::<m::DeleteTopicsRequest>(frame).map(drop),
        ApiKey::DeleteRecords => decode::<m::DeleteRecordsRequest>(frame).map(drop),
        ApiKey::InitProducerId => decode::<m::InitProducerIdRequest>(frame).map(drop),
        ApiKey::OffsetForLeaderEpoch => decode::<m::OffsetForLeaderEpochRequest>(frame).map(drop),
        ApiKey::DescribeConfigs => decode::<m::DescribeConfigsRequest>(frame).map(drop),
        ApiKey::AlterConfigs => decode::<m::AlterConfigsRequest>(frame).map(drop),
        ApiKey::DescribeLogDirs => decode::<m::DescribeLogDirsRequest>(frame).map(drop),
        ApiKey::CreatePartitions => decode::<m::CreatePartitionsRequest>(frame).map(drop),
        ApiKey::DeleteGroups => decode::<m::DeleteGroupsRequest>(frame).map(drop),
        ApiKey::IncrementalAlterConfigs => {
            decode::<m::IncrementalAlterConfigsRequest>(frame).map(drop)
        }
        ApiKey::OffsetDelete => decode::<m::OffsetDeleteRequest>(frame).map(drop),
        ApiKey::DescribeCluster => decode::<m::DescribeClusterRequest>(frame).map(drop),
        ApiKey::DescribeTopicPartitions => {
            decode::<m::DescribeTopicPartitionsRequest>(frame).map(drop)
        }
        ApiKey::ConsumerGroupHeartbeat => {
            decode::<m::ConsumerGroupHeartbeatRequest>(frame).map(drop)
        }
        ApiKey::ConsumerGroupDescribe => decode::<m::ConsumerGroupDescribeRequest>(frame).map(drop),
        ApiKey::ShareGroupHeartbeat => decode::<m::ShareGroupHeartbeatRequest>(frame).map(drop),
        ApiKey::ShareGroupDescribe => decode::<m::ShareGroupDescribeRequest>(frame).map(drop),
        ApiKey::ShareFetch => decode::<m::ShareFetchRequest>(frame).map(drop),
        ApiKey::ShareAcknowledge => decode::<m::ShareAcknowledgeRequest>(frame).map(drop),
        ApiKey::DescribeShareGroupOffsets => {
            decode::<m::DescribeShareGroupOffsetsRequest>(frame).map(drop)
        }
        ApiKey::AlterShareGroupOffsets => {
            decode::<m::AlterShareGroupOffsetsRequest>(frame).map(drop)
        }
        ApiKey::DeleteShareGroupOffsets => {
            decode::<m::DeleteShareGroupOffsetsRequest>(frame).map(drop)
        }
        key => Err(RequestError::no_handler(key, frame.version)),
    }
}
