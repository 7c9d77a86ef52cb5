//! Hellos: presenting the queue's positions, checking that the cloud means the same history, asking for a new incarnation where it does not.

use robustmq_common::ids::{EdgeSeq, Incarnation};
use robustmq_common::limits;
use robustmq_common::sync::{
    Hello, Intent, JudgedLane, LanePosition, LaneState, NO_INCARNATION, OpenReason, Outcome,
    Refusal, StoreId,
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

/// What a comparison of the cloud's lanes with the queue's has found.
struct Agreement {
    /// Every lane is the same history on both sides.
    whole: bool,
    /// What the cloud has of the lanes that are.
    states: Vec<LaneState>,
    /// The verdict on each lane that the cloud has.
    judged: Vec<JudgedLane>,
}

/// Whether what the cloud has of a lane is a part of this queue's history: same number, same digest. A digest covers all that is before it, so
/// that of the open batch's end is enough: a full queue may have dropped where the batch begins.
pub(super) async fn is_same_history(
    backlog: &dyn Backlog,
    position: &LanePosition,
    state: &LaneState,
) -> Result<bool, BacklogError> {
    if state.acknowledged_through < position.acknowledged_through {
        return Ok(false);
    }
    if let Some(open) = state.open {
        return Ok(digest_below(backlog, position, open.through).await? == Some(open.digest));
    }
    let here = if state.acknowledged_through == position.acknowledged_through {
        Some(position.digest)
    } else {
        digest_below(backlog, position, state.acknowledged_through).await?
    };
    Ok(here == Some(state.digest))
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
            let (presented, reason) = (NO_INCARNATION, OpenReason::NewStore);
            Intent::Open { presented, reason, judged: Vec::new() }
        } else {
            Intent::Confirm { incarnation: presented.incarnation }
        };
        for _ in 0..limits::UPLINK_HELLOS {
            match self.say(&presented, intent).await? {
                Outcome::Hello { incarnation, lanes } => {
                    if incarnation != presented.incarnation {
                        self.backlog.set_incarnation(incarnation).await?;
                        presented.incarnation = incarnation;
                    }
                    let agreement = self.agree(&mut presented, lanes).await?;
                    if agreement.whole {
                        let (store, lanes) = (presented.store, agreement.states);
                        self.status.incarnation(incarnation);
                        return Ok(Greeted { store, incarnation, lanes });
                    }
                    tracing::error!(
                        %incarnation, lanes = ?agreement.judged,
                        "the cloud has another history of this queue (an image was restored, two gateways share an id, or the full queue dropped what was under way); asking for a new incarnation"
                    );
                    let (reason, judged) = (OpenReason::HistoryMismatch, agreement.judged);
                    intent = Intent::Open { presented: incarnation, reason, judged };
                }
                Outcome::Refused(Refusal::Fenced { current, lanes }) => {
                    let own = presented.incarnation;
                    let Agreement { whole, judged, .. } = self.agree(&mut presented, lanes).await?;
                    tracing::warn!(%own, %current, continues = whole, "the incarnation was fenced; asking for a new one");
                    let reason = OpenReason::Fenced;
                    intent = Intent::Open { presented: own, reason, judged };
                }
                Outcome::Refused(Refusal::Moved) => {
                    let incarnation = presented.incarnation;
                    intent = Intent::Confirm { incarnation };
                }
                Outcome::Refused(refusal) => return Err(Trouble::Refused(refusal)),
                Outcome::Lane(_) | Outcome::Heartbeat => return Err(Trouble::OtherAnswer),
            }
            self.refresh(&mut presented)?;
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

    /// What was synced since. The lanes stay where both sides were found to agree, even if the queue has not taken that in yet.
    fn refresh(&self, presented: &mut Presented) -> Result<(), Trouble> {
        for position in &mut presented.lanes {
            position.next_seq = self.backlog.position(position.lane)?.lane.next_seq;
        }
        Ok(())
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

    /// Compares each lane, and takes in what the cloud has of those that are the same history: they are presented from there on.
    async fn agree(
        &self,
        presented: &mut Presented,
        mut states: Vec<LaneState>,
    ) -> Result<Agreement, Trouble> {
        let incarnation = presented.incarnation;
        let mut agreement = Agreement { whole: true, states: Vec::new(), judged: Vec::new() };
        for position in &mut presented.lanes {
            let found = states.iter().position(|state| state.lane == position.lane);
            let Some(state) = found.map(|index| states.swap_remove(index)) else {
                agreement.whole = false;
                continue;
            };
            let continues = is_same_history(self.backlog.as_ref(), position, &state).await?;
            let begun_through = state.begun_through();
            agreement.judged.push(JudgedLane { lane: state.lane, continues, begun_through });
            if !continues {
                agreement.whole = false;
                continue;
            }
            self.take_in(incarnation, position.acknowledged_through, &state).await?;
            position.acknowledged_through = state.acknowledged_through;
            position.digest = state.digest;
            agreement.states.push(state);
        }
        Ok(agreement)
    }
}
