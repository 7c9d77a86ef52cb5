//! Records that a group gives up: each goes into the group's dead-letter topic with its key, value and headers, and with headers that say
//! where it was and why it is there.
//!
//! **Invariant:** a record of the dead-letter topic itself goes nowhere when it is given up: the group would be given it again for ever.

use async_trait::async_trait;
use robustmq_common::ids::{KafkaTopic, Offset, TopicId};
use robustmq_common::limits;
use robustmq_common::record::{
    BatchBuilder, BatchError, Compression, NewRecord, Record, RecordBatch, Records,
};

use super::deliver::{Cut, DeliverError, OFFSET_HEADER, Wanted, cut};
use super::pool::Offer;
use super::pools::{Pools, SharedPool};
use crate::log::{Partition, look_into};

/// Where records go that are given up.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Appends `batch` to `topic`; it is durable when this returns.
    ///
    /// # Errors
    /// Why it is not: nothing is given up then.
    async fn bury(&self, topic: &KafkaTopic, batch: RecordBatch) -> Result<(), String>;

    /// Whether records can be put into `topic`, and its id if it is there already.
    ///
    /// # Errors
    /// Why they cannot.
    async fn check(&self, topic: &KafkaTopic) -> Result<Option<TopicId>, String>;

    /// The name of a topic, for the headers of what is given up.
    async fn name(&self, topic: TopicId) -> Option<String>;
}

/// Where what a pool gives up goes, if anywhere.
pub(super) async fn topic_of(pools: &Pools, pool: &SharedPool) -> Option<KafkaTopic> {
    let topic = pool.config().dead_letter_topic.clone()?;
    let own = match pools.dead_letters() {
        Some(letters) => letters.name(pool.keys().topic).await,
        None => None,
    };
    (own.as_deref() != Some(topic.as_str())).then_some(topic)
}

/// Gives up what is offered, or a part of it: puts it into the dead-letter topic first, if the group has one. If the broker dies in
/// between, it is there twice.
pub(super) async fn give_up(
    pools: &Pools,
    pool: &SharedPool,
    partition: &Partition,
    offer: &Offer,
) -> Result<(), DeliverError> {
    let into = topic_of(pools, pool).await;
    let cut = bury(pools, pool, partition, offer, into.as_ref()).await?;
    if !cut.offsets.is_empty() {
        let topic = topic_name(pools, pool.keys().topic).await;
        tracing::warn!(
            group = pool.group(),
            topic,
            partition = pool.keys().partition.0,
            from = cut.offsets.start,
            to = cut.offsets.end,
            deliveries = offer.deliveries,
            dead_letter_topic = into.as_ref().map(KafkaTopic::as_str),
            "records are given up that no member acknowledges"
        );
    }
    if let Some(mut state) = pool.state() {
        if let Some(hole) = cut.hole {
            state.pool.skip(hole);
        }
        state.pool.reject(cut.offsets);
        state.touch();
    }
    Ok(pools.persist(pool).await?)
}

/// A topic as an operator knows it: by its name, or by its id if it has been deleted.
async fn topic_name(pools: &Pools, topic: TopicId) -> String {
    let name = match pools.dead_letters() {
        Some(letters) => letters.name(topic).await,
        None => None,
    };
    name.unwrap_or_else(|| topic.to_string())
}

/// Puts what is offered, or a part of it, into a dead-letter topic, if there is one for it. Returns what that was.
pub(super) async fn bury(
    pools: &Pools,
    pool: &SharedPool,
    partition: &Partition,
    offer: &Offer,
    into: Option<&KafkaTopic>,
) -> Result<Cut, DeliverError> {
    let read = partition.read(Offset(offer.offsets.start), 1).await?;
    let most = offer.offsets.end - offer.offsets.start;
    let cut = cut(read.batches, &offer.offsets, most, Wanted::Everything).await?;
    let Some(into) = into else { return Ok(cut) };
    for batch in &cut.batches {
        if let Err(reason) = put(pools, pool, into, batch, offer.deliveries).await {
            return Err(DeliverError::DeadLetter {
                group: pool.group().to_owned(),
                topic: topic_name(pools, pool.keys().topic).await,
                partition: pool.keys().partition,
                into: into.as_str().to_owned(),
                reason,
            });
        }
    }
    Ok(cut)
}

/// Puts every record of a batch into `topic`, in one batch.
async fn put(
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
    let build = |records: Records| -> Result<Result<RecordBatch, String>, BatchError> {
        let mut letters = BatchBuilder::new(Compression::None);
        for record in records {
            if let Err(error) = push(&mut letters, &record?, &reasons) {
                return Ok(Err(error));
            }
        }
        Ok(letters.build().map_err(|error| error.to_string()))
    };
    let built = look_into(batch, build).await.map_err(|error| error.to_string())?;
    let error = match built.and_then(|built| built) {
        Ok(built) => return letters.bury(topic, built?).await,
        Err(error) => error.to_string(),
    };
    let buried = letters.bury(topic, unreadable(batch, &error, &reasons, true)?).await;
    if buried.is_ok() {
        return buried;
    }
    // With what is said of it, it may be larger than a batch may be.
    letters.bury(topic, unreadable(batch, &error, &reasons, false)?).await
}

/// One letter for a batch whose records cannot be read; its value is the batch as it was produced.
fn unreadable(
    batch: &RecordBatch,
    error: &str,
    reasons: &[(&str, &str)],
    with_value: bool,
) -> Result<RecordBatch, String> {
    let offset = batch.base_offset().0.to_string();
    let said = [(OFFSET_HEADER, offset.as_str()), ("robustmq.error", error)];
    let headers = reasons.iter().chain(&said);
    let headers: Vec<_> = headers.map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
    let value = with_value.then(|| batch.as_bytes().as_ref());
    let letter = NewRecord { value, headers: &headers, ..NewRecord::default() };
    let mut letters = BatchBuilder::new(Compression::None);
    letters.push(&letter).map_err(|error| error.to_string())?;
    letters.build().map_err(|error| error.to_string())
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
    let place = (OFFSET_HEADER, offset.as_str());
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

#[cfg(test)]
mod tests;
