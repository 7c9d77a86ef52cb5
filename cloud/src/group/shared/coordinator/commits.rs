//! Commits: members acknowledge with them, and admins move a group.

use super::{ConnectionId, CoordinatorError, GroupError, SharedGroups, Token};
use crate::group::machine::Caller;
use crate::group::shared::check_group_id;
use crate::group::shared::cursor::CursorOffset;
use crate::group::shared::pools::PoolError;
use crate::store::keys::partition::PartitionKeys;

/// Why an offset cannot be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It is a real offset, or lies on the cursor of another member.
    #[error("a member of a shared group commits positions on its own cursor")]
    NotOwnCursor,
    /// See there.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl SharedGroups {
    /// Whether somebody may commit, and with which token; `None` for an admin's commit to a group without members.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub fn may_commit(
        &self,
        group: &str,
        caller: &Caller,
        connection: ConnectionId,
    ) -> Result<Option<Token>, CoordinatorError> {
        check_group_id(group)?;
        if caller.generation < 0 && caller.member_id.is_empty() {
            return match self.is_active(group) {
                true => Err(GroupError::UnknownMember.into()),
                false => Ok(None),
            };
        }
        self.hear(group, caller, connection).map(Some)
    }

    /// Acknowledges what was delivered before `offset` on a member's cursor; waits until that is durable.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(
        &self,
        token: Token,
        keys: &PartitionKeys,
        offset: i64,
    ) -> Result<(), CommitError> {
        let at = CursorOffset::decode(offset).filter(|at| at.token == token);
        let at = at.ok_or(CommitError::NotOwnCursor)?;
        Ok(self.shared.pools.acknowledge(keys, token, at.sequence).await?)
    }

    /// Moves the place of a group without members; an offset that is not there yet means the end. A position on a cursor is refused:
    /// after a restart, clients that have lost their member id commit where they believe to be.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn reset(
        &self,
        group: &str,
        places: &[(PartitionKeys, i64)],
    ) -> Result<(), CoordinatorError> {
        let on_cursor =
            |(_, offset): &(PartitionKeys, i64)| CursorOffset::decode(*offset).is_some();
        if self.is_active(group) || places.iter().any(on_cursor) {
            return Err(GroupError::UnknownMember.into());
        }
        let mut there = Vec::with_capacity(places.len());
        for (keys, offset) in places {
            let log = self.shared.pools.log();
            let partition = log.partition(keys.topic, keys.partition).await;
            let partition = partition.map_err(PoolError::from)?;
            there.push((*keys, (*offset).min(partition.offsets().high_watermark.0)));
        }
        Ok(self.shared.pools.reset(group, &there).await?)
    }
}
