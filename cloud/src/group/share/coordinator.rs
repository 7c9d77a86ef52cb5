//! The requests of share groups: heartbeats, share sessions, and which pools a member takes part in.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use robustmq_common::limits;
use tokio_util::sync::CancellationToken;

use super::config::{self, Timing};
use super::members::{Assignment, Beat, Member, MemberError, Members, SessionError};
use crate::group::coordinator::CoordinatorError;
use crate::group::shared::acquire::Acquirer;
use crate::group::shared::cursor::Token;
use crate::group::shared::members::{Assigned, ConnectionId};
use crate::group::shared::pool::{NotHeld, Verdict};
use crate::group::shared::pools::{PoolError, Pools, SettleError, SharedPool};
use crate::group::shared::{check_group_id, now};
use crate::group::timers::{Timers, is_due};
use crate::log::Partition;
use crate::store::keys::partition::PartitionKeys;

/// Why a heartbeat is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The member.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The group.
    #[error(transparent)]
    Group(#[from] CoordinatorError),
}

impl From<PoolError> for ShareError {
    fn from(error: PoolError) -> Self {
        Self::Group(error.into())
    }
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its epoch.
    pub epoch: i32,
    /// How often it has to be heard of, and what happens if it is not.
    pub timing: Timing,
    /// What it is assigned, if it does not know.
    pub assignment: Option<Assignment>,
}

mod shown;

pub use self::shown::{MemberSnapshot, ShareSnapshot};

#[derive(Default)]
struct State {
    groups: HashMap<String, Members>,
    /// Who has left, and has a share session still: its client may say what becomes of the last records only then.
    left: HashMap<(String, String), Member>,
    /// Members whose share session is on a connection.
    sessions: HashMap<ConnectionId, BTreeSet<(String, String)>>,
    timers: Timers<(String, String)>,
    bytes: usize,
}

/// The share groups of this broker.
pub struct ShareGroups {
    pools: Arc<Pools>,
    state: Mutex<State>,
}

impl ShareGroups {
    /// Share groups over `pools`. Sessions end only while [`ShareGroups::run`] runs.
    #[must_use]
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ShareGroupHeartbeat: a member joins or lives on. `resolve` says what there is of the topics that it wants.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn heartbeat(
        &self,
        group: &str,
        beat: Beat,
        resolve: impl AsyncFnOnce(BTreeSet<String>) -> Assignment,
    ) -> Result<Told, ShareError> {
        check_group_id(group)?;
        let (member_id, said_epoch) = (beat.member_id.clone(), beat.epoch);
        let timing = config::timing(group, &self.pools.overrides(group).await?);
        if beat.subscribed.is_some() {
            self.check_room(group)?;
        }
        let token = match said_epoch {
            0 => Some(self.admit(group).await?),
            _ => None,
        };
        if token.is_some() {
            self.end_left(group, &member_id);
        }
        let wanted = {
            let mut state = self.state();
            let heard = state.groups.entry(group.to_owned()).or_default().hear(
                now(),
                timing.session_timeout,
                beat,
                token,
            );
            let has = state.member(group, &member_id).map(|member| member.token);
            // It was a member already, or is refused.
            if let Some(token) = token.filter(|token| has != Some(*token)) {
                self.pools.end(token, []);
            }
            let wanted = heard.inspect_err(|_| state.forget_if_empty(group))?;
            state.recount(group, &member_id);
            state.arm(group, &member_id);
            wanted
        };
        let assignment = resolve(wanted).await;
        let mut state = self.state();
        let members = state.groups.get_mut(group).ok_or(MemberError::Unknown)?;
        let (epoch, is_told) = members.assign(&member_id, said_epoch, assignment)?;
        let assigned = members.get(&member_id).filter(|_| is_told).map(|m| m.assigned.clone());
        state.recount(group, &member_id);
        Ok(Told { epoch, timing, assignment: assigned })
    }

    /// Whoever joins anew has nothing to say any more of what it had before.
    fn end_left(&self, group: &str, member_id: &str) {
        let who = (group.to_owned(), member_id.to_owned());
        if self.state().left.contains_key(&who) {
            self.end_session(group, member_id);
        }
    }

    /// Ends what is left of the share sessions of a group's former members.
    pub fn end_all_left(&self, group: &str) {
        let left: Vec<(String, String)> = {
            let state = self.state();
            state.left.keys().filter(|(of, _)| of == group).cloned().collect()
        };
        for (group, member_id) in left {
            self.end_session(&group, &member_id);
        }
    }

    /// Whether there is memory for what a member wants.
    fn check_room(&self, group: &str) -> Result<(), ShareError> {
        let state = self.state();
        let is_new = !state.groups.contains_key(group);
        match state.bytes > limits::GROUPS_BYTES || (is_new && state.groups.len() >= limits::GROUPS)
        {
            true => Err(CoordinatorError::TooManyGroups.into()),
            false => Ok(()),
        }
    }

    /// A group begins, or gets another member.
    async fn admit(&self, group: &str) -> Result<Token, ShareError> {
        self.pools.make_known(group).await?;
        let token = self.pools.new_token().await.map_err(CoordinatorError::from)?;
        Ok(token.ok_or(CoordinatorError::TooManyGroups)?)
    }

    /// A member leaves. What it has acquired goes back with its share session, which ends by itself: clients of librdkafka leave first, and
    /// acknowledge then.
    ///
    /// # Errors
    /// [`MemberError::Unknown`].
    pub fn leave(&self, group: &str, member_id: &str) -> Result<(), MemberError> {
        let mut state = self.state();
        let mut member = state.remove(group, member_id).ok_or(MemberError::Unknown)?;
        if let Some(connection) = member.connection() {
            let who = (group.to_owned(), member_id.to_owned());
            state.sessions.entry(connection).or_default().insert(who.clone());
            member.subscribed.clear();
            member.charged_bytes = 0;
            state.left.insert(who, member);
            state.recount(group, member_id);
            return Ok(());
        }
        drop(state);
        self.close(member);
        Ok(())
    }

    fn close(&self, mut member: Member) {
        for pool in member.end_session() {
            self.pools.exit(&pool, member.token);
        }
        self.pools.end(member.token, []);
    }

    /// A request of a share session that is no last one: returns the partitions that it fetches. See [`Member::advance_session`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn advance_session(
        &self,
        group: &str,
        member_id: &str,
        epoch: i32,
        connection: ConnectionId,
        added: impl IntoIterator<Item = Assigned>,
        forgotten: &BTreeSet<Assigned>,
    ) -> Result<BTreeSet<Assigned>, SessionError> {
        let mut state = self.state();
        let member = state.member(group, member_id).ok_or(SessionError::UnknownMember)?;
        let former = member.connection();
        let partitions = member.advance_session(epoch, connection, added, forgotten)?;
        let who = (group.to_owned(), member_id.to_owned());
        if former != Some(connection) {
            if let Some(former) = former {
                state.unbind(former, &who);
            }
            state.sessions.entry(connection).or_default().insert(who);
        }
        Ok(partitions)
    }

    /// Whether a member has a share session on a connection, which its last request ends.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn check_session(
        &self,
        group: &str,
        member_id: &str,
        connection: ConnectionId,
    ) -> Result<(), SessionError> {
        let mut state = self.state();
        let member = state.member(group, member_id).ok_or(SessionError::UnknownMember)?;
        member.has_session(connection).then_some(()).ok_or(SessionError::NotFound)
    }

    /// A share session ends: what was acquired in it goes back.
    pub fn end_session(&self, group: &str, member_id: &str) {
        let mut state = self.state();
        let Some(member) = state.member(group, member_id) else { return };
        let (token, connection, pools) = (member.token, member.connection(), member.end_session());
        let who = (group.to_owned(), member_id.to_owned());
        if let Some(connection) = connection {
            state.unbind(connection, &who);
        }
        let left = state.left.remove(&who);
        state.bytes -= left.as_ref().map_or(0, |left| left.charged_bytes);
        drop(state);
        for pool in pools {
            self.pools.exit(&pool, token);
        }
        if left.is_some() {
            self.pools.end(token, []);
        }
    }

    /// A connection is gone, and the share sessions on it.
    pub fn connection_closed(&self, connection: ConnectionId) {
        let gone = self.state().sessions.remove(&connection).unwrap_or_default();
        for (group, member_id) in gone {
            self.end_session(&group, &member_id);
        }
    }

    /// Has a member acquire records of a partition.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn acquirer(
        &self,
        group: &str,
        member_id: &str,
        partition: Arc<Partition>,
    ) -> Result<Acquirer, ShareError> {
        let keys = *partition.keys();
        let (pool, token) = self.pool(group, member_id, keys).await?;
        Ok(Acquirer::new(pool, partition, token))
    }

    /// The pool of a partition, which the member takes part in from now on.
    async fn pool(
        &self,
        group: &str,
        member_id: &str,
        keys: PartitionKeys,
    ) -> Result<(Arc<SharedPool>, Token), ShareError> {
        let at = (keys.topic, keys.partition);
        let token = {
            let mut state = self.state();
            let member = state.member(group, member_id).ok_or(MemberError::Unknown)?;
            if let Some(pool) = member.pools.get(&at) {
                return Ok((pool.clone(), member.token));
            }
            member.token
        };
        let config = self.pools.config(group).await?;
        let pool = self.pools.enter(group, keys, token, &config).await?;
        let mut state = self.state();
        let member = state.member(group, member_id);
        // Without a session nothing would be given back when the connection goes.
        match member.filter(|member| member.token == token && member.connection().is_some()) {
            Some(member) => {
                member.pools.insert(at, pool.clone());
                state.recount(group, member_id);
                Ok((pool, token))
            }
            None => {
                drop(state);
                self.pools.exit(&pool, token);
                Err(MemberError::Unknown.into())
            }
        }
    }

    /// Does what a member says of records that it has acquired, all or nothing; waits until that is durable.
    ///
    /// # Errors
    /// [`SettleError`].
    pub async fn settle(
        &self,
        group: &str,
        member_id: &str,
        partition: &Partition,
        verdicts: &[(Range<i64>, Verdict)],
    ) -> Result<(), SettleError> {
        let keys = partition.keys();
        let found = {
            let mut state = self.state();
            let member = state.member(group, member_id);
            member.and_then(|member| {
                Some((member.pools.get(&(keys.topic, keys.partition))?.clone(), member.token))
            })
        };
        let Some((pool, token)) = found else {
            let first = verdicts.first().map_or(0..1, |(offsets, _)| offsets.clone());
            return Err(NotHeld(first).into());
        };
        self.pools.settle_records(&pool, partition, token, verdicts).await
    }

    /// How long what is acquired stays with its member.
    ///
    /// # Errors
    /// [`ShareError`].
    pub async fn lock_duration(&self, group: &str) -> Result<std::time::Duration, ShareError> {
        Ok(self.pools.config(group).await?.lock_duration)
    }

    /// Ends the membership of whoever is not heard of, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let changed = self.state().timers.changed();
        while is_due(|| self.state().timers.first(), &changed, &shutdown).await {
            self.fire();
        }
    }

    fn fire(&self) {
        let now = now();
        loop {
            let gone = {
                let mut state = self.state();
                let Some((group, member_id)) = state.timers.pop(now) else { return };
                let members = state.groups.get_mut(&group);
                let member = members.and_then(|members| members.get_mut(&member_id));
                let Some(member) = member else { continue };
                member.armed = None;
                if member.due() > now {
                    state.arm(&group, &member_id);
                    continue;
                }
                tracing::info!(
                    group,
                    member = member_id,
                    "nothing is heard of it: it is no member any more"
                );
                state.remove(&group, &member_id)
            };
            if let Some(member) = gone {
                self.close(member);
            }
        }
    }
}

impl State {
    /// A member, or one that has left and has a share session still.
    fn member(&mut self, group: &str, member_id: &str) -> Option<&mut Member> {
        let member = self.groups.get_mut(group).and_then(|members| members.get_mut(member_id));
        member.or_else(|| self.left.get_mut(&(group.to_owned(), member_id.to_owned())))
    }

    /// A member's timer: when its session ends.
    fn arm(&mut self, group: &str, member_id: &str) {
        let members = self.groups.get_mut(group);
        let Some(member) = members.and_then(|members| members.get_mut(member_id)) else { return };
        let who = (group.to_owned(), member_id.to_owned());
        let due = member.due();
        self.timers.arm(who, &mut member.armed, due);
    }

    /// What a member takes of memory may have changed.
    fn recount(&mut self, group: &str, member_id: &str) {
        let Some(member) = self.member(group, member_id) else { return };
        let bytes = member.bytes();
        let before = std::mem::replace(&mut member.charged_bytes, bytes);
        self.bytes = (self.bytes + bytes).saturating_sub(before);
    }

    fn unbind(&mut self, connection: ConnectionId, who: &(String, String)) {
        if let Some(sessions) = self.sessions.get_mut(&connection) {
            sessions.remove(who);
            if sessions.is_empty() {
                self.sessions.remove(&connection);
            }
        }
    }

    fn forget_if_empty(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(Members::is_empty) {
            self.groups.remove(group);
        }
    }

    fn remove(&mut self, group: &str, member_id: &str) -> Option<Member> {
        let member = self.groups.get_mut(group)?.remove(member_id)?;
        self.bytes = self.bytes.saturating_sub(member.charged_bytes);
        let who = (group.to_owned(), member_id.to_owned());
        if let Some(connection) = member.connection() {
            self.unbind(connection, &who);
        }
        self.timers.remove(who, member.armed);
        self.forget_if_empty(group);
        Some(member)
    }
}

#[cfg(test)]
mod tests;
