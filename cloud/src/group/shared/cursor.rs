//! Virtual offsets, and what was delivered at which of them.
//!
//! ```text
//! bit  63..53  0      some clients hold offsets in doubles, which are exact below 2^53
//!         52   1      no real offset is as large
//!      51..32  token  whose cursor it is
//!      31..0   sequence
//! ```
//!
//! The sequence of a new cursor starts at [`FIRST`]: a batch whose first records are not for this member is sent with a base below
//! the member's position, and clients drop what is below their position. It advances by the span of the offsets delivered.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use robustmq_common::ids::Offset;
use robustmq_common::limits;

const FLAG: i64 = 1 << 52;

/// The sequence of the first record on a cursor. No batch that is sent whole spans more offsets than this.
pub const FIRST: Sequence = Sequence(1 << 26);

/// A cursor that has come this far is replaced: its member is told to join again.
pub const WORN: Sequence = Sequence(1 << 31);

/// Whose cursor it is: one for each time that a member joins without an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u32);

impl Token {
    /// So many tokens there are.
    pub const COUNT: u64 = 1 << 20;

    /// The token of the `id`-th cursor.
    #[must_use]
    pub fn of(id: u64) -> Self {
        Self(u32::try_from(id % Self::COUNT).unwrap_or_default())
    }
}

/// A place on a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u32);

impl Sequence {
    /// The place that is `span` further.
    #[must_use]
    pub fn after(self, span: u32) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// A virtual offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CursorOffset {
    /// Whose.
    pub token: Token,
    /// Where.
    pub sequence: Sequence,
}

impl CursorOffset {
    /// As Kafka clients carry it.
    #[must_use]
    pub fn encode(self) -> i64 {
        FLAG | i64::from(self.token.0) << 32 | i64::from(self.sequence.0)
    }

    /// Reads an offset; `None` for a real one.
    #[must_use]
    pub fn decode(offset: i64) -> Option<Self> {
        if offset & !(FLAG - 1) != FLAG {
            return None;
        }
        let token = u32::try_from(offset >> 32 & 0xf_ffff).ok()?;
        let sequence = u32::try_from(offset & 0xffff_ffff).ok()?;
        Some(Self { token: Token(token), sequence: Sequence(sequence) })
    }
}

/// A position that was never reached on the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing was delivered at position {} of the cursor, which has come to {}", .position.0, .next.0)]
pub struct NeverDelivered {
    /// The position.
    pub position: Sequence,
    /// How far the cursor has come.
    pub next: Sequence,
}

/// Consecutive offsets that were delivered one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Delivery {
    at: Sequence,
    from: Offset,
    span: u32,
    given: Instant,
}

impl Delivery {
    fn end(&self) -> Sequence {
        self.at.after(self.span)
    }

    /// The real offsets from `position` on.
    fn offsets_from(&self, position: Sequence) -> Range<i64> {
        let skipped = position.0.saturating_sub(self.at.0).min(self.span);
        let end = self.from.0 + i64::from(self.span);
        self.from.0 + i64::from(skipped)..end
    }
}

/// What was delivered on one cursor: dense in sequences, in any order of offsets.
#[derive(Debug, Clone)]
pub struct Deliveries {
    known: VecDeque<Delivery>,
    acknowledged: Sequence,
    /// What was delivered before it went back to the group, as far as its member held it: what came to it again is on the cursor once more.
    returned: Sequence,
    next: Sequence,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self { known: VecDeque::new(), acknowledged: FIRST, returned: FIRST, next: FIRST }
    }
}

impl Deliveries {
    /// Where the next record goes.
    #[must_use]
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// Everything before it is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Sequence {
        self.acknowledged
    }

    /// Offsets delivered and not acknowledged on this cursor.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.next.0 - self.acknowledged.0
    }

    /// Notes that `offsets` are delivered next; returns where the first one goes. The range is at most [`FIRST`] long.
    pub fn push(&mut self, offsets: Range<i64>, now: Instant) -> Sequence {
        let at = self.next;
        let span = u32::try_from(offsets.end - offsets.start).unwrap_or_default();
        self.next = at.after(span);
        let is_held = at > self.returned;
        match self.known.back_mut() {
            Some(last)
                if is_held
                    && last.offsets_from(last.end()).start == offsets.start
                    && now.saturating_duration_since(last.given) < limits::shared::ONE_DELIVERY =>
            {
                last.span += span;
            }
            _ => {
                self.known.push_back(Delivery {
                    at,
                    from: Offset(offsets.start),
                    span,
                    given: now,
                });
            }
        }
        at
    }

    /// The real offsets that were delivered from `position` on, as far as they follow each other, and where on the cursor the first
    /// of them is: later than `position` if that is no longer remembered. `None` where nothing was delivered yet.
    ///
    /// # Errors
    /// [`NeverDelivered`].
    pub fn given(
        &self,
        position: Sequence,
    ) -> Result<Option<(Sequence, Range<i64>)>, NeverDelivered> {
        if position > self.next || position < FIRST {
            return Err(NeverDelivered { position, next: self.next });
        }
        let index = self.known.partition_point(|delivery| delivery.end() <= position);
        let found = self.known.get(index);
        Ok(found.map(|delivery| (position.max(delivery.at), delivery.offsets_from(position))))
    }

    /// Acknowledges everything before `position`; returns the offsets that this is news for.
    ///
    /// # Errors
    /// [`NeverDelivered`]: nothing was acknowledged.
    pub fn acknowledge(&mut self, position: Sequence) -> Result<Vec<Range<i64>>, NeverDelivered> {
        if position > self.next || position < FIRST {
            return Err(NeverDelivered { position, next: self.next });
        }
        let mut offsets = Vec::new();
        let first = self.known.partition_point(|delivery| delivery.end() <= self.acknowledged);
        for delivery in self.known.range(first..) {
            if delivery.at >= position {
                break;
            }
            let from = delivery.offsets_from(self.acknowledged.max(delivery.at)).start;
            let to = delivery.offsets_from(position).start;
            if from < to {
                offsets.push(from..to);
            }
        }
        self.acknowledged = self.acknowledged.max(position);
        // A consumer may seek back to what it has acknowledged, but not for ever.
        let is_old = |delivery: &Delivery| delivery.end() <= self.acknowledged;
        while self.known.len() > limits::shared::REMEMBERED_DELIVERIES
            && self.known.front().is_some_and(is_old)
        {
            self.known.pop_front();
        }
        Ok(offsets)
    }

    /// Where what its member may hold begins.
    fn held(&self) -> Sequence {
        self.acknowledged.max(self.returned)
    }

    /// The offsets of deliveries that begin before `end`, from `from` on, in the order of delivery.
    fn between(&self, from: Sequence, end: Sequence) -> Vec<Range<i64>> {
        let known = self.known.iter().take_while(|delivery| delivery.at < end);
        let offsets = known.map(|delivery| delivery.offsets_from(from));
        offsets.filter(|offsets| !offsets.is_empty()).collect()
    }

    /// What was delivered at `since` or before goes back, as far as the member holds it: returns the offsets that it has neither acknowledged
    /// nor given back before.
    pub fn give_back(&mut self, since: Instant) -> Vec<Range<i64>> {
        let old = self.known.iter().take_while(|delivery| delivery.given <= since);
        let end = old.last().map_or(FIRST, Delivery::end);
        let offsets = self.between(self.held(), end);
        self.returned = self.returned.max(end);
        offsets
    }

    /// As [`Deliveries::give_back`], for all that was delivered.
    pub fn give_all_back(&mut self) -> Vec<Range<i64>> {
        let offsets = self.between(self.held(), self.next);
        self.returned = self.next;
        offsets
    }

    /// When the first of what the member may hold and `is_held` was delivered.
    pub fn oldest(&self, is_held: impl Fn(&Range<i64>) -> bool) -> Option<Instant> {
        let from = self.held();
        let mut known = self.known.iter();
        let found = known.find(|delivery| {
            let offsets = delivery.offsets_from(from);
            !offsets.is_empty() && is_held(&offsets)
        });
        found.map(|delivery| delivery.given)
    }
}

#[cfg(test)]
mod tests;
