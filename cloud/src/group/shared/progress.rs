//! What is durable of a pool, byte by byte. Its key is [`crate::store::keys::partition::PartitionKeys::share`].
//!
//! ```text
//! version(1)=1 start(8) acknowledged(4) (from(8) to(8))* deliveries(4) (from(8) to(8) count(4))*
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::keys::{Reader, ValueError};

const VERSION: u8 = 1;

/// What is acknowledged behind a committed offset, in its metadata.
const NOTE: &str = "acknowledged-ahead=";

/// A pool's progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything below it is acknowledged, or was not there when the group began.
    pub start: i64,
    /// What is acknowledged above it, in order.
    pub acknowledged: Vec<Range<i64>>,
    /// What was delivered and came back, with how often, in order.
    pub deliveries: Vec<(Range<i64>, u32)>,
}

impl Progress {
    /// Nothing is acknowledged from `start` on.
    #[must_use]
    pub fn at(start: i64) -> Self {
        Self { start, ..Self::default() }
    }

    /// Offsets of a log that has these ones which are not acknowledged.
    #[must_use]
    pub fn lag(&self, log: Range<i64>) -> u64 {
        let log = log.start.max(self.start)..log.end;
        let done: u64 = self.acknowledged.iter().map(|offsets| both(offsets, &log)).sum();
        both(&log, &log).saturating_sub(done)
    }

    /// How much of what a log has is acknowledged behind `offset`, as a note to an offset that does not tell it; empty if nothing is.
    #[must_use]
    pub fn note(&self, offset: i64, log: Range<i64>) -> String {
        let behind = log.start.max(offset)..log.end;
        let ahead: u64 = self.acknowledged.iter().map(|offsets| both(offsets, &behind)).sum();
        if ahead > 0 { format!("{NOTE}{ahead}") } else { String::new() }
    }

    /// What [`Progress::note`] says; 0 for any other text.
    #[must_use]
    pub fn read_note(note: &str) -> u64 {
        note.strip_prefix(NOTE).and_then(|ahead| ahead.parse().ok()).unwrap_or(0)
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size = 17 + self.acknowledged.len() * 16 + self.deliveries.len() * 20;
        let mut out = BytesMut::with_capacity(size);
        out.put_u8(VERSION);
        out.put_i64(self.start);
        out.put_u32(u32::try_from(self.acknowledged.len()).unwrap_or(u32::MAX));
        for offsets in &self.acknowledged {
            out.put_i64(offsets.start);
            out.put_i64(offsets.end);
        }
        out.put_u32(u32::try_from(self.deliveries.len()).unwrap_or(u32::MAX));
        for (offsets, count) in &self.deliveries {
            out.put_i64(offsets.start);
            out.put_i64(offsets.end);
            out.put_u32(*count);
        }
        out.freeze()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VERSION)?;
        let start = reader.i64()?;
        if start < 0 {
            return Err(ValueError::Field("start"));
        }
        let mut progress = Self::at(start);
        let mut end = start;
        for _ in 0..reader.u32()? {
            let offsets = range(&mut reader, &mut end)?;
            progress.acknowledged.push(offsets);
        }
        let mut end = start;
        for _ in 0..reader.u32()? {
            let offsets = range(&mut reader, &mut end)?;
            progress.deliveries.push((offsets, reader.u32()?));
        }
        reader.end()?;
        Ok(progress)
    }
}

/// How many offsets are in both.
fn both(one: &Range<i64>, other: &Range<i64>) -> u64 {
    let common = one.end.min(other.end).saturating_sub(one.start.max(other.start));
    u64::try_from(common).unwrap_or(0)
}

/// The next range, which has something in it and begins where the last one ended or later.
fn range(reader: &mut Reader<'_>, end: &mut i64) -> Result<Range<i64>, ValueError> {
    let offsets = reader.i64()?..reader.i64()?;
    if offsets.start < *end || offsets.is_empty() {
        return Err(ValueError::Field("range"));
    }
    *end = offsets.end;
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "lists of ranges of offsets are meant")]

    use proptest::prelude::{any, proptest};

    use super::Progress;

    #[test]
    fn golden_bytes() {
        let progress =
            Progress { start: 5, acknowledged: vec![7..9, 300..301], deliveries: vec![(5..6, 2)] };
        let numbers = [7_i64, 9, 300, 301].map(i64::to_be_bytes).concat();
        let expected = [
            &[1][..],
            &5_i64.to_be_bytes(),
            &2_u32.to_be_bytes(),
            &numbers,
            &1_u32.to_be_bytes(),
            &5_i64.to_be_bytes(),
            &6_i64.to_be_bytes(),
            &2_u32.to_be_bytes(),
        ]
        .concat();
        let stored = progress.encode();
        assert_eq!(&stored[..], &expected[..]);
        assert_eq!(Progress::decode(&stored), Ok(progress));
        for length in 0..stored.len() {
            assert!(Progress::decode(&stored[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn ranges_that_overlap_or_are_empty_are_refused() {
        for acknowledged in [vec![4..5], vec![9..9], vec![7..9, 8..10]] {
            let progress = Progress { start: 5, acknowledged, deliveries: vec![] };
            assert!(Progress::decode(&progress.encode()).is_err(), "{progress:?}");
        }
    }

    #[test]
    fn what_is_acknowledged_out_of_order_is_no_lag() {
        let progress = Progress { acknowledged: vec![7..9, 20..30], ..Progress::at(5) };
        for (log, lag) in [
            (0..40, 23),
            (0..25, 13),
            (8..40, 21),
            (25..40, 10),
            (0..5, 0),
            (std::ops::Range { start: 50, end: 40 }, 0),
        ] {
            assert_eq!(progress.lag(log.clone()), lag, "{log:?}");
        }
        for (offset, log, note, ahead) in [
            (5, 0..40, "acknowledged-ahead=12", 12),
            (8, 0..40, "acknowledged-ahead=11", 11),
            (5, 25..29, "acknowledged-ahead=4", 4),
            (30, 0..40, "", 0),
            (5, 40..40, "", 0),
        ] {
            assert_eq!(progress.note(offset, log.clone()), note, "{offset} of {log:?}");
            assert_eq!(Progress::read_note(note), ahead);
        }
        assert_eq!(Progress::read_note("a client's own note"), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = Progress::decode(&bytes);
        }
    }
}
