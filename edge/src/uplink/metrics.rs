//! What the uplink counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use robustmq_common::telemetry::registered;

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
        let uplink = registry.sub_registry_with_prefix("robustmq_edge_uplink");
        Self {
            batches: registered(uplink, "batches", "Batches sent, repeated ones too"),
            records: registered(uplink, "records", "Records sent, repeated ones too"),
            sent_bytes: registered(uplink, "sent_bytes", "Bytes of batches, compressed"),
            acknowledged: registered(
                uplink,
                "acknowledged_records",
                "Sequences that the cloud has",
            ),
            failures: registered(uplink, "failures", "Requests that got nowhere"),
            dead_letters: registered(
                uplink,
                "dead_letters",
                "Records that the cloud rejected for good",
            ),
        }
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
