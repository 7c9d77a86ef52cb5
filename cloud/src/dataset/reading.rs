//! Reads: offsets to records of extents to record batches.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::ids::Offset;
use robustmq_common::limits::dataset as limits;
use robustmq_common::record::WireBatch;
use robustmq_dataset::cache::{ExtentId, Load, Tier};
use robustmq_dataset::epochs::{Place, Shuffle};
use robustmq_dataset::fetch::{FetchError, Paced};
use robustmq_dataset::format::Format;
use robustmq_dataset::index::{self, ExtentIndex, Reread, extent_id};
use robustmq_dataset::layout::Extent;
use tokio::time::Instant;

use super::batch::{Batch, Origin, record_bytes};
use super::partition::{Dataset, DatasetPartition, Opened, PartitionError};
use super::troubles::Doing;
use crate::log::{self, Source};
use crate::store::StoreError;
use crate::topics::OnCorrupt;

/// An extent, for the cache to load.
pub(super) struct ExtentLoad {
    pub dataset: Arc<Dataset>,
    pub opened: Arc<Opened>,
    pub extent: ExtentIndex,
    /// What its reader reads before it.
    pub distance_bytes: u64,
}

#[async_trait]
impl Load for ExtentLoad {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        let Opened { object, id, index } = &*self.opened;
        let (cache, user) = (&self.dataset.cache, self.dataset.user());
        let source = Arc::clone(&self.dataset.group.source);
        let source = Arc::new(Paced::new(source, object.size, self.distance_bytes));
        let beside = |extent: &ExtentIndex, content: Bytes| {
            if let Ok(extent_found) = index::open(object, index, extent, content) {
                cache.put(extent_id(*id, extent), user, Arc::new(extent_found), 0);
            }
        };
        let reread = Reread { source, object, id: *id, index };
        index::fetch(&reread, &self.extent, &self.dataset.between, beside).await
    }

    fn open(&self, content: Bytes) -> Result<Extent, FetchError> {
        index::open(&self.opened.object, &self.opened.index, &self.extent, content)
    }
}

/// What an answer is made of.
struct Answer {
    batches: Vec<WireBatch>,
    bytes: usize,
    max_bytes: usize,
    batch: Batch,
    /// The next offset, and where it ends.
    at: i64,
    end: i64,
    /// The extents that were used last: records of a window are spread over several.
    held: Vec<(ExtentId, Arc<Extent>)>,
}

/// The content of an extent of which values are sent as they lie in the cache.
enum Lent {
    Unasked,
    Asked(Option<Bytes>),
}

impl Lent {
    /// It is asked for once. Nothing is lent of an extent of which a record is taken here and one there, since that would hold all of it.
    fn content(
        &mut self,
        partition: &DatasetPartition,
        opened: &Opened,
        extent: &ExtentIndex,
        found: &Arc<Extent>,
    ) -> Option<&Bytes> {
        if matches!(self, Self::Unasked) {
            let Dataset { cache, config, .. } = &*partition.dataset;
            let is_in_order = !matches!(config.shuffle, Shuffle::Window(_));
            let lend = || cache.lend(extent_id(opened.id, extent), found);
            *self = Self::Asked(is_in_order.then(lend).flatten());
        }
        match self {
            Self::Asked(content) => content.as_ref(),
            Self::Unasked => None,
        }
    }
}

/// Extents that a read holds: those of a window.
const HELD: usize = 64;

impl Answer {
    fn close_batch(&mut self) -> Result<(), StoreError> {
        let room = self.max_bytes.saturating_sub(self.bytes + self.batch.bytes());
        let next = Batch::at(Offset(self.at), room);
        let batch = std::mem::replace(&mut self.batch, next);
        if !batch.is_empty() {
            let built = batch.build().map_err(|error| StoreError::Read(error.to_string()))?;
            self.bytes += built.size();
            self.batches.push(built);
        }
        Ok(())
    }

    /// Whether a record of so many bytes still fits.
    fn has_room(&self, record: usize) -> bool {
        let has_some = !self.batch.is_empty() || !self.batches.is_empty();
        !has_some || self.bytes + self.batch.bytes() + record <= self.max_bytes
    }
}

impl DatasetPartition {
    async fn answer(
        self: &Arc<Self>,
        Range { start: from, end }: Range<i64>,
        max_bytes: usize,
    ) -> Result<Answer, PartitionError> {
        let batch = Batch::at(Offset(from), max_bytes);
        let (batches, held) = (Vec::new(), Vec::new());
        let mut answer = Answer { batches, bytes: 0, max_bytes, batch, at: from, end, held };
        while answer.at < end
            && let Some((place, opened)) = self.find(answer.at).await?
        {
            let Some((_, extent)) = opened.index.extent_of(place.record) else { break };
            let is_begun = !answer.batch.is_empty() || !answer.batches.is_empty();
            let found = match opened.index.check(&opened.object, place.record) {
                Ok(()) => self.extent(&opened, &extent, &mut answer.held, is_begun).await,
                Err(error) => Err(error.into()),
            };
            let has_room = match found {
                Ok(Some(found)) => {
                    self.state().lost.found(extent_id(opened.id, &extent), extent.records);
                    self.take(&mut answer, &place, &opened, &extent, &found)?
                }
                Ok(None) => false,
                Err(PartitionError::Fetch(error)) if self.leaves_out(&error) => {
                    self.check_neighbours(&error, &place).await?;
                    self.take_lost(&mut answer, &place, &opened, &extent, &error)?
                }
                Err(error) => return Err(error),
            };
            if !has_room {
                break;
            }
        }
        answer.close_batch()?;
        Ok(answer)
    }

    /// An extent of an object; with `only_ready` it is not waited for.
    async fn extent(
        self: &Arc<Self>,
        opened: &Arc<Opened>,
        extent: &ExtentIndex,
        held: &mut Vec<(ExtentId, Arc<Extent>)>,
        only_ready: bool,
    ) -> Result<Option<Arc<Extent>>, PartitionError> {
        let id = extent_id(opened.id, extent);
        if let Some((_, found)) = held.iter().find(|(held, _)| *held == id) {
            return Ok(Some(Arc::clone(found)));
        }
        let cache = &self.dataset.cache;
        if only_ready && cache.contains(id) != Some(Tier::Memory) {
            return Ok(None);
        }
        let (found, _) = cache.get(id, self.dataset.user(), self.load(opened, extent, 0)).await?;
        if held.len() >= HELD {
            held.remove(0);
        }
        held.push((id, Arc::clone(&found)));
        Ok(Some(found))
    }

    /// For a reader that reads `distance_bytes` before it.
    pub(super) fn load(
        &self,
        opened: &Arc<Opened>,
        extent: &ExtentIndex,
        distance_bytes: u64,
    ) -> Arc<dyn Load> {
        let (dataset, opened) = (Arc::clone(&self.dataset), Arc::clone(opened));
        Arc::new(ExtentLoad { dataset, opened, extent: *extent, distance_bytes })
    }

    fn origin<'a>(&'a self, place: &Place, opened: &'a Opened) -> Origin<'a> {
        Origin {
            chunk: opened.index.chunk(place.record),
            epoch: place.epoch,
            object: self.dataset.manifest.name(&opened.object),
            is_whole: opened.index.reading.format == Format::Object,
            modified_ms: opened.object.modified_ms,
            preferred: &self.dataset.config.value,
        }
    }

    /// Whether readers go on where a record cannot be had for this reason.
    fn leaves_out(&self, error: &FetchError) -> bool {
        error.is_final() && self.dataset.live().on_corrupt == OnCorrupt::Skip
    }

    /// Takes null records for those from `place` on that lie together in an extent which is not there any more. Whether there is room for more.
    fn take_lost(
        &self,
        answer: &mut Answer,
        place: &Place,
        opened: &Opened,
        extent: &ExtentIndex,
        error: &FetchError,
    ) -> Result<bool, PartitionError> {
        let id = extent_id(opened.id, extent);
        let reason = self.dataset.manifest.told(error);
        let noted = self.state().lost.note(id, extent.records, &reason);
        self.dataset.troubles.note_lost(noted.records);
        if noted.is_new_object {
            let (topic, topic_id) = (self.dataset.name.as_str(), self.dataset.topic);
            tracing::warn!(topic, %topic_id, reason, "records of a dataset are lost: readers are given null records");
        }
        let origin = self.origin(place, opened);
        let record = 2 * origin.object.len() + reason.len() + 128;
        let in_extent = extent.first_record + u64::from(extent.records) - place.record;
        let left = answer.end.saturating_sub(answer.at).max(0).cast_unsigned();
        for _ in 0..place.run.min(left).min(in_extent) {
            if !answer.has_room(record) {
                return Ok(false);
            }
            let pushed = answer.batch.push_lost(&origin, &reason);
            pushed.map_err(|error| StoreError::Read(error.to_string()))?;
            answer.at += 1;
            if answer.batch.bytes() >= limits::BATCH_BYTES {
                answer.close_batch()?;
            }
        }
        Ok(answer.has_room(1))
    }

    /// Takes the records from `place` on that lie together in an extent. Whether there is room for more.
    fn take(
        &self,
        answer: &mut Answer,
        place: &Place,
        opened: &Opened,
        extent: &ExtentIndex,
        found: &Arc<Extent>,
    ) -> Result<bool, PartitionError> {
        let origin = self.origin(place, opened);
        let mut lent = Lent::Unasked;
        let first = usize::try_from(place.record - extent.first_record).unwrap_or(usize::MAX);
        let began = answer.at;
        let left = answer.end.saturating_sub(answer.at).max(0).cast_unsigned();
        let run = usize::try_from(place.run.min(left)).unwrap_or(usize::MAX);
        for record in found.layout.records.iter().skip(first).take(run) {
            if !answer.has_room(record_bytes(found, record)) {
                return Ok(false);
            }
            let lend = || lent.content(self, opened, extent, found).cloned();
            let pushed = answer.batch.push(&origin, found, record, lend);
            pushed.map_err(|error| StoreError::Read(error.to_string()))?;
            answer.at += 1;
            if answer.batch.bytes() >= limits::BATCH_BYTES {
                answer.close_batch()?;
            }
        }
        let next = place.record + answer.at.saturating_sub(began).max(0).cast_unsigned();
        let is_last = next >= extent.first_record + u64::from(extent.records);
        if is_last && answer.has_room(0) {
            self.dataset.cache.passed(extent_id(opened.id, extent), self.dataset.user());
        }
        Ok(answer.has_room(1))
    }
}

#[async_trait]
impl Source for super::Attached {
    fn attach(&self, partition: Weak<log::Partition>) {
        self.0.attach(partition);
    }

    fn high_watermark(&self) -> Offset {
        Offset(self.0.state().epochs.high_watermark())
    }

    fn end(&self) -> Option<Offset> {
        let state = self.0.state();
        let last = state.epochs.last()?;
        let is_last = last.number() + 1 >= self.0.dataset.live().epochs;
        let is_all = is_last && state.epochs.counting().is_none();
        is_all.then(|| Offset(state.epochs.high_watermark()))
    }

    fn want(&self, offset: Offset) {
        self.0.want(offset.0);
    }

    async fn read(
        &self,
        Range { start: from, end }: Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<WireBatch>, StoreError> {
        let this = &self.0;
        let id = this.id();
        let sharing = this.dataset.active.note(id, Instant::now());
        this.sharing.store(sharing, Ordering::Relaxed);
        this.want(from.0);
        let answer = this.answer(from.0..end.0, max_bytes.min(limits::ANSWER_BYTES)).await;
        let answer = answer.map_err(|error| {
            let (topic_id, partition) = id;
            let is_ours = matches!(error, PartitionError::Store(_));
            let (topic, reason) = (this.dataset.name.as_str(), this.dataset.told(&error));
            let troubles = &this.dataset.troubles;
            let is_new =
                || troubles.meets(id, Doing::Reading, from.0, reason.clone(), &error);
            if !is_ours && is_new() {
                tracing::warn!(topic, %topic_id, %partition, offset = from.0, reason, "a record of a dataset cannot be read");
            }
            StoreError::from(error)
        })?;
        if answer.at > from.0 {
            this.dataset.troubles.was_read(id, &(from.0..answer.at));
            this.want(answer.at);
            let begins = this.state().epochs.iter().any(|epoch| epoch.first_offset() == from.0);
            let most = this.ahead_bytes();
            this.readers().note(from.0, answer.at, begins, most, Instant::now());
            this.read.notify_one();
        }
        Ok(answer.batches)
    }

    fn is_warm(&self, from: Offset) -> bool {
        // What is not counted yet is waited for as any record that is to come.
        self.0.is_at_hand(from.0).unwrap_or(true)
    }

    async fn warm(&self, from: Offset) -> Result<(), StoreError> {
        let this = &self.0;
        let warmed = async {
            let Some((place, opened)) = this.find(from.0).await? else { return Ok(()) };
            let Some((_, extent)) = opened.index.extent_of(place.record) else { return Ok(()) };
            if opened.index.check(&opened.object, place.record).is_err() {
                return Ok(());
            }
            this.extent(&opened, &extent, &mut Vec::new(), false).await.map(drop)
        };
        let warmed: Result<(), PartitionError> = warmed.await;
        warmed.map_err(|error| StoreError::Read(error.to_string()))
    }

    async fn offset_for_time(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, StoreError> {
        self.0.offset_for_time(timestamp_ms).await
    }
}
