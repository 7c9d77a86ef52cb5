//! The topics that are in memory, within a number of bytes.
//!
//! Two generations: what is used is in the younger one. When that is half of the budget, it becomes the older one, and what
//! was there and not used since goes. So the budget holds whatever the topics' sizes, and nothing is sorted or counted.

use std::collections::HashMap;
use std::sync::Arc;

use robustmq_common::ids::{KafkaTopic, TopicId};

use super::Topic;

/// Topics by name and by id.
#[derive(Debug)]
pub(super) struct Cache {
    young: Generation,
    old: Generation,
    budget_bytes: usize,
}

#[derive(Debug, Default)]
struct Generation {
    topics: HashMap<KafkaTopic, Arc<Topic>>,
    names: HashMap<TopicId, KafkaTopic>,
    bytes: usize,
}

impl Generation {
    fn insert(&mut self, topic: &Arc<Topic>) {
        self.bytes += footprint(topic);
        self.names.insert(topic.id, topic.name.clone());
        if let Some(replaced) = self.topics.insert(topic.name.clone(), Arc::clone(topic)) {
            self.bytes = self.bytes.saturating_sub(footprint(&replaced));
            if replaced.id != topic.id {
                self.names.remove(&replaced.id);
            }
        }
    }

    fn remove(&mut self, name: &KafkaTopic) -> Option<Arc<Topic>> {
        let removed = self.topics.remove(name)?;
        self.names.remove(&removed.id);
        self.bytes = self.bytes.saturating_sub(footprint(&removed));
        Some(removed)
    }
}

/// What a topic takes of memory, with its places in both maps.
fn footprint(topic: &Topic) -> usize {
    // Maps are at worst half empty, and an entry of a B-tree stands for its share of a node.
    const ENTRIES: usize =
        2 * (size_of::<(KafkaTopic, Arc<Topic>)>() + size_of::<(TopicId, KafkaTopic)>());
    const OVERRIDE: usize = 2 * size_of::<(String, String)>();
    let overrides: usize =
        topic.overrides.iter().map(|(name, value)| OVERRIDE + name.len() + value.len()).sum();
    let mqtt_topic = topic.config.mqtt_topic.as_ref().map_or(0, String::len);
    size_of::<Topic>() + ENTRIES + topic.name.as_str().len() + overrides + mqtt_topic
}

impl Cache {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), budget_bytes }
    }

    pub(super) fn get(&mut self, name: &KafkaTopic) -> Option<Arc<Topic>> {
        if let Some(topic) = self.young.topics.get(name) {
            return Some(Arc::clone(topic));
        }
        let topic = self.old.remove(name)?;
        self.insert(&topic);
        Some(topic)
    }

    pub(super) fn name(&self, id: TopicId) -> Option<KafkaTopic> {
        self.young.names.get(&id).or_else(|| self.old.names.get(&id)).cloned()
    }

    pub(super) fn insert(&mut self, topic: &Arc<Topic>) {
        self.old.remove(&topic.name);
        self.young.insert(topic);
        if self.young.bytes > self.budget_bytes / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        self.young.remove(&topic.name);
        self.old.remove(&topic.name);
    }

    /// What the topics in it take of memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use robustmq_common::ids::{KafkaTopic, TopicId};

    use super::{Cache, footprint};
    use crate::topics::{Topic, TopicConfig};

    fn topic(name: &str, value: &str) -> Arc<Topic> {
        let overrides = BTreeMap::from([("robustmq.mqtt.topic".to_owned(), value.to_owned())]);
        Arc::new(Topic {
            name: KafkaTopic::new(name).expect("a legal name"),
            id: TopicId::random(),
            partitions: 1,
            created_ms: 0,
            config: TopicConfig::parse(&overrides).expect("legal"),
            overrides,
        })
    }

    #[test]
    fn bytes_bound_it_and_what_is_used_stays() {
        let budget = 100 * footprint(&topic("topic-000", "x"));
        let mut cache = Cache::new(budget);
        let used = topic("used", "x");
        cache.insert(&used);
        for number in 0..1000 {
            cache.insert(&topic(&format!("topic-{number:03}"), "x"));
            assert!(cache.bytes() <= budget, "{} of {budget}", cache.bytes());
            assert_eq!(cache.get(&used.name), Some(Arc::clone(&used)));
            assert_eq!(cache.name(used.id), Some(used.name.clone()));
        }
        assert_eq!(cache.get(&KafkaTopic::new("topic-000").expect("legal")), None);
        // Fewer large ones fit.
        for number in 0..100 {
            cache.insert(&topic(&format!("large-{number}"), &"y".repeat(4000)));
            assert!(cache.bytes() <= budget + 10_000, "{} of {budget}", cache.bytes());
        }
    }

    #[test]
    fn removing_and_replacing_gives_all_bytes_back() {
        let mut cache = Cache::new(1 << 20);
        let (first, second) = (topic("a", "x"), topic("a", "longer"));
        cache.insert(&first);
        cache.insert(&second);
        assert_eq!((cache.name(first.id), cache.bytes()), (None, footprint(&second)));
        cache.remove(&second);
        assert_eq!((cache.get(&second.name), cache.name(second.id)), (None, None));
        assert_eq!(cache.bytes(), 0);
    }
}
