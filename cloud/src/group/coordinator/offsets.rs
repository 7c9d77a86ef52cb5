//! Committed offsets: commit, fetch, delete.

use super::{
    Active, Commit, CommittedOffset, Coordinator, CoordinatorError, PendingWrite, StoreError,
    WriteBatch, check_id, keys, wall_ms,
};
use crate::group::machine::{Caller, GroupError};
use crate::group::shared::is_shared;
use crate::group::shared::progress::Progress;
use crate::store::ScanLimit;
use crate::store::keys::group::GroupKey;
use crate::store::keys::partition::PartitionKeys;
use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio::sync::RwLockWriteGuard;

/// Removes a committed offset, and the progress that it stands for in a shared group or a share group.
pub(super) fn delete_offset(
    batch: &mut WriteBatch,
    id: &str,
    topic: TopicId,
    partition: PartitionIndex,
) {
    batch.delete(keys::offset_key(id, topic, partition));
    batch.delete(PartitionKeys { topic, partition }.share(id));
}

impl Coordinator {
    /// Commits offsets in one atomic write; waits until it is durable.
    ///
    /// # Errors
    /// [`CoordinatorError`]: nothing was committed.
    pub async fn commit(
        &self,
        id: &str,
        caller: &Caller,
        commits: &[Commit],
    ) -> Result<(), CoordinatorError> {
        check_id(id)?;
        loop {
            let begun = self
                .with(id, |active, now| {
                    active.group.may_commit(now, caller)?;
                    self.submit_commits(id, active, commits)
                })
                .await?;
            match begun {
                Ok(pending) => return Ok(pending.await?),
                Err(CoordinatorError::Store(StoreError::Busy { .. })) => {
                    self.shared.store.ready().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn submit_commits(
        &self,
        id: &str,
        active: &mut Active,
        commits: &[Commit],
    ) -> Result<PendingWrite, CoordinatorError> {
        let mut batch = WriteBatch::new();
        let first = !active.is_stored;
        if first {
            // A group of a consumer that assigns itself: it exists from its first commit on.
            self.put_group(id, active, &mut batch);
        }
        let committed_ms = wall_ms();
        for commit in commits {
            let value = CommittedOffset {
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                metadata: commit.metadata.clone(),
                committed_ms,
            };
            batch.put(keys::offset_key(id, commit.topic, commit.partition), value.encode());
        }
        let submitted = self.shared.store.submit(batch);
        if submitted.is_err() && first {
            active.is_stored = false;
        }
        Ok(submitted?)
    }

    /// The committed offsets of the partitions asked for, in that order; `None` where there is none.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn committed(
        &self,
        id: &str,
        partitions: &[(TopicId, PartitionIndex)],
    ) -> Result<Vec<Option<CommittedOffset>>, CoordinatorError> {
        check_id(id)?;
        let mut found = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            let value = self.shared.store.get(&keys::offset_key(id, *topic, *partition)).await?;
            let committed = value.map(|value| self.read_offset(id, value)).transpose()?;
            found.push(committed);
        }
        Ok(found)
    }

    fn read_offset(
        &self,
        id: &str,
        value: bytes::Bytes,
    ) -> Result<CommittedOffset, CoordinatorError> {
        CommittedOffset::decode(value)
            .map_err(|reason| CoordinatorError::Damaged { group: id.to_owned(), reason })
    }

    /// All committed offsets of a group, by topic id and partition.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn all_committed(
        &self,
        id: &str,
    ) -> Result<Vec<(TopicId, PartitionIndex, CommittedOffset)>, CoordinatorError> {
        check_id(id)?;
        let mut range = keys::offsets_range(id);
        let mut found = Vec::new();
        loop {
            let limit = ScanLimit::items(limits::STORE_SCAN_ITEMS);
            let page = self.shared.store.scan(range.clone(), limit).await?;
            for (key, value) in page.items {
                if let Ok(GroupKey::Offset { topic, partition, .. }) = GroupKey::parse(&key) {
                    found.push((topic, partition, self.read_offset(id, value)?));
                }
            }
            match page.resume {
                Some(next) => range.start = next,
                None => return Ok(found),
            }
        }
    }

    /// The offsets that a group has committed of a topic, by partition.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn committed_of(
        &self,
        id: &str,
        topic: TopicId,
    ) -> Result<Vec<(PartitionIndex, i64)>, CoordinatorError> {
        check_id(id)?;
        let mut range = keys::topic_offsets_range(id, topic);
        let mut found = Vec::new();
        loop {
            let limit = ScanLimit::items(limits::STORE_SCAN_ITEMS);
            let page = self.shared.store.scan(range.clone(), limit).await?;
            for (key, value) in page.items {
                if let Ok(GroupKey::Offset { partition, .. }) = GroupKey::parse(&key) {
                    found.push((partition, self.read_offset(id, value)?.offset));
                }
            }
            match page.resume {
                Some(next) => range.start = next,
                None => return Ok(found),
            }
        }
    }

    /// Whether members share the records of partitions in this group, so that [`Coordinator::progress`] says more than its offsets.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn shares_records(&self, id: &str) -> Result<bool, CoordinatorError> {
        match self.sharing() {
            Some(shared) => Ok(is_shared(id) || shared.share().owns(id).await?),
            None => Ok(false),
        }
    }

    /// What a group that shares records has acknowledged of a partition; `None` if it has not begun, or is another group.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn progress(
        &self,
        id: &str,
        keys: &PartitionKeys,
    ) -> Result<Option<Progress>, CoordinatorError> {
        let Some(shared) = self.sharing() else { return Ok(None) };
        Ok(shared.pools().progress(id, keys).await?)
    }

    /// Removes committed offsets of a group without members.
    ///
    /// # Errors
    /// [`CoordinatorError`], above all [`crate::group::machine::GroupError::NonEmpty`].
    pub async fn delete_offsets(
        &self,
        id: &str,
        partitions: &[(TopicId, PartitionIndex)],
    ) -> Result<(), CoordinatorError> {
        check_id(id)?;
        let _until_durable = self.settle_shared(id).await;
        let pending = self
            .with(id, |active, _| {
                if self.is_in_use(id) {
                    return Err(GroupError::NonEmpty.into());
                }
                active.group.may_delete()?;
                if !active.is_stored {
                    return Err(CoordinatorError::NotFound { group: id.to_owned() });
                }
                let mut batch = WriteBatch::new();
                for (topic, partition) in partitions {
                    delete_offset(&mut batch, id, *topic, *partition);
                }
                Ok(self.shared.store.submit(batch)?)
            })
            .await??;
        Ok(pending.await?)
    }

    /// What a group without members that shares records holds in memory would be written after it was removed. Nobody begins with what is stored
    /// until what this returns is dropped.
    async fn settle_shared(&self, id: &str) -> Option<RwLockWriteGuard<'_, ()>> {
        let shared = self.shared.shared_groups.get()?;
        let until_durable = shared.pools().replacing().await;
        if !shared.is_active(id) {
            shared.share().end_all_left(id);
        }
        shared.pools().settle(id).await;
        Some(until_durable)
    }

    /// Removes a group without members, with its offsets.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn delete(&self, id: &str) -> Result<(), CoordinatorError> {
        let _until_durable = self.settle_shared(id).await;
        // What a group that shares records has done lies with the partitions.
        let progress = self.all_committed(id).await?;
        let pending = self
            .with(id, |active, _| {
                if self.is_in_use(id) {
                    return Err(GroupError::NonEmpty.into());
                }
                active.group.may_delete()?;
                if !active.is_stored {
                    return Err(CoordinatorError::NotFound { group: id.to_owned() });
                }
                let mut batch = WriteBatch::new();
                for (topic, partition, _) in &progress {
                    delete_offset(&mut batch, id, *topic, *partition);
                }
                batch.delete_range(keys::group_range(id));
                let pending = self.shared.store.submit(batch)?;
                active.is_stored = false;
                Ok::<_, CoordinatorError>(pending)
            })
            .await??;
        Ok(pending.await?)
    }
}
