//! Objects of `tiered` topics: those that hold records, and those that are not to be there.
//!
//! ```text
//! 0x40 archived  topic_id(16) partition(4) last_offset(8)   -> version(1) base_offset(8) object_id(16) data_bytes(8) footer_bytes(4)
//! 0x41 doomed    topic_id(16) partition(4) object_id(16)    -> version(1) base_offset(8)
//! ```
//!
//! An object is noted as doomed before it is put, and is archived in the write that takes the note away. So whatever crashes, an
//! object is one of the two, and none is forgotten.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use uuid::Uuid;

use super::partition::PartitionKeys;
use super::{Family, Reader, ValueError, prefix_range};

const VALUE_VERSION: u8 = 1;

/// An object that holds the records of a range of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// The first offset of its first batch.
    pub base_offset: Offset,
    /// The last offset of its last batch.
    pub last_offset: Offset,
    /// What its name ends in.
    pub object: Uuid,
    /// Bytes of batches, from its start on.
    pub data_bytes: u64,
    /// Bytes of the footer behind them.
    pub footer_bytes: u32,
}

/// An object that is to be removed, if it is there at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doomed {
    /// Whose it was.
    pub keys: PartitionKeys,
    /// What its name ends in.
    pub object: Uuid,
    /// The first offset of its first batch, which is in its name.
    pub base_offset: Offset,
}

fn start(family: Family, keys: &PartitionKeys) -> BytesMut {
    let mut key = family.start(36);
    key.put_slice(keys.topic.as_bytes());
    key.put_i32(keys.partition.0);
    key
}

/// The objects of `keys` that hold offsets from `from` on, in the order of offsets.
#[must_use]
pub fn archived_from(keys: &PartitionKeys, from: Offset) -> Range<Bytes> {
    let prefix = start(Family::Archived, keys);
    let end = prefix_range(&prefix).end;
    let mut first = prefix;
    first.put_i64(from.0.max(0));
    first.freeze()..end
}

/// All archived objects of a topic.
#[must_use]
pub fn archived_of_topic(topic: TopicId) -> Range<Bytes> {
    let mut prefix = Family::Archived.start(16);
    prefix.put_slice(topic.as_bytes());
    prefix_range(&prefix)
}

/// Partition and last offset of an archived object's key.
fn parse_key(
    family: Family,
    key: &[u8],
    rest: usize,
) -> Result<(PartitionKeys, &[u8]), ValueError> {
    let mut reader = Reader::new(key);
    if reader.u8()? != family as u8 {
        return Err(ValueError::Field("family"));
    }
    let topic = TopicId(Uuid::from_bytes(reader.array()?));
    let partition = PartitionIndex(reader.i32()?);
    let tail = reader.rest();
    if tail.len() != rest {
        return Err(ValueError::Field("key"));
    }
    Ok((PartitionKeys { topic, partition }, tail))
}

impl Archived {
    /// The same object, when it is not to be there any more.
    #[must_use]
    pub fn doomed(&self, keys: &PartitionKeys) -> Doomed {
        Doomed { keys: *keys, object: self.object, base_offset: self.base_offset }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self, keys: &PartitionKeys) -> Bytes {
        let mut key = start(Family::Archived, keys);
        key.put_i64(self.last_offset.0);
        key.freeze()
    }

    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = Vec::with_capacity(37);
        value.put_u8(VALUE_VERSION);
        value.put_i64(self.base_offset.0);
        value.put_slice(self.object.as_bytes());
        value.put_u64(self.data_bytes);
        value.put_u32(self.footer_bytes);
        value.into()
    }

    /// Reads a key and its value.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<(PartitionKeys, Self), ValueError> {
        let (keys, last) = parse_key(Family::Archived, key, 8)?;
        let last_offset = Offset(Reader::new(last).i64()?);
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let archived = Self {
            base_offset: Offset(reader.i64()?),
            last_offset,
            object: Uuid::from_bytes(reader.array()?),
            data_bytes: reader.u64()?,
            footer_bytes: reader.u32()?,
        };
        reader.end()?;
        match archived.base_offset.0 < 0 || archived.base_offset > last_offset {
            true => Err(ValueError::Field("base_offset")),
            false => Ok((keys, archived)),
        }
    }
}

impl Doomed {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> Bytes {
        let mut key = start(Family::Doomed, &self.keys);
        key.put_slice(self.object.as_bytes());
        key.freeze()
    }

    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = Vec::with_capacity(9);
        value.put_u8(VALUE_VERSION);
        value.put_i64(self.base_offset.0);
        value.into()
    }

    /// Reads a key and its value.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, ValueError> {
        let (keys, object) = parse_key(Family::Doomed, key, 16)?;
        let object = Uuid::from_bytes(Reader::new(object).array()?);
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let base_offset = Offset(reader.i64()?);
        reader.end()?;
        Ok(Self { keys, object, base_offset })
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
    use uuid::Uuid;

    use super::{Archived, Doomed, archived_from, archived_of_topic};
    use crate::store::keys::partition::PartitionKeys;

    const KEYS: PartitionKeys =
        PartitionKeys { topic: TopicId(Uuid::from_bytes([7; 16])), partition: PartitionIndex(3) };

    const ARCHIVED: Archived = Archived {
        base_offset: Offset(5),
        last_offset: Offset(9),
        object: Uuid::from_bytes([8; 16]),
        data_bytes: 1000,
        footer_bytes: 50,
    };

    #[test]
    fn golden_bytes() {
        let topic = [7; 16];
        let key = [&[0x40][..], &topic, &[0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 0, 9]].concat();
        assert_eq!(&ARCHIVED.key(&KEYS)[..], key);
        let value =
            [&[1, 0, 0, 0, 0, 0, 0, 0, 5][..], &[8; 16], &[0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 0, 50]]
                .concat();
        assert_eq!(&ARCHIVED.encode()[..], value);
        assert_eq!(Archived::decode(&key, &value), Ok((KEYS, ARCHIVED)));

        let object = Uuid::from_bytes([8; 16]);
        let doomed = Doomed { keys: KEYS, object, base_offset: Offset(5) };
        let key = [&[0x41][..], &topic, &[0, 0, 0, 3], &[8; 16]].concat();
        assert_eq!(&doomed.key()[..], key);
        let value = [1, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(&doomed.encode()[..], value);
        assert_eq!(Doomed::decode(&key, &value), Ok(doomed));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let (key, value) = (ARCHIVED.key(&KEYS), ARCHIVED.encode());
        assert!(Archived::decode(&key[..20], &value).is_err());
        assert!(Archived::decode(&key, &value[..10]).is_err());
        assert!(Archived::decode(&key, &[&value[..], &[0]].concat()).is_err());
        let late = Archived { base_offset: Offset(10), ..ARCHIVED };
        assert!(Archived::decode(&key, &late.encode()).is_err());
        assert!(Doomed::decode(&key, &value).is_err());
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let key = ARCHIVED.key(&KEYS);
        for (from, inside) in [(0, true), (9, true), (10, false)] {
            assert_eq!(archived_from(&KEYS, Offset(from)).contains(&key), inside, "{from}");
        }
        let other = PartitionKeys { partition: PartitionIndex(4), ..KEYS };
        assert!(!archived_from(&other, Offset(0)).contains(&key));
        assert!(archived_of_topic(KEYS.topic).contains(&key));
        assert!(!archived_of_topic(TopicId(Uuid::from_bytes([6; 16]))).contains(&key));
    }
}
