//! What a lane and its queue must remember beside the records: how far the cloud has it, what was given up, who they are.

use bytes::{Buf, BufMut};
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation};
use robustmq_common::limits::QUEUE_CURSOR_SKIPS;

use super::clock::{BootId, Boots};
use super::types::{Drops, Skip, SkipReason, StoreId};

const FORMAT: u8 = 1;

/// One lane's durable facts, stored in its `cursor` register.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Cursor {
    /// The last sequence that the cloud has.
    pub acknowledged: EdgeSeq,
    /// The digest there.
    pub digest: ChainDigest,
    /// No sequence below this is given out again, whatever the segments look like.
    pub next_floor: EdgeSeq,
    /// The digest before `next_floor`: the chain goes on from it if no segment is left that knows.
    pub floor_digest: ChainDigest,
    pub drops: Drops,
    /// What was dropped between `acknowledged` and the first segment.
    pub skips: FrontSkips,
}

impl Cursor {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.skips.0.len() * 17);
        out.put_u8(FORMAT);
        out.put_u64_le(self.acknowledged.0);
        out.put_u64_le(self.digest.0);
        out.put_u64_le(self.next_floor.0);
        out.put_u64_le(self.floor_digest.0);
        out.put_u64_le(self.drops.expired_records);
        out.put_u64_le(self.drops.dropped_records);
        out.put_u64_le(self.drops.quarantined_records);
        out.put_u16_le(u16::try_from(self.skips.0.len()).unwrap_or(u16::MAX));
        for skip in &self.skips.0 {
            out.put_u64_le(skip.from.0);
            out.put_u64_le(skip.to.0);
            out.put_u8(reason_code(skip.reason));
        }
        out
    }

    /// `None` if the bytes are not a cursor of this format.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let acknowledged = EdgeSeq(bytes.try_get_u64_le().ok()?);
        let digest = ChainDigest(bytes.try_get_u64_le().ok()?);
        let next_floor = EdgeSeq(bytes.try_get_u64_le().ok()?);
        let floor_digest = ChainDigest(bytes.try_get_u64_le().ok()?);
        let drops = Drops {
            expired_records: bytes.try_get_u64_le().ok()?,
            dropped_records: bytes.try_get_u64_le().ok()?,
            quarantined_records: bytes.try_get_u64_le().ok()?,
        };
        let mut skips = FrontSkips::default();
        for _ in 0..bytes.try_get_u16_le().ok()? {
            let from = EdgeSeq(bytes.try_get_u64_le().ok()?);
            let to = EdgeSeq(bytes.try_get_u64_le().ok()?);
            skips.push(Skip { from, to, reason: reason_of(bytes.try_get_u8().ok()?)? });
        }
        Some(Self { acknowledged, digest, next_floor, floor_digest, drops, skips })
    }
}

fn reason_code(reason: SkipReason) -> u8 {
    match reason {
        SkipReason::Expired => 1,
        SkipReason::Dropped => 2,
        SkipReason::Quarantined => 3,
    }
}

fn reason_of(code: u8) -> Option<SkipReason> {
    match code {
        1 => Some(SkipReason::Expired),
        2 => Some(SkipReason::Dropped),
        3 => Some(SkipReason::Quarantined),
        _ => None,
    }
}

/// Ranges given up at the front of a lane, one after the other without gaps, at most `QUEUE_CURSOR_SKIPS`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FrontSkips(Vec<Skip>);

impl FrontSkips {
    /// Adds a range that begins where the last one ended. Where there are too many, the two oldest become one, as
    /// `Dropped`.
    pub fn push(&mut self, skip: Skip) {
        push_merged(&mut self.0, skip);
        if self.0.len() > QUEUE_CURSOR_SKIPS {
            let oldest = self.0.remove(0);
            if let Some(next) = self.0.first_mut() {
                next.from = oldest.from;
                next.reason = SkipReason::Dropped;
            }
        }
    }

    /// Forgets what lies at or before `through`.
    pub fn release(&mut self, through: EdgeSeq) {
        self.0.retain(|skip| skip.to.0 > through.0.saturating_add(1));
        if let Some(first) = self.0.first_mut() {
            first.from = first.from.max(EdgeSeq(through.0.saturating_add(1)));
        }
    }

    /// How many sequences they cover.
    pub fn sequences(&self) -> u64 {
        let lengths = self.0.iter().map(|skip| skip.to.0.saturating_sub(skip.from.0));
        lengths.fold(0, u64::saturating_add)
    }

    /// The rest, from `seq` on, of the range that `seq` lies in.
    pub fn covering(&self, seq: EdgeSeq) -> Option<Skip> {
        let skip = self.0.iter().find(|skip| (skip.from..skip.to).contains(&seq))?;
        Some(Skip { from: seq, ..*skip })
    }

    /// The first sequence after all of them.
    pub fn end(&self) -> Option<EdgeSeq> {
        self.0.last().map(|skip| skip.to)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Skip> {
        self.0.iter()
    }
}

/// Adds a skip to a list, joined to the last one where both touch and say the same. Empty ranges are left out.
pub(super) fn push_merged(skips: &mut Vec<Skip>, skip: Skip) {
    if skip.from >= skip.to {
        return;
    }
    match skips.last_mut() {
        Some(last) if last.to == skip.from && last.reason == skip.reason => last.to = skip.to,
        _ => skips.push(skip),
    }
}

/// The whole queue's durable facts, stored in its `queue.id` register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub store: StoreId,
    pub incarnation: Option<Incarnation>,
    pub boots: Boots,
}

impl Identity {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(FORMAT);
        out.put_slice(&self.store.0);
        out.put_u8(u8::from(self.incarnation.is_some()));
        out.put_u64_le(self.incarnation.unwrap_or_default().0);
        out.put_u16_le(u16::try_from(self.boots.iter().count()).unwrap_or(u16::MAX));
        for (boot, offset) in self.boots.iter() {
            out.put_slice(&boot.0);
            out.put_i64_le(offset);
        }
        out
    }

    /// `None` if the bytes are not an identity of this format.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let store = StoreId(take_16(&mut bytes)?);
        let known = bytes.try_get_u8().ok()? == 1;
        let incarnation = Incarnation(bytes.try_get_u64_le().ok()?);
        let mut boots = Boots::default();
        for _ in 0..bytes.try_get_u16_le().ok()? {
            let boot = BootId(take_16(&mut bytes)?);
            boots.restore(boot, bytes.try_get_i64_le().ok()?);
        }
        Some(Self { store, incarnation: known.then_some(incarnation), boots })
    }
}

fn take_16(bytes: &mut &[u8]) -> Option<[u8; 16]> {
    let (first, rest) = bytes.split_first_chunk::<16>()?;
    *bytes = rest;
    Some(*first)
}
