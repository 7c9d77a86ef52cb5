//! What an edge and its cloud say to each other, as types and as bytes: records, batches, answers, positions.
//!
//! The conversation: an edge says [`Hello`] with the position of every lane and learns its incarnation and what the cloud has of each
//! lane ([`LaneState`]); then it sends one [`Batch`] after the other, each starting at the sequence after the last acknowledged one, and every
//! answer is the lane's state again. A digest chained over all records of a lane ([`ChainDigest`]) proves that both sides mean the same history.
//!
//! **Invariant:** decoding never panics, never allocates by a length it was told, and refuses what is over `common::limits`.
//! **Invariant:** every frame begins with a magic and a version and carries a CRC32C, so that nothing else is taken for it.
//! **Invariant:** one value has one encoding; golden bytes in the tests keep it.
//!
//! [`ChainDigest`]: crate::ids::ChainDigest

mod answer;
mod batch;
mod hello;
mod record;
mod wire;

pub use answer::{Answer, LaneState, OpenBatch, Outcome, Refusal, RejectReason, Rejected};
pub use batch::{Batch, BatchBuilder, BatchHeader, BatchIdentity, Entries, Entry, SkipReason};
pub use hello::{Heartbeat, Hello, Intent, JudgedLane, LanePosition, OpenReason};
pub use record::{EdgeRecord, RecordKey};

use crate::ids::Incarnation;

/// Identifies one queue store of an edge, random, made when the store is created: a wiped queue has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub u128);

/// Identifies one run of an edge process, random, made at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

impl std::fmt::Display for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// No incarnation has been issued yet: the first one is 1.
pub const NO_INCARNATION: Incarnation = Incarnation(0);

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not begin with the frame's magic: the peer does not speak this protocol (a captive portal, a proxy's error page).
    #[error("the bytes do not begin with the sync protocol's magic")]
    Magic,
    /// The peer speaks another version.
    #[error("sync protocol version {found}, expected {expected}")]
    Version {
        /// What the frame says.
        found: u8,
        /// What this build reads.
        expected: u8,
    },
    /// The bytes were changed on their way.
    #[error("the checksum does not match")]
    Crc,
    /// The bytes end early.
    #[error("the bytes end early")]
    Truncated,
    /// Bytes after the end.
    #[error("{bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A length or count over its limit.
    #[error("{field}: {length}, at most {limit} are allowed")]
    TooLong {
        /// Which one.
        field: &'static str,
        /// What the frame says.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A value outside what the field allows.
    #[error("{field} has no legal value")]
    Invalid {
        /// Which one.
        field: &'static str,
    },
    /// The compressed part could not be read.
    #[error("the compressed part could not be read: {reason}")]
    Compression {
        /// What the decoder said.
        reason: String,
    },
}

/// Why a value cannot be encoded: a field is longer than the format holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {length} bytes; at most {limit} can be encoded")]
pub struct EncodeError {
    /// Which field.
    pub field: &'static str,
    /// Its length in bytes.
    pub length: usize,
    /// The most that the format holds.
    pub limit: usize,
}

#[cfg(test)]
mod tests;
