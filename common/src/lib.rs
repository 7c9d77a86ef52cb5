//! What `robustmq-edge` and `robustmq-cloud` share. Rooms here know nothing of either binary.

pub mod admin;
pub mod chain;
pub mod cli;
pub mod config;
pub mod disk;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod mqtt;
pub mod net;
pub mod record;
pub mod sync;
pub mod telemetry;
