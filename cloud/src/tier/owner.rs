//! Whose an archive is: a store's data and its archive belong together, wherever they are moved to.
//!
//! The archive holds a small object, the *marker*, with an identity that the store keeps too. A copy of the archive has it as well, so that
//! another URL with the same content is the same archive. A store draws the identity when it is first started with an archive, or when it
//! was written by a release that knew none:
//!
//! 1. the store notes the identity;
//! 2. the marker is put, unless one is there;
//! 3. the store notes that the marker was made.
//!
//! After a crash between any two of these the next start goes on where they end: a marker that is not there is put again, and one with the
//! noted identity is this store's.
//!
//! **Invariant:** a store whose marker was made, and that has objects, is never given another marker: what it has archived is elsewhere.
//! **Invariant:** a marker is never replaced, so of two stores that find an archive without one at the same time, one gets it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload, PutResult};
use robustmq_common::limits;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Archive, ArchiveError};
use crate::objects::told;
use crate::store::keys::archive::Archived;
use crate::store::keys::system::{ArchiveIdentity, archive_key};
use crate::store::keys::{Family, damaged};
use crate::store::{self, ScanLimit, Store, StoreError, WriteBatch};

/// The marker's name under the archive's path.
const MARKER: &str = "archive.json";

/// What the marker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    archive_id: Uuid,
}

impl Marker {
    fn json(self) -> String {
        format!("{{\"archive_id\":\"{}\"}}", self.archive_id)
    }
}

/// Why an archive is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// It is not this store's. What is wrong, and what to do.
    #[error("{0}")]
    Foreign(String),
    /// The object store does not say.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store and what is configured to be its archive.
pub struct Owner {
    store: Arc<dyn Store>,
    archive: Arc<Archive>,
    url: String,
}

/// Whether `store` can do without an archive.
///
/// # Errors
/// [`OwnerError::Foreign`] if it has objects in one.
pub async fn check_without_archive(store: &dyn Store) -> Result<(), OwnerError> {
    if !has_objects(store).await? {
        return Ok(());
    }
    let known = load(store).await?;
    let last = known.map(|known| format!(", last at {}", known.url)).unwrap_or_default();
    Err(OwnerError::Foreign(format!(
        "it is not set, and records of tiered topics are in an archive{last}, or objects of deleted ones are still to be removed there: \
         name it. To do without it, delete the topics that were tiered, and let the broker run for half an hour before it is left out"
    )))
}

/// Whether objects are archived, or to be removed.
async fn has_objects(store: &dyn Store) -> Result<bool, StoreError> {
    for family in [Family::Archived, Family::Doomed] {
        if !store.scan(family.range(), ScanLimit::items(1)).await?.items.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn load(store: &dyn Store) -> Result<Option<ArchiveIdentity>, StoreError> {
    let key = archive_key();
    let Some(value) = store.get(&key).await? else { return Ok(None) };
    serde_json::from_slice(&value).map(Some).map_err(|error| damaged(&key, error))
}

impl Owner {
    /// Says whether `archive`, which is at `url`, is that of `store`. Asks nobody yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, archive: Arc<Archive>, url: String) -> Self {
        Self { store, archive, url }
    }

    /// Sees that the archive is this store's; makes it so if it is nobody's and the store has no other.
    ///
    /// # Errors
    /// [`OwnerError`]: nothing may be put there, nor removed.
    pub async fn confirm(&self) -> Result<(), OwnerError> {
        let known = match load(&*self.store).await? {
            Some(known) => known,
            None => {
                let archive_id = Uuid::new_v4();
                let drawn = ArchiveIdentity { archive_id, is_made: false, url: self.url.clone() };
                self.note(&drawn).await?;
                drawn
            }
        };
        let marker = Marker { archive_id: known.archive_id };
        // Where the marker was made it is read. Where it was not it is put at once: who may not list a bucket is told that he may not read
        // what is not there.
        let found = if known.is_made { self.marker().await? } else { None };
        let archive_id = match found {
            Some(found) => self.compare(marker, &found)?,
            None => self.make(&known, marker).await?,
        };
        let seen = ArchiveIdentity { archive_id, is_made: true, url: self.url.clone() };
        if seen != known {
            self.note(&seen).await?;
        }
        Ok(())
    }

    async fn note(&self, identity: &ArchiveIdentity) -> Result<(), StoreError> {
        let key = archive_key();
        let value = serde_json::to_vec(identity).map_err(|error| damaged(&key, error))?;
        let mut write = WriteBatch::new();
        write.put(key, value);
        store::write(&*self.store, write).await
    }

    fn path(&self) -> Path {
        Path::from(format!("{}/{MARKER}", self.archive.place().1))
    }

    fn compare(&self, ours: Marker, found: &[u8]) -> Result<Uuid, OwnerError> {
        let (url, path) = (&self.url, self.path());
        match serde_json::from_slice(found) {
            Ok(found) if ours == found => Ok(ours.archive_id),
            Ok(Marker { archive_id }) => Err(OwnerError::Foreign(format!(
                "{url} has the archive of another store: {path} there says {archive_id}, and this store's archive is {}. Name another \
                 place; or, if that store is gone for good, remove what it has left there, {path} last",
                ours.archive_id
            ))),
            Err(error) => Err(OwnerError::Foreign(format!(
                "{url}: {path} there does not say whose archive it is ({error}): name another place"
            ))),
        }
    }

    /// Puts the marker, or finds it put by whoever was as quick. Returns the identity in it.
    async fn make(&self, known: &ArchiveIdentity, marker: Marker) -> Result<Uuid, OwnerError> {
        if known.is_made && has_objects(&*self.store).await? {
            return Err(self.lost(known, &self.path()));
        }
        // By a release that put no marker, or the crash came before it.
        let has_ours = !known.is_made && self.has_an_object(known).await?;
        if self.create(marker).await? {
            return Ok(marker.archive_id);
        }
        match self.marker().await? {
            // A later state of this store has put it: this one was restored from a backup.
            Some(found) if has_ours => match serde_json::from_slice(&found) {
                Ok(Marker { archive_id }) => Ok(archive_id),
                Err(_) => self.compare(marker, &found),
            },
            Some(found) => self.compare(marker, &found),
            None => {
                let why = format!("{} was there, and is not any more", self.path());
                Err(ArchiveError::Unavailable(why).into())
            }
        }
    }

    fn lost(&self, known: &ArchiveIdentity, missing: &Path) -> OwnerError {
        let (url, marker) = (&self.url, Marker { archive_id: known.archive_id }.json());
        let last = match known.is_made && known.url != self.url {
            true => format!(" (it was last at {})", known.url),
            false => String::new(),
        };
        OwnerError::Foreign(format!(
            "{url} is not the archive of this store: it has no {missing}. Name the place where the archive is{last}, or copy all of it there. \
             If it is lost for good, put {marker} there as {}: the broker then starts, and what was archived cannot be read",
            self.path()
        ))
    }

    /// Whether something that this store has archived is there; `false` if there is no such thing.
    async fn has_an_object(&self, known: &ArchiveIdentity) -> Result<bool, OwnerError> {
        let page = self.store.scan(Family::Archived.range(), ScanLimit::items(1)).await?;
        let Some((key, value)) = page.items.first() else { return Ok(false) };
        let (keys, archived) = Archived::decode(key, value).map_err(|error| damaged(key, error))?;
        let path = self.archive.path_of(&keys, archived.base_offset, archived.object);
        match self.ask(self.archive.place().0.head(&path)).await? {
            Ok(_) => Ok(true),
            // Who says that it is lost puts the marker by hand.
            Err(object_store::Error::NotFound { .. }) => match self.marker().await? {
                Some(found) => {
                    self.compare(Marker { archive_id: known.archive_id }, &found).map(|_| false)
                }
                None => Err(self.lost(known, &path)),
            },
            Err(error) => Err(ArchiveError::Unavailable(told(&error)).into()),
        }
    }

    async fn marker(&self) -> Result<Option<Bytes>, ArchiveError> {
        let path = self.path();
        let got = self.ask(async { self.archive.place().0.get(&path).await?.bytes().await });
        match got.await? {
            Ok(marker) => Ok(Some(marker)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(ArchiveError::Unavailable(told(&error))),
        }
    }

    /// `false` if there is a marker already.
    async fn create(&self, marker: Marker) -> Result<bool, ArchiveError> {
        match self.ask(self.put(marker, PutMode::Create)).await? {
            Ok(_) => return Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
            // Some take no conditions, and some file systems no hard links.
            Err(error) => {
                tracing::debug!(%error, "the archive's marker is put without a condition")
            }
        }
        if self.marker().await?.is_some() {
            return Ok(false);
        }
        let put = self.ask(self.put(marker, PutMode::Overwrite)).await?;
        put.map(|_| true).map_err(|error| ArchiveError::Unavailable(told(&error)))
    }

    async fn put(&self, marker: Marker, mode: PutMode) -> object_store::Result<PutResult> {
        let (objects, path) = (self.archive.place().0, self.path());
        let payload = PutPayload::from(marker.json());
        objects.put_opts(&path, payload, PutOptions::from(mode)).await
    }

    async fn ask<T>(&self, request: impl Future<Output = T>) -> Result<T, ArchiveError> {
        let most: Duration = limits::object::READ;
        tokio::time::timeout(most, request).await.map_err(|_| {
            let seconds = most.as_secs();
            ArchiveError::Unavailable(format!("no answer within {seconds} s"))
        })
    }
}

#[cfg(test)]
mod tests;
