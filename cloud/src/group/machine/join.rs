//! JoinGroup, and the half of a rebalance that gathers members.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use robustmq_common::limits;

use super::members::PendingMember;
use super::{Event, Group, GroupError, Join, JoinRefused, Joined, State, Ticket};

impl Group {
    /// A JoinGroup. Its answer comes as [`Event::Joined`] with the same ticket, now or later.
    pub fn join(&mut self, now: Instant, ticket: Ticket, join: &Join) {
        if let Err(refused) = self.try_join(now, ticket, join) {
            self.events.push(Event::Joined(ticket, Err(refused)));
        }
    }

    fn try_join(&mut self, now: Instant, ticket: Ticket, join: &Join) -> Result<(), JoinRefused> {
        let refuse = |error| JoinRefused { error, member_id: join.member_id.clone() };
        self.check_join(join).map_err(refuse)?;
        if let Some(instance) = &join.instance_id
            && let Some(current) = self.instances.get(instance).cloned()
        {
            if join.member_id.is_empty() {
                self.replace_static(now, &current, join, ticket);
                return Ok(());
            }
            if current != join.member_id {
                return Err(refuse(GroupError::FencedInstance));
            }
        }
        if join.member_id.is_empty() {
            let id = join.fresh_member_id.clone();
            if join.knows_member_id_required && join.instance_id.is_none() {
                let expires = now + join.session_timeout;
                self.pending.insert(id.clone(), PendingMember { expires });
                return Err(JoinRefused { error: GroupError::MemberIdRequired, member_id: id });
            }
            self.add(now, id, join, ticket);
            return Ok(());
        }
        if self.pending.contains_key(&join.member_id) {
            self.add(now, join.member_id.clone(), join, ticket);
            return Ok(());
        }
        if !self.members.contains_key(&join.member_id) {
            return Err(refuse(GroupError::UnknownMember));
        }
        self.join_again(now, ticket, join);
        Ok(())
    }

    fn check_join(&self, join: &Join) -> Result<(), GroupError> {
        if !(self.timing.session_min..=self.timing.session_max).contains(&join.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let known = self.members.contains_key(&join.member_id);
        let replaces = join.instance_id.as_ref().is_some_and(|id| self.instances.contains_key(id));
        let promised = self.pending.contains_key(&join.member_id);
        let count = self.members.len() + self.pending.len();
        if !known && !replaces && !promised && count >= limits::GROUP_MEMBERS {
            return Err(GroupError::MaxSizeReached);
        }
        let protocols: usize =
            join.protocols.iter().map(|(name, data)| name.len() + data.len()).sum();
        let more = protocols + join.fresh_member_id.len() + join.client_id.len();
        if self.bytes().saturating_add(more) > limits::GROUP_BYTES {
            return Err(GroupError::MaxSizeReached);
        }
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        if self.members.is_empty() {
            return Ok(());
        }
        let others = || self.members.values().filter(|member| member.id != join.member_id);
        let same_type = self.protocol_type.as_deref() == Some(join.protocol_type.as_str());
        let in_common =
            join.protocols.iter().any(|(name, _)| others().all(|member| member.knows(name)));
        if same_type && in_common { Ok(()) } else { Err(GroupError::InconsistentProtocol) }
    }

    /// A known member joins: a new rebalance, part of the one that goes on, or an answer that was lost.
    fn join_again(&mut self, now: Instant, ticket: Ticket, join: &Join) {
        let Some(member) = self.members.get_mut(&join.member_id) else { return };
        let unchanged = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(join.member_id.as_str());
        let repeat = match self.state {
            State::CompletingRebalance { .. } => unchanged,
            State::Stable => unchanged && !is_leader,
            State::PreparingRebalance { .. } | State::Empty => false,
        };
        if repeat {
            member.last_heard = now;
            let joined = self.joined(&join.member_id);
            self.events.push(Event::Joined(ticket, Ok(joined)));
        } else {
            self.rejoin(now, &join.member_id.clone(), join, ticket);
        }
    }

    /// A static member came back without its id: it gets a fresh one and the old one is fenced (KIP-345).
    fn replace_static(&mut self, now: Instant, current: &str, join: &Join, ticket: Ticket) {
        let Some(mut member) = self.members.remove(current) else { return };
        self.dismiss(&member, GroupError::FencedInstance);
        let id = join.fresh_member_id.clone();
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        let was_leader = self.leader.as_deref() == Some(current);
        if was_leader {
            self.leader = Some(id.clone());
        }
        let chosen = self.protocol.clone().unwrap_or_default();
        let same = member.metadata(&chosen) == Self::offered(join, &chosen);
        member.id.clone_from(&id);
        member.joining = None;
        member.syncing = None;
        member.last_heard = now;
        self.members.insert(id.clone(), member);
        let would_choose = self.choose_with(join, &id);
        if self.state != State::Stable || !same || self.protocol != would_choose {
            self.rejoin(now, &id, join, ticket);
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.protocols.clone_from(&join.protocols);
            member.session_timeout = join.session_timeout;
            member.rebalance_timeout = join.rebalance_timeout;
            member.knows_skip_assignment = join.knows_skip_assignment;
        }
        let mut joined = self.joined(&id);
        if was_leader {
            // An old client that saw itself as leader would assign anew, and nobody would ask for the result.
            if join.knows_skip_assignment {
                joined.skip_assignment = true;
            } else {
                current.clone_into(&mut joined.leader);
                joined.members.clear();
            }
        }
        self.events.push(Event::Joined(ticket, Ok(joined)));
        self.events.push(Event::Store { generation: self.generation });
    }

    fn offered(join: &Join, protocol: &str) -> bytes::Bytes {
        let found = join.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    fn joined(&self, id: &str) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == id {
            let each = self.members.values();
            each.map(|m| (m.id.clone(), m.instance_id.clone(), m.metadata(&protocol))).collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            leader,
            member_id: id.to_owned(),
            members,
            skip_assignment: false,
        }
    }

    /// Goes to `PreparingRebalance`, or stays there; goes on at once if everybody is in.
    pub(super) fn prepare_rebalance(&mut self, now: Instant) {
        match self.state {
            State::Empty => {
                let deadline = now + self.timing.initial_delay;
                let extend_until = Some(now + self.rebalance_timeout());
                self.state = State::PreparingRebalance { deadline, extend_until };
            }
            State::PreparingRebalance { extend_until: Some(latest), .. } => {
                let deadline = latest.min(now + self.timing.initial_delay);
                self.state = State::PreparingRebalance { deadline, extend_until: Some(latest) };
            }
            State::PreparingRebalance { extend_until: None, .. } => {}
            State::CompletingRebalance { .. } | State::Stable => {
                self.refuse_syncs(now, GroupError::RebalanceInProgress);
                let deadline = now + self.rebalance_timeout();
                self.state = State::PreparingRebalance { deadline, extend_until: None };
            }
        }
        self.complete_join_if_all_are_in(now);
    }

    fn rebalance_timeout(&self) -> Duration {
        let longest = self.members.values().map(|member| member.rebalance_timeout).max();
        // A deadline that has always passed already would keep the timers busy for as long as a static member is away.
        longest.unwrap_or(self.timing.initial_delay).max(limits::GROUP_REBALANCE_MIN)
    }

    /// A rebalance of a running group goes on as soon as all known members are in. The first one waits for its delay.
    pub(super) fn complete_join_if_all_are_in(&mut self, now: Instant) {
        let State::PreparingRebalance { extend_until: None, .. } = self.state else {
            if self.members.is_empty() && matches!(self.state, State::PreparingRebalance { .. }) {
                self.join_over(now);
            }
            return;
        };
        let all_in = self.members.values().all(|member| member.joining.is_some());
        if all_in && self.pending.is_empty() {
            self.join_over(now);
        }
    }

    /// Goes on with the members that are in.
    pub(super) fn join_over(&mut self, now: Instant) {
        let absent: Vec<String> = {
            let dynamic = |m: &&super::Member| m.joining.is_none() && m.instance_id.is_none();
            self.members.values().filter(dynamic).map(|m| m.id.clone()).collect()
        };
        for id in absent {
            self.members.remove(&id);
        }
        if !self.members.is_empty() && self.members.values().all(|m| m.joining.is_none()) {
            // Only static members, all away: wait for one of them, or for their sessions to end.
            let deadline = now + self.rebalance_timeout();
            self.state = State::PreparingRebalance { deadline, extend_until: None };
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            self.events.push(Event::Store { generation: self.generation });
            return;
        }
        self.protocol = self.choose();
        self.choose_leader();
        let deadline = now + self.rebalance_timeout();
        self.state = State::CompletingRebalance { deadline, storing: false };
        let answers: Vec<(Ticket, String)> = {
            let joining = self.members.values_mut();
            joining.filter_map(|m| m.joining.take().map(|ticket| (ticket, m.id.clone()))).collect()
        };
        for member in self.members.values_mut() {
            member.last_heard = now;
            member.synced = false;
            member.syncing = None;
        }
        for (ticket, id) in answers {
            let joined = self.joined(&id);
            self.events.push(Event::Joined(ticket, Ok(joined)));
        }
    }

    fn choose_leader(&mut self) {
        let present = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if self.leader.as_ref().is_some_and(present) {
            return;
        }
        let first = self.members.values().find(|member| member.joining.is_some());
        self.leader = first.map(|member| member.id.clone());
    }

    /// Each member votes for the first of its protocols that all know; most votes win, then the alphabet.
    fn choose(&self) -> Option<String> {
        let all_know = |name: &str| self.members.values().all(|member| member.knows(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().find(|(name, _)| all_know(name));
            if let Some((name, _)) = vote {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)));
        most.map(|(name, _)| name.to_owned())
    }

    /// What would be chosen if a member's protocols were those of `join`.
    fn choose_with(&mut self, join: &Join, id: &str) -> Option<String> {
        let mine = self.members.get_mut(id)?;
        let before = std::mem::replace(&mut mine.protocols, join.protocols.clone());
        let chosen = self.choose();
        if let Some(mine) = self.members.get_mut(id) {
            mine.protocols = before;
        }
        chosen
    }
}
