//! All topics at once, as Metadata answers them: encoded page by page, and kept for as long as the catalogue does not change.
//!
//! **Invariant:** one list is built at a time; whoever asks meanwhile takes that one, if it was begun after they asked.
//! **Invariant:** a list is charged to the answers' memory while it is built; what is kept takes at most
//! [`limits::KAFKA_TOPIC_LISTING_BYTES`], and what is larger stays charged until it is sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::protocol::Encodable as _;
use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;

use super::{Kafka, metadata};
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::{AnswerMemory, Charge};
use crate::kafka::parts::Parts;

/// The lists that are kept, newest last.
#[derive(Default)]
pub struct Listings {
    kept: Mutex<VecDeque<Listing>>,
    building: tokio::sync::Mutex<()>,
}

/// One list. Cheap to clone.
#[derive(Clone)]
pub(super) struct Listing {
    /// The catalogue's version when it was begun.
    catalogue: u64,
    /// The version of Metadata.
    version: i16,
    topics: Arc<Encoded>,
}

struct Encoded {
    count: usize,
    pages: Vec<Bytes>,
    bytes: usize,
    /// Of a list that is not kept.
    charge: Mutex<Charge>,
}

impl Listing {
    /// What the list takes of the answers' memory; the first who asks gets it.
    pub(super) fn memory(&self) -> Charge {
        let mut charge = self.topics.charge.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *charge)
    }
}

impl Listings {
    /// All topics, as Metadata in `version` has them.
    pub(super) async fn topics(
        &self,
        kafka: &Kafka,
        version: i16,
    ) -> Result<Listing, ResponseError> {
        let asked_at = kafka.topics.version();
        if let Some(kept) = self.find(version, asked_at) {
            return Ok(kept);
        }
        let _one_at_a_time = self.building.lock().await;
        if let Some(kept) = self.find(version, asked_at) {
            return Ok(kept);
        }
        let built = build(kafka, version).await?;
        if built.topics.bytes <= limits::KAFKA_TOPIC_LISTING_BYTES {
            drop(built.memory());
            self.keep(built.clone());
        }
        Ok(built)
    }

    fn find(&self, version: i16, not_before: u64) -> Option<Listing> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &&Listing| kept.version == version && kept.catalogue >= not_before;
        kept.iter().find(fits).cloned()
    }

    fn keep(&self, built: Listing) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|old| old.version != built.version && old.catalogue == built.catalogue);
        kept.push_back(built);
        let bytes =
            |kept: &VecDeque<Listing>| -> usize { kept.iter().map(|list| list.topics.bytes).sum() };
        while kept.len() > limits::KAFKA_TOPIC_LISTINGS
            || bytes(&kept) > limits::KAFKA_TOPIC_LISTING_BYTES
        {
            kept.pop_front();
        }
    }
}

/// One at a time, so that it may wait for memory while it holds some.
async fn build(kafka: &Kafka, version: i16) -> Result<Listing, ResponseError> {
    let failed = |error: &dyn std::fmt::Display, answer: ResponseError| {
        tracing::warn!(%error, "the topics cannot be listed");
        answer
    };
    let catalogue = kafka.topics.version();
    let (mut count, mut bytes, mut pages) = (0, 0, Vec::new());
    let mut memory = AnswerMemory::new(&kafka.answer_memory);
    let mut after: Option<KafkaTopic> = None;
    loop {
        let listed = kafka.topics.list(after.as_ref(), limits::TOPIC_PAGE).await;
        let listed = listed.map_err(|error| failed(&error, error.kafka()))?;
        let most = listed.topics.iter().map(|topic| metadata::encoded_bytes(topic)).sum();
        memory.grow_alone(most).await.map_err(|error| failed(&error, error.kafka()))?;
        let mut page = BytesMut::new();
        for topic in &listed.topics {
            let topic = metadata::describe(kafka, version, topic);
            let encoded = topic.encode(&mut page, version);
            encoded.map_err(|error| failed(&error, ResponseError::UnknownServerError))?;
        }
        count += listed.topics.len();
        bytes += page.len();
        // Without the room that the buffer grew beyond its content.
        pages.push(Bytes::copy_from_slice(&page));
        match listed.topics.last() {
            Some(last) if listed.more => after = Some(last.name.clone()),
            _ => break,
        }
    }
    let charge = Mutex::new(memory.sending(bytes));
    let topics = Encoded { count, pages, bytes, charge };
    Ok(Listing { catalogue, version, topics: Arc::new(topics) })
}

/// The body of an answer: `response`, which has no topics, with the topics of `listing`.
///
/// # Errors
/// The response cannot be encoded.
pub(super) fn with_topics(
    version: i16,
    response: &MetadataResponse,
    listing: &Listing,
) -> anyhow::Result<Parts> {
    let mut empty = BytesMut::new();
    response.encode(&mut empty, version)?;
    // What follows the topics: authorized operations (8 to 10), error code (13), tagged fields (from 9 on).
    let tail_bytes = match version {
        ..=7 => 0,
        8 => 4,
        9 | 10 => 5,
        11 | 12 => 1,
        13.. => 3,
    };
    // A count of no topics.
    let count_bytes = if version >= 9 { 1 } else { 4 };
    let tail = empty.split_off(empty.len().saturating_sub(tail_bytes));
    empty.truncate(empty.len().saturating_sub(count_bytes));
    let Encoded { count, pages, .. } = &*listing.topics;
    if version >= 9 {
        put_varint(&mut empty, u32::try_from(*count)?.saturating_add(1));
    } else {
        empty.put_i32(i32::try_from(*count)?);
    }
    let mut parts = Parts::default();
    parts.push(empty.freeze());
    for page in pages {
        parts.push(page.clone());
    }
    parts.push(tail.freeze());
    Ok(parts)
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}
