//! Creating, changing and deleting topics.
//!
//! **Invariant:** a change that was begun is carried out, whether or not its caller still waits ([`Log::finish`]): what the store, the
//! cache and the partitions have of it is never left half of it, but by a crash.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use robustmq_common::ids::{KafkaTopic, TopicId};
use robustmq_common::limits;

use super::catalogue::{Catalogue, NewTopic, StoredTopic, Topic, TopicError};
use super::config::{TopicConfig, apply_changes, check_set};
use super::source::check_change;
use crate::entries::{ConfigChange, ConfigError};
use crate::log::{LogError, StorageMode};
use crate::store::keys::topic::{deletion_key, id_key, name_key};
use crate::store::{self, StoreError, WriteBatch};

type Changed = Result<Arc<Topic>, TopicError>;

impl Catalogue {
    /// Creates topics: all that can be created, in one atomic write; one answer for each. With `validate_only` nothing is
    /// written, and the answers say what would have been.
    pub async fn create(
        self: &Arc<Self>,
        topics: Vec<NewTopic>,
        validate_only: bool,
        now_ms: i64,
    ) -> Vec<Changed> {
        let this = Arc::clone(self);
        let create = async move { this.create_all(topics, validate_only, now_ms).await };
        self.log.finish(create).await
    }

    async fn create_all(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        now_ms: i64,
    ) -> Vec<Changed> {
        let _one_at_a_time = self.changes.lock().await;
        let names: Vec<KafkaTopic> = topics.iter().map(|topic| topic.name.clone()).collect();
        let mut taken = match self.get_many(&names).await {
            Ok(found) => found.into_iter().flatten().map(|topic| topic.name.clone()).collect(),
            Err(error) => return topics.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let mut answers: Vec<Changed> = Vec::with_capacity(topics.len());
        let mut write = WriteBatch::new();
        for new in topics {
            let answer = check_new(new, &mut taken, now_ms, self.log.archive().is_some());
            if let Ok(topic) = &answer {
                put(&mut write, topic);
                write.put(id_key(topic.id), topic.name.as_str().as_bytes().to_vec());
            }
            answers.push(answer);
        }
        if validate_only || write.is_empty() {
            return answers;
        }
        match store::write(&*self.store, write).await {
            Ok(()) => {
                let created: Vec<_> = answers.iter().flatten().cloned().collect();
                self.publish(|cache| created.iter().for_each(|topic| cache.insert(topic)));
                answers
            }
            Err(error) => {
                let failed = |answer: Result<_, _>| answer.and(Err(error.clone().into()));
                answers.into_iter().map(failed).collect()
            }
        }
    }

    /// Gives a topic more partitions. `validate_only` writes nothing.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn create_partitions(
        self: &Arc<Self>,
        name: &KafkaTopic,
        partitions: i32,
        validate_only: bool,
    ) -> Changed {
        let (this, name) = (Arc::clone(self), name.clone());
        let widen = async move { this.widen(&name, partitions, validate_only).await };
        self.log.finish(widen).await
    }

    async fn widen(&self, name: &KafkaTopic, partitions: i32, validate_only: bool) -> Changed {
        let _one_at_a_time = self.changes.lock().await;
        let topic = self.existing(name).await?;
        let to = limits::PARTITIONS_PER_TOPIC;
        let from = topic.partitions.saturating_add(1);
        if topic.config.source.is_some() {
            return Err(TopicError::Source(
                "which partition an object belongs to was decided when the topic was created"
                    .to_owned(),
            ));
        }
        if !(from..=to).contains(&partitions) {
            let name = name.clone();
            return Err(TopicError::Partitions { name, partitions, from, to });
        }
        self.change(Topic { partitions, ..Topic::clone(&topic) }, validate_only).await
    }

    /// Changes a topic's configuration. `validate_only` writes nothing. A more durable storage mode is in effect before the
    /// configuration says it, a less durable one after: whatever fails in between, no topic has less than it says.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn alter_config(
        self: &Arc<Self>,
        name: &KafkaTopic,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Changed {
        let (this, name, changes) = (Arc::clone(self), name.clone(), changes.to_vec());
        let alter = async move { this.configure(&name, &changes, validate_only).await };
        self.log.finish(alter).await
    }

    async fn configure(
        &self,
        name: &KafkaTopic,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Changed {
        let _one_at_a_time = self.changes.lock().await;
        let topic = self.existing(name).await?;
        let overrides = apply_changes(&topic.overrides, changes)?;
        let config = TopicConfig::parse(&overrides)?;
        check_change(topic.config.source.as_deref(), config.source.as_deref())?;
        if topic.config.storage_mode != StorageMode::Tiered {
            check_mode(&config, self.log.archive().is_some())?;
        }
        let (from, to) = (topic.config.storage_mode, config.storage_mode);
        let changes = from != to && !validate_only;
        let gains = to.durability() > from.durability();
        if changes && gains {
            self.change_mode(topic.id, to).await?;
        }
        let changed = Topic { overrides, config, ..Topic::clone(&topic) };
        let changed = self.change(changed, validate_only).await?;
        if changes && !gains {
            self.change_mode(topic.id, to).await?;
        }
        if changed.config.source != topic.config.source && !validate_only {
            self.log.source_changed(topic.id);
        }
        Ok(changed)
    }

    async fn change_mode(&self, topic: TopicId, mode: StorageMode) -> Result<(), TopicError> {
        match self.log.change_mode(topic, mode).await {
            Ok(()) | Err(LogError::Dropped(_)) => Ok(()),
            Err(LogError::Store(error)) => Err(error.into()),
            Err(LogError::TooManyPartitions(_)) => Err(StoreError::Busy { queued_bytes: 0 }.into()),
        }
    }

    /// Deletes topics, all in one atomic write; one answer for each. Their records are unreachable at once and removed
    /// afterwards ([`super::Removal`]).
    pub async fn delete(self: &Arc<Self>, names: &[KafkaTopic]) -> Vec<Changed> {
        let (this, names) = (Arc::clone(self), names.to_vec());
        self.log.finish(async move { this.delete_all(&names).await }).await
    }

    async fn delete_all(&self, names: &[KafkaTopic]) -> Vec<Changed> {
        let _one_at_a_time = self.changes.lock().await;
        let found = match self.get_many(names).await {
            Ok(found) => found,
            Err(error) => return names.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let mut write = WriteBatch::new();
        for topic in found.iter().flatten() {
            write.delete(name_key(topic.name.as_str()));
            write.delete(id_key(topic.id));
            write.put(deletion_key(topic.id), Bytes::new());
        }
        if !write.is_empty() {
            if let Err(error) = store::write(&*self.store, write).await {
                let failed = |(name, topic): (&KafkaTopic, Option<_>)| match topic {
                    Some(_) => Err(error.clone().into()),
                    None => Err(TopicError::Unknown(name.clone())),
                };
                return names.iter().zip(found).map(failed).collect();
            }
            let deleted: Vec<&Arc<Topic>> = found.iter().flatten().collect();
            self.publish(|cache| deleted.iter().for_each(|topic| cache.remove(topic)));
            self.log.close_topics(deleted.iter().map(|topic| topic.id));
            self.removal.wake();
        }
        let answer = |(name, topic): (&KafkaTopic, Option<_>)| {
            topic.ok_or_else(|| TopicError::Unknown(name.clone()))
        };
        names.iter().zip(found).map(answer).collect()
    }

    async fn existing(&self, name: &KafkaTopic) -> Changed {
        self.get(name).await?.ok_or_else(|| TopicError::Unknown(name.clone()))
    }

    async fn change(&self, topic: Topic, validate_only: bool) -> Changed {
        let topic = Arc::new(topic);
        if !validate_only {
            let mut write = WriteBatch::new();
            put(&mut write, &topic);
            store::write(&*self.store, write).await?;
            self.publish_configuration(&topic);
        }
        Ok(topic)
    }
}

/// What is archived needs a place.
fn check_mode(config: &TopicConfig, has_archive: bool) -> Result<(), ConfigError> {
    if config.storage_mode == StorageMode::Tiered && !has_archive {
        return Err(ConfigError::Invalid {
            name: "robustmq.storage.mode".to_owned(),
            value: "tiered".to_owned(),
            expected:
                "it is memory, hybrid or persistent, since this broker has no [tier] object_store"
                    .to_owned(),
        });
    }
    Ok(())
}

/// A topic that can be created, if it can; its name is then taken.
fn check_new(
    new: NewTopic,
    taken: &mut HashSet<KafkaTopic>,
    now_ms: i64,
    has_archive: bool,
) -> Changed {
    let NewTopic { id, name, partitions, overrides } = new;
    let to = limits::PARTITIONS_PER_TOPIC;
    if !(1..=to).contains(&partitions) {
        return Err(TopicError::Partitions { name, partitions, from: 1, to });
    }
    let config = TopicConfig::parse(&overrides)?;
    check_set(&BTreeMap::new(), &overrides)?;
    check_mode(&config, has_archive)?;
    if !taken.insert(name.clone()) {
        return Err(TopicError::Exists(name));
    }
    Ok(Arc::new(Topic { name, id, partitions, created_ms: now_ms, overrides, config }))
}

fn put(write: &mut WriteBatch, topic: &Topic) {
    let stored = StoredTopic {
        id: topic.id,
        partitions: topic.partitions,
        created_ms: topic.created_ms,
        configs: topic.overrides.clone(),
    };
    let value = serde_json::to_vec(&stored).expect("text, numbers and a map with text keys");
    write.put(name_key(topic.name.as_str()), value);
}
