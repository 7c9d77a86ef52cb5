//! Dataset topics: what their sources hold, and what was found in it.
//!
//! ```text
//! 0x50 dataset   topic_id(16)                        -> JSON: how much was listed
//! 0x51 manifest  topic_id(16) chunk(4)               -> zstd of objects, in the order in which they were listed
//! 0x52 index     group(16) object(16)                -> JSON: what an object holds
//! 0x53 epoch     topic_id(16) partition(4) epoch(4)  -> version(1) first_offset(8) objects(8)
//! ```
//!
//! A dataset's key is written before its manifest, and stays when its topic was not created after all: at the next start it goes, with its
//! manifest. Indexes belong to a group of topics, those with the same source and format, and go with the last of them.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use uuid::Uuid;

use super::{Family, Reader, ValueError, prefix_range};

const VALUE_VERSION: u8 = 1;

fn of_topic(family: Family, topic: TopicId, more: usize) -> BytesMut {
    let mut key = family.start(16 + more);
    key.put_slice(topic.as_bytes());
    key
}

/// The key of a dataset.
#[must_use]
pub fn dataset_key(topic: TopicId) -> Bytes {
    of_topic(Family::Dataset, topic, 0).freeze()
}

/// The topic of a [`dataset_key`].
///
/// # Errors
/// [`ValueError`] if the key has another layout.
pub fn parse_dataset_key(key: &[u8]) -> Result<TopicId, ValueError> {
    let mut reader = Reader::new(key);
    reader.version(Family::Dataset as u8)?;
    let id = TopicId(Uuid::from_bytes(reader.array()?));
    reader.end()?;
    Ok(id)
}

/// The key of a part of a topic's manifest.
#[must_use]
pub fn manifest_key(topic: TopicId, chunk: u32) -> Bytes {
    let mut key = of_topic(Family::Manifest, topic, 4);
    key.put_u32(chunk);
    key.freeze()
}

/// All keys of a topic but for the indexes of its objects.
#[must_use]
pub fn ranges_of_topic(topic: TopicId) -> [Range<Bytes>; 3] {
    [Family::Dataset, Family::Manifest, Family::Epoch]
        .map(|family| prefix_range(&of_topic(family, topic, 0)))
}

/// The key of an object's index.
#[must_use]
pub fn index_key(group: u128, object: u128) -> Bytes {
    let mut key = Family::ObjectIndex.start(32);
    key.put_u128(group);
    key.put_u128(object);
    key.freeze()
}

/// All indexes of a group.
#[must_use]
pub fn indexes_of_group(group: u128) -> Range<Bytes> {
    let mut prefix = Family::ObjectIndex.start(16);
    prefix.put_u128(group);
    prefix_range(&prefix)
}

/// Where an epoch begins, and how many of the partition's objects it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEpoch {
    /// Counts from 0.
    pub epoch: u32,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// Objects of the partition, in the order of the manifest.
    pub objects: u64,
}

/// All epochs of a partition, in order.
#[must_use]
pub fn epochs_of(topic: TopicId, partition: PartitionIndex) -> Range<Bytes> {
    let mut prefix = of_topic(Family::Epoch, topic, 4);
    prefix.put_i32(partition.0);
    prefix_range(&prefix)
}

impl StoredEpoch {
    /// Its key.
    #[must_use]
    pub fn key(&self, topic: TopicId, partition: PartitionIndex) -> Bytes {
        let mut key = of_topic(Family::Epoch, topic, 8);
        key.put_i32(partition.0);
        key.put_u32(self.epoch);
        key.freeze()
    }

    /// Its value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(17);
        value.put_u8(VALUE_VERSION);
        value.put_i64(self.first_offset.0);
        value.put_u64(self.objects);
        value.freeze()
    }

    /// From key and value.
    ///
    /// # Errors
    /// [`ValueError`] if one has another layout.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(key);
        reader.version(Family::Epoch as u8)?;
        let _topic: [u8; 16] = reader.array()?;
        let _partition = reader.i32()?;
        let epoch = u32::from_be_bytes(reader.array()?);
        reader.end()?;
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let first_offset = Offset(reader.i64()?);
        let objects = u64::from_be_bytes(reader.array()?);
        reader.end()?;
        Ok(Self { epoch, first_offset, objects })
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
    use uuid::Uuid;

    use super::{
        StoredEpoch, dataset_key, epochs_of, index_key, indexes_of_group, manifest_key,
        parse_dataset_key, ranges_of_topic,
    };

    #[test]
    fn golden_bytes() {
        let id = TopicId(Uuid::from_bytes([7; 16]));
        let of = |family: u8, rest: &[u8]| [&[family][..], &[7; 16], rest].concat();
        assert_eq!(&dataset_key(id)[..], of(0x50, &[]));
        assert_eq!(parse_dataset_key(&dataset_key(id)), Ok(id));
        assert_eq!(&manifest_key(id, 258)[..], of(0x51, &[0, 0, 1, 2]));
        let epoch = StoredEpoch { epoch: 3, first_offset: Offset(9), objects: 5 };
        let key = epoch.key(id, PartitionIndex(1));
        assert_eq!(&key[..], of(0x53, &[0, 0, 0, 1, 0, 0, 0, 3]));
        let value = [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(&epoch.encode()[..], value);
        assert_eq!(StoredEpoch::decode(&key, &value), Ok(epoch));
        assert!(StoredEpoch::decode(&key, &value[1..]).is_err());
        assert!(epochs_of(id, PartitionIndex(1)).contains(&key));
        assert!(!epochs_of(id, PartitionIndex(2)).contains(&key));
        assert!(ranges_of_topic(id).iter().any(|range| range.contains(&key)));
        assert!(indexes_of_group(5).contains(&index_key(5, 9)));
        assert!(!indexes_of_group(6).contains(&index_key(5, 9)));
    }
}
