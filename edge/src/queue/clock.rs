//! Time on a machine that may not know it: a gateway without a clock battery boots in 1970.
//!
//! Every record keeps the boot that it was received in and the milliseconds since that boot, which are always true, and
//! the wall clock if that was known. [`Stamp::resolve`] finds the wall time later, once it is known.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use robustmq_common::limits::QUEUE_BOOTS_REMEMBERED;

/// Identifies one boot of the machine (Linux: `/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BootId(pub [u8; 16]);

/// One moment, as far as the machine knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The boot that this process runs in.
    pub boot: BootId,
    /// Since that boot, suspended time included.
    pub uptime: Duration,
    /// Milliseconds since 1970, if the wall clock can be believed.
    pub wall_ms: Option<i64>,
}

/// When a record was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The boot in which it was received.
    pub boot: BootId,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
    /// Milliseconds since 1970, if the wall clock was known then.
    pub wall_ms: Option<i64>,
}

impl Now {
    /// This moment as a record's stamp.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { boot: self.boot, uptime_ms: millis(self.uptime), wall_ms: self.wall_ms }
    }
}

impl Stamp {
    /// When it was received, in milliseconds since 1970: as noted then, or worked out from what was learned about that
    /// boot since. `None` while nobody knows.
    #[must_use]
    pub fn resolve(&self, boots: &Boots) -> Option<i64> {
        self.wall_ms.or_else(|| {
            let offset = boots.offset(self.boot)?;
            offset.checked_add(i64::try_from(self.uptime_ms).ok()?)
        })
    }

    /// How long ago that was: exact within one boot or where both wall clocks are known; otherwise the least that it can
    /// be, which is the time since the present boot.
    #[must_use]
    pub fn age(&self, now: &Now, boots: &Boots) -> Duration {
        if self.boot == now.boot {
            return now.uptime.saturating_sub(Duration::from_millis(self.uptime_ms));
        }
        let by_wall = self.resolve(boots).zip(now.wall_ms).map(|(then, now)| {
            Duration::from_millis(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
        });
        by_wall.unwrap_or(now.uptime).max(now.uptime)
    }
}

/// What is known about the wall clock of recent boots: the wall time at which each began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boots(VecDeque<(BootId, i64)>);

impl Boots {
    /// The wall time, in milliseconds since 1970, at which `boot` began.
    #[must_use]
    pub fn offset(&self, boot: BootId) -> Option<i64> {
        self.0.iter().find(|(id, _)| *id == boot).map(|(_, offset)| *offset)
    }

    /// Learns from a moment at which the wall clock is known; the first such moment of a boot counts. Says whether
    /// something new was learned. Keeps the latest `QUEUE_BOOTS_REMEMBERED`.
    pub fn learn(&mut self, now: &Now) -> bool {
        let Some(wall_ms) = now.wall_ms else { return false };
        if self.offset(now.boot).is_some() {
            return false;
        }
        let uptime = i64::try_from(millis(now.uptime)).unwrap_or(i64::MAX);
        self.restore(now.boot, wall_ms.saturating_sub(uptime));
        true
    }

    pub(super) fn restore(&mut self, boot: BootId, offset: i64) {
        if self.0.len() >= QUEUE_BOOTS_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((boot, offset));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BootId, i64)> + '_ {
        self.0.iter().copied()
    }
}

/// Where the time comes from. The product uses [`SystemClock`]; tests and simulations their own.
pub trait Clock: Send + Sync {
    /// This moment.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Debug)]
pub struct SystemClock {
    boot: BootId,
}

impl SystemClock {
    /// Reads the boot id. Where there is none to read (not Linux), a random one stands for this process.
    #[must_use]
    pub fn new() -> Self {
        let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot =
            read.as_deref().and_then(parse_boot_id).unwrap_or_else(|| BootId(rand::random()));
        Self { boot }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// 2025-01-01: a wall clock before this is one that was never set.
const EARLIEST_BELIEVABLE_MS: i64 = 1_735_689_600_000;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let uptime = Duration::new(
            u64::try_from(uptime.tv_sec).unwrap_or(0),
            u32::try_from(uptime.tv_nsec).unwrap_or(0),
        );
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let wall_ms = wall.and_then(|since| i64::try_from(since.as_millis()).ok());
        Now { boot: self.boot, uptime, wall_ms: wall_ms.filter(|ms| *ms >= EARLIEST_BELIEVABLE_MS) }
    }
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0u8; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(BootId(id))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
