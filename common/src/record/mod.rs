//! Record batch v2 (KIP-98): validate, view, patch, slice, compact, encode, iterate.
//!
//! A batch is stored and served as the client compressed it. [`RecordBatch`] is a validated view over its bytes; offsets
//! are given by patching two header fields that the checksum does not cover. Records are decoded only where somebody has
//! to look into them. Byte layout: <https://kafka.apache.org/documentation/#recordbatch>.
//!
//! **Invariant:** a `RecordBatch` that [`RecordBatch::parse`] or [`split_batches`] gave has a true CRC32C, a true length
//! and counts that agree with each other.
//! **Invariant:** no bytes can make a function of this room panic, or allocate more than the bound that it was given
//! (plus a constant that the codec needs).
//! **Invariant:** nothing but [`RecordBatch::with_log_append_time`], [`RecordBatch::compact`] and
//! [`RecordBatch::slice`] changes what the checksum covers.

mod batch;
mod builder;
mod compact;
mod compression;
mod header;
mod records;
mod varint;
mod wire;

#[cfg(test)]
mod tests;

pub use batch::{RecordBatch, place, split_batches, stored_records};
pub use builder::{BatchBuilder, NewRecord};
pub use compact::{CompactBatch, Compacted};
pub use compression::Compression;
pub use header::{Attributes, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, Producer};
pub use records::{Record, RecordHeader, Records};
pub use wire::{WireBatch, combined};

/// Why bytes are not a record batch that this broker can take, or why one could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside the batch, or go on after it. Kafka: CORRUPT_MESSAGE.
    #[error("a record batch of {expected} bytes was announced, {actual} are there")]
    Length {
        /// The size that the header (or the header's own size) asks for, in bytes.
        expected: i64,
        /// The bytes that are there.
        actual: usize,
    },
    /// Message format 0 or 1, or one from the future. Kafka: UNSUPPORTED_FOR_MESSAGE_FORMAT for 0 and 1, otherwise
    /// CORRUPT_MESSAGE.
    #[error("message format {magic} is not supported; format 2 (Apache Kafka 0.11 and later) is")]
    Magic {
        /// The magic byte found.
        magic: i8,
    },
    /// The bytes changed on their way. Kafka: CORRUPT_MESSAGE.
    #[error("the record batch's CRC32C is {actual:08x}, its header says {expected:08x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// The batch is larger than its topic allows. Kafka: MESSAGE_TOO_LARGE.
    #[error("a record batch of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// The batch's size in bytes.
        bytes: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The batch is intact and makes no sense. Kafka: INVALID_RECORD.
    #[error("invalid record batch: {reason}")]
    Invalid {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A compression code that this format does not define. Kafka: UNSUPPORTED_COMPRESSION_TYPE.
    #[error("compression code {code} is unknown")]
    UnknownCompression {
        /// The code in the attributes' lowest three bits.
        code: u8,
    },
    /// The compressed records cannot be decompressed. Kafka: CORRUPT_MESSAGE.
    #[error("the records' {codec} data is corrupt: {reason}")]
    Decompress {
        /// The codec that the header names.
        codec: Compression,
        /// What the codec says.
        reason: String,
    },
    /// The records are larger than the caller's bound once decompressed. Kafka: MESSAGE_TOO_LARGE.
    #[error("the records take more than {limit} bytes once decompressed")]
    DecompressedTooLarge {
        /// The caller's bound in bytes.
        limit: usize,
    },
    /// The records inside a batch with a true checksum cannot be decoded. Kafka: INVALID_RECORD.
    #[error("record {index} of the batch is malformed: {reason}")]
    Record {
        /// Which record, from 0.
        index: i32,
        /// Which rule it breaks.
        reason: &'static str,
    },
}
