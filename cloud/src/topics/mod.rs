//! The catalogue: topic names, ids, partition counts and configuration.
//!
//! Creating a topic is one metadata write: no file, no partition state. A start reads no topics: they are looked up when
//! they are asked for, and those used last are cached within a number of bytes. Requests for thousands of topics read and
//! write the store once.
//!
//! **Invariant:** a topic is its id. One that is created again under an old name has another id, and none of its records,
//! offsets or producers.
//! **Invariant:** all topics of one request are created by one atomic write.
//! **Invariant:** [`Catalogue::version`] grows after each change, before the change's caller is answered.
//! **Invariant:** a deleted topic's records are removed, also if the broker dies in between: what is to be removed is written
//! together with the deletion, and done in the background ([`Removal`]), in bounded pieces. A topic that was never written costs no
//! more than its note.
//! **Invariant:** an unknown or wrong configuration entry is refused with its name; nothing is silently ignored.

mod cache;
mod catalogue;
mod changes;
mod config;
mod config_keys;
mod globs;
mod patterns;
mod removal;
mod source;

pub use catalogue::{Catalogue, NewTopic, Topic, TopicError, TopicPage};
pub use config::{TopicConfig, apply_changes, describe};
pub use config_keys::KEYS;
pub use patterns::{PatternError, Patterns};
pub use removal::Removal;
pub use source::{Live as LiveSource, OnCorrupt, SourceConfig};

#[cfg(test)]
mod tests;
