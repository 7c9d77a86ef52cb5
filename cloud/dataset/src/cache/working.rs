//! Memory that is worked in beside the cache: decoders, and what they have made and nobody has taken yet. Some of it takes room from
//! read-ahead; what is more is for who gives the cache what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::front::Cache;
use super::memory::working_bytes;

/// Memory that somebody works in, until this is dropped.
#[derive(Debug)]
pub struct Working {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Working {
    /// So much, from now on.
    pub fn set(&mut self, bytes: usize) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
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

    /// What of that takes no room from read-ahead.
    #[must_use]
    pub fn working_bytes_beside(&self) -> usize {
        self.working_bytes().saturating_sub(working_bytes(self.memory_bytes()))
    }

    /// What all work in together.
    #[must_use]
    pub fn working_bytes(&self) -> usize {
        self.working.load(Ordering::Relaxed)
    }
}
