//! The configuration of groups: what they set, in the store, and its effect on pools that are loaded.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use robustmq_common::ids::TopicId;

use super::{PoolError, Pools};
use crate::entries::ConfigChange;
use crate::entries::ConfigError;
use crate::group::share::config::{self as share, table};
use crate::group::shared::config::{DEAD_LETTER_TOPIC, GroupConfig};
use crate::group::shared::is_shared;
use crate::store::keys::damaged;
use crate::store::keys::group as group_keys;
use crate::store::{ScanLimit, StoreError, WriteBatch};

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
        let is_set = |change: &ConfigChange| {
            change.name == DEAD_LETTER_TOPIC && overrides.contains_key(DEAD_LETTER_TOPIC)
        };
        if changes.iter().any(is_set) {
            self.check_dead_letters(group, &config).await?;
        }
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

    /// A dead-letter topic has to take records, and is none that the group reads, as far as that is known.
    async fn check_dead_letters(&self, group: &str, config: &GroupConfig) -> Result<(), PoolError> {
        let (Some(topic), Some(letters)) = (&config.dead_letter_topic, self.dead_letters()) else {
            return Ok(());
        };
        let invalid = |expected: String| ConfigError::Invalid {
            name: DEAD_LETTER_TOPIC.to_owned(),
            value: topic.as_str().to_owned(),
            expected,
        };
        match letters.check(topic).await.map_err(invalid)? {
            Some(id) if self.reads(group, id).await? => {
                let why = "the group reads that topic itself, and would be given its letters again; name another one";
                Err(invalid(why.to_owned()).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a group has begun on a topic.
    async fn reads(&self, group: &str, topic: TopicId) -> Result<bool, StoreError> {
        if self.map().pools.keys().any(|(id, of, _)| id == group && *of == topic) {
            return Ok(true);
        }
        let range = group_keys::topic_offsets_range(group, topic);
        Ok(!self.store.scan(range, ScanLimit::items(1)).await?.items.is_empty())
    }
}

fn to_json(key: &[u8], overrides: &BTreeMap<String, String>) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(overrides).map_err(|error| damaged(key, error))
}
