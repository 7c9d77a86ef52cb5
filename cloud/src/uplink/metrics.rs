//! What ingest counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use robustmq_common::sync::{OpenReason, Refusal, RejectReason, SkipReason};
use robustmq_common::telemetry::registered;

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
    /// Counters that are registered under `robustmq_cloud_uplink`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let uplink = registry.sub_registry_with_prefix("robustmq_cloud_uplink");
        Self {
            batches: registered(uplink, "batches", "Batches applied"),
            records: registered(uplink, "records", "Records appended to the log"),
            received_bytes: registered(uplink, "received_bytes", "Batch frames, as received"),
            repeated: registered(uplink, "repeated_batches", "Batches that were there already"),
            deduplicated: registered(
                uplink,
                "deduplicated_records",
                "Records that a half applied batch had left in the log",
            ),
            skipped: registered(uplink, "skipped_records", "Sequences that edges did not send"),
            rejected: registered(uplink, "rejected_records", "Records refused for good"),
            refusals: registered(uplink, "refusals", "Requests refused"),
            incarnations: registered(uplink, "incarnations", "Incarnations opened"),
            lost: registered(
                uplink,
                "lost_records",
                "Records that edges had trimmed and this cloud lost",
            ),
            went_back: registered(
                uplink,
                "went_back",
                "Times that an edge knew a later incarnation than this cloud",
            ),
            overflowed: registered(
                uplink,
                "overflowed_records",
                "Records that went to the overflow topic",
            ),
        }
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
