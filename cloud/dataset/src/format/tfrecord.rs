//! TensorFlow's records (`tfrecord`, after its documentation "TFRecord and tf.train.Example"): a length (u64, little-endian), the
//! masked CRC32C of the length's bytes, the data, and the masked CRC32C of the data.

use super::{Input, Limits, Parsed, Parser};
use crate::layout::{RecordLayout, Span};

/// [`super::Format::TfRecord`].
pub(super) struct TfRecord;

const HEAD_BYTES: usize = 12;
const TAIL_BYTES: usize = 4;

/// A checksum as it is stored, so that the checksum of data with checksums in it is still a good one.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The length of the record that begins here; `None` if this is the head of none.
pub(super) fn length(head: &[u8; HEAD_BYTES]) -> Option<u64> {
    let (length, checksum) = head.split_first_chunk::<8>()?;
    (masked(length) == checksum).then(|| u64::from_le_bytes(*length))
}

impl Parser for TfRecord {
    fn parse(&self, input: Input<'_>, limits: Limits) -> Parsed {
        let given = input.given();
        let mut parsed = Parsed::default();
        let mut at = 0;
        while at < given.bytes.len() && parsed.found() < limits.records {
            let rest = &given.bytes[at..];
            let Some(head) = rest.first_chunk::<HEAD_BYTES>() else {
                parsed.cut_off(at, given.is_last);
                break;
            };
            let Some(length) = length(head) else {
                let reason = "the checksum of the record's length does not match".into();
                parsed.damaged(at, reason);
                parsed.is_end = true;
                break;
            };
            if length > limits.record_bytes as u64 {
                parsed.damaged(
                    at,
                    format!("the record is larger than {} bytes", limits.record_bytes),
                );
                let end = length.saturating_add((at + HEAD_BYTES + TAIL_BYTES) as u64);
                parsed.skipped(at, end, given);
                return parsed;
            }
            let bytes = usize::try_from(length).expect("at most the limit, which is a usize");
            let Some((data, after)) = rest[HEAD_BYTES..].split_at_checked(bytes) else {
                parsed.cut_off(at, given.is_last);
                break;
            };
            let Some(checksum) = after.first_chunk::<TAIL_BYTES>() else {
                parsed.cut_off(at, given.is_last);
                break;
            };
            if masked(data) == *checksum {
                let value = Span::new(at + HEAD_BYTES, bytes);
                parsed.layout.records.push(RecordLayout::plain(None, value));
            } else {
                parsed.damaged(at, "the checksum of the record's data does not match".into());
            }
            at += HEAD_BYTES + bytes + TAIL_BYTES;
        }
        parsed.consumed = at;
        parsed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{TfRecord, masked};
    use crate::format::testing::{check_splits, limits, mutated, read, tampering};

    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        let mut content = Vec::new();
        for data in records {
            let length = (data.len() as u64).to_le_bytes();
            content.extend([&length[..], &masked(&length), data, &masked(data)].concat());
        }
        content
    }

    fn check(content: &[u8], values: &[&[u8]], damage: &[(u64, &str)]) {
        let seen = read(&TfRecord, content, &[], limits(20));
        let found: Vec<_> = seen.records.iter().map(|record| record.value.as_slice()).collect();
        assert_eq!(found, values);
        let found: Vec<_> = seen.damage.iter().map(|(at, reason)| (*at, reason.as_str())).collect();
        assert_eq!(found, damage);
        check_splits(&TfRecord, content, &[1], limits(20));
    }

    /// The check value of CRC32C, masked by hand.
    #[test]
    fn golden_checksum() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked(b"123456789"), 0xc78a_b0e5_u32.to_le_bytes());
    }

    /// Written by the Python package `tfrecord`.
    #[test]
    fn golden_record() {
        let content = b"\x19\x00\x00\x00\x00\x00\x00\x00\x8b\xf1\x08(\x0a\x17\x0a\x0a\x0a\x01a\x12\x05\x1a\x03\x0a\x01\x00\x0a\x09\x0a\x01b\x12\x04\x0a\x02\x0a\x00\x9eR\xa9\x98";
        let seen = read(&TfRecord, content, &[], limits(25));
        assert_eq!(seen.damage, []);
        assert_eq!(seen.records[0].value, content[12..37]);
    }

    #[test]
    fn damage_is_told_apart() {
        let records = [b"one".to_vec(), vec![], b"three".to_vec()];
        let good = file(&records);
        check(&good, &[b"one", b"", b"three"], &[]);
        let with = |at: usize| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad
        };
        let data = "the checksum of the record's data does not match";
        check(&with(12), &[b"", b"three"], &[(0, data)]);
        check(&with(16), &[b"", b"three"], &[(0, data)]);
        let length = "the checksum of the record's length does not match";
        check(&with(19), &[b"one"], &[(19, length)]);
        check(&good[..good.len() - 1], &[b"one", b""], &[(35, "the record is cut off")]);
        check(&good[..40], &[b"one", b""], &[(35, "the record is cut off")]);
        let large = file(&[b"1".to_vec(), vec![7; 21], b"3".to_vec()]);
        check(&large, &[b"1", b"3"], &[(17, "the record is larger than 20 bytes")]);
        let huge = [&u64::MAX.to_le_bytes()[..], &masked(&u64::MAX.to_le_bytes())].concat();
        check(&huge, &[], &[(0, "the record is larger than 20 bytes")]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(records in proptest::collection::vec(proptest::collection::vec(0..=255_u8, 0..30), 0..12),
                                    steps in proptest::collection::vec(1..60_usize, 1..6), tampering in tampering()) {
            let content = file(&records);
            let seen = read(&TfRecord, &content, &[], limits(30));
            assert_eq!(seen.records.into_iter().map(|record| record.value).collect::<Vec<_>>(), records);
            check_splits(&TfRecord, &content, &steps, limits(20));
            check_splits(&TfRecord, &mutated(&content, &tampering), &steps, limits(20));
        }
    }
}
