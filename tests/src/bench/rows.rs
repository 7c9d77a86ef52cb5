//! The phases: each on a topic of its own, which is deleted afterwards, and each checked for what arrived.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::bench::broker::Broker;
use crate::bench::consume::{Goal, Reader};
use crate::bench::cost::Cost;
use crate::bench::histogram::{AtTheBroker, Histogram};
use crate::bench::kafka::{Kafka, Watermarks};
use crate::bench::latency::{self, Measured, Percentiles};
use crate::bench::options::Options;
use crate::bench::{disk, produce};

/// The key of a topic's storage mode.
pub const STORAGE_MODE: &str = "robustmq.storage.mode";
/// How long syncs are measured, before the records and again after them.
const PROBE: Duration = Duration::from_secs(2);

/// One broker, and topics of one configuration on it.
pub struct Phases<'a> {
    /// How much.
    pub options: &'a Options,
    /// Where.
    pub broker: &'a mut Broker,
    /// The topics' configuration.
    pub topic_config: Vec<(String, String)>,
}

/// Producing, and then consuming from the start.
pub struct Cold {
    /// Producing.
    pub produce: Cost,
    /// Consuming, if it was asked for.
    pub consume: Option<Cost>,
    /// Whether the broker was started again in between.
    pub restarted: bool,
}

/// Acknowledgements at a fixed rate.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// As the client saw it, from when each record was due.
    pub acknowledgement: Percentiles,
    /// How late records were given to the client: this machine's share, not the broker's.
    pub late: Percentiles,
    /// As the broker's histogram has it.
    pub broker: Option<AtTheBroker>,
    /// fdatasync of a small write to the same disk, just before and just after.
    pub sync: Percentiles,
    /// After the warm-up.
    pub cost: Cost,
}

impl Phases<'_> {
    /// Whether topics of this configuration lose records by design: a ring in memory.
    fn forgets(&self) -> bool {
        let memory = (STORAGE_MODE.to_owned(), "memory".to_owned());
        self.topic_config.contains(&memory)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When the broker refuses.
    async fn topic(&self, partitions: i32) -> anyhow::Result<String> {
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        match self.broker.kafka.create_topic(&name, partitions, &self.topic_config).await? {
            Ok(()) => Ok(name),
            Err(code) => {
                bail!("{} refuses topics with {:?}: {code}", self.broker.name, self.topic_config)
            }
        }
    }

    /// Whether the broker creates topics of this configuration at all; its reason if not.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn refusal(&self) -> anyhow::Result<Option<String>> {
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        let kafka = &self.broker.kafka;
        match kafka.create_topic(&name, 1, &self.topic_config).await? {
            Ok(()) => kafka.delete_topic(&name).await.map(|()| None),
            Err(code) => Ok(Some(code.to_string())),
        }
    }

    /// Produce throughput, and what consuming that from the start costs.
    ///
    /// # Errors
    /// When a record is missing.
    pub async fn cold(&mut self, partitions: i32, consume: bool) -> anyhow::Result<Cold> {
        let topic = self.topic(partitions).await?;
        let (kafka, process) = (self.broker.kafka.clone(), self.broker.process()?);
        let plan = self.options.produce_plan(&topic, partitions);
        let forgets = self.forgets();
        let (produce, found) = blocking(move || {
            let produce = produce::run(&kafka, process, &plan)?;
            let produced = produce.records + produce.uncounted_records;
            let found = kafka.check_delivered(&plan.topic, partitions, produced, forgets)?;
            Ok((produce, found))
        })
        .await?;
        let mut cold = Cold { produce, consume: None, restarted: false };
        if consume {
            cold.restarted = !forgets && self.broker.restart().await?;
            cold.consume = Some(self.consume(&topic, found).await?);
        }
        self.broker.kafka.delete_topic(&topic).await?;
        Ok(cold)
    }

    async fn consume(&self, topic: &str, found: Watermarks) -> anyhow::Result<Cost> {
        let (kafka, process) = (self.broker.kafka.clone(), self.broker.process()?);
        let topic = topic.to_owned();
        blocking(move || {
            let goal = Goal::all_of(&found);
            let cost = Reader::start(&kafka, process, &topic, &found, goal)?.read()?;
            let held = u64::try_from(found.ends() - found.starts())?;
            ensure!(cost.records == held, "{} of {held} records were consumed", cost.records);
            Ok(cost)
        })
        .await
    }

    /// A consumer beside the producer. The broker's processor time is that of both.
    ///
    /// # Errors
    /// When a record is missing.
    pub async fn tail(&mut self, partitions: i32) -> anyhow::Result<Cost> {
        let topic = self.topic(partitions).await?;
        let (kafka, process) = (self.broker.kafka.clone(), self.broker.process()?);
        let plan = self.options.produce_plan(&topic, partitions);
        let forgets = self.forgets();
        let cost = blocking(move || {
            let empty = kafka.watermarks(&plan.topic, partitions)?;
            let goal = Goal::unknown();
            let reader = Reader::start(&kafka, process, &plan.topic, &empty, goal.clone())?;
            let reading = std::thread::spawn(move || reader.read());
            let produced = produce_beside(&kafka, process, &plan, forgets);
            // A consumer whose producer failed has nothing to wait for.
            goal.set(produced.as_ref().map_or(0, |(_, found)| found.ends()));
            let read = reading.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))?;
            let (produced, _) = produced?;
            let cost = read?;
            ensure!(
                cost.records == produced || forgets,
                "{} of {produced} records were consumed beside the producer",
                cost.records
            );
            Ok(cost)
        })
        .await?;
        self.broker.kafka.delete_topic(&topic).await?;
        Ok(cost)
    }

    /// Acknowledgements at the fixed rate, between two looks at the disk.
    ///
    /// # Errors
    /// When a record is missing.
    pub async fn latency(&mut self) -> anyhow::Result<Latency> {
        let topic = self.topic(1).await?;
        let (kafka, process) = (self.broker.kafka.clone(), self.broker.process()?);
        let plan = self.options.latency_plan(&topic);
        let (dir, forgets) = (self.broker.dir.clone(), self.forgets());
        let probed = dir.clone();
        let mut syncs = blocking(move || disk::probe(&probed, PROBE)).await?;
        let warm_up = plan.warm_up;
        let producing = blocking(move || {
            let measured = latency::run(&kafka, process, &plan)?;
            let produced = measured.cost.records + measured.cost.uncounted_records;
            kafka.check_delivered(&plan.topic, 1, produced, forgets)?;
            Ok(measured)
        });
        let before = async {
            tokio::time::sleep(warm_up).await;
            self.histogram().await
        };
        let (produced, before) = tokio::join!(producing, before);
        let Measured { acknowledgement, late, cost } = produced?;
        let broker = match (self.histogram().await?, before?) {
            (Some(after), Some(before)) => after.since(&before),
            _ => None,
        };
        syncs.extend(blocking(move || disk::probe(&dir, PROBE)).await?);
        self.broker.kafka.delete_topic(&topic).await?;
        Ok(Latency { acknowledgement, late, broker, sync: Percentiles::of(syncs)?, cost })
    }

    async fn histogram(&self) -> anyhow::Result<Option<Histogram>> {
        let page = self.broker.metrics().await?;
        Ok(page.and_then(|page| Histogram::parse(&page, &self.options.broker_histogram)))
    }
}

fn produce_beside(
    kafka: &Kafka,
    process: Option<crate::bench::cost::Process>,
    plan: &produce::Plan,
    forgets: bool,
) -> anyhow::Result<(u64, Watermarks)> {
    let cost = produce::run(kafka, process, plan)?;
    let produced = cost.records + cost.uncounted_records;
    let found = kafka.check_delivered(&plan.topic, plan.partitions, produced, forgets)?;
    Ok((produced, found))
}

/// Clients block; they get a thread of their own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread of the benchmark panicked")?
}
