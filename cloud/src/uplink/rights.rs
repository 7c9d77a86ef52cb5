//! What a token allows.

use robustmq_common::ids::KafkaTopic;
use serde::{Deserialize, Serialize};

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

    /// Whether it may write to `topic`.
    #[must_use]
    pub fn may_write(&self, topic: &KafkaTopic) -> bool {
        self.write.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => topic.as_str().starts_with(prefix),
            None => topic.as_str() == pattern,
        })
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::KafkaTopic;

    use super::Rights;

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
