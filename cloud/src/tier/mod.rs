//! The archive of `tiered` topics: closed ranges of partitions as objects, and reading them back.
//!
//! Roles: `format` (the bytes of an object), `archive` (put, read, remove; where objects lie), `blocks` (the cache: each block is fetched
//! once, however many ask), `ahead` (which blocks a reader will want next), `janitor` (objects that are not to be there), `owner`
//! (whose the archive is). What is archived, and when, is the log's to say (`log::archive`).
//!
//! **Invariant:** an object is archived or doomed by the store's word (`store::keys::archive`); no other lies under the archive's path but its
//! marker.
//! **Invariant:** nothing is put or removed before the marker was seen to be this store's (`owner`).
//! **Invariant:** an object is never changed, and its name is never used again.
//! **Invariant:** what a reader gets was checked against the checksum that the object's writer computed.
//! **Invariant:** memory is bounded: by the cache's budget, [`limits::tier::FETCHES`] fetches on their way, and one object being put.
//!
//! Deliberately absent: multipart uploads. An object is put as a whole, so that a crash leaves all of it or nothing; what is left of an
//! interrupted multipart upload cannot be seen, and is paid for.
//!
//! [`limits::tier::FETCHES`]: robustmq_common::limits::tier::FETCHES

mod ahead;
mod archive;
mod blocks;
mod format;
mod janitor;
mod owner;

pub use archive::{Archive, ArchiveError, FailedRead, Object, TierSettings};
pub use format::{ObjectBuilder, SealedObject};
pub use janitor::Janitor;
pub use owner::{Owner, OwnerError, check_without_archive};

#[cfg(test)]
mod tests;
