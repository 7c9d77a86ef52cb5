//! What a change of what is in memory is decided by, and what it means for others.

use std::sync::Arc;

use tokio::time::Instant;

use super::ExtentId;
use super::users::{Known, UserId};
use crate::layout::Extent;

/// An extent that left memory.
#[derive(Debug)]
pub(super) struct Displaced {
    pub id: ExtentId,
    pub user: UserId,
    pub extent: Arc<Extent>,
}

/// What a change of what is in memory means for the SSD.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// These are not in memory any more.
    pub displaced: Vec<Displaced>,
    /// These stay in memory from now on.
    pub stay: Vec<ExtentId>,
}

/// With what a decision is made: who reads, and when it is.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub users: &'a Known,
    pub now: Instant,
}
