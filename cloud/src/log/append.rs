//! Appending: validation, assignment, and the answer when it is as durable as the topic's mode promises. Here is the way of
//! `persistent`: one atomic write. That of the volatile modes is in `volatile`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use robustmq_common::ids::{EdgeSeq, Offset, ProducerId, TopicId};
use robustmq_common::limits;
use robustmq_common::record::{BatchError, RecordBatch};
use tokio::sync::watch;

use super::mode::StorageMode;
use super::origins::{Origin, OriginCheck};
use super::partition::{Partition, Stored, Visible};
use super::producers::{ProducerCheck, ProducerError};
use super::sequencer::Sequencer;
use super::unstored::Held;
use super::{after, volatile};
use crate::store::keys::partition::{Chunk, LogEnd, PartitionKeys, ProducerEntry, encode_origin};
use crate::store::{PendingWrite, StoreError, WriteBatch};

/// What the topic's configuration asks of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendRules {
    /// `max.message.bytes`: the largest batch.
    pub max_batch_bytes: usize,
    /// `message.timestamp.type=LogAppendTime`: the broker's time replaces the records'.
    pub log_append_time: bool,
    /// `robustmq.storage.mode`. It counts where the partition has none yet; [`super::Log::change_mode`] changes it.
    pub storage: StorageMode,
}

impl Default for AppendRules {
    fn default() -> Self {
        Self {
            max_batch_bytes: limits::MAX_MESSAGE_BYTES,
            log_append_time: false,
            storage: StorageMode::Persistent,
        }
    }
}

/// What an append needs besides the batch.
#[derive(Debug, Clone)]
pub struct AppendContext {
    /// The broker's wall clock, milliseconds since 1970.
    pub now_ms: i64,
    /// The topic's rules.
    pub rules: AppendRules,
    /// Where the records come from, if an edge sent them.
    pub origin: Option<Origin>,
}

impl AppendContext {
    /// A producer's append under default rules.
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self { now_ms, rules: AppendRules::default(), origin: None }
    }
}

/// Why a batch was not appended. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The state has to be read again after a failed write, a queue is full, no offset is reserved, or the mode is being
    /// changed: wait for [`Partition::ready`] and append again.
    #[error("the partition is not ready; wait for it and append again")]
    NotReady,
    /// The batch is larger than the topic allows. Kafka: MESSAGE_TOO_LARGE.
    #[error("a batch of {bytes} bytes is larger than the topic's max.message.bytes of {limit}")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The batch makes no sense here. Kafka: INVALID_RECORD.
    #[error("invalid record batch: {0}")]
    Invalid(&'static str),
    /// The topic is compacted, which is by key. Kafka: INVALID_RECORD.
    #[error("record {index} of the batch has no key, which a compacted topic needs of each record")]
    NoKey {
        /// Which record, from 0.
        index: i32,
    },
    /// The records, which had to be looked at, cannot be read.
    #[error(transparent)]
    Records(BatchError),
    /// Transactions are not in this release.
    #[error("transactional batches are not supported in this release")]
    Transactional,
    /// The producer's epoch or sequence is wrong.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// Some of the edge's records were appended before. Ask [`Partition::origin_applied`], which waits until they are
    /// durable, cut them off and append the rest.
    #[error("edge sequences up to {applied} were applied before")]
    AlreadyApplied {
        /// The last sequence applied.
        applied: EdgeSeq,
    },
    /// What was applied of this lane is not in memory: call [`Partition::origin_applied`] and append again.
    #[error("the lane's position is not in memory; ask for it and append again")]
    OriginNotLoaded,
    /// The topic was deleted. Kafka: UNKNOWN_TOPIC_OR_PARTITION.
    #[error("topic {0} was deleted")]
    Dropped(TopicId),
    /// Its records come from a source. Kafka: POLICY_VIOLATION.
    #[error("the topic has a source (robustmq.source), and takes no records")]
    ReadOnly,
    /// The partition has no offsets left.
    #[error("the partition has no offsets left")]
    OffsetsExhausted,
    /// The write failed or was refused. Kafka: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy { .. } | StoreError::StaleEra => Self::NotReady,
            error => Self::Store(error),
        }
    }
}

/// A batch's place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// The broker's time, where the topic has `LogAppendTime`; milliseconds since 1970.
    pub log_append_time: Option<i64>,
    /// The log start offset when it was answered.
    pub log_start_offset: Offset,
    /// The producer had sent the batch before; this is the place of the original.
    pub duplicate: bool,
}

/// An append on its way: offsets are assigned, [`PendingAppend::durable`] waits for what the mode promises. Dropping it does
/// not take the append back.
#[derive(Debug)]
#[must_use = "an append may be acknowledged only when it is durable"]
pub struct PendingAppend {
    partition: Arc<Partition>,
    appended: Appended,
    wait: Wait,
}

#[derive(Debug)]
pub(super) enum Wait {
    /// It is all that it will be.
    Nothing,
    Write(PendingWrite),
    /// For a write-behind.
    WriteBehind {
        stored: watch::Receiver<Stored>,
        failures: u64,
    },
    /// For the original, whose write somebody else waits for.
    Original {
        visible: watch::Receiver<Visible>,
        failures: u64,
    },
}

impl PendingAppend {
    /// The place that was assigned. It counts only once it is durable.
    #[must_use]
    pub fn assigned(&self) -> Appended {
        self.appended
    }

    /// Waits until the batch (of a duplicate: the original) is readable and as durable as the topic's mode promises: written in
    /// `persistent`; taken in `memory` and `hybrid`, but of an edge's batch in `hybrid` written, since the edge forgets it then.
    ///
    /// # Errors
    /// [`AppendError::Store`]: it was not written.
    pub async fn durable(self) -> Result<Appended, AppendError> {
        match self.wait {
            Wait::Nothing => {}
            Wait::WriteBehind { mut stored, failures } => {
                let end = after(self.appended.last_offset);
                let seen = stored
                    .wait_for(|now| now.through >= end || now.failures != failures)
                    .await
                    .map_err(|_| AppendError::Store(StoreError::Closed))?;
                if seen.through < end {
                    let error = seen.error.clone().unwrap_or(StoreError::StaleEra);
                    return Err(AppendError::Store(error));
                }
            }
            Wait::Write(write) => write.await.map_err(AppendError::Store)?,
            Wait::Original { mut visible, failures } => {
                let end = after(self.appended.last_offset);
                let seen = visible
                    .wait_for(|seen| seen.high_watermark >= end || seen.failures != failures)
                    .await
                    .map_err(|_| AppendError::Store(StoreError::Closed))?;
                if seen.high_watermark < end {
                    return Err(AppendError::Store(StoreError::StaleEra));
                }
            }
        }
        let log_start_offset = self.partition.log_start();
        Ok(Appended { log_start_offset, ..self.appended })
    }
}

impl Partition {
    /// Assigns offsets to `batch` and takes or submits it, without waiting: the order of calls is the order in the log. The
    /// batch is stored as it is; only base offset and leader epoch are set, and the broker's time where the topic asks for it.
    ///
    /// Idempotence is Apache Kafka's (`ProducerAppendInfo` of 3.x): an unknown producer id is accepted at any sequence; a
    /// new epoch has to start at sequence 0; one of the last five batches sent again gets its original's place.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then.
    pub fn append(
        self: &Arc<Self>,
        batch: RecordBatch,
        context: &AppendContext,
    ) -> Result<PendingAppend, AppendError> {
        if self.is_read_only() {
            return Err(AppendError::ReadOnly);
        }
        check_batch(&batch, context.rules.max_batch_bytes)?;
        let batch = match context.rules.log_append_time {
            true => batch.with_log_append_time(context.now_ms),
            false => batch,
        };
        let failures = self.visible().failures;
        let mut sequencer = self.sequencer();
        if sequencer.mode.is_none() {
            self.set_mode(&mut sequencer, context.rules.storage);
        }
        sequencer.check_usable(self)?;
        let origin = context.origin.as_ref();
        if let Some(origin) = origin {
            match sequencer.origins.check(origin) {
                OriginCheck::Next => {}
                OriginCheck::Applied(applied) => {
                    return Err(AppendError::AlreadyApplied { applied });
                }
                OriginCheck::Unknown => return Err(AppendError::OriginNotLoaded),
            }
        }
        if let ProducerCheck::Duplicate(original) =
            sequencer.producers.check(&batch, sequencer.epoch_start)?
        {
            let wait = Wait::Original { visible: self.subscribe(), failures };
            let appended = Appended {
                base_offset: Offset(original.last_offset.0 - i64::from(original.last_offset_delta)),
                last_offset: original.last_offset,
                log_append_time: Some(original.log_append_time).filter(|time| *time >= 0),
                log_start_offset: self.log_start(),
                duplicate: true,
            };
            return Ok(PendingAppend { partition: Arc::clone(self), appended, wait });
        }
        let place = Place::next(&sequencer, &batch)?;
        let batch = batch.placed(place.base, sequencer.end.leader_epoch);
        let wait = match sequencer.mode {
            Some(StorageMode::Memory { ring_bytes }) => {
                self.take(&mut sequencer, &batch, place, context, volatile::Kept::Ring(ring_bytes))?
            }
            Some(StorageMode::Hybrid { .. }) => {
                self.take(&mut sequencer, &batch, place, context, volatile::Kept::UntilWritten)?
            }
            Some(StorageMode::Persistent | StorageMode::Tiered) | None => {
                Wait::Write(self.submit(&mut sequencer, &batch, place, context)?)
            }
        };
        drop(sequencer);
        self.shared.unstored.make_room();
        let appended = Appended {
            base_offset: place.base,
            last_offset: place.last,
            log_append_time: context.rules.log_append_time.then_some(context.now_ms),
            log_start_offset: self.log_start(),
            duplicate: false,
        };
        Ok(PendingAppend { partition: Arc::clone(self), appended, wait })
    }

    /// Builds and submits the write, and only then changes the state in memory.
    fn submit(
        self: &Arc<Self>,
        sequencer: &mut Sequencer,
        batch: &RecordBatch,
        place: Place,
        context: &AppendContext,
    ) -> Result<PendingWrite, AppendError> {
        let keys = *self.keys();
        let mut write = WriteBatch::new();
        let mut end = sequencer.end;
        put_batch(&mut write, &keys, &mut end, &Held::of(batch));
        write.put(keys.end(), end.encode());
        sequencer.put_epoch(&keys, &mut write);
        if sequencer.has_reservation {
            write.delete(keys.reserved());
        }
        let producer = sequencer.producer_after(batch, place, context);
        let forgotten = sequencer.producers.choose_forgotten(batch, context.now_ms);
        for id in &forgotten {
            write.delete(keys.producer(*id));
        }
        if let Some((id, entry)) = &producer {
            write.put(keys.producer(*id), entry.encode());
        }
        if let Some(Origin { key, last_seq, .. }) = &context.origin {
            write.put(keys.origin(&key.edge, key.incarnation, key.lane), encode_origin(*last_seq));
        }
        let completed = Arc::clone(self);
        let write = write
            .in_era(sequencer.era)
            .on_complete(move |outcome| completed.complete(outcome, place.next));
        let pending = self.store().submit(write)?;

        if sequencer.mode == Some(StorageMode::Tiered) {
            self.note_unarchived(context.now_ms);
        }
        sequencer.end = end;
        sequencer.next_offset = place.next;
        sequencer.epoch_stored = true;
        sequencer.has_reservation = false;
        sequencer.producers.forget(&forgotten);
        if let Some((id, entry)) = producer {
            sequencer.producers.insert(id, entry);
        }
        if let Some(origin) = &context.origin {
            sequencer.origins.record(origin, place.last, self.visible().high_watermark);
        }
        self.measure(sequencer);
        Ok(pending)
    }
}

/// The offsets that a batch gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub base: Offset,
    pub last: Offset,
    pub next: Offset,
}

impl Place {
    fn next(sequencer: &Sequencer, batch: &RecordBatch) -> Result<Self, AppendError> {
        let base = sequencer.next_offset;
        let span = i64::from(batch.header().last_offset_delta);
        let last = base.checked_add(span).ok_or(AppendError::OffsetsExhausted)?;
        let next = last.checked_add(1).ok_or(AppendError::OffsetsExhausted)?;
        Ok(Self { base, last, next })
    }
}

/// Puts a batch and what the time index says of it, and moves `end` behind it.
pub(super) fn put_batch(
    write: &mut WriteBatch,
    keys: &PartitionKeys,
    end: &mut LogEnd,
    batch: &Held,
) {
    let last = Offset(batch.next.0 - 1);
    write.put(keys.batch(last), batch.bytes.clone());
    let chunk = Chunk {
        base_offset: end.open_chunk.base_offset,
        bytes: end.open_chunk.bytes.saturating_add(batch.bytes.len() as u64),
        max_timestamp: end.open_chunk.max_timestamp.max(batch.max_timestamp),
    };
    end.next_offset = batch.next;
    end.open_chunk = if chunk.bytes >= limits::LOG_CHUNK_BYTES as u64 {
        write.put(keys.chunk(last), chunk.encode());
        Chunk::empty(batch.next)
    } else {
        chunk
    };
}

impl Sequencer {
    /// What is remembered of the batch's producer once the batch is appended.
    pub(super) fn producer_after(
        &self,
        batch: &RecordBatch,
        place: Place,
        context: &AppendContext,
    ) -> Option<(ProducerId, ProducerEntry)> {
        let time = context.rules.log_append_time.then_some(context.now_ms);
        self.producers.entry_after(batch, time, context.now_ms, place.last)
    }

    fn check_usable(&self, partition: &Partition) -> Result<(), AppendError> {
        if self.closed {
            return Err(AppendError::Dropped(partition.keys().topic));
        }
        if partition.shared.stopped.load(Ordering::SeqCst) {
            return Err(AppendError::Store(StoreError::Closed));
        }
        if self.changing || self.era != partition.store().era() {
            return Err(AppendError::NotReady);
        }
        Ok(())
    }
}

fn check_batch(batch: &RecordBatch, limit: usize) -> Result<(), AppendError> {
    if batch.size() > limit {
        return Err(AppendError::TooLarge { bytes: batch.size(), limit });
    }
    if batch.attributes().is_transactional() {
        return Err(AppendError::Transactional);
    }
    if batch.records_count() < 1 {
        return Err(AppendError::Invalid("it holds no records"));
    }
    Ok(())
}
