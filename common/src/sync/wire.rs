//! A bounded reader and writer for big-endian frames. Reading never panics and never allocates by a length it was told.

use super::DecodeError;

/// Reads fields from the front of a byte slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    /// A `u32` length within `limit`, as a count to be read next.
    pub(super) fn length(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<usize, DecodeError> {
        let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Truncated)?;
        if length > limit {
            return Err(DecodeError::TooLong { field, length, limit });
        }
        Ok(length)
    }

    /// Bytes after a `u16` length.
    pub(super) fn short_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(self.u16()?);
        self.bytes(length)
    }

    /// Text after a `u16` length.
    pub(super) fn short_text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.short_bytes()?).map_err(|_| DecodeError::Invalid { field })
    }

    /// Everything that is left.
    pub(super) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses trailing bytes, so that one value has one encoding.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { bytes: self.rest.len() }) }
    }
}

/// Starts a frame: magic, version, and room for the CRC32C of everything after it.
pub(super) fn frame_start(out: &mut Vec<u8>, magic: [u8; 4], version: u8) {
    out.clear();
    out.extend_from_slice(&magic);
    out.push(version);
    out.extend_from_slice(&[0; 4]);
}

/// Fills in the CRC of a frame that [`frame_start`] began.
pub(super) fn frame_end(out: &mut [u8]) {
    if let Some((head, body)) = out.split_at_mut_checked(FRAME_HEAD_BYTES) {
        let crc = crc32c::crc32c(body).to_be_bytes();
        for (slot, byte) in head.iter_mut().skip(5).zip(crc) {
            *slot = byte;
        }
    }
}

/// Magic, version and CRC.
pub(super) const FRAME_HEAD_BYTES: usize = 9;

/// Checks magic, version and CRC, and gives a reader over the body.
pub(super) fn frame_open<'a>(
    bytes: &'a [u8],
    magic: [u8; 4],
    version: u8,
) -> Result<Reader<'a>, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.bytes(4).map_err(|_| DecodeError::Magic)? != magic {
        return Err(DecodeError::Magic);
    }
    let found = reader.u8()?;
    if found != version {
        return Err(DecodeError::Version { found, expected: version });
    }
    let crc = reader.u32()?;
    if crc32c::crc32c(reader.rest) != crc {
        return Err(DecodeError::Crc);
    }
    Ok(reader)
}
