//! `$shared/` groups with stock Kafka clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::programs::{self, Client, Job, Worker};
use robustmq_tests::{TestCloud, eventually};
use tokio::process::Command;

/// Until seven clients run, of which one compiles itself first, beside the other tests.
const START: Duration = Duration::from_secs(100);
/// For everything that seven clients do on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

/// `robustmq-cloud` as an operator types it.
async fn operate(kafka: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(robustmq_tests::process::binary("robustmq-cloud")?);
    command.args(arguments).args(["--bootstrap", kafka]);
    programs::output(command).await
}

/// Three members on one partition, one of which commits and leaves in the middle.
async fn three_on_one_partition(client: Client, more: &[&str]) -> anyhow::Result<()> {
    const RECORDS: u64 = 3000;
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "work", "--partitions", "1"]).await?;
    let more = [&["--group", "$shared/workers"], more].concat();
    let job = Job { kafka: &kafka, topic: "work", count: RECORDS, more: &more };
    let plain = Job { kafka: &kafka, topic: "work", count: RECORDS, more: &[] };
    let report = programs::group(client, &job, programs::produce(client, &plain)).await?;
    ensure!(report.distinct == RECORDS && report.repeated == 0 && report.wrong == 0, "{report:?}");
    ensure!(report.members.iter().all(|taken| *taken > 0), "a member got nothing: {report:?}");
    ensure!(report.committed == Some(RECORDS) && report.end == Some(RECORDS), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn confluent_kafka_shares_one_partition() -> anyhow::Result<()> {
    three_on_one_partition(Client::ConfluentKafka, &[]).await
}

#[tokio::test]
async fn kafka_python_shares_one_partition() -> anyhow::Result<()> {
    three_on_one_partition(Client::KafkaPython, &[]).await
}

#[tokio::test]
async fn aiokafka_shares_one_partition() -> anyhow::Result<()> {
    three_on_one_partition(Client::Aiokafka, &[]).await
}

#[tokio::test]
async fn java_shares_one_partition() -> anyhow::Result<()> {
    three_on_one_partition(Client::Java, &[]).await
}

#[tokio::test]
async fn java_with_the_cooperative_assignor_shares_one_partition() -> anyhow::Result<()> {
    let cooperative = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
    three_on_one_partition(Client::Java, &["--assignor", cooperative]).await
}

#[tokio::test]
async fn confluent_kafka_with_the_consumer_protocol_shares_one_partition() -> anyhow::Result<()> {
    three_on_one_partition(Client::ConfluentKafka, &["--protocol", "consumer"]).await
}

#[tokio::test]
async fn java_with_the_consumer_protocol_shares_one_partition() -> anyhow::Result<()> {
    three_on_one_partition(Client::Java, &["--protocol", "consumer"]).await
}

#[tokio::test]
async fn kafkajs_shares_one_partition() -> anyhow::Result<()> {
    if Client::Kafkajs.is_left_out() {
        eprintln!("kafkajs is not installed: nothing was tested");
        return Ok(());
    }
    three_on_one_partition(Client::Kafkajs, &[]).await
}

/// What workers of all kinds were given, of records 0 to `records`.
struct Crew {
    workers: Vec<Worker>,
    kafka: String,
    records: u64,
}

impl Crew {
    const GROUP: &str = "$shared/crew";

    fn start(kafka: &str, records: u64) -> anyhow::Result<Self> {
        let clients = Client::workers().chain([Client::ConfluentKafka]);
        let start = |client| Worker::start(client, kafka, "jobs", Self::GROUP);
        let workers = clients.map(start).collect::<anyhow::Result<_>>()?;
        Ok(Self { workers, kafka: kafka.to_owned(), records })
    }

    fn seen(&self) -> BTreeSet<u64> {
        self.workers.iter().flat_map(Worker::took).collect()
    }

    /// Produces until each worker has something: until then there is nothing to disturb. Returns how many records there are then.
    async fn all_at_work(&self) -> anyhow::Result<u64> {
        let mut made = 0;
        let check = async || {
            if self.workers.iter().all(|worker| !worker.took().is_empty()) {
                return Ok(Some(()));
            }
            ensure!(made < self.records, "{made} records, and a worker got none");
            produce(&self.kafka, made, 200).await?;
            made += 200;
            Ok(None)
        };
        let started = eventually("every kind of client gets something", START, check).await;
        let took: Vec<usize> = self.workers.iter().map(|worker| worker.took().len()).collect();
        started.with_context(|| format!("of {made} records the workers got {took:?}"))?;
        Ok(made)
    }

    /// Waits until everything is acknowledged, then has all leave. Returns how often each record was given to any of them; those
    /// that nobody was given have to be among what the `gone` had.
    async fn finish(self, gone: &[u64]) -> anyhow::Result<BTreeMap<u64, u64>> {
        let end = (self.records, 0);
        let check = async || Ok((described(&self.kafka, Self::GROUP).await? == end).then_some(()));
        eventually("every record is acknowledged", WAIT, check).await?;
        let mut times = BTreeMap::new();
        for worker in self.workers {
            for number in worker.leave().await? {
                *times.entry(number).or_default() += 1;
            }
        }
        let given: BTreeSet<u64> = times.keys().chain(gone).copied().collect();
        ensure!(given.len() as u64 == self.records, "only {} were given", given.len());
        Ok(times)
    }
}

async fn produce(kafka: &str, first: u64, count: u64) -> anyhow::Result<()> {
    let first = first.to_string();
    let job = Job { kafka, topic: "jobs", count, more: &["--first", &first] };
    programs::produce(Client::ConfluentKafka, &job).await
}

/// The offset below which everything is acknowledged, as `group describe` tells it, and the lag.
async fn described(kafka: &str, group: &str) -> anyhow::Result<(u64, u64)> {
    let printed = operate(kafka, &["group", "describe", group, "--json"]).await?;
    let described: serde_json::Value = serde_json::from_str(&printed)?;
    let partition = described["offsets"].get(0).context(printed.clone())?;
    let number = |name: &str| partition[name].as_u64().context(printed.clone());
    Ok((number("committed")?, number("lag")?))
}

#[tokio::test]
async fn every_kind_of_client_in_one_group_gets_each_record_once() -> anyhow::Result<()> {
    const RECORDS: u64 = 20_000;
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "jobs", "--partitions", "1"]).await?;
    let crew = Crew::start(&kafka, RECORDS)?;
    let made = crew.all_at_work().await?;
    produce(&kafka, made, RECORDS - made).await?;
    let printed = programs::describe(&kafka, Crew::GROUP).await?;
    let times = crew.finish(&[]).await?;
    ensure!(times.values().all(|times| *times == 1), "given twice: {:?}", twice(&times));
    let members = printed.lines().filter(|line| line.ends_with(" 1           jobs-0")).count();
    ensure!(members == Client::workers().count() + 1, "{printed}");
    ensure!(printed.lines().any(|line| line.contains(" jobs       0 ")), "{printed}");
    Ok(())
}

fn twice(times: &BTreeMap<u64, u64>) -> Vec<&u64> {
    times.iter().filter(|(_, times)| **times > 1).map(|(number, _)| number).collect()
}

#[tokio::test]
async fn what_a_killed_member_had_goes_to_the_others() -> anyhow::Result<()> {
    const RECORDS: u64 = 20_000;
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "jobs", "--partitions", "1"]).await?;
    let mut crew = Crew::start(&kafka, RECORDS)?;
    let made = crew.all_at_work().await?;
    let killed = crew.workers.swap_remove(0).kill().await?;
    produce(&kafka, made, RECORDS - made).await?;
    let times = crew.finish(&killed).await?;
    // Of what the killed one had, others may have been given any part again; nothing else is given twice.
    ensure!(times.values().all(|times| *times == 1), "given twice: {:?}", twice(&times));
    Ok(())
}

#[tokio::test]
async fn a_killed_broker_forgets_leases_and_keeps_what_was_acknowledged() -> anyhow::Result<()> {
    const RECORDS: u64 = 20_000;
    let mut cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "jobs", "--partitions", "1"]).await?;
    let crew = Crew::start(&kafka, RECORDS)?;
    let made = crew.all_at_work().await?;
    let acknowledged = async || {
        let (offset, _) = described(&kafka, Crew::GROUP).await?;
        Ok((offset > 0).then_some(()))
    };
    eventually("something is acknowledged", WAIT, acknowledged).await?;
    let (before, _) = described(&kafka, Crew::GROUP).await?;
    cloud.kill9().await?;
    let given = crew.seen();
    cloud.start().await?;
    let (after, _) = described(&kafka, Crew::GROUP).await?;
    ensure!(after >= before, "acknowledged up to {before}, after the crash to {after}");
    produce(&kafka, made, RECORDS - made).await?;
    let times = crew.finish(&[]).await?;
    let strange: Vec<_> =
        times.iter().filter(|(n, times)| **times > 1 && !given.contains(n)).collect();
    ensure!(strange.is_empty(), "given twice, though not before the crash: {strange:?}");
    Ok(())
}

/// What `training_helper.py` tells.
#[derive(serde::Deserialize, Debug, PartialEq, Eq)]
struct Trained {
    trained: u64,
    late: bool,
    rest: u64,
    begun_again: bool,
    twice: u64,
    batches: u64,
    records: u64,
}

#[tokio::test]
async fn the_training_helper_commits_what_was_trained_and_nothing_that_was_only_loaded()
-> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    operate(&kafka, &["topic", "create", "jobs", "--partitions", "1"]).await?;
    produce(&kafka, 0, 3000).await?;
    let mut command = programs::python("training_helper.py")?;
    command.args(["--bootstrap", &kafka, "--topic", "jobs", "--group", "$shared/training"]);
    let printed = programs::output(command).await?;
    let told: Trained = serde_json::from_str(&printed)?;
    let expected = Trained {
        trained: 200,
        late: false,
        rest: 2800,
        begun_again: true,
        twice: 0,
        batches: 300,
        records: 3000,
    };
    ensure!(told == expected, "{told:?}");
    ensure!(described(&kafka, "$shared/training").await? == (3000, 0));
    Ok(())
}

/// After a crash, clients without a member id committed positions on their cursors, which were taken for an admin's offsets. And a crash in
/// `hybrid` gives the partition another leader epoch, which some clients compare with the epochs of what they have read, and go to
/// real offsets if it differs.
#[tokio::test]
async fn a_leader_epoch_that_changes_sends_nobody_to_real_offsets() -> anyhow::Result<()> {
    const RECORDS: u64 = 20_000;
    let mut cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    let create = ["topic", "create", "jobs", "--partitions", "1", "--storage-mode", "hybrid"];
    operate(&kafka, &create).await?;
    let crew = Crew::start(&kafka, RECORDS)?;
    let made = crew.all_at_work().await?;
    cloud.kill9().await?;
    cloud.start().await?;
    // What was written last is gone; what comes now is not.
    produce(&kafka, made, RECORDS - made).await?;
    let all = async || Ok((made..RECORDS).all(|n| crew.seen().contains(&n)).then_some(()));
    eventually("every record that came after the crash is given to somebody", WAIT, all).await?;
    let is_done = async || Ok((described(&kafka, Crew::GROUP).await?.1 == 0).then_some(()));
    eventually("all of it is acknowledged", WAIT, is_done).await?;
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for worker in crew.workers {
        for number in worker.leave().await? {
            *times.entry(number).or_default() += 1;
        }
    }
    times.retain(|number, _| *number >= made);
    ensure!(times.values().all(|times| *times == 1), "given twice: {:?}", twice(&times));
    Ok(())
}

#[tokio::test]
async fn what_nobody_acknowledges_goes_to_the_dead_letter_topic() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let mut command = programs::python("confluent_dead_letters.py")?;
    command.args(["--bootstrap", &cloud.kafka()?]);
    let printed = programs::output(command).await?;
    let found: serde_json::Value = serde_json::from_str(&printed)?;
    ensure!(found["given"] == serde_json::json!(["last"]), "{printed}");
    for number in 0..5 {
        let expected = serde_json::json!({
            "key": format!("k{number}"),
            "value": format!("v{number}"),
            "headers": {
                "own": number.to_string(),
                "robustmq.group": "$shared/strict",
                "robustmq.topic": "orders",
                "robustmq.partition": "0",
                "robustmq.offset": number.to_string(),
                "robustmq.delivery-count": "2",
            },
        });
        ensure!(found["letters"][number] == expected, "{printed}");
    }
    Ok(())
}
