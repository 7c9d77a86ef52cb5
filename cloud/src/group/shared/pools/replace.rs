//! Moving a group without members to another place.

use tokio::sync::RwLockWriteGuard;

use super::{PoolError, Pools, stored};
use crate::group::shared::progress::Progress;
use crate::store::WriteBatch;
use crate::store::keys::partition::PartitionKeys;

impl Pools {
    /// Moves a group's place on partitions where it has no members to real offsets.
    ///
    /// # Errors
    /// [`PoolError::InUse`], [`PoolError::Log`].
    pub async fn reset(
        &self,
        group: &str,
        places: &[(PartitionKeys, i64)],
    ) -> Result<(), PoolError> {
        let at = |(keys, offset): &(PartitionKeys, i64)| (*keys, Progress::at((*offset).max(0)));
        self.replace(group, &places.iter().map(at).collect::<Vec<_>>(), &[]).await
    }

    /// Until what this returns is dropped, nobody begins with what is stored: it is about to be replaced, or removed. What came of that before it
    /// was durable would be stored again with the next acknowledgement.
    pub async fn replacing(&self) -> RwLockWriteGuard<'_, ()> {
        self.replacing.write().await
    }

    /// Gives a group without members another progress on some partitions, and none on others.
    ///
    /// # Errors
    /// [`PoolError::InUse`], [`PoolError::Log`].
    pub(in crate::group::shared) async fn replace(
        &self,
        group: &str,
        places: &[(PartitionKeys, Progress)],
        none: &[PartitionKeys],
    ) -> Result<(), PoolError> {
        let mut batch = WriteBatch::new();
        for (keys, progress) in places {
            stored::put_progress(&mut batch, group, keys, progress);
        }
        for keys in none {
            stored::delete_progress(&mut batch, group, keys);
        }
        self.put_group(&mut batch, group).await?;
        let _until_durable = self.replacing().await;
        self.settle(group).await;
        self.store.ready().await?;
        let pending = {
            // While nobody can join: a pool that is loaded does not read what is stored again.
            let map = self.map();
            let is_loaded = |keys: &PartitionKeys| {
                map.pools.contains_key(&(group.to_owned(), keys.topic, keys.partition))
            };
            if places.iter().map(|(keys, _)| keys).chain(none).any(is_loaded) {
                return Err(PoolError::InUse);
            }
            self.store.submit(batch)?
        };
        Ok(pending.await?)
    }
}
