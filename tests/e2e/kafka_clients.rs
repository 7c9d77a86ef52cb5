//! Stock Kafka clients against `robustmq-cloud`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use robustmq_tests::clients::kcat;
use robustmq_tests::clients::programs::{self, Client, Job};
use robustmq_tests::{TestCloud, eventually};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Makes a topic the way an operator does.
async fn create_topic(kafka: &str, topic: &str, partitions: u32) -> anyhow::Result<()> {
    let mut command = Command::new(robustmq_tests::process::binary("robustmq-cloud")?);
    let partitions = partitions.to_string();
    command.args(["topic", "create", topic, "--partitions", &partitions, "--bootstrap", kafka]);
    programs::output(command).await.map(drop)
}

/// Each way of compressing passes through unchanged: what one client compressed, the same client reads.
async fn compressions(client: Client) -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "packed", 3).await?;
    let mut first = 0;
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let start = first.to_string();
        let more = ["--first", &start, "--compression", compression, "--size", "600"];
        let job = Job { kafka: &kafka, topic: "packed", count: 200, more: &more };
        programs::produce(client, &job).await.context(compression)?;
        first += 200;
    }
    let report =
        programs::read(client, &Job { kafka: &kafka, topic: "packed", count: 1000, more: &[] })
            .await?;
    ensure!(report.is_exact(1000), "{report:?}");
    Ok(())
}

/// Three members share six partitions; one commits and leaves in the middle; nobody misses or repeats a record, and what is
/// committed at the end is the end of the log.
async fn group_of_three(client: Client) -> anyhow::Result<()> {
    const RECORDS: u64 = 3000;
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "shared-work", 6).await?;
    let job =
        Job { kafka: &kafka, topic: "shared-work", count: RECORDS, more: &["--group", "workers"] };
    let plain = Job { kafka: &kafka, topic: "shared-work", count: RECORDS, more: &[] };
    let report = programs::group(client, &job, programs::produce(client, &plain)).await?;
    ensure!(report.is_exact(RECORDS), "{report:?}");
    ensure!(report.members.iter().all(|taken| *taken > 0), "a member got nothing: {report:?}");
    ensure!(report.committed == Some(RECORDS) && report.end == Some(RECORDS), "{report:?}");
    Ok(())
}

/// Records near the largest that a topic takes by default.
async fn large_records(client: Client) -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "large", 1).await?;
    let job = Job { kafka: &kafka, topic: "large", count: 12, more: &["--size", "900000"] };
    programs::produce(client, &job).await?;
    let report = programs::read(client, &job).await?;
    ensure!(report.is_exact(12), "{report:?}");
    Ok(())
}

macro_rules! for_each_client {
    ($($module:ident => $client:expr),+ $(,)?) => {$(
        mod $module {
            use super::*;

            #[tokio::test]
            async fn every_compression_passes_through() -> anyhow::Result<()> {
                compressions($client).await
            }

            #[tokio::test]
            async fn a_group_of_three_goes_on_when_one_leaves() -> anyhow::Result<()> {
                group_of_three($client).await
            }

            #[tokio::test]
            async fn large_records_pass() -> anyhow::Result<()> {
                large_records($client).await
            }
        }
    )+};
}

for_each_client! {
    confluent_kafka => Client::ConfluentKafka,
    kafka_python => Client::KafkaPython,
    aiokafka => Client::Aiokafka,
    java => Client::Java,
}

#[tokio::test]
async fn what_one_client_writes_every_other_reads() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "everyone", 4).await?;
    for (client, (first, compression)) in Client::ALL.into_iter().zip([
        ("0", "lz4"),
        ("100", "zstd"),
        ("200", "snappy"),
        ("300", "gzip"),
    ]) {
        let more = ["--first", first, "--compression", compression, "--size", "300"];
        programs::produce(
            client,
            &Job { kafka: &kafka, topic: "everyone", count: 100, more: &more },
        )
        .await?;
    }
    for client in Client::ALL {
        let job = Job { kafka: &kafka, topic: "everyone", count: 400, more: &[] };
        let report = programs::read(client, &job).await?;
        // Clients hash keys differently, so order holds within what each wrote; that is checked elsewhere.
        ensure!(
            report.distinct == 400 && report.repeated == 0 && report.wrong == 0,
            "{client:?}: {report:?}"
        );
    }
    let records = kcat::read_all(&kafka, "everyone").await?;
    ensure!(records.len() == 400, "kcat read {}", records.len());
    ensure!(records.iter().all(|record| record.header("number").is_some()), "a header is missing");
    Ok(())
}

#[tokio::test]
async fn a_topic_is_made_by_the_first_produce_to_it() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    let job = Job { kafka: &kafka, topic: "unannounced", count: 50, more: &[] };
    programs::produce(Client::ConfluentKafka, &job).await?;
    ensure!(kcat::topics(&kafka).await?.contains(&"unannounced".to_owned()), "not listed");
    ensure!(programs::read(Client::Java, &job).await?.is_exact(50), "not all read");
    Ok(())
}

#[tokio::test]
async fn a_record_over_the_topics_limit_is_refused_and_harms_nothing() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "limited", 1).await?;
    let job = |size| Job { kafka: &kafka, topic: "limited", count: 1, more: size };
    let refused = programs::produce(Client::ConfluentKafka, &job(&["--size", "3000000"])).await;
    let reason = format!("{:#}", refused.err().context("it was taken")?);
    ensure!(reason.contains("MSG_SIZE_TOO_LARGE") || reason.contains("too large"), "{reason}");
    programs::produce(Client::ConfluentKafka, &job(&["--size", "100"])).await?;
    ensure!(kcat::read_all(&kafka, "limited").await?.len() == 1, "one record");
    Ok(())
}

#[tokio::test]
async fn the_admin_client_walks_a_topic_through_its_life() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let mut command = programs::python("confluent_admin.py")?;
    command.args(["--bootstrap", &cloud.kafka()?, "--topic", "walked"]);
    let printed = programs::output(command).await?;
    let seen: serde_json::Value = serde_json::from_str(&printed)?;
    let expected = serde_json::json!({
        "cluster": {"nodes": 1, "id": true},
        "partitions": 2,
        "created_again": "TOPIC_ALREADY_EXISTS",
        "bad_name": "TOPIC_EXCEPTION",
        "bad_config": "INVALID_CONFIG",
        "retention": "3600000",
        "mode": "persistent",
        "replaced": ["5000", "604800000"],
        "broker_config": "INVALID_REQUEST",
        "partitions_after": 4,
        "fewer_partitions": "INVALID_PARTITIONS",
        "group": {"state": "STABLE", "members": 1},
        "group_listed": true,
        "lag": 60,
        "deleted": true,
        "deleted_again": "UNKNOWN_TOPIC_OR_PART",
    });
    assert_eq!(seen, expected);
    Ok(())
}

#[tokio::test]
async fn records_and_committed_offsets_survive_a_kill() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "kept", 3).await?;
    let job = Job {
        kafka: &kafka,
        topic: "kept",
        count: 600,
        more: &["--group", "keepers", "--leave-after", "20"],
    };
    let plain = Job { kafka: &kafka, topic: "kept", count: 600, more: &[] };
    let report =
        programs::group(Client::ConfluentKafka, &job, programs::produce(Client::Java, &plain))
            .await?;
    ensure!(report.distinct == 600 && report.committed == Some(600), "{report:?}");

    cloud.kill9().await?;
    cloud.start().await?;
    let report = programs::read(Client::Aiokafka, &plain).await?;
    ensure!(report.is_exact(600), "after the kill: {report:?}");
    let more = ["--first", "600"];
    programs::produce(Client::Java, &Job { kafka: &kafka, topic: "kept", count: 30, more: &more })
        .await?;
    // The group goes on where it was: kcat gets only what is new.
    let arguments = [
        "-b",
        &kafka,
        "-G",
        "keepers",
        "-X",
        "auto.offset.reset=earliest",
        "-c",
        "30",
        "-q",
        "-f",
        "%s\n",
        "kept",
    ];
    let fresh = kcat::run(&arguments).await?;
    let fresh = String::from_utf8(fresh)?;
    let numbers: Vec<u32> =
        fresh.lines().filter_map(|line| line.split(':').next()?.parse().ok()).collect();
    ensure!(numbers.len() == 30 && numbers.iter().all(|number| *number >= 600), "{numbers:?}");
    Ok(())
}

/// A kcat that consumes in a group and writes what it reads to a file.
struct KcatMember {
    child: tokio::process::Child,
    output: std::path::PathBuf,
}

impl KcatMember {
    fn start(kafka: &str, dir: &std::path::Path, index: usize) -> anyhow::Result<Self> {
        let output = dir.join(index.to_string());
        let member = kcat::command()
            .args(["-b", kafka, "-G", "cats", "-X", "auto.offset.reset=earliest", "-u", "-q"])
            .args(["-f", "%s\n", "for-cats"])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child: member, output })
    }

    fn lines(&self) -> anyhow::Result<Vec<u64>> {
        let text = std::fs::read_to_string(&self.output)?;
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| Ok(line.parse()?)).collect()
    }

    async fn leave(&mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id().context("it has ended")?)?;
        let id = rustix::process::Pid::from_raw(id).context("a process id is positive")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        ended.context("kcat did not leave")??;
        Ok(())
    }
}

async fn kcat_produce(kafka: &str, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut producer = kcat::command()
        .args(["-P", "-b", kafka, "-t", "for-cats", "-X", "enable.idempotence=true"])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let lines: String = numbers.map(|number| format!("{number}\n")).collect();
    let mut stdin = producer.stdin.take().context("standard input was asked for")?;
    stdin.write_all(lines.as_bytes()).await?;
    drop(stdin);
    ensure!(producer.wait().await?.success(), "kcat did not deliver all");
    Ok(())
}

#[tokio::test]
async fn three_kcats_share_a_topic_and_one_leaves() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let kafka = cloud.kafka()?;
    create_topic(&kafka, "for-cats", 6).await?;
    let dir = tempfile::tempdir()?;
    let mut members = (0..3)
        .map(|index| KcatMember::start(&kafka, dir.path(), index))
        .collect::<Result<Vec<_>, _>>()?;
    let mut produced = 0;
    // kcat says nothing about its assignment, so: a few more records until each member got some.
    eventually("each kcat reads something", Duration::from_secs(60), async || {
        kcat_produce(&kafka, produced..produced + 60).await?;
        produced += 60;
        let all = members.iter().map(KcatMember::lines).collect::<Result<Vec<_>, _>>()?;
        Ok(all.iter().all(|lines| !lines.is_empty()).then_some(()))
    })
    .await?;
    members[2].leave().await?;
    kcat_produce(&kafka, produced..produced + 600).await?;
    produced += 600;
    let count = |lines: Vec<Vec<u64>>| lines.concat().len();
    eventually("the remaining two read everything", Duration::from_secs(60), async || {
        let all = members.iter().map(KcatMember::lines).collect::<Result<Vec<_>, _>>()?;
        Ok((count(all) as u64 >= produced).then_some(()))
    })
    .await?;
    members[0].leave().await?;
    members[1].leave().await?;
    let mut all = members.iter().map(KcatMember::lines).collect::<Result<Vec<_>, _>>()?.concat();
    all.sort_unstable();
    ensure!(all == (0..produced).collect::<Vec<_>>(), "read {} of {produced}", all.len());
    Ok(())
}
