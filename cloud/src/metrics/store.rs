//! The store's figures, as `GET /v1/store` has them.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::store::{Store, StoreStats};

/// A [`Collector`].
pub struct StoreMetrics(Arc<dyn Store>);

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMetrics").finish_non_exhaustive()
    }
}

impl StoreMetrics {
    /// Of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

type Figure = (&'static str, &'static str, fn(&StoreStats) -> u64);

const COUNTERS: [Figure; 4] = [
    ("robustmq_cloud_store_writes", "Writes answered as durable", |stats| stats.writes),
    ("robustmq_cloud_store_syncs", "Synced groups that carried them", |stats| stats.groups),
    ("robustmq_cloud_store_written_bytes", "Bytes of keys and values in them", |stats| {
        stats.written_bytes
    }),
    ("robustmq_cloud_store_failed_writes", "Writes that failed", |stats| stats.failed_writes),
];

const GAUGES: [Figure; 2] = [
    ("robustmq_cloud_store_disk_bytes", "Bytes on disk, as far as the engine knows", |stats| {
        stats.disk_bytes
    }),
    ("robustmq_cloud_store_queued_bytes", "Bytes that wait to be written", |stats| {
        stats.queued_bytes as u64
    }),
];

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.0.stats();
        for (name, help, value) in COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value(&stats)).encode(metric)?;
        }
        for (name, help, value) in GAUGES {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value(&stats)).unwrap_or(i64::MAX)).encode(metric)?;
        }
        let (name, help) =
            ("robustmq_cloud_store_refusing", "1 while writes are refused, for this reason");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (reason, why) in [
            ("no_space", &stats.no_space),
            ("unavailable", &stats.unavailable),
            ("poisoned", &stats.poisoned),
        ] {
            let gauge = ConstGauge::new(i64::from(why.is_some()));
            gauge.encode(metric.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::StoreMetrics;
    use crate::store::{MemoryStore, Store, WriteBatch, write};

    /// An alarm on a full disk had to ask for JSON.
    #[tokio::test]
    async fn what_an_operator_asks_of_the_store_is_a_metric() {
        let store = Arc::new(MemoryStore::new());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(StoreMetrics::new(store.clone())));
        let check = |expected: &[&str]| {
            let mut shown = String::new();
            encode(&mut shown, &registry).expect("text");
            for line in expected {
                assert!(shown.lines().any(|shown| shown == *line), "{line}: {shown}");
            }
        };
        let put = async || {
            let mut batch = WriteBatch::new();
            batch.put("key", "value");
            write(&*store, batch).await
        };
        put().await.expect("written");
        check(&[
            "robustmq_cloud_store_writes_total 1",
            "robustmq_cloud_store_syncs_total 1",
            "robustmq_cloud_store_failed_writes_total 0",
            "robustmq_cloud_store_refusing{reason=\"no_space\"} 0",
        ]);
        store.set_full(true);
        put().await.expect_err("it is full");
        let written =
            format!("robustmq_cloud_store_written_bytes_total {}", store.stats().written_bytes);
        check(&[
            "robustmq_cloud_store_failed_writes_total 1",
            "robustmq_cloud_store_refusing{reason=\"no_space\"} 1",
            "robustmq_cloud_store_refusing{reason=\"poisoned\"} 0",
            &written,
        ]);
    }
}
