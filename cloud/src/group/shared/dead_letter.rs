//! Records that a group gives up: each goes into the group's dead-letter topic with its key, value and headers, and with headers that say
//! where it was and why it is there.

use async_trait::async_trait;
use robustmq_common::ids::{KafkaTopic, TopicId};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, Record, RecordBatch};

use super::pools::{Pools, SharedPool};
use crate::log::look_into;

/// Where records go that are given up.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Appends `batch` to `topic`; it is durable when this returns.
    ///
    /// # Errors
    /// Why it is not: nothing is given up then.
    async fn bury(&self, topic: &KafkaTopic, batch: RecordBatch) -> Result<(), String>;

    /// The name of a topic, for the headers of what is given up.
    async fn name(&self, topic: TopicId) -> Option<String>;
}

/// Puts every record of a batch into `topic`, in one batch.
pub(super) async fn bury(
    pools: &Pools,
    pool: &SharedPool,
    topic: &KafkaTopic,
    batch: &RecordBatch,
    deliveries: u32,
) -> Result<(), String> {
    let letters = pools.dead_letters().ok_or("this broker has no dead-letter topics")?;
    let from = letters.name(pool.keys().topic).await.unwrap_or_default();
    let partition = pool.keys().partition.0.to_string();
    let deliveries = deliveries.to_string();
    let reasons = [
        ("robustmq.group", pool.group()),
        ("robustmq.topic", &from),
        ("robustmq.partition", &partition),
        ("robustmq.delivery-count", &deliveries),
    ];
    let build = |records: robustmq_common::record::Records| -> Result<RecordBatch, String> {
        let mut letters = BatchBuilder::new(Compression::None);
        for record in records {
            push(&mut letters, &record.map_err(|error| error.to_string())?, &reasons)?;
        }
        letters.build().map_err(|error| error.to_string())
    };
    let built = look_into(batch, build).await.map_err(|error| error.to_string())?;
    letters.bury(topic, built.map_err(|error| error.to_string())??).await
}

fn push(
    letters: &mut BatchBuilder,
    record: &Record,
    reasons: &[(&str, &str)],
) -> Result<(), String> {
    let offset = record.offset.0.to_string();
    let names: Vec<_> =
        record.headers.iter().map(|header| String::from_utf8_lossy(&header.key)).collect();
    let own = names.iter().zip(&record.headers);
    let own = own.map(|(name, header)| (name.as_ref(), header.value.as_deref()));
    let place = ("robustmq.offset", offset.as_str());
    let added = reasons.iter().chain(std::iter::once(&place));
    let added = added.map(|(name, value)| (*name, Some(value.as_bytes())));
    let headers: Vec<(&str, Option<&[u8]>)> =
        own.chain(added).take(limits::RECORD_HEADERS).collect();
    let letter = NewRecord {
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    };
    letters.push(&letter).map_err(|error| error.to_string())
}
