//! What an operator asks about groups.

use super::{
    Coordinator, CoordinatorError, Family, ScanLimit, Snapshot, check_id, decode_group, keys,
};
use crate::store::keys::group::GroupKey;

/// One group of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub group: String,
    /// Its protocol type; empty for groups that only commit.
    pub protocol_type: String,
    /// Its state's name.
    pub state: &'static str,
}

/// One group in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its state's name.
    pub state: &'static str,
    /// Protocol, generation, members.
    pub snapshot: Snapshot,
}

impl Coordinator {
    /// All groups that are stored or active, by id.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn list(&self) -> Result<Vec<Listed>, CoordinatorError> {
        let mut ids: std::collections::BTreeSet<String> = {
            let slots = self.shared.slots.lock();
            slots.unwrap_or_else(std::sync::PoisonError::into_inner).keys().cloned().collect()
        };
        if let Some(shared) = self.shared.shared_groups.get() {
            ids.extend(shared.active());
        }
        let mut after = None;
        while let Some(id) = self.next_stored(after.as_deref()).await? {
            ids.insert(id.clone());
            after = Some(id);
        }
        let mut listed = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(described) = self.describe(&id).await? {
                let protocol_type = described.snapshot.protocol_type.unwrap_or_default();
                listed.push(Listed { group: id, protocol_type, state: described.state });
            }
        }
        Ok(listed)
    }

    /// One group, or `None` if it is neither stored nor active.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn describe(&self, id: &str) -> Result<Option<Described>, CoordinatorError> {
        check_id(id)?;
        if let Some(snapshot) = self.shared_group(id).and_then(|shared| shared.snapshot(id)) {
            return Ok(Some(Described { state: "Stable", snapshot }));
        }
        let slot = {
            let slots = self.shared.slots.lock();
            slots.unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned()
        };
        if let Some(slot) = slot {
            let state = slot.inner.lock().await;
            if let Some(active) = &state.active {
                let state = active.group.state().name();
                return Ok(Some(Described { state, snapshot: active.group.snapshot() }));
            }
        }
        let Some(value) = self.shared.store.get(&keys::metadata_key(id)).await? else {
            return Ok(None);
        };
        let (snapshot, _) = decode_group(value)
            .map_err(|reason| CoordinatorError::Damaged { group: id.to_owned(), reason })?;
        let state = if snapshot.members.is_empty() { "Empty" } else { "Stable" };
        Ok(Some(Described { state, snapshot }))
    }

    /// The first stored group after `after`, by id.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn stored_after(
        &self,
        after: Option<&str>,
    ) -> Result<Option<String>, CoordinatorError> {
        self.next_stored(after).await
    }

    /// The first stored group after `after`. A group's metadata is its first key, so one look-up finds the next group.
    pub(super) async fn next_stored(
        &self,
        after: Option<&str>,
    ) -> Result<Option<String>, CoordinatorError> {
        let mut range = Family::Group.range();
        if let Some(after) = after {
            range.start = keys::group_range(after).end;
        }
        let page = self.shared.store.scan(range, ScanLimit::items(1)).await?;
        let Some((key, _)) = page.items.into_iter().next() else { return Ok(None) };
        match GroupKey::parse(&key) {
            Ok(
                GroupKey::Config { group }
                | GroupKey::Metadata { group }
                | GroupKey::Offset { group, .. }
                | GroupKey::Snapshot { group, .. },
            ) => Ok(Some(group)),
            Err(error) => {
                tracing::error!(%error, "a key among the groups cannot be read");
                Ok(None)
            }
        }
    }
}
