//! The link that all bodies share.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

/// What goes through at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// What was not used so long ago may be made up for: timers wake late.
const SLACK: Duration = Duration::from_millis(20);

/// One piece after the other, whoever sends it.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// When the last piece that was let in is through.
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    /// Waits until `bytes` are through.
    pub(super) async fn pass(&self, bytes: usize, bytes_a_second: u64) {
        tokio::time::sleep_until(self.reserve(Instant::now(), bytes, bytes_a_second)).await;
    }

    fn reserve(&self, now: Instant, bytes: usize, bytes_a_second: u64) -> Instant {
        let mut free_at = lock(&self.free_at);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let from = free_at.map_or(now, |free_at| free_at.max(earliest));
        let until = from + Duration::from_secs_f64(bytes as f64 / bytes_a_second.max(1) as f64);
        *free_at = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Link, PIECE_BYTES, SLACK};

    const RATE: u64 = 65_536_000;

    #[test]
    fn all_bodies_together_get_the_rate() {
        let (link, now) = (Link::default(), Instant::now());
        // 64 KiB take a millisecond; who sends them makes no difference.
        let last = (0..1000).map(|_| link.reserve(now, PIECE_BYTES, RATE)).last();
        let took = last.expect("a thousand pieces") - now;
        let expected = Duration::from_secs(1);
        assert!(took.abs_diff(expected) < Duration::from_millis(1), "{took:?}");
    }

    #[test]
    fn a_link_that_was_idle_saves_nothing_up() {
        let (link, now) = (Link::default(), Instant::now());
        link.reserve(now, PIECE_BYTES, RATE);
        let later = now + Duration::from_secs(60);
        let last = (0..1000).map(|_| link.reserve(later, PIECE_BYTES, RATE)).last();
        let took = last.expect("a thousand pieces") - later;
        let expected = Duration::from_secs(1) - SLACK;
        assert!(took.abs_diff(expected) < Duration::from_millis(1), "{took:?}");
    }
}
