//! What the uplink counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the uplink's edge side. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UplinkMetrics {
    batches: Counter,
    records: Counter,
    sent_bytes: Counter,
    acknowledged: Counter,
    failures: Counter,
    dead_letters: Counter,
}

impl UplinkMetrics {
    /// Counters that are registered under `robustmq_edge_uplink`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let uplink = registry.sub_registry_with_prefix("robustmq_edge_uplink");
        uplink.register("batches", "Batches sent, repeated ones too", metrics.batches.clone());
        uplink.register("records", "Records sent, repeated ones too", metrics.records.clone());
        uplink.register("sent_bytes", "Bytes of batches, compressed", metrics.sent_bytes.clone());
        uplink.register(
            "acknowledged_records",
            "Sequences that the cloud has",
            metrics.acknowledged.clone(),
        );
        uplink.register("failures", "Requests that got nowhere", metrics.failures.clone());
        uplink.register(
            "dead_letters",
            "Records that the cloud rejected for good",
            metrics.dead_letters.clone(),
        );
        metrics
    }

    pub(super) fn sent(&self, records: u64, bytes: usize) {
        self.batches.inc();
        self.records.inc_by(records);
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub(super) fn acknowledged(&self, records: u64) {
        self.acknowledged.inc_by(records);
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn dead_lettered(&self, records: u64) {
        self.dead_letters.inc_by(records);
    }
}
