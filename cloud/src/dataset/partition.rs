//! A partition of a dataset topic: what it has counted, and who reads it. Counting is in `counting`, reading in `reading`, fetching ahead of
//! readers in `ahead`.
//!
//! **Invariant:** an epoch is in the store before its first record may be read.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt as _;
use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex, TopicId};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::{Cache, UserId};
use robustmq_dataset::epochs::{Epochs, Place, Shuffle, Stretch};
use robustmq_dataset::fetch::{FetchError, Object};
use robustmq_dataset::index::{Between, ObjectIndex};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::active::Active;
use super::fit::Known;
use super::group::Group;
use super::lost::Lost;
use super::manifest::{Manifest, identity};
use super::readers::Readers;
use super::status::Damaged;
use super::troubles::Troubles;
use crate::log;
use crate::store::keys::damaged;
use crate::store::keys::dataset::{StoredEpoch, epochs_of};
use crate::store::{ScanLimit, Store, StoreError};
use crate::topics::{LiveSource, SourceConfig};

/// What all partitions of a dataset topic share.
pub(super) struct Dataset {
    pub topic: TopicId,
    pub name: KafkaTopic,
    pub config: Arc<SourceConfig>,
    /// What of that may be changed, as it is now.
    pub(super) live: Mutex<LiveSource>,
    pub partitions: u64,
    pub manifest: Manifest,
    pub group: Arc<Group>,
    pub cache: Arc<Cache>,
    /// What is kept between one extent and the next.
    pub between: Between,
    pub store: Arc<dyn Store>,
    pub cancel: CancellationToken,
    /// It is being brought into the cache.
    pub warming: Arc<Mutex<Warming>>,
    pub active: Arc<Active>,
    pub troubles: Arc<Troubles>,
}

/// How far a topic is brought into the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Warming {
    /// It goes on.
    pub is_running: bool,
    /// Bytes of content that were gone through.
    pub done_bytes: u64,
    /// Why a partition was not brought into the cache to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Dataset {
    pub fn warming(&self) -> MutexGuard<'_, Warming> {
        self.warming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn live(&self) -> LiveSource {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_live(&self, live: LiveSource) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    pub fn user(&self) -> UserId {
        super::changes::user(self.topic)
    }

    /// An error as people are told it: objects by their names below the source's prefix.
    pub fn told(&self, error: &PartitionError) -> String {
        match error {
            PartitionError::Fetch(error) => self.manifest.told(error),
            error => error.to_string(),
        }
    }

    /// The object of that ordinal, as it was listed, and its identity.
    pub async fn object(&self, ordinal: u64) -> Result<(Object, u128), StoreError> {
        let (object, index) = self.manifest.with_index(ordinal).await?;
        let id = identity(&self.config, &object, index.as_ref());
        Ok((object, id))
    }

    /// Whether it is known what the object of that ordinal holds.
    pub async fn is_indexed(&self, ordinal: u64) -> Result<bool, StoreError> {
        let (object, id) = self.object(ordinal).await?;
        let is_whole = super::reading_of(&self.config, &object).is_none();
        Ok(is_whole || self.group.known(id).await?.is_some())
    }
}

/// Why a partition does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartitionError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `robustmq.source.on.corrupt = stop`.
    #[error(
        "{object} has samples that cannot be read, the first: {reason}; robustmq.source.on.corrupt = skip leaves them out"
    )]
    Corrupt { object: String, reason: String },
    /// Its log ends before the last object, for this reason.
    #[error("{0}")]
    Ends(String),
    /// A defect, ours or of a library: the log has more of it.
    #[error("reading the source ended in a panic, see the log: {0}")]
    Panicked(String),
    /// An object was not read to its end, since nobody would have read on.
    #[error("nobody reads {object}")]
    Unwanted { object: String },
}

impl PartitionError {
    /// Whether it stays as it is until somebody does something about it.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_final(),
            Self::Corrupt { .. } | Self::Ends(_) => true,
            Self::Store(_) | Self::Unwanted { .. } | Self::Panicked(_) => false,
        }
    }
}

/// Has a panic be an error: what panics is tried again, and told. A task that ended with it would be waited for without end.
pub(super) async fn guarded<T>(
    work: impl Future<Output = Result<T, PartitionError>>,
) -> Result<T, PartitionError> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(PartitionError::Panicked(text.unwrap_or_default()))
    })
}

/// An object with what it holds.
pub(super) struct Opened {
    pub object: Object,
    pub id: u128,
    pub index: Arc<ObjectIndex>,
}

/// One partition. It runs as long as somebody holds it.
pub(super) struct DatasetPartition {
    pub dataset: Arc<Dataset>,
    pub partition: PartitionIndex,
    state: Mutex<State>,
    shown: Mutex<Weak<log::Partition>>,
    /// The furthest offset that somebody has asked for.
    pub(super) demand: watch::Sender<i64>,
    pub(super) readers: Mutex<Readers>,
    pub(super) read: Arc<Notify>,
    /// More is counted.
    pub(super) counted: Notify,
    /// How many partitions are read at the moment.
    pub(super) sharing: AtomicUsize,
    /// Searches that want counted what is known without reading.
    pub(super) searches: AtomicUsize,
}

pub(super) struct State {
    pub epochs: Epochs,
    /// Records of the partition's objects, as far as they are counted.
    counts: Vec<Option<u64>>,
    /// Objects that are being indexed.
    growing: HashMap<u64, Arc<ObjectIndex>>,
    opened: HashMap<u64, Arc<Opened>>,
    /// What was counted, each object once.
    pub known: Known,
    /// Samples that were left out, and the first of them.
    pub damaged: u64,
    pub damages: Vec<Damaged>,
    /// Published, and not there any more.
    pub lost: Lost,
}

/// Objects with what they hold that a partition has at hand.
const OPENED: usize = 64;

impl DatasetPartition {
    /// A partition as it was left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        dataset: Arc<Dataset>,
        partition: PartitionIndex,
    ) -> Result<Arc<Self>, StoreError> {
        let number = partition.0.cast_unsigned();
        let mut epochs = Epochs::new(dataset.config.shuffle, dataset.config.seed, number);
        let mut range = epochs_of(dataset.topic, partition);
        while !range.is_empty() {
            let page = dataset.store.scan(range.clone(), ScanLimit::items(1000)).await?;
            for (key, value) in &page.items {
                let stored = StoredEpoch::decode(key, value).map_err(|why| damaged(key, why))?;
                epochs.restore(stored.epoch, stored.first_offset.0, stored.objects);
            }
            range.start = page.resume.unwrap_or_else(|| range.end.clone());
        }
        let this = Arc::new(Self {
            dataset,
            partition,
            state: Mutex::new(State {
                epochs,
                counts: Vec::new(),
                growing: HashMap::new(),
                opened: HashMap::new(),
                known: Known::default(),
                damaged: 0,
                damages: Vec::new(),
                lost: Lost::default(),
            }),
            shown: Mutex::default(),
            demand: watch::channel(0).0,
            readers: Mutex::default(),
            read: Arc::default(),
            counted: Notify::new(),
            sharing: AtomicUsize::new(1),
            searches: AtomicUsize::new(0),
        });
        tokio::spawn(super::counting::run(Arc::downgrade(&this)));
        tokio::spawn(super::ahead::run(Arc::downgrade(&this)));
        Ok(this)
    }

    /// Which it is.
    pub(super) fn id(&self) -> (TopicId, PartitionIndex) {
        (self.dataset.topic, self.partition)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Objects of the topic that are this partition's.
    pub fn objects(&self) -> u64 {
        let all = self.dataset.manifest.listed().objects;
        let number = u64::from(self.partition.0.cast_unsigned());
        all.saturating_sub(number).div_ceil(self.dataset.partitions)
    }

    pub(super) fn attach(&self, shown: Weak<log::Partition>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        self.publish();
    }

    /// Whether the log still has it: it was deleted otherwise, or nobody has used it for long.
    pub(super) fn is_shown(&self) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.strong_count() > 0
    }

    /// Lets readers see what is counted.
    pub(super) fn publish(&self) {
        let high_watermark = self.state().epochs.high_watermark();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(shown) = shown {
            shown.show_source(Offset(high_watermark));
        }
        self.counted.notify_waiters();
    }

    /// Somebody wants what is before `offset`.
    pub(super) fn want(&self, offset: i64) {
        self.demand.send_if_modified(|furthest| {
            let is_further = offset > *furthest;
            *furthest = offset.max(*furthest);
            is_further
        });
    }

    /// Whether more is to be counted now than the bytes that are on their way already: readers are near the end of what is.
    pub(super) fn has_demand_beside(&self, on_their_way: u64) -> bool {
        if self.dataset.live().is_eager || self.dataset.warming().is_running {
            return true;
        }
        let ahead = self.counted_ahead_bytes();
        // An open window hides what it has: it has to be filled.
        let hidden = matches!(self.dataset.config.shuffle, Shuffle::Window(_));
        // What is being read has a place there too, and so has what is going to be fetched: what finds none would be fetched once more.
        let extent = self.dataset.cache.extent_bytes() as u64;
        let room = self.ahead_bytes().saturating_sub(2 * extent).max(extent);
        ahead.saturating_add(on_their_way) < room || (hidden && ahead == 0)
    }

    /// What is counted and has not been asked for, about.
    pub(super) fn counted_ahead_bytes(&self) -> u64 {
        let furthest = *self.demand.borrow();
        let state = self.state();
        let ahead = state.epochs.high_watermark().saturating_sub(furthest).max(0).cast_unsigned();
        ahead.saturating_mul(state.record_bytes().max(1))
    }

    /// How far ahead of readers is counted and fetched.
    pub(super) fn ahead_bytes(&self) -> u64 {
        let sharing = self.sharing.load(Ordering::Relaxed).max(1) as u64;
        let share = self.dataset.cache.free_ahead_bytes() / sharing;
        share.clamp(self.dataset.cache.extent_bytes() as u64, limits::COUNTED_AHEAD_BYTES)
    }

    /// The object of a number among this partition's, as it was listed, and its identity.
    pub(super) async fn object(&self, number: u64) -> Result<(Object, u128), StoreError> {
        self.dataset.object(self.ordinal(number)).await
    }

    /// The ordinal of the object of a number among this partition's.
    pub(super) fn ordinal(&self, number: u64) -> u64 {
        number * self.dataset.partitions + u64::from(self.partition.0.cast_unsigned())
    }

    /// What is at an offset, and the object that it is in.
    pub(super) async fn find(
        &self,
        offset: i64,
    ) -> Result<Option<(Place, Arc<Opened>)>, PartitionError> {
        let found = self.state().find(offset);
        let Some(place) = found else { return Ok(None) };
        Ok(Some((place, self.opened(place.object).await?)))
    }

    /// An object that is counted, or is being counted.
    pub(super) async fn opened(&self, number: u64) -> Result<Arc<Opened>, PartitionError> {
        if let Some(opened) = self.state().kept(number) {
            return Ok(opened);
        }
        let (object, id) = self.object(number).await?;
        let growing = self.state().growing.get(&number).cloned();
        let index = match (growing, super::reading_of(&self.dataset.config, &object)) {
            (Some(growing), _) => growing,
            (None, None) => Arc::new(ObjectIndex::whole(&object, self.dataset.config.large)),
            (None, Some(_)) => {
                let known = self.dataset.group.known(id).await?;
                let missing = || StoreError::Read(format!("{} is not indexed", object.path));
                known.ok_or_else(missing)?
            }
        };
        let opened = Arc::new(Opened { object, id, index });
        let mut state = self.state();
        if state.opened.len() >= OPENED {
            state.opened.clear();
        }
        state.opened.insert(number, Arc::clone(&opened));
        Ok(opened)
    }

    /// The readers of this partition.
    pub(super) fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is at an offset.
    pub fn find(&mut self, offset: i64) -> Option<Place> {
        self.add_up(offset);
        self.epochs.find(offset)
    }

    /// What is read from an offset on.
    pub fn stretch(&mut self, offset: i64) -> Option<Stretch> {
        self.add_up(offset);
        self.epochs.stretch(offset)
    }

    /// The offset of a record in an epoch, as far as that is counted.
    pub fn offset_of(&mut self, epoch: u32, object: u64, record: u64) -> Option<i64> {
        let first_offset = self.epochs.epoch(epoch)?.first_offset();
        self.add_up(first_offset);
        self.epochs.offset_of(epoch, object, record)
    }

    fn add_up(&mut self, offset: i64) {
        if let Some(number) = self.epochs.given_up(offset) {
            let counts = &self.counts;
            self.epochs.add_up(number, |object| {
                let at = usize::try_from(object).unwrap_or(usize::MAX);
                counts.get(at).copied().flatten().unwrap_or(0)
            });
        }
    }

    /// The identity of an object and what it holds, if that is at hand.
    pub fn at_hand(&self, number: u64) -> Option<(u128, Arc<ObjectIndex>)> {
        let opened = self.opened.get(&number)?;
        Some((opened.id, Arc::clone(&opened.index)))
    }

    /// So much of an object was found so far. Who begins anew with it takes nothing back.
    pub fn grow(&mut self, number: u64, index: &ObjectIndex) {
        if self.grown(number).is_some_and(|before| before.records() > index.records()) {
            return;
        }
        if self.epochs.counting().and_then(|epoch| epoch.next_object()) == Some(number) {
            self.epochs.grow(index.records());
        }
        let growing = ObjectIndex { is_growing: true, ..index.clone() };
        self.growing.insert(number, Arc::new(growing));
    }

    /// An object that is at hand, as it is known now.
    fn kept(&self, number: u64) -> Option<Arc<Opened>> {
        let opened = self.opened.get(&number)?;
        let growing = || self.growing.get(&number);
        let is_as_now = !opened.index.is_growing
            || growing().is_some_and(|index| Arc::ptr_eq(index, &opened.index));
        is_as_now.then(|| Arc::clone(opened))
    }

    /// What was found so far of an object that is not all counted.
    pub fn grown(&self, number: u64) -> Option<&Arc<ObjectIndex>> {
        self.growing.get(&number)
    }

    /// What came so far of the object that is counted next, as its records are published.
    pub fn grown_bytes(&self) -> u64 {
        let next = self.epochs.counting().and_then(|epoch| epoch.next_object());
        let growing = next.and_then(|next| self.growing.get(&next));
        growing.map_or(0, |index| index.content_bytes())
    }

    /// Bytes of a record: the mean of those that are counted and, before there are any, of those that have come.
    fn record_bytes(&self) -> u64 {
        let (mut bytes, mut records) = (self.known.content_bytes, self.known.records);
        if records == 0 {
            bytes = self.growing.values().map(|index| index.content_bytes()).sum();
            records = self.growing.values().map(|index| index.records()).sum();
        }
        bytes / records.max(1)
    }

    /// Objects whose records are known.
    pub fn known_objects(&self) -> u64 {
        self.counts.iter().flatten().count() as u64
    }

    /// The next object of the epoch that is being counted, its number and its size, has these records. `damages` are the first samples of it that
    /// cannot be read.
    pub fn count(
        &mut self,
        (number, size): (u64, u64),
        index: &ObjectIndex,
        damages: Vec<Damaged>,
    ) {
        self.growing.remove(&number);
        self.epochs.count(index.records());
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, None);
        }
        if self.counts.get(at).is_some_and(Option::is_none) {
            self.known.add(size, index);
            self.damaged += index.damaged;
            let room = limits::LISTED_DAMAGES.saturating_sub(self.damages.len());
            self.damages.extend(damages.into_iter().take(room));
            self.counts[at] = Some(index.records());
        }
        // What was found so far of the next one may be read now.
        let next = self.epochs.counting().and_then(|epoch| epoch.next_object());
        let growing = next.and_then(|next| self.growing.get(&next));
        if let Some(records) = growing.map(|index| index.records()) {
            self.epochs.grow(records);
        }
    }

    /// Counts an object that was counted in an earlier epoch, if it was.
    pub fn count_again(&mut self, number: u64) -> bool {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let records = self.counts.get(at).copied().flatten();
        if let Some(records) = records {
            self.epochs.count(records);
        }
        records.is_some()
    }
}
