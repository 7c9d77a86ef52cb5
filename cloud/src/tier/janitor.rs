//! Removes doomed objects: those whose records were deleted, and those whose put was interrupted.
//!
//! **Invariant:** an object that is being put is left alone, and one whose records were readable a moment ago stays for
//! [`limits::tier::DOOMED_GRACE`], since readers may be on their way.
//! **Invariant:** a note stays for [`limits::tier::DOOMED_KEPT`], and its object is removed again then: a put that was given up may be
//! carried out later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use robustmq_common::limits;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Archive, ArchiveError};
use crate::store::keys::archive::Doomed;
use crate::store::keys::{Family, damaged};
use crate::store::{self, ScanLimit, Store, StoreError, WriteBatch};

/// Goes over the notes of doomed objects.
pub struct Janitor {
    store: Arc<dyn Store>,
    archive: Arc<Archive>,
    /// The objects that are noted.
    seen: HashMap<Uuid, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When it was seen first, milliseconds since 1970.
    first_ms: i64,
    is_removed: bool,
}

/// What one pass did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Objects that are still noted.
    pub noted: usize,
    /// Objects that were removed for the first time.
    pub removed: usize,
}

/// Why a pass ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SweepError {
    /// The object store failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Janitor {
    /// Removes what `store` notes from `archive`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, archive: Arc<Archive>) -> Self {
        Self { store, archive, seen: HashMap::new() }
    }

    /// Runs until `shutdown`. `now_ms` is the wall clock, milliseconds since 1970.
    pub async fn run(mut self, now_ms: fn() -> i64, shutdown: CancellationToken) {
        let mut told: Option<Instant> = None;
        let work = async {
            loop {
                match self.pass(now_ms()).await {
                    Ok(swept) if swept.removed > 0 => {
                        tracing::debug!(removed = swept.removed, "archived objects removed");
                    }
                    Ok(_) => {}
                    Err(SweepError::Store(StoreError::Closed)) => return,
                    Err(error)
                        if told.is_some_and(|at| at.elapsed() < limits::tier::TOLD_AGAIN) =>
                    {
                        tracing::debug!(%error, "archived objects are removed later");
                    }
                    Err(error) => {
                        told = Some(Instant::now());
                        tracing::warn!(%error, "archived objects are removed later");
                    }
                }
                tokio::time::sleep(limits::tier::JANITOR_PAUSE).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    /// Goes over all notes once.
    ///
    /// # Errors
    /// [`SweepError`]: what was not removed still has its note.
    pub async fn pass(&mut self, now_ms: i64) -> Result<Swept, SweepError> {
        let mut range = Family::Doomed.range();
        let mut swept = Swept::default();
        let mut noted = HashSet::new();
        let mut failure = None;
        loop {
            // Asked before the notes are read: one that is put meanwhile has lost its note by the time it is off this list.
            let uploading = self.archive.uploading();
            let page = self.store.scan(range.clone(), ScanLimit::items(1000)).await?;
            let mut doomed = Vec::with_capacity(page.items.len());
            for (key, value) in &page.items {
                doomed.push(Doomed::decode(key, value).map_err(|error| damaged(key, error))?);
            }
            noted.extend(doomed.iter().map(|doomed| doomed.object));
            match self.sweep(doomed, &uploading, now_ms, &mut swept).await {
                // What follows does not wait for it.
                Err(error @ SweepError::Archive(_)) => failure = Some(error),
                swept => swept?,
            }
            match page.resume {
                Some(resume) => range.start = resume,
                None => break,
            }
        }
        self.seen.retain(|object, _| noted.contains(object));
        let metrics = self.archive.metrics();
        metrics.doomed_objects.set(i64::try_from(swept.noted).unwrap_or(i64::MAX));
        let cache_bytes = i64::try_from(self.archive.cache_bytes()).unwrap_or(i64::MAX);
        metrics.cache_bytes.set(cache_bytes);
        failure.map_or(Ok(swept), Err)
    }

    async fn sweep(
        &mut self,
        doomed: Vec<Doomed>,
        uploading: &HashSet<Uuid>,
        now_ms: i64,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let millis =
            |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let (grace, kept) = (millis(limits::tier::DOOMED_GRACE), millis(limits::tier::DOOMED_KEPT));
        let mut due = Vec::new();
        for doomed in doomed {
            let first = Seen { first_ms: now_ms, is_removed: false };
            let seen = self.seen.entry(doomed.object).or_insert(first);
            // The clock may have been set back.
            seen.first_ms = seen.first_ms.min(now_ms);
            let age = now_ms.saturating_sub(seen.first_ms);
            let is_first = !seen.is_removed;
            let is_last = age >= kept;
            if uploading.contains(&doomed.object) || age < grace || !(is_first || is_last) {
                swept.noted += 1;
                continue;
            }
            due.push((doomed, is_first, is_last));
        }
        let removals = due.into_iter().map(|(doomed, is_first, is_last)| {
            let archive = Arc::clone(&self.archive);
            async move { archive.remove(&doomed).await.map(|()| (doomed, is_first, is_last)) }
        });
        let mut removals = stream::iter(removals).buffer_unordered(limits::tier::REMOVALS_AT_ONCE);
        let mut write = WriteBatch::new();
        let mut failure = None;
        while let Some(removal) = removals.next().await {
            match removal {
                Ok((doomed, is_first, is_last)) => {
                    swept.removed += usize::from(is_first);
                    if let Some(seen) = self.seen.get_mut(&doomed.object) {
                        seen.is_removed = true;
                    }
                    if is_last {
                        write.delete(doomed.key());
                    } else {
                        swept.noted += 1;
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        if !write.is_empty() {
            store::write(&*self.store, write).await?;
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}
