//! Everything of one partition.
//!
//! ```text
//! 0x80 topic_id(16) partition(4) kind(1):
//!   0x10 batch      last_offset(8)                        -> batch bytes
//!   0x20 chunk      last_offset(8)                        -> base_offset(8) bytes(8) max_timestamp(8)
//!   0x30 end                                              -> next_offset(8) leader_epoch(4) open chunk(24)
//!   0x31 start                                            -> log_start(8)
//!   0x32 cleaned                                          -> first_dirty(8) pass_end(8) next(8) horizon(8)
//!   0x33 reserved                                         -> offset(8): those below it may have been given to records that
//!                                                            were in memory only; there while the mode is a volatile one
//!   0x34 archived                                         -> offset(8): those below it are in archived objects, or deleted
//!   0x40 epoch      leader_epoch(4)                       -> start_offset(8)
//!   0x50 producer   producer_id(8)                        -> epoch(2) time(8) count(1), then for each of the last
//!                                                            batches first_sequence(4) last_offset(8) delta(4) time(8)
//!   0x60 origin     edge 0x00 0x00 incarnation(8) lane(1) -> edge sequence(8)
//!   0x70 share      group                                 -> progress of a shared group (`group::shared::progress`)
//!   0x80 txn, 0x81 aborted                                reserved
//! ```
//!
//! A batch's key ends in its **last** offset: the first key at or after `n` is that of the batch that holds offset `n`.
//! Offsets are never negative, so their big-endian bytes sort as they do. Each value starts with a version byte, batch
//! bytes excepted. `end` is written by appends and `start` by retention: never in one value, so that neither can undo the
//! other.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::ids::{
    EdgeId, EdgeSeq, Incarnation, LaneId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch,
    ProducerId, TopicId,
};

use super::{Family, Reader, ValueError, prefix_range};

const VALUE_VERSION: u8 = 1;

/// What follows `topic_id partition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Record batches.
    Batch = 0x10,
    /// The index over about each megabyte of batches.
    Chunk = 0x20,
    /// Where the next append goes.
    End = 0x30,
    /// Below it nothing is readable.
    Start = 0x31,
    /// How far the log is compacted.
    Cleaned = 0x32,
    /// Offsets that a volatile mode may have given.
    Reserved = 0x33,
    /// Offsets below it are in archived objects.
    ArchivedTo = 0x34,
    /// Where each leader epoch started.
    Epoch = 0x40,
    /// Idempotent producers.
    Producer = 0x50,
    /// Edge sequences applied.
    Origin = 0x60,
    /// Progress of shared groups.
    Share = 0x70,
    /// Open transactions.
    Transaction = 0x80,
    /// Aborted transactions.
    Aborted = 0x81,
}

/// Makes the keys of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartitionKeys {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
}

impl PartitionKeys {
    fn start(&self, kind: Kind, capacity: usize) -> BytesMut {
        let mut key = Family::Partition.start(21 + capacity);
        key.put_slice(self.topic.as_bytes());
        key.put_i32(self.partition.0);
        key.put_u8(kind as u8);
        key
    }

    fn at(&self, kind: Kind, offset: Offset) -> Bytes {
        let mut key = self.start(kind, 8);
        key.put_i64(offset.0);
        key.freeze()
    }

    /// All keys of one kind.
    #[must_use]
    pub fn kind_range(&self, kind: Kind) -> Range<Bytes> {
        prefix_range(&self.start(kind, 0))
    }

    /// The key of the batch whose last offset is `last`.
    #[must_use]
    pub fn batch(&self, last: Offset) -> Bytes {
        self.at(Kind::Batch, last)
    }

    /// The batches that hold any of the offsets `from` to `to` (exclusive), and end below `to`.
    #[must_use]
    pub fn batches(&self, from: Offset, to: Offset) -> Range<Bytes> {
        self.batch(from)..self.batch(to)
    }

    /// The key of the chunk whose last offset is `last`.
    #[must_use]
    pub fn chunk(&self, last: Offset) -> Bytes {
        self.at(Kind::Chunk, last)
    }

    /// The closed chunks that hold `from` or come after it.
    #[must_use]
    pub fn chunks_from(&self, from: Offset) -> Range<Bytes> {
        self.chunk(from)..self.kind_range(Kind::Chunk).end
    }

    /// The key of [`LogEnd`].
    #[must_use]
    pub fn end(&self) -> Bytes {
        self.start(Kind::End, 0).freeze()
    }

    /// The key of the log start offset.
    #[must_use]
    pub fn log_start(&self) -> Bytes {
        self.start(Kind::Start, 0).freeze()
    }

    /// The key of [`Cleaned`].
    #[must_use]
    pub fn cleaned(&self) -> Bytes {
        self.start(Kind::Cleaned, 0).freeze()
    }

    /// The key of the offset below which all may have been given, of a partition in a volatile mode.
    #[must_use]
    pub fn reserved(&self) -> Bytes {
        self.start(Kind::Reserved, 0).freeze()
    }

    /// The key of the offset below which all is in archived objects.
    #[must_use]
    pub fn archived_to(&self) -> Bytes {
        self.start(Kind::ArchivedTo, 0).freeze()
    }

    /// The key of a leader epoch's first offset.
    #[must_use]
    pub fn epoch(&self, epoch: LeaderEpoch) -> Bytes {
        let mut key = self.start(Kind::Epoch, 4);
        key.put_i32(epoch.0);
        key.freeze()
    }

    /// The key of a producer.
    #[must_use]
    pub fn producer(&self, producer: ProducerId) -> Bytes {
        let mut key = self.start(Kind::Producer, 8);
        key.put_i64(producer.0);
        key.freeze()
    }

    /// The key of what was applied of one lane.
    #[must_use]
    pub fn origin(&self, edge: &EdgeId, incarnation: Incarnation, lane: LaneId) -> Bytes {
        let mut key = self.start(Kind::Origin, edge.as_str().len() + 11);
        super::text::put(&mut key, edge.as_str());
        key.put_u64(incarnation.0);
        key.put_u8(lane.0);
        key.freeze()
    }

    /// The key of a shared group's progress.
    #[must_use]
    pub fn share(&self, group: &str) -> Bytes {
        let mut key = self.start(Kind::Share, group.len() + 2);
        super::text::put(&mut key, group);
        key.freeze()
    }
}

/// Every key of every partition of a topic.
#[must_use]
pub fn topic_range(topic: TopicId) -> Range<Bytes> {
    let mut prefix = Family::Partition.start(16);
    prefix.put_slice(topic.as_bytes());
    prefix_range(&prefix)
}

/// The topic of any of these keys.
///
/// # Errors
/// [`ValueError`].
pub fn parse_topic(key: &[u8]) -> Result<TopicId, ValueError> {
    let mut reader = Reader::new(key);
    reader.version(Family::Partition as u8)?;
    Ok(TopicId(uuid::Uuid::from_bytes(reader.array()?)))
}

/// The number that ends a batch's, a chunk's or a producer's key.
///
/// # Errors
/// [`ValueError::Short`].
pub fn trailing_number(key: &[u8]) -> Result<i64, ValueError> {
    key.last_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes)).ok_or(ValueError::Short)
}

/// The leader epoch that ends an epoch's key.
///
/// # Errors
/// [`ValueError::Short`].
pub fn trailing_epoch(key: &[u8]) -> Result<LeaderEpoch, ValueError> {
    let bytes = key.last_chunk::<4>().ok_or(ValueError::Short)?;
    Ok(LeaderEpoch(i32::from_be_bytes(*bytes)))
}

/// Consecutive batches of about a megabyte, as the time index sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first offset.
    pub base_offset: Offset,
    /// Bytes of the batches.
    pub bytes: u64,
    /// The largest timestamp in it, milliseconds; -1 for none.
    pub max_timestamp: i64,
}

impl Chunk {
    /// A chunk that starts at `base_offset` and holds nothing.
    #[must_use]
    pub fn empty(base_offset: Offset) -> Self {
        Self { base_offset, bytes: 0, max_timestamp: -1 }
    }

    fn put(&self, value: &mut Vec<u8>) {
        value.put_i64(self.base_offset.0);
        value.put_u64(self.bytes);
        value.put_i64(self.max_timestamp);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, ValueError> {
        Ok(Self {
            base_offset: Offset(reader.i64()?),
            bytes: reader.u64()?,
            max_timestamp: reader.i64()?,
        })
    }

    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = vec![VALUE_VERSION];
        self.put(&mut value);
        value.into()
    }

    /// Reads the value's bytes.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let chunk = Self::take(&mut reader)?;
        reader.end()?;
        Ok(chunk)
    }
}

/// Where the next append goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The offset of the next record.
    pub next_offset: Offset,
    /// The leader epoch of the last append.
    pub leader_epoch: LeaderEpoch,
    /// The batches since the last closed chunk.
    pub open_chunk: Chunk,
}

impl LogEnd {
    /// The end of a log that was never written.
    pub const EMPTY: Self = Self {
        next_offset: Offset(0),
        leader_epoch: LeaderEpoch(0),
        open_chunk: Chunk { base_offset: Offset(0), bytes: 0, max_timestamp: -1 },
    };

    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = Vec::with_capacity(37);
        value.put_u8(VALUE_VERSION);
        value.put_i64(self.next_offset.0);
        value.put_i32(self.leader_epoch.0);
        self.open_chunk.put(&mut value);
        value.into()
    }

    /// Reads the value's bytes.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let end = Self {
            next_offset: Offset(reader.i64()?),
            leader_epoch: LeaderEpoch(reader.i32()?),
            open_chunk: Chunk::take(&mut reader)?,
        };
        reader.end()?;
        if end.next_offset.0 < 0 {
            return Err(ValueError::Field("next_offset"));
        }
        Ok(end)
    }
}

/// How far compaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleaned {
    /// Passes that were completed have gone over everything below it.
    pub first_dirty: Offset,
    /// Where the keys end that the pass in progress knows.
    pub pass_end: Offset,
    /// The pass in progress has rewritten everything below it.
    pub next: Offset,
    /// The earliest delete horizon of a tombstone that stayed, milliseconds since 1970; `i64::MAX` for none.
    pub horizon_ms: i64,
}

impl Cleaned {
    /// Of a log that was never compacted.
    pub const NEVER: Self =
        Self { first_dirty: Offset(0), pass_end: Offset(0), next: Offset(0), horizon_ms: i64::MAX };

    /// No pass is in progress.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.first_dirty == self.pass_end && self.next >= self.pass_end
    }

    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = Vec::with_capacity(33);
        value.put_u8(VALUE_VERSION);
        for number in [self.first_dirty.0, self.pass_end.0, self.next.0, self.horizon_ms] {
            value.put_i64(number);
        }
        value.into()
    }

    /// Reads the value's bytes.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let cleaned = Self {
            first_dirty: Offset(reader.i64()?),
            pass_end: Offset(reader.i64()?),
            next: Offset(reader.i64()?),
            horizon_ms: reader.i64()?,
        };
        reader.end()?;
        let Self { first_dirty, pass_end, next, .. } = cleaned;
        match first_dirty.0 < 0 || pass_end < first_dirty || next.0 < 0 {
            true => Err(ValueError::Field("first_dirty")),
            false => Ok(cleaned),
        }
    }
}

/// The value of [`PartitionKeys::log_start`], [`PartitionKeys::reserved`], [`PartitionKeys::epoch`].
#[must_use]
pub fn encode_offset(offset: Offset) -> Bytes {
    let mut value = vec![VALUE_VERSION];
    value.put_i64(offset.0);
    value.into()
}

/// Reads what [`encode_offset`] wrote.
///
/// # Errors
/// [`ValueError`].
pub fn decode_offset(value: &[u8]) -> Result<Offset, ValueError> {
    let mut reader = Reader::new(value);
    reader.version(VALUE_VERSION)?;
    let offset = Offset(reader.i64()?);
    reader.end()?;
    if offset.0 < 0 { Err(ValueError::Field("offset")) } else { Ok(offset) }
}

/// The value of [`PartitionKeys::origin`].
#[must_use]
pub fn encode_origin(applied: EdgeSeq) -> Bytes {
    let mut value = vec![VALUE_VERSION];
    value.put_u64(applied.0);
    value.into()
}

/// Reads what [`encode_origin`] wrote.
///
/// # Errors
/// [`ValueError`].
pub fn decode_origin(value: &[u8]) -> Result<EdgeSeq, ValueError> {
    let mut reader = Reader::new(value);
    reader.version(VALUE_VERSION)?;
    let applied = EdgeSeq(reader.u64()?);
    reader.end()?;
    Ok(applied)
}

/// One batch of an idempotent producer, as it is remembered (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducedBatch {
    /// The sequence number of its first record.
    pub first_sequence: i32,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// Its last offset minus its first.
    pub last_offset_delta: i32,
    /// Its append time where the topic has `LogAppendTime`, else -1.
    pub log_append_time: i64,
}

/// What is remembered of one idempotent producer: epoch and last batches, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// When it last wrote, milliseconds since 1970 by the broker's clock.
    pub last_write_ms: i64,
    /// At most [`ProducerEntry::BATCHES`].
    pub batches: Vec<ProducedBatch>,
}

impl ProducerEntry {
    /// Batches remembered: as many as a stock producer may have in flight (`max.in.flight.requests.per.connection`).
    pub const BATCHES: usize = 5;

    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let kept = self.batches.len().saturating_sub(Self::BATCHES);
        let kept = self.batches.get(kept..).unwrap_or_default();
        let mut value = Vec::with_capacity(12 + kept.len() * 24);
        value.put_u8(VALUE_VERSION);
        value.put_i16(self.epoch.0);
        value.put_i64(self.last_write_ms);
        value.put_u8(u8::try_from(kept.len()).unwrap_or_default());
        for batch in kept {
            value.put_i32(batch.first_sequence);
            value.put_i64(batch.last_offset.0);
            value.put_i32(batch.last_offset_delta);
            value.put_i64(batch.log_append_time);
        }
        value.into()
    }

    /// Reads the value's bytes.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VALUE_VERSION)?;
        let epoch = ProducerEpoch(reader.i16()?);
        let last_write_ms = reader.i64()?;
        let count = usize::from(reader.u8()?);
        if count > Self::BATCHES {
            return Err(ValueError::Field("count"));
        }
        let mut batches = Vec::with_capacity(Self::BATCHES);
        for _ in 0..count {
            batches.push(ProducedBatch {
                first_sequence: reader.i32()?,
                last_offset: Offset(reader.i64()?),
                last_offset_delta: reader.i32()?,
                log_append_time: reader.i64()?,
            });
        }
        reader.end()?;
        Ok(Self { epoch, last_write_ms, batches })
    }
}

#[cfg(test)]
mod tests;
