//! What the cache of datasets did, as `/metrics` shows it. By topic: `GET /v1/datasets/{topic}`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use robustmq_dataset::cache::{Cache, Counts};

/// A [`Collector`].
#[derive(Clone)]
pub struct CacheMetrics {
    cache: Arc<Cache>,
}

impl fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMetrics").finish_non_exhaustive()
    }
}

impl CacheMetrics {
    /// Of this cache.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        Self { cache }
    }
}

type Figure = (&'static str, &'static str, fn(&Counts) -> u64);

const COUNTERS: [Figure; 4] = [
    ("robustmq_cloud_dataset_source_bytes", "Bytes of content that came from sources", |counts| {
        counts.source_bytes
    }),
    ("robustmq_cloud_dataset_waits", "Fetches that waited for an extent on its way", |counts| {
        counts.waited
    }),
    ("robustmq_cloud_dataset_wait_microseconds", "How long all of these waited", |counts| {
        counts.waited_micros
    }),
    ("robustmq_cloud_dataset_failed_loads", "Extents that could not be had", |counts| {
        counts.failed_loads
    }),
];

impl Collector for CacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.cache.counts();
        for (name, help, value) in COUNTERS {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value(&counts)).encode(metric)?;
        }
        let (name, help) = (
            "robustmq_cloud_dataset_reads",
            "Reads of extents, by where they were: memory is read-ahead too",
        );
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let tiers = [
            ("memory", counts.memory_reads),
            ("ssd", counts.ssd_reads),
            ("source", counts.source_reads),
        ];
        for (tier, reads) in tiers {
            let counter = ConstCounter::new(reads);
            counter.encode(metric.encode_family(&[("tier", tier)])?)?;
        }
        let (memory, ssd) = self.cache.held_bytes();
        let (name, help) = ("robustmq_cloud_dataset_cache_bytes", "What the cache holds");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (tier, bytes) in [("memory", memory), ("ssd", ssd)] {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(metric.encode_family(&[("tier", tier)])?)?;
        }
        Ok(())
    }
}
