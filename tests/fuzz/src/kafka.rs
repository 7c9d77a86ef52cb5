//! Kafka requests: the frame check, and the decoder behind it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeTopicPartitionsRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
    ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, RequestHeader,
    SyncGroupRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use robustmq_cloud::kafka::frame;
use robustmq_cloud::kafka::versions::APIS;
use robustmq_common::limits;

use crate::memory::bounded;

/// What the check itself may take: it allocates nothing by what it reads.
const CHECK_BYTES: usize = 4096;
/// What decoding may take besides its elements: the request and the buffers of a few strings.
const REQUEST_BYTES: usize = 4096;

/// A frame without its size prefix.
pub fn check(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let Ok(mut frame) = bounded(CHECK_BYTES, || frame::check(&data)) else { return };
    let elements = frame.shape.elements * limits::KAFKA_ELEMENT_BYTES;
    bounded(REQUEST_BYTES + data.len() + elements, || {
        decode(frame.api.key, &mut frame.body, frame.version);
    });
}

macro_rules! requests {
    ($($key:ident => $request:ty,)*) => {
        /// Decodes as the API's handler does; what comes out does not matter here.
        fn decode(key: ApiKey, body: &mut Bytes, version: i16) {
            match key {
                $(ApiKey::$key => drop(<$request>::decode(body, version)),)*
                other => panic!("{other:?} is served, and this target does not know it"),
            }
        }

        /// Every API in every version that is served, without content.
        pub(crate) fn seeds() -> Vec<Vec<u8>> {
            let mut seeds = Vec::new();
            for api in APIS {
                for version in api.min..=api.max {
                    let mut out = BytesMut::new();
                    let header = RequestHeader::default()
                        .with_request_api_key(api.key as i16)
                        .with_request_api_version(version)
                        .with_client_id(Some("fuzz".into()));
                    let header_version = api.key.request_header_version(version);
                    header.encode(&mut out, header_version).expect("a plain header");
                    let encoded = match api.key {
                        $(ApiKey::$key => <$request>::default().encode(&mut out, version),)*
                        other => panic!("{other:?} is served, and this target does not know it"),
                    };
                    if encoded.is_ok() {
                        seeds.push(out.to_vec());
                    }
                }
            }
            seeds
        }
    };
}

requests! {
    Produce => ProduceRequest,
    Fetch => FetchRequest,
    ListOffsets => ListOffsetsRequest,
    Metadata => MetadataRequest,
    OffsetCommit => OffsetCommitRequest,
    OffsetFetch => OffsetFetchRequest,
    FindCoordinator => FindCoordinatorRequest,
    JoinGroup => JoinGroupRequest,
    Heartbeat => HeartbeatRequest,
    LeaveGroup => LeaveGroupRequest,
    SyncGroup => SyncGroupRequest,
    DescribeGroups => DescribeGroupsRequest,
    ListGroups => ListGroupsRequest,
    ApiVersions => ApiVersionsRequest,
    CreateTopics => CreateTopicsRequest,
    DeleteTopics => DeleteTopicsRequest,
    DeleteRecords => DeleteRecordsRequest,
    InitProducerId => InitProducerIdRequest,
    OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
    DescribeConfigs => DescribeConfigsRequest,
    AlterConfigs => AlterConfigsRequest,
    CreatePartitions => CreatePartitionsRequest,
    DeleteGroups => DeleteGroupsRequest,
    IncrementalAlterConfigs => IncrementalAlterConfigsRequest,
    OffsetDelete => OffsetDeleteRequest,
    DescribeCluster => DescribeClusterRequest,
    DescribeTopicPartitions => DescribeTopicPartitionsRequest,
}
