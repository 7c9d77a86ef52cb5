//! The layout of every key in the store: one file per kind, the bytes drawn above each type.
//!
//! ```text
//! family(1):
//!   0x00  system      store format, generation, reserved id blocks, the archive's identity
//!   0x10  catalogue   topic name -> topic
//!   0x11  catalogue   topic id -> topic name
//!   0x12  catalogue   topic id whose records are still to be removed
//!   0x20  groups      committed offsets and durable members
//!   0x30  lanes       edges: incarnations, positions, open batches
//!   0x31  tokens      edges: who may connect
//!   0x40  archive     objects that hold records of tiered topics
//!   0x41  archive     objects that are not to be there
//!   0x50  datasets    topic id -> what was listed
//!   0x51  datasets    parts of manifests
//!   0x52  datasets    what objects hold
//!   0x53  datasets    epochs of partitions
//!   0x54  datasets    how many records of an object have offsets that is not all counted
//!   0x80  partitions  topic_id(16) partition(4) kind(1) ...
//! ```
//!
//! **Invariant:** numbers are fixed-width and big-endian, so that keys sort as what they stand for.
//! **Invariant:** text is terminated so that no text is a prefix of another and order is kept (see [`text`]).
//! **Invariant:** no layout here is changed without a new [`system::STORE_FORMAT`].
//! **Invariant:** values that are written once a record batch are fixed layouts; what is written rarely is JSON.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::StoreError;

pub mod archive;
pub mod dataset;
pub mod group;
pub mod lane;
pub mod partition;
pub mod system;
pub mod text;
pub mod topic;
mod value;

pub use value::{Reader, ValueError};

/// The first byte of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// The store's own facts.
    System = 0x00,
    /// Topic name -> topic.
    TopicName = 0x10,
    /// Topic id -> topic name.
    TopicId = 0x11,
    /// Topics whose records are still to be removed.
    TopicDeletion = 0x12,
    /// Consumer groups.
    Group = 0x20,
    /// Lanes of edges.
    Lane = 0x30,
    /// Tokens of edges.
    Token = 0x31,
    /// Objects that hold records.
    Archived = 0x40,
    /// Objects that are not to be there.
    Doomed = 0x41,
    /// Dataset topics.
    Dataset = 0x50,
    /// What their sources hold.
    Manifest = 0x51,
    /// What objects hold.
    ObjectIndex = 0x52,
    /// Epochs of their partitions.
    Epoch = 0x53,
    /// How many records of objects have offsets that are not all counted.
    Promise = 0x54,
    /// Everything of one partition.
    Partition = 0x80,
}

impl Family {
    /// All keys of the family.
    #[must_use]
    pub fn range(self) -> Range<Bytes> {
        prefix_range(&[self as u8])
    }

    fn start(self, capacity: usize) -> BytesMut {
        let mut key = BytesMut::with_capacity(capacity + 1);
        key.put_u8(self as u8);
        key
    }
}

/// All keys that start with `prefix`. An all-0xff prefix has no successor; none of the families starts so.
#[must_use]
pub fn prefix_range(prefix: &[u8]) -> Range<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    Bytes::copy_from_slice(prefix)..Bytes::from(end)
}

/// The error for a value or key that does not have its layout.
#[must_use]
pub fn damaged(key: &[u8], reason: impl ToString) -> StoreError {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(key.len() * 2);
    for byte in key {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    StoreError::Damaged { key: hex, reason: reason.to_string() }
}
