//! Zig-zag variable-length integers, as records use them (Protocol Buffers' `sint32` and `sint64`).

use bytes::BufMut;

/// Appends `value` in 1 to 10 bytes.
pub(super) fn put_varlong(out: &mut impl BufMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or_default();
        rest >>= 7;
        if rest == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// How many bytes [`put_varlong`] takes for `value`.
pub(super) fn varlong_bytes(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let bits = 64 - (zigzag | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads a varlong at `*at` and moves `at` behind it. `None` when the bytes end or the number does not fit 64 bits.
pub(super) fn varlong(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// Reads a varint (32 bits) at `*at` and moves `at` behind it. `None` when the bytes end or the number does not fit.
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<i32> {
    i32::try_from(varlong(bytes, at)?).ok()
}
