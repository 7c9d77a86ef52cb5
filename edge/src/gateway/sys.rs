//! `$SYS/broker/...`: what the gateway says of itself to MQTT clients, under the names that Mosquitto uses.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::mqtt::packet::TopicName;
use robustmq_common::mqtt::server::{Millis, Server};
use tokio::time::Instant;

use super::listener::ListenerCounters;

/// Says it now and then.
pub(super) struct SysTopics {
    interval: Duration,
    /// Absent: never, or not any more.
    next_at: Option<Instant>,
    started: Instant,
    traffic: Arc<ListenerCounters>,
}

impl SysTopics {
    /// Every `interval_s` seconds from now on; 0 for never.
    pub(super) fn new(interval_s: u32, traffic: Arc<ListenerCounters>) -> Self {
        let started = Instant::now();
        let interval = Duration::from_secs(interval_s.into());
        let next_at = (interval_s > 0).then_some(started);
        Self { interval, next_at, started, traffic }
    }

    /// When there is something to say.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Says no more.
    pub(super) fn stop(&mut self) {
        self.next_at = None;
    }

    /// Says it, if it is time.
    pub(super) fn publish_if_due(&mut self, server: &mut Server, now: Millis) {
        if self.next_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.next_at = Some(Instant::now() + self.interval);
        let version = concat!("robustmq-edge version ", env!("CARGO_PKG_VERSION"));
        say(server, now, "version", version.to_owned());
        say(server, now, "uptime", format!("{} seconds", self.started.elapsed().as_secs()));
        for (name, figure) in self.figures(server) {
            say(server, now, name, figure.to_string());
        }
    }

    fn figures(&self, server: &Server) -> [(&'static str, u64); 12] {
        let (counters, gauges) = (server.counters(), server.gauges());
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let dropped = counters.dropped_queue_full_qos0 + counters.dropped_queue_full_qos12;
        let away = gauges.sessions.saturating_sub(gauges.connections);
        [
            ("clients/connected", count(gauges.connections)),
            ("clients/disconnected", count(away)),
            ("clients/total", count(gauges.sessions)),
            ("messages/received", counters.packets_received),
            ("messages/sent", counters.packets_sent),
            ("publish/messages/received", counters.publishes_received.iter().sum()),
            ("publish/messages/sent", counters.publishes_sent.iter().sum()),
            ("publish/messages/dropped", dropped),
            ("bytes/received", self.traffic.received_bytes.load(Ordering::Relaxed)),
            ("bytes/sent", self.traffic.sent_bytes.load(Ordering::Relaxed)),
            ("subscriptions/count", count(gauges.subscriptions)),
            ("retained messages/count", count(gauges.retained)),
        ]
    }
}

fn say(server: &mut Server, now: Millis, name: &str, figure: String) {
    let topic = TopicName::new(&format!("$SYS/broker/{name}")).expect("no wildcard and not long");
    server.publish_sys(now, topic, Bytes::from(figure));
}
