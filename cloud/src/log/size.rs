//! What partitions hold, in bytes, from their time index. Nothing is loaded for it: partitions that are not in memory are looked up in
//! the store, and those that were never written cost one key.

use bytes::Bytes;
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;

use super::{Log, LogError};
use crate::store::keys::damaged;
use crate::store::keys::partition::{Chunk, LogEnd, PartitionKeys, decode_offset};
use crate::store::{ScanLimit, Store, StoreError};

impl Log {
    /// Bytes of the batches of each of these partitions, exact to about a chunk.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn sizes(&self, partitions: &[PartitionKeys]) -> Result<Vec<u64>, LogError> {
        let mut sizes = Vec::with_capacity(partitions.len());
        for page in partitions.chunks(limits::STORE_SCAN_ITEMS) {
            let ends: Vec<Bytes> = page.iter().map(PartitionKeys::end).collect();
            let ends = self.store().get_many(&ends).await?;
            for (keys, end) in page.iter().zip(ends) {
                sizes.push(self.size(keys, end).await?);
            }
        }
        Ok(sizes)
    }

    /// As [`Log::sizes`], of the partitions 0 to `partitions - 1` of a topic.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn topic_sizes(&self, topic: TopicId, partitions: i32) -> Result<Vec<u64>, LogError> {
        let keys = (0..partitions).map(|n| PartitionKeys { topic, partition: PartitionIndex(n) });
        self.sizes(&keys.collect::<Vec<_>>()).await
    }

    async fn size(&self, keys: &PartitionKeys, end: Option<Bytes>) -> Result<u64, LogError> {
        if let Some(loaded) = self.loaded_partition(keys.topic, keys.partition) {
            return Ok(loaded.size_bytes().await?);
        }
        let Some(end) = end else { return Ok(0) };
        let end = LogEnd::decode(&end).map_err(|error| damaged(&keys.end(), error))?;
        let start = match self.store().get(&keys.log_start()).await? {
            Some(start) => {
                decode_offset(&start).map_err(|error| damaged(&keys.log_start(), error))?
            }
            None => Offset(0),
        };
        Ok(end.open_chunk.bytes + closed_bytes(&**self.store(), keys, start).await?)
    }
}

async fn closed_bytes(
    store: &dyn Store,
    keys: &PartitionKeys,
    start: Offset,
) -> Result<u64, StoreError> {
    let mut range = keys.chunks_from(start);
    let mut bytes = 0_u64;
    loop {
        let page = store.scan(range.clone(), ScanLimit::items(usize::MAX)).await?;
        for (key, value) in &page.items {
            let chunk = Chunk::decode(value).map_err(|error| damaged(key, error))?;
            bytes = bytes.saturating_add(chunk.bytes);
        }
        match page.resume {
            Some(resume) => range.start = resume,
            None => return Ok(bytes),
        }
    }
}
