//! Edges: what the uplink keeps of each.
//!
//! ```text
//! 0x30 edge 0x00 0x00                          -> the edge: its incarnation, and what it said of itself
//! 0x30 edge 0x00 0x00 incarnation(8) lane(1)   -> the lane: acknowledged through, open batch, partition map version
//! 0x31 edge 0x00 0x00                          -> the edge's token (its hash) and rights
//! ```
//!
//! The values belong to the uplink.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use robustmq_common::ids::{EdgeId, Incarnation, LaneId};

use super::{Family, Reader, ValueError, prefix_range};

fn with_edge(family: Family, edge: &EdgeId) -> BytesMut {
    let mut key = family.start(edge.as_str().len() + 11);
    super::text::put(&mut key, edge.as_str());
    key
}

/// The key of what is known of an edge.
#[must_use]
pub fn edge_key(edge: &EdgeId) -> Bytes {
    with_edge(Family::Lane, edge).freeze()
}

/// The key of one lane of one incarnation.
#[must_use]
pub fn lane_key(edge: &EdgeId, incarnation: Incarnation, lane: LaneId) -> Bytes {
    let mut key = with_edge(Family::Lane, edge);
    key.put_u64(incarnation.0);
    key.put_u8(lane.0);
    key.freeze()
}

/// All keys of one edge: itself, then its lanes by incarnation.
#[must_use]
pub fn edge_range(edge: &EdgeId) -> Range<Bytes> {
    prefix_range(&with_edge(Family::Lane, edge))
}

/// All lanes of one incarnation.
#[must_use]
pub fn lanes_range(edge: &EdgeId, incarnation: Incarnation) -> Range<Bytes> {
    let mut key = with_edge(Family::Lane, edge);
    key.put_u64(incarnation.0);
    prefix_range(&key)
}

/// The key of an edge's token.
#[must_use]
pub fn token_key(edge: &EdgeId) -> Bytes {
    with_edge(Family::Token, edge).freeze()
}

/// What a key of the lane or token family stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneKey {
    /// See [`edge_key`].
    Edge(EdgeId),
    /// See [`lane_key`].
    Lane(EdgeId, Incarnation, LaneId),
    /// See [`token_key`].
    Token(EdgeId),
}

impl LaneKey {
    /// Reads a key.
    ///
    /// # Errors
    /// [`ValueError`] if it has another layout.
    pub fn parse(key: &[u8]) -> Result<Self, ValueError> {
        let (family, rest) = key.split_first().ok_or(ValueError::Short)?;
        let mut reader = Reader::new(rest);
        let edge = EdgeId::new(&reader.text()?).map_err(|_| ValueError::Text)?;
        if *family == Family::Token as u8 {
            reader.end()?;
            return Ok(Self::Token(edge));
        }
        if *family != Family::Lane as u8 {
            return Err(ValueError::Version(*family));
        }
        let Ok(incarnation) = reader.u64() else {
            reader.end()?;
            return Ok(Self::Edge(edge));
        };
        let lane = LaneId(reader.u8()?);
        reader.end()?;
        Ok(Self::Lane(edge, Incarnation(incarnation), lane))
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{EdgeId, Incarnation, LaneId};

    use super::{LaneKey, edge_key, edge_range, lane_key, lanes_range, token_key};

    #[test]
    fn golden_bytes() {
        let edge = EdgeId::new("gw").expect("a legal name");
        let lane = lane_key(&edge, Incarnation(3), LaneId(1));
        assert_eq!(&edge_key(&edge)[..], b"\x30gw\0\0");
        assert_eq!(&lane[..], b"\x30gw\0\0\0\0\0\0\0\0\0\x03\x01");
        assert_eq!(&token_key(&edge)[..], b"\x31gw\0\0");
        assert!(edge_range(&edge).contains(&lane));
        assert!(lanes_range(&edge, Incarnation(3)).contains(&lane));
        assert!(!lanes_range(&edge, Incarnation(4)).contains(&lane));
        assert_eq!(
            LaneKey::parse(&lane),
            Ok(LaneKey::Lane(edge.clone(), Incarnation(3), LaneId(1)))
        );
        assert_eq!(LaneKey::parse(&edge_key(&edge)), Ok(LaneKey::Edge(edge.clone())));
        assert_eq!(LaneKey::parse(&token_key(&edge)), Ok(LaneKey::Token(edge)));
        assert!(LaneKey::parse(b"\x30gw\0\0\x01").is_err());
    }
}
