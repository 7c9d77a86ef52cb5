//! MQTT topic to Kafka topic and back, and routes that override it.
//!
//! A topic is *plain* if every level is made of `[A-Za-z0-9_-]` and is not empty, and the whole fits Kafka's 249
//! characters: its Kafka name has `.` for `/`, and the way back is exact. Every other topic (dots, spaces, UTF-8, empty
//! levels, too long) becomes `{readable prefix}--{xxh3-64 of the topic, 16 hex digits}`; its name is then found in the
//! Kafka topic's metadata (`robustmq.mqtt.topic`) and in each record's header.
//!
//! **Invariant:** two topics never share a Kafka name by their form: one that looks like a hashed name is hashed itself,
//! and so are those that would take a name of the system (`__...`, `robustmq....`). What remains is a collision of 64-bit
//! hashes behind the same prefix.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::KafkaTopic;
use crate::limits::KAFKA_TOPIC_NAME_CHARS;
use crate::mqtt::packet::{TopicFilter, TopicName, topic_matches_filter};

const HASH_DIGITS: usize = 16;
const HASH_SEPARATOR: &str = "--";

/// The Kafka topic of an MQTT topic name that no route sends elsewhere. `None` for text that is no topic name at all
/// (empty).
#[must_use]
pub fn kafka_topic(mqtt_topic: &str) -> Option<KafkaTopic> {
    if mqtt_topic.is_empty() {
        return None;
    }
    let name =
        if is_plain(mqtt_topic) { mqtt_topic.replace('/', ".") } else { hashed_name(mqtt_topic) };
    KafkaTopic::new(&name).ok()
}

/// The MQTT topic of a Kafka topic that is the name of a plain one; `None` where only the topic's metadata knows, or
/// there is none.
#[must_use]
pub fn mqtt_topic(kafka_topic: &KafkaTopic) -> Option<TopicName> {
    let topic = kafka_topic.as_str().replace('.', "/");
    // A level of a plain topic has no dot, so only the name of a plain topic comes back to itself.
    if is_plain(&topic) { TopicName::new(&topic).ok() } else { None }
}

fn is_plain(topic: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    topic.len() <= KAFKA_TOPIC_NAME_CHARS
        && topic.split('/').all(|level| !level.is_empty() && level.bytes().all(legal))
        && !looks_hashed(topic)
        && !is_reserved(topic)
}

/// It ends as a hashed name does.
fn looks_hashed(topic: &str) -> bool {
    let Some(start) = topic.len().checked_sub(HASH_DIGITS) else { return false };
    let (Some(front), Some(digits)) = (topic.get(..start), topic.get(start..)) else {
        return false;
    };
    front.ends_with(HASH_SEPARATOR)
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Its plain name would be one that brokers and clients keep for themselves.
fn is_reserved(topic: &str) -> bool {
    topic.starts_with("__") || topic.split('/').next() == Some("robustmq")
}

fn hashed_name(topic: &str) -> String {
    let room = KAFKA_TOPIC_NAME_CHARS - HASH_SEPARATOR.len() - HASH_DIGITS;
    let mut name: String = topic
        .chars()
        .take(room)
        .map(|c| match c {
            '/' | '.' => '.',
            c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => c,
            _ => '_',
        })
        .collect();
    // Not in the system's own name space either.
    if is_reserved(&name.replace('.', "/")) {
        name.insert_str(0, "mqtt.");
        name.truncate(room);
    }
    format!("{name}{HASH_SEPARATOR}{:016x}", xxh3_64(topic.as_bytes()))
}

/// Routes in the order of the configuration: the first whose filter matches a topic decides.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    routes: Vec<(TopicFilter, T)>,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { routes: Vec::new() }
    }
}

impl<T> FromIterator<(TopicFilter, T)> for RouteTable<T> {
    fn from_iter<I: IntoIterator<Item = (TopicFilter, T)>>(routes: I) -> Self {
        Self { routes: routes.into_iter().collect() }
    }
}

impl<T> RouteTable<T> {
    /// The route of a topic; `None`: the defaults hold.
    #[must_use]
    pub fn find(&self, topic: &TopicName) -> Option<&T> {
        self.routes
            .iter()
            .find(|(filter, _)| topic_matches_filter(topic.as_str(), filter.matched()))
            .map(|(_, route)| route)
    }
}

#[cfg(test)]
mod tests;
