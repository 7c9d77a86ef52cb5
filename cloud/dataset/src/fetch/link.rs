//! How much has to be asked for at once so that the way to a source is full.
//!
//! What is more than that shares its bandwidth: all of it comes later, and what a reader waits for as well. A link that carries `rate`
//! bytes a second is full with `first_byte * rate` bytes (the bandwidth-delay product, where each GET is silent for `first_byte`), and one
//! GET more. Half as much again is let through: where the link was not full, it carries more then, and that is seen.

use std::time::Duration;

use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Link {
    since: Option<Instant>,
    bytes: u64,
    looks: u32,
    /// Bytes a second, the most of late.
    rate: f64,
    /// Seconds until the first byte, and bytes of a GET, smoothed.
    first_byte: f64,
    get_bytes: f64,
}

/// The part that the newest has in what is smoothed.
const NEWEST: f64 = 0.125;
/// What was seen before counts less with each look.
const FADING: f64 = 0.98;
/// More than would fill the link.
const MORE: f64 = 1.5;

impl Link {
    /// So many bytes have come, of any GET.
    pub fn came(&mut self, now: Instant, bytes: u64) {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let looked = now.saturating_duration_since(since);
        if looked >= limits::LINK_LOOK {
            #[expect(clippy::cast_precision_loss, reason = "for a ratio")]
            let rate = self.bytes as f64 / looked.as_secs_f64();
            self.rate = rate.max(self.rate * FADING);
            (self.since, self.bytes) = (Some(now), 0);
            self.looks = self.looks.saturating_add(1);
        }
    }

    /// A GET has brought `bytes`, the first of them after `first_byte`.
    pub fn brought(&mut self, first_byte: Duration, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "for a ratio")]
        let (seconds, size) = (first_byte.as_secs_f64(), bytes as f64);
        let is_new = self.get_bytes == 0.0;
        let smooth = |old: f64, new: f64| if is_new { new } else { old + (new - old) * NEWEST };
        self.first_byte = smooth(self.first_byte, seconds);
        self.get_bytes = smooth(self.get_bytes, size).max(1.0);
    }

    /// How long the first byte takes; `None` before that was seen.
    pub fn first_byte(&self) -> Option<Duration> {
        (self.get_bytes > 0.0).then(|| Duration::from_secs_f64(self.first_byte))
    }

    /// So much is worth asking for at once; `None` as long as that is not known.
    pub fn enough_bytes(&self) -> Option<u64> {
        let full = self.first_byte * self.rate + self.get_bytes;
        // The first looks saw a link that was not full yet.
        let least = if self.looks < limits::LINK_LOOKS { limits::GETS_FIRST_BYTES } else { 0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bytes of GETs that succeeded within a time that was measured"
        )]
        (self.rate > 0.0 && self.get_bytes > 0.0).then_some(((full * MORE) as u64).max(least))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Link, limits};

    const MEGABYTE: u64 = 1_000_000;

    /// Has a link carry GETs of so many bytes for a while, as many at once as it is said to bear; says how many that are in the end.
    fn settled(rate: u64, latency: Duration, bytes: u64) -> u64 {
        let mut link = Link::default();
        let mut now = Instant::now();
        let most = |link: &Link| {
            let enough = link.enough_bytes().map_or(limits::GETS_MOST as u64, |all| all / bytes);
            enough.clamp(2, limits::GETS_MOST as u64)
        };
        let mut gets = 8;
        for _ in 0..60 {
            // One round: all of them at once, each silent at first, then sharing the link.
            let transfer = Duration::from_secs_f64((bytes * gets) as f64 / rate as f64);
            now += latency;
            for _ in 0..10 {
                now += transfer / 10;
                link.came(now, bytes * gets / 10);
            }
            for _ in 0..gets {
                link.brought(latency, bytes);
            }
            gets = most(&link).min(gets + gets);
        }
        most(&link)
    }

    #[test]
    fn a_narrow_link_is_filled_by_few_and_a_wide_one_by_many() {
        let latency = Duration::from_millis(150);
        assert!((2..=4).contains(&settled(40 * MEGABYTE, latency, 8 * MEGABYTE)));
        assert!(settled(2_000 * MEGABYTE, latency, 8 * MEGABYTE) >= 20);
        assert_eq!(settled(100 * MEGABYTE, latency, 4_000), limits::GETS_MOST as u64);
        assert_eq!(Link::default().enough_bytes(), None, "nothing is known yet");
    }
}
