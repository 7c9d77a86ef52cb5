//! Members of a `$shared/` group that read dataset topics together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::bench::dataset::reader::place_of;
use crate::bench::dataset::{time_of, wait_until};
use crate::bench::kafka::{ANSWER, Kafka};
use crate::dataset::account::{Account, Catalogue};

/// How long a member waits for a record before it looks whether all is done.
const PATIENCE: Duration = Duration::from_millis(20);

/// What members do.
#[derive(Clone)]
pub struct Job {
    /// `group.id`.
    pub group: String,
    /// Topics over the same dataset, with one epoch each.
    pub topics: Vec<String>,
    /// Members.
    pub members: usize,
    /// What all of them together use, in bytes a second.
    pub rate: f64,
}

/// What has come so far.
struct Progress {
    accounts: BTreeMap<String, Account>,
    left: u64,
    last: Instant,
}

struct Common<'a> {
    catalogue: &'a Arc<Catalogue>,
    job: &'a Job,
    progress: Mutex<Progress>,
    is_over: AtomicBool,
}

/// Has members read all of each topic, each sample once. How long it took. Blocks.
///
/// # Errors
/// When a record is missing, doubled or another.
pub fn work(kafka: &Kafka, job: &Job, catalogue: &Arc<Catalogue>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let all = catalogue.dataset().samples.len() as u64 * job.topics.len() as u64;
    let progress = Progress { accounts: BTreeMap::new(), left: all, last: began };
    let (progress, is_over) = (Mutex::new(progress), AtomicBool::new(false));
    let common = Common { catalogue, job, progress, is_over };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let member = || {
            let outcome = be_a_member(kafka, &common);
            // Whether it has failed or all is read: the others need not go on.
            common.is_over.store(true, Ordering::Release);
            outcome
        };
        let threads: Vec<_> = (0..job.members).map(|_| scope.spawn(member)).collect();
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        for outcome in outcomes {
            outcome.map_err(|_| anyhow::anyhow!("a member panicked"))??;
        }
        Ok(())
    })?;
    let progress = common.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    for topic in &job.topics {
        let account = progress.accounts.get(topic).with_context(|| format!("{topic}: nothing"))?;
        account.check_complete(1).with_context(|| topic.clone())?;
    }
    Ok(progress.last - began)
}

fn be_a_member(kafka: &Kafka, common: &Common<'_>) -> anyhow::Result<()> {
    let mut config = kafka.consumer_config();
    config.set("group.id", &common.job.group);
    config.set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "true");
    let consumer: BaseConsumer = config.create()?;
    let topics: Vec<&str> = common.job.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics)?;
    let rate = common.job.rate / common.job.members.max(1) as f64;
    while !common.is_over.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(PATIENCE) else {
            let progress = common.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let (silent, left) = (progress.last.elapsed(), progress.left);
            ensure!(silent < ANSWER, "no record for {silent:?}, and {left} have not come");
            continue;
        };
        let began = Instant::now();
        let message = message.context("consume")?;
        let place = place_of(common.catalogue, &message)?;
        let is_last = {
            let mut progress = common.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let account = progress.accounts.entry(message.topic().to_owned()).or_default();
            account.enter(common.catalogue, place).with_context(|| message.topic().to_owned())?;
            progress.left = progress.left.saturating_sub(1);
            progress.last = Instant::now();
            progress.left == 0
        };
        if is_last {
            return Ok(());
        }
        wait_until(began + time_of(message.payload_len(), rate));
    }
    Ok(())
}
