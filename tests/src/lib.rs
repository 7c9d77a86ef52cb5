//! Harness for end-to-end tests and benchmarks: real binaries on free ports, real clients.
//!
//! **Invariant:** what is started here is ended here, by process id, also when a test fails.
//! **Invariant:** a test fails when a binary logged an ERROR line that the test did not announce.

pub mod bench;
pub mod clients;
pub mod dataset;
pub mod eventually;
pub mod load;
pub mod process;
pub mod s3;
pub mod servers;
pub mod telemetry;

pub use eventually::eventually;
pub use servers::{TestCloud, TestEdge};
