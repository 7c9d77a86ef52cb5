//! Consumer groups.
//!
//! ```text
//! 0x20 group 0x00 0x00 'c'                              -> JSON: the configuration that the group sets (shared groups)
//! 0x20 group 0x00 0x00 'm'                              -> JSON: generation, protocol, members that outlive a restart
//! 0x20 group 0x00 0x00 'o' topic_id(16) partition(4)    -> JSON: committed offset, leader epoch, metadata, time
//! 0x20 group 0x00 0x00 's' name                         -> a snapshot of the progress of a group that shares records
//! ```
//!
//! Offsets are kept by topic id, so that a topic created again under an old name starts afresh.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::ids::{PartitionIndex, TopicId};

use super::{Family, Reader, ValueError, prefix_range};

fn group_prefix(group: &str) -> BytesMut {
    let mut key = Family::Group.start(group.len() + 24);
    super::text::put(&mut key, group);
    key
}

/// Everything of one group.
#[must_use]
pub fn group_range(group: &str) -> Range<Bytes> {
    prefix_range(&group_prefix(group))
}

/// The key of the group's durable metadata.
#[must_use]
pub fn metadata_key(group: &str) -> Bytes {
    let mut key = group_prefix(group);
    key.put_u8(b'm');
    key.freeze()
}

/// The key of what the group sets of its configuration.
#[must_use]
pub fn config_key(group: &str) -> Bytes {
    let mut key = group_prefix(group);
    key.put_u8(b'c');
    key.freeze()
}

/// The key of one committed offset.
#[must_use]
pub fn offset_key(group: &str, topic: TopicId, partition: PartitionIndex) -> Bytes {
    let mut key = group_prefix(group);
    key.put_u8(b'o');
    key.put_slice(topic.as_bytes());
    key.put_i32(partition.0);
    key.freeze()
}

/// All committed offsets of one group.
#[must_use]
pub fn offsets_range(group: &str) -> Range<Bytes> {
    let mut key = group_prefix(group);
    key.put_u8(b'o');
    prefix_range(&key)
}

/// All committed offsets of one group for one topic.
#[must_use]
pub fn topic_offsets_range(group: &str, topic: TopicId) -> Range<Bytes> {
    let mut key = group_prefix(group);
    key.put_u8(b'o');
    key.put_slice(topic.as_bytes());
    prefix_range(&key)
}

/// The key of a snapshot of a group's progress.
#[must_use]
pub fn snapshot_key(group: &str, name: &str) -> Bytes {
    let mut key = group_prefix(group);
    key.put_u8(b's');
    super::text::put(&mut key, name);
    key.freeze()
}

/// All snapshots of one group.
#[must_use]
pub fn snapshots_range(group: &str) -> Range<Bytes> {
    let mut key = group_prefix(group);
    key.put_u8(b's');
    prefix_range(&key)
}

/// What a key of this family stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupKey {
    /// See [`config_key`].
    Config {
        /// The group.
        group: String,
    },
    /// See [`metadata_key`].
    Metadata {
        /// The group.
        group: String,
    },
    /// See [`offset_key`].
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionIndex,
    },
    /// See [`snapshot_key`].
    Snapshot {
        /// The group.
        group: String,
        /// The snapshot's name.
        name: String,
    },
}

impl GroupKey {
    /// Reads a key.
    ///
    /// # Errors
    /// [`ValueError`] if it has another layout.
    pub fn parse(key: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(key);
        reader.version(Family::Group as u8)?;
        let group = reader.text()?;
        let parsed = match reader.u8()? {
            b'c' => Self::Config { group },
            b'm' => Self::Metadata { group },
            b'o' => Self::Offset {
                group,
                topic: TopicId(uuid::Uuid::from_bytes(reader.array()?)),
                partition: PartitionIndex(reader.i32()?),
            },
            b's' => Self::Snapshot { group, name: reader.text()? },
            kind => return Err(ValueError::Version(kind)),
        };
        reader.end()?;
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{PartitionIndex, TopicId};
    use uuid::Uuid;

    use super::{
        GroupKey, config_key, group_range, metadata_key, offset_key, offsets_range, snapshot_key,
        snapshots_range,
    };

    #[test]
    fn golden_bytes() {
        let topic = TopicId(Uuid::from_bytes([9; 16]));
        let key = offset_key("g", topic, PartitionIndex(2));
        assert_eq!(&key[..], [&b"\x20g\0\0o"[..], &[9; 16], &[0, 0, 0, 2]].concat());
        assert_eq!(&metadata_key("g")[..], b"\x20g\0\0m");
        assert_eq!(&snapshot_key("g", "n")[..], b"\x20g\0\0sn\0\0");
        let snapshot = GroupKey::Snapshot { group: "g".to_owned(), name: "n".to_owned() };
        assert_eq!(GroupKey::parse(&snapshot_key("g", "n")), Ok(snapshot));
        assert!(snapshots_range("g").contains(&snapshot_key("g", "n")));
        let parsed =
            GroupKey::Offset { group: "g".to_owned(), topic, partition: PartitionIndex(2) };
        assert_eq!(GroupKey::parse(&key), Ok(parsed));
        assert_eq!(
            GroupKey::parse(&config_key("g")),
            Ok(GroupKey::Config { group: "g".to_owned() })
        );
        assert_eq!(
            GroupKey::parse(&metadata_key("g")),
            Ok(GroupKey::Metadata { group: "g".to_owned() })
        );
    }

    #[test]
    fn a_groups_range_holds_its_keys_only() {
        let topic = TopicId(Uuid::from_bytes([0xff; 16]));
        assert!(group_range("g").contains(&offset_key("g", topic, PartitionIndex(i32::MAX))));
        assert!(offsets_range("g").contains(&offset_key("g", topic, PartitionIndex(0))));
        assert!(!offsets_range("g").contains(&metadata_key("g")));
        assert!(!group_range("g").contains(&metadata_key("gg")));
        assert!(!group_range("g").contains(&metadata_key("g\0")));
    }
}
