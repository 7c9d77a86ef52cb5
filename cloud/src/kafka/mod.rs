//! The Kafka protocol: connections, frame checks, the version table, one file per API.
//!
//! A request's way: [`serve`] accepts, `connection` reads a frame (its bytes charged to a [`memory::Budget`]), [`frame`]
//! walks it, `api` decodes and answers it.
//!
//! **Invariant:** no decoder sees a frame that [`frame::check`] has not walked.
//! **Invariant:** requests of one connection are begun in the order of their arrival and answered in that order.
//! **Invariant:** [`versions`] is the only table of what is served, `errors` the only map to Kafka's error codes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use self::memory::Budget;
use crate::dataset::Datasets;
use crate::group::coordinator::Coordinator;
use crate::group::shared::coordinator::SharedGroups;
use crate::group::shared::members::ConnectionId;
use crate::log::{Log, ProducerIds};
use crate::metrics::Metrics;
use crate::topics::{Catalogue, Patterns};
use crate::traffic::Traffic;

mod api;
mod connection;
mod errors;
pub mod frame;
mod listener;
pub mod memory;
mod parts;
mod read;
mod schema;
pub mod versions;

pub use self::api::Listings;
pub use self::listener::serve;

/// What the Kafka listener needs to know.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// This broker's id.
    pub node_id: i32,
    /// The cluster's id, which clients show and compare.
    pub cluster_id: String,
    /// The host that clients are told to connect to.
    pub advertised_host: String,
    /// The port that clients are told to connect to.
    pub advertised_port: u16,
    /// Asking for a topic's metadata creates it, if the client allows it (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without a count (`num.partitions`).
    pub default_partitions: i32,
    /// What DescribeLogDirs calls the store's directory.
    pub log_dir: String,
    /// The largest frame taken.
    pub frame_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// A connection without a request for this long is closed.
    pub idle: Duration,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            node_id: 1,
            cluster_id: "robustmq".to_owned(),
            advertised_host: "127.0.0.1".to_owned(),
            advertised_port: 9092,
            auto_create_topics: true,
            default_partitions: 1,
            log_dir: "store".to_owned(),
            frame_bytes: limits::KAFKA_FRAME_BYTES,
            connections: limits::KAFKA_CONNECTIONS,
            idle: limits::KAFKA_IDLE,
        }
    }
}

/// What the APIs work on. One for the broker, shared by all connections.
pub struct Kafka {
    /// The catalogue.
    pub topics: Arc<Catalogue>,
    /// The partitions.
    pub log: Arc<Log>,
    /// The topics with a source.
    pub datasets: Arc<Datasets>,
    /// The consumer groups.
    pub groups: Coordinator,
    /// The `$shared/` groups.
    pub shared: SharedGroups,
    /// Ids for idempotent producers.
    pub producer_ids: ProducerIds,
    /// Limits and names.
    pub settings: KafkaSettings,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Counters of each topic.
    pub traffic: Arc<Traffic>,
    /// Frames being read and worked on.
    pub request_memory: Budget,
    /// Large answers being built and sent.
    pub answer_memory: Budget,
    /// Lists of all topics, as Metadata answers them.
    pub listings: Listings,
    /// Topics by pattern, for whoever subscribes so.
    pub patterns: Patterns,
    /// Ends waits.
    pub shutdown: CancellationToken,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
struct Peer {
    address: SocketAddr,
    connection: ConnectionId,
}

#[cfg(test)]
mod tests;
