//! SyncGroup, and the half of a rebalance that hands out assignments.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use robustmq_common::limits;

use super::{Event, Group, GroupError, State, Sync, Synced, Ticket};

impl Group {
    /// A SyncGroup. Its answer comes as [`Event::Synced`] with the same ticket, now or later.
    pub fn sync(&mut self, now: Instant, ticket: Ticket, sync: Sync) {
        if let Err(error) = self.try_sync(now, ticket, sync) {
            self.events.push(Event::Synced(ticket, Err(error)));
        }
    }

    fn try_sync(&mut self, now: Instant, ticket: Ticket, sync: Sync) -> Result<(), GroupError> {
        self.check_caller(&sync.who)?;
        let differs =
            |given: &Option<String>, ours: &Option<String>| given.is_some() && given != ours;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        let id = sync.who.member_id;
        self.touch(&id, now);
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            State::Stable => {
                let synced = self.synced(&id);
                self.events.push(Event::Synced(ticket, Ok(synced)));
                Ok(())
            }
            State::CompletingRebalance { storing, deadline } => {
                let leads = self.leader.as_ref() == Some(&id);
                if leads && !storing {
                    self.assign(sync.assignments)?;
                    self.state = State::CompletingRebalance { deadline, storing: true };
                    self.events.push(Event::Store { generation: self.generation });
                }
                let waiting = self.members.get_mut(&id).and_then(|m| {
                    m.synced = true;
                    m.syncing.replace(ticket)
                });
                if let Some(former) = waiting {
                    let error = GroupError::RebalanceInProgress;
                    self.events.push(Event::Synced(former, Err(error)));
                }
                Ok(())
            }
        }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>) -> Result<(), GroupError> {
        let bytes: usize = assignments.iter().map(|(_, bytes)| bytes.len()).sum();
        if bytes > limits::GROUP_BYTES {
            return Err(GroupError::MaxSizeReached);
        }
        let mut assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
        for member in self.members.values_mut() {
            // Copied, so that one small assignment does not keep the leader's whole request alive.
            let assignment = assignments.remove(&member.id).unwrap_or_default();
            member.assignment = Bytes::copy_from_slice(&assignment);
        }
        Ok(())
    }

    fn synced(&self, id: &str) -> Synced {
        let assignment = self.members.get(id).map(|member| member.assignment.clone());
        Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: assignment.unwrap_or_default(),
        }
    }

    /// What [`Event::Store`] asked for is durable, or failed. Reports of an older generation change nothing.
    pub fn stored(&mut self, now: Instant, generation: i32, durable: bool) {
        let waits = matches!(self.state, State::CompletingRebalance { storing: true, .. });
        if !waits || generation != self.generation {
            return;
        }
        if !durable {
            self.refuse_syncs(now, GroupError::NotStored);
            self.prepare_rebalance(now);
            return;
        }
        self.state = State::Stable;
        let waiting: Vec<(Ticket, String)> = {
            let syncing = self.members.values_mut();
            syncing.filter_map(|m| m.syncing.take().map(|ticket| (ticket, m.id.clone()))).collect()
        };
        for (ticket, id) in waiting {
            self.touch(&id, now);
            let synced = self.synced(&id);
            self.events.push(Event::Synced(ticket, Ok(synced)));
        }
    }

    /// Answers all SyncGroups that wait and forgets the assignments.
    pub(super) fn refuse_syncs(&mut self, now: Instant, error: GroupError) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.last_heard = now;
                self.events.push(Event::Synced(ticket, Err(error)));
            }
            member.synced = false;
            member.assignment = Bytes::new();
        }
    }

    /// The leader or others have not synced in time: they are out (KIP-62), and the rest join again.
    pub(super) fn sync_over(&mut self, now: Instant) {
        let silent: Vec<String> =
            self.members.values().filter(|m| !m.synced).map(|m| m.id.clone()).collect();
        for id in silent {
            self.remove(now, &id);
        }
    }
}
