//! Every metric of the binary but the uplink's ([`crate::uplink::UplinkMetrics`]), named as Prometheus does.

use kafka_protocol::messages::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The API of a Kafka request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabel {
    api: String,
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
    /// Record batches that producers sent and that were refused.
    pub kafka_batches_refused: Counter,
    /// Bytes of record batches taken from producers.
    pub produced_bytes: Counter,
    /// Records taken from producers.
    pub produced_records: Counter,
    /// Bytes of record batches given to consumers.
    pub fetched_bytes: Counter,
    /// Bytes of the newest batches in memory.
    pub log_memory_bytes: Gauge,
    /// Offsets removed because nobody needs them any more.
    pub expired_offsets: Counter,
}

impl Metrics {
    /// Puts all metrics into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let kafka = registry.sub_registry_with_prefix("robustmq_cloud_kafka");
        kafka.register("connections", "Open connections", self.kafka_connections.clone());
        kafka.register(
            "connections_refused",
            "Connections closed for malformed or missing requests",
            self.kafka_connections_refused.clone(),
        );
        kafka.register("requests", "Requests begun", self.kafka_requests.clone());
        kafka.register(
            "batches_refused",
            "Record batches of producers that were refused",
            self.kafka_batches_refused.clone(),
        );
        kafka.register_with_unit(
            "produced",
            "Record batches taken from producers",
            Unit::Bytes,
            self.produced_bytes.clone(),
        );
        kafka.register(
            "produced_records",
            "Records taken from producers",
            self.produced_records.clone(),
        );
        kafka.register_with_unit(
            "fetched",
            "Record batches given to consumers",
            Unit::Bytes,
            self.fetched_bytes.clone(),
        );
        let log = registry.sub_registry_with_prefix("robustmq_cloud_log");
        log.register_with_unit(
            "memory",
            "The newest batches in memory",
            Unit::Bytes,
            self.log_memory_bytes.clone(),
        );
        let groups = registry.sub_registry_with_prefix("robustmq_cloud_groups");
        groups.register(
            "expired_offsets",
            "Committed offsets removed because nobody needs them any more",
            self.expired_offsets.clone(),
        );
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
