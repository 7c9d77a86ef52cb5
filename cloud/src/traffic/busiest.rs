//! The busiest topics, as `/metrics` shows them.
//!
//! Counters are read at each scrape. Which topics are the busiest, what they hold and how far groups are behind is looked up now and
//! then, and only while somebody scrapes.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use super::report::{self, Lags, PartitionReport};
use super::{Totals, Traffic};
use crate::group::coordinator::Coordinator;
use crate::log::Log;
use crate::topics::{Catalogue, Topic};

/// Keeps the figures of the busiest topics up to date. Cheap to clone; a [`Collector`].
#[derive(Clone)]
pub struct Busiest {
    shared: Arc<Shared>,
}

struct Shared {
    traffic: Arc<Traffic>,
    topics: Arc<Catalogue>,
    log: Arc<Log>,
    groups: Coordinator,
    most: usize,
    figures: Mutex<Arc<Vec<Figures>>>,
    /// Somebody has scraped since the figures were looked up.
    asked: AtomicBool,
}

/// Of one topic.
struct Figures {
    topic: Arc<Topic>,
    held_bytes: u64,
    held_records: u64,
    lags: Lags,
}

impl fmt::Debug for Busiest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Busiest").field("most", &self.shared.most).finish_non_exhaustive()
    }
}

impl Busiest {
    /// The `most` busiest topics.
    #[must_use]
    pub fn new(
        traffic: Arc<Traffic>,
        topics: Arc<Catalogue>,
        log: Arc<Log>,
        groups: Coordinator,
        most: usize,
    ) -> Self {
        let (figures, asked) = (Mutex::default(), AtomicBool::new(true));
        Self { shared: Arc::new(Shared { traffic, topics, log, groups, most, figures, asked }) }
    }

    /// Moves rates on, and looks figures up, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let shared = &*self.shared;
        let mut tick = tokio::time::interval(limits::TRAFFIC_INTERVAL);
        let mut last = Instant::now();
        let mut looked_up: Option<Instant> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            shared.traffic.tick(now.saturating_duration_since(last));
            last = now;
            // Before there were any topics there was nothing to look up.
            let is_due = looked_up.is_none_or(|then| now - then >= limits::TOPIC_FIGURES_INTERVAL)
                || (shared.figures().is_empty() && shared.traffic.tracked() > 0);
            if is_due && shared.most > 0 && shared.asked.swap(false, Ordering::Relaxed) {
                looked_up = Some(now);
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.look_up() => {}
                }
            }
        }
    }

    /// Looks up which topics are the busiest, and their figures.
    pub async fn look_up(&self) {
        let Shared { traffic, topics, log, groups, most, figures, .. } = &*self.shared;
        let mut busiest = Vec::new();
        for id in traffic.busiest(*most) {
            // Deleted meanwhile, or not readable now: it is left out.
            let Ok(Some(topic)) = topics.get_by_id(id).await else { continue };
            let Ok(partitions) = report::partitions(log, &topic).await else { continue };
            busiest.push((topic, partitions));
        }
        let lags = report::lags(groups, &busiest, limits::REPORTED_GROUPS_PER_TOPIC).await;
        let mut lags = lags.unwrap_or_else(|error| {
            tracing::warn!(%error, "the lag of groups is not known");
            Default::default()
        });
        let figures_of = |(topic, partitions): (Arc<Topic>, Vec<PartitionReport>)| Figures {
            held_bytes: partitions.iter().map(|partition| partition.bytes).sum(),
            held_records: partitions.iter().map(PartitionReport::records).sum(),
            lags: lags.remove(&topic.id).unwrap_or_default(),
            topic,
        };
        let found: Vec<Figures> = busiest.into_iter().map(figures_of).collect();
        *figures.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
    }
}

/// A counter of [`Totals`]: its name, its description, and which it is.
type TotalsMetric = (&'static str, &'static str, fn(&Totals) -> u64);

const COUNTERS: [TotalsMetric; 4] = [
    ("robustmq_cloud_topic_produced_records", "Records taken from producers and edges", |t| {
        t.produced_records
    }),
    (
        "robustmq_cloud_topic_produced_bytes",
        "Bytes of batches taken from producers and edges",
        |t| t.produced_bytes,
    ),
    ("robustmq_cloud_topic_fetched_records", "Records given to consumers", |t| t.fetched_records),
    ("robustmq_cloud_topic_fetched_bytes", "Bytes of batches given to consumers", |t| {
        t.fetched_bytes
    }),
];

/// A gauge of [`Figures`], where it is known.
type FiguresMetric = (&'static str, &'static str, fn(&Figures) -> Option<u64>);

const GAUGES: [FiguresMetric; 3] = [
    ("robustmq_cloud_topic_held_bytes", "Bytes of stored batches", |f| Some(f.held_bytes)),
    ("robustmq_cloud_topic_held_records", "Offsets from log start to high watermark", |f| {
        Some(f.held_records)
    }),
    ("robustmq_cloud_topic_backlog_records", "Records that the slowest group has not read", |f| {
        f.lags.backlog()
    }),
];

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Shared {
    fn figures(&self) -> Arc<Vec<Figures>> {
        Arc::clone(&self.figures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is in memory of all the topics that there are.
    fn encode_memory(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauges = [
            (
                "robustmq_cloud_topics_active",
                "Topics whose traffic is counted",
                self.traffic.tracked(),
            ),
            ("robustmq_cloud_partitions_loaded", "Partitions in memory", self.log.loaded()),
            (
                "robustmq_cloud_partitions_memory_bytes",
                "What the state of partitions takes of memory, about",
                self.log.memory_bytes(),
            ),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge(value as u64).encode(metric)?;
        }
        let (records, bytes) = self.log.pushed_out();
        let counters = [
            (
                "robustmq_cloud_topics_uncounted_batches",
                "Batches of topics beyond those",
                self.traffic.untracked_batches(),
            ),
            (
                "robustmq_cloud_log_pushed_out_records",
                "Records of memory topics that went before retention asked for it, for want of room",
                records,
            ),
            ("robustmq_cloud_log_pushed_out_bytes", "Bytes of their batches", bytes),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

impl Collector for Busiest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shared = &*self.shared;
        shared.asked.store(true, Ordering::Relaxed);
        let figures = shared.figures();
        shared.encode_memory(&mut encoder)?;
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for one in figures.iter() {
                let Some((totals, _)) = shared.traffic.of(one.topic.id) else { continue };
                let labels = [("topic", one.topic.name.as_str())];
                ConstCounter::new(value(&totals)).encode(metric.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for one in figures.iter() {
                let Some(value) = value(one) else { continue };
                let labels = [("topic", one.topic.name.as_str())];
                gauge(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        let lag = ("robustmq_cloud_topic_group_lag_records", "Records that a group has not read");
        let mut metric = encoder.encode_descriptor(lag.0, lag.1, None, MetricType::Gauge)?;
        for one in figures.iter() {
            for group in &one.lags.groups {
                let labels = [("topic", one.topic.name.as_str()), ("group", group.group.as_str())];
                gauge(group.lag).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
