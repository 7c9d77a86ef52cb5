//! What an operator asks about share groups.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Assignment, Member, ShareGroups, Token};
use crate::group::coordinator::CoordinatorError;
use crate::group::machine::StoredMember;
use crate::group::share::PROTOCOL_TYPE;
use crate::group::shared::is_shared;

/// What is shown of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSnapshot {
    /// Its id.
    pub member_id: String,
    /// Its epoch.
    pub epoch: i32,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// The topics that it wants.
    pub subscribed: BTreeSet<String>,
    /// What it is assigned.
    pub assigned: Assignment,
}

/// What is shown of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSnapshot {
    /// Its epoch.
    pub epoch: i32,
    /// Its members, by id.
    pub members: Vec<MemberSnapshot>,
}

impl ShareGroups {
    /// Whether the group has members.
    #[must_use]
    pub fn is_active(&self, group: &str) -> bool {
        self.state().groups.contains_key(group)
    }

    /// Whether a group is of this kind alone.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn owns(&self, group: &str) -> Result<bool, CoordinatorError> {
        if is_shared(group) {
            return Ok(false);
        }
        let stored = self.pools.protocol_type(group).await?;
        Ok(stored.as_deref() == Some(PROTOCOL_TYPE))
    }

    /// The groups that have members.
    #[must_use]
    pub fn active(&self) -> Vec<String> {
        self.state().groups.keys().cloned().collect()
    }

    /// What is shown of a group; `None` if it has no members.
    #[must_use]
    pub fn snapshot(&self, group: &str) -> Option<ShareSnapshot> {
        let state = self.state();
        let members = state.groups.get(group)?;
        let show = |(member_id, member): (&String, &Member)| MemberSnapshot {
            member_id: member_id.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rack_id: member.rack_id.clone(),
            subscribed: member.subscribed.clone(),
            assigned: member.assigned.clone(),
        };
        Some(ShareSnapshot { epoch: members.epoch(), members: members.iter().map(show).collect() })
    }

    /// The members of a group as those of other groups are shown.
    #[must_use]
    pub fn stored_members(&self, group: &str) -> Vec<StoredMember> {
        let state = self.state();
        let Some(members) = state.groups.get(group) else { return Vec::new() };
        let stored = |(member_id, member): (&String, &Member)| StoredMember {
            member_id: member_id.clone(),
            instance_id: None,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout: std::time::Duration::ZERO,
            rebalance_timeout: std::time::Duration::ZERO,
            metadata: Bytes::new(),
            assignment: Bytes::new(),
        };
        members.iter().map(stored).collect()
    }

    /// The members of a group by token.
    #[must_use]
    pub fn tokens(&self, group: &str) -> BTreeMap<Token, String> {
        let state = self.state();
        let members = state.groups.get(group);
        members
            .map(|members| members.iter().map(|(id, m)| (m.token, id.clone())).collect())
            .unwrap_or_default()
    }
}
