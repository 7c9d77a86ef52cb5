//! Accelerators that train together, through the broker and without it.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;

use crate::bench::dataset::accelerator::{self, Plan, Use};
use crate::bench::dataset::direct::Direct;
use crate::bench::dataset::reader::Reader;
use crate::bench::dataset::stage::{PREFIX, Stage, Topic};
use crate::dataset::account::{Account, Catalogue};

/// Through the broker: each accelerator has a partition of its own. The topic is called `resnet`.
///
/// # Errors
/// When a sample is missing, doubled or another.
pub async fn train(
    stage: &Stage,
    data: &Arc<Catalogue>,
    accelerators: u16,
    plan: &Plan,
) -> anyhow::Result<Vec<Vec<Use>>> {
    let (partitions, plan) = (i32::from(accelerators), *plan);
    let topic = Topic::over("resnet", plan.epochs as u64, "shards", partitions);
    stage.create(&topic).await?;
    let work = (0..partitions).map(|partition| {
        let (kafka, name, catalogue) = (stage.kafka.clone(), topic.name.clone(), Arc::clone(data));
        move || {
            let mut reader = Reader::start(&kafka, &name, [partition], &catalogue)?;
            let uses = accelerator::run(&plan, || reader.next_record().map(drop))?;
            Ok((uses, reader.account))
        }
    });
    let uses = in_parallel(work, data, plan.epochs as u64).await?;
    stage.check_end(data.dataset(), &topic).await?;
    Ok(uses)
}

/// Without the broker: each accelerator has its share of the shards.
///
/// # Errors
/// When a sample is missing, doubled or another.
pub async fn train_directly(
    stage: &Stage,
    data: &Arc<Catalogue>,
    accelerators: u16,
    plan: &Plan,
) -> anyhow::Result<Vec<Vec<Use>>> {
    let (accelerators, plan) = (usize::from(accelerators), *plan);
    let epochs = plan.epochs as u64;
    let files = data.dataset().files.len();
    let work = (0..accelerators).map(|number| {
        let own: Vec<usize> = (number..files).step_by(accelerators).collect();
        let (endpoint, catalogue, runtime) =
            (stage.s3.endpoint(), Arc::clone(data), Handle::current());
        move || {
            let seed = number as u64;
            let mut direct =
                Direct::start(&endpoint, PREFIX, &own, epochs, seed, &catalogue, runtime);
            let uses = accelerator::run(&plan, || direct.next_sample())?;
            Ok((uses, direct.account))
        }
    });
    in_parallel(work, data, plan.epochs as u64).await
}

/// Each piece of work on a thread of its own; all of them together must have seen each sample once in each epoch.
async fn in_parallel<W>(
    work: impl Iterator<Item = W>,
    data: &Catalogue,
    epochs: u64,
) -> anyhow::Result<Vec<Vec<Use>>>
where
    W: FnOnce() -> anyhow::Result<(Vec<Use>, Account)> + Send + 'static,
{
    let threads: Vec<_> = work.map(tokio::task::spawn_blocking).collect();
    let (mut all, mut account) = (Vec::new(), Account::default());
    for thread in threads {
        let (uses, own) = thread.await.context("an accelerator panicked")??;
        account.add(data, &own)?;
        all.push(uses);
    }
    account.check_complete(epochs)?;
    Ok(all)
}
