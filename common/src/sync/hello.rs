//! How an edge introduces itself, and how it says that it is still there.
//!
//! ```text
//! "RMQH" version(1) crc32c(4) session(16) store(16) intent(1) then
//!   0 confirm: incarnation(8)
//!   1 open:    presented(8) reason(1) judged(1), then lane(1) continues(1) begun_through(8) each
//! lanes(1), then lane(1) next_seq(8) acknowledged_through(8) digest(8) each
//!
//! "RMQP" version(1) crc32c(4) session(16) store(16) incarnation(8)
//! ```

use super::wire::{Reader, frame_end, frame_open, frame_start};
use super::{DecodeError, SessionId, StoreId};
use crate::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use crate::limits::SYNC_LANES;

const HELLO_MAGIC: [u8; 4] = *b"RMQH";
const HEARTBEAT_MAGIC: [u8; 4] = *b"RMQP";
const VERSION: u8 = 1;

/// Where one lane of an edge's queue stands, synced records only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePosition {
    /// The lane.
    pub lane: LaneId,
    /// The sequence after the last one that is synced: at least 1.
    pub next_seq: EdgeSeq,
    /// What the edge knows to be acknowledged, and has trimmed or may trim. 0 for nothing.
    pub acknowledged_through: EdgeSeq,
    /// The chain digest at `acknowledged_through`.
    pub digest: ChainDigest,
}

/// Why an edge asks for a new incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenReason {
    /// The queue store is new: a first start, or a wiped queue.
    NewStore,
    /// The cloud has another history than this queue: an image restored to an earlier state, or two gateways with one id.
    HistoryMismatch,
    /// The cloud fenced the incarnation, or does not know it.
    Fenced,
}

impl OpenReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NewStore, Self::HistoryMismatch, Self::Fenced];

    /// The reason as metrics and logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewStore => "new_store",
            Self::HistoryMismatch => "history_mismatch",
            Self::Fenced => "fenced",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::NewStore => 1,
            Self::HistoryMismatch => 2,
            Self::Fenced => 3,
        }
    }
}

/// What an edge found when it compared the cloud's state of a lane with its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgedLane {
    /// The lane.
    pub lane: LaneId,
    /// What the cloud has is a part of the queue's history, up to the presented position: the cloud checks that it still stands there.
    pub continues: bool,
    /// [`LaneState::begun_through`](super::LaneState::begun_through) of the state that was compared: the cloud checks that it has begun nothing since.
    pub begun_through: EdgeSeq,
}

/// What a hello asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// To go on under the incarnation that the queue store keeps.
    Confirm {
        /// That incarnation.
        incarnation: Incarnation,
    },
    /// A new incarnation, whose lanes start after the presented positions.
    Open {
        /// The newest incarnation that this queue store had, 0 if none: the new one will be above it.
        presented: Incarnation,
        /// Why.
        reason: OpenReason,
        /// What the edge found of the lanes that the cloud has of `presented`, each lane once. One that is not among them starts at its presented position.
        judged: Vec<JudgedLane>,
    },
}

/// What an edge says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The run of the edge process.
    pub session: SessionId,
    /// The queue store.
    pub store: StoreId,
    /// What it asks for.
    pub intent: Intent,
    /// Where each lane stands, each lane once, at most [`SYNC_LANES`].
    pub lanes: Vec<LanePosition>,
}

impl Hello {
    /// The hello as a frame. Lanes beyond [`SYNC_LANES`] are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        frame_start(&mut out, HELLO_MAGIC, VERSION);
        out.extend_from_slice(&self.session.0.to_be_bytes());
        out.extend_from_slice(&self.store.0.to_be_bytes());
        match &self.intent {
            Intent::Confirm { incarnation } => {
                out.push(0);
                out.extend_from_slice(&incarnation.0.to_be_bytes());
            }
            Intent::Open { presented, reason, judged } => {
                out.push(1);
                out.extend_from_slice(&presented.0.to_be_bytes());
                out.push(reason.code());
                let count = judged.len().min(SYNC_LANES);
                out.push(u8::try_from(count).unwrap_or(u8::MAX));
                for lane in judged.iter().take(count) {
                    out.push(lane.lane.0);
                    out.push(u8::from(lane.continues));
                    out.extend_from_slice(&lane.begun_through.0.to_be_bytes());
                }
            }
        }
        let count = self.lanes.len().min(SYNC_LANES);
        out.push(u8::try_from(count).unwrap_or(u8::MAX));
        for position in self.lanes.iter().take(count) {
            out.push(position.lane.0);
            out.extend_from_slice(&position.next_seq.0.to_be_bytes());
            out.extend_from_slice(&position.acknowledged_through.0.to_be_bytes());
            out.extend_from_slice(&position.digest.0.to_be_bytes());
        }
        frame_end(&mut out);
        out
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = frame_open(bytes, HELLO_MAGIC, VERSION)?;
        let session = SessionId(reader.u128()?);
        let store = StoreId(reader.u128()?);
        let intent = decode_intent(&mut reader)?;
        let length = usize::from(reader.u8()?);
        if length > SYNC_LANES {
            return Err(DecodeError::TooLong { field: "lanes", length, limit: SYNC_LANES });
        }
        let mut lanes: Vec<LanePosition> = Vec::with_capacity(length);
        for _ in 0..length {
            let position = decode_position(&mut reader)?;
            if lanes.iter().any(|other| other.lane == position.lane) {
                return Err(DecodeError::Invalid { field: "lanes" });
            }
            lanes.push(position);
        }
        reader.finish()?;
        Ok(Self { session, store, intent, lanes })
    }
}

fn decode_intent(reader: &mut Reader<'_>) -> Result<Intent, DecodeError> {
    match reader.u8()? {
        0 => Ok(Intent::Confirm { incarnation: Incarnation(reader.u64()?) }),
        1 => {
            let presented = Incarnation(reader.u64()?);
            let code = reader.u8()?;
            let reason = OpenReason::ALL
                .into_iter()
                .find(|reason| reason.code() == code)
                .ok_or(DecodeError::Invalid { field: "open reason" })?;
            let length = usize::from(reader.u8()?);
            if length > SYNC_LANES {
                return Err(DecodeError::TooLong { field: "judged", length, limit: SYNC_LANES });
            }
            let mut judged: Vec<JudgedLane> = Vec::with_capacity(length);
            for _ in 0..length {
                let lane = decode_judged(reader)?;
                if judged.iter().any(|other| other.lane == lane.lane) {
                    return Err(DecodeError::Invalid { field: "judged" });
                }
                judged.push(lane);
            }
            Ok(Intent::Open { presented, reason, judged })
        }
        _ => Err(DecodeError::Invalid { field: "intent" }),
    }
}

fn decode_judged(reader: &mut Reader<'_>) -> Result<JudgedLane, DecodeError> {
    let lane = LaneId(reader.u8()?);
    let continues = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Invalid { field: "continues" }),
    };
    Ok(JudgedLane { lane, continues, begun_through: EdgeSeq(reader.u64()?) })
}

fn decode_position(reader: &mut Reader<'_>) -> Result<LanePosition, DecodeError> {
    let position = LanePosition {
        lane: LaneId(reader.u8()?),
        next_seq: EdgeSeq(reader.u64()?),
        acknowledged_through: EdgeSeq(reader.u64()?),
        digest: ChainDigest(reader.u64()?),
    };
    if position.acknowledged_through >= position.next_seq {
        return Err(DecodeError::Invalid { field: "lane position" });
    }
    Ok(position)
}

/// What an edge says while it has nothing else to say, so that each side knows in bounded time that the other is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The run of the edge process.
    pub session: SessionId,
    /// The queue store.
    pub store: StoreId,
    /// The incarnation that it sends under.
    pub incarnation: Incarnation,
}

impl Heartbeat {
    /// The heartbeat as a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        frame_start(&mut out, HEARTBEAT_MAGIC, VERSION);
        out.extend_from_slice(&self.session.0.to_be_bytes());
        out.extend_from_slice(&self.store.0.to_be_bytes());
        out.extend_from_slice(&self.incarnation.0.to_be_bytes());
        frame_end(&mut out);
        out
    }

    /// Reads a heartbeat.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = frame_open(bytes, HEARTBEAT_MAGIC, VERSION)?;
        let heartbeat = Self {
            session: SessionId(reader.u128()?),
            store: StoreId(reader.u128()?),
            incarnation: Incarnation(reader.u64()?),
        };
        reader.finish()?;
        Ok(heartbeat)
    }
}
