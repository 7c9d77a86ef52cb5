//! Dataset topics over S3 as others speak it: moto's server, boto3's objects, Python's tars. The server in memory that other tests use has to
//! behave as moto does.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use robustmq_tests::bench::dataset::Status;
use robustmq_tests::clients::programs;
use robustmq_tests::s3::FakeS3;
use robustmq_tests::s3::moto::Moto;
use robustmq_tests::servers::http;
use robustmq_tests::{TestCloud, eventually};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// Small, so that a listing of some hundred objects has several.
const PAGE: usize = 100;

type Environment = Vec<(String, String)>;

/// What a program prints.
async fn run<T: DeserializeOwned>(
    script: &str,
    environment: &Environment,
    arguments: &[&str],
) -> anyhow::Result<T> {
    let mut command = programs::python(script)?;
    command.args(arguments).envs(environment.iter().cloned());
    let said = || format!("{script} {arguments:?}");
    let printed = programs::output(command).await.with_context(said)?;
    serde_json::from_str(&printed).with_context(said)
}

async fn dataset<T: DeserializeOwned>(
    environment: &Environment,
    arguments: &[&str],
) -> anyhow::Result<T> {
    run("s3_dataset.py", environment, arguments).await
}

#[derive(Debug, Deserialize)]
struct Put {
    objects: usize,
    /// Objects of a page of a listing.
    page: usize,
    /// The ETag of the object that was uploaded in parts.
    parts: String,
}

#[derive(Debug, Deserialize)]
struct Created {
    error: Option<String>,
}

/// What a consumer was given.
#[derive(Debug, Deserialize)]
struct Read {
    records: u64,
    missing: i64,
    more: i64,
    wrong: Vec<String>,
    /// Null records by object, and why they are.
    lost: BTreeMap<String, (u64, String)>,
}

struct Stage {
    environment: Environment,
    cloud: TestCloud,
}

impl Stage {
    async fn start(environment: Environment) -> anyhow::Result<Self> {
        let cloud = TestCloud::start_in("", environment.clone()).await?;
        Ok(Self { environment, cloud })
    }

    /// What the broker says to who creates a topic.
    async fn create(&self, topic: &str, source: &str) -> anyhow::Result<Option<String>> {
        let kafka = self.cloud.kafka()?;
        let asked = ["create", "--bootstrap", &kafka, "--topic", topic, "--source", source];
        let created: Created = dataset(&self.environment, &asked).await?;
        Ok(created.error)
    }

    async fn is_refused(&self, source: &str, said: &[&str]) -> anyhow::Result<()> {
        let Some(error) = self.create("refused", source).await? else {
            bail!("{source} was taken")
        };
        ensure!(said.iter().all(|part| error.contains(part)), "{said:?} is not said: {error}");
        Ok(())
    }

    /// What a consumer is given; all of it has to be right.
    async fn read(&self, topic: &str, prefix: &str, without: &[&str]) -> anyhow::Result<Read> {
        let kafka = self.cloud.kafka()?;
        let mut asked = vec!["read", "--bootstrap", &kafka, "--topic", topic, "--prefix", prefix];
        asked.extend(without.iter().flat_map(|key| ["--without", key]));
        let read: Read = dataset(&self.environment, &asked).await?;
        let is_exact = (read.missing, read.more, read.wrong.len()) == (0, 0, 0);
        ensure!(is_exact && read.records > 0, "{topic}: {read:?}");
        Ok(read)
    }

    async fn status(&self, topic: &str) -> anyhow::Result<Status> {
        let admin = format!("http://{}", self.cloud.program()?.address("admin")?);
        Status::of(&admin, topic).await?.context("a dataset topic")
    }

    /// What `dataset refresh` is answered: what it found, or the text of a refusal.
    async fn refresh(&self, topic: &str) -> anyhow::Result<Result<Value, String>> {
        let admin = self.cloud.program()?.address("admin")?;
        let url = format!("http://{admin}/v1/datasets/{topic}/refresh");
        let answer = http().post(url).send().await?;
        if answer.status() == reqwest::StatusCode::CONFLICT {
            return Ok(Err(answer.text().await?));
        }
        Ok(Ok(answer.error_for_status()?.json().await?))
    }

    /// Waits until the status says this of that object, which is left out, and which it names below the prefix.
    async fn is_left_out(&self, topic: &str, key: &str, said: &str) -> anyhow::Result<()> {
        let (_, name) = key.split_once('/').context("a prefix")?;
        eventually(&format!("{topic}'s status says {said:?} of {key}"), PATIENCE, async || {
            let status = self.status(topic).await?;
            Ok(status.leaves_out(name, said).then_some(()))
        })
        .await
    }
}

fn with(environment: &Environment, name: &str, value: &str) -> Environment {
    let changed = |(each, old): &(String, String)| {
        let value = if each == name { value } else { old };
        (each.clone(), value.to_owned())
    };
    environment.iter().map(changed).collect()
}

/// What is replaced and what is deleted, before it was read and after. Each lies in a partition of its own.
const REPLACED: [&str; 2] = ["later/shard-1.tar", "train/shard-2.tar"];
const DELETED: [&str; 2] = ["later/shard-2.tar", "train/a%20code.bin"];

/// Over a server whose listings have pages of at most so many objects.
async fn check(environment: Environment, page: usize) -> anyhow::Result<()> {
    let put: Put = dataset(&environment, &["put"]).await?;
    ensure!(put.page <= page && put.objects > 300, "{put:?}");
    ensure!(put.parts.ends_with("-2\""), "the tag of an upload in two parts: {}", put.parts);
    let mut stage = Stage::start(environment).await?;
    for (topic, prefix) in [("train", "train/"), ("later", "later/")] {
        let error = stage.create(topic, &format!("s3://data/{prefix}")).await?;
        ensure!(error.is_none(), "{topic}: {error:?}");
    }
    let read = stage.read("train", "train/", &[]).await?;
    ensure!(read.lost.is_empty(), "{read:?}");
    let status = stage.status("train").await?;
    let is_all = status.is_index_complete == Some(true) && status.records == Some(read.records);
    ensure!(is_all, "{status:?}");

    dataset::<Value>(&stage.environment, &[&["replace"], &REPLACED[..]].concat()).await?;
    dataset::<Value>(&stage.environment, &[&["delete"], &DELETED[..]].concat()).await?;
    let refused = stage.refresh("train").await?;
    let is_named =
        |text: &String| text.contains("shard-2.tar was changed") && text.contains("another topic");
    ensure!(refused.as_ref().is_err_and(is_named), "{refused:?}");
    check_unread(&stage).await?;
    check_published(&mut stage).await?;
    check_put_back(&stage, put.objects).await?;
    check_refusals(&stage).await
}

/// What nobody had read is left out where it is not there any more, and its partition goes on.
async fn check_unread(stage: &Stage) -> anyhow::Result<()> {
    let read = stage.read("later", "later/", &[REPLACED[0], DELETED[0]]).await?;
    ensure!(read.lost.is_empty(), "{read:?}");
    stage.is_left_out("later", REPLACED[0], "changed").await?;
    stage.is_left_out("later", DELETED[0], "gone").await
}

/// What had been published, and is not in the cache, is null and says why.
async fn check_published(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cloud.kill9().await?;
    stage.cloud.start().await?;
    let read = stage.read("train", "train/", &[]).await?;
    let name = |key: &str| key.trim_start_matches("train/").to_owned();
    let said = |key: &str, count, what: &str| {
        let key = name(key);
        let lost = read.lost.get(&key);
        lost.is_some_and(|(lost, why)| *lost == count && why.contains(&key) && why.contains(what))
    };
    let is_said = said(REPLACED[1], 20, "changed") && said(DELETED[1], 1, "gone");
    ensure!(is_said && read.lost.len() == 2, "{read:?}");
    Ok(())
}

/// A refresh goes through once what was changed is what it was; what is new is appended.
async fn check_put_back(stage: &Stage, objects: usize) -> anyhow::Result<()> {
    dataset::<Value>(&stage.environment, &["restore", REPLACED[1], "train/new.bin"]).await?;
    let found = stage.refresh("train").await?;
    let Ok(found) = &found else { bail!("refused: {found:?}") };
    let number = |name: &str| found[name].as_u64();
    let is_right = number("added_objects") == Some(1) && number("missing_objects") == Some(1);
    ensure!(is_right && found["missing"][0] == "a%20code.bin", "{found}");
    // Two of them are folders.
    ensure!(number("objects") == Some(objects as u64 - 2 + 1), "{objects} were put: {found}");
    Ok(())
}

/// Whoever creates a topic over what is not there, or may not be read, is told so.
async fn check_refusals(stage: &Stage) -> anyhow::Result<()> {
    let no_bucket = ["s3://nowhere/train", "there is no such bucket", "NoSuchBucket"];
    stage.is_refused("s3://nowhere/train/", &no_bucket).await?;
    stage.is_refused("s3://data/nothing/", &["s3://data/nothing has no objects"]).await?;
    let stranger = with(&stage.environment, "AWS_ACCESS_KEY_ID", "AKIANOBODY");
    let stranger = Stage::start(stranger).await?;
    let said = ["s3://data/train", "check the credentials", "InvalidAccessKeyId"];
    stranger.is_refused("s3://data/train/", &said).await
}

#[tokio::test]
async fn a_dataset_topic_over_moto_is_read_whole_and_says_what_was_changed() -> anyhow::Result<()> {
    let moto = Moto::start(PAGE).await?;
    check(moto.environment()?, PAGE).await?;
    let wrong = with(&moto.environment()?, "AWS_SECRET_ACCESS_KEY", "of somebody else");
    let wrong = Stage::start(wrong).await?;
    let said = ["check the credentials", "SignatureDoesNotMatch"];
    wrong.is_refused("s3://data/train/", &said).await
}

#[tokio::test]
async fn a_dataset_topic_over_the_server_in_memory_behaves_as_over_moto() -> anyhow::Result<()> {
    let s3 = FakeS3::start(7).await?;
    check(s3.environment(), 1000).await
}

#[tokio::test]
async fn the_server_in_memory_answers_as_moto_does() -> anyhow::Result<()> {
    let (moto, ours) = (Moto::start(1000).await?, FakeS3::start(7).await?);
    let moto: BTreeMap<String, Value> = run("s3_answers.py", &moto.environment()?, &[]).await?;
    let ours: BTreeMap<String, Value> = run("s3_answers.py", &ours.environment(), &[]).await?;
    let differ = moto.iter().filter(|(what, said)| ours.get(*what) != Some(*said));
    let differ: Vec<_> = differ.map(|(what, said)| (what, said, ours.get(what))).collect();
    ensure!(differ.is_empty(), "moto and the server in memory differ: {differ:#?}");
    ensure!(moto.len() == ours.len() && moto.len() > 70, "{} answers", moto.len());
    Ok(())
}
