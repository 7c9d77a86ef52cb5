//! One consumer that reads all epochs of a topic, and what that took.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;

use crate::bench::cost::{Cost, Watch};
use crate::bench::dataset::reader::{Epoch, Reader};
use crate::bench::dataset::simulate::Trace;
use crate::bench::dataset::stage::{PREFIX, Stage, Topic};
use crate::bench::dataset::status::{Cache, Status};
use crate::dataset::account::Catalogue;
use crate::dataset::{Dataset, File};
use crate::s3::Request;

/// What came of reading all epochs of a topic.
pub struct Run {
    /// What the reader saw of each.
    pub epochs: Vec<Epoch>,
    /// From the second epoch's first record on, where the broker says it.
    pub later: Option<Cache>,
    /// Bytes that S3 gave in all.
    pub s3_bytes: u64,
    /// What S3 was asked.
    pub requests: Vec<Request>,
    /// The broker from the second epoch's first record on.
    pub cost: Cost,
}

impl Run {
    /// What S3 gave beyond the dataset itself, for each later epoch, in datasets.
    #[must_use]
    pub fn share_of_later_epochs(&self, data: &Dataset) -> f64 {
        let more = self.s3_bytes as f64 - data.bytes() as f64;
        more / data.bytes() as f64 / (self.epochs.len() - 1) as f64
    }

    /// What the reader had the broker read, in the units in which the broker fetched.
    #[must_use]
    pub fn trace(&self, data: &Dataset) -> Trace {
        let file = |found: &File| (format!("{PREFIX}{}", found.name), found.bytes.len() as u64);
        let files: Vec<(String, u64)> = data.files.iter().map(file).collect();
        let order: Vec<Vec<usize>> = self.epochs.iter().map(|epoch| epoch.files.clone()).collect();
        Trace::of(&files, &self.requests, &order)
    }
}

/// Clients block; they get a thread of their own.
///
/// # Errors
/// As `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread of the benchmark panicked")?
}

/// Creates a topic with one partition and has one consumer read all its epochs, at most at a rate in bytes a second.
///
/// # Errors
/// When a record is missing, doubled or another.
pub async fn read(
    stage: &Stage,
    data: &Arc<Catalogue>,
    topic: &Topic,
    rate: Option<f64>,
) -> anyhow::Result<Run> {
    stage.create(topic).await?;
    let records = data.dataset().samples.len() as u64 * topic.epochs;
    let (epochs, name, process) = (topic.epochs, topic.name.clone(), stage.process()?);
    let reader = Reader::start(&stage.kafka, &name, [0], data)?;
    let (admin, asked, runtime) = (stage.admin().to_owned(), name.clone(), Handle::current());
    let (read, before, watch) = blocking(move || {
        let (mut before, mut watch) = (None, None);
        let read = reader.read(records, epochs, rate, |begun| {
            if begun == 2 {
                before = runtime.block_on(Status::of(&admin, &asked))?;
                watch = Some(Watch::start(Some(process))?);
            }
            Ok(())
        })?;
        Ok((read, before, watch))
    })
    .await?;
    let ended = read.last().context("no epoch")?.ended;
    let later = read.iter().skip(1);
    let (records, bytes) = later
        .fold((0, 0), |(records, bytes), epoch| (records + epoch.records, bytes + epoch.bytes));
    let cost = watch.context("there was no second epoch")?.stop(ended, records, bytes)?;
    stage.check_end(data.dataset(), topic).await?;
    let after = stage.status(&name).await?;
    let later = after.zip(before).map(|(after, before)| after.cache.since(&before.cache));
    let (s3_bytes, requests) = (stage.s3.given_bytes(), stage.s3.requests());
    Ok(Run { epochs: read, later, s3_bytes, requests, cost })
}
