//! Members: who they are, when they were last heard of, what they wait for.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Event, Group, GroupError, Join, JoinRefused, State, StoredMember, Ticket};

/// One member.
#[derive(Debug)]
pub struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    pub(super) last_heard: Instant,
    /// A JoinGroup that waits.
    pub(super) joining: Option<Ticket>,
    /// A SyncGroup that waits.
    pub(super) syncing: Option<Ticket>,
    /// It has synced in this generation.
    pub(super) synced: bool,
    /// Its JoinGroup understands `skip_assignment`.
    pub(super) knows_skip_assignment: bool,
}

/// An id that was given out and has not come back.
#[derive(Debug)]
pub(super) struct PendingMember {
    pub(super) expires: Instant,
}

impl Member {
    pub(super) fn new(id: String, join: &Join, now: Instant, ticket: Ticket) -> Self {
        Self {
            id,
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            last_heard: now,
            joining: Some(ticket),
            syncing: None,
            synced: false,
            knows_skip_assignment: join.knows_skip_assignment,
        }
    }

    pub(super) fn restored(stored: StoredMember, protocol: String, now: Instant) -> Self {
        Self {
            id: stored.member_id,
            instance_id: stored.instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout: stored.session_timeout,
            rebalance_timeout: stored.rebalance_timeout,
            protocols: vec![(protocol, stored.metadata)],
            assignment: stored.assignment,
            last_heard: now,
            joining: None,
            syncing: None,
            synced: true,
            knows_skip_assignment: false,
        }
    }

    pub(super) fn stored(&self, protocol: &str) -> StoredMember {
        StoredMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_timeout: self.session_timeout,
            rebalance_timeout: self.rebalance_timeout,
            metadata: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }

    /// When its session ends; a member that waits for an answer cannot heartbeat, so its session does not end.
    pub(super) fn expires(&self) -> Option<Instant> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        if waits { None } else { self.last_heard.checked_add(self.session_timeout) }
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub(super) fn bytes(&self) -> usize {
        let protocols: usize =
            self.protocols.iter().map(|(name, data)| name.len() + data.len()).sum();
        let names = self.id.len() + self.client_id.len() + self.client_host.len();
        protocols + names + self.instance_id.as_ref().map_or(0, String::len) + self.assignment.len()
    }
}

impl Group {
    /// Adds a member and starts, or joins, a rebalance.
    pub(super) fn add(&mut self, now: Instant, id: String, join: &Join, ticket: Ticket) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        let member = Member::new(id.clone(), join, now, ticket);
        self.members.insert(id, member);
        self.prepare_rebalance(now);
    }

    /// Takes a known member's new JoinGroup in and starts, or joins, a rebalance.
    pub(super) fn rejoin(&mut self, now: Instant, id: &str, join: &Join, ticket: Ticket) {
        if let Some(member) = self.members.get_mut(id) {
            member.protocols.clone_from(&join.protocols);
            member.session_timeout = join.session_timeout;
            member.rebalance_timeout = join.rebalance_timeout;
            member.client_id.clone_from(&join.client_id);
            member.client_host.clone_from(&join.client_host);
            member.knows_skip_assignment = join.knows_skip_assignment;
            member.last_heard = now;
            // A client that sends JoinGroup again no longer waits for its first one.
            if let Some(former) = member.joining.replace(ticket) {
                let refused = JoinRefused {
                    error: GroupError::RebalanceInProgress,
                    member_id: id.to_owned(),
                };
                self.events.push(Event::Joined(former, Err(refused)));
            }
        }
        self.prepare_rebalance(now);
    }

    /// Removes a member. What it waited for is answered; the others rebalance.
    pub(super) fn remove(&mut self, now: Instant, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        self.dismiss(&member, GroupError::UnknownMember);
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        match self.state {
            State::Stable | State::CompletingRebalance { .. } => self.prepare_rebalance(now),
            State::PreparingRebalance { .. } => self.complete_join_if_all_are_in(now),
            State::Empty => {}
        }
    }

    /// Answers what a member waits for.
    pub(super) fn dismiss(&mut self, member: &Member, error: GroupError) {
        if let Some(ticket) = member.joining {
            let refused = JoinRefused { error, member_id: member.id.clone() };
            self.events.push(Event::Joined(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing {
            self.events.push(Event::Synced(ticket, Err(error)));
        }
    }

    pub(super) fn touch(&mut self, id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(id) {
            member.last_heard = now;
        }
    }

    /// What the members take of memory, about, and the ids that were given out and have not come back.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pending: usize = self.pending.keys().map(String::len).sum();
        pending + self.members.values().map(Member::bytes).sum::<usize>()
    }
}
