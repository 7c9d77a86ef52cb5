//! Encodes records into a batch.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{Attributes, BatchHeader, HEADER_BYTES, MAGIC, Producer};
use super::varint::{put_varlong, varlong_bytes};
use super::wire::{self, Shared};
use super::{BatchError, Compression, RecordBatch, WireBatch};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::limits;

/// A record to encode. Everything is borrowed; [`BatchBuilder::push`] copies it once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970 (-1: none).
    pub timestamp_ms: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null (a tombstone).
    pub value: Option<&'a [u8]>,
    /// The headers in their order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Collects records and makes one batch of them.
#[derive(Debug)]
pub struct BatchBuilder {
    base_offset: Offset,
    producer: Option<Producer>,
    attributes: Attributes,
    /// Behind room for the header, without what is shared.
    records: BytesMut,
    shared: Vec<Shared>,
    shared_bytes: usize,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch at offset 0 without a producer, whose records are going to be compressed as `compression` says.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            base_offset: Offset(0),
            producer: None,
            attributes: Attributes::default().with_compression(compression),
            records: BytesMut::new(),
            shared: Vec::new(),
            shared_bytes: 0,
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
        }
    }

    /// Makes room for so many bytes at once: records are then copied once, and the batch is where they are.
    pub fn reserve(&mut self, bytes: usize) {
        self.records.reserve(bytes);
    }

    /// Sets the offset of the first record.
    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> Self {
        self.base_offset = base_offset;
        self
    }

    /// Makes it the batch of an idempotent producer.
    #[must_use]
    pub fn producer(mut self, producer: Producer) -> Self {
        self.producer = Some(producer);
        self
    }

    /// Marks the batch as part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes = self.attributes.with_transactional();
        self
    }

    /// Adds a record at the next offset.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] when the batch would pass what its length field can say, [`BatchError::Invalid`] for
    /// more headers than [`limits::RECORD_HEADERS`]. The batch stays as it was.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchError> {
        self.push_with(record, None)
    }

    /// The same without copying the value: `value` is the record's, and `crc` its CRC32C. For [`BatchBuilder::build_wire`].
    ///
    /// # Errors
    /// As [`BatchBuilder::push`].
    pub fn push_shared(
        &mut self,
        record: &NewRecord<'_>,
        value: Bytes,
        crc: u32,
    ) -> Result<(), BatchError> {
        debug_assert_eq!(record.value, Some(&value[..]));
        self.push_with(record, Some((value, crc)))
    }

    fn push_with(
        &mut self,
        record: &NewRecord<'_>,
        shared: Option<(Bytes, u32)>,
    ) -> Result<(), BatchError> {
        if record.headers.len() > limits::RECORD_HEADERS {
            return Err(BatchError::Invalid { reason: "a record has too many headers" });
        }
        if self.count == 0 {
            self.base_timestamp = record.timestamp_ms;
        }
        let timestamp_delta = record.timestamp_ms.wrapping_sub(self.base_timestamp);
        let body = body_bytes(record, timestamp_delta, self.count);
        let bytes = self.size().saturating_add(body).saturating_add(varlong_bytes(wide(body)));
        let limit = i32::MAX as usize;
        if bytes > limit || self.count == i32::MAX {
            return Err(BatchError::TooLarge { bytes, limit });
        }
        let out = &mut self.records;
        if out.is_empty() {
            out.put_bytes(0, HEADER_BYTES);
        }
        put_varlong(out, wide(body));
        out.put_i8(0);
        put_varlong(out, timestamp_delta);
        put_varlong(out, i64::from(self.count));
        put_nullable(out, record.key);
        match shared {
            None => put_nullable(out, record.value),
            Some((value, crc)) => {
                put_varlong(out, wide(value.len()));
                self.shared_bytes += value.len();
                self.shared.push(Shared { at: out.len(), value, crc });
            }
        }
        put_varlong(out, wide(record.headers.len()));
        for (key, value) in record.headers {
            put_nullable(out, Some(key.as_bytes()));
            put_nullable(out, *value);
        }
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        Ok(())
    }

    /// The batch's size in bytes before compression.
    #[must_use]
    pub fn size(&self) -> usize {
        self.records.len().max(HEADER_BYTES) + self.shared_bytes
    }

    /// How many records were added.
    #[must_use]
    pub fn records_count(&self) -> i32 {
        self.count
    }

    /// Whether no record was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Compresses the records and gives the batch.
    ///
    /// # Errors
    /// [`BatchError::Invalid`] when no record was added or the offsets pass the largest number;
    /// [`BatchError::TooLarge`] when compression made the batch larger than its length field can say.
    pub fn build(self) -> Result<RecordBatch, BatchError> {
        if !self.shared.is_empty() {
            return Err(BatchError::Invalid { reason: "a value is not in the batch" });
        }
        let header = self.header()?;
        match self.attributes.compression()? {
            Compression::None => RecordBatch::seal(header, self.records),
            _ => {
                RecordBatch::assemble(header, self.records.get(HEADER_BYTES..).unwrap_or_default())
            }
        }
    }

    /// Gives the batch at its place in a log, without copying what is shared. The records have to go without compression.
    ///
    /// # Errors
    /// As [`BatchBuilder::build`].
    pub fn build_wire(
        mut self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> Result<WireBatch, BatchError> {
        if self.attributes.compression()? != Compression::None {
            return Err(BatchError::Invalid { reason: "what is shared cannot be compressed" });
        }
        self.base_offset = base_offset;
        let header = BatchHeader { partition_leader_epoch: leader_epoch, ..self.header()? };
        wire::seal(header, self.records, self.shared)
    }

    /// The header, without length and checksum.
    fn header(&self) -> Result<BatchHeader, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Invalid { reason: "a batch has at least one record" });
        }
        if self.base_offset.checked_add(i64::from(self.count)).is_none() {
            return Err(BatchError::Invalid { reason: "its offsets pass the largest number" });
        }
        let none = Producer { id: ProducerId(-1), epoch: ProducerEpoch(-1), base_sequence: -1 };
        let producer = self.producer.unwrap_or(none);
        Ok(BatchHeader {
            base_offset: self.base_offset,
            batch_length: 0,
            partition_leader_epoch: LeaderEpoch(-1),
            magic: MAGIC,
            crc: 0,
            attributes: self.attributes,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.base_sequence,
            records_count: self.count,
        })
    }
}

fn body_bytes(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(key, value)| {
            nullable_bytes(Some(key.as_bytes())).saturating_add(nullable_bytes(*value))
        })
        .fold(0, usize::saturating_add);
    let fixed = 1
        + varlong_bytes(timestamp_delta)
        + varlong_bytes(i64::from(offset_delta))
        + varlong_bytes(wide(record.headers.len()));
    fixed
        .saturating_add(nullable_bytes(record.key))
        .saturating_add(nullable_bytes(record.value))
        .saturating_add(headers)
}

fn nullable_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |field| varlong_bytes(wide(field.len())).saturating_add(field.len()))
}

pub(super) fn put_nullable(out: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(field) => {
            put_varlong(out, wide(field.len()));
            out.put_slice(field);
        }
    }
}

pub(super) fn wide(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
