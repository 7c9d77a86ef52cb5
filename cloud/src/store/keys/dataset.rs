//! Dataset topics: what their sources hold, and what was found in it.
//!
//! ```text
//! 0x50 dataset   topic_id(16)                        -> JSON: how much was listed
//! 0x51 manifest  topic_id(16) chunk(4)               -> zstd of objects, in the order in which they were listed
//! 0x52 index     group(16) object(16)                -> JSON: what an object holds
//! 0x53 epoch     topic_id(16) partition(4) epoch(4)  -> version(1) first_offset(8) objects(8)
//! 0x54 promise   group(16) object(16)                -> version(1) records(8)
//! ```
//!
//! A dataset's key is written before its manifest, and stays when its topic was not created after all: at the next start it goes, with its
//! manifest. Indexes and promises belong to a group of topics, those with the same source and format, and go with the last of them.
//!
//! A promise is there as long as an object is being indexed: so many of its records have offsets. It is written before they may be read, and goes
//! with the write that brings the index.

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

/// All keys of a topic but for those of its objects, which its group has.
#[must_use]
pub fn ranges_of_topic(topic: TopicId) -> [Range<Bytes>; 3] {
    [Family::Dataset, Family::Manifest, Family::Epoch]
        .map(|family| prefix_range(&of_topic(family, topic, 0)))
}

fn of_object(family: Family, group: u128, object: u128) -> Bytes {
    let mut key = family.start(32);
    key.put_u128(group);
    key.put_u128(object);
    key.freeze()
}

/// The key of an object's index.
#[must_use]
pub fn index_key(group: u128, object: u128) -> Bytes {
    of_object(Family::ObjectIndex, group, object)
}

/// The key of what is promised of an object.
#[must_use]
pub fn promise_key(group: u128, object: u128) -> Bytes {
    of_object(Family::Promise, group, object)
}

/// So many records of an object have offsets.
#[must_use]
pub fn encode_promise(records: u64) -> Bytes {
    let mut value = BytesMut::with_capacity(9);
    value.put_u8(VALUE_VERSION);
    value.put_u64(records);
    value.freeze()
}

/// How many records [`encode_promise`] was given.
///
/// # Errors
/// [`ValueError`] if the value has another layout.
pub fn decode_promise(value: &[u8]) -> Result<u64, ValueError> {
    let mut reader = Reader::new(value);
    reader.version(VALUE_VERSION)?;
    let records = u64::from_be_bytes(reader.array()?);
    reader.end()?;
    Ok(records)
}

/// The families whose keys are of groups.
pub const FAMILIES_OF_GROUPS: [Family; 2] = [Family::ObjectIndex, Family::Promise];

/// All keys of a family of a group, which is one of [`FAMILIES_OF_GROUPS`].
#[must_use]
pub fn of_group(family: Family, group: u128) -> Range<Bytes> {
    let mut prefix = family.start(16);
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
        Family, StoredEpoch, dataset_key, decode_promise, encode_promise, epochs_of, index_key,
        manifest_key, of_group, parse_dataset_key, promise_key, ranges_of_topic,
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
        let of_object =
            |family: u8| [&[family][..], &5_u128.to_be_bytes(), &9_u128.to_be_bytes()].concat();
        for (family, key) in
            [(Family::ObjectIndex, index_key(5, 9)), (Family::Promise, promise_key(5, 9))]
        {
            assert_eq!(&key[..], of_object(family as u8));
            assert!(of_group(family, 5).contains(&key) && !of_group(family, 6).contains(&key));
        }
        assert_eq!(promise_key(5, 9)[0], 0x54);
        assert_eq!(&encode_promise(258)[..], [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(decode_promise(&encode_promise(258)), Ok(258));
        assert!(decode_promise(&encode_promise(258)[1..]).is_err());
    }
}
