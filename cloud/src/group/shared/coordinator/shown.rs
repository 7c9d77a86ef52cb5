//! What an operator asks about shared groups.

use std::collections::{BTreeSet, HashMap};

use super::{Members, SharedGroups, Token};
use crate::group::machine::Snapshot;
use crate::group::shared::pools::Standing;

impl SharedGroups {
    /// Whether the group has members, of either kind.
    #[must_use]
    pub fn is_active(&self, group: &str) -> bool {
        self.state().groups.contains_key(group) || self.share().is_active(group)
    }

    /// The groups that have members, of either kind.
    #[must_use]
    pub fn active(&self) -> BTreeSet<String> {
        let mut active: BTreeSet<String> = self.state().groups.keys().cloned().collect();
        active.extend(self.share().active());
        active
    }

    /// The members of a group, of either kind; `None` if it has none.
    #[must_use]
    pub fn snapshot(&self, group: &str) -> Option<Snapshot> {
        let consumers = self.state().groups.get(group).map(Members::snapshot);
        let share = self.share().stored_members(group);
        if share.is_empty() {
            return consumers;
        }
        let protocol_type = Some(crate::group::share::PROTOCOL_TYPE.to_owned());
        let mut snapshot =
            consumers.unwrap_or_else(|| Snapshot { protocol_type, ..Snapshot::default() });
        snapshot.members.extend(share);
        Some(snapshot)
    }

    /// How a group that has members stands: its members by token, and its pools.
    #[must_use]
    pub fn standings(&self, group: &str) -> (HashMap<Token, String>, Vec<Standing>) {
        let mut members: HashMap<Token, String> = {
            let state = self.state();
            let members = state.groups.get(group).map(|members| {
                members.iter().map(|(id, member)| (member.token, id.clone())).collect()
            });
            members.unwrap_or_default()
        };
        members.extend(self.share().tokens(group));
        (members, self.shared.pools.standings(group))
    }
}
