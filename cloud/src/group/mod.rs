//! Classic consumer groups: a state machine without sockets or clocks, and durable offsets.
//!
//! - [`machine`]: one group. Requests, time and the outcome of writes go in; answers and what to store come out.
//! - [`coordinator`]: all groups. Holds the answers that wait, drives timers, writes through the store.
//!   Committed offsets are keyed by topic id, so that a topic made again under an old name starts afresh.
//! - [`stored`]: what is durable of a group, byte by byte.
//! - [`timers`]: what is due when, for the coordinators of all kinds of groups.
//!
//! **Invariant:** a member sees an assignment only after the generation that it belongs to is durable, so a restarted
//! broker knows every member that a client believes in.
//! **Invariant:** an OffsetCommit is answered after the write that holds it is durable.
//! **Invariant:** the machine never waits, reads no clock and does no input or output.
//!
//! [`shared`] has `$shared/` groups, which share none of this but the shapes of requests, listings and committed offsets.

pub mod coordinator;
pub mod machine;
pub mod share;
pub mod shared;
pub mod stored;
pub mod timers;
