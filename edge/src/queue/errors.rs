//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use robustmq_common::ids::LaneId;

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the queue in {} is in use by another process; stop that one first", dir.display())]
    Locked {
        /// The queue's directory.
        dir: PathBuf,
    },
    /// A setting cannot work.
    #[error("queue setting {key}: {problem}")]
    Setting {
        /// The setting's name in `[queue]`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The files are of a later format than this program knows.
    #[error("{} has format {found}; this program knows up to {known}: run the newer version", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The latest format known.
        known: u16,
    },
    /// The disk refused.
    #[error("queue: cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an append was refused. The publish must not be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// `[queue] max_bytes` is used up and the policy allows nothing to be dropped for this record.
    #[error("the queue is full: {used_bytes} of {max_bytes} bytes ([queue] max_bytes)")]
    Full {
        /// Bytes in use.
        used_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The file system has no space left.
    #[error("the queue's disk is full: {reason}")]
    DiskFull {
        /// What the system said.
        reason: Arc<str>,
    },
    /// More is waiting for the disk than memory is set aside for; wait for [`room`](super::Queue::room).
    #[error("{pending_bytes} bytes already wait for the disk")]
    Busy {
        /// Bytes that wait.
        pending_bytes: usize,
    },
    /// An earlier sync or write failed, so nothing can be promised any more.
    #[error("the queue refuses since its disk failed: {reason}; check the disk, then restart")]
    Poisoned {
        /// The failure.
        reason: Arc<str>,
    },
    /// The record is larger than a record may be.
    #[error("the record has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no such lane.
    #[error("there is no lane {lane}")]
    NoLane {
        /// The lane asked for.
        lane: LaneId,
    },
    /// The queue was closed before the record was synced.
    #[error("the queue is closed")]
    Closed,
}

/// Why something that was asked for is not durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotStored {
    /// There is no space; that may pass.
    DiskFull(Arc<str>),
    /// The disk failed.
    Poisoned(Arc<str>),
}

impl From<NotStored> for QueueError {
    fn from(why: NotStored) -> Self {
        match why {
            NotStored::DiskFull(reason) => Self::DiskFull { reason },
            NotStored::Poisoned(reason) => Self::Poisoned { reason },
        }
    }
}

/// Why a read, acknowledgement or look-up failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no such lane.
    #[error("there is no lane {lane}")]
    NoLane {
        /// The lane asked for.
        lane: LaneId,
    },
    /// An acknowledgement beyond what was ever synced: whoever sent it speaks of another queue.
    #[error("lane {lane}: {through} was acknowledged, but only {synced} was ever synced")]
    AheadOfQueue {
        /// The lane.
        lane: LaneId,
        /// What was acknowledged.
        through: u64,
        /// The synced watermark.
        synced: u64,
    },
    /// The disk refused.
    #[error("queue: cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system has no space left, so it is not durable; try again.
    #[error("the queue's disk is full: {reason}")]
    DiskFull {
        /// What the system said.
        reason: Arc<str>,
    },
    /// An earlier sync or write failed.
    #[error("the queue refuses since its disk failed: {reason}; check the disk, then restart")]
    Poisoned {
        /// The failure.
        reason: Arc<str>,
    },
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}
