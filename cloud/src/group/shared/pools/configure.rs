//! The configuration of groups: what they set, in the store, and its effect on pools that are loaded.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::{PoolError, Pools};
use crate::entries::ConfigChange;
use crate::entries::ConfigError;
use crate::group::share::config::{self as share, table};
use crate::group::shared::config::GroupConfig;
use crate::group::shared::is_shared;
use crate::store::keys::damaged;
use crate::store::keys::group as group_keys;
use crate::store::{StoreError, WriteBatch};

/// No group sets anything by default.
static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl Pools {
    /// Says what shared groups have that do not set it themselves: legal entries, which was checked.
    pub fn set_defaults(&self, defaults: BTreeMap<String, String>) {
        // They are said once, at the start.
        let _ = self.defaults.set(defaults);
    }

    /// What a group has that it does not set itself, where that is not the table's default.
    #[must_use]
    pub fn defaults(&self, group: &str) -> &BTreeMap<String, String> {
        self.defaults.get().filter(|_| is_shared(group)).unwrap_or(&NOTHING)
    }

    /// Reads what a group sets, a shared one or a share group, and has by default.
    fn parse(
        &self,
        group: &str,
        overrides: &BTreeMap<String, String>,
    ) -> Result<GroupConfig, ConfigError> {
        let mut all = self.defaults(group).clone();
        all.extend(overrides.clone());
        match is_shared(group) {
            true => GroupConfig::parse(&all),
            false => share::parse(&all),
        }
    }

    /// What a group sets of its configuration.
    ///
    /// # Errors
    /// [`PoolError::Log`].
    pub async fn overrides(&self, group: &str) -> Result<BTreeMap<String, String>, PoolError> {
        let key = group_keys::config_key(group);
        let Some(value) = self.store.get(&key).await? else { return Ok(BTreeMap::new()) };
        Ok(serde_json::from_slice(&value).map_err(|error| damaged(&key, error))?)
    }

    /// A group's configuration.
    ///
    /// # Errors
    /// [`PoolError::Log`].
    pub async fn config(&self, group: &str) -> Result<Arc<GroupConfig>, PoolError> {
        let overrides = self.overrides(group).await?;
        let config = self.parse(group, &overrides).or_else(|error| {
            // It was checked when it was set, by another release perhaps.
            tracing::error!(group, %error, "the group has its defaults: what it sets cannot be read");
            self.parse(group, &BTreeMap::new())
        });
        Ok(Arc::new(config?))
    }

    /// Changes what a group sets, for its members too; waits until that is durable.
    ///
    /// # Errors
    /// [`PoolError::Config`], [`PoolError::Log`].
    pub async fn alter_config(
        &self,
        group: &str,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), PoolError> {
        let _one_at_a_time = self.altering.lock().await;
        let overrides = table(group).apply(&self.overrides(group).await?, changes)?;
        let config = Arc::new(self.parse(group, &overrides)?);
        if validate_only {
            return Ok(());
        }
        let key = group_keys::config_key(group);
        let mut batch = WriteBatch::new();
        match overrides.is_empty() {
            true => batch.delete(key),
            false => batch.put(key.clone(), to_json(&key, &overrides)?),
        };
        crate::store::write(&*self.store, batch).await?;
        let map = self.map();
        for pool in map.pools.values().filter(|pool| pool.group == group) {
            *pool.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        }
        for cursor in map.cursors.values().filter(|cursor| cursor.pool.group == group) {
            cursor.moved.notify_one();
        }
        Ok(())
    }
}

fn to_json(key: &[u8], overrides: &BTreeMap<String, String>) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(overrides).map_err(|error| damaged(key, error))
}
