//! What the cache of datasets did, and how many partitions are in trouble, as `/metrics` shows it. By topic: `GET /v1/datasets/{topic}`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use robustmq_dataset::cache::{Cache, Counts};

use super::Datasets;
use super::troubles::Troubles;

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

/// What is wrong with datasets: a [`Collector`].
#[derive(Debug, Clone)]
pub struct TroubleMetrics(Arc<Troubles>);

impl Datasets {
    /// What is wrong with them, for `/metrics`.
    #[must_use]
    pub fn trouble_metrics(&self) -> TroubleMetrics {
        TroubleMetrics(Arc::clone(&self.troubles))
    }
}

impl Collector for TroubleMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(troubles) = self;
        let (name, help) = (
            "robustmq_cloud_dataset_troubled_partitions",
            "Partitions whose logs end before their last object, or cannot be read, as far as somebody has tried",
        );
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let partitions = i64::try_from(troubles.partitions()).unwrap_or(i64::MAX);
        ConstGauge::new(partitions).encode(metric)?;
        let counters = [
            (
                "robustmq_cloud_dataset_left_out_places",
                "Places of objects that were found to be damaged: their samples have no offsets",
                troubles.left_out(),
            ),
            (
                "robustmq_cloud_dataset_lost_records",
                "Records that readers came upon and that are not there any more",
                troubles.lost_records(),
            ),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}
