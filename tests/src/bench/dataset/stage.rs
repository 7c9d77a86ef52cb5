//! A broker, the S3 server that its datasets lie in, and topics over them.

use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::TestCloud;
use crate::bench::Kafka;
use crate::bench::cost::Process;
use crate::bench::dataset::Status;
use crate::bench::dataset::direct::{client, signed};
use crate::bench::dataset::run::blocking;
use crate::dataset::Dataset;
use crate::s3::FakeS3;

/// Where datasets lie.
pub const BUCKET: &str = "bench";
/// And below which prefix.
pub const PREFIX: &str = "train/";

/// A broker with an empty cache, and an S3 server in this process.
pub struct Stage {
    cloud: TestCloud,
    /// The server.
    pub s3: FakeS3,
    /// How clients reach the broker.
    pub kafka: Kafka,
    admin: String,
}

/// What a broker's cache may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheBytes {
    /// Of memory.
    pub memory: u64,
    /// Of SSD; none if 0.
    pub ssd: u64,
}

/// A topic whose source is a prefix.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Where its objects lie in the bucket; ends with a slash.
    pub prefix: String,
    /// `robustmq.source.format`.
    pub format: &'static str,
    /// `robustmq.source.epochs`.
    pub epochs: u64,
    /// `robustmq.source.shuffle`.
    pub shuffle: &'static str,
    /// `robustmq.source.seed`.
    pub seed: u64,
    /// Partitions.
    pub partitions: i32,
}

impl Topic {
    /// Over the WebDataset below the usual prefix.
    #[must_use]
    pub fn over(name: &str, epochs: u64, shuffle: &'static str, partitions: i32) -> Self {
        let (name, prefix) = (name.to_owned(), PREFIX.to_owned());
        Self { name, prefix, format: "webdataset", epochs, shuffle, seed: 1, partitions }
    }
}

impl Stage {
    /// Starts a broker that may take so much for its cache; its files are below `directory`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(
        directory: &Path,
        cache: CacheBytes,
        consumer_settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // A second call changes nothing.
        let _ = tempfile::env::override_temp_dir(directory);
        let s3 = FakeS3::start(1).await?;
        let CacheBytes { memory, ssd } = cache;
        let ssd = if ssd > 0 { format!("ssd_bytes = {ssd}\n") } else { String::new() };
        let toml = format!("[cache]\nmemory_bytes = {memory}\n{ssd}");
        let cloud = TestCloud::start_in(&toml, s3.environment()).await?;
        let kafka = Kafka {
            bootstrap: cloud.kafka()?,
            producer_settings: Vec::new(),
            consumer_settings: consumer_settings.to_vec(),
        };
        let admin = format!("http://{}", cloud.program()?.address("admin")?);
        Ok(Self { cloud, s3, kafka, admin })
    }

    /// Kills the broker and starts it again, with what its cache has on SSD.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        self.cloud.kill9().await?;
        self.cloud.start().await
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn create(&self, topic: &Topic) -> anyhow::Result<()> {
        let config = [
            ("robustmq.source", format!("s3://{BUCKET}/{}", topic.prefix)),
            ("robustmq.source.format", topic.format.to_owned()),
            ("robustmq.source.epochs", topic.epochs.to_string()),
            ("robustmq.source.shuffle", topic.shuffle.to_owned()),
            ("robustmq.source.seed", topic.seed.to_string()),
        ];
        let config = config.map(|(key, value)| (key.to_owned(), value));
        match self.kafka.create_topic(&topic.name, topic.partitions, &config).await? {
            Ok(()) => Ok(()),
            Err(code) => bail!("{} is refused: {code}; configuration {config:?}", topic.name),
        }
    }

    /// The broker's process.
    ///
    /// # Errors
    /// When it has ended.
    pub fn process(&self) -> anyhow::Result<Process> {
        Ok(Process(self.cloud.program()?.id().context("the broker has ended")?))
    }

    /// Its admin listener, a URL without a path.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// What it says of a topic, if it says anything.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, topic: &str) -> anyhow::Result<Option<Status>> {
        Status::of(&self.admin, topic).await
    }

    /// The log must hold no more than what was to come.
    ///
    /// # Errors
    /// When it holds more or less.
    pub async fn check_end(&self, data: &Dataset, topic: &Topic) -> anyhow::Result<()> {
        let (kafka, name, partitions) = (self.kafka.clone(), topic.name.clone(), topic.partitions);
        let found = blocking(move || kafka.watermarks(&name, partitions)).await?.ends();
        let wanted = data.samples.len() as u64 * topic.epochs;
        ensure!(u64::try_from(found)? == wanted, "{found} records are there, of {wanted}");
        Ok(())
    }

    /// Lists the dataset's prefix: how many objects there are, in how many pages.
    ///
    /// # Errors
    /// When S3 fails.
    pub async fn list(&self) -> anyhow::Result<(usize, usize)> {
        let (client, mut token, mut objects, mut pages) = (client(), None, 0, 0);
        loop {
            let token_parameter = token
                .map_or_else(String::new, |token: String| format!("&continuation-token={token}"));
            let endpoint = self.s3.endpoint();
            let url = format!("{endpoint}/{BUCKET}/?list-type=2&prefix={PREFIX}{token_parameter}");
            let page = signed(client.get(url)).send().await?.error_for_status()?.text().await?;
            objects += page.matches("<Key>").count();
            pages += 1;
            let next = page.split_once("<NextContinuationToken>").map(|(_, rest)| rest);
            token = next.and_then(|rest| rest.split_once('<')).map(|(token, _)| token.to_owned());
            if token.is_none() {
                return Ok((objects, pages));
            }
        }
    }
}
