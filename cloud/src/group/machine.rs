//! One classic consumer group (the protocol of KIP-62, with KIP-345 static members and KIP-394 member ids).
//!
//! States as Apache Kafka names them. `Empty -> PreparingRebalance -> CompletingRebalance -> Stable`; a change in
//! membership leads back to `PreparingRebalance`, the last member's leaving to `Empty`.
//!
//! Answers that have to wait (JoinGroup until all members are in, SyncGroup until the leader has spoken) are known
//! by the [`Ticket`] that the request came with; they come out of [`Group::take_events`].
//!
//! **Invariant:** one generation has one leader, and it is one of its members.
//! **Invariant:** each ticket is answered exactly once.
//! **Invariant:** in `Stable` each member has an assignment, perhaps an empty one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use robustmq_common::limits;

mod join;
mod members;
mod sync;

pub use self::members::Member;
use self::members::PendingMember;

/// Names a request whose answer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why a group refuses a request. Each is one of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The member is not in the group (any more).
    #[error("the group has no such member")]
    UnknownMember,
    /// The generation is over.
    #[error("the generation is not the current one")]
    IllegalGeneration,
    /// A rebalance is going on: join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Another instance with the same `group.instance.id` took over.
    #[error("another instance with this group.instance.id has joined")]
    FencedInstance,
    /// No protocol in common, or another protocol type.
    #[error("no assignment protocol in common with the group")]
    InconsistentProtocol,
    /// The session timeout is outside the broker's range.
    #[error("the session timeout is outside the allowed range")]
    InvalidSessionTimeout,
    /// The group is full.
    #[error("the group has as many members, or as many bytes of them, as it may")]
    MaxSizeReached,
    /// A fresh member id was given; join again with it (KIP-394).
    #[error("join again with the member id given")]
    MemberIdRequired,
    /// The group has members.
    #[error("the group has members")]
    NonEmpty,
    /// What the group decided could not be stored.
    #[error("the group could not be stored")]
    NotStored,
}

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty on the first attempt.
    pub member_id: String,
    /// `group.instance.id`: makes the member static (KIP-345).
    pub instance_id: Option<String>,
    /// For people who look at the group.
    pub client_id: String,
    /// The peer's address, for people who look at the group.
    pub client_host: String,
    /// `consumer`, `connect`, ...
    pub protocol_type: String,
    /// Assignment protocols by preference, with the member's metadata for each.
    pub protocols: Vec<(String, Bytes)>,
    /// Without a heartbeat for this long the member is out.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// A fresh id, used when the member needs one: ids are not invented here.
    pub fresh_member_id: String,
    /// The client understands MEMBER_ID_REQUIRED (JoinGroup 4 and later).
    pub knows_member_id_required: bool,
    /// The client understands `skip_assignment` (JoinGroup 9 and later).
    pub knows_skip_assignment: bool,
}

/// The answer to a JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation joined.
    pub generation: i32,
    /// The protocol type of the group.
    pub protocol_type: String,
    /// The protocol chosen.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// The member id of whoever asked.
    pub member_id: String,
    /// Everybody with instance id and metadata, for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
    /// The leader must not assign anew (KIP-814).
    pub skip_assignment: bool,
}

/// A refused JoinGroup; the member id goes back to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id to come back with, or the one that came.
    pub member_id: String,
}

/// A SyncGroup request.
#[derive(Debug, Clone)]
pub struct Sync {
    /// Who.
    pub who: Caller,
    /// Must be the group's, where given (SyncGroup 5 and later).
    pub protocol_type: Option<String>,
    /// Must be the chosen one, where given.
    pub protocol: Option<String>,
    /// From the leader: who gets what.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The protocol type of the group.
    pub protocol_type: String,
    /// The protocol chosen.
    pub protocol: String,
    /// What this member got from the leader.
    pub assignment: Bytes,
}

/// How a member names itself in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`, if it has one.
    pub instance_id: Option<String>,
    /// The generation that it believes in.
    pub generation: i32,
}

/// What a group wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Answer a JoinGroup.
    Joined(Ticket, Result<Joined, JoinRefused>),
    /// Answer a SyncGroup.
    Synced(Ticket, Result<Synced, GroupError>),
    /// Store [`Group::snapshot`]; report with [`Group::stored`] when it is durable or has failed.
    Store {
        /// The generation being stored, to report with.
        generation: i32,
    },
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waits for members to join.
    PreparingRebalance {
        /// When it goes on with who is there.
        deadline: Instant,
        /// The first generation of an empty group waits for company: the latest deadline it may be moved to.
        extend_until: Option<Instant>,
    },
    /// Waits for the leader's assignment.
    CompletingRebalance {
        /// Who has not synced by then is out.
        deadline: Instant,
        /// The assignment is there, and being stored.
        storing: bool,
    },
    /// Everybody has an assignment.
    Stable,
}

impl State {
    /// The state's name in DescribeGroups and ListGroups.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// Times that a deployment chooses.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The first generation waits this long for company.
    pub initial_delay: Duration,
    /// The shortest session timeout accepted.
    pub session_min: Duration,
    /// The longest session timeout accepted.
    pub session_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            initial_delay: limits::GROUP_INITIAL_DELAY,
            session_min: limits::GROUP_SESSION_MIN,
            session_max: limits::GROUP_SESSION_MAX,
        }
    }
}

/// What is durable of a group, and what DescribeGroups shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The protocol type, once somebody has joined.
    pub protocol_type: Option<String>,
    /// The generation.
    pub generation: i32,
    /// The protocol chosen; none without members.
    pub protocol: Option<String>,
    /// The leader; none without members.
    pub leader: Option<String>,
    /// The members by id.
    pub members: Vec<StoredMember>,
}

/// What is durable of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance_id: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it came from.
    pub client_host: String,
    /// Its session timeout.
    pub session_timeout: Duration,
    /// Its rebalance timeout.
    pub rebalance_timeout: Duration,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// One group.
#[derive(Debug)]
pub struct Group {
    timing: Timing,
    state: State,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// `group.instance.id` to member id.
    instances: BTreeMap<String, String>,
    /// Ids given out with MEMBER_ID_REQUIRED that have not come back yet.
    pending: BTreeMap<String, PendingMember>,
    events: Vec<Event>,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// A group as it was stored. Its members have a session timeout from now to show that they are still there.
    #[must_use]
    pub fn restore(timing: Timing, snapshot: Snapshot, now: Instant) -> Self {
        let mut group = Self::new(timing);
        group.generation = snapshot.generation;
        group.protocol_type = snapshot.protocol_type;
        group.protocol = snapshot.protocol;
        group.leader = snapshot.leader;
        for member in snapshot.members {
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.member_id.clone());
            }
            let protocol = group.protocol.clone().unwrap_or_default();
            let restored = Member::restored(member, protocol, now);
            group.members.insert(restored.id.clone(), restored);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group
    }

    /// What to store, and to show.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        Snapshot {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.values().map(|member| member.stored(protocol)).collect(),
        }
    }

    /// Where the group is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What has to be done since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether nothing would be lost if the group were forgotten and loaded again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && self.events.is_empty()
    }

    /// A sign of life.
    ///
    /// # Errors
    /// [`GroupError`]: what the member has to do next.
    pub fn heartbeat(&mut self, now: Instant, caller: &Caller) -> Result<(), GroupError> {
        self.check_caller(caller)?;
        self.touch(&caller.member_id, now);
        match self.state {
            State::PreparingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance { .. } | State::Stable => Ok(()),
            State::Empty => Err(GroupError::UnknownMember),
        }
    }

    /// Whether somebody may commit offsets. A negative generation is an admin's or a consumer's without a group.
    ///
    /// # Errors
    /// [`GroupError`] as OffsetCommit answers it.
    pub fn may_commit(&mut self, now: Instant, caller: &Caller) -> Result<(), GroupError> {
        if caller.generation < 0 && caller.member_id.is_empty() {
            return if self.members.is_empty() { Ok(()) } else { Err(GroupError::UnknownMember) };
        }
        self.check_caller(caller)?;
        self.touch(&caller.member_id, now);
        match self.state {
            State::CompletingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            State::PreparingRebalance { .. } | State::Stable => Ok(()),
            State::Empty => Err(GroupError::UnknownMember),
        }
    }

    /// Whether the group may be deleted.
    ///
    /// # Errors
    /// [`GroupError::NonEmpty`] while it has members or expects some.
    pub fn may_delete(&self) -> Result<(), GroupError> {
        let empty = self.members.is_empty() && self.pending.is_empty();
        if empty { Ok(()) } else { Err(GroupError::NonEmpty) }
    }

    /// A member goes. By its instance id an admin may remove a static member without knowing its id (KIP-345).
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`] or [`GroupError::FencedInstance`].
    pub fn leave(
        &mut self,
        now: Instant,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        let id = match instance_id {
            Some(instance) => {
                let current = self.instances.get(instance).ok_or(GroupError::UnknownMember)?;
                if !member_id.is_empty() && member_id != current {
                    return Err(GroupError::FencedInstance);
                }
                current.clone()
            }
            None => member_id.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.complete_join_if_all_are_in(now);
            return Ok(());
        }
        if !self.members.contains_key(&id) {
            return Err(GroupError::UnknownMember);
        }
        self.remove(now, &id);
        Ok(())
    }

    /// When [`Group::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let state = match self.state {
            State::PreparingRebalance { deadline, .. } => Some(deadline),
            State::CompletingRebalance { deadline, storing: false } => Some(deadline),
            State::CompletingRebalance { storing: true, .. } | State::Empty | State::Stable => None,
        };
        let sessions = self.members.values().filter_map(Member::expires);
        let pending = self.pending.values().map(|pending| pending.expires);
        sessions.chain(pending).chain(state).min()
    }

    /// Does what is due: sessions that ended, rebalances that have waited long enough.
    pub fn tick(&mut self, now: Instant) {
        let waiting = self.pending.len();
        self.pending.retain(|_, pending| pending.expires > now);
        let gave_up = self.pending.len() < waiting;
        let expired = |member: &&Member| member.expires().is_some_and(|at| at <= now);
        let gone: Vec<String> =
            self.members.values().filter(expired).map(|member| member.id.clone()).collect();
        for id in gone {
            self.remove(now, &id);
        }
        match self.state {
            State::PreparingRebalance { deadline, .. } if deadline <= now => self.join_over(now),
            State::PreparingRebalance { .. } if gave_up => self.complete_join_if_all_are_in(now),
            State::CompletingRebalance { deadline, storing: false } if deadline <= now => {
                self.sync_over(now);
            }
            _ => {}
        }
    }

    fn check_caller(&self, caller: &Caller) -> Result<(), GroupError> {
        if let Some(instance) = &caller.instance_id {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if *current != caller.member_id => {
                    return Err(GroupError::FencedInstance);
                }
                Some(_) => {}
            }
        }
        if !self.members.contains_key(&caller.member_id) {
            return Err(GroupError::UnknownMember);
        }
        if caller.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
