//! Who is in a shared group. Members do not know of each other: each joins alone, leads itself, and assigns itself.
//!
//! That a member is its own leader means that the client's own assignor gives it every partition of whatever it subscribed to, patterns
//! included, and that the client itself notices when a topic gets more partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;

use super::cursor::Token;

use crate::group::machine::{
    Caller, GroupError, Join, Joined, Snapshot, StoredMember, Sync, Synced, Timing,
};

/// One Kafka connection of this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Bytes that a partition takes in a member's sets, and its cursor, about.
const PARTITION_BYTES: usize = 256;

/// A partition that a member has a cursor on.
pub type Assigned = (TopicId, PartitionIndex);

/// Whether a member's cursors are on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTheWay {
    /// It has no assignment, or its cursors have come.
    #[default]
    Nothing,
    /// It has an assignment and no cursor yet: an OffsetFetch on another connection may be its.
    Awaited,
    /// It was told, and has not fetched at them yet: if its connection has ended before, it asks again on another one.
    Told,
}

/// One member.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its cursors' token.
    pub token: Token,
    /// The partitions that it has a cursor on.
    pub partitions: BTreeSet<Assigned>,
    /// Whether its cursors are on the way to it.
    pub on_the_way: OnTheWay,
    /// What it held has gone back to the group, since it had no connection for long.
    pub is_suspended: bool,
    /// When its entry in the timers fires.
    pub armed: Option<Instant>,
    /// What was counted of [`Member::bytes`].
    pub charged_bytes: usize,
    /// What it wants, if it speaks the consumer group protocol (KIP-848) and is assigned its partitions.
    pub subscription: Option<Subscription>,
    generation: i32,
    last_heard: Instant,
    connections: BTreeSet<ConnectionId>,
    unbound_since: Option<Instant>,
    stored: StoredMember,
    protocol: String,
}

/// What a member of the consumer group protocol (KIP-848) wants, and has been assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Topics.
    pub names: BTreeSet<String>,
    /// And those whose names match all of this.
    pub pattern: Option<String>,
    /// Topics with their partitions, all of which it is assigned.
    pub assigned: BTreeMap<TopicId, i32>,
}

impl Member {
    /// Its epoch, in the consumer group protocol.
    #[must_use]
    pub fn epoch(&self) -> i32 {
        self.generation
    }

    /// It is assigned other partitions than before: returns those that it loses.
    pub fn assign(&mut self, assigned: BTreeMap<TopicId, i32>) -> BTreeSet<Assigned> {
        let Some(subscription) = &mut self.subscription else { return BTreeSet::new() };
        if subscription.assigned == assigned {
            return BTreeSet::new();
        }
        subscription.assigned = assigned;
        self.on_the_way = OnTheWay::Awaited;
        self.generation = self.generation.wrapping_add(1).max(1);
        let has = |(topic, index): &Assigned| {
            subscription.assigned.get(topic).is_some_and(|partitions| index.0 < *partitions)
        };
        let (kept, lost) = self.partitions.iter().copied().partition(has);
        self.partitions = kept;
        lost
    }

    /// When something has to be done about it, if nothing is heard of it.
    #[must_use]
    pub fn due(&self) -> Instant {
        let session = self.last_heard + self.stored.session_timeout;
        match self.unbound_since {
            Some(since) if !self.is_suspended => session.min(since + limits::shared::UNBOUND),
            _ => session,
        }
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let subscription = self.subscription.as_ref().map_or(0, |subscription| {
            let names: usize = subscription.names.iter().map(|name| name.len() + 64).sum();
            let pattern = subscription.pattern.as_ref().map_or(0, String::len);
            names + pattern + subscription.assigned.len() * PARTITION_BYTES
        });
        let stored = &self.stored;
        // Its own map, that of its connections and that of the timers name it.
        let ids =
            4 * stored.member_id.len() + 3 * stored.instance_id.as_ref().map_or(0, String::len);
        let client = stored.client_id.len() + stored.client_host.len() + self.protocol.len();
        let partitions = self.partitions.len() * PARTITION_BYTES;
        stored.metadata.len()
            + stored.assignment.len()
            + subscription
            + ids
            + client
            + partitions
            + 512
    }

    /// The connections that speak for it.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.iter().copied()
    }

    /// What DescribeGroups shows.
    #[must_use]
    pub fn stored(&self) -> &StoredMember {
        &self.stored
    }

    fn is_from(&self, client_id: &str, client_host: &str) -> bool {
        self.stored.client_id == client_id && self.stored.client_host == client_host
    }
}

/// What has to be done about a member.
#[derive(Debug, Clone)]
pub enum Due {
    /// Its session is over: it is no member any more.
    Expired(Member),
    /// It has had no connection for long: what it holds goes back.
    Unbound(Member),
    /// Nothing yet.
    NotYet,
}

/// The members of one group.
#[derive(Debug, Default)]
pub struct Members {
    members: BTreeMap<String, Member>,
    /// `group.instance.id` to member id.
    instances: BTreeMap<String, String>,
    protocol_type: Option<String>,
}

impl Members {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
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

    /// Members that call themselves so and are there, by id.
    pub fn called(
        &mut self,
        client_id: &str,
        client_host: &str,
    ) -> impl Iterator<Item = (&String, &mut Member)> {
        self.members.iter_mut().filter(move |(_, member)| member.is_from(client_id, client_host))
    }

    /// Joins at once. `token` is for a new member, who has no id yet. Returns the answer and the member that a new one with the same instance id replaces.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn join(
        &mut self,
        now: Instant,
        timing: &Timing,
        join: &Join,
        token: Option<Token>,
    ) -> Result<(Joined, Option<Member>), GroupError> {
        if !(timing.session_min..=timing.session_max).contains(&join.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let Some((protocol, metadata)) = join.protocols.first() else {
            return Err(GroupError::InconsistentProtocol);
        };
        if join.protocol_type.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        let current = join.instance_id.as_ref().and_then(|instance| self.instances.get(instance));
        let mut replaced = None;
        let (member_id, generation, token) = if join.member_id.is_empty() {
            if self.members.len() >= limits::GROUP_MEMBERS && current.is_none() {
                return Err(GroupError::MaxSizeReached);
            }
            let token = token.ok_or(GroupError::UnknownMember)?;
            if let Some(former) = current.cloned() {
                replaced = self.members.remove(&former);
            }
            (join.fresh_member_id.clone(), 1, token)
        } else {
            if current.is_some_and(|current| *current != join.member_id) {
                return Err(GroupError::FencedInstance);
            }
            let member = self.members.get(&join.member_id).ok_or(GroupError::UnknownMember)?;
            (join.member_id.clone(), member.generation.wrapping_add(1).max(1), member.token)
        };
        let former = self.members.remove(&member_id);
        let stored = StoredMember {
            member_id: member_id.clone(),
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            metadata: metadata.clone(),
            assignment: Bytes::new(),
        };
        let member = Member {
            token,
            partitions: former.as_ref().map(|m| m.partitions.clone()).unwrap_or_default(),
            on_the_way: OnTheWay::Nothing,
            is_suspended: former.as_ref().is_some_and(|m| m.is_suspended),
            armed: former.as_ref().and_then(|m| m.armed),
            charged_bytes: former.as_ref().map_or(0, |m| m.charged_bytes),
            subscription: None,
            generation,
            last_heard: now,
            connections: former.as_ref().map(|m| m.connections.clone()).unwrap_or_default(),
            unbound_since: former.as_ref().map_or(Some(now), |m| m.unbound_since),
            stored,
            protocol: protocol.clone(),
        };
        let former_instance = former.and_then(|former| former.stored.instance_id);
        self.note_instance(former_instance, join.instance_id.clone(), &member_id);
        self.members.insert(member_id.clone(), member);
        self.protocol_type = Some(join.protocol_type.clone());
        let joined = Joined {
            generation,
            protocol_type: join.protocol_type.clone(),
            protocol: protocol.clone(),
            leader: member_id.clone(),
            members: vec![(member_id.clone(), join.instance_id.clone(), metadata.clone())],
            member_id,
            skip_assignment: false,
        };
        Ok((joined, replaced))
    }

    fn note_instance(&mut self, former: Option<String>, instance: Option<String>, member_id: &str) {
        if let Some(former) = former {
            self.instances.remove(&former);
        }
        if let Some(instance) = instance {
            self.instances.insert(instance, member_id.to_owned());
        }
    }

    /// Answers a member with what it assigned itself.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn sync(&mut self, now: Instant, sync: Sync) -> Result<Synced, GroupError> {
        let protocol_type = self.protocol_type.clone().unwrap_or_default();
        let member = self.check(now, &sync.who)?;
        let differs =
            |said: &Option<String>, ours: &str| said.as_ref().is_some_and(|said| said != ours);
        if differs(&sync.protocol_type, &protocol_type) || differs(&sync.protocol, &member.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        let own = sync.assignments.into_iter().find(|(id, _)| *id == sync.who.member_id);
        if let Some((_, assignment)) = own {
            // A slice would keep the request's frame in memory.
            member.stored.assignment = Bytes::copy_from_slice(&assignment);
        }
        member.on_the_way = OnTheWay::Awaited;
        let protocol = member.protocol.clone();
        Ok(Synced { protocol_type, protocol, assignment: member.stored.assignment.clone() })
    }

    /// A sign of life from a member.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn check(&mut self, now: Instant, caller: &Caller) -> Result<&mut Member, GroupError> {
        if let Some(instance) = &caller.instance_id {
            let current = self.instances.get(instance).ok_or(GroupError::UnknownMember)?;
            if *current != caller.member_id {
                return Err(GroupError::FencedInstance);
            }
        }
        let member = self.members.get_mut(&caller.member_id).ok_or(GroupError::UnknownMember)?;
        // Whoever is told of a new assignment may not have had that answer.
        let previous = member.subscription.as_ref().map(|_| member.generation - 1);
        if ![Some(member.generation), previous].contains(&Some(caller.generation)) {
            return Err(GroupError::IllegalGeneration);
        }
        member.last_heard = now;
        Ok(member)
    }

    /// A member goes, by its id or its instance id.
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`] or [`GroupError::FencedInstance`].
    pub fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<Member, GroupError> {
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
        self.remove(&id).ok_or(GroupError::UnknownMember)
    }

    /// A member is no more.
    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        if let Some(instance) = &member.stored.instance_id {
            self.instances.remove(instance);
        }
        Some(member)
    }

    /// A connection begins to speak for a member. Says whether what it held had gone back: it may be given something again.
    pub fn bind(&mut self, connection: ConnectionId, member_id: &str) -> bool {
        let Some(member) = self.members.get_mut(member_id) else { return false };
        member.connections.insert(connection);
        member.unbound_since = None;
        std::mem::take(&mut member.is_suspended)
    }

    /// A connection that spoke for a member is gone, or speaks for another.
    pub fn unbind(&mut self, now: Instant, connection: ConnectionId, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.connections.remove(&connection);
            if member.connections.is_empty() {
                member.unbound_since = Some(now);
            }
        }
    }

    /// Looks at a member whose timer fired.
    pub fn look(&mut self, now: Instant, member_id: &str) -> Due {
        let Some(member) = self.members.get_mut(member_id) else { return Due::NotYet };
        if now < member.due() {
            return Due::NotYet;
        }
        if now >= member.last_heard + member.stored.session_timeout {
            return self.remove(member_id).map_or(Due::NotYet, Due::Expired);
        }
        member.is_suspended = true;
        Due::Unbound(member.clone())
    }

    /// What DescribeGroups shows.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let first = self.members.values().next();
        Snapshot {
            protocol_type: self.protocol_type.clone(),
            generation: first.map_or(0, |member| member.generation),
            protocol: first.map(|member| member.protocol.clone()),
            leader: None,
            members: self.members.values().map(|member| member.stored.clone()).collect(),
        }
    }
}
