//! What the uplink needs of the queue, as a seam: the product's queue, and one in memory for tests and simulation.

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::sync::{LanePosition, SkipReason, StoreId};
use tokio::sync::watch;

/// The queue did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BacklogError(pub String);

/// A part of a lane: a record, or sequences that have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// One record.
    Record {
        /// When the gateway took it, in milliseconds since the Unix epoch, if that is known by now.
        wall_ms: Option<i64>,
        /// Its encoded body.
        body: Bytes,
    },
    /// Sequences without a record.
    Skip {
        /// How many, at least one.
        count: u64,
        /// Why.
        reason: SkipReason,
    },
}

impl Piece {
    /// How many sequences it covers.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Record { .. } => 1,
            Self::Skip { count, .. } => *count,
        }
    }
}

/// Consecutive pieces of a lane, from a sequence that the reader asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// In order, without a gap.
    pub pieces: Vec<Piece>,
    /// The lane's digest after the last of them.
    pub digest: ChainDigest,
}

impl Chunk {
    /// How many sequences it covers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.pieces.iter().fold(0, |count, piece| count.saturating_add(piece.count()))
    }

    /// Bytes of its records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Record { body, .. } => body.len(),
            Piece::Skip { .. } => 0,
        };
        self.pieces.iter().map(bytes).sum()
    }
}

/// What one lane of the queue store is, as far as it is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorePosition {
    /// The queue store.
    pub store: StoreId,
    /// The incarnation that the cloud issued to it; 0 for none yet.
    pub incarnation: Incarnation,
    /// Where the lane stands.
    pub lane: LanePosition,
}

/// A queue, as the uplink sees it. It shows synced records only.
#[async_trait]
pub trait Backlog: Send + Sync + 'static {
    /// Its lanes, at least one, the most important first.
    fn lanes(&self) -> Vec<LaneId>;

    /// Where a lane stands.
    ///
    /// # Errors
    /// What the queue says.
    fn position(&self, lane: LaneId) -> Result<StorePosition, BacklogError>;

    /// The last synced sequence of a lane, and its changes.
    ///
    /// # Errors
    /// What the queue says.
    fn synced(&self, lane: LaneId) -> Result<watch::Receiver<EdgeSeq>, BacklogError>;

    /// The pieces from `from` on: at most `max_records` pieces and about `max_bytes` bytes, at least one piece if `from` is synced.
    ///
    /// # Errors
    /// What the queue says.
    async fn read(
        &self,
        lane: LaneId,
        from: EdgeSeq,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Chunk, BacklogError>;

    /// The lane's chain digest after `seq`; `None` if it is not known: trimmed, not synced, or lost with a damaged segment.
    ///
    /// # Errors
    /// What the queue says.
    async fn digest_at(
        &self,
        lane: LaneId,
        seq: EdgeSeq,
    ) -> Result<Option<ChainDigest>, BacklogError>;

    /// The cloud has everything up to `through`: the queue may trim that.
    ///
    /// # Errors
    /// What the queue says.
    fn acknowledge(&self, lane: LaneId, through: EdgeSeq) -> Result<(), BacklogError>;

    /// Keeps the incarnation; it is durable when this returns. After an error the former one still counts.
    ///
    /// # Errors
    /// What the queue says.
    async fn set_incarnation(&self, incarnation: Incarnation) -> Result<(), BacklogError>;
}
