//! One well-filled request of each API in each version, as clients would encode it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use uuid::Uuid;

use crate::kafka::versions::Api;

fn s(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}
fn topic() -> TopicName {
    TopicName(s("topic"))
}
fn group() -> GroupId {
    GroupId(s("group"))
}
fn some_if(condition: bool, text: &'static str) -> Option<StrBytes> {
    condition.then(|| s(text))
}

fn framed<R: Request>(version: i16, request: &R) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(s("client")));
    let mut out = BytesMut::new();
    header.encode(&mut out, R::header_version(version)).expect("a legal header");
    request.encode(&mut out, version).expect("a request that is legal in this version");
    out.freeze()
}

/// The frame, without its size prefix.
pub(crate) fn sample(api: &Api, version: i16) -> Bytes {
    match api.key {
        ApiKey::Produce => produce(version),
        ApiKey::Fetch => fetch(version),
        ApiKey::JoinGroup
        | ApiKey::SyncGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::OffsetDelete => member(api.key, version),
        ApiKey::CreateTopics
        | ApiKey::DeleteTopics
        | ApiKey::CreatePartitions
        | ApiKey::DeleteRecords
        | ApiKey::DescribeConfigs
        | ApiKey::AlterConfigs
        | ApiKey::IncrementalAlterConfigs => admin(api.key, version),
        ApiKey::ConsumerGroupHeartbeat | ApiKey::ConsumerGroupDescribe => {
            consumer_group(api.key, version)
        }
        ApiKey::ShareGroupHeartbeat
        | ApiKey::ShareGroupDescribe
        | ApiKey::ShareFetch
        | ApiKey::ShareAcknowledge
        | ApiKey::DescribeShareGroupOffsets
        | ApiKey::AlterShareGroupOffsets
        | ApiKey::DeleteShareGroupOffsets => share(api.key, version),
        key => other(key, version),
    }
}

fn consumer_group(key: ApiKey, version: i16) -> Bytes {
    use consumer_group_heartbeat_request::TopicPartitions;
    if key == ApiKey::ConsumerGroupDescribe {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
        return framed(version, &request);
    }
    let owned =
        TopicPartitions::default().with_topic_id(Uuid::from_u128(3)).with_partitions(vec![1, 2]);
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(s("member"))
        .with_instance_id(Some(s("instance")))
        .with_rack_id(Some(s("rack")))
        .with_subscribed_topic_names(Some(vec![topic(), topic()]))
        .with_server_assignor(Some(s("uniform")))
        .with_topic_partitions(Some(vec![owned]));
    if version >= 1 {
        request = request.with_subscribed_topic_regex(Some(s("t.*")));
    }
    framed(version, &request)
}

/// Of share groups.
fn share(key: ApiKey, version: i16) -> Bytes {
    let id = Uuid::from_u128(3);
    match key {
        ApiKey::ShareGroupHeartbeat => {
            let request = ShareGroupHeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(s("member"))
                .with_rack_id(Some(s("rack")))
                .with_subscribed_topic_names(Some(vec![topic(), topic()]));
            framed(version, &request)
        }
        ApiKey::ShareGroupDescribe => {
            framed(version, &ShareGroupDescribeRequest::default().with_group_ids(vec![group()]))
        }
        ApiKey::ShareFetch => {
            use share_fetch_request::{
                AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic,
            };
            let batch = AcknowledgementBatch::default().with_acknowledge_types(vec![1, 2]);
            let partition =
                FetchPartition::default().with_acknowledgement_batches(vec![batch.clone(), batch]);
            let topic = FetchTopic::default()
                .with_topic_id(id)
                .with_partitions(vec![partition.clone(), partition]);
            let forgotten = ForgottenTopic::default().with_topic_id(id).with_partitions(vec![1, 2]);
            let request = ShareFetchRequest::default()
                .with_group_id(Some(group()))
                .with_member_id(Some(s("member")))
                .with_share_session_epoch(1)
                .with_topics(vec![topic.clone(), topic])
                .with_forgotten_topics_data(vec![forgotten]);
            framed(version, &request)
        }
        ApiKey::ShareAcknowledge => {
            use share_acknowledge_request::{
                AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch,
            };
            let batch = AcknowledgementBatch::default().with_acknowledge_types(vec![3]);
            let partition =
                AcknowledgePartition::default().with_acknowledgement_batches(vec![batch]);
            let topic = AcknowledgeTopic::default()
                .with_topic_id(id)
                .with_partitions(vec![partition.clone(), partition]);
            let request = ShareAcknowledgeRequest::default()
                .with_group_id(Some(group()))
                .with_member_id(Some(s("member")))
                .with_topics(vec![topic]);
            framed(version, &request)
        }
        key => share_offsets(key, version),
    }
}

fn share_offsets(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::DescribeShareGroupOffsets => {
            use describe_share_group_offsets_request::{
                DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
            };
            let topic = DescribeShareGroupOffsetsRequestTopic::default()
                .with_topic_name(topic())
                .with_partitions(vec![0, 1]);
            let group = DescribeShareGroupOffsetsRequestGroup::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic]));
            framed(version, &DescribeShareGroupOffsetsRequest::default().with_groups(vec![group]))
        }
        ApiKey::AlterShareGroupOffsets => {
            use alter_share_group_offsets_request::{
                AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
            };
            let topic = AlterShareGroupOffsetsRequestTopic::default()
                .with_topic_name(topic())
                .with_partitions(vec![AlterShareGroupOffsetsRequestPartition::default(); 2]);
            let request = AlterShareGroupOffsetsRequest::default()
                .with_group_id(group())
                .with_topics(vec![topic]);
            framed(version, &request)
        }
        _ => {
            use delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic;
            let topic = DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(topic());
            let request = DeleteShareGroupOffsetsRequest::default()
                .with_group_id(group())
                .with_topics(vec![topic]);
            framed(version, &request)
        }
    }
}

fn produce(version: i16) -> Bytes {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition =
        PartitionProduceData::default().with_index(3).with_records(Some(Bytes::from(vec![1; 300])));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![data]);
    if version >= 3 {
        return framed(version, &request);
    }
    // Without the transactional id that version 3 brought, as the codec has no older one.
    let newer = framed(3, &request);
    let header_bytes = 2 + 2 + 4 + 2 + "client".len();
    let mut older = newer[..header_bytes].to_vec();
    older[2..4].copy_from_slice(&version.to_be_bytes());
    older.extend_from_slice(&newer[header_bytes + 2..]);
    older.into()
}

fn fetch(version: i16) -> Bytes {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let partition = FetchPartition::default().with_partition(1).with_partition_max_bytes(5);
    let named = version <= 12;
    let id = if named { Uuid::nil() } else { Uuid::from_u128(9) };
    let name = if named { topic() } else { TopicName::default() };
    let asked = FetchTopic::default()
        .with_topic(name.clone())
        .with_topic_id(id)
        .with_partitions(vec![partition.clone(), partition]);
    let mut request = FetchRequest::default().with_max_wait_ms(5).with_topics(vec![asked]);
    if version >= 7 {
        let forgotten = ForgottenTopic::default()
            .with_topic(name)
            .with_topic_id(id)
            .with_partitions(vec![1, 2]);
        request = request.with_session_id(1).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 12 {
        request = request.with_cluster_id(Some(s("cluster")));
    }
    if version >= 15 {
        let state = ReplicaState::default().with_replica_id(BrokerId(4)).with_replica_epoch(5);
        request = request.with_replica_state(state);
    }
    framed(version, &request)
}

fn member(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::JoinGroup => {
            use join_group_request::JoinGroupRequestProtocol;
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(s("range"))
                .with_metadata(Bytes::from_static(b"subscription"));
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_group_instance_id(some_if(version >= 5, "instance"))
                .with_protocol_type(s("consumer"))
                .with_protocols(vec![protocol.clone(), protocol])
                .with_reason(some_if(version >= 8, "because"));
            framed(version, &request)
        }
        ApiKey::SyncGroup => {
            use sync_group_request::SyncGroupRequestAssignment;
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(s("member"))
                .with_assignment(Bytes::from_static(b"assigned"));
            let request = SyncGroupRequest::default()
                .with_group_id(group())
                .with_group_instance_id(some_if(version >= 3, "instance"))
                .with_protocol_type(some_if(version >= 5, "consumer"))
                .with_protocol_name(some_if(version >= 5, "range"))
                .with_assignments(vec![assignment]);
            framed(version, &request)
        }
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(s("member"))
                .with_group_instance_id(some_if(version >= 3, "instance"));
            framed(version, &request)
        }
        ApiKey::LeaveGroup => {
            use leave_group_request::MemberIdentity;
            let mut request = LeaveGroupRequest::default().with_group_id(group());
            if version >= 3 {
                let member = MemberIdentity::default()
                    .with_member_id(s("member"))
                    .with_reason(some_if(version >= 5, "done"));
                request = request.with_members(vec![member]);
            } else {
                request = request.with_member_id(s("member"));
            }
            framed(version, &request)
        }
        ApiKey::OffsetCommit | ApiKey::OffsetDelete => offsets(key, version),
        _ => offset_fetch(version),
    }
}

fn offsets(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::OffsetCommit => {
            use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(5)
                .with_committed_metadata(Some(s("note")));
            let topic = OffsetCommitRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default()
                .with_group_id(group())
                .with_group_instance_id(some_if(version >= 7, "instance"))
                .with_topics(vec![topic]);
            framed(version, &request)
        }
        _ => {
            use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
            framed(
                version,
                &OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![topic]),
            )
        }
    }
}

fn offset_fetch(version: i16) -> Bytes {
    use offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    let mut request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic())
            .with_partition_indexes(vec![1, 2]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![topic]));
        request = request.with_groups(vec![asked]);
    } else {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic())
            .with_partition_indexes(vec![1, 2]);
        request = request.with_group_id(group()).with_topics(Some(vec![topic]));
    }
    framed(version, &request)
}

fn admin(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::CreateTopics => {
            use create_topics_request::{
                CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
            };
            let config = CreatableTopicConfig::default().with_name(s("a")).with_value(Some(s("b")));
            let assignment =
                CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let new = CreatableTopic::default()
                .with_name(topic())
                .with_configs(vec![config])
                .with_assignments(vec![assignment]);
            framed(version, &CreateTopicsRequest::default().with_topics(vec![new]))
        }
        ApiKey::DeleteTopics => {
            use delete_topics_request::DeleteTopicState;
            let request = if version >= 6 {
                let state = DeleteTopicState::default().with_name(Some(topic()));
                DeleteTopicsRequest::default().with_topics(vec![state])
            } else {
                DeleteTopicsRequest::default().with_topic_names(vec![topic(), topic()])
            };
            framed(version, &request)
        }
        ApiKey::CreatePartitions => {
            use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
            let assignment =
                CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let more = CreatePartitionsTopic::default()
                .with_name(topic())
                .with_assignments(Some(vec![assignment]));
            framed(version, &CreatePartitionsRequest::default().with_topics(vec![more]))
        }
        ApiKey::DeleteRecords => {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let topic = DeleteRecordsTopic::default()
                .with_name(topic())
                .with_partitions(vec![DeleteRecordsPartition::default()]);
            framed(version, &DeleteRecordsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::DescribeConfigs => {
            use describe_configs_request::DescribeConfigsResource;
            let resource = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(s("topic"))
                .with_configuration_keys(Some(vec![s("a"), s("b")]));
            framed(version, &DescribeConfigsRequest::default().with_resources(vec![resource]))
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(s("a")).with_value(Some(s("b")));
            let resource = AlterConfigsResource::default()
                .with_resource_name(s("topic"))
                .with_configs(vec![config]);
            framed(version, &AlterConfigsRequest::default().with_resources(vec![resource]))
        }
        _ => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(s("a")).with_value(Some(s("b")));
            let resource = AlterConfigsResource::default()
                .with_resource_name(s("topic"))
                .with_configs(vec![config]);
            framed(
                version,
                &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
            )
        }
    }
}

fn other(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::ApiVersions => {
            let named = ApiVersionsRequest::default().with_client_software_name(s("test"));
            let request = if version >= 3 { named } else { ApiVersionsRequest::default() };
            framed(version, &request)
        }
        ApiKey::Metadata => {
            use metadata_request::MetadataRequestTopic;
            let wanted = MetadataRequestTopic::default().with_name(Some(topic()));
            framed(
                version,
                &MetadataRequest::default().with_topics(Some(vec![wanted.clone(), wanted])),
            )
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let topic = ListOffsetsTopic::default()
                .with_name(topic())
                .with_partitions(vec![ListOffsetsPartition::default(); 3]);
            framed(version, &ListOffsetsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::FindCoordinator => {
            let request = match version >= 4 {
                true => {
                    FindCoordinatorRequest::default().with_coordinator_keys(vec![s("a"), s("b")])
                }
                false => FindCoordinatorRequest::default().with_key(s("a")),
            };
            framed(version, &request)
        }
        ApiKey::DescribeGroups => {
            framed(version, &DescribeGroupsRequest::default().with_groups(vec![group(), group()]))
        }
        ApiKey::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request = request.with_states_filter(vec![s("Stable")]);
            }
            framed(version, &request)
        }
        ApiKey::DeleteGroups => {
            framed(version, &DeleteGroupsRequest::default().with_groups_names(vec![group()]))
        }
        ApiKey::InitProducerId => framed(version, &InitProducerIdRequest::default()),
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
            let topic = OffsetForLeaderTopic::default()
                .with_topic(topic())
                .with_partitions(vec![OffsetForLeaderPartition::default(); 2]);
            framed(version, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]))
        }
        ApiKey::DescribeLogDirs => {
            use describe_log_dirs_request::DescribableLogDirTopic;
            let topic =
                DescribableLogDirTopic::default().with_topic(topic()).with_partitions(vec![0, 1]);
            let topics = Some(vec![topic.clone(), topic]);
            framed(version, &DescribeLogDirsRequest::default().with_topics(topics))
        }
        ApiKey::DescribeCluster => framed(version, &DescribeClusterRequest::default()),
        ApiKey::DescribeTopicPartitions => {
            use describe_topic_partitions_request::{Cursor, TopicRequest};
            let cursor = Cursor::default().with_topic_name(topic());
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(topic())])
                .with_cursor(Some(cursor));
            framed(version, &request)
        }
        key => panic!("{key:?} is served and has no sample"),
    }
}
