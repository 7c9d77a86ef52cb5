//! What a token allows.

use robustmq_common::ids::KafkaTopic;
use robustmq_common::limits;
use serde::{Deserialize, Serialize};

/// What is no right: it would never allow anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{pattern:?} names no topics: write TOPIC, or prefix* for all that begin so, with letters, digits and `.`, `_`, `-` \
     (an MQTT topic plant/7 is the Kafka topic plant.7)"
)]
pub struct InvalidRight {
    pattern: String,
}

/// The topics that an edge may write to: names, or beginnings of names that end in `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Kafka topic names, or prefixes followed by `*`.
    pub write: Vec<String>,
}

impl Rights {
    /// May write to every topic.
    #[must_use]
    pub fn all() -> Self {
        Self { write: vec!["*".to_owned()] }
    }

    /// Rights to what these patterns name.
    ///
    /// # Errors
    /// [`InvalidRight`]: the first that no topic's name can match.
    pub fn new(write: Vec<String>) -> Result<Self, InvalidRight> {
        match write.iter().find(|pattern| !is_right(pattern)) {
            Some(pattern) => {
                Err(InvalidRight { pattern: pattern.chars().take(2 * LONGEST).collect() })
            }
            None => Ok(Self { write }),
        }
    }

    /// Whether it may write to `topic`.
    #[must_use]
    pub fn may_write(&self, topic: &KafkaTopic) -> bool {
        self.write.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => topic.as_str().starts_with(prefix),
            None => topic.as_str() == pattern,
        })
    }
}

const LONGEST: usize = limits::KAFKA_TOPIC_NAME_CHARS;

/// Whether a pattern is a topic's name or a beginning of names with `*` behind it.
fn is_right(pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        // As a name's beginning, `.` and nothing at all are fine.
        Some(prefix) => prefix.len() < LONGEST && KafkaTopic::new(&format!("{prefix}x")).is_ok(),
        None => KafkaTopic::new(pattern).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::KafkaTopic;

    use super::Rights;

    /// `--write 'pl*ant'` and `--write ''` were accepted; the edge's records then all became dead letters.
    #[test]
    fn what_no_topic_can_match_is_no_right() {
        let check = |pattern: &str, legal: bool| {
            let rights = Rights::new(vec!["plant.*".to_owned(), pattern.to_owned()]);
            assert_eq!(rights.is_ok(), legal, "{pattern:?}");
            if let Err(error) = rights {
                let said = error.to_string();
                assert!(
                    said.contains(&format!("{pattern:?}")) && said.contains("prefix*"),
                    "{said}"
                );
            }
        };
        for legal in
            ["*", ".*", "plant.*", "plant-7_a", "plant.7", &format!("{}*", "x".repeat(248))]
        {
            check(legal, true);
        }
        for wrong in ["", "pl*ant", "**", "plant/7", "plant/#", "plant ", ".", &"x".repeat(250)] {
            check(wrong, false);
        }
    }

    #[test]
    fn a_right_is_a_name_or_a_beginning() {
        let check = |pattern: &str, topic: &str, expected: bool| {
            let rights = Rights { write: vec![pattern.to_owned()] };
            let topic = KafkaTopic::new(topic).expect("a legal name");
            assert_eq!(rights.may_write(&topic), expected, "{pattern} {topic}");
        };
        check("*", "plant.a", true);
        check("plant.*", "plant.a", true);
        check("plant.*", "plan.a", false);
        check("plant.a", "plant.a", true);
        check("plant.a", "plant.ab", false);
        check("", "plant.a", false);
        assert!(!Rights { write: Vec::new() }.may_write(&KafkaTopic::new("a").expect("legal")));
    }
}
