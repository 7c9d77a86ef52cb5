//! What members of share groups hold (KIP-932): records at their real offsets, each acknowledged by itself, with locks that run out.
//!
//! Such a member has no cursor. Between being acquired and being settled a record is leased to it like any other, so both kinds of
//! members can work on one pool.

use std::ops::Range;
use std::time::Instant;

use rangemap::{RangeMap, RangeSet};

use super::{Holder, Lease, Offer, Pool, Token, held_by, length};

/// What one member has acquired, and since when.
#[derive(Debug, Default)]
pub(super) struct Locks(RangeMap<i64, Instant>);

impl Locks {
    pub fn in_flight(&self) -> u32 {
        let all: u64 = self.0.iter().map(|(offsets, _)| length(offsets)).sum();
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

/// What a member says of records that it has acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with them.
    Accept,
    /// Somebody is to be given them again.
    Release,
    /// Nobody can be done with them.
    Reject,
    /// There are none at these offsets.
    Gap,
}

/// Records that the member does not hold (any more).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the member does not hold all of the records {} to {}", .0.start, .0.end - 1)]
pub struct NotHeld(pub Range<i64>);

impl Pool {
    /// A member of a share group takes part.
    pub fn enter(&mut self, token: Token) {
        self.locks.entry(token).or_default();
    }

    /// Records that a member of a share group holds; `None` if there is no such member.
    #[must_use]
    pub fn acquired(&self, token: Token) -> Option<u32> {
        self.locks.get(&token).map(Locks::in_flight)
    }

    /// What is given out next, below `end`, until it is `most` offsets: what came back first.
    #[must_use]
    pub fn offers(&self, end: i64, most: u64) -> Vec<Offer> {
        let mut offers = Vec::new();
        let mut left = most;
        let fresh = self.next..end.max(self.next);
        let fresh = (!self.is_scattered() && !fresh.is_empty()).then_some(fresh);
        for waiting in self.waiting.iter().cloned().chain(fresh) {
            // Behind the end nothing is there yet: a dataset's records may have to be counted again first.
            let waiting_end = waiting.end.min(end);
            let mut from = waiting.start;
            while from < waiting_end && left > 0 {
                let rest = from..waiting_end;
                let (to, deliveries) = match self.deliveries.overlapping(&rest).next() {
                    Some((known, count)) if known.start <= from => (known.end, *count),
                    Some((known, _)) => (known.start, 0),
                    None => (rest.end, 0),
                };
                let to = to.min(rest.end).min(from.saturating_add_unsigned(left));
                left -= length(&(from..to));
                offers.push(Offer { offsets: from..to, deliveries });
                from = to;
            }
        }
        offers
    }

    /// Gives what was offered to a member of a share group. Says whether it could: not if there is no such member, or a part of it has
    /// been acknowledged or deleted since.
    pub fn acquire(&mut self, token: Token, lease: &Lease, now: Instant) -> bool {
        let Lease { offsets, is_new, .. } = lease.clone();
        if !self.is_free(&offsets) {
            return false;
        }
        let Some(locks) = self.locks.get_mut(&token) else { return false };
        locks.0.insert(offsets.clone(), now);
        match is_new {
            true => self.ledger.delivered += length(&offsets),
            false => self.ledger.redelivered += length(&offsets),
        }
        self.take(offsets, Holder::Leased(token));
        true
    }

    /// Whether a member holds all of `offsets`; what is below the start is nobody's concern any more.
    ///
    /// # Errors
    /// [`NotHeld`].
    pub fn check_held(&self, token: Token, offsets: &Range<i64>) -> Result<(), NotHeld> {
        let open = self.open(offsets);
        let held: u64 = held_by(&self.taken, token, &open).iter().map(length).sum();
        match held == length(&open) {
            true => Ok(()),
            false => Err(NotHeld(offsets.clone())),
        }
    }

    /// Does what a member says of records that it has acquired: all of it, or nothing.
    ///
    /// # Errors
    /// [`NotHeld`]: nothing was done.
    pub fn settle(
        &mut self,
        token: Token,
        verdicts: &[(Range<i64>, Verdict)],
    ) -> Result<(), NotHeld> {
        for (offsets, _) in verdicts {
            self.check_held(token, offsets)?;
        }
        for (offsets, verdict) in verdicts {
            let open = self.open(offsets);
            if open.is_empty() {
                continue;
            }
            if let Some(locks) = self.locks.get_mut(&token) {
                locks.0.remove(open.clone());
            }
            match verdict {
                Verdict::Accept => self.ledger.acknowledged += length(&open),
                Verdict::Reject => self.ledger.rejected += length(&open),
                Verdict::Gap => {}
                Verdict::Release => {
                    self.give_back(&RangeSet::from_iter([open]));
                    continue;
                }
            }
            self.deliveries.remove(open.clone());
            self.take(open, Holder::Acknowledged);
        }
        self.advance();
        Ok(())
    }

    /// How often what is at an offset was delivered before.
    #[must_use]
    pub fn deliveries_at(&self, offset: i64) -> u32 {
        self.deliveries.get(&offset).copied().unwrap_or_default()
    }

    /// What members of share groups acquired before `since` waits for others. Says whether there was anything.
    pub fn expire_locks(&mut self, since: Instant) -> bool {
        let mut expired = RangeSet::new();
        for (token, locks) in &mut self.locks {
            let old = locks.0.iter().filter(|(_, acquired)| **acquired <= since);
            let old: Vec<Range<i64>> = old.map(|(offsets, _)| offsets.clone()).collect();
            for offsets in old {
                expired.extend(held_by(&self.taken, *token, &offsets));
                locks.0.remove(offsets);
            }
        }
        self.give_back(&expired);
        !expired.is_empty()
    }

    /// When the oldest of what is locked was acquired.
    #[must_use]
    pub fn oldest_lock(&self) -> Option<Instant> {
        let locks = self.locks.values().flat_map(|locks| locks.0.iter());
        locks.map(|(_, acquired)| *acquired).min()
    }

    pub(super) fn unlock(&mut self, token: Token) -> bool {
        let Some(locks) = self.locks.get_mut(&token) else { return false };
        let all = std::mem::take(locks);
        let held: RangeSet<i64> =
            all.0.iter().flat_map(|(offsets, _)| held_by(&self.taken, token, offsets)).collect();
        self.give_back(&held);
        !held.is_empty()
    }

    /// The part of `offsets` that is not below the start.
    fn open(&self, offsets: &Range<i64>) -> Range<i64> {
        offsets.start.max(self.start)..offsets.end.max(self.start)
    }
}

#[cfg(test)]
mod tests;
