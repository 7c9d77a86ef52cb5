//! What is kept of a lane (`lane_key`), written before and after each batch. Version 1, big-endian:
//!
//! ```text
//! version(1) acknowledged_through(8) digest(8) rejections(4), seq(8) reason(1) each    open(1), and if 1:
//!   through(8) digest(8) predecessors(4), incarnation(8) each    rejections(4), seq(8) reason(1) each
//!   topics(4), name(text) and then 0(1) reason(1), or 1(1) topic_id(16) partitions(4), each
//! ```

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, KafkaTopic, LaneId, TopicId};
use robustmq_common::sync::{LaneState, OpenBatch, RejectReason, Rejected};

use crate::store::keys::{Reader, ValueError, text};

const VERSION: u8 = 1;

/// Where the records of a topic name go, fixed while a batch is open: partitions may be added and topics come and go meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// To this topic, with this many partitions.
    To { topic: TopicId, partitions: i32 },
    /// Nowhere, for good.
    Rejected(RejectReason),
}

/// The topic names of a batch, and where each goes: the batch's partition map.
pub(super) type RouteMap = BTreeMap<KafkaTopic, Route>;

/// A batch that is being applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenApply {
    /// Its last sequence.
    pub through: EdgeSeq,
    /// The chain digest there.
    pub digest: ChainDigest,
    /// The earlier incarnations under which it may have been applied in part, the first one first.
    pub predecessors: Vec<Incarnation>,
    /// What was rejected when it was begun.
    pub rejected: Vec<Rejected>,
    /// Where its records go.
    pub routes: RouteMap,
}

/// What is kept of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaneRecord {
    /// Everything up to here is applied, skipped or rejected.
    pub acknowledged_through: EdgeSeq,
    /// The chain digest there.
    pub digest: ChainDigest,
    /// Rejections that the edge has not confirmed, ascending.
    pub rejected: Vec<Rejected>,
    /// The batch that is being applied.
    pub open: Option<OpenApply>,
}

impl LaneRecord {
    /// A lane that stands at a position.
    pub fn at(acknowledged_through: EdgeSeq, digest: ChainDigest) -> Self {
        Self { acknowledged_through, digest, rejected: Vec::new(), open: None }
    }

    /// As it is told to the edge.
    pub fn state(&self, lane: LaneId) -> LaneState {
        let open = self.open.as_ref();
        LaneState {
            lane,
            acknowledged_through: self.acknowledged_through,
            digest: self.digest,
            open: open.map(|open| OpenBatch { through: open.through, digest: open.digest }),
            rejected: self.rejected.clone(),
        }
    }

    /// Forgets rejections that the edge has kept safe.
    pub fn confirm(&mut self, through: EdgeSeq) {
        self.rejected.retain(|rejected| rejected.seq > through);
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u64(self.acknowledged_through.0);
        out.put_u64(self.digest.0);
        put_rejected(&mut out, &self.rejected);
        out.put_u8(u8::from(self.open.is_some()));
        if let Some(open) = &self.open {
            out.put_u64(open.through.0);
            out.put_u64(open.digest.0);
            out.put_u32(u32::try_from(open.predecessors.len()).unwrap_or(u32::MAX));
            open.predecessors.iter().for_each(|incarnation| out.put_u64(incarnation.0));
            put_rejected(&mut out, &open.rejected);
            out.put_u32(u32::try_from(open.routes.len()).unwrap_or(u32::MAX));
            for (name, route) in &open.routes {
                text::put(&mut out, name.as_str());
                match route {
                    Route::Rejected(reason) => {
                        out.put_u8(0);
                        out.put_u8(reason.code());
                    }
                    Route::To { topic, partitions } => {
                        out.put_u8(1);
                        out.put_slice(topic.as_bytes());
                        out.put_i32(*partitions);
                    }
                }
            }
        }
        out.freeze()
    }

    pub fn decode(value: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        reader.version(VERSION)?;
        let acknowledged_through = EdgeSeq(reader.u64()?);
        let digest = ChainDigest(reader.u64()?);
        let rejected = take_rejected(&mut reader)?;
        let open = match reader.u8()? {
            0 => None,
            1 => Some(take_open(&mut reader)?),
            _ => return Err(ValueError::Field("open")),
        };
        reader.end()?;
        Ok(Self { acknowledged_through, digest, rejected, open })
    }
}

fn take_open(reader: &mut Reader<'_>) -> Result<OpenApply, ValueError> {
    let mut open = OpenApply {
        through: EdgeSeq(reader.u64()?),
        digest: ChainDigest(reader.u64()?),
        predecessors: Vec::new(),
        rejected: Vec::new(),
        routes: RouteMap::new(),
    };
    for _ in 0..reader.u32()? {
        open.predecessors.push(Incarnation(reader.u64()?));
    }
    open.rejected = take_rejected(reader)?;
    for _ in 0..reader.u32()? {
        let name = KafkaTopic::new(&reader.text()?).map_err(|_| ValueError::Text)?;
        let route = match reader.u8()? {
            0 => Route::Rejected(take_reason(reader)?),
            1 => Route::To {
                topic: TopicId(uuid::Uuid::from_bytes(reader.array()?)),
                partitions: reader.i32()?,
            },
            _ => return Err(ValueError::Field("route")),
        };
        open.routes.insert(name, route);
    }
    Ok(open)
}

fn put_rejected(out: &mut BytesMut, rejected: &[Rejected]) {
    out.put_u32(u32::try_from(rejected.len()).unwrap_or(u32::MAX));
    for Rejected { seq, reason } in rejected {
        out.put_u64(seq.0);
        out.put_u8(reason.code());
    }
}

fn take_rejected(reader: &mut Reader<'_>) -> Result<Vec<Rejected>, ValueError> {
    let mut rejected = Vec::new();
    for _ in 0..reader.u32()? {
        rejected.push(Rejected { seq: EdgeSeq(reader.u64()?), reason: take_reason(reader)? });
    }
    Ok(rejected)
}

fn take_reason(reader: &mut Reader<'_>) -> Result<RejectReason, ValueError> {
    RejectReason::from_code(reader.u8()?).ok_or(ValueError::Field("reject reason"))
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, KafkaTopic, TopicId};
    use robustmq_common::sync::{RejectReason, Rejected};

    use super::{LaneRecord, OpenApply, Route, RouteMap};

    fn record() -> LaneRecord {
        let name = |name| KafkaTopic::new(name).expect("a legal name");
        let topic = TopicId(uuid::Uuid::from_bytes([7; 16]));
        let routes = RouteMap::from([
            (name("a"), Route::To { topic, partitions: 3 }),
            (name("b"), Route::Rejected(RejectReason::ReadOnlyTopic)),
        ]);
        let rejected = vec![Rejected { seq: EdgeSeq(4), reason: RejectReason::TooLarge }];
        let open = OpenApply {
            through: EdgeSeq(9),
            digest: ChainDigest(10),
            predecessors: vec![Incarnation(2)],
            rejected: rejected.clone(),
            routes,
        };
        LaneRecord { rejected, open: Some(open), ..LaneRecord::at(EdgeSeq(5), ChainDigest(6)) }
    }

    #[test]
    fn golden_value_bytes() {
        let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6];
        let rejected = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 3];
        expected.extend(rejected);
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10]);
        expected.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        expected.extend(rejected);
        expected.extend([0, 0, 0, 2]);
        expected.extend(b"a\0\0\x01");
        expected.extend([7; 16]);
        expected.extend([0, 0, 0, 3]);
        expected.extend(b"b\0\0\0\x04");
        assert_eq!(&record().encode()[..], expected);
        assert_eq!(LaneRecord::decode(&expected), Ok(record()));
        for end in 0..expected.len() {
            assert!(LaneRecord::decode(&expected[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn a_confirmed_rejection_is_forgotten() {
        let mut lane = record();
        lane.confirm(EdgeSeq(3));
        assert_eq!(lane.rejected.len(), 1);
        lane.confirm(EdgeSeq(4));
        assert!(lane.rejected.is_empty());
    }
}
