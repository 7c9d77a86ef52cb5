//! Batches as they go to clients: one buffer, or several pieces, of which some are parts of memory that others use as well.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::batch::wrong_length;
use super::header::{BatchHeader, CHECKED_FROM, CRC_AT, HEADER_BYTES, LENGTH_PREFIX_BYTES, put};
use super::{BatchError, stored_records};
use crate::ids::Offset;

/// One complete batch. A clone shares its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireBatch {
    /// At least the header.
    first: Bytes,
    rest: Vec<Bytes>,
    bytes: usize,
}

impl From<Bytes> for WireBatch {
    fn from(batch: Bytes) -> Self {
        Self { bytes: batch.len(), first: batch, rest: Vec::new() }
    }
}

impl WireBatch {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// How many records it says that it holds.
    #[must_use]
    pub fn records_count(&self) -> u32 {
        stored_records(&self.first)
    }

    /// The offset after it.
    ///
    /// # Errors
    /// [`BatchError::Length`] and [`BatchError::Magic`]: it is something else.
    pub fn next_offset(&self) -> Result<Offset, BatchError> {
        let header = BatchHeader::parse(&self.first)?;
        if header.batch_bytes() != self.bytes {
            return Err(wrong_length(&header, self.bytes));
        }
        let last = header.base_offset.0.saturating_add(i64::from(header.last_offset_delta));
        Ok(Offset(last.saturating_add(1)))
    }

    /// What it is made of, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// What it is made of, in order.
    pub fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.first).chain(self.rest)
    }

    /// All of it in one buffer: what is in pieces is copied.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        self.pieces().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

/// A value that is not copied: it lies behind so many bytes of the others.
#[derive(Debug)]
pub(super) struct Shared {
    pub at: usize,
    pub value: Bytes,
    /// Its CRC32C.
    pub crc: u32,
}

/// Writes `header` over the first bytes of `framing`, with the true length and checksum of all of it with what is shared.
pub(super) fn seal(
    mut header: BatchHeader,
    mut framing: BytesMut,
    shared: Vec<Shared>,
) -> Result<WireBatch, BatchError> {
    let bytes = framing.len() + shared.iter().map(|shared| shared.value.len()).sum::<usize>();
    let limit = i32::MAX as usize;
    header.batch_length = i32::try_from(bytes - LENGTH_PREFIX_BYTES)
        .map_err(|_| BatchError::TooLarge { bytes, limit })?;
    put(&mut framing, 0, header.encode());
    let part = |range: Range<usize>| framing.get(range).unwrap_or_default();
    let (mut crc, mut at) = (0, CHECKED_FROM);
    for Shared { at: end, value, crc: value_crc } in &shared {
        crc = crc32c::crc32c_append(crc, part(at..*end));
        crc = combined(crc, *value_crc, value.len());
        at = *end;
    }
    crc = crc32c::crc32c_append(crc, part(at..framing.len()));
    put(&mut framing, CRC_AT, crc.to_be_bytes());
    let framing = framing.freeze();
    let mut shared = shared.into_iter();
    let Some(Shared { at: end, value, .. }) = shared.next() else { return Ok(framing.into()) };
    let (first, mut rest, mut at) = (framing.slice(..end), vec![value], end);
    for Shared { at: end, value, .. } in shared {
        rest.extend([framing.slice(at..end), value]);
        at = end;
    }
    rest.push(framing.slice(at..));
    debug_assert!(first.len() >= HEADER_BYTES);
    Ok(WireBatch { first, rest, bytes })
}

/// CRC32C's polynomial, the lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x to the power of 1, 2, 4, 8..., modulo the polynomial.
const POWERS: [u32; 64] = {
    let mut powers = [1 << 30; 64];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = product(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

/// The product of two polynomials, modulo that of CRC32C.
const fn product(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 1_u32 << 31);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (if b & 1 != 0 { POLYNOMIAL } else { 0 });
        bit >>= 1;
    }
    product
}

/// The CRC32C of one text and another one behind it, of `bytes` bytes, by the CRC32C of each: a text's is multiplied with x to the power
/// of the bits that follow.
#[must_use]
pub fn combined(first: u32, second: u32, bytes: usize) -> u32 {
    let (mut shifted, mut bytes, mut at) = (first, bytes as u64, 3);
    while bytes != 0 {
        if bytes & 1 != 0 {
            shifted = product(POWERS[at], shifted);
        }
        bytes >>= 1;
        at += 1;
    }
    shifted ^ second
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::combined;
    use crate::ids::{LeaderEpoch, Offset};
    use crate::record::{BatchBuilder, Compression, NewRecord, RecordBatch};

    proptest! {
        #[test]
        fn checksums_of_parts_give_that_of_the_whole(whole in vec(any::<u8>(), 0..3000), at in any::<proptest::sample::Index>()) {
            let (first, second) = whole.split_at(at.index(whole.len() + 1));
            let of_both = combined(crc32c::crc32c(first), crc32c::crc32c(second), second.len());
            assert_eq!(of_both, crc32c::crc32c(&whole));
        }

        #[test]
        fn a_batch_in_pieces_is_the_batch_that_was_copied(
            values in vec((vec(any::<u8>(), 0..300), any::<bool>()), 1..8),
            base_offset in 0..1_000_000_i64,
        ) {
            let (mut copied, mut in_pieces) =
                (BatchBuilder::new(Compression::None), BatchBuilder::new(Compression::None));
            for (value, is_shared) in &values {
                let value = Bytes::copy_from_slice(value);
                let record = NewRecord {
                    timestamp_ms: 7,
                    key: Some(b"key"),
                    value: Some(&value),
                    headers: &[("a", Some(b"1")), ("b", None)],
                };
                copied.push(&record).expect("small");
                if *is_shared {
                    let crc = crc32c::crc32c(&value);
                    in_pieces.push_shared(&record, value.clone(), crc).expect("small");
                } else {
                    in_pieces.push(&record).expect("small");
                }
                assert_eq!(copied.size(), in_pieces.size());
            }
            let place = (Offset(base_offset), LeaderEpoch(3));
            let copied = copied.build().expect("some").placed(place.0, place.1);
            let in_pieces = in_pieces.build_wire(place.0, place.1).expect("some");
            assert_eq!(in_pieces.size(), copied.size());
            assert_eq!(in_pieces.records_count(), u32::try_from(values.len()).expect("few"));
            assert_eq!(in_pieces.next_offset(), Ok(copied.next_offset()));
            let shared = values.iter().filter(|(_, is_shared)| *is_shared).count();
            assert_eq!(in_pieces.pieces().count(), 2 * shared + 1);
            let whole = in_pieces.into_bytes();
            assert_eq!(&whole, copied.as_bytes());
            RecordBatch::parse(whole).expect("a true checksum");
        }
    }
}
