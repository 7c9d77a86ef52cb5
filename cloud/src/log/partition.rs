//! One partition: its state, reads, and readiness.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use robustmq_common::ids::{EdgeSeq, LeaderEpoch, Offset, ProducerId};
use tokio::sync::watch;

use super::LogError;
use super::footprint::Footprint;
use super::origins::{OriginKey, Origins};
use super::producers::Producers;
use crate::store::keys::partition::{
    Kind, LogEnd, PartitionKeys, ProducerEntry, decode_offset, decode_origin, trailing_number,
};
use crate::store::keys::{ValueError, damaged};
use crate::store::{Era, ScanLimit, Store, StoreError};

/// What readers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visible {
    /// Everything below it is durable and may be read.
    pub high_watermark: Offset,
    /// Failed writes so far.
    pub(super) failures: u64,
    /// The topic was deleted: nothing will come any more.
    pub closed: bool,
}

/// The offsets that answers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// The offset after the last durable record.
    pub high_watermark: Offset,
    /// The offset before which no transaction is open; the high watermark, as there are none yet.
    pub last_stable_offset: Offset,
    /// The current leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// One answer to a read.
#[derive(Debug, Clone)]
pub struct ReadResult {
    /// Whole batches in order; the first holds the offset asked for, and may start before it, or is the next one.
    pub batches: Vec<Bytes>,
    /// The offsets at the time of the read.
    pub offsets: Offsets,
}

impl ReadResult {
    /// Bytes of all batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Kafka: OFFSET_OUT_OF_RANGE.
    #[error("offset {from} is not within {log_start_offset} to {end}")]
    OutOfRange {
        /// The offset asked for.
        from: Offset,
        /// The first readable offset.
        log_start_offset: Offset,
        /// The offset after the last one assigned.
        end: Offset,
    },
    /// The topic was deleted. Kafka: UNKNOWN_TOPIC_OR_PARTITION.
    #[error("the topic was deleted")]
    Dropped,
    /// The store failed. Kafka: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One partition's sequencer, readers' view and look-ups. [`super::Log`] hands it out.
pub struct Partition {
    store: Arc<dyn Store>,
    keys: PartitionKeys,
    sequencer: Mutex<Sequencer>,
    /// What readers need is kept apart from the sequencer, so that they never wait for its lock.
    log_start: AtomicI64,
    leader_epoch: AtomicI32,
    visible: watch::Sender<Visible>,
    footprint: Footprint,
    /// One change of the log start, or one reading of the state, at a time.
    pub(super) maintenance: tokio::sync::Mutex<()>,
    /// One compaction at a time; taken before `maintenance`.
    pub(super) compaction: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// What assigns offsets. It mirrors what the store holds once everything submitted is applied.
#[derive(Debug)]
pub(super) struct Sequencer {
    /// Read before the rest was read: a failed write since then makes the rest untrue.
    pub(super) era: Era,
    pub(super) end: LogEnd,
    pub(super) producers: Producers,
    pub(super) origins: Origins,
    pub(super) closed: bool,
}

impl Sequencer {
    async fn load(store: &dyn Store, keys: &PartitionKeys) -> Result<Self, StoreError> {
        let era = store.era();
        let end = match store.get(&keys.end()).await? {
            Some(value) => LogEnd::decode(&value).map_err(|error| damaged(&keys.end(), error))?,
            None => LogEnd::EMPTY,
        };
        let mut producers = Producers::default();
        let mut range = keys.kind_range(Kind::Producer);
        loop {
            let page = store.scan(range.clone(), ScanLimit::items(usize::MAX)).await?;
            for (key, value) in &page.items {
                let (id, entry) = read_producer(key, value).map_err(|error| damaged(key, error))?;
                producers.insert(id, entry);
            }
            match page.resume {
                Some(resume) => range.start = resume,
                None => break,
            }
        }
        Ok(Self { era, end, producers, origins: Origins::default(), closed: false })
    }

    /// What it takes of memory beyond itself.
    fn bytes(&self) -> usize {
        self.producers.bytes() + self.origins.bytes()
    }
}

fn read_producer(key: &[u8], value: &[u8]) -> Result<(ProducerId, ProducerEntry), ValueError> {
    Ok((ProducerId(trailing_number(key)?), ProducerEntry::decode(value)?))
}

impl Partition {
    pub(super) async fn load(
        store: Arc<dyn Store>,
        keys: PartitionKeys,
        footprint: Footprint,
    ) -> Result<Self, LogError> {
        let sequencer = Sequencer::load(&*store, &keys).await?;
        let log_start = match store.get(&keys.log_start()).await? {
            Some(value) => {
                decode_offset(&value).map_err(|error| damaged(&keys.log_start(), error))?
            }
            None => Offset(0),
        };
        let high_watermark = sequencer.end.next_offset;
        let (visible, _) = watch::channel(Visible { high_watermark, failures: 0, closed: false });
        footprint.set(sequencer.bytes());
        Ok(Self {
            store,
            keys,
            leader_epoch: AtomicI32::new(sequencer.end.leader_epoch.0),
            sequencer: Mutex::new(sequencer),
            log_start: AtomicI64::new(log_start.0),
            visible,
            footprint,
            maintenance: tokio::sync::Mutex::new(()),
            compaction: tokio::sync::Mutex::new(()),
        })
    }

    /// Tells the budget what the state takes of memory now.
    pub(super) fn measure(&self, sequencer: &Sequencer) {
        self.footprint.set(sequencer.bytes());
    }

    /// The partition's keys: its topic and index.
    #[must_use]
    pub fn keys(&self) -> &PartitionKeys {
        &self.keys
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn sequencer(&self) -> MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What readers see now.
    #[must_use]
    pub fn visible(&self) -> Visible {
        *self.visible.borrow()
    }

    /// Wakes whoever waits for more: the high watermark moved, a write failed, or the topic was deleted. Subscribe first,
    /// then read, then wait.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Visible> {
        self.visible.subscribe()
    }

    /// The offsets that answers carry.
    #[must_use]
    pub fn offsets(&self) -> Offsets {
        let high_watermark = self.visible().high_watermark;
        Offsets {
            log_start_offset: self.log_start(),
            high_watermark,
            last_stable_offset: high_watermark,
            leader_epoch: LeaderEpoch(self.leader_epoch.load(Ordering::Acquire)),
        }
    }

    /// The first readable offset. Takes no lock, so that it can be asked while the sequencer is held.
    pub(super) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    pub(super) fn set_log_start(&self, offset: Offset) {
        self.log_start.store(offset.0, Ordering::Release);
    }

    /// Called by the store's writer: takes no lock that is held around a submit.
    pub(super) fn complete(&self, written: bool, next_offset: Offset) {
        self.visible.send_modify(|visible| {
            if written {
                visible.high_watermark = visible.high_watermark.max(next_offset);
            } else {
                visible.failures += 1;
            }
        });
    }

    /// Takes no more appends; wakes everybody who waits.
    pub(super) fn close(&self) {
        self.sequencer().closed = true;
        self.visible.send_modify(|visible| visible.closed = true);
    }

    /// Waits until [`Partition::append`] can be expected to be taken: the store's queue has room, and the state was
    /// read again if a write failed. Await it before each append.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn ready(&self) -> Result<(), LogError> {
        self.store.ready().await?;
        if self.is_current()? {
            return Ok(());
        }
        let _one_at_a_time = self.maintenance.lock().await;
        while !self.is_current()? {
            let loaded = Sequencer::load(&*self.store, &self.keys).await?;
            let mut sequencer = self.sequencer();
            let closed = sequencer.closed;
            *sequencer = Sequencer { closed, ..loaded };
            self.measure(&sequencer);
        }
        Ok(())
    }

    fn is_current(&self) -> Result<bool, LogError> {
        let sequencer = self.sequencer();
        if sequencer.closed {
            return Err(LogError::Dropped(self.keys.topic));
        }
        Ok(sequencer.era == self.store.era())
    }

    /// Whole batches from the one that holds `from` on, or from the next one where compaction has left a hole: at most `max_bytes`, but at least one batch if there is one.
    /// Nothing if `from` is the high watermark.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self, from: Offset, max_bytes: usize) -> Result<ReadResult, ReadError> {
        let offsets = self.offsets();
        if self.visible().closed {
            return Err(ReadError::Dropped);
        }
        let Offsets { log_start_offset, high_watermark, .. } = offsets;
        if from < log_start_offset || from > high_watermark {
            let end = self.sequencer().end.next_offset.max(high_watermark);
            if from < log_start_offset || from > end {
                return Err(ReadError::OutOfRange { from, log_start_offset, end });
            }
        }
        let mut batches = Vec::new();
        if from < high_watermark {
            let range = self.keys.batches(from, high_watermark);
            let page = self.store.scan(range, ScanLimit::bytes(max_bytes)).await?;
            batches.extend(page.items.into_iter().map(|(_, batch)| batch));
        }
        Ok(ReadResult { batches, offsets })
    }

    /// The last sequence of a lane that this partition holds; waits until it is durable. Afterwards an append from that lane is
    /// decided in memory.
    ///
    /// # Errors
    /// [`StoreError`]; after a failed write [`StoreError::StaleEra`], then wait for [`Partition::ready`].
    pub async fn origin_applied(&self, key: &OriginKey) -> Result<Option<EdgeSeq>, StoreError> {
        let failures = self.visible().failures;
        let mut visible = self.subscribe();
        let era = self.store.era();
        if self.sequencer().era != era {
            return Err(StoreError::StaleEra);
        }
        let known = self.sequencer().origins.get(key);
        let (applied, last_offset) = match known {
            Some(known) => known,
            None => self.load_origin(key, era).await?,
        };
        if let Some(last) = last_offset {
            let seen = visible
                .wait_for(|seen| seen.high_watermark > last || seen.failures != failures)
                .await
                .map_err(|_| StoreError::Closed)?;
            if seen.high_watermark <= last {
                return Err(StoreError::StaleEra);
            }
        }
        Ok(applied)
    }

    /// Under the maintenance lock nobody else loads this lane, and without it being loaded nobody appends to it: what is read
    /// stays true until it is in memory.
    async fn load_origin(
        &self,
        key: &OriginKey,
        era: Era,
    ) -> Result<(Option<EdgeSeq>, Option<Offset>), StoreError> {
        let _one_at_a_time = self.maintenance.lock().await;
        if let Some(known) = self.sequencer().origins.get(key) {
            return Ok(known);
        }
        let stored = self.keys.origin(&key.edge, key.incarnation, key.lane);
        let applied = match self.store.get(&stored).await? {
            Some(value) => Some(decode_origin(&value).map_err(|error| damaged(&stored, error))?),
            None => None,
        };
        let high_watermark = self.visible().high_watermark;
        let mut sequencer = self.sequencer();
        if sequencer.era != era {
            return Err(StoreError::StaleEra);
        }
        sequencer.origins.load(key, applied, high_watermark);
        self.measure(&sequencer);
        Ok((applied, None))
    }
}
