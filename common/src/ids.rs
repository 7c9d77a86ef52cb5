//! Ids and numbers that cross a room's border, as types, so that one is never taken for another.
//!
//! Names are the specifications' words: `last_x` is inclusive, `next_x` exclusive.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The position of a record in a partition: dense, from 0.
    Offset(i64)
}

impl Offset {
    /// The offset `count` records later, or `None` past `i64::MAX`.
    #[must_use]
    pub fn checked_add(self, count: i64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

number! {
    /// A partition of a topic, from 0.
    PartitionIndex(i32)
}
number! {
    /// Bumped whenever a partition's leader changes or its volatile tail was lost (KIP-101).
    LeaderEpoch(i32)
}
number! {
    /// The id of an idempotent producer (KIP-98). -1 on the wire means none.
    ProducerId(i64)
}
number! {
    /// Fences an older instance of the same producer id (KIP-98).
    ProducerEpoch(i16)
}
number! {
    /// A record's number within one lane of one edge's queue: dense, from 1, never reused within an incarnation.
    EdgeSeq(u64)
}
number! {
    /// One ordered stream from an edge to the cloud. A record's lane is fixed when it is appended.
    LaneId(u8)
}
number! {
    /// Issued by the cloud to one edge queue store, ordered; a newer one fences every older one of the same edge.
    Incarnation(u64)
}
number! {
    /// A running xxh3-64 over a lane's records: equal digests at a sequence mean the same history up to it.
    ChainDigest(u64)
}
number! {
    /// Identifies one state of a cloud store; changes when a cloud is restored from a backup or wiped.
    CloudGeneration(u64)
}

/// A topic's id (KIP-516). It outlives no topic: a topic created again under the same name has another id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub uuid::Uuid);

impl TopicId {
    /// A fresh random id.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// The id's 16 bytes, as they stand in keys and on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The name has no characters.
    #[error("the {kind} name is empty")]
    Empty {
        /// What the name is for.
        kind: &'static str,
    },
    /// The name is longer than the kind allows.
    #[error("the {kind} name has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// What the name is for.
        kind: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A character outside `[A-Za-z0-9._-]`, or the name is `.` or `..`.
    #[error(
        "the {kind} name {name:?} may only have A-Z, a-z, 0-9, '.', '_' and '-', and may not be '.' or '..'"
    )]
    Character {
        /// What the name is for.
        kind: &'static str,
        /// The name as it was given.
        name: String,
    },
}

fn check_name(kind: &'static str, name: &str, limit: usize) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty { kind });
    }
    if name.len() > limit {
        return Err(InvalidName::TooLong { kind, length: name.len(), limit });
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name == "." || name == ".." || !name.bytes().all(legal) {
        return Err(InvalidName::Character { kind, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule it breaks.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                check_name($kind, name, $limit)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name! {
    /// A Kafka topic's name: `[A-Za-z0-9._-]`, at most 249 characters, as Apache Kafka has it.
    KafkaTopic, "topic", crate::limits::KAFKA_TOPIC_NAME_CHARS
}
name! {
    /// The name of one gateway, unique at its cloud: `[A-Za-z0-9._-]`, at most 64 characters.
    EdgeId, "edge", crate::limits::EDGE_ID_CHARS
}

#[cfg(test)]
mod tests {
    use super::{EdgeId, InvalidName, KafkaTopic};

    #[test]
    fn names_follow_kafkas_rules() {
        let check =
            |name: &str, legal: bool| assert_eq!(KafkaTopic::new(name).is_ok(), legal, "{name:?}");
        check("plant.line-1_temp", true);
        check(&"x".repeat(249), true);
        check(&"x".repeat(250), false);
        check("", false);
        check(".", false);
        check("..", false);
        check("...", true);
        check("a/b", false);
        check("ü", false);
    }

    #[test]
    fn a_refused_name_says_which_rule_it_breaks() {
        assert_eq!(EdgeId::new(""), Err(InvalidName::Empty { kind: "edge" }));
        let long = EdgeId::new(&"e".repeat(65));
        assert_eq!(long, Err(InvalidName::TooLong { kind: "edge", length: 65, limit: 64 }));
    }
}
