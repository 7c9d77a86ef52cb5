//! One group on one partition: what is acknowledged, leased, returned, and still to come.
//!
//! **Invariant:** each offset from `start` to `next` is in exactly one place: acknowledged or leased (`taken`), or waiting to be
//! delivered again (`waiting`). Below `start` all are acknowledged or deleted; from `next` on nothing was ever given out.
//! **Invariant:** whoever acknowledges an offset first has acknowledged it, whoever holds it by then.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

use rangemap::{RangeMap, RangeSet};
use robustmq_common::limits;

use super::cursor::{Deliveries, NeverDelivered, Sequence, Token, WORN};
use super::pace::{Allowance, Bounds, Crowd, Pace};
use super::progress::Progress;

mod acquire;

pub use self::acquire::{NotHeld, Verdict};

/// Where an offset is that does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Acknowledged,
    Leased(Token),
}

#[derive(Debug)]
struct Cursor {
    deliveries: Deliveries,
    pace: Pace,
    /// Bytes of a record, lately.
    record_bytes: u64,
}

/// What is given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which offsets.
    pub offsets: Range<i64>,
    /// Their records' bytes.
    pub bytes: u64,
    /// Nobody was given them before.
    pub is_new: bool,
}

/// The most that a member may be given ahead of its acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MostInFlight {
    /// Records.
    pub records: u32,
    /// Bytes, about.
    pub bytes: Option<u64>,
}

/// What was done, since the pool was loaded: records, or offsets where some are missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Ledger {
    /// Given to a member for the first time.
    pub delivered: u64,
    /// Given to a member again.
    pub redelivered: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Given up after too many deliveries.
    pub rejected: u64,
}

impl std::ops::AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.redelivered += other.redelivered;
        self.acknowledged += other.acknowledged;
        self.rejected += other.rejected;
    }
}

/// What could be given out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which offsets.
    pub offsets: Range<i64>,
    /// How often each of them was delivered before.
    pub deliveries: u32,
}

/// Why an acknowledgement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// There is no such cursor on this partition.
    #[error("the cursor is not known on this partition")]
    NoCursor,
    /// The cursor has not come so far.
    #[error(transparent)]
    NeverDelivered(#[from] NeverDelivered),
}

/// One group's pool of one partition.
#[derive(Debug)]
pub struct Pool {
    start: i64,
    next: i64,
    taken: RangeMap<i64, Holder>,
    waiting: RangeSet<i64>,
    waiting_count: i64,
    /// How often what waits, or was given out again, was delivered before.
    deliveries: RangeMap<i64, u32>,
    cursors: HashMap<Token, Cursor>,
    /// Of members of share groups, who have no cursor.
    locks: HashMap<Token, acquire::Locks>,
    rate: u64,
    ledger: Ledger,
}

fn length(offsets: &Range<i64>) -> u64 {
    u64::try_from(offsets.end - offsets.start).unwrap_or_default()
}

impl Pool {
    /// A pool as it was stored: whatever is not acknowledged is to be delivered.
    #[must_use]
    pub fn restore(progress: &Progress) -> Self {
        let mut pool = Self {
            start: progress.start,
            next: progress.start,
            taken: RangeMap::new(),
            waiting: RangeSet::new(),
            waiting_count: 0,
            deliveries: RangeMap::new(),
            cursors: HashMap::new(),
            locks: HashMap::new(),
            rate: 0,
            ledger: Ledger::default(),
        };
        for offsets in &progress.acknowledged {
            if pool.next < offsets.start {
                pool.waiting.insert(pool.next..offsets.start);
                pool.waiting_count += offsets.start - pool.next;
            }
            pool.taken.insert(offsets.clone(), Holder::Acknowledged);
            pool.next = offsets.end;
        }
        for (offsets, deliveries) in &progress.deliveries {
            pool.deliveries.insert(offsets.clone(), *deliveries);
            if pool.next < offsets.end {
                pool.waiting.insert(pool.next..offsets.end);
                pool.waiting_count += offsets.end - pool.next;
                pool.next = offsets.end;
            }
        }
        pool.advance();
        pool
    }

    /// What is to be stored.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let acknowledged = self.taken.iter().filter(|(_, holder)| **holder == Holder::Acknowledged);
        let deliveries = self.deliveries.iter().map(|(offsets, count)| (offsets.clone(), *count));
        Progress {
            start: self.start,
            acknowledged: acknowledged.map(|(offsets, _)| offsets.clone()).collect(),
            deliveries: deliveries.collect(),
        }
    }

    /// The first offset that is not acknowledged.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Whether progress takes as much room as it may.
    #[must_use]
    pub fn is_scattered(&self) -> bool {
        self.taken.len() + self.deliveries.len() >= limits::shared::PROGRESS_RANGES
    }

    /// What was done so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// The members, with the records that are leased to each now. A cursor remembers more: what went back to the others is no longer its
    /// member's, and would be counted once for each who ever had it.
    #[must_use]
    pub fn in_flight(&self) -> BTreeMap<Token, u64> {
        let members = self.cursors.keys().chain(self.locks.keys());
        let mut in_flight: BTreeMap<Token, u64> = members.map(|token| (*token, 0)).collect();
        for (offsets, holder) in self.taken.iter() {
            if let Holder::Leased(token) = holder {
                *in_flight.entry(*token).or_default() += length(offsets);
            }
        }
        in_flight
    }

    /// Whether nobody takes part.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.cursors.is_empty() && self.locks.is_empty()
    }

    /// The first offset that was never given out.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// Offsets below `end` that nobody holds and nobody has acknowledged.
    #[must_use]
    pub fn remaining(&self, end: i64) -> u64 {
        u64::try_from(self.waiting_count + (end - self.next).max(0)).unwrap_or_default()
    }

    /// A member begins, or goes on: returns where its consumer has to.
    pub fn join(&mut self, token: Token, now: Instant) -> Sequence {
        let cursor = self.cursors.entry(token).or_insert_with(|| Cursor {
            deliveries: Deliveries::default(),
            pace: Pace::new(now),
            record_bytes: 1,
        });
        cursor.deliveries.acknowledged()
    }

    /// Whether there is such a cursor, and it can go on.
    #[must_use]
    pub fn serves(&self, token: Token) -> bool {
        self.cursors.get(&token).is_some_and(|cursor| cursor.deliveries.next() < WORN)
    }

    /// A member is gone: what it holds waits for others. Says whether anything came back.
    pub fn forget(&mut self, token: Token) -> bool {
        let returned = self.release(token);
        self.locks.remove(&token);
        if let Some(cursor) = self.cursors.remove(&token) {
            self.rate -= cursor.pace.rate();
        }
        returned
    }

    /// What a member holds waits for others; its cursor stays. Says whether anything came back.
    pub fn release(&mut self, token: Token) -> bool {
        let Some(cursor) = self.cursors.get_mut(&token) else { return self.unlock(token) };
        let given = cursor.deliveries.give_all_back();
        let held: RangeSet<i64> =
            given.iter().flat_map(|offsets| held_by(&self.taken, token, offsets)).collect();
        self.give_back(&held);
        !held.is_empty()
    }

    fn wait(&mut self, offsets: Range<i64>) {
        self.waiting_count += offsets.end - offsets.start;
        self.waiting.insert(offsets);
    }

    fn wait_no_more(&mut self, offsets: &Range<i64>) {
        let waited: i64 = self
            .waiting
            .overlapping(offsets)
            .map(|found| found.end.min(offsets.end) - found.start.max(offsets.start))
            .sum();
        if waited > 0 {
            self.waiting_count -= waited;
            self.waiting.remove(offsets.clone());
        }
    }

    fn count_delivery(&mut self, offsets: &Range<i64>) {
        let clip = |found: &Range<i64>| found.start.max(offsets.start)..found.end.min(offsets.end);
        let before: Vec<_> =
            self.deliveries.overlapping(offsets).map(|(found, n)| (clip(found), *n)).collect();
        self.deliveries.insert(offsets.clone(), 1);
        for (offsets, count) in before {
            self.deliveries.insert(offsets, count.saturating_add(1));
        }
    }

    /// What `token` may be given now, with `end` the end of what can be read.
    #[must_use]
    pub fn allowance(
        &self,
        token: Token,
        now: Instant,
        end: i64,
        most: MostInFlight,
    ) -> Option<Allowance> {
        let cursor = self.cursors.get(&token)?;
        let by_bytes = most.bytes.map(|bytes| bytes / cursor.record_bytes.max(1));
        let by_bytes =
            by_bytes.map_or(u32::MAX, |records| u32::try_from(records).unwrap_or(u32::MAX));
        let prefetched = limits::shared::PREFETCHED_BYTES / cursor.record_bytes.max(1);
        let prefetched = u32::try_from(prefetched).unwrap_or(u32::MAX);
        let bounds = Bounds {
            most: most.records.min(by_bytes),
            prefetched: prefetched.clamp(1, limits::shared::PREFETCHED),
        };
        let members = self.cursors.len() as u64;
        let crowd = Crowd { remaining: self.remaining(end), rate: self.rate, members };
        Some(cursor.pace.allowance(now, cursor.deliveries.in_flight(), bounds, crowd))
    }

    /// What is given out next, below `end`: what came back first.
    #[must_use]
    pub fn offer(&self, end: i64) -> Option<Offer> {
        let offsets = match self.waiting.first() {
            Some(waiting) => waiting.clone(),
            None if self.next < end && !self.is_scattered() => self.next..end,
            None => return None,
        };
        let known = self.deliveries.overlapping(&offsets).next();
        Some(match known {
            Some((known, count)) if known.start <= offsets.start => {
                Offer { offsets: offsets.start..known.end.min(offsets.end), deliveries: *count }
            }
            Some((known, _)) => Offer { offsets: offsets.start..known.start, deliveries: 0 },
            None => Offer { offsets, deliveries: 0 },
        })
    }

    /// Gives `offsets`, with which an offer began, to `token`; returns where on its cursor they go. `None` if there is no such
    /// cursor any more, or a part of them has been acknowledged or deleted since they were offered.
    pub fn lease(&mut self, token: Token, lease: &Lease, now: Instant) -> Option<Sequence> {
        let Lease { offsets, bytes, is_new } = lease.clone();
        if !self.is_free(&offsets) {
            return None;
        }
        let cursor = self.cursors.get_mut(&token)?;
        cursor.pace.leased(now, cursor.deliveries.in_flight());
        cursor.record_bytes = bytes / length(&offsets).max(1);
        let sequence = cursor.deliveries.push(offsets.clone(), now);
        match is_new {
            true => self.ledger.delivered += length(&offsets),
            false => self.ledger.redelivered += length(&offsets),
        }
        self.take(offsets, Holder::Leased(token));
        Some(sequence)
    }

    /// Whether nobody holds or has acknowledged any of `offsets`.
    fn is_free(&self, offsets: &Range<i64>) -> bool {
        if offsets.start >= self.next {
            return offsets.start == self.next;
        }
        let waiting = self.waiting.get(&offsets.start);
        waiting.is_some_and(|waiting| offsets.end <= waiting.end)
    }

    /// Where the next record of a cursor goes.
    #[must_use]
    pub fn next_sequence(&self, token: Token) -> Option<Sequence> {
        self.cursors.get(&token).map(|cursor| cursor.deliveries.next())
    }

    /// Nothing is at `offsets`, with which an offer began: they are as good as acknowledged.
    pub fn skip(&mut self, offsets: Range<i64>) {
        if !offsets.is_empty() && self.is_free(&offsets) {
            self.deliveries.remove(offsets.clone());
            self.take(offsets, Holder::Acknowledged);
            self.advance();
        }
    }

    /// Gives `offsets`, with which an offer began, up.
    pub fn reject(&mut self, offsets: Range<i64>) {
        self.ledger.rejected += length(&offsets);
        self.skip(offsets);
    }

    fn take(&mut self, offsets: Range<i64>, holder: Holder) {
        self.wait_no_more(&offsets);
        self.next = self.next.max(offsets.end);
        self.taken.insert(offsets, holder);
    }

    /// What was given out before `since`, and is held still, waits for others. Says whether there was anything.
    pub fn expire(&mut self, since: Instant) -> bool {
        let mut expired = RangeSet::new();
        for (token, cursor) in &mut self.cursors {
            for offsets in cursor.deliveries.give_back(since) {
                expired.extend(held_by(&self.taken, *token, &offsets));
            }
        }
        self.give_back(&expired);
        !expired.is_empty()
    }

    /// When the oldest of what is held was given out.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        let holds =
            |token: Token, offsets: &Range<i64>| !held_by(&self.taken, token, offsets).is_empty();
        let oldest = |(token, cursor): (&Token, &Cursor)| {
            cursor.deliveries.oldest(|offsets| holds(*token, offsets))
        };
        self.cursors.iter().filter_map(oldest).min()
    }

    fn give_back(&mut self, held: &RangeSet<i64>) {
        for offsets in held.iter() {
            self.taken.remove(offsets.clone());
            self.wait(offsets.clone());
            self.count_delivery(offsets);
        }
    }

    /// What was delivered at `position` of a cursor; see [`Deliveries::given`].
    ///
    /// # Errors
    /// [`AcknowledgeError`].
    pub fn given(
        &self,
        token: Token,
        position: Sequence,
    ) -> Result<Option<(Sequence, Range<i64>)>, AcknowledgeError> {
        let cursor = self.cursors.get(&token).ok_or(AcknowledgeError::NoCursor)?;
        Ok(cursor.deliveries.given(position)?)
    }

    /// Acknowledges what was delivered before `position` on a cursor. Returns how many offsets are acknowledged by it that were
    /// not before.
    ///
    /// # Errors
    /// [`AcknowledgeError`]: nothing was acknowledged.
    pub fn acknowledge(
        &mut self,
        token: Token,
        position: Sequence,
        now: Instant,
    ) -> Result<u64, AcknowledgeError> {
        let cursor = self.cursors.get_mut(&token).ok_or(AcknowledgeError::NoCursor)?;
        let before = cursor.deliveries.in_flight();
        let acknowledged = cursor.deliveries.acknowledge(position)?;
        let left = cursor.deliveries.in_flight();
        self.rate -= cursor.pace.rate();
        cursor.pace.acknowledged(now, before - left, left);
        self.rate += cursor.pace.rate();
        let mut news = 0;
        for offsets in acknowledged {
            let offsets = offsets.start.max(self.start)..offsets.end.max(self.start);
            if offsets.is_empty() {
                continue;
            }
            let known = self.taken.overlapping(&offsets);
            let known = known.filter(|(_, holder)| **holder == Holder::Acknowledged);
            let known: u64 = known
                .map(|(found, _)| {
                    length(&(found.start.max(offsets.start)..found.end.min(offsets.end)))
                })
                .sum();
            news += length(&offsets) - known;
            self.deliveries.remove(offsets.clone());
            self.take(offsets, Holder::Acknowledged);
        }
        self.advance();
        self.ledger.acknowledged += news;
        Ok(news)
    }

    /// Records below `log_start` are deleted: nobody can be given them any more.
    pub fn trim(&mut self, log_start: i64) {
        if log_start <= self.start {
            return;
        }
        let gone = self.start..log_start;
        self.wait_no_more(&gone);
        self.taken.remove(gone.clone());
        self.deliveries.remove(gone);
        self.start = log_start;
        self.next = self.next.max(log_start);
        self.advance();
    }

    /// Moves the start over what is acknowledged.
    fn advance(&mut self) {
        while let Some((offsets, Holder::Acknowledged)) = self.taken.first_range_value() {
            if offsets.start != self.start {
                return;
            }
            self.start = offsets.end;
            self.taken.remove(offsets.clone());
        }
    }
}

/// The parts of `offsets` that are leased to `token`.
fn held_by(taken: &RangeMap<i64, Holder>, token: Token, offsets: &Range<i64>) -> Vec<Range<i64>> {
    let held = taken.overlapping(offsets).filter(|(_, holder)| **holder == Holder::Leased(token));
    held.map(|(found, _)| found.start.max(offsets.start)..found.end.min(offsets.end)).collect()
}

#[cfg(test)]
mod tests;
