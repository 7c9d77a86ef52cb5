//! Topics whose records lie in S3, read by stock consumers: every sample's bytes are checked, over an S3 server that fails.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use robustmq_tests::bench::Kafka;
use robustmq_tests::bench::dataset::reader::place_of;
use robustmq_tests::bench::dataset::run::blocking;
use robustmq_tests::bench::dataset::{Reader, Status};
use robustmq_tests::dataset::account::Catalogue;
use robustmq_tests::dataset::tar::index_file;
use robustmq_tests::dataset::{Coding, Dataset, Kind, Shape};
use robustmq_tests::s3::{FakeS3, Faults};
use robustmq_tests::{TestCloud, eventually};

const BUCKET: &str = "data";
const PATIENCE: Duration = Duration::from_secs(60);

/// The cache holds a part of what is read.
const SMALL_CACHE: &str = "[cache]\nmemory_bytes = 33554432\n";

fn catalogue(
    kind: Kind,
    files: usize,
    samples: usize,
    sample_bytes: usize,
) -> anyhow::Result<Arc<Catalogue>> {
    let shape = Shape { seed: 3, files, samples, sample_bytes };
    Ok(Arc::new(Catalogue::of(Arc::new(Dataset::make(kind, &shape)))?))
}

struct Stage {
    cloud: TestCloud,
    s3: FakeS3,
    kafka: Kafka,
}

impl Stage {
    async fn start(toml: &str) -> anyhow::Result<Self> {
        let s3 = FakeS3::start(5).await?;
        let cloud = TestCloud::start_in(toml, s3.environment()).await?;
        let kafka = Kafka {
            bootstrap: cloud.kafka()?,
            producer_settings: Vec::new(),
            consumer_settings: Vec::new(),
        };
        Ok(Self { cloud, s3, kafka })
    }

    /// A topic over `prefix`.
    async fn create(
        &self,
        topic: &str,
        partitions: i32,
        prefix: &str,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let source = ("robustmq.source".to_owned(), format!("s3://{BUCKET}/{prefix}"));
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let configs: Vec<_> = std::iter::once(source).chain(configs).collect();
        let created = self.kafka.create_topic(topic, partitions, &configs).await?;
        ensure!(created.is_ok(), "{topic}: {created:?}");
        Ok(())
    }

    async fn read(
        &self,
        topic: &str,
        partitions: i32,
        catalogue: &Arc<Catalogue>,
        epochs: u64,
    ) -> anyhow::Result<()> {
        let (kafka, topic, catalogue) =
            (self.kafka.clone(), topic.to_owned(), Arc::clone(catalogue));
        let records = catalogue.dataset().samples.len() as u64 * epochs;
        blocking(move || {
            let reader = Reader::start(&kafka, &topic, 0..partitions, &catalogue)?;
            reader.read(records, epochs, None, |_| Ok(())).map(drop)
        })
        .await
    }

    async fn status(&self, topic: &str) -> anyhow::Result<Status> {
        let admin = format!("http://{}", self.cloud.program()?.address("admin")?);
        Status::of(&admin, topic).await?.context("a dataset topic")
    }
}

#[tokio::test]
async fn each_epoch_has_each_sample_once_with_its_own_bytes_though_s3_fails() -> anyhow::Result<()>
{
    let stage = Stage::start(SMALL_CACHE).await?;
    let faults = Faults { failing: 50, truncated: 50, ..Faults::default() };
    stage.s3.set_faults(faults);
    for (name, kind, shuffle) in [
        ("webdataset", Kind::WebDataset, "window:100"),
        ("jsonl", Kind::JsonLines(Coding::Plain), "shards"),
        ("gzip", Kind::JsonLines(Coding::Gzip), "shards"),
        ("zstd", Kind::JsonLines(Coding::Zstd), "none"),
        ("tfrecord", Kind::TfRecord, "shards"),
    ] {
        let catalogue = catalogue(kind, 12, 60, 70_000)?;
        let prefix = format!("{name}/");
        catalogue.dataset().put(&stage.s3, BUCKET, &prefix);
        let configs = [("robustmq.source.epochs", "5"), ("robustmq.source.shuffle", shuffle)];
        // Listing is not tried again and again by who creates a topic.
        stage.s3.set_faults(Faults::default());
        stage.create(name, 2, &prefix, &configs).await?;
        stage.s3.set_faults(faults);
        stage.read(name, 2, &catalogue, 5).await.context(name)?;
        let status = stage.status(name).await?;
        ensure!(status.is_index_complete == Some(true), "{name}: {status:?}");
        ensure!(status.records == Some(catalogue.dataset().samples.len() as u64), "{name}");
    }
    // Thousands of small objects.
    let catalogue = catalogue(Kind::Objects, 2_000, 1, 3_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "objects/");
    stage.s3.set_faults(Faults::default());
    let configs = [("robustmq.source.epochs", "2"), ("robustmq.source.shuffle", "shards")];
    stage.create("objects", 3, "objects/", &configs).await?;
    stage.s3.set_faults(faults);
    stage.read("objects", 3, &catalogue, 2).await.context("objects")
}

/// What a broker that was killed had counted is counted again, and its readers go on where they were. What was on SSD is not fetched again.
#[tokio::test]
async fn readers_go_on_where_they_were_when_the_broker_is_killed() -> anyhow::Result<()> {
    const KILLS: u64 = 8;
    const MEMORY_BYTES: u64 = 32 << 20;
    let ssd = format!("[cache]\nmemory_bytes = {MEMORY_BYTES}\nssd_bytes = 268435456\n");
    let mut stage = Stage::start(&ssd).await?;
    let catalogue = catalogue(Kind::WebDataset, 16, 50, 100_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "train/");
    let configs = [("robustmq.source.epochs", "4"), ("robustmq.source.shuffle", "shards")];
    stage.create("train", 2, "train/", &configs).await?;
    let samples = catalogue.dataset().samples.len() as u64;
    let (kafka, all) = (stage.kafka.clone(), Arc::clone(&catalogue));
    let mut reader = blocking(move || Reader::start(&kafka, "train", 0..2, &all)).await?;
    for kill in 1..=KILLS {
        reader = blocking(move || {
            for _ in 0..samples * 4 / (KILLS + 1) {
                reader.next_record().with_context(|| format!("before kill {kill}"))?;
            }
            Ok(reader)
        })
        .await?;
        stage.cloud.kill9().await?;
        stage.cloud.start().await?;
    }
    let rest = samples * 4 - samples * 4 / (KILLS + 1) * KILLS;
    let reader = blocking(move || {
        for _ in 0..rest {
            reader.next_record().context("after the last kill")?;
        }
        Ok(reader)
    })
    .await?;
    reader.account.check_complete(4)?;
    // Each kill costs no more than what was only in memory.
    let (given, bytes) = (stage.s3.given_bytes(), catalogue.dataset().bytes());
    let most = bytes + KILLS * MEMORY_BYTES;
    ensure!(given <= most, "{given} bytes came from S3, of {bytes}, where {most} are the most");
    Ok(())
}

#[tokio::test]
async fn an_object_that_was_replaced_or_deleted_is_named_and_the_others_are_read()
-> anyhow::Result<()> {
    let stage = Stage::start(SMALL_CACHE).await?;
    let catalogue = catalogue(Kind::WebDataset, 4, 10, 50_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "train/");
    stage.create("train", 1, "train/", &[]).await?;
    let files = &catalogue.dataset().files;
    stage.s3.put(BUCKET, &format!("train/{}", files[1].name), files[0].bytes.clone());
    stage.s3.delete(BUCKET, &format!("train/{}", files[2].name));
    // Two files are good: the first and the last.
    let (kafka, all) = (stage.kafka.clone(), Arc::clone(&catalogue));
    blocking(move || {
        let mut reader = Reader::start(&kafka, "train", 0..1, &all)?;
        for _ in 0..20 {
            reader.next_record()?;
        }
        Ok(())
    })
    .await?;
    eventually("both others are left out, with the reason", PATIENCE, async || {
        let status = stage.status("train").await?;
        let [_, changed, gone, _] = &files[..] else { bail!("four files were made") };
        let says_all =
            status.leaves_out(&changed.name, "changed") && status.leaves_out(&gone.name, "gone");
        Ok((says_all && status.trouble.is_empty()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn s3_that_is_down_for_a_while_is_waited_for() -> anyhow::Result<()> {
    let stage = Stage::start(SMALL_CACHE).await?;
    let catalogue = catalogue(Kind::WebDataset, 12, 50, 100_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "train/");
    stage.create("train", 2, "train/", &[("robustmq.source.epochs", "2")]).await?;
    let samples = catalogue.dataset().samples.len() as u64;
    let (kafka, all) = (stage.kafka.clone(), Arc::clone(&catalogue));
    let mut reader = blocking(move || {
        let mut reader = Reader::start(&kafka, "train", 0..2, &all)?;
        for _ in 0..samples / 3 {
            reader.next_record()?;
        }
        Ok(reader)
    })
    .await?;
    stage.s3.set_faults(Faults { is_down: true, ..Faults::default() });
    let reading = tokio::spawn(blocking(move || {
        for _ in samples / 3..samples * 2 {
            reader.next_record()?;
        }
        Ok(reader)
    }));
    // It is noticed, and then over.
    eventually("the broker says that S3 does not answer", PATIENCE, async || {
        let status = stage.status("train").await?;
        Ok((!status.trouble.is_empty() || status.cache.failed_loads > Some(0)).then_some(()))
    })
    .await?;
    stage.s3.set_faults(Faults::default());
    reading.await??.account.check_complete(2)
}

/// Where the admin listener says that a sample is, in a shuffled epoch.
#[tokio::test]
async fn a_stock_consumer_that_seeks_to_where_a_key_is_reads_that_sample() -> anyhow::Result<()> {
    let mut stage = Stage::start(SMALL_CACHE).await?;
    let catalogue = catalogue(Kind::WebDataset, 8, 40, 60_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "train/");
    let configs = [("robustmq.source.epochs", "2"), ("robustmq.source.shuffle", "window:64")];
    stage.create("train", 2, "train/", &configs).await?;
    stage.read("train", 2, &catalogue, 2).await?;
    for _ in 0..2 {
        for epoch in 0..2 {
            for sample in (0..catalogue.dataset().samples.len()).step_by(53) {
                check_found(&stage, &catalogue, sample, epoch).await?;
            }
        }
        // What was counted is counted again without being read.
        stage.cloud.kill9().await?;
        stage.cloud.start().await?;
    }
    Ok(())
}

#[tokio::test]
async fn shards_beside_which_index_files_lie_are_counted_without_being_read() -> anyhow::Result<()>
{
    let stage = Stage::start(SMALL_CACHE).await?;
    let catalogue = catalogue(Kind::WebDataset, 16, 40, 100_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "train/");
    for (number, file) in catalogue.dataset().files.iter().enumerate() {
        let stem = file.name.trim_end_matches(".tar");
        // Beside one there is what cannot be true: it is read.
        let index = if number == 0 { "v1.2 1\n".to_owned() } else { index_file(&file.bytes) };
        stage.s3.put(BUCKET, &format!("train/{stem}.idx"), index.into());
    }
    let configs = [("robustmq.source.epochs", "1"), ("robustmq.source.index", "eager")];
    stage.create("train", 1, "train/", &configs).await?;
    let samples = catalogue.dataset().samples.len() as u64;
    eventually("all is counted", PATIENCE, async || {
        let status = stage.status("train").await?;
        let is_counted = status.is_index_complete == Some(true) && status.records == Some(samples);
        Ok(is_counted.then_some(()))
    })
    .await?;
    let requests = stage.s3.requests();
    let read: HashSet<&str> = requests
        .iter()
        .filter(|request| request.method == "GET" && request.key.ends_with(".tar"))
        .map(|request| request.key.as_str())
        .collect();
    let first = format!("train/{}", catalogue.dataset().files[0].name);
    ensure!(read == HashSet::from([first.as_str()]), "{read:?}");
    stage.read("train", 1, &catalogue, 1).await
}

async fn check_found(
    stage: &Stage,
    catalogue: &Arc<Catalogue>,
    sample: usize,
    epoch: u64,
) -> anyhow::Result<()> {
    let key = catalogue.dataset().samples[sample].key.clone().context("a key")?;
    let path = format!("/v1/datasets/train/find?key={}&epoch={epoch}", key.replace('/', "%2F"));
    let found: serde_json::Value = serde_json::from_str(&stage.cloud.admin(&path).await?)?;
    let of = |name: &str| found["matches"][0][name].as_i64().with_context(|| found.to_string());
    let (partition, offset) = (i32::try_from(of("partition")?)?, of("offset")?);
    let (kafka, all) = (stage.kafka.clone(), Arc::clone(catalogue));
    blocking(move || {
        let consumer: BaseConsumer = kafka.consumer_config().create()?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset("train", partition, Offset::Offset(offset))?;
        consumer.assign(&assignment)?;
        let message = consumer.poll(PATIENCE).context("a record")??;
        let place = place_of(&all, &message)?;
        ensure!(message.offset() == offset, "{} is not {offset}", message.offset());
        ensure!((place.sample, place.epoch) == (sample, epoch), "{key}: {place:?}");
        Ok(())
    })
    .await
}

/// After a start a dataset's records are counted again as they are read: what a group had been given, and not acknowledged, lay behind what
/// was counted, and was taken for a hole.
#[tokio::test]
async fn a_shared_group_loses_no_sample_when_the_broker_is_killed() -> anyhow::Result<()> {
    const MEMBERS: usize = 3;
    let mut stage = Stage::start(SMALL_CACHE).await?;
    let catalogue = catalogue(Kind::WebDataset, 20, 50, 60_000)?;
    catalogue.dataset().put(&stage.s3, BUCKET, "train/");
    let configs = [("robustmq.source.epochs", "3"), ("robustmq.source.shuffle", "shards")];
    stage.create("train", 1, "train/", &configs).await?;
    let all = catalogue.dataset().samples.len() * 3;
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let done = Arc::new(AtomicBool::new(false));
    let members: Vec<_> = (0..MEMBERS)
        .map(|_| {
            let member = Member {
                kafka: stage.kafka.clone(),
                catalogue: Arc::clone(&catalogue),
                seen: Arc::clone(&seen),
                done: Arc::clone(&done),
            };
            tokio::task::spawn_blocking(move || member.work())
        })
        .collect();
    let count = || seen.lock().map_or(0, |seen| seen.len());
    for part in 1..=4 {
        let due = all * part / 5;
        let what = format!("{due} samples of {all}");
        eventually(&what, PATIENCE * 2, async || Ok((count() >= due).then_some(()))).await?;
        stage.cloud.kill9().await?;
        stage.cloud.start().await?;
    }
    let complete =
        eventually("each sample came", PATIENCE * 2, async || Ok((count() == all).then_some(())));
    let complete = complete.await.with_context(|| format!("{} of {all}", count()));
    done.store(true, Ordering::Release);
    for member in members {
        member.await??;
    }
    complete
}

/// A member of the group.
struct Member {
    kafka: Kafka,
    catalogue: Arc<Catalogue>,
    seen: Arc<Mutex<HashSet<(u64, usize)>>>,
    done: Arc<AtomicBool>,
}

impl Member {
    fn work(&self) -> anyhow::Result<()> {
        let mut config = self.kafka.consumer_config();
        config.set("group.id", "$shared/train").set("auto.offset.reset", "earliest");
        config.set("enable.auto.commit", "true").set("auto.commit.interval.ms", "500");
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&["train"])?;
        while !self.done.load(Ordering::Acquire) {
            // A broker that is killed shows as errors that the client gets over.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
            let place = place_of(&self.catalogue, &message)?;
            let mut seen = self.seen.lock().map_err(|_| anyhow::anyhow!("a member panicked"))?;
            seen.insert((place.epoch, place.sample));
        }
        Ok(())
    }
}
