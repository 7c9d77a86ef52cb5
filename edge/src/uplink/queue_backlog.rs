//! The product's queue as the uplink's [`Backlog`].

use async_trait::async_trait;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::sync::{LanePosition, NO_INCARNATION, SkipReason, StoreId};
use tokio::sync::watch;

use super::backlog::{Backlog, BacklogError, Chunk, Piece, StorePosition};
use crate::queue::{self, Queue, QueueError, ReadBatch};

impl From<QueueError> for BacklogError {
    fn from(error: QueueError) -> Self {
        Self(error.to_string())
    }
}

fn reason(reason: queue::SkipReason) -> SkipReason {
    match reason {
        queue::SkipReason::Expired => SkipReason::Expired,
        queue::SkipReason::Dropped => SkipReason::Dropped,
        queue::SkipReason::Quarantined => SkipReason::Quarantined,
    }
}

/// Entries and skips in one sequence. The queue accounts for each sequence once, in order.
fn pieces(queue: &Queue, batch: ReadBatch) -> Result<Vec<Piece>, BacklogError> {
    let mut pieces = Vec::with_capacity(batch.entries.len() + batch.skips.len());
    let mut next = batch.from;
    let mut entries = batch.entries.into_iter().peekable();
    let mut skips = batch.skips.into_iter().peekable();
    while next < batch.next {
        if let Some(entry) = entries.next_if(|entry| entry.seq == next) {
            pieces.push(Piece::Record { wall_ms: queue.resolve(&entry.stamp), body: entry.body });
            next = EdgeSeq(next.0.saturating_add(1));
        } else if let Some(skip) = skips.next_if(|skip| skip.from == next && skip.to > next) {
            let count = skip.to.0.saturating_sub(next.0);
            pieces.push(Piece::Skip { count, reason: reason(skip.reason) });
            next = skip.to;
        } else {
            return Err(BacklogError(format!("the queue does not account for sequence {next}")));
        }
    }
    Ok(pieces)
}

#[async_trait]
impl Backlog for Queue {
    fn lanes(&self) -> Vec<LaneId> {
        Queue::lanes(self)
    }

    fn position(&self, lane: LaneId) -> Result<StorePosition, BacklogError> {
        let position = Queue::position(self, lane)?;
        Ok(StorePosition {
            store: StoreId(u128::from_be_bytes(position.store.0)),
            incarnation: position.incarnation.unwrap_or(NO_INCARNATION),
            lane: LanePosition {
                lane,
                next_seq: EdgeSeq(position.synced_through.0.saturating_add(1)),
                acknowledged_through: position.acknowledged_through,
                digest: position.acknowledged_digest,
            },
        })
    }

    fn synced(&self, lane: LaneId) -> Result<watch::Receiver<EdgeSeq>, BacklogError> {
        Ok(Queue::synced(self, lane)?)
    }

    async fn read(
        &self,
        lane: LaneId,
        from: EdgeSeq,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Chunk, BacklogError> {
        let batch = Queue::read(self, lane, from, max_bytes, max_records).await?;
        if batch.from != from {
            let found = batch.from;
            return Err(BacklogError(format!("asked for sequence {from}, the queue has {found}")));
        }
        let digest = batch.digest;
        Ok(Chunk { pieces: pieces(self, batch)?, digest })
    }

    async fn digest_at(
        &self,
        lane: LaneId,
        seq: EdgeSeq,
    ) -> Result<Option<ChainDigest>, BacklogError> {
        Ok(Queue::digest_at(self, lane, seq).await?)
    }

    fn acknowledge(&self, lane: LaneId, through: EdgeSeq) -> Result<(), BacklogError> {
        Ok(Queue::acknowledge(self, lane, through)?)
    }

    async fn set_incarnation(&self, incarnation: Incarnation) -> Result<(), BacklogError> {
        Ok(Queue::set_incarnation(self, incarnation).await?)
    }
}
