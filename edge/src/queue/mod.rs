//! Store-and-forward: what devices published, on disk, in order, until the cloud has it.
//!
//! One directory is one queue *store*, with an identity of its own; in it each lane is one ordered stream of segment
//! files and one cursor. The gateway appends and waits for the sync before it acknowledges a device; the uplink reads
//! below the synced watermark and moves the cursor once the cloud has answered.
//!
//! ```text
//! DIR/queue.lock                  held while a process has the queue open
//! DIR/queue.id                    store id, incarnation, boots' wall clocks  (two slots, see `register`)
//! DIR/lane-N/cursor               acknowledged through, digest, drops        (two slots)
//! DIR/lane-N/<first seq>.seg      records                                    (see `segment`)
//! DIR/lane-N/<first seq>.bad      a segment in which something could not be read; still read around, kept as evidence
//! ```
//!
//! Roles: `Queue` (the handle) -> `writer` (the only one that changes files: group commit, cursors, trimming, dropping)
//! -> `segment`, `register` (formats) -> `common::disk` (the seam: the real one, and one that crashes).
//!
//! **Invariant:** an append resolves `Ok` only after an `fdatasync` that covers it (and, for a new segment, its directory).
//! **Invariant:** nothing above the synced watermark is ever read.
//! **Invariant:** a record's lane, sequence and digest never change, and the sequence is never reset within a store.
//! **Invariant:** a read accounts for every sequence it covers: a record, or a skip with its reason.
//! **Invariant:** the cursor (with the drops it lists) is durable before the segment it releases is unlinked.
//! **Invariant:** after a failed sync the queue takes nothing more until it is opened again.
//! **Invariant:** only the tail of the last segment is ever cut; damage elsewhere is read around and reported.
//!
//! The handle, `Queue` (cheap to clone):
//!
//! ```text
//! Queue::open(dir: &Path, settings: QueueSettings) -> Result<(Queue, Recovered), OpenError>
//! append(&self, &Append) -> Result<PendingAppend, AppendError>   sequence fixed now, in call order; the future is Ok(EdgeSeq) once synced
//! room(&self).await                                              until less than half of the memory for appends is in use
//! synced(&self, lane) -> watch::Receiver<EdgeSeq>                last synced sequence, 0 if none: await changed(), no polling
//! read(&self, lane, from, max_bytes, max_records).await -> Result<ReadBatch, QueueError>   entries and skips of [from, next)
//! acknowledge(&self, lane, through) -> Result<(), QueueError>    moves the cursor; durable within cursor_delay; trims
//! position(&self, lane) -> Result<Position, QueueError>          what the edge presents to the cloud
//! digest_at(&self, lane, seq).await -> Result<Option<ChainDigest>, QueueError>   None: trimmed or not yet synced
//! set_incarnation(&self, Incarnation).await -> Result<(), QueueError>            durable when it returns Ok, else as it was
//! replay(&self, lane, after: EdgeSeq) -> Replay                  iterator of Result<Entry, QueueError>, expired ones too
//! reflected(&self, lane, through)                                the gateway's own state has everything up to here
//! resolve(&self, &Stamp) -> Option<i64>                          wall time in ms, once anybody knows it
//! store_id() incarnation() lanes() status() poisoned() flush().await close().await
//! ```
//!
//! Deliberately absent: compression (the uplink compresses what it sends), an index (readers are sequential; a look-up
//! scans one segment), `mmap` (a bad sector would be a signal instead of an error), knowledge of what a record's body says.

pub mod clock;
mod cursor;
mod errors;
mod handle;
pub mod inspect;
mod job;
mod judge;
mod read;
mod recover;
mod register;
mod scan;
mod segment;
mod state;
mod ticket;
mod trim;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use robustmq_common::disk::{self, sim as sim_disk};

pub use clock::{BootId, Clock, Now, Stamp, SystemClock};
pub use errors::{AppendError, OpenError, QueueError};
pub use handle::{Queue, Replay};
pub use ticket::PendingAppend;
pub use types::{
    Append, Damage, Drops, Entry, FullPolicy, LaneStatus, Origin, Position, QueueSettings,
    ReadBatch, Recovered, RecoveredLane, Skip, SkipReason, StoreId,
};
