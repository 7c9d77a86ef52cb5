//! How many records a member is given ahead of its acknowledgements.
//!
//! Too few, and a member that commits every five seconds waits for its own commit; too many, and they are with one member while
//! the others have nothing to do. A client's own prefetch is no help: it takes thousands of records at once, whatever it does with them.
//!
//! What a member *does* is known at each commit. If records were in flight when it came, the member was busy all the time since the last
//! one, and what it acknowledged is its rate; from then on it is given work for a quarter of the time that the whole group has
//! still to go, 0.2 to 2 s ahead of where it is thought to be. If a commit acknowledges everything that was in flight, the member may
//! have waited: it gets four times as much. Before the first commit the start is small: a small part of what is left, divided by the
//! members.
//!
//! A client that fetches again while more is in flight than it would ever prefetch has handed the rest on, whatever it acknowledges: it is
//! fast, and goes on before its first commit.

use std::time::{Duration, Instant};

use robustmq_common::limits::shared as limits;

/// What a member may be given now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// So many records, at least one.
    Records(u32),
    /// Nothing before this time, or an acknowledgement.
    Wait(Option<Instant>),
}

/// What a member competes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Records that nobody has been given yet.
    pub remaining: u64,
    /// What all members acknowledge together: records in a thousand seconds.
    pub rate: u64,
    /// How many members there are.
    pub members: u64,
}

/// What bounds a member's records in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Whatever it does.
    pub most: u32,
    /// What its client holds at most without handing it on.
    pub prefetched: u32,
}

impl Bounds {
    /// Whether so much is in flight that a part of it has left the client: it fetches again with less at hand than it would prefetch. One
    /// answer may be more than that.
    fn hands_on(self, in_flight: u32) -> bool {
        in_flight > self.prefetched.saturating_add(self.prefetched / 32)
    }
}

/// One that hands records on, and has acknowledged none yet, is given so many of its first shares at once.
const HANDING_ON: u32 = 4;

/// One member's pace on one partition.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Records in a thousand seconds, while busy.
    rate: u64,
    /// The last commit left records in flight: the rate is true.
    is_busy: bool,
    /// The last acknowledgement, or the first record after everything was acknowledged.
    since: Instant,
    /// How far apart acknowledgements are.
    interval: Duration,
    /// Records in flight that a member gets whose rate is not known.
    floor: u32,
    /// Records in the next answer, before the rate is known.
    lease: u32,
}

impl Pace {
    /// Of a new member.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let floor = limits::FIRST_IN_FLIGHT;
        let lease = limits::FIRST_LEASE;
        Self { rate: 0, is_busy: false, since: now, interval: Duration::ZERO, floor, lease }
    }

    /// Records in a thousand seconds that the member acknowledges; 0 before that is known.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// A lease was given while `in_flight` records were out.
    pub fn leased(&mut self, now: Instant, in_flight: u32) {
        if in_flight == 0 {
            self.since = now;
        }
        self.lease = self.lease.saturating_mul(2);
    }

    /// `count` records were acknowledged, `left` are still in flight.
    pub fn acknowledged(&mut self, now: Instant, count: u32, left: u32) {
        if count == 0 {
            return;
        }
        let took = now.saturating_duration_since(self.since).max(Duration::from_millis(1));
        let measured = u64::from(count) * 1_000_000 / millis(took);
        self.interval = match self.interval.is_zero() {
            true => took,
            false => (self.interval * 3 + took) / 4,
        };
        self.since = now;
        if left == 0 {
            self.rate = self.rate.max(measured);
            self.is_busy = false;
            self.floor = self.floor.max(count).saturating_mul(4);
            return;
        }
        self.rate = match self.is_busy {
            true => u64::midpoint(self.rate, measured),
            false => measured,
        }
        .max(1);
        self.is_busy = true;
        self.floor = limits::FIRST_IN_FLIGHT;
    }

    /// What may be given now, while `in_flight` records are out.
    #[must_use]
    pub fn allowance(
        &self,
        now: Instant,
        in_flight: u32,
        bounds: Bounds,
        crowd: Crowd,
    ) -> Allowance {
        let room = bounds.most.max(1).saturating_sub(in_flight);
        if room == 0 {
            return Allowance::Wait(None);
        }
        let granted = match self.is_busy {
            true => self.ahead(now, in_flight, bounds, crowd),
            false => {
                let members = crowd.members.max(limits::FIRST_MEMBERS);
                let share = crowd.remaining / members / limits::FIRST_SHARE;
                let share = u32::try_from(share).unwrap_or(u32::MAX / HANDING_ON);
                let limit = self.patience(now).max(self.floor).max(share);
                let pending = in_flight.min(bounds.prefetched);
                let beyond = if bounds.hands_on(in_flight) { share * HANDING_ON } else { 0 };
                let records = limit.saturating_sub(pending).max(beyond).min(self.lease);
                match records.min(self.fair(crowd)) {
                    0 => Allowance::Wait(Some(now + limits::PATIENCE)),
                    records => Allowance::Records(records),
                }
            }
        };
        match granted {
            // Whoever has nothing at all gets something.
            Allowance::Records(0) | Allowance::Wait(_) if in_flight == 0 => Allowance::Records(1),
            Allowance::Records(0) => Allowance::Wait(None),
            Allowance::Records(records) => Allowance::Records(records.min(room)),
            wait @ Allowance::Wait(_) => wait,
        }
    }

    /// The most that one answer has for a member of which it is not known that it is busy: where little is left, others wait for it too,
    /// and have their part at once. What takes 0.2 s is not worth dividing.
    fn fair(&self, crowd: Crowd) -> u32 {
        let soon = self.rate * millis(limits::AHEAD_LEAST) / 1_000_000;
        let part = crowd.remaining / crowd.members.max(1);
        u32::try_from(part.max(soon)).unwrap_or(u32::MAX).max(limits::FIRST_LEASE)
    }

    /// What a member may have in flight that has acknowledged nothing for long: it may want more records together before it does, and
    /// would wait for ever. What it does not work on stays with its client, which takes no more than it prefetches.
    fn patience(&self, now: Instant) -> u32 {
        let waited = now.saturating_duration_since(self.since).as_secs();
        let doublings = u32::try_from(waited / limits::PATIENCE.as_secs()).unwrap_or(u32::MAX);
        let grown = limits::FIRST_IN_FLIGHT.saturating_mul(2_u32.saturating_pow(doublings));
        if doublings == 0 { 0 } else { grown.min(limits::PREFETCHED) }
    }

    /// What a busy member gets: work for a while, ahead of where it is thought to be.
    fn ahead(&self, now: Instant, in_flight: u32, bounds: Bounds, crowd: Crowd) -> Allowance {
        let time_left_ms =
            (crowd.remaining + u64::from(in_flight)) * 1_000_000 / crowd.rate.max(self.rate).max(1);
        let (least, most) = (millis(limits::AHEAD_LEAST), millis(limits::AHEAD_MOST));
        let ahead_ms = (time_left_ms / limits::AHEAD_SHARE).clamp(least, most);
        // Rounded up: a slow member has one record at a time.
        let wanted = (self.rate * ahead_ms).div_ceil(1_000_000).max(1);
        let done = self.rate * millis(now.saturating_duration_since(self.since)) / 1_000_000;
        let pending = u64::from(in_flight).saturating_sub(done).min(bounds.prefetched.into());
        // However fast it is thought to be: two intervals' work without a commit, and it has stopped.
        let most = wanted * 2 + 2 * self.rate * millis(self.interval) / 1_000_000;
        if u64::from(in_flight) >= most {
            let more = self.patience(now).saturating_sub(in_flight);
            return match more {
                0 => Allowance::Wait(Some(now + limits::PATIENCE)),
                more => Allowance::Records(more.min(self.lease)),
            };
        }
        // In portions of a quarter, since each one costs an answer.
        let portion = wanted.div_ceil(4);
        match wanted.saturating_sub(pending) {
            records if records >= portion => {
                Allowance::Records(u32::try_from(records).unwrap_or(u32::MAX))
            }
            records => {
                let wait_ms = ((portion - records) * 1_000_000).div_ceil(self.rate.max(1));
                Allowance::Wait(Some(now + Duration::from_millis(wait_ms.max(1))))
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
