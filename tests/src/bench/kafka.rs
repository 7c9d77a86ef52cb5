//! The stock client: its settings, topics, and what the broker says is in them.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

/// How long the broker may take for an answer, on a busy machine.
pub const ANSWER: Duration = Duration::from_secs(60);

/// How long a broker that is said to run may take to be found.
const REACH: Duration = Duration::from_secs(10);

/// How clients are set up.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `bootstrap.servers`.
    pub bootstrap: String,
    /// Settings of producers that come last.
    pub producer_settings: Vec<(String, String)>,
    /// Settings of consumers that come last.
    pub consumer_settings: Vec<(String, String)>,
}

/// What a topic holds.
#[derive(Debug, Clone)]
pub struct Watermarks {
    /// Of each partition: log start offset and high watermark.
    pub partitions: Vec<(i64, i64)>,
}

impl Watermarks {
    /// Records there were, ever.
    #[must_use]
    pub fn ends(&self) -> i64 {
        self.partitions.iter().map(|(_, high)| high).sum()
    }

    /// Records that are gone again.
    #[must_use]
    pub fn starts(&self) -> i64 {
        self.partitions.iter().map(|(low, _)| low).sum()
    }
}

impl Kafka {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// A producer without the settings asked for.
    #[must_use]
    pub fn producer_config(&self) -> ClientConfig {
        let mut config = self.config();
        config.set("acks", "all");
        config.set("compression.codec", "none");
        config.set("message.timeout.ms", ANSWER.as_millis().to_string());
        config
    }

    /// With what was asked for on the command line.
    #[must_use]
    pub fn with_producer_settings(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.producer_settings {
            config.set(key, value);
        }
        config
    }

    /// A consumer, with what was asked for on the command line.
    #[must_use]
    pub fn consumer_config(&self) -> ClientConfig {
        let mut config = self.config();
        config.set("group.id", "bench");
        config.set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "error");
        // A full queue makes librdkafka pause for a second otherwise, which would be all that is measured.
        config.set("fetch.queue.backoff.ms", "5");
        for (key, value) in &self.consumer_settings {
            config.set(key, value);
        }
        config
    }

    /// Whether a broker answers there. Blocks.
    ///
    /// # Errors
    /// When none does.
    pub fn reach(&self) -> anyhow::Result<()> {
        let consumer: BaseConsumer = self.consumer_config().create()?;
        let found = consumer.fetch_metadata(None, REACH);
        found.map(drop).with_context(|| format!("no Kafka broker answers at {}", self.bootstrap))
    }

    /// Creates a topic; the broker's reason if it refuses its configuration.
    ///
    /// # Errors
    /// When it cannot be created for another reason.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        config: &[(String, String)],
    ) -> anyhow::Result<Result<(), RDKafkaErrorCode>> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        let answers = admin.create_topics([&topic], &options).await?;
        match answers.into_iter().next().context("no answer for the topic")? {
            Ok(_) => Ok(Ok(())),
            Err((
                _,
                code @ (RDKafkaErrorCode::InvalidConfig | RDKafkaErrorCode::PolicyViolation),
            )) => Ok(Err(code)),
            Err((name, code)) => bail!("{name} was not created: {code}"),
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        for answer in admin.delete_topics(&[name], &AdminOptions::new()).await? {
            answer.map_err(|(name, code)| anyhow::anyhow!("{name} was not deleted: {code}"))?;
        }
        Ok(())
    }

    /// What the broker says a topic holds. Blocks.
    ///
    /// # Errors
    /// When it does not say.
    pub fn watermarks(&self, topic: &str, partitions: i32) -> anyhow::Result<Watermarks> {
        let consumer: BaseConsumer = self.consumer_config().create()?;
        let asked = (0..partitions).map(|partition| {
            consumer
                .fetch_watermarks(topic, partition, ANSWER)
                .with_context(|| format!("offsets of {topic}-{partition}"))
        });
        Ok(Watermarks { partitions: asked.collect::<anyhow::Result<_>>()? })
    }

    /// What it holds, which has to be all that was produced, unless the topic forgets by design. Blocks.
    ///
    /// # Errors
    /// When records are missing, or there are more.
    pub fn check_delivered(
        &self,
        topic: &str,
        partitions: i32,
        produced: u64,
        forgets: bool,
    ) -> anyhow::Result<Watermarks> {
        let found = self.watermarks(topic, partitions)?;
        let ends = u64::try_from(found.ends())?;
        ensure!(ends == produced, "{topic} has offsets for {ends} records, of {produced} produced");
        let gone = found.starts();
        ensure!(gone == 0 || forgets, "{gone} of {produced} records of {topic} are gone");
        Ok(found)
    }
}
