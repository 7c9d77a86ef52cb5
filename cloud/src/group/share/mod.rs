//! Share groups (KIP-932): consumers that acquire records and say of each what becomes of it.
//!
//! They work on the pools of [`crate::group::shared`], which has everything about who is given what. Any group may be one whose id does
//! not belong to a consumer group; members of this protocol may also join a `$shared/` group, and share its records with consumers.
//!
//! - [`members`]: who is in a group, and their share sessions. No clock, no input or output.
//! - [`coordinator`]: the group's requests, its pools, its timers.
//! - [`config`]: what can be set of a group.
//!
//! Every member is assigned every partition of the topics that it subscribes to. A member's share session is gone with its connection, and
//! what it had acquired goes back to the group at once.
//!
//! **Invariant:** what a member has acquired it loses when its session ends, it leaves, or the lock runs out; whatever it says of it after
//! that is refused.
//! **Invariant:** an acknowledgement is answered after it is durable. That records are acquired is not durable.

pub mod config;
pub mod coordinator;
pub mod members;

/// The type of these groups in listings and in what is stored of them.
pub const PROTOCOL_TYPE: &str = "share";
