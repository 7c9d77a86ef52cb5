//! When to try again, and how fast to send.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A source of random fractions in `[0, 1)`. Injected, so that simulations repeat.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Exponential backoff with full jitter: each pause is anywhere between nothing and a limit that doubles.
#[derive(Clone)]
pub(super) struct Backoff {
    base: Duration,
    most: Duration,
    failures: u32,
    jitter: Jitter,
}

impl Backoff {
    pub fn new(base: Duration, most: Duration, jitter: Jitter) -> Self {
        Self { base, most, failures: 0, jitter }
    }

    /// How long to wait after one more failure, at least `floor`.
    pub fn failed(&mut self, floor: Duration) -> Duration {
        let limit =
            self.base.saturating_mul(2_u32.saturating_pow(self.failures.min(24))).min(self.most);
        self.failures = self.failures.saturating_add(1);
        floor.saturating_add(limit.mul_f64((self.jitter)().clamp(0.0, 1.0)))
    }

    /// Something worked: the next failure starts from the beginning.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Limits bytes a second. One second's worth may go out at once.
#[derive(Debug)]
pub(super) struct TokenBucket {
    bytes_per_second: f64,
    state: Mutex<(Instant, f64)>,
}

impl TokenBucket {
    pub fn new(bytes_per_second: u64, now: Instant) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let bytes_per_second = bytes_per_second.max(1) as f64;
        Self { bytes_per_second, state: Mutex::new((now, bytes_per_second)) }
    }

    /// Takes `bytes` out and says how long to wait before sending them. What is over one second's worth is paid for afterwards.
    pub fn take(&self, bytes: usize, now: Instant) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, level) = *state;
        let filled = now.saturating_duration_since(since).as_secs_f64() * self.bytes_per_second;
        #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^53 bytes")]
        let level = (level + filled).min(self.bytes_per_second) - bytes as f64;
        *state = (now, level);
        if level >= 0.0 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(-level / self.bytes_per_second).unwrap_or(Duration::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Backoff, TokenBucket};

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_success() {
        let (base, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(base, most, Arc::new(|| 1.0));
        let pauses: Vec<u128> =
            (0..5).map(|_| backoff.failed(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(Duration::from_secs(2)).as_millis(), 2_100);
        let mut lucky = Backoff::new(base, most, Arc::new(|| 0.0));
        assert_eq!(lucky.failed(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let jitter = Arc::new(|| 1.0);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), jitter);
        for _ in 0..1_000 {
            assert!(backoff.failed(Duration::ZERO) <= Duration::from_secs(30));
        }
    }

    #[test]
    fn a_bucket_lets_one_second_through_and_then_the_rate() {
        let start = Instant::now();
        let bucket = TokenBucket::new(1_000, start);
        assert_eq!(bucket.take(1_000, start), Duration::ZERO);
        assert_eq!(bucket.take(500, start), Duration::from_millis(500));
        assert_eq!(bucket.take(500, start + Duration::from_secs(1)), Duration::ZERO);
        let later = start + Duration::from_secs(100);
        assert_eq!(bucket.take(3_000, later), Duration::from_secs(2));
    }
}
