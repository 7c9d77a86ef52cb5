//! Content between the pieces that are fetched and the extents that are cut.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use robustmq_common::limits::dataset as limits;

use super::Cutter;
use crate::cache::Cache;

impl Cutter<'_> {
    /// Takes content that comes next.
    pub(super) fn take(&mut self, content: &[u8]) {
        let skipped = self.skip.min(content.len() as u64);
        self.skip -= skipped;
        self.at += skipped;
        let skipped = usize::try_from(skipped).unwrap_or(content.len());
        let content = content.get(skipped..).unwrap_or_default();
        let bytes = self.buffer.len() + content.len();
        if self.buffer.capacity() < bytes {
            // Exactly as much as is needed, but for a record that grows on and on.
            let more = if self.buffer.len() > self.most_bytes { self.buffer.len() } else { 0 };
            let mut joined = BytesMut::with_capacity(bytes + more);
            joined.extend_from_slice(&self.buffer);
            self.allocated = joined.capacity();
            self.buffer = joined;
        }
        self.buffer.extend_from_slice(content);
    }

    /// So much of the front, as a buffer of its own: what stays in the cache is not to hold more than a little of what was around it.
    pub(super) fn content(&mut self, bytes: usize) -> Bytes {
        if bytes.saturating_mul(64) >= self.allocated.saturating_mul(63) {
            return self.buffer.split_to(bytes).freeze();
        }
        let content = Bytes::copy_from_slice(&self.buffer[..bytes]);
        self.buffer.advance(bytes);
        content
    }

    /// What is left of a piece keeps its room, if it is much, and what was cut off before it goes.
    pub(super) fn keep(&mut self, cache: &Arc<Cache>, is_cut: bool) {
        let rest = self.buffer.len();
        if is_cut {
            self.shrink();
        }
        self.room = (rest >= limits::REST_BYTES).then(|| cache.keep_room(rest));
    }

    /// Gives back what was cut off before the rest.
    pub(super) fn shrink(&mut self) {
        self.buffer = BytesMut::from(&self.buffer[..]);
        self.allocated = self.buffer.capacity();
    }

    /// Gives up what is left of a piece if it has room in the cache's memory: so many bytes have to be fetched again.
    pub(super) fn let_go(&mut self) -> u64 {
        if self.room.take().is_none() {
            return 0;
        }
        std::mem::take(&mut self.buffer).len() as u64
    }
}
