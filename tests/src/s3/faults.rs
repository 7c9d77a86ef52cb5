//! What goes wrong, and how long an answer takes.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// How far answers spread about the median: that of the logarithm, so that about two in three lie between 0.6 and 1.6 times the median.
const SPREAD: f64 = 0.5;
/// No answer takes longer than this.
const LONGEST: Duration = Duration::from_secs(600);

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Everything is answered 503.
    pub is_down: bool,
    /// The credentials are refused.
    pub is_forbidden: bool,
    /// The bucket is in another region: everything is answered 301.
    pub is_elsewhere: bool,
    /// There is no such bucket.
    pub has_no_bucket: bool,
    /// `If-Match` and `Range` are ignored, as some servers do: the whole object is answered, whichever it is.
    pub ignores_conditions: bool,
    /// Of a thousand requests so many are answered 503 `SlowDown`, half of them after having been carried out.
    pub failing: u32,
    /// With more requests in work than this, another is answered 503 `SlowDown`; 0 is no limit.
    pub most_at_once: usize,
    /// Of a thousand bodies so many end in the middle.
    pub truncated: u32,
    /// Answers wait for at least this long.
    pub least_delay: Duration,
    /// And for up to so much more, each time as likely as the other.
    pub delay: Duration,
    /// And for what a network with a long tail adds.
    pub latency: Latency,
    /// What all bodies of answers together get through the link; 0 is no limit.
    pub bytes_a_second: u64,
}

/// Times to the first byte as object stores show them: a floor, most answers soon after it, and a few much later.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// No answer comes sooner.
    pub least: Duration,
    /// Half of the answers take no longer than this on top (log-normal).
    pub median: Duration,
    /// The share of answers, of 1, in the long tail.
    pub tail: f64,
    /// By how much what comes on top is longer for those.
    pub tail_factor: f64,
}

impl Latency {
    /// The time that the next answer takes.
    pub(super) fn draw(&self, rng: &mut SmallRng) -> Duration {
        if self.median.is_zero() {
            return self.least;
        }
        // Box and Muller's transform of two even draws to a normal one.
        let (radius, angle) =
            (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..TAU));
        let normal = (-2.0 * f64::ln(radius)).sqrt() * f64::cos(angle);
        let is_late = rng.random_range(0.0..1.0) < self.tail;
        let factor = if is_late { self.tail_factor.max(0.0) } else { 1.0 };
        let seconds = self.median.as_secs_f64() * (SPREAD * normal).exp() * factor;
        self.least + Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::Latency;

    const NETWORK: Latency = Latency {
        least: Duration::from_millis(100),
        median: Duration::from_millis(20),
        tail: 0.02,
        tail_factor: 20.0,
    };

    fn drawn(latency: Latency, seed: u64) -> Vec<Duration> {
        let mut rng = SmallRng::seed_from_u64(seed);
        (0..10_000).map(|_| latency.draw(&mut rng)).collect()
    }

    #[test]
    fn answers_have_a_floor_a_median_and_a_long_tail() {
        let mut times = drawn(NETWORK, 7);
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 1000].as_millis();
        assert!(times[0] >= NETWORK.least, "{:?}", times[0]);
        assert!((118..=122).contains(&at(500)), "{}", at(500));
        assert!((130..=160).contains(&at(900)), "{}", at(900));
        // One in a hundred is in the upper half of the tail.
        assert!((400..=600).contains(&at(990)), "{}", at(990));
    }

    #[test]
    fn the_same_seed_gives_the_same_times() {
        assert_eq!(drawn(NETWORK, 3), drawn(NETWORK, 3));
        assert_ne!(drawn(NETWORK, 3), drawn(NETWORK, 4));
        let even = Latency { median: Duration::ZERO, ..NETWORK };
        assert!(drawn(even, 3).iter().all(|time| *time == NETWORK.least));
        assert!(drawn(Latency::default(), 3).iter().all(Duration::is_zero));
    }
}
