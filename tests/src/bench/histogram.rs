//! A Prometheus histogram of the broker, so that a latency can be told without the client's and the kernel's share.

use serde::Serialize;

/// Cumulative counts by upper bound in seconds, in order, all label sets added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

/// What a broker's histogram says about a phase.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AtTheBroker {
    /// In milliseconds, within its bucket.
    pub p50_ms: f64,
    /// In milliseconds, within its bucket.
    pub p99_ms: f64,
}

impl Histogram {
    /// Finds `name` on a page of metrics.
    #[must_use]
    pub fn parse(page: &str, name: &str) -> Option<Self> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{"))
            else {
                continue;
            };
            let (labels, count) = rest.rsplit_once("} ")?;
            let bound = labels.split(',').find_map(|label| label.strip_prefix("le=\""))?;
            let bound = match bound.trim_end_matches('"') {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            let count: f64 = count.split(' ').next()?.parse().ok()?;
            match buckets.iter_mut().find(|(found, _)| found.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    /// What came since `before`; nothing if nothing did.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<AtTheBroker> {
        let earlier = |bound: f64| {
            let found = before.0.iter().find(|(found, _)| found.total_cmp(&bound).is_eq());
            found.map_or(0.0, |(_, count)| *count)
        };
        let counts: Vec<(f64, f64)> =
            self.0.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
        let total = counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        Some(AtTheBroker {
            p50_ms: quantile(&counts, total * 0.5) * 1e3,
            p99_ms: quantile(&counts, total * 0.99) * 1e3,
        })
    }
}

/// As Prometheus has it: a straight line within the bucket.
fn quantile(counts: &[(f64, f64)], rank: f64) -> f64 {
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in counts {
        if *count >= rank {
            return if bound.is_finite() {
                low + (bound - low) * (rank - below) / (count - below).max(f64::MIN_POSITIVE)
            } else {
                low
            };
        }
        (low, below) = (*bound, *count);
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "broker_produce_seconds";

    #[test]
    fn quantiles_are_of_what_came_in_between() {
        let before = "broker_produce_seconds_bucket{le=\"0.001\",acks=\"all\"} 100\n\
                      broker_produce_seconds_bucket{le=\"0.01\",acks=\"all\"} 100\n\
                      broker_produce_seconds_bucket{le=\"+Inf\",acks=\"all\"} 100\n\
                      broker_produce_seconds_count 100\n";
        let after = "broker_produce_seconds_bucket{le=\"0.001\",acks=\"all\"} 150\n\
                     broker_produce_seconds_bucket{le=\"0.01\",acks=\"all\"} 200\n\
                     broker_produce_seconds_bucket{le=\"+Inf\",acks=\"all\"} 200\n";
        let before = Histogram::parse(before, NAME).unwrap();
        let found = Histogram::parse(after, NAME).unwrap().since(&before).unwrap();
        assert!((found.p50_ms - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.p99_ms - 9.82).abs() < 1e-9, "{found:?}");
        assert!(before.since(&before).is_none());
        assert_eq!(Histogram::parse("other_bucket{le=\"1\"} 3\n", NAME), None);
    }
}
