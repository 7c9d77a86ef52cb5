//! What a cloud answers: the state of a lane (or of all), or why it refuses.
//!
//! The state of a lane is the answer to everything, so that the edge has one way to take it in: a batch applied, a batch that was
//! applied before (its answer was lost), or the first look after a start.
//!
//! ```text
//! "RMQA" version(1) crc32c(4) generation(8) kind(1) then
//!   0 hello:    incarnation(8) lanes(1) state each
//!   1 lane:     state
//!   2 heartbeat
//!   3 refusal:  code(1) fields
//! state: lane(1) acknowledged_through(8) digest(8) open(1) [through(8) digest(8)] rejected(4), then seq(8) reason(1) each
//! ```

use super::DecodeError;
use super::wire::{Reader, frame_end, frame_open, frame_start};
use crate::ids::{ChainDigest, CloudGeneration, EdgeSeq, Incarnation, LaneId};
use crate::limits::{SYNC_ANSWER_BYTES, SYNC_LANES, SYNC_REJECTIONS};

const MAGIC: [u8; 4] = *b"RMQA";
const VERSION: u8 = 1;

/// Why the cloud will never take a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The record's bytes are not a record.
    Malformed,
    /// The topic that a route chose is no legal Kafka topic name.
    IllegalTopic,
    /// The record is larger than its topic's `max.message.bytes`.
    TooLarge,
    /// The topic takes no records: it is a dataset.
    ReadOnlyTopic,
    /// The edge's token may not write to the topic.
    NotAuthorised,
    /// The topic was deleted while the batch was being applied.
    TopicDeleted,
    /// The topic is compacted, and the record has no key.
    NoKey,
}

impl RejectReason {
    /// All of them, for tables and metrics.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::IllegalTopic,
        Self::TooLarge,
        Self::ReadOnlyTopic,
        Self::NotAuthorised,
        Self::TopicDeleted,
        Self::NoKey,
    ];

    /// The reason as metrics and logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::IllegalTopic => "illegal_topic",
            Self::TooLarge => "too_large",
            Self::ReadOnlyTopic => "read_only_topic",
            Self::NotAuthorised => "not_authorised",
            Self::TopicDeleted => "topic_deleted",
            Self::NoKey => "no_key",
        }
    }

    /// The reason as it stands in frames and in stores.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Malformed => 1,
            Self::IllegalTopic => 2,
            Self::TooLarge => 3,
            Self::ReadOnlyTopic => 4,
            Self::NotAuthorised => 5,
            Self::TopicDeleted => 6,
            Self::NoKey => 7,
        }
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// A sequence that the cloud passed without applying it, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which one.
    pub seq: EdgeSeq,
    /// Why.
    pub reason: RejectReason,
}

/// A batch that the cloud began to apply and has not finished: the next batch has to cover exactly the same range of the same history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenBatch {
    /// Its last sequence. Its first is the one after the lane's `acknowledged_through`.
    pub through: EdgeSeq,
    /// The chain digest at `through`.
    pub digest: ChainDigest,
}

/// What the cloud has of one lane of one incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// The lane.
    pub lane: LaneId,
    /// Everything up to here is durable at the cloud, skipped, or rejected. 0 for nothing.
    pub acknowledged_through: EdgeSeq,
    /// The chain digest at `acknowledged_through`.
    pub digest: ChainDigest,
    /// The batch that is half applied, if any.
    pub open: Option<OpenBatch>,
    /// Rejections up to `acknowledged_through` that the edge has not confirmed yet, ascending, at most [`SYNC_REJECTIONS`].
    pub rejected: Vec<Rejected>,
}

impl LaneState {
    /// The last sequence of which something may be applied.
    #[must_use]
    pub fn begun_through(&self) -> EdgeSeq {
        self.open.map_or(self.acknowledged_through, |open| open.through)
    }
}

/// Why the cloud does not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The batch starts after the next expected sequence, and nothing explains what lies between.
    Gap {
        /// The sequence that has to come next.
        expected: EdgeSeq,
    },
    /// The batch continues another history than the one the cloud has.
    DigestMismatch {
        /// What the cloud has.
        state: LaneState,
    },
    /// The incarnation is not the edge's current one.
    Fenced {
        /// The current one.
        current: Incarnation,
        /// What the cloud has of the lanes of the incarnation that was presented; empty if it does not know it.
        lanes: Vec<LaneState>,
    },
    /// Another gateway with this id is connected.
    Conflict {
        /// When it is worth trying again.
        retry_after_ms: u32,
    },
    /// The lanes moved on between the edge's last look and its opening of an incarnation: look again.
    Moved,
    /// No token, a wrong or revoked one, or one for another edge.
    Unauthorised,
    /// The cloud has no edge with this id.
    UnknownEdge,
    /// The frame is over the limit.
    TooLarge {
        /// The limit in bytes.
        limit_bytes: u32,
    },
    /// The cloud cannot take it now.
    Overloaded {
        /// When it is worth trying again.
        retry_after_ms: u32,
    },
    /// The frame could not be read, or contradicts itself.
    Malformed,
}

impl Refusal {
    /// The HTTP status that carries this refusal.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Gap { .. }
            | Self::DigestMismatch { .. }
            | Self::Fenced { .. }
            | Self::Conflict { .. }
            | Self::Moved => 409,
            Self::Unauthorised => 401,
            Self::UnknownEdge => 404,
            Self::TooLarge { .. } => 413,
            Self::Overloaded { .. } => 503,
            Self::Malformed => 400,
        }
    }

    /// The refusal as metrics and logs name it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::DigestMismatch { .. } => "digest_mismatch",
            Self::Fenced { .. } => "fenced",
            Self::Conflict { .. } => "conflict",
            Self::Moved => "moved",
            Self::Unauthorised => "unauthorised",
            Self::UnknownEdge => "unknown_edge",
            Self::TooLarge { .. } => "too_large",
            Self::Overloaded { .. } => "overloaded",
            Self::Malformed => "malformed",
        }
    }
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To a hello: the incarnation that is valid now, and what the cloud has of every lane.
    Hello {
        /// Confirmed or newly issued.
        incarnation: Incarnation,
        /// One for each lane that was presented or that the cloud knows.
        lanes: Vec<LaneState>,
    },
    /// To a batch: what the cloud has of the lane now.
    Lane(LaneState),
    /// To a heartbeat.
    Heartbeat,
    /// To anything.
    Refused(Refusal),
}

/// An answer of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The state of the cloud's store that answered.
    pub generation: CloudGeneration,
    /// What it says.
    pub outcome: Outcome,
}

impl Answer {
    /// The HTTP status that carries this answer.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match &self.outcome {
            Outcome::Refused(refusal) => refusal.http_status(),
            Outcome::Hello { .. } | Outcome::Lane(_) | Outcome::Heartbeat => 200,
        }
    }

    /// The answer as a frame. Lanes and rejections beyond the limits are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        frame_start(&mut out, MAGIC, VERSION);
        out.extend_from_slice(&self.generation.0.to_be_bytes());
        match &self.outcome {
            Outcome::Hello { incarnation, lanes } => {
                out.push(0);
                out.extend_from_slice(&incarnation.0.to_be_bytes());
                encode_lanes(lanes, &mut out);
            }
            Outcome::Lane(state) => {
                out.push(1);
                encode_state(state, &mut out);
            }
            Outcome::Heartbeat => out.push(2),
            Outcome::Refused(refusal) => {
                out.push(3);
                encode_refusal(refusal, &mut out);
            }
        }
        frame_end(&mut out);
        out
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] if this is no answer of a cloud at all; otherwise what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SYNC_ANSWER_BYTES {
            let (length, limit) = (bytes.len(), SYNC_ANSWER_BYTES);
            return Err(DecodeError::TooLong { field: "answer", length, limit });
        }
        let mut reader = frame_open(bytes, MAGIC, VERSION)?;
        let generation = CloudGeneration(reader.u64()?);
        let outcome = match reader.u8()? {
            0 => Outcome::Hello {
                incarnation: Incarnation(reader.u64()?),
                lanes: decode_lanes(&mut reader)?,
            },
            1 => Outcome::Lane(decode_state(&mut reader)?),
            2 => Outcome::Heartbeat,
            3 => Outcome::Refused(decode_refusal(&mut reader)?),
            _ => return Err(DecodeError::Invalid { field: "answer kind" }),
        };
        reader.finish()?;
        Ok(Self { generation, outcome })
    }
}

fn encode_lanes(lanes: &[LaneState], out: &mut Vec<u8>) {
    let count = lanes.len().min(SYNC_LANES);
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
    for state in lanes.iter().take(count) {
        encode_state(state, out);
    }
}

fn decode_lanes(reader: &mut Reader<'_>) -> Result<Vec<LaneState>, DecodeError> {
    let length = usize::from(reader.u8()?);
    if length > SYNC_LANES {
        return Err(DecodeError::TooLong { field: "lanes", length, limit: SYNC_LANES });
    }
    (0..length).map(|_| decode_state(reader)).collect()
}

fn encode_state(state: &LaneState, out: &mut Vec<u8>) {
    out.push(state.lane.0);
    out.extend_from_slice(&state.acknowledged_through.0.to_be_bytes());
    out.extend_from_slice(&state.digest.0.to_be_bytes());
    out.push(u8::from(state.open.is_some()));
    if let Some(open) = state.open {
        out.extend_from_slice(&open.through.0.to_be_bytes());
        out.extend_from_slice(&open.digest.0.to_be_bytes());
    }
    let count = state.rejected.len().min(SYNC_REJECTIONS);
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    for rejected in state.rejected.iter().take(count) {
        out.extend_from_slice(&rejected.seq.0.to_be_bytes());
        out.push(rejected.reason.code());
    }
}

fn decode_state(reader: &mut Reader<'_>) -> Result<LaneState, DecodeError> {
    let lane = LaneId(reader.u8()?);
    let acknowledged_through = EdgeSeq(reader.u64()?);
    let digest = ChainDigest(reader.u64()?);
    let open = match reader.u8()? {
        0 => None,
        1 => {
            Some(OpenBatch { through: EdgeSeq(reader.u64()?), digest: ChainDigest(reader.u64()?) })
        }
        _ => return Err(DecodeError::Invalid { field: "open batch" }),
    };
    if open.is_some_and(|open| open.through <= acknowledged_through) {
        return Err(DecodeError::Invalid { field: "open batch" });
    }
    let count = reader.length("rejections", SYNC_REJECTIONS)?;
    let mut rejected = Vec::new();
    for _ in 0..count {
        let seq = EdgeSeq(reader.u64()?);
        let reason = RejectReason::from_code(reader.u8()?)
            .ok_or(DecodeError::Invalid { field: "reject reason" })?;
        if rejected.last().is_some_and(|last: &Rejected| last.seq >= seq) {
            return Err(DecodeError::Invalid { field: "rejections" });
        }
        rejected.push(Rejected { seq, reason });
    }
    Ok(LaneState { lane, acknowledged_through, digest, open, rejected })
}

fn encode_refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    match refusal {
        Refusal::Gap { expected } => {
            out.push(1);
            out.extend_from_slice(&expected.0.to_be_bytes());
        }
        Refusal::DigestMismatch { state } => {
            out.push(2);
            encode_state(state, out);
        }
        Refusal::Fenced { current, lanes } => {
            out.push(3);
            out.extend_from_slice(&current.0.to_be_bytes());
            encode_lanes(lanes, out);
        }
        Refusal::Conflict { retry_after_ms } => {
            out.push(4);
            out.extend_from_slice(&retry_after_ms.to_be_bytes());
        }
        Refusal::Moved => out.push(5),
        Refusal::Unauthorised => out.push(6),
        Refusal::UnknownEdge => out.push(7),
        Refusal::TooLarge { limit_bytes } => {
            out.push(8);
            out.extend_from_slice(&limit_bytes.to_be_bytes());
        }
        Refusal::Overloaded { retry_after_ms } => {
            out.push(9);
            out.extend_from_slice(&retry_after_ms.to_be_bytes());
        }
        Refusal::Malformed => out.push(10),
    }
}

fn decode_refusal(reader: &mut Reader<'_>) -> Result<Refusal, DecodeError> {
    Ok(match reader.u8()? {
        1 => Refusal::Gap { expected: EdgeSeq(reader.u64()?) },
        2 => Refusal::DigestMismatch { state: decode_state(reader)? },
        3 => Refusal::Fenced { current: Incarnation(reader.u64()?), lanes: decode_lanes(reader)? },
        4 => Refusal::Conflict { retry_after_ms: reader.u32()? },
        5 => Refusal::Moved,
        6 => Refusal::Unauthorised,
        7 => Refusal::UnknownEdge,
        8 => Refusal::TooLarge { limit_bytes: reader.u32()? },
        9 => Refusal::Overloaded { retry_after_ms: reader.u32()? },
        10 => Refusal::Malformed,
        _ => return Err(DecodeError::Invalid { field: "refusal code" }),
    })
}
