//! A validated batch over its bytes: read, place, and cut a Produce payload into batches.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::header::{
    Attributes, BatchHeader, CHECKED_FROM, CRC_AT, HEADER_BYTES, LEADER_EPOCH_AT, MAX_TIMESTAMP_AT,
    Producer, put,
};
use super::records::{LEAST_RECORD_BYTES, Records, check_dense};
use super::{BatchError, Compression};
use crate::ids::{LeaderEpoch, Offset};
use crate::limits;

/// One complete batch. A clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// Checks and wraps exactly one batch: length, format, checksum, counts, attributes. Records are not decoded
    /// ([`RecordBatch::validate_records`] does that).
    ///
    /// Takes what a log may hold: also control batches, and compacted ones with fewer records than offsets. What a
    /// producer sends has to pass [`split_batches`], which is stricter.
    ///
    /// # Errors
    /// [`BatchError`] says which rule the bytes break.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::from_store(bytes)?;
        let actual = crc32c::crc32c(batch.bytes.get(CHECKED_FROM..).unwrap_or_default());
        if actual != batch.header.crc {
            return Err(BatchError::Checksum { expected: batch.header.crc, actual });
        }
        check_counts(&batch.header)?;
        Ok(batch)
    }

    /// Wraps a batch that was validated before it was stored: reads the header and compares the length, but neither
    /// computes the checksum nor looks at the counts. For the read path.
    ///
    /// # Errors
    /// [`BatchError::Length`] and [`BatchError::Magic`], which mean that the store gave back something else.
    pub fn from_store(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.batch_bytes() != bytes.len() {
            return Err(wrong_length(&header, bytes.len()));
        }
        Ok(Self { header, bytes })
    }

    /// The header's fields.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The attribute bits.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        self.header.attributes
    }

    /// How the records are compressed. An unknown code does not pass [`RecordBatch::parse`].
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.header.attributes.compression().unwrap_or(Compression::None)
    }

    /// The first offset.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// The last offset, inclusive.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.header.base_offset.0.saturating_add(i64::from(self.header.last_offset_delta)))
    }

    /// The offset after the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// How many records the batch holds.
    #[must_use]
    pub fn records_count(&self) -> i32 {
        self.header.records_count
    }

    /// The idempotent producer, or `None`.
    #[must_use]
    pub fn producer(&self) -> Option<Producer> {
        let BatchHeader { producer_id: id, producer_epoch: epoch, base_sequence, .. } = self.header;
        (id.0 >= 0).then_some(Producer { id, epoch, base_sequence })
    }

    /// The sequence number of the last record, where an idempotent producer wrote the batch.
    #[must_use]
    pub fn last_sequence(&self) -> Option<i32> {
        let first = self.producer()?.base_sequence;
        Some(Producer::sequence_after(first, self.header.last_offset_delta))
    }

    /// The largest timestamp, milliseconds since 1970 (-1: none).
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The whole batch, as it is stored and served.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, as it is stored and served.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The batch's size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the batch its place in a log: patches `baseOffset` and `partitionLeaderEpoch`, which the checksum does not
    /// cover.
    ///
    /// Patches in place when nothing else holds the bytes, and copies the batch once otherwise. (A batch that was cut
    /// from a request's frame shares the frame with its siblings, so there the copy remains; it also frees the log from
    /// keeping the frame alive.)
    #[must_use]
    pub fn placed(self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        let Self { mut header, bytes } = self;
        header.base_offset = base_offset;
        header.partition_leader_epoch = leader_epoch;
        let mut bytes = own(bytes);
        write_place(&mut bytes, base_offset, leader_epoch);
        Self { header, bytes: bytes.freeze() }
    }

    /// Sets the broker's append time on the whole batch (`message.timestamp.type=LogAppendTime`): attribute bit and
    /// `maxTimestamp`, then a new checksum. The slow path, since the checksum reads the whole batch.
    #[must_use]
    pub fn with_log_append_time(self, timestamp_ms: i64) -> Self {
        let Self { mut header, bytes } = self;
        header.attributes = header.attributes.with_log_append_time();
        header.max_timestamp = timestamp_ms;
        let mut bytes = own(bytes);
        put(&mut bytes, CHECKED_FROM, header.attributes.0.to_be_bytes());
        put(&mut bytes, MAX_TIMESTAMP_AT, timestamp_ms.to_be_bytes());
        header.crc = crc32c::crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
        put(&mut bytes, CRC_AT, header.crc.to_be_bytes());
        Self { header, bytes: bytes.freeze() }
    }

    /// Decompresses and iterates the records. `max_bytes` bounds what the decompressed records may take; uncompressed
    /// ones are read in place.
    ///
    /// # Errors
    /// [`BatchError::Decompress`], [`BatchError::DecompressedTooLarge`], [`BatchError::UnknownCompression`].
    pub fn records(&self, max_bytes: usize) -> Result<Records, BatchError> {
        Records::open(&self.header, self.bytes.slice(HEADER_BYTES..), max_bytes)
    }

    /// Decodes every record and drops it: whether the records are what the header says.
    ///
    /// # Errors
    /// As [`RecordBatch::records`], and [`BatchError::Record`] for the first malformed one.
    pub fn validate_records(&self, max_bytes: usize) -> Result<(), BatchError> {
        self.records(max_bytes)?.try_for_each(|record| record.map(drop))
    }

    /// Keeps the records with `from <= offset < to`. The base offset stays (a reader skips what is below its position);
    /// the last offset becomes `to - 1`, so that a reader goes on at `to`. `None` when none is kept.
    ///
    /// # Errors
    /// As [`RecordBatch::validate_records`].
    pub fn slice(
        &self,
        max_bytes: usize,
        from: Offset,
        to: Offset,
    ) -> Result<Option<Self>, BatchError> {
        self.slice_with(max_bytes, from, to, None)
    }

    /// As [`RecordBatch::slice`]; if anything is cut off, each record that is kept gets a header called `offset_header` that says its offset, if
    /// it has room for one.
    ///
    /// # Errors
    /// As [`RecordBatch::validate_records`].
    pub fn slice_with(
        &self,
        max_bytes: usize,
        from: Offset,
        to: Offset,
        offset_header: Option<&str>,
    ) -> Result<Option<Self>, BatchError> {
        let last = Offset(to.0.saturating_sub(1)).min(self.last_offset());
        let Some(delta) = last.0.checked_sub(self.base_offset().0).filter(|delta| *delta >= 0)
        else {
            return Ok(None);
        };
        let delta = i32::try_from(delta).unwrap_or(self.header.last_offset_delta);
        self.recut(max_bytes, delta, from..to, offset_header)
    }

    fn recut(
        &self,
        max_bytes: usize,
        last_offset_delta: i32,
        kept_offsets: Range<Offset>,
        offset_header: Option<&str>,
    ) -> Result<Option<Self>, BatchError> {
        let mut records = self.records(max_bytes)?;
        let mut kept = BytesMut::new();
        let mut count = 0;
        let mut max_timestamp = -1;
        while let Some(record) = records.next() {
            let record = record?;
            if kept_offsets.contains(&record.offset) {
                match offset_header {
                    Some(name) if record.headers.len() < limits::RECORD_HEADERS => {
                        let offset = record.offset.0.to_string();
                        records.put_last_with(&mut kept, name, offset.as_bytes());
                    }
                    _ => kept.extend_from_slice(records.last_bytes()),
                }
                count += 1;
                max_timestamp = record.timestamp_ms.max(max_timestamp);
            }
        }
        if count == 0 {
            return Ok(None);
        }
        if count == self.header.records_count && last_offset_delta == self.header.last_offset_delta
        {
            return Ok(Some(self.clone()));
        }
        if self.header.attributes.is_log_append_time() {
            max_timestamp = self.header.max_timestamp;
        }
        let header =
            BatchHeader { last_offset_delta, max_timestamp, records_count: count, ..self.header };
        Self::assemble(header, &kept).map(Some)
    }

    /// Puts `header` in front of `records`, compressed as its attributes say, with a true length and checksum.
    pub(super) fn assemble(header: BatchHeader, records: &[u8]) -> Result<Self, BatchError> {
        let compression = header.attributes.compression()?;
        Self::seal(header, compression.compress(HEADER_BYTES, records)?)
    }

    /// Writes `header` over the first bytes of `out`, with a true length and checksum.
    pub(super) fn seal(
        mut header: BatchHeader,
        mut bytes: impl AsMut<[u8]> + Into<Bytes>,
    ) -> Result<Self, BatchError> {
        let out = bytes.as_mut();
        let limit = i32::MAX as usize;
        let too_large = BatchError::TooLarge { bytes: out.len(), limit };
        header.batch_length =
            i32::try_from(out.len() - super::LENGTH_PREFIX_BYTES).map_err(|_| too_large)?;
        put(out, 0, header.encode());
        header.crc = crc32c::crc32c(out.get(CHECKED_FROM..).unwrap_or_default());
        put(out, CRC_AT, header.crc.to_be_bytes());
        Ok(Self { header, bytes: bytes.into() })
    }
}

/// Patches the place of the stored batch at the start of `bytes`, as [`RecordBatch::placed`] does, without parsing it:
/// for an answer that already holds its own copy. Returns `false`, and changes nothing, when `bytes` is shorter than a
/// header.
pub fn place(bytes: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) -> bool {
    let fits = bytes.len() >= HEADER_BYTES;
    if fits {
        write_place(bytes, base_offset, leader_epoch);
    }
    fits
}

fn write_place(bytes: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    put(bytes, 0, base_offset.0.to_be_bytes());
    put(bytes, LEADER_EPOCH_AT, leader_epoch.0.to_be_bytes());
}

/// The bytes themselves when nothing else holds them, and a copy otherwise.
fn own(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()))
}

/// How many records a stored batch says that it holds; 0 where it is too short to say. For counting, without reading the rest.
#[must_use]
pub fn stored_records(batch: &[u8]) -> u32 {
    let count = batch.get(HEADER_BYTES - 4..HEADER_BYTES).and_then(|count| count.try_into().ok());
    count.map_or(0, u32::from_be_bytes)
}

/// Cuts the records field of one partition of a Produce request into its batches and checks each as a leader has to:
/// everything that [`RecordBatch::parse`] checks, the size, as many records as offsets, and nothing that only a broker
/// may write. Records that are not compressed are checked one by one, so that one bad producer cannot stop every consumer
/// of a partition; compressed ones are not decompressed. An empty field gives no batch.
///
/// # Errors
/// The first batch's [`BatchError`]; nothing of the payload may then be appended.
pub fn split_batches(
    mut payload: Bytes,
    max_batch_bytes: usize,
) -> Result<Vec<RecordBatch>, BatchError> {
    let mut batches = Vec::new();
    while !payload.is_empty() {
        let header = BatchHeader::parse(&payload)?;
        let bytes = header.batch_bytes();
        if bytes > payload.len() {
            return Err(wrong_length(&header, payload.len()));
        }
        if bytes > max_batch_bytes {
            return Err(BatchError::TooLarge { bytes, limit: max_batch_bytes });
        }
        let batch = RecordBatch::parse(payload.split_to(bytes))?;
        check_produced(&batch.header)?;
        check_records(&batch)?;
        batches.push(batch);
    }
    Ok(batches)
}

pub(super) fn wrong_length(header: &BatchHeader, actual: usize) -> BatchError {
    BatchError::Length { expected: i64::try_from(header.batch_bytes()).unwrap_or(i64::MAX), actual }
}

fn check_counts(header: &BatchHeader) -> Result<(), BatchError> {
    let invalid = |reason| Err(BatchError::Invalid { reason });
    header.attributes.compression()?;
    if header.last_offset_delta < 0 {
        return invalid("the last offset is below the base offset");
    }
    if header.records_count < 0 || header.records_count > header.last_offset_delta.saturating_add(1)
    {
        return invalid("it cannot hold more records than offsets");
    }
    let offsets = i64::from(header.last_offset_delta) + 1;
    if header.base_offset.checked_add(offsets).is_none() {
        return invalid("its offsets pass the largest number");
    }
    Ok(())
}

/// What `LogValidator.validateBatch` in Apache Kafka asks of a batch that comes from a client.
fn check_produced(header: &BatchHeader) -> Result<(), BatchError> {
    let invalid = |reason| Err(BatchError::Invalid { reason });
    if i64::from(header.records_count) != i64::from(header.last_offset_delta) + 1 {
        return invalid("a producer's batch has as many records as offsets");
    }
    if header.attributes.is_control() {
        return invalid("only a broker may write control records");
    }
    if header.attributes.has_delete_horizon() {
        return invalid("only a broker may set a delete horizon");
    }
    if header.producer_id.0 >= 0 && (header.base_sequence < 0 || header.producer_epoch.0 < 0) {
        return invalid("an idempotent producer's batch has an epoch and a sequence");
    }
    if header.attributes.is_transactional() && header.producer_id.0 < 0 {
        return invalid("a transactional batch has a producer id");
    }
    Ok(())
}

/// Whether the records are as many as the header says, since it is the header that moves the log's end.
fn check_records(batch: &RecordBatch) -> Result<(), BatchError> {
    let count = batch.header.records_count;
    if batch.compression() == Compression::None {
        return check_dense(batch.bytes.get(HEADER_BYTES..).unwrap_or_default(), count);
    }
    // A look-up by time would refuse to read so many.
    let most = limits::DECOMPRESSED_BATCH_BYTES / LEAST_RECORD_BYTES;
    if usize::try_from(count).is_ok_and(|count| count <= most) {
        return Ok(());
    }
    Err(BatchError::Invalid { reason: "it cannot hold so many records" })
}
