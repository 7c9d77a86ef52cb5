//! Ingest of edge batches: lanes, incarnations, explicit gaps, rejections, de-duplication by origin; and the tokens of edges.
//!
//! `http` (bytes and tokens) -> `ingest` -> `greet` (hellos) or `apply` (batches) -> `plan`, `mapping` (records to appends)
//! -> [`IngestLog`], the seam to log and catalogue. `edges` and `lane` hold what is known of each edge and lane.
//!
//! **Invariant:** a batch is applied only if it starts at the sequence after the lane's `acknowledged_through` **and** its
//! chain digest there is the one the cloud has. No number alone makes anything a duplicate.
//! **Invariant:** the open batch is durable before anything of it is applied; while one is open, the next batch has to cover exactly
//! its range of its history, and uses its partition map.
//! **Invariant:** an answer is sent after the position that it tells is durable.
//! **Invariant:** one batch of a lane is applied at a time, and opening an incarnation waits for all of them.
//! **Invariant:** a batch that was begun is carried on even if the connection that brought it goes away.

mod apply;
mod edges;
mod greet;
mod http;
mod ingest;
mod lane;
mod log;
mod manage;
mod mapping;
mod metrics;
mod plan;
mod refused;
mod rights;
mod tokens;

pub use http::{Admission, CONTENT_TYPE, router, run};
pub use ingest::{EdgeStatus, Ingest, IngestSettings};
pub use log::{AppendLimits, IngestLog, IngestTopic, LogFailure, PartitionId};
pub use manage::{AddEdge, AddedEdge, ListedEdge, manage_router};
pub use metrics::UplinkMetrics;
pub use plan::OVERFLOW_TOPIC;
pub use rights::{InvalidRight, Rights};
pub use tokens::{TokenError, Tokens};
