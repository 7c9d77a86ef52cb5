//! What groups that share records do, as `/metrics` shows them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use robustmq_common::limits;

use crate::group::shared::coordinator::SharedGroups;
use crate::group::shared::pools::GroupStanding;

/// A [`Collector`].
#[derive(Clone)]
pub struct Sharing {
    groups: SharedGroups,
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").finish_non_exhaustive()
    }
}

impl Sharing {
    /// Of these groups.
    #[must_use]
    pub fn new(groups: SharedGroups) -> Self {
        Self { groups }
    }
}

type Counter = (&'static str, &'static str, fn(&GroupStanding) -> u64);

const COUNTERS: [Counter; 4] = [
    (
        "robustmq_cloud_shared_group_delivered_records",
        "Records that a group's members were given for the first time",
        |group| group.ledger.delivered,
    ),
    (
        "robustmq_cloud_shared_group_redelivered_records",
        "Records that a group's members were given again",
        |group| group.ledger.redelivered,
    ),
    (
        "robustmq_cloud_shared_group_acknowledged_records",
        "Records that a group has acknowledged",
        |group| group.ledger.acknowledged,
    ),
    (
        "robustmq_cloud_shared_group_rejected_records",
        "Records that a group has given up or rejected",
        |group| group.ledger.rejected,
    ),
];

impl Collector for Sharing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let groups = self.groups.pools().busiest(limits::shared::SHOWN_GROUPS);
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (group, standing) in &groups {
                let labels = [("group", group.as_str())];
                let counter = ConstCounter::new(value(standing));
                counter.encode(metric.encode_family(&labels)?)?;
            }
        }
        let (name, help) = (
            "robustmq_cloud_shared_group_in_flight_records",
            "Records that a group's members hold and have not acknowledged",
        );
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (group, standing) in &groups {
            let labels = [("group", group.as_str())];
            let in_flight = i64::try_from(standing.in_flight).unwrap_or(i64::MAX);
            ConstGauge::new(in_flight).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
