//! `$shared/{name}` groups: any number of members on one partition, with stock Kafka clients.
//!
//! Fetch names neither group nor member, but it carries the **offset** that OffsetFetch gave the member. In a shared group
//! that is a virtual one, a [`cursor`]: it says whose Fetch it is, and the records that the Fetch is answered with are *leased*
//! to that member. What its consumer then commits is a position on the cursor, and acknowledges what was delivered before it.
//!
//! - [`cursor`]: virtual offsets, and what was delivered on a cursor at which of them.
//! - [`pool`]: one group on one partition: what is acknowledged, leased, returned, still to come. No clock, no input or output.
//! - [`pace`]: how many records a member is given ahead of its acknowledgements.
//! - [`progress`]: what is durable of a pool, byte by byte.
//! - [`pools`]: all pools of this broker: loading, durable acknowledgement.
//! - [`deliver`]: who is given what next, read from the log; [`acquire`]: the same for members of share groups.
//! - [`snapshots`]: progress to go back to.
//! - [`config`]: what can be set of a group.
//! - [`members`]: who is in a group. No clock, no input or output.
//! - [`coordinator`]: the group's requests, the connections that members speak on, their sessions.
//!
//! **Invariant:** between a pool's start and the end of what it has given out, each offset is acknowledged, leased to one member,
//! or waits to be delivered again; never two of these.
//! **Invariant:** an acknowledgement is answered after it is durable. Leases are not durable: a broker that starts again delivers
//! whatever was not acknowledged.
//! **Invariant:** no client ever lands on a real offset by accident: a cursor that is not known is answered with nothing, and its
//! member is told to join again.
//! **Invariant:** nobody's joining or leaving disturbs another member.

pub mod acquire;
pub mod config;
pub mod coordinator;
pub mod cursor;
pub mod dead_letter;
pub mod deliver;
pub mod members;
pub mod pace;
pub mod pool;
pub mod pools;
pub mod progress;
pub mod snapshots;

use robustmq_common::limits;

use super::coordinator::CoordinatorError;

/// What the ids of shared groups start with.
pub const PREFIX: &str = "$shared/";

/// Whether a group id is that of a shared group.
#[must_use]
pub fn is_shared(group: &str) -> bool {
    group.starts_with(PREFIX)
}

/// Tokio's clock, so that a test can drive it.
pub(in crate::group) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// Checks the id of a shared group, or of a share group.
pub(in crate::group) fn check_group_id(group: &str) -> Result<(), CoordinatorError> {
    let invalid = |reason| CoordinatorError::InvalidGroupId { group: group.to_owned(), reason };
    if group.is_empty() || group == PREFIX {
        return Err(invalid("$shared/ is followed by a name, and other groups have one"));
    }
    match group.len() > limits::GROUP_ID_BYTES {
        true => Err(invalid("it is too long")),
        false => Ok(()),
    }
}
