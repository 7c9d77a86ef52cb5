//! Takes over what is found while an object is indexed.
//!
//! **Invariant:** before records of an object may be read that is not all indexed, it is durable how many there are: what is found out about it
//! afterwards, by whoever begins anew with it, leaves those records their offsets.

use std::sync::Arc;

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::fetch::Object;
use robustmq_dataset::format::{Coding, Format};
use robustmq_dataset::index::{Found, ObjectIndex, Reading, extent_id};
use robustmq_dataset::layout::Extent;

use super::partition::{DatasetPartition, PartitionError};
use crate::store::StoreError;
use crate::topics::OnCorrupt;

/// An object that is being indexed for a partition.
pub(super) struct Growing<'a> {
    partition: &'a Arc<DatasetPartition>,
    number: u64,
    object: u128,
    /// So many records have offsets, whatever becomes of the rest.
    promised: u64,
    /// Somebody may still read it.
    is_wanted: bool,
    /// Why more could not be promised.
    failed: Option<StoreError>,
}

impl<'a> Growing<'a> {
    /// The object of a number, of which so much is promised.
    pub fn new(
        partition: &'a Arc<DatasetPartition>,
        number: u64,
        object: u128,
        promised: u64,
    ) -> Self {
        Self { partition, number, object, promised, is_wanted: true, failed: None }
    }

    /// What is promised of the object where it was not read to its end.
    ///
    /// # Errors
    /// That is not for what is wrong with the object.
    pub fn ended(self, object: &Object) -> Result<u64, PartitionError> {
        match self.failed {
            Some(error) => Err(error.into()),
            None if self.is_wanted => Ok(self.promised),
            None => Err(PartitionError::Unwanted { object: object.path.to_string() }),
        }
    }
}

impl Found for Growing<'_> {
    fn extent(&mut self, index: &ObjectIndex, extent: Arc<Extent>) {
        let dataset = &self.partition.dataset;
        let Some(last) = index.extents.last() else { return };
        let Reading { format, coding, .. } = index.reading;
        let is_piece = format != Format::Parquet && coding == Coding::Plain;
        let taken_bytes = if is_piece { extent.content.len() } else { 0 };
        dataset.cache.put(extent_id(self.object, last), dataset.user(), extent, taken_bytes);
    }

    async fn publish(&mut self, index: &ObjectIndex) -> bool {
        let dataset = &self.partition.dataset;
        // Whether what is compressed is good, and no bomb, is known at its end.
        let may_be_damaged = index.damaged > 0 || index.reading.coding != Coding::Plain;
        if may_be_damaged && dataset.live().on_corrupt == OnCorrupt::Stop {
            return true;
        }
        let records = index.records();
        if records > self.promised {
            if let Err(error) = dataset.group.promise(self.object, records).await {
                self.failed = Some(error);
                return false;
            }
            self.promised = records;
        }
        self.partition.state().grow(self.number, index);
        self.partition.publish();
        true
    }

    fn promised(&self) -> u64 {
        self.promised
    }

    fn wants(&self, on_their_way: u64) -> bool {
        // Whoever else waits for this object is not to wait for our readers.
        self.partition.has_demand_beside(on_their_way)
            || self.partition.dataset.group.is_wanted(self.object)
    }

    async fn wanted(&mut self) -> bool {
        let mut demand = self.partition.demand.subscribe();
        while !self.wants(0) {
            let _ = tokio::time::timeout(limits::RETRY, demand.changed()).await;
            if !self.partition.is_shown() {
                self.is_wanted = false;
                return false;
            }
        }
        true
    }
}
