//! The requests of shared groups: membership, the connections that members speak on, and which cursor belongs to whom.
//!
//! OffsetFetch names no member in the classic protocol. But it comes on the connection on which its member joined, so a connection is
//! *bound* to the member that last spoke on it, for each group. Nothing of membership is durable: after a restart every member
//! joins again, and what it had not acknowledged is delivered again.
//!
//! **Invariant:** whoever may be a member, or believes to be one still, is told no real offset (see [`cursors`]): it would read on from
//! there beside the group.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use super::cursor::Token;
use super::dead_letter::DeadLetters;
use super::members::{Assigned, ConnectionId, Due, Member, Members};
use super::pools::Pools;
use super::{check_group_id, now};
use crate::group::coordinator::CoordinatorError;
use crate::group::machine::{Caller, GroupError, Join, Joined, Sync, Synced, Timing};
use crate::group::share::coordinator::ShareGroups;
use crate::group::timers::{Timers, is_due};
use crate::log::Log;

/// Who asks, where the protocol does not say it.
#[derive(Debug, Clone)]
pub struct Client {
    /// On which connection.
    pub connection: ConnectionId,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// For which member, and in which epoch: newer clients say it.
    pub member: Option<(String, i32)>,
}

mod commits;
mod consumers;
mod cursors;
mod shown;

pub use self::commits::CommitError;
pub use self::consumers::{ConsumerBeat, ConsumerTold};
use self::cursors::Started;

#[derive(Default)]
struct State {
    groups: HashMap<String, Members>,
    /// For whom a connection speaks, by group.
    bound: HashMap<ConnectionId, HashMap<String, String>>,
    /// On which a member spoke that is none any more, and does not know it perhaps; none that has joined again.
    put_out: HashSet<ConnectionId>,
    timers: Timers<(String, String)>,
    bytes: usize,
}

struct Shared {
    pools: Arc<Pools>,
    /// Members of the share group protocol.
    share: ShareGroups,
    timing: Timing,
    started: Started,
    state: Mutex<State>,
}

/// The shared groups of this broker. Cheap to clone.
#[derive(Clone)]
pub struct SharedGroups {
    shared: Arc<Shared>,
}

impl SharedGroups {
    /// The shared groups over a log. Sessions end only while [`SharedGroups::run`] runs.
    #[must_use]
    pub fn new(log: Arc<Log>, timing: Timing, dead_letters: Option<Arc<dyn DeadLetters>>) -> Self {
        let pools = Arc::new(Pools::new(log, dead_letters));
        let shared = Shared {
            pools: pools.clone(),
            share: ShareGroups::new(pools),
            timing,
            started: Started::now(),
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The pools, for Fetch.
    #[must_use]
    pub fn pools(&self) -> &Arc<Pools> {
        &self.shared.pools
    }

    /// The share groups (KIP-932).
    #[must_use]
    pub fn share(&self) -> &ShareGroups {
        &self.shared.share
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// JoinGroup: at once, and alone.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn join(
        &self,
        group: &str,
        join: &Join,
        connection: ConnectionId,
    ) -> Result<Joined, CoordinatorError> {
        check_group_id(group)?;
        let token = match join.member_id.is_empty() {
            true => self.shared.pools.new_token().await?.ok_or(GroupError::MaxSizeReached)?.into(),
            false => None,
        };
        let joined = self.admit(group, join, connection, token);
        if let (Err(_), Some(token)) = (&joined, token) {
            self.shared.pools.end(token, []);
        }
        let (joined, replaced) = joined?;
        if let Some(member) = replaced {
            self.close(member);
        }
        Ok(joined)
    }

    /// Returns the member that is replaced, too.
    fn admit(
        &self,
        group: &str,
        join: &Join,
        connection: ConnectionId,
        token: Option<Token>,
    ) -> Result<(Joined, Option<Member>), CoordinatorError> {
        let mut state = self.state();
        if state.bytes > limits::GROUPS_BYTES {
            return Err(GroupError::MaxSizeReached.into());
        }
        if state.groups.len() >= limits::GROUPS && !state.groups.contains_key(group) {
            return Err(CoordinatorError::TooManyGroups);
        }
        let members = state.groups.entry(group.to_owned()).or_default();
        let joined = members.join(now(), &self.shared.timing, join, token);
        if joined.is_err() && members.is_empty() {
            state.groups.remove(group);
        }
        let (joined, replaced) = joined?;
        if let Some(replaced) = &replaced {
            state.forget(group, replaced);
        }
        state.recount(group, &joined.member_id);
        self.bind(&mut state, connection, group, &joined.member_id);
        state.arm(group, &joined.member_id);
        Ok((joined, replaced))
    }

    /// SyncGroup: the member gets what it assigned itself. `assigned` says which partitions those are, where that is known: cursors on
    /// others end.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub fn sync(
        &self,
        group: &str,
        sync: Sync,
        assigned: Option<&BTreeSet<Assigned>>,
        connection: ConnectionId,
    ) -> Result<Synced, CoordinatorError> {
        let member_id = sync.who.member_id.clone();
        let mut state = self.state();
        let members = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
        let synced = members.sync(now(), sync)?;
        let member = members.get_mut(&member_id).ok_or(GroupError::UnknownMember)?;
        let token = member.token;
        let mut revoked = BTreeSet::new();
        if let Some(assigned) = assigned {
            revoked = member.partitions.difference(assigned).copied().collect();
            member.partitions.retain(|partition| assigned.contains(partition));
        }
        state.recount(group, &member_id);
        self.bind(&mut state, connection, group, &member_id);
        drop(state);
        self.shared.pools.close(token, revoked);
        Ok(synced)
    }

    /// Heartbeat. A member whose cursor cannot go on is sent away, so that it joins anew: a mere rebalance would let clients of the
    /// cooperative protocol keep the cursor.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub fn heartbeat(
        &self,
        group: &str,
        caller: &Caller,
        connection: ConnectionId,
    ) -> Result<(), CoordinatorError> {
        let token = self.hear(group, caller, connection)?;
        if !self.shared.pools.is_lost(token) {
            return Ok(());
        }
        tracing::info!(group, member = caller.member_id, "its cursor cannot go on: it joins anew");
        self.leave(group, &caller.member_id, None)?;
        Err(GroupError::UnknownMember.into())
    }

    /// A member was heard of, on a connection that speaks for it from now on.
    fn hear(
        &self,
        group: &str,
        caller: &Caller,
        connection: ConnectionId,
    ) -> Result<Token, CoordinatorError> {
        let mut state = self.state();
        let members = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
        let token = members.check(now(), caller)?.token;
        self.bind(&mut state, connection, group, &caller.member_id);
        Ok(token)
    }

    /// LeaveGroup for one member, by its id or its instance id, on a connection that may be its own: then it knows that it is none.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub fn leave_by(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        connection: ConnectionId,
    ) -> Result<(), CoordinatorError> {
        let left = self.leave(group, member_id, instance_id);
        self.state().put_out.remove(&connection);
        left
    }

    /// Puts a member out, by its id or its instance id.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub fn leave(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), CoordinatorError> {
        let member = {
            let mut state = self.state();
            let members = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
            let member = members.leave(member_id, instance_id)?;
            state.forget(group, &member);
            member
        };
        self.close(member);
        Ok(())
    }

    /// A connection is gone.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.share().connection_closed(connection);
        let mut state = self.state();
        state.put_out.remove(&connection);
        let now = now();
        for (group, member_id) in state.bound.remove(&connection).unwrap_or_default() {
            if let Some(members) = state.groups.get_mut(&group) {
                members.unbind(now, connection, &member_id);
            }
            state.arm(&group, &member_id);
        }
    }

    fn bind(&self, state: &mut State, connection: ConnectionId, group: &str, member_id: &str) {
        state.put_out.remove(&connection);
        let bound = state.bound.entry(connection).or_default();
        let former = match bound.get_mut(group) {
            Some(former) if *former == member_id => return,
            Some(former) => Some(std::mem::replace(former, member_id.to_owned())),
            None => {
                bound.insert(group.to_owned(), member_id.to_owned());
                None
            }
        };
        let Some(members) = state.groups.get_mut(group) else { return };
        if let Some(former) = former {
            members.unbind(now(), connection, &former);
        }
        if members.bind(connection, member_id)
            && let Some(member) = members.get(member_id)
        {
            self.shared.pools.resume(member.token, member.partitions.iter().copied());
        }
    }

    /// A member's cursors end.
    fn close(&self, member: Member) {
        self.shared.pools.end(member.token, member.partitions);
    }

    /// Ends sessions, and takes back what members hold that are gone, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(self.share().run(shutdown.clone()), self.run_timers(shutdown));
    }

    async fn run_timers(&self, shutdown: CancellationToken) {
        let changed = self.state().timers.changed();
        while is_due(|| self.state().timers.first(), &changed, &shutdown).await {
            self.fire();
        }
    }

    fn fire(&self) {
        let now = now();
        loop {
            let due = {
                let mut state = self.state();
                let Some((group, member_id)) = state.timers.pop(now) else { return };
                let Some(members) = state.groups.get_mut(&group) else { continue };
                if let Some(member) = members.get_mut(&member_id) {
                    member.armed = None;
                }
                let due = members.look(now, &member_id);
                if let Due::Expired(member) = &due {
                    tracing::info!(group, member = member_id, "its session is over");
                    state.forget(&group, member);
                } else {
                    state.arm(&group, &member_id);
                }
                due
            };
            match due {
                Due::Expired(member) => self.close(member),
                Due::Unbound(member) => {
                    self.shared.pools.suspend(member.token, member.partitions);
                }
                Due::NotYet => {}
            }
        }
    }
}

impl State {
    /// A member's timer: when something has to be done about it, if nothing is heard of it.
    fn arm(&mut self, group: &str, member_id: &str) {
        let members = self.groups.get_mut(group);
        let Some(member) = members.and_then(|members| members.get_mut(member_id)) else { return };
        let who = (group.to_owned(), member_id.to_owned());
        let due = member.due();
        self.timers.arm(who, &mut member.armed, due);
    }

    /// What a member takes of memory may have changed.
    fn recount(&mut self, group: &str, member_id: &str) {
        let members = self.groups.get_mut(group);
        let Some(member) = members.and_then(|members| members.get_mut(member_id)) else { return };
        let bytes = member.bytes();
        let before = std::mem::replace(&mut member.charged_bytes, bytes);
        self.bytes = (self.bytes + bytes).saturating_sub(before);
    }

    /// After a member was removed.
    fn forget(&mut self, group: &str, member: &Member) {
        self.bytes = self.bytes.saturating_sub(member.charged_bytes);
        let who = (group.to_owned(), member.stored().member_id.clone());
        self.timers.remove(who, member.armed);
        for connection in member.connections() {
            if let Some(bound) = self.bound.get_mut(&connection) {
                bound.remove(group);
                self.put_out.insert(connection);
            }
        }
        if self.groups.get(group).is_some_and(Members::is_empty) {
            self.groups.remove(group);
        }
    }
}

/// The partitions of an assignment, as [`SharedGroups::sync`] wants them.
pub type Assignment = BTreeSet<(TopicId, PartitionIndex)>;

#[cfg(test)]
mod tests;
