//! Extents in memory, on SSD, and on their way.
//!
//! What stays is a spread sample of what is read, chosen by a hash of what an extent is: memory holds those that rank first, the
//! SSD the next. A scan that goes round, in whatever order, hits the cache's share of the data, which is the most that any cache could; and
//! once the set is found, hardly anything is written. Extents of which one cannot be fetched without the others, since their object is compressed
//! or a table, stay or go together. What is read ahead has room of its own beside it.
//!
//! **Invariant:** an extent is loaded once at a time, however many ask for it, and was checked before anybody gets it.
//! **Invariant:** what is in memory and on its way there, what is fetched to be indexed and what is being written to SSD are within the
//! budget together, but for one extent that is larger than read-ahead's room, or does not fit beside what is being sent, and what was begun while the
//! cache was not full, which may come when it is: as many bytes as are for read-ahead, at most.
//! **Invariant:** reading ahead pushes out nothing that stays, and what is lent takes room from reading ahead alone. What stays makes room where
//! what is being read went for want of it and is loaded again, and for nothing else.
//! **Invariant:** the SSD never makes a read fail: what is wrong there is fetched again, and a failing SSD is not used any more.
//! **Invariant:** locks are taken in this order: memory, SSD's index, users.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::limits;
use tokio::sync::watch;

mod belady;
mod front;
mod lent;
mod load;
mod memory;
mod ranks;
mod room;
mod scene;
mod ssd;
mod stats;
#[cfg(test)]
mod tests;
mod users;
mod working;

#[cfg(test)]
pub(crate) use tests::in_memory;

pub use front::Cache;
pub use room::Taken;
pub use stats::{CacheStats, Counts};
pub use users::UserId;
pub use working::Working;

use crate::fetch::FetchError;
use crate::layout::Extent;

/// An extent: whose bytes they are (a hash of source, key and version), and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtentId {
    /// Hash of the object's source, key and ETag, and of how it is read: two topics over one prefix share it.
    pub object: u128,
    /// Where it begins in the content.
    pub start: u64,
    /// Bytes of content.
    pub bytes: u32,
}

impl ExtentId {
    /// The hash of an object of which an extent cannot be fetched without much of the others: it is marked, and they stay or go together.
    #[must_use]
    pub const fn together(object: u128) -> u128 {
        (object & (u128::MAX >> 16)) | (TOGETHER << 112)
    }

    const fn is_together(self) -> bool {
        self.object >> 112 == TOGETHER
    }
}

/// Another object that has it by chance is not worse off.
const TOGETHER: u128 = 0x746f;

/// How an extent is had when it is not in the cache.
#[async_trait]
pub trait Load: Send + Sync + 'static {
    /// Its content from the source.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(&self) -> Result<Bytes, FetchError>;

    /// Checks content, whatever tier it comes from, and finds its records.
    ///
    /// # Errors
    /// [`FetchError::Damaged`].
    fn open(&self, content: Bytes) -> Result<Extent, FetchError>;
}

/// Where an extent was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// In memory.
    Memory,
    /// On SSD.
    Ssd,
    /// In the source.
    Source,
}

/// An extent, and where it was.
pub type Found = (Arc<Extent>, Tier);

/// What becomes of a load; `None` while it goes on.
type Outcome = watch::Receiver<Option<Result<Found, FetchError>>>;

/// What came of the wish to load an extent ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// It is in memory to stay: it takes nothing of what is for read-ahead.
    Resident,
    /// It is in memory for now, or on its way there.
    Here,
    /// It is on its way from now on.
    Begun,
    /// Read-ahead has no room now.
    NoRoom,
}

/// How large the cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// In memory, at least [`limits::dataset::CACHE_BYTES_MIN`].
    pub memory_bytes: usize,
    /// On SSD.
    pub ssd: Option<SsdSettings>,
}

/// Where extents are kept beside memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsdSettings {
    /// A folder of its own, on a local disk. What is in it may be removed while the cache is closed.
    pub dir: PathBuf,
    /// The size of the file that holds the extents, at least [`limits::dataset::SSD_BYTES_MIN`].
    pub bytes: u64,
}

/// Why the cache cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Too little memory.
    #[error("the cache's memory is {0} bytes; at least {least} are needed", least = limits::dataset::CACHE_BYTES_MIN)]
    MemoryTooSmall(usize),
    /// Too little SSD.
    #[error("the cache's SSD is {0} bytes; at least {least} are needed", least = limits::dataset::SSD_BYTES_MIN)]
    SsdTooSmall(u64),
    /// Another process, or this one, has it open.
    #[error("the cache's folder {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// It cannot be used.
    #[error("the cache's folder {} cannot be used: {source}", .dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
