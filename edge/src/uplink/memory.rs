//! A queue in memory, for tests and simulation. It can lose what a power cut may lose, be copied as an image is, and expire records.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::{ChainDigest, EdgeSeq, Incarnation, LaneId};
use robustmq_common::sync::{LanePosition, NO_INCARNATION, SkipReason, StoreId};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::backlog::{Backlog, BacklogError, Chunk, Piece, StorePosition};

#[derive(Debug, Clone)]
struct Kept {
    body: Bytes,
    digest: ChainDigest,
    skip: Option<SkipReason>,
    /// The digest went with the segment that held it.
    forgotten: bool,
}

#[derive(Debug, Clone, Default)]
struct LaneContent {
    records: BTreeMap<u64, Kept>,
    next: u64,
    synced: u64,
    digest: ChainDigest,
    acknowledged: u64,
    acknowledged_digest: ChainDigest,
    /// The acknowledged position that a crash would leave: the cursor is made durable late.
    durable_cursor: (u64, ChainDigest),
}

#[derive(Debug, Clone)]
struct Content {
    store: StoreId,
    incarnation: Incarnation,
    lanes: BTreeMap<LaneId, LaneContent>,
}

/// A queue store that lives as long as this value.
pub struct MemoryBacklog {
    content: Mutex<Content>,
    synced: BTreeMap<LaneId, watch::Sender<EdgeSeq>>,
}

impl MemoryBacklog {
    /// An empty store with lanes 0 to `lanes - 1`.
    #[must_use]
    pub fn new(store: StoreId, lanes: u8) -> Self {
        let empty = LaneContent { next: 1, ..LaneContent::default() };
        let lanes = (0..lanes).map(|lane| (LaneId(lane), empty.clone())).collect();
        Self::with_content(Content { store, incarnation: NO_INCARNATION, lanes })
    }

    fn with_content(content: Content) -> Self {
        let watch = |(lane, content): (&LaneId, &LaneContent)| {
            (*lane, watch::channel(EdgeSeq(content.synced)).0)
        };
        let synced = content.lanes.iter().map(watch).collect();
        Self { content: Mutex::new(content), synced }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record and gives its sequence, 0 if there is no such lane. It is seen once it is synced.
    pub fn append(&self, lane: LaneId, body: impl Into<Bytes>) -> EdgeSeq {
        let mut content = self.lock();
        let Some(lane) = content.lanes.get_mut(&lane) else { return EdgeSeq(0) };
        let body = body.into();
        let seq = lane.next;
        lane.digest = ChainDigest(xxh3_64_with_seed(&body, lane.digest.0));
        lane.records.insert(seq, Kept { body, digest: lane.digest, skip: None, forgotten: false });
        lane.next += 1;
        EdgeSeq(seq)
    }

    /// Makes everything that was appended durable and seen.
    pub fn sync(&self) {
        let mut content = self.lock();
        let mut synced = Vec::new();
        for (id, lane) in &mut content.lanes {
            lane.synced = lane.next - 1;
            synced.push((*id, lane.synced));
        }
        drop(content);
        for (lane, seq) in synced {
            if let Some(watch) = self.synced.get(&lane) {
                watch.send_replace(EdgeSeq(seq));
            }
        }
    }

    /// Makes the cursors durable.
    pub fn sync_cursors(&self) {
        for lane in self.lock().lanes.values_mut() {
            lane.durable_cursor = (lane.acknowledged, lane.acknowledged_digest);
            let (through, _) = lane.durable_cursor;
            lane.records.retain(|seq, _| *seq > through);
        }
    }

    /// From now on these sequences are not read any more, for this reason.
    pub fn skip(&self, lane: LaneId, seqs: std::ops::RangeInclusive<u64>, reason: SkipReason) {
        if let Some(lane) = self.lock().lanes.get_mut(&lane) {
            for (_, record) in lane.records.range_mut(seqs) {
                record.skip = Some(reason);
                record.body = Bytes::new();
            }
        }
    }

    /// Drops everything up to `through`, as a full queue drops whole segments: the digest at their end is all that is left.
    pub fn drop_front(&self, lane: LaneId, through: u64) {
        self.skip(lane, 1..=through, SkipReason::Dropped);
        if let Some(lane) = self.lock().lanes.get_mut(&lane) {
            for (_, record) in lane.records.range_mut(..through) {
                record.forgotten = true;
            }
        }
    }

    /// What a power cut leaves: synced records, durable cursors.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let mut content = self.lock().clone();
        for lane in content.lanes.values_mut() {
            let synced = lane.synced;
            lane.records.retain(|seq, _| *seq <= synced);
            lane.next = synced + 1;
            (lane.acknowledged, lane.acknowledged_digest) = lane.durable_cursor;
            let last = lane.records.last_key_value().map(|(_, record)| record.digest);
            lane.digest = last.unwrap_or(lane.acknowledged_digest);
        }
        Self::with_content(content)
    }

    /// A copy of the disk, as somebody makes who backs up or clones a gateway.
    #[must_use]
    pub fn image(&self) -> Self {
        self.after_crash()
    }

    /// The last synced sequence of a lane.
    #[must_use]
    pub fn last_synced(&self, lane: LaneId) -> EdgeSeq {
        EdgeSeq(self.lock().lanes.get(&lane).map_or(0, |lane| lane.synced))
    }

    /// What is acknowledged of a lane.
    #[must_use]
    pub fn acknowledged(&self, lane: LaneId) -> EdgeSeq {
        EdgeSeq(self.lock().lanes.get(&lane).map_or(0, |lane| lane.acknowledged))
    }

    /// Whether everything that is synced is acknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.lock().lanes.values().all(|lane| lane.acknowledged == lane.synced)
    }
}

fn no_lane(lane: LaneId) -> BacklogError {
    BacklogError(format!("there is no lane {lane}"))
}

#[async_trait]
impl Backlog for MemoryBacklog {
    fn lanes(&self) -> Vec<LaneId> {
        self.synced.keys().copied().collect()
    }

    fn position(&self, lane: LaneId) -> Result<StorePosition, BacklogError> {
        let content = self.lock();
        let found = content.lanes.get(&lane).ok_or_else(|| no_lane(lane))?;
        let position = LanePosition {
            lane,
            next_seq: EdgeSeq(found.synced + 1),
            acknowledged_through: EdgeSeq(found.acknowledged),
            digest: found.acknowledged_digest,
        };
        let Content { store, incarnation, .. } = *content;
        Ok(StorePosition { store, incarnation, lane: position })
    }

    fn synced(&self, lane: LaneId) -> Result<watch::Receiver<EdgeSeq>, BacklogError> {
        self.synced.get(&lane).map(watch::Sender::subscribe).ok_or_else(|| no_lane(lane))
    }

    async fn read(
        &self,
        lane: LaneId,
        from: EdgeSeq,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Chunk, BacklogError> {
        let content = self.lock();
        let lane = content.lanes.get(&lane).ok_or_else(|| no_lane(lane))?;
        let mut chunk = Chunk { pieces: Vec::new(), digest: lane.acknowledged_digest };
        let mut bytes = 0_usize;
        for (_, record) in lane.records.range(from.0..=lane.synced.max(from.0)) {
            if chunk.pieces.len() >= max_records || (bytes > 0 && bytes >= max_bytes) {
                break;
            }
            chunk.digest = record.digest;
            bytes += record.body.len();
            match (record.skip, chunk.pieces.last_mut()) {
                (Some(why), Some(Piece::Skip { count, reason })) if why == *reason => *count += 1,
                (Some(reason), _) => chunk.pieces.push(Piece::Skip { count: 1, reason }),
                (None, _) => {
                    chunk.pieces.push(Piece::Record { wall_ms: None, body: record.body.clone() });
                }
            }
        }
        Ok(chunk)
    }

    async fn digest_at(
        &self,
        lane: LaneId,
        seq: EdgeSeq,
    ) -> Result<Option<ChainDigest>, BacklogError> {
        let content = self.lock();
        let lane = content.lanes.get(&lane).ok_or_else(|| no_lane(lane))?;
        if seq.0 == lane.acknowledged {
            return Ok(Some(lane.acknowledged_digest));
        }
        let synced = seq.0 <= lane.synced;
        let record = lane.records.get(&seq.0).filter(|record| synced && !record.forgotten);
        Ok(record.map(|record| record.digest))
    }

    fn acknowledge(&self, lane: LaneId, through: EdgeSeq) -> Result<(), BacklogError> {
        let mut content = self.lock();
        let found = content.lanes.get_mut(&lane).ok_or_else(|| no_lane(lane))?;
        if through.0 > found.synced {
            let synced = found.synced;
            return Err(BacklogError(format!("{through} was acknowledged, {synced} was synced")));
        }
        if through.0 > found.acknowledged {
            if let Some(record) = found.records.get(&through.0) {
                let known = !record.forgotten;
                found.acknowledged_digest = if known { record.digest } else { ChainDigest(0) };
            }
            found.acknowledged = through.0;
        }
        Ok(())
    }

    async fn set_incarnation(&self, incarnation: Incarnation) -> Result<(), BacklogError> {
        self.lock().incarnation = incarnation;
        Ok(())
    }
}
