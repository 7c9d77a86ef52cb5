//! From a sample's key to its offset.
//!
//! Keys are not kept. Where an object is one record, its name is the key, and the manifest knows where it is. In archives the samples are looked
//! through, extent by extent, out of the cache and into it as for a reader, in the order of the manifest. A search goes in steps: each
//! ends with the extent that has the key, or when its time is over, and says where the next one begins.
//!
//! **Invariant:** an offset is that of the order of its epoch, and is told only where readers may read it.
//! **Invariant:** nothing is counted for a search that would have to be downloaded for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use robustmq_common::ids::{KafkaTopic, PartitionIndex};
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::epochs::Counted;
use robustmq_dataset::fetch::{FetchError, Object};
use robustmq_dataset::format::Format;
use robustmq_dataset::index::{ExtentIndex, extent_id};
use robustmq_dataset::layout::Extent;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::Datasets;
use super::partition::{Dataset, DatasetPartition, Opened, PartitionError};
use crate::store::StoreError;
use crate::topics::Topic;

mod cursor;

pub use self::cursor::Cursor;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The key of the sample, as records have it.
    pub key: String,
    /// Counts from 0.
    pub epoch: u32,
    /// The object that it is in, below the source's prefix, where that is known.
    pub object: Option<String>,
    /// Where the last step ended.
    pub after: Option<Cursor>,
    /// Bytes of content after which the step ends, with the extent that they end in.
    pub limit_bytes: Option<u64>,
}

/// A sample that has the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Its partition.
    pub partition: i32,
    /// Its offset; `None` where it has none yet.
    pub offset: Option<i64>,
    /// The epoch that was asked about.
    pub epoch: u32,
    /// The object that it is in, below the source's prefix.
    pub object: String,
    /// Why it has no offset.
    pub note: Option<&'static str>,
}

/// What one step of a search has found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FoundKeys {
    /// Samples with the key.
    pub matches: Vec<Match>,
    /// There are more of them in this extent than are listed.
    pub has_more_matches: bool,
    /// Objects that were gone through.
    pub searched_objects: u64,
    /// Bytes of content that were looked at.
    pub searched_bytes: u64,
    /// Objects that were passed over because their records have no keys.
    pub keyless_objects: u64,
    /// Objects that were passed over because their records have no offsets in this epoch yet, and those of which that is so in part.
    pub uncounted_objects: u64,
    /// Of objects that cannot be read any more, the first reasons.
    pub unreadable: Vec<String>,
    /// Objects of the topic.
    pub objects: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Why nothing is searched.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The topic's records are its own.
    #[error("topic {0} has no source")]
    NoDataset(KafkaTopic),
    /// There is none of that number.
    #[error("there is no epoch {epoch}: the topic has {epochs}, counted from 0")]
    NoEpoch {
        /// What was asked for.
        epoch: u32,
        /// How many there are.
        epochs: u32,
    },
    /// The topic has no object of that name.
    #[error("the topic has no object {0:?}")]
    NoObject(String),
    /// The format has none.
    #[error("records of {0} have no keys")]
    NoKeys(String),
    /// Too many at once.
    #[error("{} searches are under way already: try again later", limits::FIND_SEARCHES)]
    Busy,
    /// The store or the source failed.
    #[error("{0}")]
    Failed(String),
}

impl From<PartitionError> for FindError {
    fn from(error: PartitionError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StoreError> for FindError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Datasets {
    /// One step of the search for a key, of at most [`limits::FIND_STEP`] and a little.
    ///
    /// # Errors
    /// [`FindError`].
    pub async fn find(&self, topic: &Topic, wanted: Wanted) -> Result<FoundKeys, FindError> {
        let none = || FindError::NoDataset(topic.name.clone());
        let dataset = self.dataset(topic.id).await?.ok_or_else(none)?;
        let epochs = dataset.live().epochs;
        if wanted.epoch >= epochs {
            return Err(FindError::NoEpoch { epoch: wanted.epoch, epochs });
        }
        if let Some(format) = dataset.config.format.filter(|format| !format.has_keys()) {
            return Err(FindError::NoKeys(format!("{format:?}").to_lowercase()));
        }
        let _turn = self.searches.try_acquire().map_err(|_| FindError::Busy)?;
        let mut partitions = Vec::new();
        for index in 0..topic.partitions {
            let partition = self.partition(topic.id, PartitionIndex(index)).await?;
            partitions.push(Searched::new(partition.ok_or_else(none)?));
        }
        let deadline = Instant::now() + limits::FIND_STEP;
        let objects = dataset.manifest.listed().objects;
        let found = FoundKeys { objects, ..FoundKeys::default() };
        let mut search =
            Search { dataset, partitions, wanted, deadline, direct: None, asked_bytes: 0, found };
        search.found.next = search.step().await?;
        let Search { found, wanted, .. } = search;
        // With `auto` it is each object's name that says whether there are keys.
        if wanted.after.is_none() && objects > 0 && found.keyless_objects == objects {
            return Err(FindError::NoKeys(format!("the {objects} objects of {}", topic.name)));
        }
        Ok(found)
    }
}

/// A partition that is searched: what is known of its objects is counted meanwhile, whether or not readers have come so far. After a restart
/// that is what had been counted before.
pub(super) struct Searched(pub Arc<DatasetPartition>);

impl Searched {
    pub fn new(partition: Arc<DatasetPartition>) -> Self {
        partition.searches.fetch_add(1, Ordering::Relaxed);
        partition.demand.send_modify(|_| {});
        Self(partition)
    }
}

impl Drop for Searched {
    fn drop(&mut self) {
        self.0.searches.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Search {
    dataset: Arc<Dataset>,
    partitions: Vec<Searched>,
    wanted: Wanted,
    deadline: Instant,
    /// The object that is named as the key is, where it is found without going through all.
    direct: Option<u64>,
    /// Bytes of content that were asked for.
    asked_bytes: u64,
    found: FoundKeys,
}

/// An object's place, and the object.
struct Candidate {
    ordinal: u64,
    number: u64,
    partition: Arc<DatasetPartition>,
    object: Object,
    name: String,
}

impl Search {
    /// Searches until something is found, time is over or nothing is left. Where to go on.
    async fn step(&mut self) -> Result<Option<Cursor>, FindError> {
        let from = self.wanted.after.unwrap_or_default();
        if let Some(name) = self.wanted.object.clone() {
            return self.in_object(&name, from).await;
        }
        let format = self.dataset.config.format;
        if matches!(format, None | Some(Format::Object)) {
            self.direct = self.dataset.manifest.named(&self.wanted.key).await?;
        }
        if let Some(ordinal) = self.direct.filter(|_| self.wanted.after.is_none()) {
            let candidate = self.candidate(ordinal).await?;
            if self.is_whole(&candidate) {
                self.take_whole(&candidate).await?;
                return Ok((format.is_none()).then(Cursor::default));
            }
        }
        for ordinal in from.object..self.found.objects {
            if Instant::now() >= self.deadline || (ordinal > from.object && self.is_at_limit()) {
                return Ok(Some(Cursor { object: ordinal, extent: 0 }));
            }
            let candidate = self.candidate(ordinal).await?;
            let extent = if ordinal == from.object { from.extent } else { 0 };
            if let Some(next) = self.in_candidate(&candidate, extent).await? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// The same in the object of a name.
    async fn in_object(&mut self, name: &str, from: Cursor) -> Result<Option<Cursor>, FindError> {
        let first = match self.dataset.manifest.named(name).await? {
            Some(ordinal) => ordinal,
            None => from.object,
        };
        for ordinal in first..self.found.objects {
            let candidate = self.candidate(ordinal).await?;
            if candidate.name == name {
                if let Some(reading) = super::reading_of(&self.dataset.config, &candidate.object)
                    && !reading.format.has_keys()
                {
                    return Err(FindError::NoKeys(name.to_owned()));
                }
                let extent = if ordinal == from.object { from.extent } else { 0 };
                let next = self.in_candidate(&candidate, extent).await?;
                return Ok(next.filter(|next| next.object == ordinal));
            }
            if Instant::now() >= self.deadline {
                return Ok(Some(Cursor { object: ordinal + 1, extent: 0 }));
            }
        }
        Err(FindError::NoObject(name.to_owned()))
    }

    async fn candidate(&self, ordinal: u64) -> Result<Candidate, FindError> {
        let count = self.dataset.partitions;
        let at = usize::try_from(ordinal % count).unwrap_or(usize::MAX);
        let partition = self.partitions.get(at);
        let missing = || FindError::Failed(format!("there is no partition {at}"));
        let partition = Arc::clone(&partition.ok_or_else(missing)?.0);
        let object = self.dataset.manifest.object(ordinal).await?;
        let name = self.dataset.manifest.name(&object).to_owned();
        Ok(Candidate { ordinal, number: ordinal / count, partition, object, name })
    }

    fn is_whole(&self, candidate: &Candidate) -> bool {
        super::reading_of(&self.dataset.config, &candidate.object).is_none()
    }

    /// Searches one object. Where to go on, if the step ends here.
    async fn in_candidate(
        &mut self,
        candidate: &Candidate,
        extent: usize,
    ) -> Result<Option<Cursor>, FindError> {
        match super::reading_of(&self.dataset.config, &candidate.object) {
            None => {
                self.found.searched_objects += 1;
                let is_it = candidate.name == self.wanted.key;
                if !is_it || self.direct == Some(candidate.ordinal) {
                    return Ok(None);
                }
                self.take_whole(candidate).await?;
                let next = candidate.ordinal + 1;
                Ok((next < self.found.objects).then_some(Cursor { object: next, extent: 0 }))
            }
            Some(reading) if !reading.format.has_keys() => {
                self.found.keyless_objects += 1;
                Ok(None)
            }
            Some(_) => self.in_extents(candidate, extent).await,
        }
    }

    /// The object is the sample.
    async fn take_whole(&mut self, candidate: &Candidate) -> Result<(), FindError> {
        let counted = candidate.partition.count_known(self.wanted.epoch, candidate.number);
        // What is not counted in time is told as what it is.
        if let Ok(counted) = timeout_at(self.deadline, counted).await {
            counted?;
        }
        let opened = candidate.partition.opened(candidate.number).await?;
        match opened.index.records() {
            0 => self.found.matches.push(self.matched(candidate, None, Some(NO_RECORD))),
            _ => self.take(candidate, 0),
        }
        Ok(())
    }

    /// A record of an object has the key.
    fn take(&mut self, candidate: &Candidate, record: u64) {
        let mut state = candidate.partition.state();
        let epoch = self.wanted.epoch;
        let offset = state.offset_of(epoch, candidate.number, record);
        let note = match state.epochs.epoch(epoch) {
            _ if offset.is_some() => None,
            None => Some("the epoch has not begun"),
            Some(epoch) if candidate.number >= epoch.objects() => {
                Some("the epoch began without it")
            }
            Some(epoch) => Some(match epoch.has_counted(candidate.number) {
                Counted::Nothing => "it is not counted yet: readers have not come near it",
                Counted::Part | Counted::All => "its window of the shuffle is not complete yet",
            }),
        };
        drop(state);
        self.found.matches.push(self.matched(candidate, offset, note));
    }

    fn matched(
        &self,
        candidate: &Candidate,
        offset: Option<i64>,
        note: Option<&'static str>,
    ) -> Match {
        let (partition, epoch) = (candidate.partition.partition.0, self.wanted.epoch);
        Match { partition, offset, epoch, object: candidate.name.clone(), note }
    }

    /// Whether no more is to be asked for.
    fn is_at_limit(&self) -> bool {
        self.wanted.limit_bytes.is_some_and(|limit| self.asked_bytes >= limit)
    }

    /// Looks through the samples of an archive, as far as they are counted.
    async fn in_extents(
        &mut self,
        candidate: &Candidate,
        from: usize,
    ) -> Result<Option<Cursor>, FindError> {
        let here = |extent| Cursor { object: candidate.ordinal, extent };
        let (partition, number) = (&candidate.partition, candidate.number);
        let counted = partition.count_known(self.wanted.epoch, number);
        let counted = match timeout_at(self.deadline, counted).await {
            Ok(counted) => counted?,
            Err(_) => return Ok(Some(here(from))),
        };
        if counted != Counted::All {
            self.found.uncounted_objects += 1;
        }
        if counted == Counted::Nothing {
            return Ok(None);
        }
        let opened = partition.opened(number).await?;
        let (mut running, mut at, mut next) = (FuturesOrdered::new(), from, from);
        loop {
            // What is on its way is looked through, so a step with nothing asked for yet asks for an extent, whatever its limit.
            while running.len() < limits::FIND_LOADS
                && !(self.is_at_limit() && self.asked_bytes > 0)
                && let Some(extent) = opened.index.extents.get(next)
            {
                // Of chunks the first one is where the record is.
                let chunk = opened.index.chunk(extent.first_record);
                let is_further = chunk.is_some_and(|chunk| chunk.number > 0);
                let is_lost = opened.index.is_lost(extent.first_record);
                self.asked_bytes += if is_further || is_lost { 0 } else { extent.bytes.into() };
                running.push_back(partition.look_at(&opened, *extent, is_further));
                next += 1;
            }
            // A load goes on though nobody waits for it, and is there when the next step asks again.
            let Ok(read) = timeout_at(self.deadline, running.next()).await else {
                return Ok(Some(here(at)));
            };
            let Some((extent, found)) = read else { break };
            at += 1;
            match found {
                Ok(found) => {
                    self.found.searched_bytes +=
                        found.as_ref().map_or(0, |_| u64::from(extent.bytes));
                    if let Some(found) = found {
                        self.take_from(candidate, &extent, &found);
                    }
                }
                Err(error) if error.is_final() => self.note_unreadable(&error),
                Err(error) => return Err(FindError::Failed(error.to_string())),
            }
            if !self.found.matches.is_empty() {
                let is_over =
                    at >= opened.index.extents.len() && candidate.ordinal + 1 >= self.found.objects;
                return Ok((!is_over).then(|| here(at)));
            }
        }
        if at < opened.index.extents.len() {
            return Ok(Some(here(at)));
        }
        self.found.searched_objects += 1;
        Ok(None)
    }

    fn take_from(&mut self, candidate: &Candidate, extent: &ExtentIndex, found: &Extent) {
        for (record, number) in found.layout.records.iter().zip(extent.first_record..) {
            let key = record.key.as_ref().map(|key| key.of(&found.content));
            if key != Some(self.wanted.key.as_bytes()) {
                continue;
            }
            if self.found.matches.len() >= limits::FIND_MATCHES {
                self.found.has_more_matches = true;
                return;
            }
            self.take(candidate, number);
        }
    }

    fn note_unreadable(&mut self, error: &FetchError) {
        let reason = self.dataset.manifest.told(error);
        let listed = &mut self.found.unreadable;
        if listed.len() < limits::LISTED_DAMAGES && !listed.contains(&reason) {
            listed.push(reason);
        }
    }
}

const NO_RECORD: &str = "it is no record: it is too large";

impl DatasetPartition {
    /// Waits until an object is counted in an epoch, for as long as nothing has to be read for what comes before it. How much of it is counted.
    async fn count_known(&self, epoch: u32, number: u64) -> Result<Counted, PartitionError> {
        loop {
            let more = self.counted.notified();
            let next = {
                let state = self.state();
                let sought = state.epochs.epoch(epoch);
                let counted = sought.map_or(Counted::Nothing, |epoch| epoch.has_counted(number));
                let is_there = sought.is_some_and(|epoch| number < epoch.objects());
                let has_begun = state.epochs.last().is_some();
                if counted != Counted::Nothing
                    || (has_begun && !is_there)
                    || self.dataset.troubles.has_ended(self.id(), state.epochs.high_watermark())
                {
                    return Ok(counted);
                }
                state.epochs.counting().and_then(|counting| counting.next_object())
            };
            if let Some(next) = next
                && !self.is_indexed(next).await?
            {
                return Ok(Counted::Nothing);
            }
            more.await;
        }
    }

    /// An extent of a counted object, and what it holds; an error where its records are lost.
    async fn look_at(
        &self,
        opened: &Arc<Opened>,
        extent: ExtentIndex,
        is_passed_over: bool,
    ) -> (ExtentIndex, Result<Option<Arc<Extent>>, FetchError>) {
        if is_passed_over {
            return (extent, Ok(None));
        }
        if let Err(lost) = opened.index.check(&opened.object, extent.first_record) {
            return (extent, Err(lost));
        }
        let (cache, user) = (&self.dataset.cache, self.dataset.user());
        let id = extent_id(opened.id, &extent);
        let load = self.load(opened, &extent, limits::COUNTED_AHEAD_BYTES);
        (extent, cache.bring(id, user, load).await.map(Some))
    }
}
