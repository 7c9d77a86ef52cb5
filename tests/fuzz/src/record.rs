//! Record batches: Produce payloads, and the records inside intact batches.

use bytes::{Bytes, BytesMut};
use robustmq_common::ids::{LeaderEpoch, Offset};
use robustmq_common::record::{BatchError, CompactBatch, Compacted, RecordBatch, split_batches};

use crate::memory::bounded;

/// What decompression may take.
const MAX_RECORDS_BYTES: usize = 1 << 20;
/// What one input may take: a few copies of the decompressed records, and headers of two bytes each that become sixty-four.
const MAX_MEMORY_BYTES: usize = 16 * MAX_RECORDS_BYTES;
/// Where the checksum and what it covers begin.
const CRC_AT: usize = 17;
const CHECKED_FROM: usize = 21;

/// The first byte says whether the rest gets a true length and checksum first, so that the fuzzer gets past them.
pub fn check(data: &[u8]) {
    bounded(MAX_MEMORY_BYTES, || check_payload(data));
}

fn check_payload(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut bytes = BytesMut::from(rest);
    if mode & 1 == 1 && bytes.len() > CHECKED_FROM {
        let length = i32::try_from(bytes.len() - 12).expect("inputs are small");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[CRC_AT..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = bytes.freeze();
    if let Ok(batches) = split_batches(bytes.clone(), MAX_RECORDS_BYTES) {
        let total: usize = batches.iter().map(RecordBatch::size).sum();
        assert_eq!(total, bytes.len(), "batches cover the payload");
        batches.iter().for_each(check_batch);
    }
    if let Ok(batch) = RecordBatch::parse(bytes.clone()) {
        check_batch(&batch);
    }
    if let Ok(batch) = RecordBatch::from_store(bytes) {
        let _ = batch.validate_records(MAX_RECORDS_BYTES);
    }
}

fn check_batch(batch: &RecordBatch) {
    let placed = batch.clone().placed(Offset(1 << 40), LeaderEpoch(7));
    let again = reparse(&placed).expect("the checksum does not cover the place");
    assert_eq!(again, placed);
    reparse(&batch.clone().with_log_append_time(5)).expect("the checksum is renewed");

    let valid = placed.validate_records(MAX_RECORDS_BYTES);
    let how = CompactBatch { max_bytes: MAX_RECORDS_BYTES, new_horizon_ms: 5, keeps_empty: true };
    let compacted = placed.compact(how, |record| record.offset.0 % 2 == 0);
    assert_eq!(valid.is_ok(), compacted.is_ok());
    if let Ok((Compacted::Changed(changed), _)) = compacted {
        reparse(&changed).expect("a compacted batch is a batch");
        changed.validate_records(MAX_RECORDS_BYTES).expect("its records were valid");
        assert_eq!(changed.last_offset(), placed.last_offset());
    }
    if valid.is_err() || placed.records_count() == 0 {
        return;
    }
    let middle =
        Offset(placed.base_offset().0 + (placed.next_offset().0 - placed.base_offset().0) / 2);
    let first = offsets(placed.slice(MAX_RECORDS_BYTES, placed.base_offset(), middle));
    let second = offsets(placed.slice(MAX_RECORDS_BYTES, middle, placed.next_offset()));
    let both: Vec<Offset> = first.into_iter().chain(second).collect();
    assert_eq!(both, offsets(Ok(Some(placed))), "two halves are the whole");
}

fn offsets(batch: Result<Option<RecordBatch>, BatchError>) -> Vec<Offset> {
    let Some(batch) = batch.expect("the records were valid") else { return Vec::new() };
    reparse(&batch).expect("a cut batch is a batch");
    let records = batch.records(MAX_RECORDS_BYTES).expect("the records were valid");
    records.map(|record| record.expect("the records were valid").offset).collect()
}

fn reparse(batch: &RecordBatch) -> Result<RecordBatch, BatchError> {
    RecordBatch::parse(Bytes::copy_from_slice(batch.as_bytes()))
}
