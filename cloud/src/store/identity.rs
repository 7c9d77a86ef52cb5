//! What a store is: its layout's version, and which state of the cloud it holds.

use robustmq_common::ids::CloudGeneration;

use super::keys::system::{STORE_FORMAT, StoreIdentity, identity_key};
use super::keys::{damaged, prefix_range};
use super::{ScanLimit, Store, StoreError, WriteBatch, write};

impl StoreIdentity {
    /// The identity of `store`; an empty store is given one, with `generation`.
    ///
    /// # Errors
    /// [`StoreError::Open`] if another release wrote it in a layout that this one does not read, or if it holds something and
    /// has no identity.
    pub async fn load_or_create(
        store: &dyn Store,
        generation: CloudGeneration,
    ) -> Result<Self, StoreError> {
        if let Some(identity) = Self::load(store).await? {
            return Ok(identity);
        }
        let everything = prefix_range(&[0]).start..prefix_range(&[0xfe]).end;
        if !store.scan(everything, ScanLimit::items(1)).await?.items.is_empty() {
            return Err(refused(
                store,
                "it holds data but no identity, so RobustMQ did not write it".into(),
            ));
        }
        let identity = Self { format: STORE_FORMAT, generation };
        let mut batch = WriteBatch::new();
        batch.put(identity_key(), identity.encode());
        write(store, batch).await?;
        Ok(identity)
    }

    /// The identity of `store`; `None` if it has none.
    ///
    /// # Errors
    /// [`StoreError::Open`] if another release wrote it in a layout that this one does not read.
    pub async fn load(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let key = identity_key();
        let Some(value) = store.get(&key).await? else { return Ok(None) };
        let identity = Self::decode(&value).map_err(|error| damaged(&key, error))?;
        if identity.format != STORE_FORMAT {
            let found = identity.format;
            let reason =
                format!("its layout has version {found}, this release reads {STORE_FORMAT}");
            return Err(refused(store, reason));
        }
        Ok(Some(identity))
    }

    /// Gives the store a new generation: what an operator asks for after restoring a backup, so that edges notice.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(
        self,
        store: &dyn Store,
        generation: CloudGeneration,
    ) -> Result<Self, StoreError> {
        let renewed = Self { generation, ..self };
        let mut batch = WriteBatch::new();
        batch.put(identity_key(), renewed.encode());
        write(store, batch).await?;
        Ok(renewed)
    }
}

fn refused(store: &dyn Store, reason: String) -> StoreError {
    StoreError::Open { path: store.stats().engine.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::CloudGeneration;

    use crate::store::keys::system::{StoreIdentity, identity_key};
    use crate::store::{MemoryStore, StoreError, WriteBatch, write};

    #[tokio::test]
    async fn a_store_keeps_its_generation_until_it_is_renewed() {
        let store = MemoryStore::new();
        let first = StoreIdentity::load_or_create(&store, CloudGeneration(1)).await;
        let again = StoreIdentity::load_or_create(&store, CloudGeneration(2)).await;
        assert_eq!(first, again);
        let renewed =
            first.expect("an identity").renew(&store, CloudGeneration(3)).await.expect("written");
        let again = StoreIdentity::load_or_create(&store, CloudGeneration(4)).await;
        assert_eq!(again, Ok(renewed));
    }

    #[tokio::test]
    async fn foreign_data_and_other_layouts_are_refused() {
        let store = MemoryStore::new();
        let mut batch = WriteBatch::new();
        batch.put("foreign", "data");
        write(&store, batch).await.expect("written");
        let refused = StoreIdentity::load_or_create(&store, CloudGeneration(1)).await;
        assert!(matches!(refused, Err(StoreError::Open { .. })), "{refused:?}");

        let store = MemoryStore::new();
        let future = StoreIdentity { format: 99, generation: CloudGeneration(1) };
        let mut batch = WriteBatch::new();
        batch.put(identity_key(), future.encode());
        write(&store, batch).await.expect("written");
        let refused = StoreIdentity::load_or_create(&store, CloudGeneration(1)).await;
        assert!(matches!(refused, Err(StoreError::Open { .. })), "{refused:?}");
    }
}
