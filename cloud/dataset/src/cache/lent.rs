//! Extents of which parts are sent as they lie in memory, while they may leave the cache.
//!
//! What is in the cache and lent costs nothing more. What has left it, and is still lent, is counted in the room of read-ahead until the last
//! part was sent; and what readers are past stays there until then, since nothing would be won by its going.
//!
//! **Invariant:** an extent is lent once, however many parts of it are being sent.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::ExtentId;
use super::front::Cache;
use crate::layout::Extent;

/// An extent that is lent, until it is dropped.
pub(super) struct Loan {
    cache: Arc<Cache>,
    id: ExtentId,
    extent: Arc<Extent>,
}

impl fmt::Debug for Loan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Loan").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let id = self.id;
        self.cache.change(|memory, _, _| memory.lent.returned(id));
    }
}

/// Keeps a loan for as long as a part of its content is held.
struct Lender(Arc<Loan>);

impl AsRef<[u8]> for Lender {
    fn as_ref(&self) -> &[u8] {
        &self.0.extent.content
    }
}

impl Loan {
    pub(super) fn new(cache: &Arc<Cache>, id: ExtentId, extent: &Arc<Extent>) -> Arc<Self> {
        let (cache, extent) = (Arc::clone(cache), Arc::clone(extent));
        Arc::new(Self { cache, id, extent })
    }

    /// The extent's content, to be cut into parts.
    pub(super) fn content(self: Arc<Self>) -> Bytes {
        Bytes::from_owner(Lender(self))
    }
}

#[derive(Debug)]
struct Entry {
    loan: Weak<Loan>,
    bytes: usize,
    /// The cache does not hold it any more.
    is_outside: bool,
}

/// All that is lent.
#[derive(Debug, Default)]
pub(super) struct Lent {
    entries: HashMap<ExtentId, Entry>,
    bytes: usize,
    outside_bytes: usize,
}

impl Lent {
    /// Bytes of those that are lent and meant.
    pub(super) fn bytes_of(&self, is_meant: impl Fn(ExtentId) -> bool) -> usize {
        let meant = self.entries.iter().filter(|(id, _)| is_meant(**id));
        meant.map(|(_, entry)| entry.bytes).sum()
    }

    /// Bytes of what is lent and not in the cache.
    pub(super) fn outside_bytes(&self) -> usize {
        self.outside_bytes
    }

    /// Whether the cache holds what is lent of it: if it went, nothing would be won.
    pub(super) fn is_within(&self, id: ExtentId) -> bool {
        self.entries.get(&id).is_some_and(|entry| !entry.is_outside)
    }

    /// A loan that somebody has already.
    pub(super) fn again(&self, id: ExtentId) -> Option<Arc<Loan>> {
        self.entries.get(&id)?.loan.upgrade()
    }

    /// Whether an extent of `bytes` bytes that is not lent may be, so that all that is stays within `most`.
    pub(super) fn has_room(&mut self, id: ExtentId, bytes: usize, most: usize) -> bool {
        // One that is not alive any more and is about to say so.
        self.remove(id);
        self.bytes + bytes <= most
    }

    /// Notes a loan.
    pub(super) fn lend(&mut self, id: ExtentId, loan: &Arc<Loan>, bytes: usize, is_outside: bool) {
        self.bytes += bytes;
        if is_outside {
            self.outside_bytes += bytes;
        }
        self.entries.insert(id, Entry { loan: Arc::downgrade(loan), bytes, is_outside });
    }

    /// The cache does not hold it any more.
    pub(super) fn is_outside(&mut self, id: ExtentId) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.is_outside) {
            entry.is_outside = true;
            self.outside_bytes += entry.bytes;
        }
    }

    /// The last part of it was dropped, unless it was lent anew meanwhile.
    pub(super) fn returned(&mut self, id: ExtentId) {
        if self.entries.get(&id).is_some_and(|entry| entry.loan.strong_count() == 0) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: ExtentId) {
        let Some(Entry { bytes, is_outside, .. }) = self.entries.remove(&id) else { return };
        self.bytes -= bytes;
        if is_outside {
            self.outside_bytes -= bytes;
        }
    }
}
