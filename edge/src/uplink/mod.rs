//! Replicates the queue upstream: each edge sequence exactly once, in order within its lane.
//!
//! `engine` (hello, send, and again) -> `greet` (agree with the cloud on incarnation and history) -> `sender` (one for each
//! lane: cut, send, take in) -> [`Transport`] (one request, one answer) and [`Backlog`] (the queue, below its synced watermark).
//!
//! **Invariant:** nothing above the queue's synced watermark is sent: what a power cut could take back never leaves.
//! **Invariant:** the queue is told that something is acknowledged only if number **and** chain digest of what the cloud says are those
//! of this queue, and every rejected record up to there is safe in the dead-letter file.
//! **Invariant:** only bytes with the protocol's magic are an answer, whatever HTTP status they came with.
//! **Invariant:** time is `tokio::time`, and pauses come from an injected source of randomness: simulations repeat.

mod backlog;
mod dead_letter;
mod engine;
mod greet;
mod http;
mod memory;
mod metrics;
mod pacing;
mod queue_backlog;
mod sender;
mod status;
mod transport;

pub use backlog::{Backlog, BacklogError, Chunk, Piece, StorePosition};
pub use dead_letter::{DeadLetter, DeadLetterFile, DeadLetterReport, DeadLetters, NewestLetter};
pub use engine::{Uplink, UplinkParts, UplinkSettings};
pub use http::{HttpSettings, HttpSetupError, HttpTransport};
pub use memory::MemoryBacklog;
pub use metrics::UplinkMetrics;
pub use pacing::Jitter;
pub use status::{LaneLag, UplinkStatus};
pub use transport::{Call, Transport, TransportError, exchange};
