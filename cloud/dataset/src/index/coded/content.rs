//! Content on its way from a decoder to the extents that it is cut into.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::index::{ExtentIndex, ObjectIndex};

/// Content that is looked for extents, of which no more is kept than the next one has.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Where `buffer` begins in the content.
    at: u64,
    buffer: BytesMut,
}

impl Content {
    pub(super) fn from(at: u64) -> Self {
        Self { at, buffer: BytesMut::new() }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back what was cut off before the rest.
    pub(super) fn shrink(&mut self) {
        self.buffer = BytesMut::from(&self.buffer[..]);
    }

    /// Takes what comes next.
    pub(super) fn add(&mut self, index: &ObjectIndex, mut content: &[u8]) {
        if self.buffer.is_empty()
            && let Some(next) = self.next_extent(index)
        {
            // What lies between extents is of none.
            let skip = next.start.saturating_sub(self.at).min(content.len() as u64);
            self.at += skip;
            content =
                content.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
        }
        self.buffer.extend_from_slice(content);
    }

    /// The first extent that is not passed yet, as far as they are known.
    fn next_extent(&self, index: &ObjectIndex) -> Option<ExtentIndex> {
        let number = index.extents.partition_point(|extent| extent.start < self.at);
        // What is lost may have no content at all, and nobody reads it.
        index.extents.get(number).filter(|next| !index.is_lost(next.first_record)).copied()
    }

    /// Whether the next extent is all there.
    pub(super) fn has_next(&self, index: &ObjectIndex) -> bool {
        self.next_extent(index).is_some_and(|next| {
            let end = next.start + u64::from(next.bytes);
            self.at + self.buffer.len() as u64 >= end
        })
    }

    /// The next extent that is all there.
    pub(super) fn next(&mut self, index: &ObjectIndex) -> Option<(ExtentIndex, Bytes)> {
        let next = self.next_extent(index)?;
        let skip = next.start.saturating_sub(self.at).min(self.buffer.len() as u64);
        self.buffer.advance(usize::try_from(skip).unwrap_or(usize::MAX));
        self.at += skip;
        if !self.has_next(index) {
            return None;
        }
        let bytes = next.bytes as usize;
        let found = Bytes::copy_from_slice(&self.buffer[..bytes]);
        self.buffer.advance(bytes);
        self.at += u64::from(next.bytes);
        Some((next, found))
    }
}
