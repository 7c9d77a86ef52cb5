//! The 61 bytes in front of a batch's records.
//!
//! ```text
//!  0 baseOffset            i64   set by the broker, outside the checksum
//!  8 batchLength           i32   bytes after this field
//! 12 partitionLeaderEpoch  i32   set by the broker, outside the checksum
//! 16 magic                 i8    2
//! 17 crc                   u32   CRC32C of everything after this field
//! 21 attributes            i16
//! 23 lastOffsetDelta       i32
//! 27 baseTimestamp         i64
//! 35 maxTimestamp          i64
//! 43 producerId            i64
//! 51 producerEpoch         i16
//! 53 baseSequence          i32
//! 57 recordsCount          i32
//! 61 records
//! ```

use super::{BatchError, Compression};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Size of a batch's header in bytes.
pub const HEADER_BYTES: usize = 61;
/// Bytes in front of what `batchLength` counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// The only message format taken.
pub(super) const MAGIC: i8 = 2;

pub(super) const LENGTH_AT: usize = 8;
pub(super) const LEADER_EPOCH_AT: usize = 12;
pub(super) const CRC_AT: usize = 17;
/// Where the bytes that the checksum covers begin.
pub(super) const CHECKED_FROM: usize = 21;
pub(super) const LAST_OFFSET_DELTA_AT: usize = 23;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// A batch's attribute bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] for codes 5 to 7.
    pub fn compression(self) -> Result<Compression, BatchError> {
        let code = self.0 & COMPRESSION_MASK;
        Compression::from_code(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Whether the timestamps are the broker's append time (`LogAppendTime`), not the producer's.
    #[must_use]
    pub fn is_log_append_time(self) -> bool {
        self.0 & LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a transaction marker, which no producer may write.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    /// Whether `baseTimestamp` is a delete horizon (KIP-534), which no producer may write.
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON != 0
    }

    pub(super) fn with_compression(self, compression: Compression) -> Self {
        Self((self.0 & !COMPRESSION_MASK) | i16::from(compression.code()))
    }

    pub(super) fn with_log_append_time(self) -> Self {
        Self(self.0 | LOG_APPEND_TIME)
    }

    pub(super) fn with_delete_horizon(self) -> Self {
        Self(self.0 | DELETE_HORIZON)
    }

    pub(super) fn without_delete_horizon(self) -> Self {
        Self(self.0 & !DELETE_HORIZON)
    }

    pub(super) fn with_transactional(self) -> Self {
        Self(self.0 | TRANSACTIONAL)
    }
}

/// Which idempotent producer wrote a batch, and where the batch stands in its sequence (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Issued by InitProducerId; never negative here.
    pub id: ProducerId,
    /// Fences older instances of the same id.
    pub epoch: ProducerEpoch,
    /// The sequence number of the batch's first record. The next batch has this plus the record count; after
    /// `i32::MAX` comes 0.
    pub base_sequence: i32,
}

impl Producer {
    /// The sequence number that is `count` after `sequence`; after `i32::MAX` comes 0
    /// (`DefaultRecordBatch.incrementSequence` in Apache Kafka).
    #[must_use]
    pub fn sequence_after(sequence: i32, count: i32) -> i32 {
        let sum = i64::from(sequence) + i64::from(count);
        let wrapped = if sum > i64::from(i32::MAX) { sum - i64::from(i32::MAX) - 1 } else { sum };
        i32::try_from(wrapped).unwrap_or(0)
    }
}

/// All fields of a batch's header, as they stand in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (or of the first that was there before compaction).
    pub base_offset: Offset,
    /// Bytes after the length field; never smaller than a header without records.
    pub batch_length: i32,
    /// The epoch of the leader that appended the batch; -1 when unknown.
    pub partition_leader_epoch: LeaderEpoch,
    /// The message format, always 2.
    pub magic: i8,
    /// CRC32C of everything after this field.
    pub crc: u32,
    /// Compression, timestamp type, transaction bits.
    pub attributes: Attributes,
    /// Offset of the last record, less the base offset.
    pub last_offset_delta: i32,
    /// What the records' timestamps are relative to: that of the first record, milliseconds since 1970 (-1: none); in a
    /// batch with a delete horizon, the horizon.
    pub base_timestamp: i64,
    /// The largest timestamp of the batch, milliseconds since 1970 (-1: none).
    pub max_timestamp: i64,
    /// The idempotent producer, -1 for none.
    pub producer_id: ProducerId,
    /// The producer's epoch, -1 for none.
    pub producer_epoch: ProducerEpoch,
    /// The first record's sequence, -1 for none.
    pub base_sequence: i32,
    /// How many records the batch holds.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may go on behind the batch. Checks the length and the magic,
    /// not the checksum; [`super::RecordBatch::parse`] checks everything.
    ///
    /// # Errors
    /// [`BatchError::Length`] when fewer than [`HEADER_BYTES`] are there or the length field is impossible;
    /// [`BatchError::Magic`] for another message format.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let too_short = BatchError::Length { expected: HEADER_BYTES as i64, actual: bytes.len() };
        // The magic stands at the same place in every format, and old formats may be shorter than this header.
        if let Some(&magic) = bytes.get(16)
            && magic != MAGIC.cast_unsigned()
        {
            return Err(BatchError::Magic { magic: magic.cast_signed() });
        }
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(too_short);
        };
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(field(header, 0))),
            batch_length: i32::from_be_bytes(field(header, LENGTH_AT)),
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(field(header, LEADER_EPOCH_AT))),
            magic: MAGIC,
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: Attributes(i16::from_be_bytes(field(header, CHECKED_FROM))),
            last_offset_delta: i32::from_be_bytes(field(header, LAST_OFFSET_DELTA_AT)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, MAX_TIMESTAMP_AT)),
            producer_id: ProducerId(i64::from_be_bytes(field(header, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(header, 51))),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            records_count: i32::from_be_bytes(field(header, 57)),
        };
        let size = header.announced_size();
        if size < HEADER_BYTES as i64 {
            return Err(BatchError::Length { expected: size, actual: bytes.len() });
        }
        Ok(header)
    }

    /// The whole batch's size in bytes as the length field says; at least [`HEADER_BYTES`].
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        usize::try_from(self.announced_size()).unwrap_or(usize::MAX)
    }

    fn announced_size(&self) -> i64 {
        i64::from(self.batch_length) + LENGTH_PREFIX_BYTES as i64
    }

    /// The header as bytes.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        put(&mut out, 0, self.base_offset.0.to_be_bytes());
        put(&mut out, LENGTH_AT, self.batch_length.to_be_bytes());
        put(&mut out, LEADER_EPOCH_AT, self.partition_leader_epoch.0.to_be_bytes());
        put(&mut out, 16, self.magic.to_be_bytes());
        put(&mut out, CRC_AT, self.crc.to_be_bytes());
        put(&mut out, CHECKED_FROM, self.attributes.0.to_be_bytes());
        put(&mut out, LAST_OFFSET_DELTA_AT, self.last_offset_delta.to_be_bytes());
        put(&mut out, 27, self.base_timestamp.to_be_bytes());
        put(&mut out, MAX_TIMESTAMP_AT, self.max_timestamp.to_be_bytes());
        put(&mut out, 43, self.producer_id.0.to_be_bytes());
        put(&mut out, 51, self.producer_epoch.0.to_be_bytes());
        put(&mut out, 53, self.base_sequence.to_be_bytes());
        put(&mut out, 57, self.records_count.to_be_bytes());
        out
    }
}

/// The `N` bytes of a header at `at`, both constants of this file.
fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}

/// Writes a header field; `at` is a constant of this file.
pub(super) fn put<const N: usize>(header: &mut [u8], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}
