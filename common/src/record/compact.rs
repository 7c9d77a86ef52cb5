//! What log compaction does to one batch: records go, offsets stay.
//!
//! As `MemoryRecords.filterTo` of Apache Kafka does it: a batch keeps its offset range, its producer and its compression.
//! When one is compacted for the first time and tombstones stay in it, it gets a delete horizon (KIP-534): an attribute
//! bit, and the time in `baseTimestamp`, to which the records' timestamps are then relative.

use bytes::{BufMut, BytesMut};

use super::header::BatchHeader;
use super::varint::{put_varlong, varint, varlong, varlong_bytes};
use super::{BatchError, Compression, Record, RecordBatch};

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// All of it stays, as it is.
    Unchanged,
    /// This stays of it, in the same range of offsets.
    Changed(RecordBatch),
    /// Nothing of it stays.
    Gone,
}

/// How [`RecordBatch::compact`] decides what `keep` does not.
#[derive(Clone, Copy, Debug)]
pub struct CompactBatch {
    /// What the decompressed records may take, in bytes.
    pub max_bytes: usize,
    /// The delete horizon for tombstones that have none yet, milliseconds since 1970.
    pub new_horizon_ms: i64,
    /// A batch of which no record stays is kept without records, for its offsets and its producer's sequence.
    pub keeps_empty: bool,
}

impl RecordBatch {
    /// From when on the batch's tombstones may be removed, milliseconds since 1970; `None` before its first compaction,
    /// and where it holds no tombstones.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        let header = self.header();
        header.attributes.has_delete_horizon().then_some(header.base_timestamp)
    }

    /// Keeps the records that `keep` says yes to. Returns what became of the batch, and the delete horizon of the
    /// tombstones that stay, if any do.
    ///
    /// # Errors
    /// As [`RecordBatch::validate_records`].
    pub fn compact(
        &self,
        how: CompactBatch,
        mut keep: impl FnMut(&Record) -> bool,
    ) -> Result<(Compacted, Option<i64>), BatchError> {
        let header = self.header();
        let mut records = self.records(how.max_bytes)?;
        let mut kept = BytesMut::new();
        let (mut count, mut max_timestamp, mut has_tombstones) = (0, -1, false);
        while let Some(record) = records.next() {
            let record = record?;
            if keep(&record) {
                kept.extend_from_slice(records.last_bytes());
                count += 1;
                max_timestamp = record.timestamp_ms.max(max_timestamp);
                has_tombstones |= record.value.is_none();
            }
        }
        if count == 0 {
            return Ok((self.without_records(how.keeps_empty)?, None));
        }
        let known_horizon = self.delete_horizon_ms();
        let shift = header.base_timestamp.wrapping_sub(how.new_horizon_ms);
        let sets_horizon = has_tombstones && known_horizon.is_none();
        // What is relative to another time may take more bytes. Where it would take more than may be read again, the
        // tombstones stay without a horizon, and so for ever.
        let relative_to_horizon = match sets_horizon {
            true => shifted(&kept, shift).filter(|shifted| shifted.len() <= how.max_bytes),
            false => None,
        };
        let new_horizon = relative_to_horizon.as_ref().map(|_| how.new_horizon_ms);
        let horizon = known_horizon.or(new_horizon).filter(|_| has_tombstones);
        if count == header.records_count && relative_to_horizon.is_none() {
            return Ok((Compacted::Unchanged, horizon));
        }
        if header.attributes.is_log_append_time() {
            max_timestamp = header.max_timestamp;
        }
        let mut changed = BatchHeader { max_timestamp, records_count: count, ..*header };
        if let Some(shifted) = relative_to_horizon {
            changed.attributes = header.attributes.with_delete_horizon();
            changed.base_timestamp = how.new_horizon_ms;
            kept = shifted;
        }
        Self::assemble(changed, &kept).map(|batch| (Compacted::Changed(batch), horizon))
    }

    fn without_records(&self, keeps_empty: bool) -> Result<Compacted, BatchError> {
        if !keeps_empty {
            return Ok(Compacted::Gone);
        }
        let header = self.header();
        if header.records_count == 0 {
            return Ok(Compacted::Unchanged);
        }
        // Without a timestamp, unlike in Apache Kafka: a look-up by time need not look into it.
        let empty = BatchHeader {
            attributes: header
                .attributes
                .with_compression(Compression::None)
                .without_delete_horizon(),
            base_timestamp: -1,
            max_timestamp: -1,
            records_count: 0,
            ..*header
        };
        Self::assemble(empty, &[]).map(Compacted::Changed)
    }
}

/// The records with `shift` added to each one's timestamp delta.
fn shifted(records: &[u8], shift: i64) -> Option<BytesMut> {
    let mut out = BytesMut::with_capacity(records.len() + records.len() / 8);
    let mut at = 0;
    while at < records.len() {
        let length = usize::try_from(varint(records, &mut at)?).ok()?;
        let record = records.get(at..at.checked_add(length)?)?;
        at += length;
        let mut from = 1;
        let delta = varlong(record, &mut from)?.wrapping_add(shift);
        let rest = record.get(from..)?;
        let bytes = 1 + varlong_bytes(delta) + rest.len();
        put_varlong(&mut out, i64::try_from(bytes).ok()?);
        out.put_u8(*record.first()?);
        put_varlong(&mut out, delta);
        out.put_slice(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
