//! What ingest needs of the log and the catalogue, as a seam: few calls, so that tests can stand in for the catalogue.

use async_trait::async_trait;
use robustmq_common::ids::{EdgeSeq, KafkaTopic, PartitionIndex, TopicId};
use robustmq_common::record::RecordBatch;

use crate::log::{
    AppendContext, AppendError, AppendRules, Log, LogError, Origin, OriginKey, StorageMode,
};

/// A topic as ingest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestTopic {
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has, at least one.
    pub partitions: i32,
    /// The largest record batch it takes, in bytes (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// Whether the broker's time replaces the records' (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    /// Whether each record needs a key (`cleanup.policy` has `compact`).
    pub compacted: bool,
    /// When an append is durable (`robustmq.storage.mode`).
    pub storage: StorageMode,
    /// Whether producers may write to it: dataset topics are read-only.
    pub writable: bool,
}

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionIndex,
}

/// Why the log did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFailure {
    /// The topic or the partition is not there (any more).
    #[error("the topic was deleted")]
    TopicGone,
    /// The batch is larger than the topic takes.
    #[error("the batch is larger than the topic takes")]
    TooLarge,
    /// The name cannot be a topic.
    #[error("the topic cannot be created: {0}")]
    IllegalTopic(String),
    /// Not now: trying again may help.
    #[error("the log is not available: {0}")]
    Unavailable(String),
}

/// The log and the catalogue, for ingest.
#[async_trait]
pub trait IngestLog: Send + Sync + 'static {
    /// The topic with this name, if there is one.
    ///
    /// # Errors
    /// [`LogFailure::Unavailable`].
    async fn topic(&self, name: &KafkaTopic) -> Result<Option<IngestTopic>, LogFailure>;

    /// Creates the topic, or gives the one that somebody else just created. `mqtt_topic` is kept as `robustmq.mqtt.topic`.
    ///
    /// # Errors
    /// [`LogFailure::IllegalTopic`], [`LogFailure::Unavailable`].
    async fn create(
        &self,
        name: &KafkaTopic,
        mqtt_topic: Option<&str>,
    ) -> Result<IngestTopic, LogFailure>;

    /// The partitions of these topics.
    fn log(&self) -> &Log;

    /// Told of each batch that was appended, for counting.
    fn appended(&self, _partition: PartitionId, _records: u64, _bytes: usize) {}

    /// The last sequence of `origin` that the partition has, durably. `None` if it never took one.
    ///
    /// # Errors
    /// [`LogFailure::TopicGone`], [`LogFailure::Unavailable`].
    async fn applied(
        &self,
        partition: PartitionId,
        origin: &OriginKey,
    ) -> Result<Option<EdgeSeq>, LogFailure> {
        let partition = self.log().partition(partition.topic, partition.partition).await?;
        partition.ready().await?;
        partition.origin_applied(origin).await.map_err(unavailable)
    }

    /// Appends, and notes in the same atomic write that the partition has the lane up to `origin.last_seq`. Returns when that is durable in the
    /// topic's mode.
    ///
    /// # Errors
    /// All of [`LogFailure`] but [`LogFailure::IllegalTopic`].
    async fn append(
        &self,
        partition: PartitionId,
        batch: RecordBatch,
        origin: Origin,
        limits: AppendLimits,
    ) -> Result<(), LogFailure> {
        let id = partition;
        let (bytes, records) = (batch.size(), u64::try_from(batch.records_count()).unwrap_or(0));
        let partition = self.log().partition(id.topic, id.partition).await?;
        let rules = AppendRules {
            max_batch_bytes: limits.max_message_bytes,
            log_append_time: limits.log_append_time,
            storage: limits.storage,
        };
        let context = AppendContext { now_ms: limits.now_ms, rules, origin: Some(origin) };
        for _ in 0..APPEND_ATTEMPTS {
            partition.ready().await?;
            match partition.append(batch.clone(), &context) {
                Ok(pending) => {
                    pending.durable().await.map_err(failure)?;
                    self.appended(id, records, bytes);
                    return Ok(());
                }
                Err(AppendError::NotReady) => {}
                Err(AppendError::OriginNotLoaded) => {
                    if let Some(origin) = &context.origin {
                        partition.origin_applied(&origin.key).await.map_err(unavailable)?;
                    }
                }
                Err(error) => return Err(failure(error)),
            }
        }
        Err(LogFailure::Unavailable("the partition was not ready in time".to_owned()))
    }
}

/// What a topic's configuration and the clock say about an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendLimits {
    /// The largest record batch it takes, in bytes (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// Whether the broker's time replaces the records' (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    /// When an append is durable (`robustmq.storage.mode`).
    pub storage: StorageMode,
    /// The broker's wall clock, milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// How often an append is tried on a partition that says that it is not ready.
const APPEND_ATTEMPTS: usize = 16;

fn unavailable(error: impl ToString) -> LogFailure {
    LogFailure::Unavailable(error.to_string())
}

fn failure(error: AppendError) -> LogFailure {
    match error {
        AppendError::TooLarge { .. } => LogFailure::TooLarge,
        AppendError::Dropped(_) => LogFailure::TopicGone,
        AppendError::ReadOnly => LogFailure::IllegalTopic(error.to_string()),
        error => unavailable(error),
    }
}

impl From<LogError> for LogFailure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Dropped(_) => Self::TopicGone,
            error => unavailable(error),
        }
    }
}
