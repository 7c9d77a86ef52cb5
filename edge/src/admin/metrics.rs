//! All metrics of the edge, read when asked for.

use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::View;
use crate::queue::LaneStatus;

/// Reads every figure of the gateway when it is scraped.
#[derive(Clone)]
pub(super) struct EdgeCollector {
    view: View,
}

impl fmt::Debug for EdgeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeCollector").finish_non_exhaustive()
    }
}

impl EdgeCollector {
    pub(super) fn new(view: View) -> Self {
        Self { view }
    }
}

/// Names have the prefix and, for counters, `_total` added.
struct Writer<'a, 'e>(&'a mut DescriptorEncoder<'e>);

type Label = [(&'static str, String); 1];

impl Writer<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value))
    }

    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let name = format!("robustmq_edge_{name}");
        metric.encode(self.0.encode_descriptor(&name, help, None, metric.metric_type())?)
    }

    fn counters(&mut self, name: &str, help: &str, values: &[(Label, u64)]) -> fmt::Result {
        self.family(name, help, values, |value| ConstCounter::new(*value))
    }

    fn gauges(&mut self, name: &str, help: &str, values: &[(Label, f64)]) -> fmt::Result {
        self.family(name, help, values, |value| ConstGauge::new(*value))
    }

    fn family<T, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        values: &[(Label, T)],
        metric: impl Fn(&T) -> M,
    ) -> fmt::Result {
        let Some((_, first)) = values.first() else { return Ok(()) };
        let name = format!("robustmq_edge_{name}");
        let kind = metric(first).metric_type();
        let mut encoder = self.0.encode_descriptor(&name, help, None, kind)?;
        for (label, value) in values {
            metric(value).encode(encoder.encode_family(label)?)?;
        }
        Ok(())
    }
}

impl Collector for EdgeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(&mut encoder);
        self.mqtt(&mut out)?;
        self.trouble(&mut out)?;
        self.queue(&mut out)?;
        self.uplink(&mut out)
    }
}

impl EdgeCollector {
    fn mqtt(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let figures = *self.view.figures.borrow();
        let (counters, gauges) = (figures.counters, figures.gauges);
        let by_qos = |counts: [u64; 3]| -> Vec<(Label, u64)> {
            (0..)
                .zip(counts)
                .map(|(qos, count): (u8, u64)| ([("qos", qos.to_string())], count))
                .collect()
        };
        out.gauge("mqtt_connections", "MQTT clients connected", count(gauges.connections))?;
        out.gauge("mqtt_sessions", "MQTT sessions, connected or not", count(gauges.sessions))?;
        out.gauge(
            "mqtt_subscriptions",
            "Subscriptions of all sessions",
            count(gauges.subscriptions),
        )?;
        out.gauge("mqtt_retained_messages", "Retained messages", count(gauges.retained))?;
        out.gauge(
            "mqtt_pending_stores",
            "Publishes that wait for the disk",
            count(gauges.pending_stores),
        )?;
        out.counter("mqtt_connections_opened", "Connections opened", counters.connections_opened)?;
        out.counter("mqtt_packets_received", "Packets received", counters.packets_received)?;
        out.counter("mqtt_packets_sent", "Packets sent", counters.packets_sent)?;
        let listener = &self.view.listener;
        let received_bytes = listener.received_bytes.load(Ordering::Relaxed);
        out.counter("mqtt_received_bytes", "Bytes of MQTT received", received_bytes)?;
        let sent_bytes = listener.sent_bytes.load(Ordering::Relaxed);
        out.counter("mqtt_sent_bytes", "Bytes of MQTT sent", sent_bytes)?;
        let received = by_qos(counters.publishes_received);
        out.counters(
            "mqtt_publishes_received",
            "Publishes received, without duplicates",
            &received,
        )?;
        let sent = by_qos(counters.publishes_sent);
        out.counters("mqtt_publishes_sent", "Publishes sent, without resends", &sent)?;
        out.counter("mqtt_wills_published", "Wills published", counters.wills_published)
    }

    fn trouble(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let counters = self.view.figures.borrow().counters;
        let listener = &self.view.listener;
        let of =
            |reason: &str, count: u64| -> (Label, u64) { ([("reason", reason.to_owned())], count) };
        let closed = [
            of("malformed_packet", counters.malformed_packets),
            of("protocol_error", counters.protocol_errors),
            of("keep_alive_timeout", counters.keep_alive_timeouts),
            of("taken_over", counters.takeovers),
            of("connect_refused", counters.connects_refused),
            of("over_limit", listener.over_limit.load(Ordering::Relaxed)),
            of("tls_handshake", listener.failed_handshakes.load(Ordering::Relaxed)),
        ];
        out.counters("mqtt_connections_closed", "Connections that the gateway closed", &closed)?;
        let refused = [
            of("queue", counters.store_refused),
            of("not_authorized", counters.publish_not_authorized),
        ];
        out.counters("mqtt_publishes_refused", "Publishes refused", &refused)?;
        let dropped = [
            of("session_queue_full_qos0", counters.dropped_queue_full_qos0),
            of("session_queue_full_qos12", counters.dropped_queue_full_qos12),
            of("expired", counters.dropped_expired),
            of("too_large_for_client", counters.dropped_too_large),
            of("too_many_retained", counters.dropped_retained),
        ];
        out.counters(
            "mqtt_messages_dropped",
            "Messages not delivered to a local client",
            &dropped,
        )?;
        out.counter(
            "mqtt_duplicates_received",
            "Publishes received again",
            counters.duplicates_received,
        )?;
        out.counter("mqtt_sessions_expired", "Sessions that expired", counters.sessions_expired)?;
        let failing = self.view.state.borrow().failing.is_some();
        out.gauge("state_failing", "1 while sessions cannot be saved", f64::from(u8::from(failing)))
    }

    fn queue(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let lanes = self.view.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let gauges = |value: &dyn Fn(&LaneStatus) -> f64| -> Vec<(Label, f64)> {
            lanes.iter().map(|lane| ([("lane", lane.lane.to_string())], value(lane))).collect()
        };
        let counters = |value: &dyn Fn(&LaneStatus) -> u64| -> Vec<(Label, u64)> {
            lanes.iter().map(|lane| ([("lane", lane.lane.to_string())], value(lane))).collect()
        };
        let depth = gauges(&|lane| wide(lane.depth_records));
        out.gauges(
            "queue_records",
            "Records in the queue that the cloud does not have yet",
            &depth,
        )?;
        let bytes = gauges(&|lane| wide(lane.disk_bytes));
        out.gauges("queue_bytes", "What the queue takes on disk", &bytes)?;
        let oldest = gauges(&|lane| lane.oldest.unwrap_or_default().as_secs_f64());
        out.gauges("queue_oldest_seconds", "Age of the oldest record not yet confirmed", &oldest)?;
        let appended = counters(&|lane| lane.appended_records);
        out.counters("queue_appended_records", "Records appended", &appended)?;
        let syncs = counters(&|lane| lane.syncs);
        out.counters("queue_syncs", "Syncs to disk", &syncs)?;
        let dropped = counters(&|lane| lane.drops.dropped_records);
        out.counters("queue_dropped_records", "Dropped as the queue was full", &dropped)?;
        let expired = counters(&|lane| lane.drops.expired_records);
        out.counters("queue_expired_records", "Not sent as their time had passed", &expired)?;
        let bad = counters(&|lane| lane.drops.quarantined_records);
        out.counters("queue_quarantined_records", "Unreadable records", &bad)?;
        let failed = self.view.queue.poisoned().is_some();
        out.gauge(
            "queue_failed",
            "1 while the queue refuses everything",
            f64::from(u8::from(failed)),
        )
    }

    fn uplink(&self, out: &mut Writer<'_, '_>) -> fmt::Result {
        let Some(report) = self.view.uplink.as_ref().map(|report| report()) else { return Ok(()) };
        let connected = f64::from(u8::from(report.connected));
        out.gauge("uplink_connected", "1 while the cloud answers", connected)?;
        out.gauge(
            "uplink_dead_letters_kept",
            "Records in the dead-letter files, of earlier runs too",
            wide(report.dead_letters.records),
        )
    }
}

fn count(value: usize) -> f64 {
    wide(u64::try_from(value).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is beyond every figure")]
fn wide(value: u64) -> f64 {
    value as f64
}
