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
mod tests {
    use proptest::prelude::*;

    use super::{RouteTable, kafka_topic, mqtt_topic};
    use crate::ids::KafkaTopic;
    use crate::mqtt::packet::{TopicFilter, TopicName};

    fn name(topic: &str) -> String {
        kafka_topic(topic).expect("every topic has a name").as_str().to_owned()
    }

    #[test]
    fn plain_topics_keep_their_name_and_others_get_a_hash() {
        let check = |topic: &str, expected: &str| assert_eq!(name(topic), expected, "{topic}");
        check("plant/line-1/temp_2", "plant.line-1.temp_2");
        check("a", "a");
        check(&"x".repeat(249), &"x".repeat(249));
        check("a.b", "a.b--390c9ebbbb7402f6");
        check("a//b", "a..b--c1f619784ad9cfa8");
        check("/a", ".a--e292ab48a6b06805");
        check("größe", "gr__e--a6d7bbea01d4872c");
    }

    #[test]
    fn names_that_are_not_plain_are_hashed() {
        for topic in [
            "a.b",
            "a//b",
            "/a",
            "a/",
            "/",
            ".",
            "..",
            "a b",
            "größe",
            "$SYS/x",
            "a--0123456789abcdef",
            "a/b--0123456789abcdef",
            "__consumer_offsets",
            "robustmq/overflow",
            "robustmq",
            &"x".repeat(250),
            &"ü".repeat(30_000),
        ] {
            let name = name(topic);
            assert!(super::looks_hashed(&name), "{topic:.40} -> {name}");
            assert!(!super::is_reserved(&name.replace('.', "/")), "{topic:.40} -> {name}");
            let kafka = KafkaTopic::new(&name).expect("legal");
            assert_eq!(mqtt_topic(&kafka), None, "{name}");
        }
        assert_eq!(kafka_topic(""), None);
    }

    #[test]
    fn a_kafka_topic_that_no_plain_topic_has_is_none() {
        for name in ["a..b", ".a", "a.", "__consumer_offsets", "robustmq.overflow"] {
            assert_eq!(mqtt_topic(&KafkaTopic::new(name).expect("legal")), None, "{name}");
        }
    }

    #[test]
    fn the_first_route_that_matches_decides() {
        let filter = |filter| TopicFilter::new(filter).expect("valid");
        let table: RouteTable<u8> =
            [(filter("a/+"), 1), (filter("a/b"), 2), (filter("#"), 3)].into_iter().collect();
        let check = |topic: &str, expected: Option<u8>| {
            let topic = TopicName::new(topic).expect("valid");
            assert_eq!(table.find(&topic).copied(), expected, "{topic}");
        };
        check("a/b", Some(1));
        check("a/b/c", Some(3));
        check("$SYS/x", None);
    }

    proptest! {
        #[test]
        fn different_topics_have_different_names(
            one in "[a-b./ _-]{1,6}|[ab]{1,3}--[0-9a-f]{16}|\\PC{1,40}",
            other in "[a-b./ _-]{1,6}|[ab]{1,3}--[0-9a-f]{16}|\\PC{1,40}",
        ) {
            prop_assert_eq!(one == other, kafka_topic(&one) == kafka_topic(&other));
        }

        #[test]
        fn the_name_of_one_topic_given_as_a_topic_has_another_name(topic in "\\PC{1,300}") {
            let name = name(&topic);
            if name != topic {
                prop_assert_ne!(kafka_topic(&name), kafka_topic(&topic));
            }
        }

        #[test]
        fn plain_topics_come_back(topic in "[A-Za-z0-9_-]{1,12}(/[A-Za-z0-9_-]{1,12}){0,5}") {
            let kafka = kafka_topic(&topic).expect("a name");
            let expected = super::is_plain(&topic).then_some(topic.as_str());
            let back = mqtt_topic(&kafka);
            prop_assert_eq!(back.as_ref().map(TopicName::as_str), expected);
        }
    }
}
