//! Hellos: presenting the queue's positions, checking that the cloud means the same history, asking for a new incarnation where it does not.

use robustmq_common::ids::{EdgeSeq, Incarnation};
use robustmq_common::limits;
use robustmq_common::sync::{
    Hello, Intent, LanePosition, LaneState, NO_INCARNATION, OpenReason, Outcome, Refusal, StoreId,
};

use super::backlog::{Backlog, BacklogError};
use super::engine::{Shared, Trouble};
use super::transport::{Call, exchange};

/// Both sides agree.
pub(super) struct Greeted {
    pub store: StoreId,
    pub incarnation: Incarnation,
    pub lanes: Vec<LaneState>,
}

/// The queue's view of itself at one moment.
struct Presented {
    store: StoreId,
    incarnation: Incarnation,
    lanes: Vec<LanePosition>,
}

/// Whether what the cloud has of a lane is a part of this queue's history: same number, same digest.
pub(super) async fn is_same_history(
    backlog: &dyn Backlog,
    position: &LanePosition,
    state: &LaneState,
) -> Result<bool, BacklogError> {
    if state.acknowledged_through < position.acknowledged_through {
        return Ok(false);
    }
    let here = if state.acknowledged_through == position.acknowledged_through {
        Some(position.digest)
    } else {
        digest_below(backlog, position, state.acknowledged_through).await?
    };
    if here != Some(state.digest) {
        return Ok(false);
    }
    match state.open {
        None => Ok(true),
        Some(open) => Ok(digest_below(backlog, position, open.through).await? == Some(open.digest)),
    }
}

async fn digest_below(
    backlog: &dyn Backlog,
    position: &LanePosition,
    seq: EdgeSeq,
) -> Result<Option<robustmq_common::ids::ChainDigest>, BacklogError> {
    if seq >= position.next_seq {
        return Ok(None);
    }
    backlog.digest_at(position.lane, seq).await
}

impl Shared {
    /// Says hello until both sides agree on an incarnation and on where each lane stands.
    pub(super) async fn greet(&self) -> Result<Greeted, Trouble> {
        let mut presented = self.presented()?;
        let mut intent = if presented.incarnation == NO_INCARNATION {
            let (reason, continues) = (OpenReason::NewStore, false);
            Intent::Open { presented: NO_INCARNATION, continues, reason }
        } else {
            Intent::Confirm { incarnation: presented.incarnation }
        };
        for _ in 0..limits::UPLINK_HELLOS {
            match self.say(&presented, intent).await? {
                Outcome::Hello { incarnation, lanes } => {
                    if incarnation != presented.incarnation {
                        self.backlog.set_incarnation(incarnation).await?;
                    }
                    if let Some(lanes) = self.agree(&presented, incarnation, lanes).await? {
                        let store = presented.store;
                        self.status.incarnation(incarnation);
                        return Ok(Greeted { store, incarnation, lanes });
                    }
                    tracing::error!(
                        %incarnation,
                        "the cloud has another history of this queue (an image was restored, or two gateways share an id); asking for a new incarnation"
                    );
                    let reason = OpenReason::HistoryMismatch;
                    intent = Intent::Open { presented: incarnation, continues: false, reason };
                }
                Outcome::Refused(Refusal::Fenced { current, lanes }) => {
                    let own = presented.incarnation;
                    let agreed = self.agree(&presented, own, lanes).await?;
                    tracing::warn!(%own, %current, continues = agreed.is_some(), "the incarnation was fenced; asking for a new one");
                    intent = Intent::Open {
                        presented: own,
                        continues: agreed.is_some(),
                        reason: OpenReason::Fenced,
                    };
                }
                Outcome::Refused(Refusal::Moved) => {
                    let incarnation = presented.incarnation;
                    intent = Intent::Confirm { incarnation };
                }
                Outcome::Refused(refusal) => return Err(Trouble::Refused(refusal)),
                Outcome::Lane(_) | Outcome::Heartbeat => return Err(Trouble::OtherAnswer),
            }
            presented = self.presented()?;
        }
        Err(Trouble::OtherAnswer)
    }

    fn presented(&self) -> Result<Presented, Trouble> {
        let mut lanes = Vec::new();
        let (mut store, mut incarnation) = (StoreId(0), NO_INCARNATION);
        for lane in self.backlog.lanes() {
            let position = self.backlog.position(lane)?;
            (store, incarnation) = (position.store, position.incarnation);
            lanes.push(position.lane);
        }
        Ok(Presented { store, incarnation, lanes })
    }

    async fn say(&self, presented: &Presented, intent: Intent) -> Result<Outcome, Trouble> {
        let hello = Hello {
            session: self.session,
            store: presented.store,
            intent,
            lanes: presented.lanes.clone(),
        };
        let frame = hello.encode().into();
        let answer = exchange(self.transport.as_ref(), Call::Hello, frame).await?;
        self.heard(answer.generation);
        Ok(answer.outcome)
    }

    /// Takes in what the cloud has of each lane if all of it is this queue's history.
    async fn agree(
        &self,
        presented: &Presented,
        incarnation: Incarnation,
        mut states: Vec<LaneState>,
    ) -> Result<Option<Vec<LaneState>>, Trouble> {
        let mut agreed = Vec::new();
        for position in &presented.lanes {
            let found = states.iter().position(|state| state.lane == position.lane);
            let Some(state) = found.map(|index| states.swap_remove(index)) else { return Ok(None) };
            if !is_same_history(self.backlog.as_ref(), position, &state).await? {
                return Ok(None);
            }
            agreed.push((position.acknowledged_through, state));
        }
        for (known, state) in &agreed {
            self.take_in(incarnation, *known, state).await?;
        }
        Ok(Some(agreed.into_iter().map(|(_, state)| state).collect()))
    }
}
