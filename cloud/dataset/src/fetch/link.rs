//! How many GETs fill the way to a source.
//!
//! GETs that are more than that share its bandwidth: all of them come later, and the one that a reader waits for as well. A link that
//! carries `rate` bytes a second is full with `1 + first_byte * rate / bytes` GETs of so many bytes, each of which is silent for
//! `first_byte` (the bandwidth-delay product, counted in GETs). Half as many more are let through: where the link was not full, it carries more
//! then, and that is seen.

use std::time::Duration;

use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Link {
    since: Option<Instant>,
    bytes: u64,
    gets: u32,
    /// Bytes a second, the most of late.
    rate: f64,
    /// Seconds until the first byte, and bytes of a GET, smoothed.
    first_byte: f64,
    get_bytes: f64,
}

/// The part that the newest has in what is smoothed.
const NEWEST: f64 = 0.125;
/// What was seen before counts less with each look.
const FADING: f64 = 0.9;
/// More than would fill the link.
const MORE: f64 = 1.5;

impl Link {
    /// A GET has brought `bytes`, the first of them after `first_byte`.
    pub fn brought(&mut self, now: Instant, first_byte: Duration, bytes: u64) {
        #[expect(clippy::cast_precision_loss, reason = "for a ratio")]
        let (seconds, size) = (first_byte.as_secs_f64(), bytes as f64);
        let is_new = self.get_bytes == 0.0;
        let smooth = |old: f64, new: f64| if is_new { new } else { old + (new - old) * NEWEST };
        self.first_byte = smooth(self.first_byte, seconds);
        self.get_bytes = smooth(self.get_bytes, size).max(1.0);
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        self.gets += 1;
        let looked = now.saturating_duration_since(since);
        if looked >= limits::LINK_LOOK && self.gets >= limits::LINK_GETS {
            #[expect(clippy::cast_precision_loss, reason = "for a ratio")]
            let rate = self.bytes as f64 / looked.as_secs_f64();
            self.rate = rate.max(self.rate * FADING);
            (self.since, self.bytes, self.gets) = (Some(now), 0, 0);
        }
    }

    /// So many GETs are worth while.
    pub fn enough(&self) -> usize {
        if self.rate == 0.0 {
            return limits::GETS_MOST;
        }
        let full = 1.0 + self.first_byte * self.rate / self.get_bytes;
        let wanted = (2..limits::GETS_MOST)
            .find(|gets| u32::try_from(*gets).is_ok_and(|gets| f64::from(gets) >= full * MORE));
        wanted.unwrap_or(limits::GETS_MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Link, limits};

    const MEGABYTE: u64 = 1_000_000;

    /// Has a link carry GETs of so many bytes for a while, as many at once as it is said to bear; says how many that are in the end.
    fn settled(rate: u64, latency: Duration, bytes: u64) -> usize {
        let mut link = Link::default();
        let mut now = Instant::now();
        let mut gets = 8_u32;
        for _ in 0..60 {
            // One round: all of them at once, each silent at first, then sharing the link.
            let transfer = Duration::from_secs_f64((bytes * u64::from(gets)) as f64 / rate as f64);
            now += latency + transfer;
            for _ in 0..gets {
                link.brought(now, latency, bytes);
            }
            gets = u32::try_from(link.enough()).expect("few").min(gets + gets);
        }
        link.enough()
    }

    #[test]
    fn a_narrow_link_is_filled_by_few_and_a_wide_one_by_many() {
        let latency = Duration::from_millis(150);
        assert!((2..=4).contains(&settled(40 * MEGABYTE, latency, 8 * MEGABYTE)));
        assert!(settled(2_000 * MEGABYTE, latency, 8 * MEGABYTE) >= 24);
        assert_eq!(settled(100 * MEGABYTE, latency, 4_000), limits::GETS_MOST);
        assert_eq!(Link::default().enough(), limits::GETS_MOST, "nothing is known yet");
    }
}
