//! Names, their collisions, and routes.

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
