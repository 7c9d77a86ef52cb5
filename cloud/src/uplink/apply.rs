//! Batches: where they belong in their lane's history, and how they get into the log exactly once.
//!
//! Three durable steps: the open batch (its end, its digest, its partition map), the appends (each noting its origin in the same write), the
//! new position. A crash between any two leaves an open batch: the next attempt has to cover the same range of the same
//! history, uses the same map, and each partition drops what it has.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use robustmq_common::ids::{EdgeId, EdgeSeq};
use robustmq_common::limits;
use robustmq_common::sync::{
    Batch, BatchHeader, NO_INCARNATION, Outcome, Refusal, RejectReason, Rejected,
};
use tokio::time::Instant;

use super::edges::{EdgeState, Lane, load_lane};
use super::ingest::{IngestError, Shared};
use super::lane::{LaneRecord, OpenApply};
use super::log::{LogFailure, PartitionId};
use super::plan::{Append, Items, Plan};
use super::rights::Rights;
use crate::log::{Origin, OriginKey};
use crate::store::keys::lane as keys;
use crate::store::{WriteBatch, write};

/// How a batch relates to what the cloud has of its lane.
enum Verdict {
    /// It is what comes next.
    Next,
    /// Its beginning is there already: the edge learns from the lane's state where to go on.
    Known,
    /// It belongs to another history, or does not cover the open batch.
    Mismatch,
    /// Its predecessor is missing.
    Early,
}

fn judge(record: &LaneRecord, header: &BatchHeader) -> Verdict {
    if header.from <= record.acknowledged_through {
        return Verdict::Known;
    }
    if header.from.0 != record.acknowledged_through.0.saturating_add(1) {
        return Verdict::Early;
    }
    let covers_open = record.open.as_ref().is_none_or(|open| {
        header.to.0 == open.through.0.saturating_add(1) && header.digest_after == open.digest
    });
    if header.digest_before == record.digest && covers_open {
        Verdict::Next
    } else {
        Verdict::Mismatch
    }
}

impl Shared {
    pub(super) async fn batch(
        &self,
        id: &EdgeId,
        rights: &Rights,
        batch: &Batch,
    ) -> Result<Outcome, IngestError> {
        let header = batch.header();
        if usize::from(header.lane.0) >= limits::SYNC_LANES {
            return Ok(Outcome::Refused(Refusal::Malformed));
        }
        let edge = self.edge(id).await?;
        let deadline = Instant::now() + self.settings.gap_wait;
        loop {
            let state = edge.state.read().await;
            if state.record.incarnation != header.incarnation
                || header.incarnation == NO_INCARNATION
            {
                let current = state.record.incarnation;
                let lanes = self.lane_states(id, header.incarnation, &[header.lane]).await?;
                return Ok(Outcome::Refused(Refusal::Fenced { current, lanes }));
            }
            let lane = state.lane(header.lane);
            let mut advanced = lane.advanced.subscribe();
            let mut cached = lane.record.lock().await;
            let Some(mut record) = self.current(id, header, cached.take()).await? else {
                return Ok(Outcome::Refused(Refusal::Gap { expected: EdgeSeq(1) }));
            };
            record.confirm(header.acknowledged_through);
            match judge(&record, header) {
                Verdict::Next => {
                    edge.touch(header.session, Instant::now());
                    let record = self.apply(id, rights, &state, record, batch).await?;
                    return Ok(advance(&lane, &mut cached, header, record));
                }
                Verdict::Known => {
                    self.metrics.repeated();
                    return Ok(advance(&lane, &mut cached, header, record));
                }
                Verdict::Mismatch => {
                    let told = record.state(header.lane);
                    *cached = Some(record);
                    return Ok(Outcome::Refused(Refusal::DigestMismatch { state: told }));
                }
                Verdict::Early => {
                    let expected = EdgeSeq(record.acknowledged_through.0.saturating_add(1));
                    *cached = Some(record);
                    drop(cached);
                    drop(state);
                    let wait = tokio::time::timeout_at(deadline, advanced.changed()).await;
                    if wait.is_err() {
                        return Ok(Outcome::Refused(Refusal::Gap { expected }));
                    }
                }
            }
        }
    }

    /// The lane's record. A lane of which nothing is known begins with a batch that begins at 1; `None` for any other batch.
    async fn current(
        &self,
        id: &EdgeId,
        header: &BatchHeader,
        cached: Option<LaneRecord>,
    ) -> Result<Option<LaneRecord>, IngestError> {
        if cached.is_some() {
            return Ok(cached);
        }
        let store = self.store.as_ref();
        let loaded = load_lane(store, id, header.incarnation, header.lane).await?;
        let begins = || {
            (header.from == EdgeSeq(1)).then(|| LaneRecord::at(EdgeSeq(0), header.digest_before))
        };
        Ok(loaded.or_else(begins))
    }

    async fn apply(
        &self,
        id: &EdgeId,
        rights: &Rights,
        state: &EdgeState,
        mut record: LaneRecord,
        batch: &Batch,
    ) -> Result<LaneRecord, IngestError> {
        let header = batch.header();
        let origin =
            OriginKey { edge: id.clone(), incarnation: header.incarnation, lane: header.lane };
        let items = Items::read(batch);
        let now_ms = (self.settings.wall_clock)();
        let lane_key = keys::lane_key(id, header.incarnation, header.lane);
        let plan = match &record.open {
            Some(open) => {
                let open = open.clone();
                self.plan(&items, &open.routes, &open.rejected, &origin, &open.predecessors, now_ms)
                    .await?
            }
            None => {
                let routed = self.route(&items, rights, state).await?;
                let plan = self.plan(&items, &routed.routes, &[], &origin, &[], now_ms).await?;
                if !plan.appends.is_empty() {
                    record.open = Some(OpenApply {
                        through: EdgeSeq(header.to.0.saturating_sub(1)),
                        digest: header.digest_after,
                        predecessors: Vec::new(),
                        rejected: plan.rejected.clone(),
                        routes: routed.routes,
                    });
                }
                if record.rejected.len() + plan.rejected.len() > limits::SYNC_REJECTIONS {
                    return Err(IngestError::TooManyRejections);
                }
                let mut opening = WriteBatch::new();
                if routed.created_topics {
                    opening.put(keys::edge_key(id), state.record_now().encode()?);
                }
                if record.open.is_some() {
                    opening.put(lane_key.clone(), record.encode());
                }
                if !opening.is_empty() {
                    write(self.store.as_ref(), opening).await?;
                }
                plan
            }
        };
        let Plan { appends, mut rejected, deduplicated } = plan;
        rejected.extend(self.append_all(appends, &origin).await?);
        rejected.sort_by_key(|rejected| rejected.seq);
        let applied = items.records().saturating_sub(rejected.len() as u64);
        self.count(&items, &rejected, applied, deduplicated);
        record.acknowledged_through = EdgeSeq(header.to.0.saturating_sub(1));
        record.digest = header.digest_after;
        record.open = None;
        record.rejected.extend(rejected);
        record.rejected.truncate(limits::SYNC_REJECTIONS);
        let mut closing = WriteBatch::new();
        closing.put(lane_key, record.encode());
        write(self.store.as_ref(), closing).await?;
        Ok(record)
    }

    /// Appends to all partitions, each in order, and returns when all of it is durable. What the log refuses for good is returned as rejected.
    async fn append_all(
        &self,
        appends: Vec<(PartitionId, Vec<Append>)>,
        origin: &OriginKey,
    ) -> Result<Vec<Rejected>, IngestError> {
        let work = appends.into_iter().map(|(partition, appends)| async move {
            let mut rejected = Vec::new();
            for append in appends {
                let Append { batch, limits, seqs } = append;
                let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { continue };
                let origin = Origin { key: origin.clone(), first_seq: *first, last_seq: *last };
                let done = self.log.append(partition, batch, origin, limits).await;
                let reason = match done {
                    Ok(()) => continue,
                    Err(LogFailure::TopicGone) => RejectReason::TopicDeleted,
                    Err(LogFailure::TooLarge) => RejectReason::TooLarge,
                    Err(LogFailure::IllegalTopic(_)) => RejectReason::IllegalTopic,
                    Err(LogFailure::Unavailable(reason)) => return Err(IngestError::Log(reason)),
                };
                rejected.extend(seqs.into_iter().map(|seq| Rejected { seq, reason }));
            }
            Ok(rejected)
        });
        let mut running = stream::iter(work).buffer_unordered(limits::UPLINK_CONCURRENT_APPENDS);
        let (mut rejected, mut failure) = (Vec::new(), None);
        // All of them end before this does, so that no append is still under way when the batch is tried again.
        while let Some(done) = running.next().await {
            match done {
                Ok(more) => rejected.extend(more),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(rejected), Err)
    }

    fn count(&self, items: &Items<'_>, rejected: &[Rejected], applied: u64, deduplicated: u64) {
        self.metrics.applied(applied.saturating_sub(deduplicated), deduplicated);
        for (reason, count) in &items.skipped {
            self.metrics.skipped(*reason, *count);
        }
        for rejected in rejected {
            self.metrics.rejected(rejected.reason);
        }
    }
}

/// Keeps the lane's record in memory, wakes the batch that waits for this one, and answers.
fn advance(
    lane: &Arc<Lane>,
    cached: &mut Option<LaneRecord>,
    header: &BatchHeader,
    record: LaneRecord,
) -> Outcome {
    lane.advanced.send_replace(record.acknowledged_through);
    let told = record.state(header.lane);
    *cached = Some(record);
    Outcome::Lane(told)
}
