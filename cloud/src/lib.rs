//! The cloud: the records of all edges, served over the Kafka protocol from one ordered key-value store.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod dataset;
pub mod entries;
pub mod group;
pub mod kafka;
pub mod log;
pub mod metrics;
pub mod objects;
pub mod settings;
pub mod store;
pub mod tier;
pub mod topics;
pub mod traffic;
pub mod uplink;
