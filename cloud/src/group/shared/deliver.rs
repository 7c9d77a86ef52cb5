//! Delivery: waits until a member may be given something and there is something to give, reads it, and leases it.
//!
//! Members that may be given something wait for the pool's turn, in the order in which they asked, and whoever has the turn waits for
//! records. So one append wakes one member, however many wait, and the next records go to the next that is *waiting*.
//!
//! Batches go out as they were stored: only the base offset and the leader epoch in front of the checksum are replaced. What comes first
//! in a batch and is not for this member lies below its position, where clients drop it. Only what comes last has to be cut off, which
//! means that the batch is encoded anew.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use robustmq_common::ids::{Offset, PartitionIndex};
use robustmq_common::limits;
use robustmq_common::record::{BatchError, RecordBatch};
use tokio::sync::MutexGuard;

use super::cursor::{CursorOffset, Sequence, WORN};
use super::dead_letter;
use super::now;
use super::pace::Allowance;
use super::pool::{AcknowledgeError, Lease, MostInFlight, Offer};
use super::pools::{Cursor, PoolError, Pools, SharedPool};
use crate::log::{Partition, ReadError};
use crate::store::StoreError;

mod cut;

pub(super) use self::cut::{Cut, OFFSET_HEADER, Wanted, cut};

/// Records for one member.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Batches at virtual offsets, each in one or more pieces.
    pub pieces: Vec<Bytes>,
    /// Bytes of all pieces.
    pub bytes: usize,
    /// How many records.
    pub records: u64,
}

/// Why nothing is delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// The partition cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A batch cannot be read.
    #[error("a batch cannot be cut: {0}")]
    Batch(#[from] BatchError),
    /// Records that are to be given up cannot be put where they should go.
    #[error(
        "records of {topic} {partition} that group {group} gives up cannot be put into {into}: {reason}"
    )]
    DeadLetter {
        /// The group that gives them up.
        group: String,
        /// The topic where they are.
        topic: String,
        /// The partition of it.
        partition: PartitionIndex,
        /// The dead-letter topic.
        into: String,
        /// Why.
        reason: String,
    },
    /// That records were given up cannot be stored.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl From<StoreError> for DeliverError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// How the records of a partition are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Whole batches as they were produced, as far as what a member is given allows: the least work.
    #[default]
    Batch,
    /// One record to each member that waits.
    RoundRobin,
    /// By what each member acknowledges: a fifth of a second's work at a time.
    Adaptive,
}

/// A Fetch at a cursor.
pub struct Claim {
    at: CursorOffset,
    partition: Arc<Partition>,
    cursor: Option<Arc<Cursor>>,
}

/// There is something for the member, and nobody else is given anything before it is taken.
pub struct Turn<'a> {
    cursor: &'a Arc<Cursor>,
    what: What<'a>,
}

enum What<'a> {
    /// What was delivered at this place before.
    Again(Sequence, Range<i64>),
    /// Something new, or something that came back.
    Offer(Offer, u32, #[expect(dead_code, reason = "held")] MutexGuard<'a, ()>),
}

impl Pools {
    /// Begins a Fetch at a cursor.
    #[must_use]
    pub fn claim(&self, at: CursorOffset, partition: Arc<Partition>) -> Claim {
        let cursor = self.cursor(at.token, partition.keys());
        if let Some(cursor) = &cursor {
            cursor.is_read.store(true, Ordering::Relaxed);
        }
        Claim { at, partition, cursor }
    }

    /// Waits until there is something for the member. Of a cursor that is not known there never is; its member is told to join again by
    /// its next heartbeat. `again`: what was delivered at this place before comes first.
    ///
    /// # Errors
    /// [`DeliverError`].
    pub async fn turn<'a>(&self, claim: &'a Claim, again: bool) -> Result<Turn<'a>, DeliverError> {
        let Some(cursor) = &claim.cursor else {
            self.note_stranger(claim.at.token);
            return std::future::pending().await;
        };
        let given = {
            let state = cursor.pool.state();
            state.map(|state| state.pool.given(claim.at.token, claim.at.sequence))
        };
        match given {
            Some(Ok(Some((at, offsets)))) if again => {
                return Ok(Turn { cursor, what: What::Again(at, offsets) });
            }
            Some(Ok(_)) => {}
            Some(Err(AcknowledgeError::NeverDelivered(_))) => {
                self.lose(claim.at.token);
                return std::future::pending().await;
            }
            Some(Err(AcknowledgeError::NoCursor)) | None => return std::future::pending().await,
        }
        loop {
            claim.until_allowed(self, cursor).await;
            let _waits = Waits::new(&cursor.pool.waiting);
            let turn = cursor.pool.turn.lock().await;
            if let Some((offer, allowed)) = claim.until_offered(self, cursor).await? {
                return Ok(Turn { cursor, what: What::Offer(offer, allowed, turn) });
            }
        }
    }
}

/// Counts itself among those who wait for records.
pub(super) struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    pub fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turn<'_> {
    /// Reads at most `max_bytes`, but at least one batch, and leases it. `None` if there is nothing any more: wait for another turn.
    ///
    /// # Errors
    /// [`DeliverError`].
    pub async fn take(
        self,
        pools: &Pools,
        claim: &Claim,
        max_bytes: usize,
    ) -> Result<Option<Delivery>, DeliverError> {
        match &self.what {
            What::Again(at, offsets) => {
                claim.again(self.cursor, *at, offsets.clone(), max_bytes).await
            }
            What::Offer(offer, allowed, _) => {
                let limit = self.cursor.pool.config().delivery_limit;
                if limit.is_some_and(|limit| offer.deliveries >= limit) {
                    dead_letter::give_up(pools, &self.cursor.pool, &claim.partition, offer).await?;
                    return Ok(None);
                }
                match claim.lease(self.cursor, offer, *allowed, max_bytes).await {
                    Err(DeliverError::Batch(error)) => {
                        tracing::warn!(%error, "a batch that is to be cut cannot be read");
                        dead_letter::give_up(pools, &self.cursor.pool, &claim.partition, offer)
                            .await?;
                        Ok(None)
                    }
                    outcome => outcome,
                }
            }
        }
    }
}

impl Claim {
    /// The group of whoever fetches; `None` of a cursor that is not known.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.cursor.as_ref().map(|cursor| cursor.pool.group())
    }

    /// What the client of this member sees as the end: in the cursor's own space, as far away as there are records for the group.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        let position = self.at.encode();
        let end = self.partition.offsets().high_watermark.0;
        let Some(cursor) = &self.cursor else { return position };
        let Some(state) = cursor.pool.state() else { return position };
        let next = state.pool.next_sequence(self.at.token);
        let Some(next) = next.filter(|next| self.at.sequence <= *next) else { return position };
        let remaining = u32::try_from(state.pool.remaining(end)).unwrap_or(WORN.0);
        let sequence = next.after(remaining.min(WORN.0));
        CursorOffset { sequence, ..self.at }.encode()
    }

    fn allowance(&self, cursor: &Cursor) -> Allowance {
        let never = Allowance::Wait(None);
        if cursor.is_suspended.load(Ordering::Acquire) {
            return never;
        }
        let end = self.partition.offsets().high_watermark.0;
        let Some(state) = cursor.pool.state() else { return never };
        if !state.pool.serves(self.at.token) {
            return never;
        }
        let config = cursor.pool.config();
        let most = MostInFlight {
            records: config.max_in_flight_records,
            bytes: config.max_in_flight_bytes,
        };
        state.pool.allowance(self.at.token, now(), end, most).unwrap_or(never)
    }

    async fn until_allowed(&self, pools: &Pools, cursor: &Cursor) {
        loop {
            let moved = cursor.moved.notified();
            match self.allowance(cursor) {
                Allowance::Records(_) => return,
                Allowance::Wait(Some(until)) => tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                },
                Allowance::Wait(None) => {
                    let is_worn = cursor.pool.state().is_some_and(|state| {
                        state.pool.next_sequence(self.at.token).is_some_and(|next| next >= WORN)
                    });
                    if is_worn {
                        pools.lose(self.at.token);
                    }
                    moved.await;
                }
            }
        }
    }

    /// Waits, with the turn, until there is something to give, and says how much of it the member may have. `None` if that is nothing
    /// any more.
    async fn until_offered(
        &self,
        pools: &Pools,
        cursor: &Cursor,
    ) -> Result<Option<(Offer, u32)>, DeliverError> {
        let offer = next_offer(&cursor.pool, &self.partition);
        tokio::pin!(offer);
        loop {
            tokio::select! {
                offer = &mut offer => {
                    let offer = offer?;
                    return Ok(match self.allowance(cursor) {
                        Allowance::Records(records) => Some((offer, records)),
                        Allowance::Wait(_) => None,
                    });
                }
                // Whoever stops being served must not keep the turn.
                () = cursor.moved.notified() => {
                    if !matches!(self.allowance(cursor), Allowance::Records(_)) || pools.is_lost(self.at.token) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads what is offered and leases it. `None` where nothing could be read, or the member is gone.
    async fn lease(
        &self,
        cursor: &Cursor,
        offer: &Offer,
        allowed: u32,
        max_bytes: usize,
    ) -> Result<Option<Delivery>, DeliverError> {
        let strategy = cursor.pool.config().strategy;
        let allowed = match strategy {
            Strategy::Batch | Strategy::Adaptive => i64::from(allowed),
            Strategy::RoundRobin => 1,
        };
        let to = offer.offsets.end.min(offer.offsets.start.saturating_add(allowed));
        let (from, to) = (Offset(offer.offsets.start), Offset(to));
        let read = self.partition.read_to(from, to, max_bytes).await?;
        let wanted = match strategy {
            Strategy::Batch => Wanted::WholeBatches,
            Strategy::RoundRobin | Strategy::Adaptive => Wanted::Records,
        };
        let mut cut = cut(read.batches, &offer.offsets, allowed, wanted).await?;
        let Some(mut state) = cursor.pool.state() else { return Ok(None) };
        if let Some(hole) = cut.hole.take() {
            state.pool.skip(hole);
        }
        if cut.batches.is_empty() {
            return Ok(None);
        }
        let bytes: usize = cut.batches.iter().map(RecordBatch::size).sum();
        let lease = Lease {
            offsets: cut.offsets.clone(),
            bytes: bytes as u64,
            is_new: offer.deliveries == 0,
        };
        let Some(at) = state.pool.lease(self.at.token, &lease, now()) else {
            return Ok(None);
        };
        drop(state);
        Ok(Some(self.place(cut, at)))
    }

    /// What was delivered before, from `at` on, as far as it is still there. Where nothing of it is, what was delivered after it: only
    /// behind all of that is the place for something new.
    async fn again(
        &self,
        cursor: &Cursor,
        mut at: Sequence,
        mut offsets: Range<i64>,
        max_bytes: usize,
    ) -> Result<Option<Delivery>, DeliverError> {
        loop {
            let (found, to) = self.still_there(at, &offsets, max_bytes).await?;
            if found.is_some() {
                return Ok(found);
            }
            at = at.after(u32::try_from(to - offsets.start).unwrap_or_default());
            offsets.start = to;
            if !offsets.is_empty() {
                continue;
            }
            let next = cursor.pool.state().map(|state| state.pool.given(self.at.token, at));
            match next {
                Some(Ok(Some((next, given)))) => (at, offsets) = (next, given),
                Some(Ok(None) | Err(_)) | None => return Ok(None),
            }
        }
    }

    /// The first of `offsets` that are still there; if these are none, as far as that is known now. `at` is the place of the first offset.
    async fn still_there(
        &self,
        at: Sequence,
        offsets: &Range<i64>,
        max_bytes: usize,
    ) -> Result<(Option<Delivery>, i64), DeliverError> {
        let start = self.partition.offsets().log_start_offset.0;
        if offsets.start < start {
            return Ok((None, start.min(offsets.end)));
        }
        let (from, to) = (Offset(offsets.start), Offset(offsets.end));
        let read = match self.partition.read_to(from, to, max_bytes).await {
            Ok(read) => read,
            // Deleted meanwhile, or lost by a volatile mode.
            Err(ReadError::OutOfRange { .. }) => {
                let start = self.partition.offsets().log_start_offset.0;
                let to = if offsets.start < start { start.min(offsets.end) } else { offsets.end };
                return Ok((None, to));
            }
            Err(error) => return Err(error.into()),
        };
        let most = offsets.end - offsets.start;
        let cut = cut(read.batches, offsets, most, Wanted::WholeBatches).await?;
        if cut.batches.is_empty() {
            return Ok((None, cut.offsets.end));
        }
        let skipped = u32::try_from(cut.offsets.start - offsets.start).unwrap_or_default();
        let to = cut.offsets.end;
        Ok((Some(self.place(cut, at.after(skipped))), to))
    }

    /// Gives batches their place on the cursor, where the first leased offset is at `at`.
    fn place(&self, cut: Cut, at: Sequence) -> Delivery {
        let first = CursorOffset { sequence: at, ..self.at }.encode();
        let mut delivery = Delivery::default();
        for batch in cut.batches {
            let base = first + (batch.base_offset().0 - cut.offsets.start);
            let from = batch.base_offset().0.max(cut.offsets.start);
            delivery.records += u64::try_from(batch.next_offset().0 - from).unwrap_or_default();
            delivery.bytes += batch.size();
            let [head, rest] = placed(batch.as_bytes(), base);
            delivery.pieces.extend([head, rest]);
        }
        delivery
    }
}

/// Waits until there is something to give. Whoever waits here has the pool's turn.
pub(super) async fn next_offer(
    pool: &SharedPool,
    partition: &Partition,
) -> Result<Offer, DeliverError> {
    let mut changes = partition.subscribe();
    loop {
        let visible = *changes.borrow_and_update();
        if visible.closed {
            return Err(ReadError::Dropped.into());
        }
        let returned = pool.returned.notified();
        let offsets = partition.offsets();
        let config = pool.config();
        let due = {
            let Some(mut state) = pool.state() else { return Err(ReadError::Dropped.into()) };
            state.pool.trim(offsets.log_start_offset.0);
            let before = |timeout: Duration| now().checked_sub(timeout);
            let since = config.acknowledge_timeout.and_then(before);
            // How often it was delivered has to be known after a restart.
            if since.is_some_and(|since| state.pool.expire(since)) {
                state.touch();
            }
            if before(config.lock_duration).is_some_and(|since| state.pool.expire_locks(since)) {
                state.touch();
            }
            let end = offsets.high_watermark.0;
            match state.pool.offer(end) {
                Some(mut offer) if offer.offsets.start < end => {
                    offer.offsets.end = offer.offsets.end.min(end);
                    return Ok(offer);
                }
                // After a start a dataset's records have to be counted again before they are there.
                Some(offer) => partition.want(Offset(offer.offsets.start)),
                None => partition.want(Offset(state.pool.next_offset())),
            }
            let lease = config.acknowledge_timeout;
            let lease = lease.and_then(|timeout| Some(state.pool.oldest()? + timeout));
            let lock = state.pool.oldest_lock().map(|since| since + config.lock_duration);
            lease.into_iter().chain(lock).min()
        };
        tokio::select! {
            changed = changes.changed() => {
                // The log is gone with its sender; so is everybody who could append.
                if changed.is_err() {
                    return Err(ReadError::Dropped.into());
                }
            }
            () = returned => {}
            () = until(due) => {}
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => {
            // Not in a circle, should the clock and the pool disagree.
            let time = time.max(now() + limits::shared::EXPIRY_PAUSE);
            tokio::time::sleep_until(time.into()).await;
        }
        None => std::future::pending().await,
    }
}

/// A batch at another base offset and without a leader epoch, which clients would compare with the real one: everything but
/// the first bytes is shared.
fn placed(batch: &Bytes, base: i64) -> [Bytes; 2] {
    const HEAD_BYTES: usize = 16;
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_i64(base);
    head.put_slice(batch.get(8..12).unwrap_or_default());
    head.put_i32(-1);
    [head.freeze(), batch.slice(HEAD_BYTES..)]
}

#[cfg(test)]
mod tests;
