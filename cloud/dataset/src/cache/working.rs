//! Memory that is worked in beside the cache: decoders, and what they have made and nobody has taken yet. Some of it takes room from
//! read-ahead; what is more is for who gives the cache what is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use robustmq_common::limits::dataset as limits;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::front::{Cache, locked};
use super::memory::working_bytes;

/// What all work in together.
#[derive(Debug, Default)]
pub(super) struct AtWork {
    bytes: AtomicUsize,
    /// Somebody works in much more than before.
    grew: Notify,
    /// When there was nothing any more.
    ended: Mutex<Option<Instant>>,
}

impl AtWork {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Somebody works, or did a moment ago and is likely to again.
    pub(super) fn goes_on(&self) -> bool {
        let is_recent = |ended: Instant| ended.elapsed() < limits::WORK_GOES_ON;
        self.bytes() > 0 || locked(&self.ended).is_some_and(is_recent)
    }
}

/// Memory that somebody works in, until this is dropped.
#[derive(Debug)]
pub struct Working {
    all: Arc<AtWork>,
    bytes: usize,
}

impl Working {
    /// So much, from now on.
    pub fn set(&mut self, bytes: usize) {
        self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.bytes > 0 && before == self.bytes {
            *locked(&self.all.ended) = Some(Instant::now());
        }
        self.bytes = bytes;
    }

    /// So much, from now on, and it is much: [`Cache::is_much_more_worked_in`] tells of it.
    pub fn set_much(&mut self, bytes: usize) {
        self.set(bytes);
        self.all.grew.notify_one();
    }

    /// How much.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Cache {
    /// Somebody begins to work.
    #[must_use]
    pub fn work(&self) -> Working {
        Working { all: Arc::clone(&self.working), bytes: 0 }
    }

    /// About how much should be fetched at once of what is decompressed: so that what takes room from read-ahead is enough for some decoders.
    #[must_use]
    pub fn coded_piece_bytes(&self) -> usize {
        let (least, most) = limits::CODED_PIECES.into_inner();
        let pieces = limits::CODED_GETS * limits::CODED_DECODERS;
        (working_bytes(self.memory_bytes()) / pieces).clamp(least, most)
    }

    /// What of that takes no room from read-ahead.
    #[must_use]
    pub fn working_bytes_beside(&self) -> usize {
        self.working_bytes().saturating_sub(working_bytes(self.memory_bytes()))
    }

    /// What all work in together.
    #[must_use]
    pub fn working_bytes(&self) -> usize {
        self.working.bytes()
    }

    /// Returns when somebody works in much more than before: once, however often that was. For one who waits.
    pub async fn is_much_more_worked_in(&self) {
        self.working.grew.notified().await;
    }
}
