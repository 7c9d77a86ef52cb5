//! OffsetFetch: a member is told its cursors, and anybody else where the group is in the log.
//!
//! Who asks is not said in the classic protocol. A consumer that is taken for somebody who only looks is told real offsets, reads on from there
//! beside the group, and is given what others have or have acknowledged. Clients ask again by themselves, on a new connection and before they
//! hear that they are members no more, if their connection ended before the answer came. So whoever may be one of these is told to ask again;
//! its next heartbeat says whose connection that is, or tells it to join.

use std::time::Instant;

use robustmq_common::limits;

use super::{Client, CoordinatorError, GroupError, SharedGroups, State, Token};
use crate::group::machine::Caller;
use crate::group::shared::cursor::CursorOffset;
use crate::group::shared::members::{Assigned, OnTheWay};
use crate::group::shared::now;
use crate::group::shared::pools::{Pools, wall_ms};
use crate::store::keys::partition::PartitionKeys;

/// When the broker started, by both clocks.
pub(super) struct Started {
    at: Instant,
    wall_ms: i64,
}

impl Started {
    pub fn now() -> Self {
        Self { at: now(), wall_ms: wall_ms() }
    }
}

/// Who asks on a connection that speaks for no member.
enum Asker {
    /// The only member that it can be.
    Member(String),
    /// Somebody who looks how the group stands.
    Observer,
    /// Perhaps a member, or one that does not know yet that it is none.
    Unclear,
}

impl State {
    /// Whoever asks without saying for whom, on a connection that speaks for nobody.
    fn asker(&mut self, group: &str, client: &Client, pools: &Pools) -> Asker {
        if self.put_out.contains(&client.connection) {
            return Asker::Unclear;
        }
        let Some(members) = self.groups.get_mut(group) else { return Asker::Observer };
        let mut asker = Asker::Observer;
        for (member_id, member) in members.called(&client.client_id, &client.client_host) {
            let keys = member.partitions.iter().copied();
            if member.on_the_way == OnTheWay::Told && pools.is_read(member.token, keys) {
                member.on_the_way = OnTheWay::Nothing;
            }
            asker = match (member.on_the_way, asker) {
                (OnTheWay::Nothing, asker) => asker,
                (OnTheWay::Awaited, Asker::Observer) => Asker::Member(member_id.clone()),
                // Which of them asks, or whether somebody else does, is known by a heartbeat.
                (OnTheWay::Awaited | OnTheWay::Told, _) => return Asker::Unclear,
            };
        }
        asker
    }
}

impl SharedGroups {
    /// The cursors of whoever asks, for the partitions asked for, of a topic that was created at `created_ms` (milliseconds since 1970);
    /// `None` if that is no member, but somebody who wants to know how the group stands.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn cursors(
        &self,
        group: &str,
        client: &Client,
        partitions: &[Assigned],
        created_ms: i64,
    ) -> Result<Option<Vec<CursorOffset>>, CoordinatorError> {
        if !self.is_known(group, client) && self.may_be_of_before(group, created_ms).await? {
            return Err(CoordinatorError::Unclear { group: group.to_owned() });
        }
        let Some((member_id, token)) = self.tell(group, client, partitions)? else {
            return Ok(None);
        };
        let config = self.shared.pools.config(group).await?;
        let mut cursors = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            let keys = PartitionKeys { topic: *topic, partition: *partition };
            let opened = self.shared.pools.open(group, keys, token, &config).await;
            cursors.push(opened.map_err(CoordinatorError::from)?);
        }
        let is_member = {
            let state = self.state();
            let member = state.groups.get(group).and_then(|members| members.get(&member_id));
            member.is_some_and(|member| member.token == token)
        };
        if !is_member {
            self.shared.pools.close(token, partitions.iter().copied());
            // Only who says for whom it asks expects to hear that there is no such member.
            return Err(match client.member {
                Some(_) => GroupError::UnknownMember.into(),
                None => CoordinatorError::Unclear { group: group.to_owned() },
            });
        }
        Ok(Some(cursors))
    }

    /// Whether it is said, or known by the connection, for whom somebody asks.
    fn is_known(&self, group: &str, client: &Client) -> bool {
        let state = self.state();
        let bound = state.bound.get(&client.connection);
        client.member.is_some() || bound.is_some_and(|bound| bound.contains_key(group))
    }

    /// Whether a member of before the broker started may still ask as if it were one.
    async fn may_be_of_before(
        &self,
        group: &str,
        created_ms: i64,
    ) -> Result<bool, CoordinatorError> {
        let Started { at, wall_ms } = self.shared.started;
        if now() >= at + limits::shared::RETURN || created_ms >= wall_ms {
            return Ok(false);
        }
        // A group that has begun since has none; one of which nothing is stored may have had members all the same.
        let begun_ms = self.shared.pools.begun_ms(group).await?;
        Ok(begun_ms.is_none_or(|begun_ms| begun_ms < wall_ms))
    }

    /// The member that is told its cursors on `partitions`; `None` for somebody who looks.
    fn tell(
        &self,
        group: &str,
        client: &Client,
        partitions: &[Assigned],
    ) -> Result<Option<(String, Token)>, CoordinatorError> {
        let mut state = self.state();
        if let Some((member_id, generation)) = &client.member {
            let caller =
                Caller { member_id: member_id.clone(), instance_id: None, generation: *generation };
            let members = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
            members.check(now(), &caller)?;
        }
        let said = client.member.as_ref().map(|(member_id, _)| member_id);
        let bound = || state.bound.get(&client.connection)?.get(group);
        let member_id = match said.or_else(bound).cloned() {
            Some(member_id) => member_id,
            None => match state.asker(group, client, &self.shared.pools) {
                Asker::Member(member_id) => member_id,
                Asker::Observer => return Ok(None),
                Asker::Unclear => {
                    return Err(CoordinatorError::Unclear { group: group.to_owned() });
                }
            },
        };
        let members = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
        let member = members.get_mut(&member_id).ok_or(GroupError::UnknownMember)?;
        member.on_the_way = OnTheWay::Told;
        // Noted first: a member that goes meanwhile takes its cursors with it.
        member.partitions.extend(partitions);
        let token = member.token;
        state.recount(group, &member_id);
        Ok(Some((member_id, token)))
    }
}
