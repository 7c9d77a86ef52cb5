//! Sessions and retained messages on disk, in one redb file, together with the queue position that they reflect.
//!
//! The hub submits [`ChangeSet`]s in order. One writer thread merges all that wait into one synced transaction and then
//! reports how far it got ([`Progress`]); it is the only thing that writes.
//!
//! **Invariant:** change sets reach the disk in the order in which they were submitted, each whole or not at all.
//! **Invariant:** a stored position (lane, sequence) is committed together with every change that the records up to it
//! caused, so start-up may replay the queue from just after it.
//! **Invariant:** a failed commit loses nothing: the same changes are tried again on a freshly opened database until they
//! are durable, and [`Progress::committed`] stands still until then.
//! **Invariant:** a damaged file is set aside, never deleted, and the gateway starts with an empty one.

mod file;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use robustmq_common::ids::{EdgeSeq, LaneId};

pub use file::{OpenError, StateFile};
pub use writer::{CommitTicket, Progress, State};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets `key` to `value`.
    Put {
        /// The key; its layout belongs to whoever submits it.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes `key`, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes every key that starts with `prefix`.
    DeletePrefix {
        /// The first bytes of the keys.
        prefix: Bytes,
    },
}

impl Change {
    /// What it weighs while it waits, in bytes.
    fn weight_bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        match self {
            Self::Put { key, value } => OVERHEAD + key.len() + value.len(),
            Self::Delete { key } => OVERHEAD + key.len(),
            Self::DeletePrefix { prefix } => OVERHEAD + prefix.len(),
        }
    }
}

/// Changes that become durable together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Applied in this order.
    pub changes: Vec<Change>,
    /// The queue records that these changes reflect, the last of each lane. Every earlier record of the lane must have
    /// been reflected by this change set or one submitted before it.
    pub reflects: Vec<(LaneId, EdgeSeq)>,
    /// The server's time at this moment, if it is to be saved.
    pub clock: Option<SavedClock>,
    /// Which queue directory the positions belong to, from now on.
    pub queue_store: Option<u64>,
}

/// The MQTT server's time, so that it goes on from there after a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SavedClock {
    /// Milliseconds of server time: it never goes back.
    pub server_ms: u64,
    /// Milliseconds since 1970 at the same moment; `None` when the wall clock was not set.
    pub wall_ms: Option<i64>,
}

/// For each lane, the last queue record that the stored state reflects.
pub type Positions = BTreeMap<LaneId, EdgeSeq>;
