//! Every metric of the binary but the uplink's ([`crate::uplink::UplinkMetrics`]), named as Prometheus does.

use std::time::Instant;

use kafka_protocol::messages::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use robustmq_common::telemetry::registered;

mod process;
mod store;

pub use process::ProcessMetrics;
pub use store::StoreMetrics;

/// The API of a Kafka request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabel {
    api: String,
}

/// Seconds, in buckets from 50 µs to about 1 s that grow by half.
#[derive(Debug, Clone)]
pub struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(50e-6, 1.5, 26)))
    }
}

impl Latency {
    /// Counts what has taken since `started`.
    pub fn observe_since(&self, started: Instant) {
        self.0.observe(started.elapsed().as_secs_f64());
    }
}

/// All metrics. Cheap to update from anywhere.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Open Kafka connections.
    pub kafka_connections: Gauge,
    /// Kafka connections closed because of what they sent, or did not send.
    pub kafka_connections_refused: Counter,
    /// Kafka requests begun, by API.
    pub kafka_requests: Family<ApiLabel, Counter>,
    /// From a Produce that has arrived to its answer in the socket.
    pub kafka_produce_seconds: Latency,
    /// Record batches that producers sent and that were refused.
    pub kafka_batches_refused: Counter,
    /// Bytes of record batches taken from producers.
    pub produced_bytes: Counter,
    /// Records taken from producers.
    pub produced_records: Counter,
    /// Bytes of record batches given to consumers.
    pub fetched_bytes: Counter,
    /// Passes of log compaction that had something to do.
    pub compaction_passes: Counter,
    /// Bytes of record batches that compaction removed.
    pub compaction_removed_bytes: Counter,
    /// Partitions that compaction gave up for the time being.
    pub compaction_failures: Counter,
    /// Bytes of batches that are in memory only.
    pub log_unstored_bytes: Gauge,
    /// Offsets removed because nobody needs them any more.
    pub expired_offsets: Counter,
}

/// What the archive of `tiered` topics and its cache did. Those of [`TierMetrics::default`] nobody sees.
#[derive(Debug, Clone, Default)]
pub struct TierMetrics {
    /// Bytes of record batches that were archived.
    pub archived_bytes: Counter,
    /// Attempts to archive that failed.
    pub failures: Counter,
    /// 1 until the archive was seen to be this store's: nothing is archived or removed before.
    pub unconfirmed: Gauge,
    /// Partitions whose last attempt failed, and that are not tried for a while.
    pub put_off_partitions: Gauge,
    /// Bytes that came from the object store.
    pub fetched_bytes: Counter,
    /// Blocks that could not be had.
    pub failed_reads: Counter,
    /// Blocks that were in memory, or on their way, when a reader asked.
    pub cache_hits: Counter,
    /// Blocks that a reader had to wait for from the first byte on.
    pub cache_misses: Counter,
    /// Answers of the object store that were cut off, or were other bytes than were put.
    pub damaged_answers: Counter,
    /// Bytes of memory that blocks take.
    pub cache_bytes: Gauge,
    /// Objects that are to be removed.
    pub doomed_objects: Gauge,
}

impl TierMetrics {
    /// Metrics that are registered.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let tier = registry.sub_registry_with_prefix("robustmq_cloud_tier");
        Self {
            archived_bytes: registered(
                tier,
                "archived_bytes",
                "Bytes of record batches that were archived",
            ),
            failures: registered(tier, "failures", "Attempts to archive that failed"),
            unconfirmed: registered(
                tier,
                "unconfirmed",
                "1 until the archive was seen to be this store's: nothing is archived or removed before",
            ),
            put_off_partitions: registered(
                tier,
                "put_off_partitions",
                "Partitions whose last attempt to archive failed, and that are tried again later",
            ),
            fetched_bytes: registered(
                tier,
                "fetched_bytes",
                "Bytes that came from the object store for readers",
            ),
            failed_reads: registered(
                tier,
                "failed_reads",
                "Blocks that could not be had from the object store, each tried three times",
            ),
            cache_hits: registered(
                tier,
                "cache_hits",
                "Blocks that were in memory, or on their way, when a reader asked",
            ),
            cache_misses: registered(
                tier,
                "cache_misses",
                "Blocks that a reader had to wait for from the first byte on",
            ),
            damaged_answers: registered(
                tier,
                "damaged_answers",
                "Answers of the object store that were cut off, or were other bytes than were put",
            ),
            cache_bytes: registered(tier, "cache_bytes", "Bytes of memory that blocks take"),
            doomed_objects: registered(tier, "doomed_objects", "Objects that are to be removed"),
        }
    }
}

impl Metrics {
    /// Metrics that are registered.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let log = registry.sub_registry_with_prefix("robustmq_cloud_log");
        let log_unstored_bytes = registered(
            log,
            "unstored_bytes",
            "Bytes of batches that are in memory only: memory topics, and what hybrid has not written",
        );
        let groups = registry.sub_registry_with_prefix("robustmq_cloud_groups");
        let expired_offsets = registered(
            groups,
            "expired_offsets",
            "Committed offsets removed because nobody needs them any more",
        );
        let compaction = registry.sub_registry_with_prefix("robustmq_cloud_compaction");
        let compaction_passes = registered(compaction, "passes", "Passes over partitions");
        let compaction_removed_bytes = registered(
            compaction,
            "removed_bytes",
            "Bytes of record batches removed or made smaller",
        );
        let compaction_failures =
            registered(compaction, "failures", "Passes over partitions that failed");
        let kafka = registry.sub_registry_with_prefix("robustmq_cloud_kafka");
        let kafka_produce_seconds = Latency::default();
        kafka.register(
            "produce_seconds",
            "From a Produce request that has arrived to its answer in the socket",
            kafka_produce_seconds.0.clone(),
        );
        Self {
            kafka_produce_seconds,
            compaction_passes,
            compaction_removed_bytes,
            compaction_failures,
            log_unstored_bytes,
            kafka_connections: registered(kafka, "connections", "Open connections"),
            kafka_connections_refused: registered(
                kafka,
                "connections_refused",
                "Connections closed for malformed or missing requests",
            ),
            kafka_requests: registered(kafka, "requests", "Requests begun"),
            kafka_batches_refused: registered(
                kafka,
                "batches_refused",
                "Record batches of producers that were refused",
            ),
            produced_bytes: registered(
                kafka,
                "produced_bytes",
                "Bytes of record batches taken from producers",
            ),
            produced_records: registered(kafka, "produced_records", "Records taken from producers"),
            fetched_bytes: registered(
                kafka,
                "fetched_bytes",
                "Bytes of record batches given to consumers",
            ),
            expired_offsets,
        }
    }

    /// Counts a request.
    pub fn kafka_request(&self, api: ApiKey) {
        self.kafka_requests.get_or_create(&ApiLabel { api: format!("{api:?}") }).inc();
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn kafka_connection_opened(&self) -> OpenConnection {
        self.kafka_connections.inc();
        OpenConnection(self.kafka_connections.clone())
    }
}

/// An open connection, for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
