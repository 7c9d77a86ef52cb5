//! Who is in a share group, and their share sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use robustmq_common::ids::TopicId;
use robustmq_common::limits;

use crate::group::shared::cursor::Token;
use crate::group::shared::members::{Assigned, ConnectionId};
use crate::group::shared::pools::SharedPool;

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beat {
    /// Its id, which it made itself.
    pub member_id: String,
    /// 0 to join.
    pub epoch: i32,
    /// The topics that it wants, if that has changed.
    pub subscribed: Option<BTreeSet<String>>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// `client.rack`.
    pub rack_id: Option<String>,
}

/// Topics, and how many partitions of each: all of them.
pub type Assignment = BTreeMap<TopicId, i32>;

/// Why a member is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// There is no such member.
    #[error("the group has no such member")]
    Unknown,
    /// Its epoch is neither its current nor its last one.
    #[error("the member has another epoch: it has to join again")]
    Fenced,
    /// Whoever joins says which topics it wants.
    #[error("a member that joins subscribes to topics")]
    NothingSubscribed,
    /// See [`limits::shared::SUBSCRIBED_TOPICS`].
    #[error("a member may subscribe to at most {} topics", limits::shared::SUBSCRIBED_TOPICS)]
    TooManyTopics,
    /// See [`limits::GROUP_MEMBERS`].
    #[error("the group has as many members as it may")]
    TooMany,
    /// An id that is empty or too long.
    #[error("the member's id is empty or too long")]
    InvalidId,
}

/// Why there is no share session for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is no such member.
    #[error("the group has no such member")]
    UnknownMember,
    /// It has no session, or not on this connection.
    #[error("the member has no share session on this connection")]
    NotFound,
    /// A request is missing, or came twice.
    #[error("the share session expects another epoch")]
    InvalidEpoch,
    /// See [`limits::shared::SESSION_PARTITIONS`].
    #[error("a share session has at most {} partitions", limits::shared::SESSION_PARTITIONS)]
    TooManyPartitions,
    /// A session that begins has nothing to acknowledge.
    #[error("a request that begins a share session acknowledges nothing")]
    AcknowledgesTooEarly,
}

/// A share session: what a member fetches on a connection.
#[derive(Debug)]
struct Session {
    next_epoch: i32,
    connection: ConnectionId,
    partitions: BTreeSet<Assigned>,
}

/// Bytes that a partition takes in a member's maps, and what it holds of it, about.
const PARTITION_BYTES: usize = 256;

/// One member.
pub struct Member {
    /// Its id.
    pub member_id: String,
    /// Whose records are whose.
    pub token: Token,
    /// Of the group when something last changed for it.
    pub epoch: i32,
    /// The topics that it wants.
    pub subscribed: BTreeSet<String>,
    /// What it has been assigned.
    pub assigned: Assignment,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// The pools that it takes part in.
    pub pools: BTreeMap<Assigned, Arc<SharedPool>>,
    /// Its entry among the timers.
    pub armed: Option<Instant>,
    /// What was counted of [`Member::bytes`].
    pub charged_bytes: usize,
    session_timeout: Duration,
    previous_epoch: i32,
    last_heard: Instant,
    session: Option<Session>,
}

impl Member {
    /// When it is given up if nothing is heard of it.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.last_heard + self.session_timeout
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let topics: usize = self.subscribed.iter().map(|name| name.len() + 64).sum();
        let rack = self.rack_id.as_ref().map_or(0, String::len);
        let client = self.client_id.len() + self.client_host.len() + rack;
        let partitions = (self.assigned.len() + self.pools.len()) * PARTITION_BYTES;
        // Its own map, that of its session and that of the timers name it.
        topics + client + partitions + 4 * self.member_id.len() + 512
    }

    /// The connection of its share session.
    #[must_use]
    pub fn connection(&self) -> Option<ConnectionId> {
        self.session.as_ref().map(|session| session.connection)
    }

    /// Begins, goes on with, or replaces its share session: returns the partitions that it holds now. `epoch` is 0 to begin one.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn advance_session(
        &mut self,
        epoch: i32,
        connection: ConnectionId,
        added: impl IntoIterator<Item = Assigned>,
        forgotten: &BTreeSet<Assigned>,
    ) -> Result<BTreeSet<Assigned>, SessionError> {
        let mut wanted = BTreeSet::new();
        for partition in added {
            wanted.insert(partition);
            if wanted.len() > limits::shared::SESSION_PARTITIONS {
                return Err(SessionError::TooManyPartitions);
            }
        }
        if epoch == 0 {
            let partitions = wanted;
            self.session =
                Some(Session { next_epoch: 1, connection, partitions: partitions.clone() });
            return Ok(partitions);
        }
        let session = self.session.as_mut().filter(|session| session.connection == connection);
        let session = session.ok_or(SessionError::NotFound)?;
        if session.next_epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        let more = wanted.difference(&session.partitions).count();
        if session.partitions.len() + more > limits::shared::SESSION_PARTITIONS {
            return Err(SessionError::TooManyPartitions);
        }
        session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
        session.partitions.extend(wanted);
        session.partitions.retain(|partition| !forgotten.contains(partition));
        Ok(session.partitions.clone())
    }

    /// Whether it has a share session on a connection.
    #[must_use]
    pub fn has_session(&self, connection: ConnectionId) -> bool {
        self.connection() == Some(connection)
    }

    /// Ends its share session: returns the pools that it no longer takes part in.
    pub fn end_session(&mut self) -> Vec<Arc<SharedPool>> {
        self.session = None;
        std::mem::take(&mut self.pools).into_values().collect()
    }
}

/// The members of one group.
#[derive(Default)]
pub struct Members {
    members: BTreeMap<String, Member>,
    epoch: i32,
}

impl Members {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The group's epoch: it grows with each change.
    #[must_use]
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    /// One of them.
    pub fn get_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter()
    }

    /// A sign of life. `token` is for a new member. Returns the topics that the member wants, whose partitions are to be assigned.
    ///
    /// # Errors
    /// [`MemberError`].
    pub fn hear(
        &mut self,
        now: Instant,
        session_timeout: Duration,
        beat: Beat,
        token: Option<Token>,
    ) -> Result<BTreeSet<String>, MemberError> {
        let wanted = beat.subscribed.as_ref().map_or(0, BTreeSet::len);
        if wanted > limits::shared::SUBSCRIBED_TOPICS {
            return Err(MemberError::TooManyTopics);
        }
        if beat.member_id.is_empty() || beat.member_id.len() > limits::GROUP_ID_BYTES {
            return Err(MemberError::InvalidId);
        }
        let members = self.members.len();
        let is_new = !self.members.contains_key(&beat.member_id);
        if is_new {
            let token = token.filter(|_| beat.epoch == 0).ok_or(MemberError::Unknown)?;
            if members >= limits::GROUP_MEMBERS {
                return Err(MemberError::TooMany);
            }
            if beat.subscribed.is_none() {
                return Err(MemberError::NothingSubscribed);
            }
            let member = Member {
                member_id: beat.member_id.clone(),
                token,
                epoch: 0,
                subscribed: BTreeSet::new(),
                assigned: Assignment::new(),
                client_id: beat.client_id,
                client_host: beat.client_host,
                rack_id: beat.rack_id,
                pools: BTreeMap::new(),
                armed: None,
                charged_bytes: 0,
                session_timeout,
                previous_epoch: 0,
                last_heard: now,
                session: None,
            };
            self.members.insert(beat.member_id.clone(), member);
        }
        let member = self.members.get_mut(&beat.member_id).ok_or(MemberError::Unknown)?;
        // It may not have had the answer that told it of its current epoch.
        if ![0, member.epoch, member.previous_epoch].contains(&beat.epoch) {
            return Err(MemberError::Fenced);
        }
        member.last_heard = now;
        member.session_timeout = session_timeout;
        if let Some(subscribed) = beat.subscribed {
            member.subscribed = subscribed;
        }
        Ok(member.subscribed.clone())
    }

    /// Assigns a member what there is of the topics that it wants. Returns its epoch, and whether it is told: something has changed, or it
    /// does not know its epoch.
    ///
    /// # Errors
    /// [`MemberError::Unknown`]: it is gone meanwhile.
    pub fn assign(
        &mut self,
        member_id: &str,
        said_epoch: i32,
        assignment: Assignment,
    ) -> Result<(i32, bool), MemberError> {
        let member = self.members.get_mut(member_id).ok_or(MemberError::Unknown)?;
        if member.epoch == 0 || member.assigned != assignment {
            self.epoch = self.epoch.saturating_add(1);
            member.previous_epoch = member.epoch;
            member.epoch = self.epoch;
            member.assigned = assignment;
        }
        Ok((member.epoch, member.epoch != said_epoch))
    }

    /// A member is no more.
    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        let removed = self.members.remove(member_id);
        if removed.is_some() {
            self.epoch = self.epoch.saturating_add(1);
        }
        removed
    }
}

#[cfg(test)]
mod tests;
