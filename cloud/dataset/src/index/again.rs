//! Extents that are fetched again.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use robustmq_common::limits::dataset as limits;

use super::{ExtentIndex, ObjectIndex};
use crate::fetch::{FetchError, Object, Source};
use crate::format::Format;
use crate::format::decode::Decoder;
use crate::format::parquet::{self, Held};

/// Content that is looked for extents, of which no more is kept than the next one has.
struct Content<'a> {
    index: &'a ObjectIndex,
    /// The extent that comes next.
    number: usize,
    /// Where `buffer` begins in the content.
    at: u64,
    buffer: BytesMut,
}

impl Content<'_> {
    /// Takes what comes next.
    fn add(&mut self, mut content: &[u8]) {
        let start = self.index.extents.get(self.number).map_or(u64::MAX, |next| next.start);
        if self.buffer.is_empty() {
            // What lies between extents is of none.
            let skip = start.saturating_sub(self.at).min(content.len() as u64);
            self.at += skip;
            content =
                content.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
        }
        self.buffer.extend_from_slice(content);
    }

    /// The next extent that is all there.
    fn next(&mut self) -> Option<(ExtentIndex, Bytes)> {
        let next = self.index.extents.get(self.number)?;
        let skip = next.start.saturating_sub(self.at).min(self.buffer.len() as u64);
        self.buffer.advance(usize::try_from(skip).unwrap_or(usize::MAX));
        self.at += skip;
        let bytes = next.bytes as usize;
        if self.at < next.start || self.buffer.len() < bytes {
            return None;
        }
        let found = Bytes::copy_from_slice(&self.buffer[..bytes]);
        self.buffer.advance(bytes);
        self.at += u64::from(next.bytes);
        self.number += 1;
        Some((*next, found))
    }
}

/// The content of an extent, from the source. Of a compressed object everything before it is read as well, and `beside` is given what was
/// passed by. Row groups of Parquet that are read for it are `held` for a while, of the object of that identity.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(
    source: &dyn Source,
    object: &Object,
    index: &ObjectIndex,
    extent: &ExtentIndex,
    held: (&Arc<Held>, u128),
    mut beside: impl FnMut(&ExtentIndex, Bytes) + Send,
) -> Result<Bytes, FetchError> {
    let end = extent.start + u64::from(extent.bytes);
    let damaged = |reason: String| FetchError::Damaged { object: object.path.to_string(), reason };
    if index.reading.format == Format::Parquet {
        return parquet::fetch(source, object, index, extent, held).await;
    }
    let decoder = Decoder::of(index.reading.coding).map_err(|error| damaged(error.to_string()))?;
    let Some(mut decoder) = decoder.map(Decoder::of_indexed) else {
        return source.get(object, extent.start..end).await;
    };
    let mut whole = Content { index, number: 0, at: 0, buffer: BytesMut::new() };
    let (mut raw_at, mut content) = (0, Vec::new());
    while raw_at < object.size {
        let end = (raw_at + limits::CODED_PIECE_BYTES as u64).min(object.size);
        let piece = source.get(object, raw_at..end).await?;
        raw_at = end;
        let mut raw = &piece[..];
        loop {
            content.clear();
            let taken = decoder.push(raw, &mut content, limits::CODED_PIECE_BYTES);
            // What came before an error was indexed, and is checked against what it was then.
            whole.add(&content);
            while let Some((next, found)) = whole.next() {
                if next.start == extent.start {
                    return Ok(found);
                }
                beside(&next, found);
            }
            let taken = taken.map_err(|error| damaged(error.to_string()))?;
            raw = raw.get(taken..).unwrap_or_default();
            if raw.is_empty() && content.len() < limits::CODED_PIECE_BYTES {
                break;
            }
        }
    }
    Err(damaged(format!("its content ends before {end}")))
}
