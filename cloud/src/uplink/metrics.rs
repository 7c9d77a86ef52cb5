//! What ingest counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use robustmq_common::sync::{OpenReason, Refusal, RejectReason, SkipReason};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

type ByReason = Family<Reason, Counter>;

/// Counters of the uplink's cloud side. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct UplinkMetrics {
    batches: Counter,
    records: Counter,
    received_bytes: Counter,
    repeated: Counter,
    deduplicated: Counter,
    skipped: ByReason,
    rejected: ByReason,
    refusals: ByReason,
    incarnations: ByReason,
    lost: Counter,
    went_back: Counter,
    overflowed: Counter,
}

impl UplinkMetrics {
    /// Counters that are registered under `uplink`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let uplink = registry.sub_registry_with_prefix("robustmq_cloud_uplink");
        uplink.register("batches", "Batches applied", metrics.batches.clone());
        uplink.register("records", "Records appended to the log", metrics.records.clone());
        uplink.register(
            "received_bytes",
            "Batch frames, as received",
            metrics.received_bytes.clone(),
        );
        uplink.register(
            "repeated_batches",
            "Batches that were there already",
            metrics.repeated.clone(),
        );
        uplink.register(
            "deduplicated_records",
            "Records that a half applied batch had left in the log",
            metrics.deduplicated.clone(),
        );
        uplink.register(
            "skipped_records",
            "Sequences that edges did not send",
            metrics.skipped.clone(),
        );
        uplink.register("rejected_records", "Records refused for good", metrics.rejected.clone());
        uplink.register("refusals", "Requests refused", metrics.refusals.clone());
        uplink.register("incarnations", "Incarnations opened", metrics.incarnations.clone());
        uplink.register(
            "lost_records",
            "Records that edges had trimmed and this cloud lost",
            metrics.lost.clone(),
        );
        uplink.register(
            "went_back",
            "Times that an edge knew a later incarnation than this cloud",
            metrics.went_back.clone(),
        );
        uplink.register(
            "overflowed_records",
            "Records that went to the overflow topic",
            metrics.overflowed.clone(),
        );
        metrics
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    pub(super) fn applied(&self, records: u64, deduplicated: u64) {
        self.batches.inc();
        self.records.inc_by(records);
        self.deduplicated.inc_by(deduplicated);
    }

    pub(super) fn repeated(&self) {
        self.repeated.inc();
    }

    pub(super) fn skipped(&self, reason: SkipReason, count: u64) {
        self.skipped.get_or_create(&Reason { reason: reason.as_str() }).inc_by(count);
    }

    pub(super) fn rejected(&self, reason: RejectReason) {
        self.rejected.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.refusals.get_or_create(&Reason { reason: refusal.as_str() }).inc();
    }

    pub(super) fn opened(&self, reason: OpenReason) {
        self.incarnations.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    pub(super) fn lost(&self, records: u64) {
        self.lost.inc_by(records);
    }

    pub(super) fn went_back(&self) {
        self.went_back.inc();
    }

    pub(super) fn overflowed(&self) {
        self.overflowed.inc();
    }

    /// Records that a half applied batch had left in the log, and that were not appended again.
    #[must_use]
    pub fn deduplicated_records(&self) -> u64 {
        self.deduplicated.get()
    }

    /// Sequences that edges did not send, for whatever reason.
    #[must_use]
    pub fn skipped_records(&self) -> u64 {
        SkipReason::ALL
            .map(|reason| self.skipped.get_or_create(&Reason { reason: reason.as_str() }).get())
            .iter()
            .sum()
    }

    /// Records that edges had trimmed and this cloud lost.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost.get()
    }
}
