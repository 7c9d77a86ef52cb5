//! Hellos: confirming an incarnation, opening a new one, noticing that this cloud went back in time.

use std::sync::Arc;

use robustmq_common::ids::{EdgeId, EdgeSeq, Incarnation};
use robustmq_common::limits;
use robustmq_common::sync::{
    Hello, Intent, JudgedLane, LanePosition, NO_INCARNATION, OpenReason, Outcome, Refusal,
};
use tokio::time::Instant;

use super::edges::{Edge, EdgeRecord, EdgeState, load_lane, load_or_begin};
use super::ingest::{IngestError, Shared};
use super::lane::LaneRecord;
use crate::store::keys::lane as keys;
use crate::store::{WriteBatch, write};

impl Shared {
    pub(super) async fn hello(&self, id: &EdgeId, hello: &Hello) -> Result<Outcome, IngestError> {
        let edge = self.edge(id).await?;
        match &hello.intent {
            Intent::Confirm { incarnation } => {
                let incarnation = *incarnation;
                let mut state = edge.state.write().await;
                if !state.record.is_current(incarnation, hello.store) {
                    return self.fenced(id, &state, incarnation, hello).await;
                }
                self.confirm(id, &mut state, hello).await
            }
            Intent::Open { presented, reason, judged } => {
                let mut state = edge.state.write().await;
                self.open(id, &edge, &mut state, hello, *presented, *reason, judged).await
            }
        }
    }

    async fn fenced(
        &self,
        id: &EdgeId,
        state: &EdgeState,
        presented: Incarnation,
        hello: &Hello,
    ) -> Result<Outcome, IngestError> {
        let current = state.record.incarnation;
        let lanes = if presented == current {
            // Another store's incarnation: nothing of it concerns this one.
            Vec::new()
        } else {
            let mut lanes = Vec::new();
            for position in &hello.lanes {
                let lane = position.lane;
                // A lane that was added since, and has sent nothing yet, stands where the edge says: at its beginning.
                let fresh = (position.acknowledged_through.0 == 0)
                    .then(|| LaneRecord::at(position.acknowledged_through, position.digest));
                let record = load_lane(self.store.as_ref(), id, presented, lane).await?.or(fresh);
                lanes.extend(record.map(|record| record.state(lane)));
            }
            lanes
        };
        Ok(Outcome::Refused(Refusal::Fenced { current, lanes }))
    }

    /// The lanes as this cloud has them. A lane of which the edge has trimmed more than this cloud has is a loss: this cloud was restored to an
    /// earlier state. It is recorded and passed, since nobody has those records any more.
    async fn confirm(
        &self,
        id: &EdgeId,
        state: &mut EdgeState,
        hello: &Hello,
    ) -> Result<Outcome, IngestError> {
        let incarnation = state.record.incarnation;
        let mut lanes = Vec::new();
        let mut lost = 0_u64;
        let mut batch = WriteBatch::new();
        for position in &hello.lanes {
            let lane = state.lane(position.lane);
            let mut cached = lane.record.lock().await;
            let mut record = match cached.take() {
                Some(record) => record,
                None => self.load_position(id, incarnation, position).await?,
            };
            if position.acknowledged_through > record.acknowledged_through {
                lost += pass_loss(id, position, &mut record);
                batch.put(keys::lane_key(id, incarnation, position.lane), record.encode());
            } else {
                *cached = Some(record.clone());
            }
            lanes.push(record.state(position.lane));
        }
        if lost > 0 {
            let mut edge = state.record_now();
            edge.lost_records = edge.lost_records.saturating_add(lost);
            batch.put(keys::edge_key(id), edge.encode()?);
            write(self.store.as_ref(), batch).await?;
            self.metrics.lost(lost);
            state.reopen(edge);
        }
        Ok(Outcome::Hello { incarnation, lanes })
    }

    async fn load_position(
        &self,
        id: &EdgeId,
        incarnation: Incarnation,
        position: &LanePosition,
    ) -> Result<LaneRecord, IngestError> {
        let store = self.store.as_ref();
        Ok(load_or_begin(store, id, incarnation, position.lane, position.digest).await?)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one hello, taken apart by its only caller"
    )]
    async fn open(
        &self,
        id: &EdgeId,
        edge: &Arc<Edge>,
        state: &mut EdgeState,
        hello: &Hello,
        presented: Incarnation,
        reason: OpenReason,
        judged: &[JudgedLane],
    ) -> Result<Outcome, IngestError> {
        let now = Instant::now();
        if let Some(wait) = edge.conflict(hello.session, now, self.settings.session_timeout) {
            tracing::error!(edge = %id, store = %hello.store, reason = reason.as_str(),
                "a second gateway presents itself under the id of one that is connected; it is refused");
            let retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            return Ok(Outcome::Refused(Refusal::Conflict { retry_after_ms }));
        }
        let current = state.record.incarnation;
        if presented > current && current != NO_INCARNATION {
            tracing::error!(edge = %id, %presented, %current,
                "an edge knows a later incarnation than this cloud: the cloud was restored to an earlier state; records may be missing");
            self.metrics.went_back();
        }
        let Some(next) = current.max(presented).0.checked_add(1).map(Incarnation) else {
            return Ok(Outcome::Refused(Refusal::Malformed));
        };
        let mut batch = WriteBatch::new();
        let mut lanes = Vec::new();
        for position in &hello.lanes {
            let verdict = judged.iter().find(|judged| judged.lane == position.lane);
            let Some(record) = self.reopened(id, presented, position, verdict).await? else {
                return Ok(Outcome::Refused(Refusal::Moved));
            };
            batch.put(keys::lane_key(id, next, position.lane), record.encode());
            lanes.push(record.state(position.lane));
        }
        if let Some(old) = next.0.checked_sub(limits::UPLINK_INCARNATIONS_KEPT) {
            batch.delete_range(keys::lanes_range(id, Incarnation(old)));
        }
        let record =
            EdgeRecord { incarnation: next, store: hello.store.to_string(), ..state.record_now() };
        batch.put(keys::edge_key(id), record.encode()?);
        write(self.store.as_ref(), batch).await?;
        tracing::info!(edge = %id, incarnation = %next, reason = reason.as_str(), "opened an incarnation");
        state.reopen(record);
        edge.touch(hello.session, now);
        self.metrics.opened(reason);
        Ok(Outcome::Hello { incarnation: next, lanes })
    }

    /// A lane as it begins in a new incarnation; `None` if the cloud has begun more of it in `presented` than the edge has judged: what is
    /// applied now would be applied again.
    async fn reopened(
        &self,
        id: &EdgeId,
        presented: Incarnation,
        position: &LanePosition,
        verdict: Option<&JudgedLane>,
    ) -> Result<Option<LaneRecord>, IngestError> {
        match verdict {
            Some(verdict) if verdict.continues => self.continued(id, presented, position).await,
            Some(verdict) => {
                let loaded = load_lane(self.store.as_ref(), id, presented, position.lane).await?;
                let begun =
                    loaded.map_or(EdgeSeq(0), |record| record.state(position.lane).begun_through());
                let fresh = LaneRecord::at(position.acknowledged_through, position.digest);
                Ok((begun == verdict.begun_through).then_some(fresh))
            }
            None => Ok(Some(LaneRecord::at(position.acknowledged_through, position.digest))),
        }
    }

    /// A lane of `presented` as the new incarnation takes it over; `None` if it does not stand where the edge believes.
    async fn continued(
        &self,
        id: &EdgeId,
        presented: Incarnation,
        position: &LanePosition,
    ) -> Result<Option<LaneRecord>, IngestError> {
        let loaded = load_lane(self.store.as_ref(), id, presented, position.lane).await?;
        let Some(mut record) = loaded else {
            let fresh = position.acknowledged_through.0 == 0;
            return Ok(
                fresh.then(|| LaneRecord::at(position.acknowledged_through, position.digest))
            );
        };
        if record.acknowledged_through != position.acknowledged_through
            || record.digest != position.digest
        {
            return Ok(None);
        }
        if let Some(open) = &mut record.open {
            if open.predecessors.len() >= limits::UPLINK_OPEN_PREDECESSORS {
                // Forgetting one of them could apply records twice.
                return Ok(None);
            }
            open.predecessors.push(presented);
        }
        Ok(Some(record))
    }
}

/// Moves a lane to where the edge stands, and says how many sequences are lost by that.
fn pass_loss(id: &EdgeId, position: &LanePosition, record: &mut LaneRecord) -> u64 {
    let lost = position.acknowledged_through.0.saturating_sub(record.acknowledged_through.0);
    tracing::error!(edge = %id, lane = %position.lane, lost,
        after = %record.acknowledged_through, through = %position.acknowledged_through,
        "this cloud does not have what it once acknowledged: it was restored to an earlier state; the records are lost");
    record.acknowledged_through = position.acknowledged_through;
    record.digest = position.digest;
    record.confirm(position.acknowledged_through);
    record.open = record.open.take().filter(|open| open.through > position.acknowledged_through);
    lost
}
