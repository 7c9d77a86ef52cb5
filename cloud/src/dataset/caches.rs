//! The memory that extents of datasets and blocks of archived records have together: `[cache] memory_bytes`, until it is changed while the
//! broker runs.
//!
//! **Invariant:** blocks have at most three quarters of it. Extents have what blocks, and what is decompressed and rendered, do not take; at least a quarter, since a
//! row group may be larger than all of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// One at a time shares it: what was reckoned last is what there is then.
    sharing: Arc<Mutex<()>>,
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
        let (memory_bytes, sharing) = (Arc::new(AtomicUsize::new(memory_bytes)), Arc::default());
        Self { memory_bytes, sharing, archive, datasets }
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
        let _sharing = self.sharing.lock().unwrap_or_else(PoisonError::into_inner);
        self.datasets.set_decoding_bytes(self.all_of_datasets());
        self.datasets.set_memory_bytes(self.left());
    }

    /// Takes from extents what is decompressed and rendered in as soon as it is much more than before: a row group of Parquet. They have it back when
    /// all is shared again: what comes and goes does not have them come and go.
    pub async fn make_way(&self) {
        loop {
            self.datasets.is_decoding_much_more().await;
            let _sharing = self.sharing.lock().unwrap_or_else(PoisonError::into_inner);
            let left = self.left();
            if left < self.datasets.memory_bytes() {
                self.datasets.set_memory_bytes(left);
            }
        }
    }

    fn all_of_datasets(&self) -> usize {
        let archived = self.archive.as_ref().map_or(0, |archive| archive.cache_bytes());
        self.memory_bytes.load(Ordering::Relaxed).saturating_sub(archived)
    }

    /// What is left for extents.
    fn left(&self) -> usize {
        let left = self.all_of_datasets().saturating_sub(self.datasets.decoding_bytes_beside());
        left.max(self.memory_bytes.load(Ordering::Relaxed) / 4)
    }
}

#[cfg(test)]
mod tests {
    use robustmq_dataset::cache::{Cache, CacheSettings};
    use tokio::task::yield_now;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::log::Log;
    use crate::store::MemoryStore;
    use crate::topics::Catalogue;

    /// Extents made way once a second: four row groups of 28 MB had been fetched by then, and all took 80 MB more than there was.
    #[tokio::test]
    async fn extents_make_way_at_once_and_have_it_back_when_all_is_shared() {
        let all = 64 << 20;
        let store = Arc::new(MemoryStore::new());
        let topics = Arc::new(Catalogue::new(Arc::new(Log::new(store.clone()))));
        let cache = Cache::open(CacheSettings { memory_bytes: all, ssd: None });
        let cache = cache.expect("large enough");
        let datasets =
            Datasets::start(store, &topics, cache.clone(), None, CancellationToken::new());
        let datasets = datasets.await.expect("an empty store");
        let caches = Caches::new(all, None, datasets);
        let budget = || caches.show().extents_budget_bytes;
        let makes_way = async {
            let mut working = cache.work();
            working.set_much(32 << 20);
            while budget() == all {
                yield_now().await;
            }
            let left = budget();
            assert!((33 << 20..50 << 20).contains(&left), "{left}: a part of it is read-ahead's");
            working.set_much(63 << 20);
            while budget() == left {
                yield_now().await;
            }
            assert_eq!(budget(), all / 4, "they always have so much");
            drop(working);
            // Told of it, and nothing is given back.
            cache.work().set_much(1 << 20);
            yield_now().await;
            assert_eq!(budget(), all / 4, "what comes and goes does not have them come and go");
            caches.share();
            assert_eq!(budget(), all);
        };
        tokio::select! {
            biased;
            () = caches.make_way() => unreachable!("it goes on"),
            () = makes_way => {}
        }
    }
}
