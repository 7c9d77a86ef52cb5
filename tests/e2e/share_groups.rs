//! Share groups (KIP-932) with the clients that have them: librdkafka's and Java's share consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::programs::{self, Client, Job, Worker};
use robustmq_tests::{TestCloud, eventually};
use tokio::process::Command;

/// Until three clients run, of which one compiles itself first, beside the other tests.
const START: Duration = Duration::from_secs(100);
const WAIT: Duration = Duration::from_secs(60);

/// `robustmq-cloud` as an operator types it.
async fn operate(kafka: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(robustmq_tests::process::binary("robustmq-cloud")?);
    command.args(arguments).args(["--bootstrap", kafka]);
    programs::output(command).await
}

async fn describe(kafka: &str, group: &str) -> anyhow::Result<serde_json::Value> {
    let printed = operate(kafka, &["group", "describe", group, "--json"]).await?;
    Ok(serde_json::from_str(&printed)?)
}

async fn produce(kafka: &str, first: u64, count: u64) -> anyhow::Result<()> {
    let first = first.to_string();
    let job = Job { kafka, topic: "jobs", count, more: &["--first", &first] };
    programs::produce(Client::ConfluentKafka, &job).await
}

/// How often each record was accepted or rejected. Of a hundred, members of a share group reject one.
fn settled(workers: &[Worker]) -> BTreeMap<u64, (u64, u64)> {
    let mut times: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for worker in workers {
        worker.took().iter().for_each(|number| times.entry(*number).or_default().0 += 1);
        worker.rejected().iter().for_each(|number| times.entry(*number).or_default().1 += 1);
    }
    times
}

/// Produces until each worker has something, and then up to `records`.
async fn work(kafka: &str, workers: &[Worker], records: u64) -> anyhow::Result<()> {
    let mut made = 0;
    let all_at_work = async || {
        if workers.iter().all(|worker| !worker.took().is_empty()) {
            return Ok(Some(()));
        }
        ensure!(made < records, "{made} records, and a worker got none");
        produce(kafka, made, 200).await?;
        made += 200;
        Ok(None)
    };
    eventually("every client gets something", START, all_at_work).await?;
    produce(kafka, made, records - made).await
}

async fn all_settled(workers: &[Worker], records: u64) -> anyhow::Result<()> {
    let all = async || Ok((settled(workers).len() as u64 == records).then_some(()));
    eventually("every record is settled by somebody", WAIT, all).await
}

/// Nothing is left to do for the group.
async fn is_done(kafka: &str, group: &str, records: u64) -> anyhow::Result<()> {
    let done = async || {
        let described = describe(kafka, group).await?;
        let committed = described["offsets"][0]["committed"].as_u64();
        Ok((committed == Some(records)).then_some(()))
    };
    eventually("the group is done with every record", WAIT, done).await
}

#[tokio::test]
async fn share_consumers_settle_each_record_once() -> anyhow::Result<()> {
    const RECORDS: u64 = 10_000;
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "jobs", "--partitions", "1"]).await?;
    let start = |client| Worker::share(client, &kafka, "jobs", "sharers");
    let workers = vec![start(Client::ConfluentKafka)?, start(Client::Java)?];
    // A share group begins with the next record, once its first member fetches.
    let has_begun = async || {
        let described = describe(&kafka, "sharers").await;
        let offsets = described.map(|described| described["offsets"][0].is_object());
        Ok(offsets.unwrap_or_default().then_some(()))
    };
    eventually("the group begins", START, has_begun).await?;
    work(&kafka, &workers, RECORDS).await?;
    all_settled(&workers, RECORDS).await?;
    for (number, times) in settled(&workers) {
        let expected = if number % 100 == 7 { (0, 1) } else { (1, 0) };
        ensure!(times == expected, "{number} was accepted and rejected {times:?} times");
    }
    is_done(&kafka, "sharers", RECORDS).await?;
    for worker in workers {
        worker.leave().await?;
    }
    Ok(())
}

#[tokio::test]
async fn share_consumers_and_consumers_work_in_one_group_and_one_is_killed() -> anyhow::Result<()> {
    const RECORDS: u64 = 10_000;
    const GROUP: &str = "$shared/both";
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "jobs", "--partitions", "1"]).await?;
    let mut workers = vec![
        Worker::share(Client::ConfluentKafka, &kafka, "jobs", GROUP)?,
        Worker::share(Client::Java, &kafka, "jobs", GROUP)?,
        Worker::start(Client::ConfluentKafka, &kafka, "jobs", GROUP)?,
    ];
    work(&kafka, &workers, RECORDS).await?;
    let killed = workers.swap_remove(0);
    let (took, rejected) = killed.kill_sharing().await?;
    let had: BTreeSet<u64> = took.into_iter().chain(rejected).collect();
    let all = async || {
        let mut all = had.clone();
        all.extend(settled(&workers).keys());
        Ok((all.len() as u64 == RECORDS).then_some(()))
    };
    eventually("every record is settled by somebody", WAIT, all).await?;
    let times = settled(&workers);
    let twice = times.iter().find(|(_, (accepted, rejected))| accepted + rejected > 1);
    ensure!(twice.is_none(), "settled twice: {twice:?}");
    is_done(&kafka, GROUP, RECORDS).await?;
    let members = describe(&kafka, GROUP).await?["members"].as_array().map(Vec::len);
    ensure!(members.context("a list of members")? >= 2);
    for worker in workers {
        worker.leave().await?;
    }
    Ok(())
}
