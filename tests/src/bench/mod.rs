//! Load on a Kafka broker from a stock client (librdkafka), and what it costs: the parts of `scripts/bench kafka` and `modes`.
//!
//! **Invariant:** nothing here judges a time; what is judged is that every record produced was delivered.
//! **Invariant:** a figure stands beside one that this machine gave in the same run: bytes over loopback, syncs of the same disk.

pub mod broker;
pub mod consume;
pub mod cost;
pub mod dataset;
pub mod disk;
pub mod histogram;
pub mod kafka;
pub mod latency;
pub mod loopback;
pub mod options;
pub mod produce;
pub mod report;
pub mod rows;
pub mod shared;

pub use broker::Broker;
pub use kafka::Kafka;
pub use options::Options;
