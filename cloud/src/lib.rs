//! The cloud: the records of all edges, served over the Kafka protocol from one ordered key-value store.

pub mod admin;
pub mod broker;
pub mod group;
pub mod kafka;
pub mod log;
pub mod store;
pub mod topics;
pub mod uplink;
