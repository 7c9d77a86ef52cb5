//! Members that speak the consumer group protocol (KIP-848): one heartbeat joins, lives on and leaves, and the broker assigns.
//!
//! Each is assigned every partition of what it subscribes to, whoever else is in the group.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use robustmq_common::ids::TopicId;
use robustmq_common::limits;

use super::{ConnectionId, CoordinatorError, GroupError, SharedGroups};
use crate::group::machine::{Caller, Join};
use crate::group::shared::members::{Member, Subscription};

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerBeat {
    /// Its id; empty if the broker is to make one.
    pub member_id: String,
    /// 0 to join.
    pub epoch: i32,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// The topics that it wants, if that has changed.
    pub names: Option<BTreeSet<String>>,
    /// Whose names match all of this, if that has changed; empty for none.
    pub pattern: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// An id to give it, if it has none.
    pub fresh_member_id: String,
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerTold {
    /// Its id.
    pub member_id: String,
    /// Its epoch.
    pub epoch: i32,
    /// What it is assigned, if it does not know.
    pub assignment: Option<BTreeMap<TopicId, i32>>,
}

impl SharedGroups {
    /// ConsumerGroupHeartbeat. `resolve` says what there is of the topics that the member wants.
    ///
    /// # Errors
    /// [`CoordinatorError`], and what `resolve` fails with.
    pub async fn consumer_heartbeat<E: From<CoordinatorError>>(
        &self,
        group: &str,
        beat: ConsumerBeat,
        connection: ConnectionId,
        resolve: impl AsyncFnOnce(Subscription) -> Result<BTreeMap<TopicId, i32>, E>,
    ) -> Result<ConsumerTold, E> {
        let wanted = beat.names.as_ref().map_or(0, BTreeSet::len);
        let is_too_much = wanted > limits::shared::SUBSCRIBED_TOPICS
            || ((wanted > 0 || beat.pattern.is_some())
                && self.state().bytes > limits::GROUPS_BYTES);
        if is_too_much {
            return Err(CoordinatorError::from(GroupError::MaxSizeReached).into());
        }
        let member_id = match beat.epoch {
            0 => self.consumer_join(group, &beat, connection).await?,
            _ => {
                let caller = Caller {
                    member_id: beat.member_id.clone(),
                    instance_id: beat.instance_id.clone(),
                    generation: beat.epoch,
                };
                self.heartbeat(group, &caller, connection)?;
                beat.member_id.clone()
            }
        };
        let subscription = self.with_consumer(group, &member_id, |member| {
            let subscription = member.subscription.get_or_insert_default();
            if let Some(names) = beat.names {
                subscription.names = names;
            }
            if let Some(pattern) = beat.pattern {
                subscription.pattern = Some(pattern).filter(|pattern| !pattern.is_empty());
            }
            subscription.clone()
        })?;
        let assigned = match resolve(subscription).await {
            Ok(assigned) => assigned,
            Err(error) => {
                if beat.epoch == 0 {
                    // It has joined with what it cannot have.
                    let _ = self.leave(group, &member_id, None);
                }
                return Err(error);
            }
        };
        let (token, epoch, lost) = self.with_consumer(group, &member_id, |member| {
            let lost = member.assign(assigned.clone());
            (member.token, member.epoch(), lost)
        })?;
        self.shared.pools.close(token, lost);
        let assignment = (epoch != beat.epoch).then_some(assigned);
        Ok(ConsumerTold { member_id, epoch, assignment })
    }

    /// Whoever joins under an id that is known has lost what it had.
    async fn consumer_join(
        &self,
        group: &str,
        beat: &ConsumerBeat,
        connection: ConnectionId,
    ) -> Result<String, CoordinatorError> {
        if beat.names.is_none() && beat.pattern.is_none() {
            return Err(GroupError::InconsistentProtocol.into());
        }
        let _ = self.leave(group, &beat.member_id, None);
        let member_id = match beat.member_id.is_empty() {
            true => beat.fresh_member_id.clone(),
            false => beat.member_id.clone(),
        };
        let join = Join {
            member_id: String::new(),
            instance_id: beat.instance_id.clone(),
            client_id: beat.client_id.clone(),
            client_host: beat.client_host.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![("shared".to_owned(), Bytes::new())],
            session_timeout: limits::shared::CONSUMER_SESSION,
            rebalance_timeout: limits::shared::CONSUMER_SESSION,
            fresh_member_id: member_id,
            knows_member_id_required: true,
            knows_skip_assignment: true,
        };
        Ok(self.join(group, &join, connection).await?.member_id)
    }

    fn with_consumer<T>(
        &self,
        group: &str,
        member_id: &str,
        act: impl FnOnce(&mut Member) -> T,
    ) -> Result<T, CoordinatorError> {
        let mut state = self.state();
        let members = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
        let member = members.get_mut(member_id).ok_or(GroupError::UnknownMember)?;
        let outcome = act(member);
        state.recount(group, member_id);
        Ok(outcome)
    }

    /// Whether a member speaks the consumer group protocol.
    #[must_use]
    pub fn is_consumer(&self, group: &str, member_id: &str) -> bool {
        let state = self.state();
        let member = state.groups.get(group).and_then(|members| members.get(member_id));
        member.is_some_and(|member| member.subscription.is_some())
    }

    /// The members of a group that are no members of a share group, for ConsumerGroupDescribe.
    #[must_use]
    pub fn consumers(&self, group: &str) -> Vec<Member> {
        let state = self.state();
        let members = state.groups.get(group);
        members.map(|members| members.iter().map(|(_, m)| m.clone()).collect()).unwrap_or_default()
    }
}
