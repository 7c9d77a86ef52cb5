//! The one table of what this broker serves: API, versions, shape of the request.
//!
//! **Invariant:** a range here is what the code really implements. Clients (librdkafka above all) decide from it which
//! features they use. The one exception is Produce, which Apache Kafka also advertises from 0: 0-2 carry message
//! formats that no longer exist and are answered UNSUPPORTED_FOR_MESSAGE_FORMAT.

use kafka_protocol::messages::ApiKey;

use super::schema::{self, Layout};

/// One API.
#[derive(Debug)]
pub struct Api {
    /// Which one.
    pub key: ApiKey,
    /// The oldest version served.
    pub min: i16,
    /// The newest version served.
    pub max: i16,
    pub(crate) layout: &'static Layout,
}

impl Api {
    /// Whether a version is served.
    #[must_use]
    pub fn has(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether a version has compact lengths and tagged fields (KIP-482).
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.layout.flexible
    }
}

const fn api(key: ApiKey, min: i16, max: i16, layout: &'static Layout) -> Api {
    Api { key, min, max, layout }
}

/// Every API served, by key.
pub static APIS: &[Api] = &[
    // 12 and 13 are transactions version 2 and topic ids.
    api(ApiKey::Produce, 0, 11, &schema::PRODUCE),
    // 17 and 18 are for replicas.
    api(ApiKey::Fetch, 4, 16, &schema::FETCH),
    // 10 brings a timeout for remote reads.
    api(ApiKey::ListOffsets, 1, 9, &schema::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &schema::METADATA),
    // 10 of both has topic ids.
    api(ApiKey::OffsetCommit, 2, 9, &schema::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1, 9, &schema::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 5, &schema::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0, 9, &schema::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0, 4, &schema::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0, 5, &schema::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0, 5, &schema::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0, 6, &schema::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0, 5, &schema::LIST_GROUPS),
    api(ApiKey::ApiVersions, 0, 4, &schema::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &schema::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &schema::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &schema::DELETE_RECORDS),
    api(ApiKey::InitProducerId, 0, 5, &schema::INIT_PRODUCER_ID),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, &schema::OFFSET_FOR_LEADER_EPOCH),
    api(ApiKey::DescribeConfigs, 1, 4, &schema::DESCRIBE_CONFIGS),
    api(ApiKey::AlterConfigs, 0, 2, &schema::ALTER_CONFIGS),
    api(ApiKey::DescribeLogDirs, 1, 4, &schema::DESCRIBE_LOG_DIRS),
    api(ApiKey::CreatePartitions, 0, 3, &schema::CREATE_PARTITIONS),
    api(ApiKey::DeleteGroups, 0, 2, &schema::DELETE_GROUPS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, &schema::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::OffsetDelete, 0, 0, &schema::OFFSET_DELETE),
    api(ApiKey::DescribeCluster, 0, 2, &schema::DESCRIBE_CLUSTER),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1, &schema::CONSUMER_GROUP_HEARTBEAT),
    api(ApiKey::ConsumerGroupDescribe, 0, 1, &schema::CONSUMER_GROUP_DESCRIBE),
    api(ApiKey::DescribeTopicPartitions, 0, 0, &schema::DESCRIBE_TOPIC_PARTITIONS),
    // 0 of these four was an early release's.
    api(ApiKey::ShareGroupHeartbeat, 1, 1, &schema::SHARE_GROUP_HEARTBEAT),
    api(ApiKey::ShareGroupDescribe, 1, 1, &schema::SHARE_GROUP_DESCRIBE),
    api(ApiKey::ShareFetch, 1, 1, &schema::SHARE_FETCH),
    api(ApiKey::ShareAcknowledge, 1, 1, &schema::SHARE_ACKNOWLEDGE),
    api(ApiKey::DescribeShareGroupOffsets, 0, 0, &schema::DESCRIBE_SHARE_GROUP_OFFSETS),
    api(ApiKey::AlterShareGroupOffsets, 0, 0, &schema::ALTER_SHARE_GROUP_OFFSETS),
    api(ApiKey::DeleteShareGroupOffsets, 0, 0, &schema::DELETE_SHARE_GROUP_OFFSETS),
];

/// The entry of an API by its number on the wire.
#[must_use]
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

#[cfg(test)]
mod tests {
    use super::{APIS, find};

    #[test]
    fn the_table_is_sorted_and_has_each_api_once() {
        assert!(APIS.windows(2).all(|pair| (pair[0].key as i16) < pair[1].key as i16));
    }

    #[test]
    fn ranges_lie_within_what_the_codec_knows() {
        for api in APIS {
            let known = api.key.valid_versions();
            assert!(api.max <= known.max && api.min <= api.max, "{:?}", api.key);
            // Produce 0-2 is read by the walker alone.
            assert!(api.min >= known.min || api.key as i16 == 0, "{:?}", api.key);
        }
    }

    #[test]
    fn flexible_versions_agree_with_the_codec() {
        for api in APIS {
            for version in api.min..=api.max {
                let header = api.key.request_header_version(version);
                assert_eq!(header == 2, api.is_flexible(version), "{:?} {version}", api.key);
            }
        }
    }

    #[test]
    fn find_knows_exactly_the_table() {
        assert!(find(0).is_some_and(|api| api.has(0) && api.has(11) && !api.has(12)));
        assert!(find(4).is_none(), "LeaderAndIsr is between brokers");
        assert!(find(-1).is_none() && find(i16::MAX).is_none());
    }
}
