//! Metrics: making one and putting it into the registry is one step.

use prometheus_client::registry::{Metric, Registry};

/// A metric that is registered under `name`; a counter's sample has `_total` behind it.
#[must_use]
pub fn registered<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
