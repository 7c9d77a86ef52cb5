//! What is stored of a pool and its group, and where a group begins of which nothing is.

use std::sync::Mutex;

use super::{PoolError, Pools, SharedPool, State, wall_ms};
use crate::group::machine::Snapshot;
use crate::group::share;
use crate::group::shared::config::Start;
use crate::group::shared::is_shared;
use crate::group::shared::pool::Pool;
use crate::group::shared::progress::Progress;
use crate::group::stored::{CommittedOffset, decode_group, encode_group};
use crate::log::{LogError, LookupError, Partition};
use crate::store::keys::damaged;
use crate::store::keys::group as group_keys;
use crate::store::keys::partition::PartitionKeys;
use crate::store::{StoreError, WriteBatch};

impl Pools {
    /// What is stored; where nothing is, the group begins here, which is stored.
    pub(super) async fn load(
        &self,
        pool: &SharedPool,
        start: Start,
    ) -> Result<Mutex<State>, PoolError> {
        let _as_it_is = self.replacing.read().await;
        let key = pool.keys.share(&pool.group);
        let progress = match self.store.get(&key).await? {
            Some(value) => Progress::decode(&value).map_err(|error| damaged(&key, error))?,
            None => {
                let partition = self.log.partition(pool.keys.topic, pool.keys.partition).await?;
                let progress = Progress::at(first_offset(&partition, start).await?);
                let mut batch = WriteBatch::new();
                self.put_group(&mut batch, &pool.group).await?;
                put_progress(&mut batch, &pool.group, &pool.keys, &progress);
                crate::store::write(&*self.store, batch).await?;
                progress
            }
        };
        Ok(Mutex::new(State {
            pool: Pool::restore(&progress),
            version: 0,
            stored: 0,
            is_retired: false,
        }))
    }

    /// A group's progress on a partition, of which what is in flight is not acknowledged; `None` if it has not begun.
    ///
    /// # Errors
    /// [`PoolError::Log`].
    pub async fn progress(
        &self,
        group: &str,
        keys: &PartitionKeys,
    ) -> Result<Option<Progress>, PoolError> {
        if let Some(progress) = self.loaded_progress(group, keys) {
            return Ok(Some(progress));
        }
        let key = keys.share(group);
        let Some(value) = self.store.get(&key).await? else { return Ok(None) };
        Ok(Some(Progress::decode(&value).map_err(|error| damaged(&key, error))?))
    }

    /// The progress of a pool that is loaded.
    pub(in crate::group::shared) fn loaded_progress(
        &self,
        group: &str,
        keys: &PartitionKeys,
    ) -> Option<Progress> {
        let key = (group.to_owned(), keys.topic, keys.partition);
        let pool = self.map().pools.get(&key).cloned()?;
        let state = pool.state()?;
        Some(state.pool.progress())
    }

    /// Makes a group known before anything is stored of its progress; waits until that is durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn make_known(&self, group: &str) -> Result<(), PoolError> {
        let mut batch = WriteBatch::new();
        self.put_group(&mut batch, group).await?;
        match batch.is_empty() {
            true => Ok(()),
            false => Ok(crate::store::write(&*self.store, batch).await?),
        }
    }

    /// The protocol type of a group that is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn protocol_type(&self, group: &str) -> Result<Option<String>, StoreError> {
        let key = group_keys::metadata_key(group);
        let Some(value) = self.store.get(&key).await? else { return Ok(None) };
        let (snapshot, _) = decode_group(value).map_err(|error| damaged(&key, error))?;
        Ok(snapshot.protocol_type)
    }

    /// When a group began, in milliseconds since 1970; `None` if nothing is stored of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begun_ms(&self, group: &str) -> Result<Option<i64>, StoreError> {
        let key = group_keys::metadata_key(group);
        let Some(value) = self.store.get(&key).await? else { return Ok(None) };
        let (_, begun_ms) = decode_group(value).map_err(|error| damaged(&key, error))?;
        Ok(Some(begun_ms))
    }

    /// Makes a group known, if it is not.
    pub(super) async fn put_group(
        &self,
        batch: &mut WriteBatch,
        group: &str,
    ) -> Result<(), StoreError> {
        let metadata = group_keys::metadata_key(group);
        if self.store.get(&metadata).await?.is_none() {
            let kind = if is_shared(group) { "consumer" } else { share::PROTOCOL_TYPE };
            let empty = Snapshot { protocol_type: Some(kind.to_owned()), ..Snapshot::default() };
            batch.put(metadata, encode_group(&empty, wall_ms()));
        }
        Ok(())
    }
}

/// Where a group begins.
async fn first_offset(partition: &Partition, start: Start) -> Result<i64, LogError> {
    let offsets = partition.offsets();
    Ok(match start {
        Start::Earliest => offsets.log_start_offset.0,
        Start::Latest => offsets.high_watermark.0,
        Start::Ago(age) => {
            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let found = partition.offset_for_time(wall_ms().saturating_sub(age_ms)).await;
            let found = found.map_err(|error| match error {
                LookupError::Store(error) => error,
                LookupError::Batch { .. } => damaged(b"", error),
            })?;
            found.map_or(offsets.high_watermark.0, |found| found.offset.0)
        }
    })
}

/// Progress, and the real offset that tools for ordinary groups look at.
pub(super) fn put_progress(
    batch: &mut WriteBatch,
    group: &str,
    keys: &PartitionKeys,
    progress: &Progress,
) {
    batch.put(keys.share(group), progress.encode());
    let offset = CommittedOffset {
        offset: progress.start,
        leader_epoch: -1,
        metadata: String::new(),
        committed_ms: wall_ms(),
    };
    let key = group_keys::offset_key(group, keys.topic, keys.partition);
    batch.put(key, offset.encode());
}

/// A group has not begun on a partition.
pub(super) fn delete_progress(batch: &mut WriteBatch, group: &str, keys: &PartitionKeys) {
    batch.delete(keys.share(group));
    batch.delete(group_keys::offset_key(group, keys.topic, keys.partition));
}
