//! Counts a partition's records: epoch by epoch, object by object, in the order in which they are going to be read. What was never read
//! before is indexed by the download that serves it.
//!
//! It keeps a little ahead of the furthest reader (`robustmq.source.index = lazy`), or goes on to the end (`eager`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use robustmq_common::ids::Offset;
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::Paced;
use robustmq_dataset::format::{Damage, Format};
use robustmq_dataset::index::{self, ObjectIndex, Pace};

use super::growing::Growing;
use super::left_out::{is_gone, what_to_do};
use super::partition::{DatasetPartition, PartitionError, guarded};
use super::status::Damaged;
use super::troubles::Doing;
use crate::store::keys::dataset::StoredEpoch;
use crate::store::{self, WriteBatch};
use crate::topics::OnCorrupt;

/// Counts until the partition is not used any more.
pub(super) async fn run(partition: Weak<DatasetPartition>) {
    let mut pause = limits::RETRY;
    loop {
        let Some(this) = partition.upgrade() else { return };
        let cancel = this.dataset.cancel.clone();
        let mut demand = this.demand.subscribe();
        demand.mark_unchanged();
        let outcome = tokio::select! {
            outcome = guarded(this.count()) => outcome,
            () = cancel.cancelled() => return,
        };
        let wait = match outcome {
            // What nobody reads now is looked at again when somebody does.
            Ok(()) | Err(PartitionError::Unwanted { .. }) => {
                this.goes_on();
                pause = limits::RETRY;
                // So that one that nobody uses any more can go.
                limits::RETRY_MOST
            }
            Err(error) => {
                this.report(&error);
                pause = (pause * 2).min(limits::RETRY_MOST);
                pause
            }
        };
        let failed = wait == pause && pause > limits::RETRY;
        drop(this);
        wait_for(&mut demand, wait, failed, &cancel).await;
    }
}

async fn wait_for(
    demand: &mut tokio::sync::watch::Receiver<i64>,
    most: Duration,
    failed: bool,
    cancel: &tokio_util::sync::CancellationToken,
) {
    let changed = async {
        match failed {
            true => std::future::pending().await,
            false => drop(demand.changed().await),
        }
    };
    tokio::select! {
        () = changed => {}
        () = tokio::time::sleep(most) => {}
        () = cancel.cancelled() => {}
    }
}

/// An object that was counted: its number, its size, what it holds.
type Counted = (u64, u64, Arc<ObjectIndex>);

impl DatasetPartition {
    fn report(&self, error: &PartitionError) {
        let (topic_id, partition) = self.id();
        let topic = self.dataset.name.as_str();
        let end = self.state().epochs.high_watermark();
        let reason = self.dataset.told(error);
        let what_to_do = match error {
            PartitionError::Fetch(error) if is_gone(error) => {
                what_to_do(self.dataset.live().on_corrupt)
            }
            _ => "",
        };
        let reason = format!("{reason}{what_to_do}");
        if self.dataset.troubles.meets(self.id(), Doing::Counting, end, reason.clone(), error) {
            tracing::warn!(topic, %topic_id, %partition, end, reason, "a dataset cannot be read on");
        }
        // Whoever waits for more is told as well.
        self.counted.notify_waiters();
    }

    fn goes_on(&self) {
        let (end, is_complete) = {
            let state = self.state();
            (state.epochs.high_watermark(), state.epochs.counting().is_none())
        };
        self.dataset.troubles.goes_on(self.id(), end, is_complete);
    }

    /// Counts as long as there is demand.
    async fn count(self: &Arc<Self>) -> Result<(), PartitionError> {
        loop {
            if self.state().epochs.counting().is_none() && !self.begin_epoch().await? {
                return Ok(());
            }
            if !self.count_epoch().await? {
                return Ok(());
            }
        }
    }

    /// Begins the next epoch, if there is one and somebody reads the last, or nobody has begun yet.
    async fn begin_epoch(&self) -> Result<bool, PartitionError> {
        let furthest = *self.demand.borrow();
        let (number, first_offset) = {
            let state = self.state();
            match state.epochs.last() {
                None => (0, 0),
                // The second is there as soon as the first is counted, and from then on one more than is read.
                Some(last) if last.number() == 0 || furthest >= last.first_offset() => {
                    (last.number() + 1, state.epochs.high_watermark())
                }
                Some(_) => return Ok(false),
            }
        };
        if number >= self.dataset.live().epochs {
            return Ok(false);
        }
        let objects = self.objects();
        let stored = StoredEpoch { epoch: number, first_offset: Offset(first_offset), objects };
        let mut write = WriteBatch::new();
        write.put(stored.key(self.dataset.topic, self.partition), stored.encode());
        store::write(&*self.dataset.store, write).await?;
        self.state().epochs.begin(objects);
        Ok(true)
    }

    /// Counts the objects of the epoch that is being counted: some at once, taken over in order. Whether it came to the end, and not only to
    /// that of the demand.
    async fn count_epoch(self: &Arc<Self>) -> Result<bool, PartitionError> {
        let (mut place, epoch) = {
            let state = self.state();
            let Some(epoch) = state.epochs.counting() else { return Ok(true) };
            (epoch.counted(), epoch.clone())
        };
        let mut demand = self.demand.subscribe();
        let mut running = FuturesOrdered::new();
        let mut bytes = 0;
        loop {
            // What has come of the first one is ahead of readers by now, and not on its way any more.
            let came = self.state().grown_bytes().min(bytes);
            // What comes before there is room for it next to what readers still have to read would be fetched once more.
            while place < epoch.objects()
                && running.len() < limits::INDEXING_OBJECTS
                && (running.is_empty() || bytes < limits::INDEXING_BYTES)
                && (self.has_demand_beside(bytes - came)
                    || self.costs_nothing(epoch.object_at(place)).await?)
            {
                let number = epoch.object_at(place);
                place += 1;
                if running.is_empty() && self.state().count_again(number) {
                    continue;
                }
                let (object, _) = self.object(number).await?;
                let distance_bytes = self.counted_ahead_bytes() + bytes - came;
                bytes += object.size;
                let this = Arc::clone(self);
                running.push_back(async move { this.count_object(number, distance_bytes).await });
            }
            self.publish();
            let counted = tokio::select! {
                counted = running.next() => counted,
                Ok(()) = demand.changed() => continue,
            };
            let Some(counted) = counted else {
                return Ok(place == epoch.objects());
            };
            let (number, size, index) = counted?;
            bytes -= size;
            let damages = self.check(number, &index).await?;
            self.state().count((number, size), &index, damages);
            self.publish();
        }
    }

    /// Whether nothing has to be read to count an object: then it is counted further ahead, since only what is counted is fetched ahead; and
    /// to the end where somebody searches.
    async fn costs_nothing(&self, number: u64) -> Result<bool, PartitionError> {
        let is_far = self.counted_ahead_bytes() >= limits::COUNTED_AHEAD_BYTES;
        if is_far && self.searches.load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        self.is_indexed(number).await
    }

    /// Whether it is known what an object holds.
    pub(super) async fn is_indexed(&self, number: u64) -> Result<bool, PartitionError> {
        Ok(self.dataset.is_indexed(self.ordinal(number)).await?)
    }

    /// The first samples of an object that cannot be read; an error if they stop the topic.
    async fn check(
        &self,
        number: u64,
        index: &ObjectIndex,
    ) -> Result<Vec<Damaged>, PartitionError> {
        if index.damaged == 0 {
            return Ok(Vec::new());
        }
        let (object, _) = self.object(number).await?;
        let reason =
            index.damage.first().map(|first| format!("{} at byte {}", first.reason, first.at));
        let name = self.dataset.manifest.name(&object).to_owned();
        let reason = reason.unwrap_or_default();
        if self.dataset.live().on_corrupt == OnCorrupt::Stop {
            return Err(PartitionError::Corrupt { object: name, reason });
        }
        let (topic, topic_id) = (self.dataset.name.as_str(), self.dataset.topic);
        tracing::warn!(topic, %topic_id, object = name, places = index.damaged, reason, "samples cannot be read and are left out");
        let damaged = |damage: &Damage| Damaged {
            partition: self.partition.0,
            object: name.clone(),
            at: damage.at,
            reason: damage.reason.clone(),
        };
        Ok(index.damage.iter().map(damaged).collect())
    }

    /// What an object holds: known, or found by reading it. Readers read `distance_bytes` before it.
    async fn count_object(
        self: Arc<Self>,
        number: u64,
        distance_bytes: u64,
    ) -> Result<Counted, PartitionError> {
        let (object, id) = self.object(number).await?;
        let group = &self.dataset.group;
        let Some(reading) = super::reading_of(&self.dataset.config, &object) else {
            let whole = ObjectIndex::whole(&object, self.dataset.config.large);
            return Ok((number, object.size, Arc::new(whole)));
        };
        if let Some(known) = group.known(id).await? {
            return Ok((number, object.size, known));
        }
        let _turn = group.turn(id).await;
        if let Some(known) = group.known(id).await? {
            return Ok((number, object.size, known));
        }
        let dataset = &self.dataset;
        let pace = match distance_bytes {
            0 => Pace::urgent(limits::INDEXING_GETS),
            _ => Pace::even(limits::INDEXING_GETS),
        };
        let pace = pace.with_extents(dataset.cache.extent_bytes());
        let distance = (distance_bytes, pace);
        let promised = group.promised(id).await?;
        // Records that have offsets were found in the object itself.
        if promised == 0
            && let Some(index) = self.index_beside(number, &object, &reading, distance).await?
        {
            let index = Arc::new(index);
            group.save(id, &index).await?;
            return Ok((number, object.size, index));
        }
        let mut growing = Growing::new(&self, number, id, promised);
        // Of Parquet, what lies last is read first.
        let from = if reading.format == Format::Parquet { object.size } else { 0 };
        let source = Paced::new(Arc::clone(&group.source), from, distance_bytes);
        let found =
            index::index(&source, &object, reading.clone(), pace, &dataset.between, &mut growing)
                .await;
        let index = match found {
            Ok(index) => index,
            Err(error) => {
                tracing::debug!(object = %object.path, %error, "an object cannot be indexed");
                let promised = growing.ended(&object)?;
                self.without(number, &object, reading, promised, error).await?
            }
        };
        let index = Arc::new(index);
        if dataset.live().on_corrupt == OnCorrupt::Skip {
            dataset.troubles.note_left_out(index.damaged);
        }
        group.save(id, &index).await?;
        Ok((number, object.size, index))
    }
}
