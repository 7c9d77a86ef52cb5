//! Produce (0), versions 0-11.
//!
//! Each partition's batch is checked (CRC32C, sizes, counts) and given its offsets before the next request of the connection
//! is begun; the answer waits until all of them are as durable as their topic's storage mode promises, whatever `acks`
//! above 0 says. Batches are stored as the client compressed them; only those of compacted topics are looked into, since each of their records needs a key. `acks=0` has no answer; a failure closes the connection then, as in Apache Kafka.
//!
//! Versions 0-2 are advertised because clients look for them, and answered UNSUPPORTED_FOR_MESSAGE_FORMAT: they carry message
//! formats that Apache Kafka 4 does not take either. Not done: transactions, topic ids (13), `timeout_ms`.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::Decodable as _;
use robustmq_common::record::{RecordBatch, split_batches};

use super::resolve::{self, TopicRef, wall_ms};
use super::{Answer, Begun, Frame, Kafka, RequestError, decode, encode, finish, text};
use crate::kafka::errors::KafkaCode as _;
use crate::log::{AppendContext, AppendError, Partition, PendingAppend, check_keys};
use crate::topics::Topic;

/// How often an append that finds the store's queue full, or its state being read again, is tried.
const ATTEMPTS: usize = 100;

/// A refused batch.
struct Refused {
    error: ResponseError,
    message: String,
}

impl Refused {
    fn new(error: ResponseError, message: impl ToString) -> Self {
        Self { error, message: message.to_string() }
    }
}

type Started = (i32, Result<PendingAppend, Refused>);

/// Assigns offsets to everything in the request; the answer follows when it is durable.
pub(super) async fn begin(kafka: &Arc<Kafka>, frame: &Frame) -> Result<Begun, RequestError> {
    if frame.version < 3 {
        return refuse_old_format(frame).map(Begun::Ready);
    }
    let request: ProduceRequest = decode(frame)?;
    let acks = request.acks;
    let refusal = match (acks, &request.transactional_id) {
        (-1..=1, None) => None,
        (-1..=1, Some(_)) => Some((
            ResponseError::TransactionalIdAuthorizationFailed,
            "transactions are not supported by this broker",
        )),
        _ => Some((ResponseError::InvalidRequiredAcks, "acks may be -1, 0 or 1")),
    };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for data in request.topic_data {
        let topic = match refusal {
            None => {
                let found = resolve::topic(kafka, TopicRef::Name(&data.name)).await;
                found.map_err(|error| (error, "there is no such topic"))
            }
            Some(refusal) => Err(refusal),
        };
        let mut partitions: Vec<Started> = Vec::with_capacity(data.partition_data.len());
        for partition in data.partition_data {
            let index = partition.index;
            let started = match &topic {
                Ok(topic) => append(kafka, topic, partition).await,
                Err((error, message)) => Err(Refused::new(*error, message)),
            };
            partitions.push((index, started));
        }
        topics.push((data.name, partitions));
    }
    let (api, version, correlation_id) = (frame.api.key, frame.version, frame.correlation_id);
    let kafka = kafka.clone();
    Ok(Begun::Later(Box::pin(async move {
        let response = finish_all(&kafka, version, topics).await;
        if acks != 0 {
            return encode(api, version, correlation_id, &response);
        }
        let mut partitions = response.responses.iter().flat_map(|t| &t.partition_responses);
        match partitions.find(|partition| partition.error_code != 0) {
            None => Ok(Answer::none()),
            Some(failed) => Err(RequestError::Unanswerable { code: failed.error_code }),
        }
    })))
}

async fn append(
    kafka: &Kafka,
    topic: &Topic,
    data: PartitionProduceData,
) -> Result<PendingAppend, Refused> {
    let partition = resolve::partition(kafka, topic, data.index).await;
    let partition =
        partition.map_err(|error| Refused::new(error, "the partition cannot be used"))?;
    let limit = topic.config.max_message_bytes;
    let batches = split_batches(data.records.unwrap_or_default(), limit)
        .map_err(|error| Refused::new(error.kafka(), error))?;
    let Ok([batch]) = <[RecordBatch; 1]>::try_from(batches) else {
        let message = "a partition has to come with exactly one record batch";
        return Err(Refused::new(ResponseError::InvalidRecord, message));
    };
    if topic.config.compaction.is_some() {
        let keyed = check_keys(&batch).await;
        keyed.map_err(|error| Refused::new(error.kafka(), error))?;
    }
    let (size, records) = (batch.size(), batch.records_count());
    let pending = append_batch(&partition, batch, topic).await;
    let pending = pending.map_err(|error| Refused::new(error.kafka(), error))?;
    let records = u64::try_from(records).unwrap_or(0);
    kafka.metrics.produced_bytes.inc_by(size as u64);
    kafka.metrics.produced_records.inc_by(records);
    kafka.traffic.produced(topic.id, records, size);
    Ok(pending)
}

async fn append_batch(
    partition: &Arc<Partition>,
    batch: RecordBatch,
    topic: &Topic,
) -> Result<PendingAppend, AppendError> {
    let rules = topic.config.append_rules();
    let context = AppendContext { now_ms: wall_ms(), rules, origin: None };
    for _ in 0..ATTEMPTS {
        if let Err(error) = partition.ready().await {
            return Err(match error {
                crate::log::LogError::Store(error) => AppendError::Store(error),
                crate::log::LogError::Dropped(topic) => AppendError::Dropped(topic),
                crate::log::LogError::TooManyPartitions(_) => AppendError::NotReady,
            });
        }
        match partition.append(batch.clone(), &context) {
            Err(AppendError::NotReady) => {}
            answer => return answer,
        }
    }
    Err(AppendError::NotReady)
}

async fn finish_all(
    kafka: &Kafka,
    version: i16,
    topics: Vec<(TopicName, Vec<Started>)>,
) -> ProduceResponse {
    let mut responses = Vec::with_capacity(topics.len());
    for (name, partitions) in topics {
        let mut answers = Vec::with_capacity(partitions.len());
        for (index, started) in partitions {
            let outcome = match started {
                Ok(pending) => {
                    pending.durable().await.map_err(|error| Refused::new(error.kafka(), error))
                }
                Err(refused) => Err(refused),
            };
            let answer = PartitionProduceResponse::default().with_index(index);
            answers.push(match outcome {
                Ok(appended) => answer
                    .with_base_offset(appended.base_offset.0)
                    .with_log_append_time_ms(appended.log_append_time.unwrap_or(-1))
                    .with_log_start_offset(appended.log_start_offset.0),
                Err(refused) => {
                    kafka.metrics.kafka_batches_refused.inc();
                    let reason = refused.message;
                    tracing::debug!(topic = name.as_str(), index, reason, "batch refused");
                    let answer = answer.with_error_code(refused.error.code()).with_base_offset(-1);
                    if version >= 8 {
                        answer.with_error_message(Some(text(reason)))
                    } else {
                        answer
                    }
                }
            });
        }
        let answer = TopicProduceResponse::default().with_name(name);
        responses.push(answer.with_partition_responses(answers));
    }
    ProduceResponse::default().with_responses(responses)
}

/// Versions 0-2 differ from 3 by the transactional id that is missing in front, and in their answers.
fn refuse_old_format(frame: &Frame) -> Result<Answer, RequestError> {
    let (api, version) = (frame.api.key, frame.version);
    let mut body: Bytes = [&[0xff, 0xff][..], &frame.body].concat().into();
    let request = ProduceRequest::decode(&mut body, 3).map_err(|error| RequestError::Decode {
        api,
        version,
        reason: error.to_string(),
    })?;
    let code = ResponseError::UnsupportedForMessageFormat.code();
    if request.acks == 0 {
        return Err(RequestError::Unanswerable { code });
    }
    let failed = |_| RequestError::Encode { api, version, reason: "too many entries".to_owned() };
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i32(frame.correlation_id);
    out.put_i32(i32::try_from(request.topic_data.len()).map_err(failed)?);
    for topic in &request.topic_data {
        out.put_i16(i16::try_from(topic.name.len()).map_err(failed)?);
        out.put_slice(topic.name.as_bytes());
        out.put_i32(i32::try_from(topic.partition_data.len()).map_err(failed)?);
        for partition in &topic.partition_data {
            out.put_i32(partition.index);
            out.put_i16(code);
            out.put_i64(-1);
            if version >= 2 {
                out.put_i64(-1);
            }
        }
    }
    if version >= 1 {
        out.put_i32(0);
    }
    finish(out).map_err(|reason| RequestError::Encode { api, version, reason })
}
