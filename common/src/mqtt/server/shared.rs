//! Shared subscriptions (section 4.8.2): each message goes to one member of the group.
//!
//! Members take turns. A member that is connected and has room comes before one that is only connected, and that before
//! one that is away (a persistent session: it gets the message when it comes back, unless the group takes it over).

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::api::SessionId;
use crate::mqtt::packet::{SubscriptionOptions, TopicFilter};

/// One session in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub session: SessionId,
    pub options: SubscriptionOptions,
    pub identifier: Option<NonZeroU32>,
}

/// How ready a session is to take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// Not connected.
    Away,
    /// Connected, but its window or its connection is full.
    Busy,
    /// It would be sent at once.
    Waiting,
}

#[derive(Default)]
struct Group {
    members: Vec<Member>,
    next: usize,
}

/// All groups by their whole filter, `$share/NAME/FILTER`.
#[derive(Default)]
pub(super) struct SharedGroups {
    groups: HashMap<TopicFilter, Group>,
}

impl SharedGroups {
    /// Adds or replaces a member. `true` if the group is new.
    pub(super) fn join(&mut self, filter: &TopicFilter, member: Member) -> bool {
        let new = !self.groups.contains_key(filter);
        let members = &mut self.groups.entry(filter.clone()).or_default().members;
        match members.iter_mut().find(|other| other.session == member.session) {
            Some(other) => *other = member,
            None => members.push(member),
        }
        new
    }

    /// Removes a member, if it is there. `true` if the group is gone with it.
    pub(super) fn leave(&mut self, filter: &TopicFilter, session: SessionId) -> bool {
        let Some(group) = self.groups.get_mut(filter) else { return false };
        if let Some(index) = group.members.iter().position(|member| member.session == session) {
            group.members.remove(index);
            if group.next > index {
                group.next -= 1;
            }
        }
        if group.members.is_empty() {
            self.groups.remove(filter);
            return true;
        }
        false
    }

    /// The member whose turn it is among the readiest ones, `except` left out.
    pub(super) fn pick(
        &mut self,
        filter: &TopicFilter,
        except: Option<SessionId>,
        readiness: impl Fn(SessionId) -> Readiness,
    ) -> Option<(Member, Readiness)> {
        let group = self.groups.get_mut(filter)?;
        let count = group.members.len();
        let mut best: Option<(usize, Member, Readiness)> = None;
        for step in 0..count {
            let index = (group.next + step) % count;
            let Some(&member) = group.members.get(index) else { continue };
            if Some(member.session) == except {
                continue;
            }
            let ready = readiness(member.session);
            if best.is_none_or(|(_, _, so_far)| ready > so_far) {
                best = Some((index, member, ready));
            }
            if ready == Readiness::Waiting {
                break;
            }
        }
        let (index, member, ready) = best?;
        group.next = (index + 1) % count;
        Some((member, ready))
    }
}

#[cfg(test)]
mod tests {
    use super::{Member, Readiness, SharedGroups};
    use crate::mqtt::packet::{SubscriptionOptions, TopicFilter};
    use crate::mqtt::server::SessionId;

    fn group(members: u64) -> (SharedGroups, TopicFilter) {
        let (mut groups, filter) =
            (SharedGroups::default(), TopicFilter::new("$share/g/a").expect("valid"));
        for session in 0..members {
            let options = SubscriptionOptions::default();
            let member = Member { session: SessionId(session), options, identifier: None };
            assert_eq!(groups.join(&filter, member), session == 0);
        }
        (groups, filter)
    }

    fn picks(groups: &mut SharedGroups, filter: &TopicFilter, ready: &[Readiness]) -> Vec<u64> {
        let readiness = |session: SessionId| {
            usize::try_from(session.0).ok().and_then(|i| ready.get(i)).copied().expect("known")
        };
        (0..4)
            .filter_map(|_| groups.pick(filter, None, readiness))
            .map(|(member, _)| member.session.0)
            .collect()
    }

    #[test]
    fn the_readiest_members_take_turns() {
        use Readiness::{Away, Busy, Waiting};
        let check = |ready: [Readiness; 3], expected: [u64; 4]| {
            let (mut groups, filter) = group(3);
            assert_eq!(picks(&mut groups, &filter, &ready), expected, "{ready:?}");
        };
        check([Waiting, Waiting, Waiting], [0, 1, 2, 0]);
        check([Waiting, Away, Waiting], [0, 2, 0, 2]);
        check([Busy, Away, Busy], [0, 2, 0, 2]);
        check([Busy, Waiting, Away], [1, 1, 1, 1]);
        check([Away, Away, Away], [0, 1, 2, 0]);
    }

    #[test]
    fn a_group_ends_with_its_last_member() {
        let (mut groups, filter) = group(2);
        assert!(!groups.leave(&filter, SessionId(0)));
        assert_eq!(picks(&mut groups, &filter, &[Readiness::Away; 2]), [1; 4]);
        assert!(groups.leave(&filter, SessionId(1)));
        assert!(groups.pick(&filter, None, |_| Readiness::Waiting).is_none());
    }
}
