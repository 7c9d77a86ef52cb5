//! Pages in delta encodings, looked at before they are decoded: they say themselves how many values they have and how long these are, and
//! the decoder takes their word (parquet-format's Encodings.md).

use parquet::basic::Encoding;
use robustmq_common::limits::dataset as limits;

/// Bytes that are read on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The largest block: writers have 128 or 256 values in one.
const BLOCK: u64 = 65_536;

fn cut_off() -> String {
    "a page in a delta encoding is cut off".into()
}

/// What the values of a page take once they are decoded, beyond the page's own bytes. An error where they are more than `values`.
pub(super) fn check(encoding: Encoding, page: &[u8], values: u64) -> Result<u64, String> {
    let mut bits = Bits { bytes: page, at: 0 };
    let most = values.min(limits::PARQUET_STEP_VALUES);
    match encoding {
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            Header::read(&mut bits, most).map(|_| 0)
        }
        Encoding::DELTA_BYTE_ARRAY => {
            // What each value has in common with the one before, and then what it has besides.
            let common = sum(&mut bits, most)?;
            let besides = sum(&mut bits, most)?;
            Ok(common.saturating_add(besides))
        }
        _ => Ok(0),
    }
}

/// Before the blocks.
struct Header {
    block: u64,
    parts: u64,
    values: u64,
    first: i64,
}

impl Header {
    fn read(bits: &mut Bits<'_>, most: u64) -> Result<Self, String> {
        let (block, parts, values) = (bits.varint()?, bits.varint()?, bits.varint()?);
        if values > most {
            return Err(format!("a page in a delta encoding is to have {values} values of {most}"));
        }
        if block > BLOCK || parts == 0 || !block.is_multiple_of(parts) {
            return Err(format!("a delta encoding has blocks of {block} values in {parts} parts"));
        }
        Ok(Self { block, parts, values, first: bits.zigzag()? })
    }
}

/// The sum of lengths; an error where one is negative.
fn sum(bits: &mut Bits<'_>, most: u64) -> Result<u64, String> {
    let Header { block, parts, values, first } = Header::read(bits, most)?;
    let (mut length, mut total) = (first, 0_u64);
    let mut add = |length: i64| {
        let length = u64::try_from(length).map_err(|_| "a length is negative".to_owned())?;
        total = total.saturating_add(length);
        Ok::<_, String>(())
    };
    if values > 0 {
        add(length)?;
    }
    let mut left = values.saturating_sub(1);
    while left > 0 {
        let least = bits.zigzag()?;
        let widths = bits.take(usize::try_from(parts).map_err(|_| cut_off())?)?;
        for width in widths {
            // Parts that would have no values are not written.
            if left == 0 {
                break;
            }
            let part = block / parts;
            let packed =
                bits.take(usize::try_from(part * u64::from(*width) / 8).map_err(|_| cut_off())?)?;
            for value in 0..part.min(left) {
                let delta = unpacked(packed, value, *width)?;
                length = length.wrapping_add(least).wrapping_add(delta.cast_signed());
                // They are numbers of 32 bits.
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "it wraps as the decoder's does"
                )]
                let wrapped = i64::from(length as i32);
                length = wrapped;
                add(length)?;
            }
            left -= part.min(left);
        }
    }
    Ok(total)
}

/// A number of `width` bits, the least significant first.
fn unpacked(packed: &[u8], number: u64, width: u8) -> Result<u64, String> {
    if width > 64 {
        return Err(format!("a number has {width} bits"));
    }
    let first = number * u64::from(width);
    let mut value = 0;
    for bit in 0..u64::from(width) {
        let at = usize::try_from((first + bit) / 8).unwrap_or(usize::MAX);
        let byte = packed.get(at).copied().ok_or_else(cut_off)?;
        value |= u64::from(byte >> ((first + bit) % 8) & 1) << bit;
    }
    Ok(value)
}

impl<'a> Bits<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(cut_off)?;
        self.at += count;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number has too many bytes".into())
    }

    fn zigzag(&mut self) -> Result<i64, String> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}
