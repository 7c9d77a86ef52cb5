//! What edge and cloud say to each other.

use robustmq_common::limits::SYNC_BATCH_BYTES;
use robustmq_common::sync::{Answer, Batch, EdgeRecord, Entry, Heartbeat, Hello};

use crate::memory::bounded;

/// What an input may take besides a decompressed batch: this, and so many times its size.
const BASE_BYTES: usize = 1 << 16;
const MEMORY_FACTOR: usize = 64;
/// Bytes in front of a frame's checksummed part: magic, version, checksum.
pub(crate) const HEAD_BYTES: usize = 9;
/// Bytes of a batch frame's header, between the frame's head and the length of its decompressed body.
pub(crate) const BATCH_HEADER_BYTES: usize = 8 + 16 + 1 + 5 * 8;

/// The first byte says what the rest is, and whether it gets a true checksum first.
pub fn check(data: &[u8]) {
    bounded(BASE_BYTES + MEMORY_FACTOR * data.len() + SYNC_BATCH_BYTES, || check_frame(data));
}

fn check_frame(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let mut frame = rest.to_vec();
    if mode & 0x80 != 0 {
        seal(&mut frame);
    }
    match mode & 0x7f {
        0 => check_batch(&frame),
        1 => {
            // The body stands uncompressed in the input: compressed, the fuzzer would hardly get past zstd.
            if let Some(frame) = compress_body(rest) {
                check_batch(&frame);
            }
        }
        2 => {
            if let Ok(hello) = Hello::decode(&frame) {
                assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }
        3 => {
            if let Ok(heartbeat) = Heartbeat::decode(&frame) {
                assert_eq!(Heartbeat::decode(&heartbeat.encode()), Ok(heartbeat));
            }
        }
        4 => {
            if let Ok(answer) = Answer::decode(&frame) {
                assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
            }
        }
        _ => check_record(rest),
    }
}

fn check_batch(frame: &[u8]) {
    let Ok(batch) = Batch::decode(frame) else { return };
    let mut next = batch.header().from;
    for entry in batch.entries() {
        match entry {
            Entry::Record { seq, body, .. } => {
                assert_eq!(seq, next);
                next.0 += 1;
                check_record(body);
            }
            Entry::Skip { first, count, .. } => {
                assert!(first == next && count > 0);
                next.0 += count;
            }
        }
    }
    assert_eq!(next, batch.header().to, "the entries cover the range");
}

fn check_record(body: &[u8]) {
    let Ok(record) = EdgeRecord::decode(body) else { return };
    let _ = (record.kafka_key(), record.routed_topic());
    let mut out = Vec::new();
    record.encode(&mut out).expect("what was decoded can be encoded");
    assert_eq!(EdgeRecord::decode(&out).as_ref(), Ok(&record));
}

fn seal(frame: &mut [u8]) {
    if let Some((head, body)) = frame.split_at_mut_checked(HEAD_BYTES) {
        head[5..].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
    }
}

fn compress_body(rest: &[u8]) -> Option<Vec<u8>> {
    let (head, body) = rest.split_at_checked(HEAD_BYTES + BATCH_HEADER_BYTES)?;
    let mut frame = head.to_vec();
    frame.extend_from_slice(&u32::try_from(body.len()).ok()?.to_be_bytes());
    frame.extend_from_slice(&zstd::bulk::compress(body, 1).ok()?);
    seal(&mut frame);
    Some(frame)
}
