//! The memory that extents of datasets and blocks of archived records have together: `[cache] memory_bytes`, until it is changed while the
//! broker runs.
//!
//! **Invariant:** blocks have at most three quarters of it. Extents have what blocks, and what is decompressed and rendered, do not take; at least a quarter, since a
//! row group may be larger than all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use robustmq_common::limits;
use robustmq_common::machine::{Memory, memory};
use serde::{Deserialize, Serialize};

use super::Datasets;
use crate::settings::archived_bytes;
use crate::tier::Archive;

/// What there is to cache in, and who caches.
#[derive(Clone)]
pub struct Caches {
    memory_bytes: Arc<AtomicUsize>,
    archive: Option<Arc<Archive>>,
    datasets: Arc<Datasets>,
}

/// As it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ShownCaches {
    /// What they may take together.
    pub memory_bytes: usize,
    /// What of that blocks of archived records take.
    pub archived_bytes: usize,
    /// What of that decompressing and rendering take: decoders and what they work on, row groups and footers of Parquet.
    pub decoding_bytes: usize,
    /// What of that extents of datasets take.
    pub extents_bytes: usize,
    /// What of that they may take.
    pub extents_budget_bytes: usize,
}

/// What they are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCaches {
    /// What they may take together.
    pub memory_bytes: usize,
}

/// It was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBudget {
    /// Less than there has to be.
    #[error("memory_bytes is {0}, and at least {least}", least = limits::tier::CACHE_BYTES_MIN)]
    TooLittle(usize),
    /// More than there is.
    #[error(
        "memory_bytes is {0}, and {1}: it has to be less, since the broker needs some beside it"
    )]
    TooMuch(usize, Memory),
}

impl Caches {
    /// With so much to begin with, which both have been opened with.
    #[must_use]
    pub fn new(
        memory_bytes: usize,
        archive: Option<Arc<Archive>>,
        datasets: Arc<Datasets>,
    ) -> Self {
        Self { memory_bytes: Arc::new(AtomicUsize::new(memory_bytes)), archive, datasets }
    }

    /// As it is now.
    #[must_use]
    pub fn show(&self) -> ShownCaches {
        ShownCaches {
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            archived_bytes: self.archive.as_ref().map_or(0, |archive| archive.cache_bytes()),
            decoding_bytes: self.datasets.decoding_bytes(),
            extents_bytes: self.datasets.held_bytes(),
            extents_budget_bytes: self.datasets.memory_bytes(),
        }
    }

    /// Takes so much from now on, until the broker is started again. What is too much is dropped at once, but for what is on its way.
    ///
    /// # Errors
    /// [`NoBudget`].
    pub fn set(&self, NewCaches { memory_bytes }: NewCaches) -> Result<(), NoBudget> {
        if memory_bytes < limits::tier::CACHE_BYTES_MIN {
            return Err(NoBudget::TooLittle(memory_bytes));
        }
        if let Some(memory) = memory().filter(|memory| memory.bytes < memory_bytes as u64) {
            return Err(NoBudget::TooMuch(memory_bytes, memory));
        }
        self.memory_bytes.store(memory_bytes, Ordering::Relaxed);
        if let Some(archive) = &self.archive {
            archive.set_cache_bytes(archived_bytes(memory_bytes));
        }
        self.share();
        Ok(())
    }

    /// Gives extents what others do not take. These come and go: to be called now and then.
    pub fn share(&self) {
        let all = self.memory_bytes.load(Ordering::Relaxed);
        let archived = self.archive.as_ref().map_or(0, |archive| archive.cache_bytes());
        let all_of_datasets = all.saturating_sub(archived);
        self.datasets.set_decoding_bytes(all_of_datasets);
        let left = all_of_datasets.saturating_sub(self.datasets.decoding_bytes_beside());
        let left = left.max(all / 4);
        self.datasets.set_memory_bytes(left);
    }
}
