//! One partition: its state, what readers see of it, and readiness.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use robustmq_common::ids::{EdgeSeq, LeaderEpoch, Offset};
use robustmq_common::record::{RecordBatch, WireBatch};
use tokio::sync::watch;

use super::LogError;
use super::archive::LONG_SINCE;
use super::finish::Finisher;
use super::footprint::{Footprint, StateMemory};
use super::mode::StorageMode;
use super::origins::OriginKey;
use super::sequencer::{Loaded, Sequencer, offset};
use super::source::{Source, Sources};
use super::totals::Totals;
use super::unstored::{Fate, Unstored};
use super::unstored_memory::UnstoredMemory;
use super::write_behind::WriteBehind;
use crate::store::keys::archive::{Archived, archived_from};
use crate::store::keys::damaged;
use crate::store::keys::partition::{PartitionKeys, decode_origin};
use crate::store::{Era, ScanLimit, Store, StoreError};
use crate::tier::Archive;

/// What readers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visible {
    /// Everything below it may be read: it is durable, or acknowledged by a volatile mode.
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
    /// The offset after the last readable record.
    pub high_watermark: Offset,
    /// The offset before which no transaction is open; the high watermark, as there are none yet.
    pub last_stable_offset: Offset,
    /// The current leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// One answer to a read.
#[derive(Debug, Clone)]
pub struct ReadResult<Batch = Bytes> {
    /// Whole batches in order; the first holds the offset asked for, and may start before it, or is the next one.
    pub batches: Vec<Batch>,
    /// The offsets at the time of the read.
    pub offsets: Offsets,
}

impl ReadResult<WireBatch> {
    /// Bytes of all batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(WireBatch::size).sum()
    }
}

impl From<ReadResult<WireBatch>> for ReadResult {
    /// What is in pieces is copied.
    fn from(read: ReadResult<WireBatch>) -> Self {
        let batches = read.batches.into_iter().map(WireBatch::into_bytes).collect();
        Self { batches, offsets: read.offsets }
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

/// What all partitions of a log share.
pub(super) struct Shared {
    pub store: Arc<dyn Store>,
    pub archive: Option<Arc<Archive>>,
    /// Of dataset topics.
    pub sources: OnceLock<Arc<dyn Sources>>,
    pub state: StateMemory,
    pub unstored: Arc<UnstoredMemory>,
    pub write_behind: WriteBehind,
    pub finisher: Finisher,
    /// [`super::Log::stop`] was called: appends are refused.
    pub stopped: AtomicBool,
}

/// What the store has of a partition, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Everything below it is durable.
    pub through: Offset,
    /// Writes that have ended, whatever came of them.
    pub writes: u64,
    /// Failed writes so far.
    pub failures: u64,
    /// Why the last one failed, if none succeeded since.
    pub error: Option<StoreError>,
}

/// One partition's sequencer, readers' view and look-ups. [`super::Log`] hands it out.
pub struct Partition {
    pub(super) shared: Arc<Shared>,
    keys: PartitionKeys,
    /// Where its records come from, if not from here.
    pub(super) source: Option<Arc<dyn Source>>,
    sequencer: Mutex<Sequencer>,
    /// What readers need is kept apart from the sequencer, so that they never wait for its lock.
    pub(super) unstored: Arc<Unstored>,
    leader_epoch: AtomicI32,
    /// What is below it is in archived objects.
    pub(super) archived_to: AtomicI64,
    /// And has left the store.
    pub(super) left_store_to: AtomicI64,
    /// When the first of what is not archived came, milliseconds since 1970.
    pub(super) unarchived_since_ms: AtomicI64,
    /// What closed chunks hold.
    pub(super) totals: tokio::sync::Mutex<Totals>,
    /// Changes that compaction has made to the time index.
    pub(super) rewrites: AtomicU64,
    visible: watch::Sender<Visible>,
    footprint: Footprint,
    pub(super) stored: watch::Sender<Stored>,
    /// A volatile mode may give the offsets below it.
    pub(super) reserved: AtomicI64,
    /// A reservation is on its way.
    pub(super) reserving: AtomicBool,
    /// `robustmq.flush.ms`, while the mode is `hybrid`; else 0.
    pub(super) write_behind_ms: AtomicU64,
    /// A write-behind is due some time.
    pub(super) is_queued: AtomicBool,
    /// Somebody waits for the next write-behind.
    pub(super) is_urgent: AtomicBool,
    /// One change of the log start or of the mode, or one reading of the state, at a time.
    pub(super) maintenance: tokio::sync::Mutex<()>,
    /// One compaction at a time; taken before `maintenance`.
    pub(super) compaction: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Partition {
    pub(super) async fn load(shared: Arc<Shared>, keys: PartitionKeys) -> Result<Self, LogError> {
        let store = &*shared.store;
        let Loaded { sequencer, stored_end } = Sequencer::load(store, &keys).await?;
        let log_start = offset(store, &keys.log_start()).await?.unwrap_or(Offset(0));
        let archived_to = offset(store, &keys.archived_to()).await?.unwrap_or(Offset(0));
        let next = sequencer.next_offset;
        let unstored = Unstored::new(Arc::clone(&shared.unstored), log_start, stored_end);
        let mut high_watermark = next;
        // Where volatile modes were at work, what is before the first batch may have gone with a crash or a stop.
        if sequencer.has_reservation || sequencer.end.leader_epoch > LeaderEpoch(0) {
            let first = first_base(store, &keys, log_start, next).await?;
            if first.is_some() {
                // Behind the last record is a hole: whoever reads to the end is at the end until more comes.
                high_watermark = stored_end;
            }
            let first = first.unwrap_or(next);
            if first > log_start {
                unstored.open_hole(log_start, first);
            }
        }
        let source = match shared.sources.get() {
            Some(sources) => sources.open(keys.topic, keys.partition).await?,
            None => None,
        };
        if let Some(source) = &source {
            high_watermark = source.high_watermark();
        }
        let footprint = shared.state.footprint();
        footprint.set(sequencer.bytes());
        let (visible, _) = watch::channel(Visible { high_watermark, failures: 0, closed: false });
        let (stored, _) =
            watch::channel(Stored { through: next, writes: 0, failures: 0, error: None });
        Ok(Self {
            keys,
            source,
            leader_epoch: AtomicI32::new(sequencer.end.leader_epoch.0),
            archived_to: AtomicI64::new(archived_to.0),
            left_store_to: AtomicI64::new(0),
            unarchived_since_ms: AtomicI64::new(LONG_SINCE),
            totals: tokio::sync::Mutex::default(),
            rewrites: AtomicU64::new(0),
            sequencer: Mutex::new(sequencer),
            unstored: Arc::new(unstored),
            visible,
            footprint,
            stored,
            reserved: AtomicI64::new(next.0),
            reserving: AtomicBool::new(false),
            write_behind_ms: AtomicU64::new(0),
            is_queued: AtomicBool::new(false),
            is_urgent: AtomicBool::new(false),
            maintenance: tokio::sync::Mutex::new(()),
            compaction: tokio::sync::Mutex::new(()),
            shared,
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
        &*self.shared.store
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

    /// Records that went before retention asked for it, since there was no room for them in memory: since it was loaded.
    #[must_use]
    pub fn pushed_out(&self) -> u64 {
        self.unstored.pushed_out()
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
        self.unstored.log_start()
    }

    /// Lets readers see what is below `next_offset`.
    pub(super) fn show(&self, next_offset: Offset) {
        self.visible.send_modify(|visible| {
            visible.high_watermark = visible.high_watermark.max(next_offset);
        });
    }

    /// Called by the store's writer: takes no lock that is held around a submit.
    pub(super) fn complete(&self, outcome: &Result<(), StoreError>, next_offset: Offset) {
        if outcome.is_ok() {
            self.unstored.set_stored(next_offset);
        }
        self.tell_stored(outcome, next_offset);
        match outcome {
            Ok(()) => self.show(next_offset),
            Err(_) => self.visible.send_modify(|visible| visible.failures += 1),
        }
    }

    pub(super) fn tell_stored(&self, outcome: &Result<(), StoreError>, through: Offset) {
        self.stored.send_modify(|stored| {
            stored.writes += 1;
            match outcome {
                Ok(()) => {
                    stored.through = stored.through.max(through);
                    stored.error = None;
                }
                Err(error) => {
                    stored.failures += 1;
                    stored.error = Some(error.clone());
                }
            }
        });
    }

    /// Takes no more appends; wakes everybody who waits.
    pub(super) fn close(&self) {
        self.sequencer().closed = true;
        self.unstored.clear();
        self.visible.send_modify(|visible| visible.closed = true);
        self.stored.send_modify(|stored| {
            stored.failures += 1;
            stored.error = Some(StoreError::Closed);
        });
    }

    /// Takes over a mode that the partition does not have yet.
    pub(super) fn adopt(&self, mode: StorageMode) {
        let mut sequencer = self.sequencer();
        if sequencer.mode.is_none() {
            self.set_mode(&mut sequencer, mode);
        }
    }

    /// Everything that was assigned is stored, or the mode is the same but for its figures.
    pub(super) fn set_mode(&self, sequencer: &mut Sequencer, mode: StorageMode) {
        sequencer.mode = Some(mode);
        let (fate, write_behind_ms) = match mode {
            StorageMode::Memory { .. } => (Fate::Ring, 0),
            StorageMode::Hybrid { write_behind } => {
                let ms = u64::try_from(write_behind.as_millis()).unwrap_or(u64::MAX);
                (Fate::Waits, ms.max(1))
            }
            StorageMode::Persistent | StorageMode::Tiered => (Fate::Stored, 0),
        };
        self.unstored.set_fate(fate);
        self.write_behind_ms.store(write_behind_ms, Ordering::Release);
    }

    /// The last sequence of a lane that this partition holds; waits until it is as durable as an edge is promised: written in
    /// `hybrid`, taken in `memory`. Afterwards an append from that lane is decided in memory.
    ///
    /// # Errors
    /// [`StoreError`]; after a failed write [`StoreError::StaleEra`], then wait for [`Partition::ready`].
    pub async fn origin_applied(&self, key: &OriginKey) -> Result<Option<EdgeSeq>, StoreError> {
        let mut stored = self.stored.subscribe();
        let failures = stored.borrow_and_update().failures;
        let era = self.store().era();
        let (known, ring) = {
            let sequencer = self.sequencer();
            if sequencer.era != era {
                return Err(StoreError::StaleEra);
            }
            let ring = matches!(sequencer.mode, Some(StorageMode::Memory { .. }));
            (sequencer.origins.get(key), ring)
        };
        let (applied, last_offset) = match known {
            Some(known) => known,
            None => self.load_origin(key, era).await?,
        };
        if let Some(last) = last_offset.filter(|_| !ring) {
            let seen = stored
                .wait_for(|now| now.through > last || now.failures != failures)
                .await
                .map_err(|_| StoreError::Closed)?;
            if seen.through <= last {
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
        let applied = match self.store().get(&stored).await? {
            Some(value) => Some(decode_origin(&value).map_err(|error| damaged(&stored, error))?),
            None => None,
        };
        let stored = self.stored.borrow().through;
        let mut sequencer = self.sequencer();
        if sequencer.era != era {
            return Err(StoreError::StaleEra);
        }
        sequencer.origins.load(key, applied, stored);
        self.measure(&sequencer);
        Ok((applied, None))
    }
}

/// The base offset of the first batch from `from` on, archived or in the store; `None` if there is none below `to`.
async fn first_base(
    store: &dyn Store,
    keys: &PartitionKeys,
    from: Offset,
    to: Offset,
) -> Result<Option<Offset>, StoreError> {
    let archived = store.scan(archived_from(keys, from), ScanLimit::items(1)).await?;
    if let Some((key, value)) = archived.items.first() {
        let (_, archived) = Archived::decode(key, value).map_err(|error| damaged(key, error))?;
        return Ok(Some(archived.base_offset));
    }
    let stored = store.scan(keys.batches(from, to), ScanLimit::items(1)).await?;
    let Some((key, batch)) = stored.items.first() else { return Ok(None) };
    let batch = RecordBatch::from_store(batch.clone()).map_err(|error| damaged(key, error))?;
    Ok(Some(batch.base_offset()))
}
