//! Idempotent producers (KIP-98): epochs, sequences, duplicates. No store, no clock.

use std::collections::HashMap;
use std::time::Duration;

use robustmq_common::ids::{Offset, ProducerEpoch, ProducerId};
use robustmq_common::limits;
use robustmq_common::record::{Producer, RecordBatch};

use crate::store::keys::partition::{ProducedBatch, ProducerEntry};

/// Why a producer's batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A newer instance of the producer has written. Kafka: INVALID_PRODUCER_EPOCH.
    #[error("producer {id} has epoch {epoch}, but {current} has written since")]
    InvalidEpoch {
        /// The producer.
        id: ProducerId,
        /// The epoch of the batch.
        epoch: ProducerEpoch,
        /// The newest epoch seen.
        current: ProducerEpoch,
    },
    /// A batch before this one is missing. Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {id} sent sequence {sequence}, but {expected} is next")]
    OutOfOrderSequence {
        /// The producer.
        id: ProducerId,
        /// The first sequence of the batch.
        sequence: i32,
        /// The sequence that would follow.
        expected: i32,
    },
}

/// What a batch is to its producer's history.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProducerCheck {
    /// It comes next, or has no producer.
    Next,
    /// It was appended before.
    Duplicate(ProducedBatch),
}

/// How often producers that have expired are looked for, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The producers of one partition.
#[derive(Debug, Default)]
pub(super) struct Producers {
    entries: HashMap<ProducerId, ProducerEntry>,
    last_sweep_ms: i64,
}

impl Producers {
    pub(super) fn insert(&mut self, id: ProducerId, entry: ProducerEntry) {
        self.entries.insert(id, entry);
    }

    pub(super) fn forget(&mut self, ids: &[ProducerId]) {
        for id in ids {
            self.entries.remove(id);
        }
    }

    /// What they take of memory, about.
    pub(super) fn bytes(&self) -> usize {
        // Maps are at worst half empty.
        const ENTRY: usize = 2 * size_of::<(ProducerId, ProducerEntry)>()
            + ProducerEntry::BATCHES * size_of::<ProducedBatch>();
        self.entries.len() * ENTRY
    }

    /// The last offset of the producer's last batch.
    pub(super) fn last_offset(&self, id: ProducerId) -> Option<Offset> {
        self.entries.get(&id)?.batches.last().map(|batch| batch.last_offset)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ProducerId, &ProducerEntry)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.entries.get(&id)
    }

    /// Where `batch` belongs in its producer's history. A producer may go on behind what a crash has taken: sequences may be
    /// missing after batches from before `epoch_start`.
    pub(super) fn check(
        &self,
        batch: &RecordBatch,
        epoch_start: Offset,
    ) -> Result<ProducerCheck, ProducerError> {
        let Some(Producer { id, epoch, base_sequence }) = batch.producer() else {
            return Ok(ProducerCheck::Next);
        };
        let Some(entry) = self.entries.get(&id) else { return Ok(ProducerCheck::Next) };
        if epoch < entry.epoch {
            return Err(ProducerError::InvalidEpoch { id, epoch, current: entry.epoch });
        }
        let expected = if epoch > entry.epoch {
            0
        } else {
            let delta = batch.header().last_offset_delta;
            let same = |original: &&ProducedBatch| {
                original.first_sequence == base_sequence && original.last_offset_delta == delta
            };
            if let Some(original) = entry.batches.iter().find(same) {
                return Ok(ProducerCheck::Duplicate(*original));
            }
            match entry.batches.last() {
                Some(last) => sequence_after_batch(last),
                None => return Ok(ProducerCheck::Next),
            }
        };
        let may_skip = entry.batches.last().is_some_and(|last| last.last_offset < epoch_start)
            && is_after(base_sequence, expected);
        if base_sequence != expected && !may_skip {
            let sequence = base_sequence;
            return Err(ProducerError::OutOfOrderSequence { id, sequence, expected });
        }
        Ok(ProducerCheck::Next)
    }

    /// The entry of `batch`'s producer once the batch is appended.
    pub(super) fn entry_after(
        &self,
        batch: &RecordBatch,
        log_append_time: Option<i64>,
        now_ms: i64,
        last_offset: Offset,
    ) -> Option<(ProducerId, ProducerEntry)> {
        let Producer { id, epoch, base_sequence } = batch.producer()?;
        let known = self.entries.get(&id).filter(|entry| entry.epoch == epoch);
        let mut batches = Vec::with_capacity(ProducerEntry::BATCHES);
        if let Some(known) = known {
            let kept = known.batches.len().saturating_sub(ProducerEntry::BATCHES - 1);
            batches.extend(known.batches.iter().skip(kept));
        }
        batches.push(ProducedBatch {
            first_sequence: base_sequence,
            last_offset,
            last_offset_delta: batch.header().last_offset_delta,
            log_append_time: log_append_time.unwrap_or(-1),
        });
        Some((id, ProducerEntry { epoch, last_write_ms: now_ms, batches }))
    }

    /// The producers to forget when `batch` comes: those that have expired, and the one idle for longest if there would be
    /// too many.
    pub(super) fn choose_forgotten(&mut self, batch: &RecordBatch, now_ms: i64) -> Vec<ProducerId> {
        let Some(Producer { id, .. }) = batch.producer() else { return Vec::new() };
        if self.entries.contains_key(&id) {
            return Vec::new();
        }
        let full = self.entries.len() >= limits::PRODUCERS_PER_PARTITION;
        if !full && now_ms.saturating_sub(self.last_sweep_ms) < millis(SWEEP_INTERVAL) {
            return Vec::new();
        }
        self.last_sweep_ms = now_ms;
        let oldest_kept = now_ms.saturating_sub(millis(limits::PRODUCER_EXPIRY));
        let expired: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.last_write_ms < oldest_kept)
            .map(|(id, _)| *id)
            .collect();
        if !expired.is_empty() || !full {
            return expired;
        }
        self.entries
            .iter()
            .min_by_key(|(_, entry)| entry.last_write_ms)
            .map(|(id, _)| *id)
            .into_iter()
            .collect()
    }
}

/// The sequence that follows a batch; sequences wrap from `i32::MAX` to 0.
fn sequence_after_batch(batch: &ProducedBatch) -> i32 {
    let last = Producer::sequence_after(batch.first_sequence, batch.last_offset_delta);
    Producer::sequence_after(last, 1)
}

/// Sequences wrap: what is less than half of them ahead comes later.
fn is_after(sequence: i32, expected: i32) -> bool {
    let ahead = (i64::from(sequence) - i64::from(expected)).rem_euclid(1 << 31);
    ahead < 1 << 30
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
