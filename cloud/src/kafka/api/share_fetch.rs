//! ShareFetch (78), version 1 (KIP-932): acknowledges what was acquired, and acquires more.
//!
//! Answered as soon as there are records on one of the session's partitions, or when the client has waited as long as it wants to.
//! `max_records` is kept to the record on each partition, and further ones are left out once it is reached; batches go out whole, and
//! the client drops what it has not acquired. `min_bytes` and `batch_size` are not looked at. The answer is one buffer, so records are
//! copied once on their way out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::FutureExt as _;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_fetch_response::{
    AcquiredRecords, PartitionData, ShareFetchableTopicResponse,
};
use kafka_protocol::messages::{ShareFetchRequest, ShareFetchResponse};
use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::time::Instant;

use super::fetch::share_bytes;
use super::resolve::{self, TopicRef};
use super::share_session::{self, Acknowledgements, FIRST, LAST};
use super::{Answer, Frame, Kafka, Peer, RequestError, decode, encode};
use crate::group::share::members::SessionError;
use crate::group::shared::acquire::{Acquirer, Acquisition};
use crate::group::shared::deliver::DeliverError;
use crate::group::shared::members::Assigned;
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::Charge;
use crate::log::Partition;

/// What is answered for a partition.
type Answers = BTreeMap<(TopicId, i32), PartitionData>;

pub(super) async fn answer(
    kafka: &Kafka,
    peer: &Peer,
    frame: &Frame,
) -> Result<Answer, RequestError> {
    let mut memory = Charge::default();
    let response = match handle(kafka, peer, decode(frame)?, &mut memory).await {
        Ok(response) => response,
        Err(error) => ShareFetchResponse::default().with_error_code(error.code()),
    };
    let encoded = encode(frame.api.key, frame.version, frame.correlation_id, &response)?;
    drop(response);
    memory.shrink_to(encoded.bytes.remaining());
    Ok(Answer { _memory: memory, ..encoded })
}

async fn handle(
    kafka: &Kafka,
    peer: &Peer,
    mut request: ShareFetchRequest,
    memory: &mut Charge,
) -> Result<ShareFetchResponse, ResponseError> {
    let group = request.group_id.as_ref().map(|group| &group.0);
    let (group, member_id) = share_session::who(group, request.member_id.as_ref())?;
    let acknowledgements = take_acknowledgements(&mut request);
    let partitions = match session(kafka, peer, (&group, &member_id), &request, &acknowledgements) {
        Ok(partitions) => partitions,
        Err(error) => {
            tracing::debug!(group, member_id, %error, "ShareFetch refused");
            return Err(error.kafka());
        }
    };
    let mut answers = Answers::new();
    let done = share_session::acknowledge(kafka, (&group, &member_id), acknowledgements).await;
    for (at, error) in done {
        let code = error.map_or(0, |error| error.code());
        answers.insert(at, blank(at.1).with_acknowledge_error_code(code));
    }
    let share = kafka.shared.share();
    let lock = share.lock_duration(&group).await.map_err(|error| error.kafka())?;
    if request.share_session_epoch == LAST {
        share.end_session(&group, &member_id);
    } else {
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let wants = Wants {
            until: Instant::now() + wait.min(limits::FETCH_WAIT),
            max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
            max_records: u64::try_from(request.max_records).unwrap_or(0),
        };
        let who = (group.as_str(), member_id.as_str());
        acquire(kafka, who, &partitions, &wants, &mut answers, memory).await;
    }
    let responses = share_session::by_topic(answers).into_iter().map(|(topic, partitions)| {
        ShareFetchableTopicResponse::default().with_topic_id(topic).with_partitions(partitions)
    });
    Ok(ShareFetchResponse::default()
        .with_acquisition_lock_timeout_ms(i32::try_from(lock.as_millis()).unwrap_or(i32::MAX))
        .with_responses(responses.collect()))
}

fn blank(index: i32) -> PartitionData {
    PartitionData::default().with_partition_index(index).with_records(Some(Bytes::new()))
}

fn take_acknowledgements(request: &mut ShareFetchRequest) -> Acknowledgements {
    let mut acknowledgements = Acknowledgements::new();
    for topic in &mut request.topics {
        for partition in &mut topic.partitions {
            let batches = std::mem::take(&mut partition.acknowledgement_batches);
            if batches.is_empty() {
                continue;
            }
            let at = (TopicId(topic.topic_id), partition.partition_index);
            let batches = batches.into_iter();
            let batches = batches.map(|b| (b.first_offset, b.last_offset, b.acknowledge_types));
            acknowledgements.entry(at).or_default().extend(batches);
        }
    }
    acknowledgements
}

/// Begins, goes on with, or ends the share session: returns what it fetches.
fn session(
    kafka: &Kafka,
    peer: &Peer,
    (group, member_id): (&str, &str),
    request: &ShareFetchRequest,
    acknowledgements: &Acknowledgements,
) -> Result<BTreeSet<Assigned>, SessionError> {
    let share = kafka.shared.share();
    let epoch = request.share_session_epoch;
    if epoch == LAST {
        return share.check_session(group, member_id, peer.connection).map(|()| BTreeSet::new());
    }
    if epoch == FIRST && !acknowledgements.is_empty() {
        return Err(SessionError::AcknowledgesTooEarly);
    }
    let added = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|p| (TopicId(topic.topic_id), PartitionIndex(p.partition_index)))
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        topic.partitions.iter().map(|index| (TopicId(topic.topic_id), PartitionIndex(*index)))
    });
    let forgotten = forgotten.collect();
    share.advance_session(group, member_id, epoch, peer.connection, added, &forgotten)
}

struct Wants {
    until: Instant,
    max_bytes: usize,
    max_records: u64,
}

/// One partition that records are to be acquired of.
struct Target {
    at: (TopicId, i32),
    acquirer: Acquirer,
    partition: Arc<Partition>,
}

impl Target {
    /// Waits for records, and for memory once there are some.
    async fn wait(
        self,
        kafka: &Kafka,
        wants: &Wants,
    ) -> (Self, Result<(Acquisition, Charge), DeliverError>) {
        let acquired = self.acquire(kafka, wants).await;
        (self, acquired)
    }

    async fn acquire(
        &self,
        kafka: &Kafka,
        wants: &Wants,
    ) -> Result<(Acquisition, Charge), DeliverError> {
        loop {
            let turn = self.acquirer.turn().await?;
            let want = wants.max_bytes.clamp(1, limits::FETCH_RESPONSE_BYTES);
            let want = want.min(share_bytes(&kafka.answer_memory));
            // As it is read, and as it is sent.
            let room = 2 * want.max(limits::MAX_MESSAGE_BYTES);
            let memory = kafka.answer_memory.charge(room, limits::KAFKA_MEMORY_WAIT).await;
            let mut memory = match memory {
                Ok(memory) => memory,
                Err(error) => {
                    tracing::warn!(%error, "a ShareFetch found no memory for its answer");
                    return Ok((Acquisition::default(), Charge::default()));
                }
            };
            let pools = kafka.shared.pools();
            if let Some(acquisition) = turn.take(pools, want, wants.max_records).await? {
                memory.shrink_to(2 * acquisition.bytes);
                return Ok((acquisition, memory));
            }
        }
    }
}

async fn acquire(
    kafka: &Kafka,
    (group, member_id): (&str, &str),
    partitions: &BTreeSet<Assigned>,
    wants: &Wants,
    answers: &mut Answers,
    memory: &mut Charge,
) {
    let mut waiting = FuturesUnordered::new();
    for (topic, index) in partitions {
        let at = (*topic, index.0);
        match target(kafka, (group, member_id), at).await {
            Ok(target) => waiting.push(target.wait(kafka, wants)),
            Err(error) => {
                answers.entry(at).or_insert_with(|| blank(at.1)).error_code = error.code();
            }
        }
    }
    // Whoever was refused something is told at once.
    let has_answer =
        answers.values().any(|answer| answer.error_code != 0 || answer.acknowledge_error_code != 0);
    let until = if has_answer { Instant::now() } else { wants.until };
    let mut next = tokio::select! {
        biased;
        first = waiting.next(), if !waiting.is_empty() => first,
        () = tokio::time::sleep_until(until) => None,
        () = kafka.shutdown.cancelled() => None,
    };
    let (mut bytes, mut records) = (0, 0);
    while let Some((target, acquired)) = next {
        let answer = answers.entry(target.at).or_insert_with(|| blank(target.at.1));
        match acquired {
            Ok((acquisition, charge)) => {
                memory.merge(charge);
                bytes += acquisition.bytes;
                records += acquisition.records();
                let topic = target.partition.keys().topic;
                kafka.traffic.fetched(topic, acquisition.records(), acquisition.bytes);
                fill(answer, acquisition);
            }
            Err(error) => {
                let (topic, partition) = target.at;
                let topic = resolve::shown_name(kafka, topic).await;
                tracing::warn!(group, topic, partition, %error, "a share group's partition could not be read");
                answer.error_code = error.code();
            }
        }
        // Whatever else is there at once, if there is room for it.
        next = match bytes < wants.max_bytes && records < wants.max_records {
            true => waiting.next().now_or_never().flatten(),
            false => None,
        };
    }
    kafka.metrics.fetched_bytes.inc_by(bytes as u64);
}

async fn target(
    kafka: &Kafka,
    (group, member_id): (&str, &str),
    at: (TopicId, i32),
) -> Result<Target, ResponseError> {
    let topic = resolve::topic(kafka, TopicRef::Id(at.0.0)).await?;
    let partition = resolve::partition(kafka, &topic, at.1).await?;
    let acquirer = kafka.shared.share().acquirer(group, member_id, partition.clone()).await;
    let acquirer = acquirer.map_err(|error| error.kafka())?;
    Ok(Target { at, acquirer, partition })
}

fn fill(answer: &mut PartitionData, acquisition: Acquisition) {
    let acquired = acquisition.acquired.iter().map(|(offsets, deliveries)| {
        let count = i16::try_from(deliveries.saturating_add(1)).unwrap_or(i16::MAX);
        AcquiredRecords::default()
            .with_first_offset(offsets.start)
            .with_last_offset(offsets.end - 1)
            .with_delivery_count(count)
    });
    answer.acquired_records = acquired.collect();
    let mut batches = acquisition.batches;
    answer.records = Some(match batches.len() {
        1 => batches.pop().unwrap_or_default(),
        _ => {
            let mut all = BytesMut::with_capacity(acquisition.bytes);
            batches.iter().for_each(|batch| all.extend_from_slice(batch));
            all.freeze()
        }
    });
}
