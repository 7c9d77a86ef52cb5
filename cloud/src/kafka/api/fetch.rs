//! Fetch (1), versions 4-16; topic ids from 13 on (KIP-516).
//!
//! Waits on the partitions' own signals until `min_bytes` are there or `max_wait_ms` has passed; nothing is polled. At least
//! one whole batch is returned if there is one, whatever the limits say (KIP-74). What was read stays while more is waited for,
//! so that no byte is read twice.
//!
//! Fetch sessions (KIP-227) are declined by answering session id 0: clients then send full requests. No transactions are
//! open ever, so the last stable offset is the high watermark and no transaction is aborted. A request of a replica is
//! served as a consumer's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::select_all;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::{FetchRequest, TopicName};
use robustmq_common::ids::Offset;
use robustmq_common::limits;
use robustmq_common::record::WireBatch;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::fetch_answer::{self, PartitionAnswer, TopicAnswer};
use super::resolve::{self, TopicRef, check_epoch};
use super::{Answer, Frame, Kafka, RequestError, decode, fetch_shared, frame_parts};
use crate::group::shared::cursor::CursorOffset;
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::{Budget, Charge};
use crate::log::{Partition, Visible};

/// One partition of the request.
struct Target {
    index: i32,
    max_bytes: usize,
    reader: Result<Reader, ResponseError>,
}

struct Reader {
    partition: Arc<Partition>,
    /// Told before each read, so that no append between a read and the wait is missed.
    changes: watch::Receiver<Visible>,
    /// There may be something to read.
    is_stale: bool,
    /// What it begins with is on its way from the object store: the next request will find it.
    is_on_its_way: bool,
    /// Where the next read goes on.
    next: Offset,
    batches: Vec<WireBatch>,
    bytes: usize,
    /// The first batch of an answer may well be as large as this, whatever the request's limits say.
    largest_batch: usize,
}

struct TopicTargets {
    name: TopicName,
    id: Uuid,
    targets: Vec<Target>,
    /// Partitions that are asked for at a cursor of a shared group.
    shared: Vec<(i32, fetch_shared::Target)>,
}

pub(super) async fn answer(kafka: &Kafka, frame: &Frame) -> Result<Answer, RequestError> {
    let request: FetchRequest = decode(frame)?;
    let (version, api) = (frame.version, frame.api.key);
    let mut memory = Charge::default();
    let (error_code, topics) = match session_error(&request) {
        Some(error) => (error.code(), Vec::new()),
        None => (0, fetch(kafka, version, request, &mut memory).await),
    };
    let body = fetch_answer::encode(version, error_code, &topics);
    let body =
        body.map_err(|error| RequestError::Encode { api, version, reason: error.to_string() })?;
    frame_parts(frame, body, memory)
}

/// Only requests outside of a session, or that ask for a new one, make sense here.
fn session_error(request: &FetchRequest) -> Option<ResponseError> {
    match (request.session_id, request.session_epoch) {
        (0, -1 | 0) => None,
        (0, _) => Some(ResponseError::InvalidFetchSessionEpoch),
        (_, -1) => None, // closes a session that does not exist
        _ => Some(ResponseError::FetchSessionIdNotFound),
    }
}

async fn fetch(
    kafka: &Kafka,
    version: i16,
    request: FetchRequest,
    memory: &mut Charge,
) -> Vec<TopicAnswer> {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(limits::FETCH_WAIT);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
    let read_committed = request.isolation_level == 1;
    let mut pass = Pass { max_bytes: max_bytes.min(limits::FETCH_RESPONSE_BYTES), total: 0 };
    let mut topics = open(kafka, version, request).await;
    warm(kafka, &mut topics, pass.max_bytes).await;
    if topics.iter().any(|topic| !topic.shared.is_empty()) {
        pass.read(kafka, &mut topics, memory).await;
        let is_due = pass.total > 0 || has_failed(&topics);
        let until = if is_due { Instant::now() } else { deadline };
        let targets = topics.iter_mut().flat_map(|topic| &mut topic.shared);
        let targets = targets.map(|(_, target)| target).collect();
        fetch_shared::deliver(kafka, targets, pass.max_bytes, until).await;
    } else {
        pass.read_until(kafka, &mut topics, memory, min_bytes, deadline).await;
    }
    kafka.metrics.fetched_bytes.inc_by(pass.total as u64);
    count(kafka, &topics);
    let finish = |topic| finish_topic(kafka, topic, read_committed, memory);
    topics.into_iter().map(finish).collect()
}

fn has_failed(topics: &[TopicTargets]) -> bool {
    topics.iter().flat_map(|topic| &topic.targets).any(|target| target.reader.is_err())
}

/// Has what partitions begin with fetched that is not in memory, of all at once. Those of which it does not come in time are left out of this
/// answer, so that they hold up no other.
async fn warm(kafka: &Kafka, topics: &mut [TopicTargets], max_bytes: usize) {
    let most =
        kafka.log.archive().map_or(limits::tier::FETCHES, |archive| archive.blocks_at_once());
    let most = (max_bytes / limits::tier::BLOCK_BYTES).clamp(1, most);
    let readers = topics.iter_mut().flat_map(|topic| &mut topic.targets);
    let readers = readers.filter_map(|target| target.reader.as_mut().ok());
    let (cold, warm): (Vec<_>, Vec<_>) =
        readers.partition(|reader| reader.partition.is_cold(reader.next));
    let has_some =
        warm.iter().any(|reader| reader.next < reader.partition.offsets().high_watermark);
    let mut deadline = Instant::now();
    deadline += if has_some { limits::tier::FETCH_GRACE } else { limits::tier::FETCH_WAIT };
    let mut warming = FuturesUnordered::new();
    for (index, reader) in cold.into_iter().enumerate() {
        reader.is_on_its_way = true;
        if index < most {
            warming.push(warm_one(reader));
        }
    }
    while let Ok(Some(reader)) = tokio::time::timeout_at(deadline, warming.next()).await {
        // What went wrong is told by the read.
        reader.is_on_its_way = false;
        deadline = deadline.min(Instant::now() + limits::tier::FETCH_GRACE);
    }
}

/// Goes on when the request is answered: the next one asks for the same.
async fn warm_one(reader: &mut Reader) -> &mut Reader {
    let (partition, next) = (Arc::clone(&reader.partition), reader.next);
    if partition.is_read_only() {
        // What it has begun to load comes whoever waits for that.
        drop(partition.warm(next).await);
    } else {
        drop(tokio::spawn(async move { partition.warm(next).await }).await);
    }
    reader
}

/// Counts what the answer holds for each topic.
fn count(kafka: &Kafka, topics: &[TopicTargets]) {
    for target in topics.iter().flat_map(|topic| &topic.targets) {
        let Ok(reader) = &target.reader else { continue };
        if reader.bytes > 0 {
            let records = reader.batches.iter().map(|batch| u64::from(batch.records_count())).sum();
            kafka.traffic.fetched(reader.partition.keys().topic, records, reader.bytes);
        }
    }
}

async fn open(kafka: &Kafka, version: i16, request: FetchRequest) -> Vec<TopicTargets> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let which = match version {
            ..=12 => TopicRef::Name(&asked.topic),
            _ => TopicRef::Id(asked.topic_id),
        };
        let topic = resolve::topic(kafka, which).await;
        let mut targets = Vec::with_capacity(asked.partitions.len());
        let mut shared = Vec::new();
        for partition in &asked.partitions {
            let max_bytes = usize::try_from(partition.partition_max_bytes).unwrap_or(0);
            if let (Ok(topic), Some(at)) = (&topic, CursorOffset::decode(partition.fetch_offset))
                && let Ok(found) = resolve::partition(kafka, topic, partition.partition).await
            {
                let target = fetch_shared::Target::new(kafka, at, found, max_bytes);
                shared.push((partition.partition, target));
                continue;
            }
            let reader = match &topic {
                Ok(topic) => open_reader(kafka, topic, partition).await,
                Err(error) => Err(*error),
            };
            targets.push(Target { index: partition.partition, max_bytes, reader });
        }
        topics.push(TopicTargets { name: asked.topic, id: asked.topic_id, targets, shared });
    }
    topics
}

async fn open_reader(
    kafka: &Kafka,
    topic: &crate::topics::Topic,
    asked: &FetchPartition,
) -> Result<Reader, ResponseError> {
    let partition = resolve::partition(kafka, topic, asked.partition).await?;
    check_epoch(asked.current_leader_epoch, partition.offsets().leader_epoch)?;
    let changes = partition.subscribe();
    let next = Offset(asked.fetch_offset);
    let largest_batch = topic.config.max_message_bytes.min(limits::MAX_MESSAGE_BYTES);
    let (batches, bytes) = (Vec::new(), 0);
    Ok(Reader {
        partition,
        changes,
        is_stale: true,
        is_on_its_way: false,
        next,
        batches,
        bytes,
        largest_batch,
    })
}

/// The reader whose signal ended the wait: waiting for it has marked it as seen.
fn mark_stale(topics: &mut [TopicTargets], woken: usize) {
    let targets = topics.iter_mut().flat_map(|topic| &mut topic.targets);
    if let Some(reader) = targets.filter_map(|target| target.reader.as_mut().ok()).nth(woken) {
        reader.is_stale = true;
    }
}

/// The bytes that one answer may take, and has taken.
struct Pass {
    max_bytes: usize,
    total: usize,
}

impl Pass {
    /// Reads until there are `min_bytes`, something failed, or it is time.
    async fn read_until(
        &mut self,
        kafka: &Kafka,
        topics: &mut [TopicTargets],
        memory: &mut Charge,
        min_bytes: usize,
        deadline: Instant,
    ) {
        loop {
            let full = self.read(kafka, topics, memory).await;
            let is_enough = full || has_failed(topics) || self.total >= min_bytes;
            if is_enough || Instant::now() >= deadline {
                return;
            }
            let changes: Vec<_> = topics
                .iter_mut()
                .flat_map(|topic| &mut topic.targets)
                .filter_map(|target| target.reader.as_mut().ok())
                .map(|reader| Box::pin(reader.changes.changed()))
                .collect();
            let changed = async {
                // A request for nothing waits out its time, as in Apache Kafka.
                if changes.is_empty() {
                    return std::future::pending().await;
                }
                let (_, woken, _) = select_all(changes).await;
                woken
            };
            let woken = tokio::select! {
                woken = changed => Some(woken),
                () = tokio::time::sleep_until(deadline) => None,
                () = kafka.shutdown.cancelled() => return,
            };
            if let Some(woken) = woken {
                mark_stale(topics, woken);
            }
        }
    }

    /// Reads what has become visible since the last pass. Says whether the answer is full.
    async fn read(
        &mut self,
        kafka: &Kafka,
        topics: &mut [TopicTargets],
        memory: &mut Charge,
    ) -> bool {
        for target in topics.iter_mut().flat_map(|topic| &mut topic.targets) {
            let Ok(reader) = &mut target.reader else { continue };
            let is_new = reader.is_stale || reader.changes.has_changed().unwrap_or(true);
            if reader.is_on_its_way || !is_new {
                continue;
            }
            reader.is_stale = false;
            reader.changes.mark_unchanged();
            let left = self.max_bytes.saturating_sub(self.total);
            let want = left.min(target.max_bytes.saturating_sub(reader.bytes));
            if want == 0 && self.total > 0 {
                return true;
            }
            let share = share_bytes(&kafka.answer_memory);
            let is_cut = share < want;
            let want = want.min(share);
            let most = if self.total == 0 { want.max(reader.largest_batch) } else { want };
            let charge = match kafka.answer_memory.try_charge(most) {
                Some(charge) => charge,
                // Enough was read to make progress; the rest comes with the next request.
                None if self.total > 0 => return true,
                None => match kafka.answer_memory.charge(most, limits::KAFKA_MEMORY_WAIT).await {
                    Ok(charge) => charge,
                    Err(error) => {
                        tracing::warn!(%error, "a Fetch found no memory for its answer");
                        return true;
                    }
                },
            };
            match self.read_one(kafka, reader, want, charge, memory).await {
                Ok(true) if is_cut && self.total > 0 => return true,
                Ok(true) => {}
                Ok(false) => return true,
                Err(error) => target.reader = Err(error),
            }
        }
        false
    }

    /// Reads one partition. Says whether there is room for more.
    async fn read_one(
        &mut self,
        kafka: &Kafka,
        reader: &mut Reader,
        want: usize,
        mut charge: Charge,
        memory: &mut Charge,
    ) -> Result<bool, ResponseError> {
        let read = reader.partition.read_wire(reader.next, want).await.map_err(|e| e.kafka())?;
        let bytes = read.bytes();
        if bytes > want && self.total > 0 {
            // A first batch larger than the room that is left: only the first one of an answer may be.
            return Ok(false);
        }
        if bytes > charge.bytes() {
            // The topic takes larger batches than is usual. What is held is given back first, so that none wait for each other.
            drop(charge);
            charge = match kafka.answer_memory.charge(bytes, limits::KAFKA_MEMORY_WAIT).await {
                Ok(charge) => charge,
                Err(error) => {
                    tracing::warn!(%error, "a Fetch found no memory for a large batch");
                    return Ok(false);
                }
            };
        }
        if let Some(last) = read.batches.last() {
            reader.next = last.next_offset().map_err(|error| {
                tracing::error!(%error, "a stored batch cannot be read");
                ResponseError::KafkaStorageError
            })?;
        }
        reader.batches.extend(read.batches);
        reader.bytes += bytes;
        self.total += bytes;
        charge.shrink_to(bytes);
        memory.merge(charge);
        Ok(self.total < self.max_bytes)
    }
}

/// What one read may take: a part of what is left, so that clients that are slow to take their answers leave the others
/// something.
pub(super) fn share_bytes(memory: &Budget) -> usize {
    (memory.available_bytes() / limits::FETCH_MEMORY_SHARE).max(limits::FETCH_LEAST_SHARE_BYTES)
}

fn finish_topic(
    kafka: &Kafka,
    topic: TopicTargets,
    read_committed: bool,
    memory: &mut Charge,
) -> TopicAnswer {
    let finish = |target: Target| finish_partition(target, read_committed);
    let mut partitions: Vec<_> = topic.targets.into_iter().map(finish).collect();
    for (index, target) in topic.shared {
        partitions.push(target.answer(kafka, index, read_committed, memory));
    }
    TopicAnswer { name: topic.name, id: topic.id, partitions }
}

fn finish_partition(target: Target, read_committed: bool) -> PartitionAnswer {
    let reader = match target.reader {
        Ok(reader) => reader,
        Err(error) => {
            return PartitionAnswer::failed(target.index, error);
        }
    };
    let offsets = reader.partition.offsets();
    PartitionAnswer {
        index: target.index,
        error_code: 0,
        high_watermark: offsets.high_watermark.0,
        last_stable_offset: offsets.last_stable_offset.0,
        log_start_offset: offsets.log_start_offset.0,
        read_committed,
        pieces: reader.batches.into_iter().flat_map(WireBatch::into_pieces).collect(),
    }
}
