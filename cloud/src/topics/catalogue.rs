//! Topics, and finding them. Creating, changing and deleting them is in `change`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use robustmq_common::ids::{KafkaTopic, TopicId};
use robustmq_common::limits;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::cache::Cache;
use super::config::TopicConfig;
use super::removal::Removal;
use crate::entries::ConfigError;
use crate::log::Log;
use crate::store::keys::damaged;
use crate::store::keys::topic::{id_key, name_key, names_after};
use crate::store::{self, ScanLimit, Store, StoreError};

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: KafkaTopic,
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has: 0 to `partitions - 1`.
    pub partitions: i32,
    /// When it was created, milliseconds since 1970.
    pub created_ms: i64,
    /// The configuration entries that it sets.
    pub overrides: BTreeMap<String, String>,
    /// Its configuration as the broker uses it.
    pub config: TopicConfig,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its id: nobody else has it.
    pub id: TopicId,
    /// Its name.
    pub name: KafkaTopic,
    /// How many partitions it gets.
    pub partitions: i32,
    /// The configuration entries that it sets.
    pub overrides: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with an id of its own.
    #[must_use]
    pub fn new(name: KafkaTopic, partitions: i32, overrides: BTreeMap<String, String>) -> Self {
        Self { id: TopicId::random(), name, partitions, overrides }
    }
}

/// Why a topic was not created, found, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Kafka: TOPIC_ALREADY_EXISTS.
    #[error("topic {0} exists already")]
    Exists(KafkaTopic),
    /// Kafka: UNKNOWN_TOPIC_OR_PARTITION.
    #[error("there is no topic {0}")]
    Unknown(KafkaTopic),
    /// Kafka: INVALID_PARTITIONS.
    #[error("topic {name} {}", refused_partitions(*partitions, *from, *to))]
    Partitions {
        /// The topic.
        name: KafkaTopic,
        /// The number asked for.
        partitions: i32,
        /// The fewest that it may have.
        from: i32,
        /// The most that it may have.
        to: i32,
    },
    /// It has a source, which does not allow that. Kafka: POLICY_VIOLATION.
    #[error("{0}")]
    Source(String),
    /// Kafka: INVALID_CONFIG.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Kafka: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct TopicPage {
    /// Topics by name.
    pub topics: Vec<Arc<Topic>>,
    /// There are more after the last one.
    pub more: bool,
}

/// What the store holds under a topic's name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredTopic {
    pub id: TopicId,
    pub partitions: i32,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, String>,
}

/// All topics of one store.
pub struct Catalogue {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<Log>,
    /// One change at a time: what was checked stays true until it is written.
    pub(super) changes: tokio::sync::Mutex<()>,
    cache: Mutex<Cache>,
    version: watch::Sender<u64>,
    /// The topics that were configured anew, each with the version since when: the last [`limits::CONFIGURED_ANEW`].
    configured: Mutex<VecDeque<(u64, TopicId)>>,
    pub(super) removal: Removal,
}

impl Catalogue {
    /// The topics of `log`'s store. Reads nothing. Records of deleted topics are removed by [`Catalogue::removal`], which
    /// has to be run.
    #[must_use]
    pub fn new(log: Arc<Log>) -> Self {
        Self {
            store: Arc::clone(log.store()),
            removal: Removal::new(Arc::clone(&log)),
            log,
            changes: tokio::sync::Mutex::new(()),
            cache: Mutex::new(Cache::new(limits::TOPIC_CACHE_BYTES)),
            version: watch::channel(1).0,
            configured: Mutex::default(),
        }
    }

    /// What removes the records of deleted topics.
    #[must_use]
    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    /// Grows with each change. What was built from the catalogue at one version is true while the version stays.
    #[must_use]
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Wakes at each change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The topics whose configuration may be another one than it was at that version. `None`: any, since more were configured
    /// anew since then than are remembered.
    #[must_use]
    pub fn configured_since(&self, version: u64) -> Option<HashSet<TopicId>> {
        let configured = self.configured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_forgotten = configured.len() >= limits::CONFIGURED_ANEW
            && configured.front().is_some_and(|(oldest, _)| *oldest > version + 1);
        let since = configured.iter().rev().take_while(|(at, _)| *at > version);
        (!is_forgotten).then(|| since.map(|(_, topic)| *topic).collect())
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, name: &KafkaTopic) -> Result<Option<Arc<Topic>>, StoreError> {
        if let Some(topic) = self.cache().get(name) {
            return Ok(Some(topic));
        }
        let version = self.version();
        let value = self.store.get(&name_key(name.as_str())).await?;
        value.map(|value| self.read(version, name, &value)).transpose()
    }

    /// The topics of these names, in their order: one reading of the store for thousands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_many(
        &self,
        names: &[KafkaTopic],
    ) -> Result<Vec<Option<Arc<Topic>>>, StoreError> {
        let version = self.version();
        let mut topics: Vec<_> = {
            let mut cache = self.cache();
            names.iter().map(|name| cache.get(name)).collect()
        };
        let missing: Vec<usize> =
            topics.iter().enumerate().filter(|(_, t)| t.is_none()).map(|(at, _)| at).collect();
        for missing in missing.chunks(limits::STORE_SCAN_ITEMS) {
            let key = |at: &usize| names.get(*at).map(|name| name_key(name.as_str()));
            let keys: Vec<Bytes> = missing.iter().filter_map(key).collect();
            for (at, value) in missing.iter().zip(self.store.get_many(&keys).await?) {
                if let (Some(value), Some(name), Some(topic)) =
                    (value, names.get(*at), topics.get_mut(*at))
                {
                    *topic = Some(self.read(version, name, &value)?);
                }
            }
        }
        Ok(topics)
    }

    /// Takes over what the store said when the catalogue had `version`.
    fn read(
        &self,
        version: u64,
        name: &KafkaTopic,
        value: &[u8],
    ) -> Result<Arc<Topic>, StoreError> {
        let topic = Arc::new(decode(&name_key(name.as_str()), name.clone(), value)?);
        let mut cache = self.cache();
        // A change that was made meanwhile has put what is true now.
        if self.version() == version {
            cache.insert(&topic);
        }
        Ok(topic)
    }

    /// The topic with that id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_by_id(&self, id: TopicId) -> Result<Option<Arc<Topic>>, StoreError> {
        let cached = self.cache().name(id);
        let name = match cached {
            Some(name) => name,
            None => {
                let key = id_key(id);
                let Some(value) = self.store.get(&key).await? else { return Ok(None) };
                read_name(&key, &value)?
            }
        };
        // The name may have gone to another topic since.
        Ok(self.get(&name).await?.filter(|topic| topic.id == id))
    }

    /// Brings the topics with these ids into memory, as far as they fit: one reading of the store for thousands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load_by_ids(&self, ids: &[TopicId]) -> Result<(), StoreError> {
        let unknown: Vec<Bytes> = {
            let cache = self.cache();
            ids.iter().filter(|id| cache.name(**id).is_none()).map(|id| id_key(*id)).collect()
        };
        for keys in unknown.chunks(limits::STORE_SCAN_ITEMS) {
            let values = self.store.get_many(keys).await?;
            let found = keys.iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
            let names = found.map(|(key, value)| read_name(key, &value));
            self.get_many(&names.collect::<Result<Vec<_>, _>>()?).await?;
        }
        Ok(())
    }

    /// Up to `limit` topics after `after` by name (from the first one for `None`).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        after: Option<&KafkaTopic>,
        limit: usize,
    ) -> Result<TopicPage, StoreError> {
        let range = names_after(after.map(KafkaTopic::as_str));
        let limit = ScanLimit::items(limit.clamp(1, limits::TOPIC_PAGE));
        let page = self.store.scan(range, limit).await?;
        let mut topics = Vec::with_capacity(page.items.len());
        for (key, value) in &page.items {
            topics.push(Arc::new(decode(key, parse_name(key)?, value)?));
        }
        Ok(TopicPage { topics, more: page.resume.is_some() })
    }

    /// Puts a change into the cache and moves the version, so that nobody sees one without the other.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Cache)) {
        let mut cache = self.cache();
        change(&mut cache);
        self.version.send_modify(|version| *version += 1);
    }

    /// The same for a topic's new configuration: whoever sees the version finds it in [`Catalogue::configured_since`].
    pub(super) fn publish_configuration(&self, topic: &Arc<Topic>) {
        let mut configured =
            self.configured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if configured.len() >= limits::CONFIGURED_ANEW {
            configured.pop_front();
        }
        configured.push_back((self.version() + 1, topic.id));
        self.publish(|cache| cache.insert(topic));
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why a topic gets no such number of partitions, in words.
fn refused_partitions(partitions: i32, from: i32, to: i32) -> String {
    match (from, from - 1) {
        (..=1, _) => format!("cannot have {partitions} partitions: it may have {from} to {to}"),
        (_, has) if has == partitions => {
            format!("has {has} partitions already; more can be added, up to {to}")
        }
        (_, has) => format!(
            "cannot have {partitions} partitions: it has {has}, and partitions can only be added, up to {to}"
        ),
    }
}

fn parse_name(key: &[u8]) -> Result<KafkaTopic, StoreError> {
    let mut text = key.get(1..).unwrap_or_default();
    let name = store::keys::text::take(&mut text).map_err(|error| damaged(key, error))?;
    KafkaTopic::new(&name).map_err(|error| damaged(key, error))
}

/// What the store holds under a topic's id.
fn read_name(key: &[u8], value: &[u8]) -> Result<KafkaTopic, StoreError> {
    let name = std::str::from_utf8(value).map_err(|error| damaged(key, error))?;
    KafkaTopic::new(name).map_err(|error| damaged(key, error))
}

fn decode(key: &[u8], name: KafkaTopic, value: &[u8]) -> Result<Topic, StoreError> {
    let StoredTopic { id, partitions, created_ms, configs } =
        serde_json::from_slice(value).map_err(|error| damaged(key, error))?;
    let config = TopicConfig::parse(&configs).map_err(|error| damaged(key, error))?;
    Ok(Topic { name, id, partitions, created_ms, overrides: configs, config })
}
