//! Delivery to members of share groups (KIP-932): records go out in whole batches at their real offsets, with the list of those in them that
//! the member has acquired. Its client drops the others.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::RecordBatch;
use tokio::sync::MutexGuard;

use super::cursor::Token;
use super::dead_letter;
use super::deliver::{DeliverError, Waits, next_offer};
use super::now;
use super::pool::{Lease, Offer};
use super::pools::{Pools, SharedPool};
use crate::log::Partition;

/// A member of a share group that wants records of a partition.
pub struct Acquirer {
    pool: Arc<SharedPool>,
    partition: Arc<Partition>,
    token: Token,
}

/// There is something to be had, and nobody else is given anything before it is taken.
pub struct Turn<'a> {
    acquirer: &'a Acquirer,
    _turn: MutexGuard<'a, ()>,
}

/// Records that a member has acquired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acquisition {
    /// Whole batches, as they are stored.
    pub batches: Vec<Bytes>,
    /// Bytes of all batches.
    pub bytes: usize,
    /// What of it is the member's, and how often that was delivered before.
    pub acquired: Vec<(Range<i64>, u32)>,
}

impl Acquisition {
    /// Offsets that are the member's.
    #[must_use]
    pub fn records(&self) -> u64 {
        let length = |(offsets, _): &(Range<i64>, u32)| offsets.end - offsets.start;
        u64::try_from(self.acquired.iter().map(length).sum::<i64>()).unwrap_or_default()
    }
}

/// What becomes of offsets that were offered, in the order of the offer.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// There is a record, or was one: whole batches are given out.
    Records(Range<i64>, u32),
    /// Nothing is there.
    Hole(Range<i64>),
}

#[derive(Default)]
struct Found {
    batches: Vec<RecordBatch>,
    bytes: usize,
    parts: Vec<Part>,
}

impl Acquirer {
    /// A member that has entered `pool`.
    #[must_use]
    pub fn new(pool: Arc<SharedPool>, partition: Arc<Partition>, token: Token) -> Self {
        Self { pool, partition, token }
    }

    /// Records that the member may still acquire.
    fn room(&self) -> u64 {
        let most = self.pool.config().max_in_flight_records.min(limits::shared::ACQUIRED_RECORDS);
        let held = self.pool.state().and_then(|state| state.pool.acquired(self.token));
        held.map_or(0, |held| most.saturating_sub(held)).into()
    }

    /// Waits until there is something for the member. There never is for one that has all that it may have: it asks again after it has
    /// said what becomes of it.
    ///
    /// # Errors
    /// [`DeliverError`].
    pub async fn turn(&self) -> Result<Turn<'_>, DeliverError> {
        if self.room() == 0 {
            return std::future::pending().await;
        }
        let _waits = Waits::new(&self.pool.waiting);
        let turn = self.pool.turn.lock().await;
        next_offer(&self.pool, &self.partition).await?;
        Ok(Turn { acquirer: self, _turn: turn })
    }
}

impl Turn<'_> {
    /// Reads at most `max_bytes`, but at least one batch, and acquires at most `max_records`. `None` if there is nothing any more: wait
    /// for another turn.
    ///
    /// # Errors
    /// [`DeliverError`].
    pub async fn take(
        self,
        pools: &Pools,
        max_bytes: usize,
        max_records: u64,
    ) -> Result<Option<Acquisition>, DeliverError> {
        let Acquirer { pool, partition, token } = self.acquirer;
        let most = self.acquirer.room().min(max_records).max(1);
        let end = partition.offsets().high_watermark.0;
        let offers = pool.state().map(|state| state.pool.offers(end, most)).unwrap_or_default();
        let limit = pool.config().delivery_limit;
        let is_over = |offer: &Offer| limit.is_some_and(|limit| offer.deliveries >= limit);
        if let Some(offer) = offers.first().filter(|offer| is_over(offer)) {
            dead_letter::give_up(pools, pool, partition, offer).await?;
            return Ok(None);
        }
        let mut found = Found::default();
        for offer in offers.iter().take_while(|offer| !is_over(offer)) {
            if !found.read(partition, offer, max_bytes).await? {
                break;
            }
        }
        // Nothing is awaited from here on: what is acquired is answered.
        Ok(found.acquire(pool, *token))
    }
}

impl Found {
    /// Reads what is offered, as far as there is room for it. Says whether that was all of it.
    async fn read(
        &mut self,
        partition: &Partition,
        offer: &Offer,
        max_bytes: usize,
    ) -> Result<bool, DeliverError> {
        let Range { start: mut from, end } = offer.offsets;
        if let Some(last) = self.batches.last() {
            let known = last.next_offset().0.min(end);
            if known > from {
                self.parts.push(Part::Records(from..known, offer.deliveries));
                from = known;
            }
        }
        if from == end {
            return Ok(true);
        }
        let left = max_bytes.saturating_sub(self.bytes);
        if left == 0 && !self.batches.is_empty() {
            return Ok(false);
        }
        let read = partition.read_to(Offset(from), Offset(end), left).await?;
        let is_end = read.batches.is_empty();
        for bytes in read.batches {
            let batch = RecordBatch::from_store(bytes)?;
            let base = batch.base_offset().0.min(end);
            if base > from {
                self.parts.push(Part::Hole(from..base));
                from = base;
            }
            if from == end {
                break;
            }
            let next = batch.next_offset().0.min(end);
            self.parts.push(Part::Records(from..next, offer.deliveries));
            from = next;
            self.bytes += batch.size();
            self.batches.push(batch);
        }
        if is_end {
            // All that is offered is below the high watermark: nothing will ever be there.
            self.parts.push(Part::Hole(from..end));
        }
        Ok(is_end || from == end)
    }

    fn acquire(self, pool: &SharedPool, token: Token) -> Option<Acquisition> {
        let mut acquired: Vec<(Range<i64>, u32)> = Vec::new();
        let mut state = pool.state()?;
        for part in self.parts {
            match part {
                Part::Hole(offsets) => state.pool.skip(offsets),
                Part::Records(offsets, deliveries) => {
                    let is_new = deliveries == 0;
                    let lease = Lease { offsets: offsets.clone(), bytes: 0, is_new };
                    if !state.pool.acquire(token, &lease, now()) {
                        continue;
                    }
                    match acquired.last_mut() {
                        Some((last, count))
                            if last.end == offsets.start && *count == deliveries =>
                        {
                            last.end = offsets.end;
                        }
                        _ => acquired.push((offsets, deliveries)),
                    }
                }
            }
        }
        drop(state);
        let batches = self.batches.into_iter().map(RecordBatch::into_bytes).collect();
        let acquisition = Acquisition { batches, bytes: self.bytes, acquired };
        (!acquisition.acquired.is_empty()).then_some(acquisition)
    }
}
