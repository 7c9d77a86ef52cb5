//! Partitions whose records come from somewhere else: dataset topics. They have offsets, readers and a high watermark as any other, and
//! no appends, no retention, and nothing in the store.

use std::ops::Range;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::record::WireBatch;

use super::partition::{Offsets, ReadError, ReadResult};
use super::{FoundOffset, LookupError, Partition};
use crate::store::StoreError;

/// Where a partition's records come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The partition that shows them: it is told when there are more ([`Partition::show_source`]).
    fn attach(&self, partition: Weak<Partition>);

    /// The offset after the last record that may be read.
    fn high_watermark(&self) -> Offset;

    /// The offset after the last record that there will be, as far as that is known.
    fn end(&self) -> Option<Offset>;

    /// Somebody is going to read at `offset`, though nothing may be there yet.
    fn want(&self, offset: Offset);

    /// Batches of these records, of about `max_bytes`: at least one record; none at the high watermark, or behind it.
    ///
    /// # Errors
    /// [`StoreError::Read`]: the records cannot be had now.
    async fn read(
        &self,
        offsets: Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<WireBatch>, StoreError>;

    /// Whether a read from `from` on begins with something that is in memory.
    fn is_warm(&self, from: Offset) -> bool;

    /// Has it in memory.
    ///
    /// # Errors
    /// As [`Source::read`].
    async fn warm(&self, from: Offset) -> Result<(), StoreError>;

    /// The first record, by offset, whose timestamp is at least `timestamp_ms`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn offset_for_time(&self, timestamp_ms: i64)
    -> Result<Option<(Offset, i64)>, StoreError>;
}

/// Knows which partitions have a [`Source`].
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// That of a partition, if its topic has one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open(
        &self,
        topic: TopicId,
        partition: PartitionIndex,
    ) -> Result<Option<Arc<dyn Source>>, StoreError>;

    /// A topic's configuration was changed, or it was deleted: both are durable. Called for topics without a source too.
    fn changed(self: Arc<Self>, topic: TopicId);
}

impl Partition {
    /// Where its records come from, if they are not stored here.
    pub(super) fn source(&self) -> Option<&Arc<dyn Source>> {
        self.source.as_ref()
    }

    /// Whether its records come from somewhere else: nothing can be appended, and nothing deleted.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.source.is_some()
    }

    /// Says that somebody waits for the record at `offset`: where records are counted as they are read, they are counted that far.
    pub fn want(&self, offset: Offset) {
        if let Some(source) = &self.source {
            source.want(offset);
        }
    }

    /// Lets readers see what is below `high_watermark`: its source calls it.
    pub fn show_source(&self, high_watermark: Offset) {
        self.show(high_watermark);
    }

    pub(super) async fn read_source(
        &self,
        source: &Arc<dyn Source>,
        wanted: Range<Offset>,
        max_bytes: usize,
    ) -> Result<ReadResult<WireBatch>, ReadError> {
        let (from, offsets) = (wanted.start, self.offsets());
        let Offsets { log_start_offset, high_watermark, .. } = offsets;
        // Behind the high watermark there may be more, which was not counted again yet after a start.
        let end = source.end().map_or(Offset(i64::MAX), |end| end.max(high_watermark));
        if from < log_start_offset || from > end {
            let end = source.end().unwrap_or(high_watermark);
            return Err(ReadError::OutOfRange { from, log_start_offset, end });
        }
        let batches = source.read(wanted, max_bytes).await?;
        Ok(ReadResult { batches, offsets: self.offsets() })
    }

    pub(super) async fn source_offset_for_time(
        &self,
        source: &Arc<dyn Source>,
        timestamp_ms: i64,
    ) -> Result<Option<FoundOffset>, LookupError> {
        let found = source.offset_for_time(timestamp_ms).await?;
        let leader_epoch = self.offsets().leader_epoch;
        Ok(found.map(|(offset, timestamp_ms)| FoundOffset { offset, timestamp_ms, leader_epoch }))
    }
}
