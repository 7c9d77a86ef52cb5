//! Collects durable changes into batches, one under way at a time: group commit without a clock.
//!
//! **Invariant:** rows of one batch are independent of each other, except that removals of sessions come first; so a
//! row that changes twice before its batch leaves is written once.
//! **Invariant:** a batch's `reflects` covers exactly the stores whose effects are in this batch or an earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::api::{Action, ClientId, PersistTicket, StoreTicket};
use super::changes::StateChange;
use crate::limits::MQTT_REPLAY_PUBLISHES;
use crate::mqtt::packet::{PacketId, TopicFilter, TopicName};

/// Which row a change is about. Ordered by client first, so that a session's rows are one range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    client: Option<ClientId>,
    kind: RowKind,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RowKind {
    Session,
    Subscription(TopicFilter),
    Received(PacketId),
    Outgoing(u64),
    Retained(TopicName),
    Mark(Arc<str>),
}

struct Pending {
    change: StateChange,
    /// No earlier batch has this row: removing it cancels the change.
    fresh: bool,
}

/// Whether the row of a change is known to be on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existed {
    /// It certainly is not there.
    No,
    /// It may be.
    Maybe,
}

pub(super) struct Journal {
    rows: BTreeMap<Row, Pending>,
    removed_sessions: BTreeSet<ClientId>,
    /// A batch has to leave even if it has no rows: something waits for the position.
    position_wanted: bool,
    /// The ticket of the batch that is being collected.
    next: u64,
    in_flight: Option<PersistTicket>,
    /// The last store whose effects are in.
    applied: Option<StoreTicket>,
    /// Stores applied since the last batch left.
    applied_since: u64,
    /// Counts changes, to see whether an operation made any.
    changes: u64,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            removed_sessions: BTreeSet::new(),
            position_wanted: false,
            next: 1,
            in_flight: None,
            applied: None,
            applied_since: 0,
            changes: 0,
        }
    }

    /// Rises with every change.
    pub(super) fn version(&self) -> u64 {
        self.changes
    }

    fn put(&mut self, row: Row, change: StateChange, existed: Existed) {
        self.changes += 1;
        // Over a pending change, the row stays as fresh as that change says: a pending removal is of a row on disk.
        let fresh = self.rows.get(&row).map_or(existed == Existed::No, |pending| pending.fresh);
        self.rows.insert(row, Pending { change, fresh });
    }

    fn remove(&mut self, row: Row, change: StateChange) {
        self.changes += 1;
        if self.rows.get(&row).is_some_and(|pending| pending.fresh) {
            self.rows.remove(&row);
        } else {
            self.rows.insert(row, Pending { change, fresh: false });
        }
    }

    /// Records a change; `existed` matters for those that create a row.
    pub(super) fn record(&mut self, change: StateChange, existed: Existed) {
        use StateChange as C;
        let of = |client: &ClientId, kind| Row { client: Some(client.clone()), kind };
        match &change {
            C::RemoveSession(client) => self.remove_session(client.clone()),
            C::PutSession(client, _) => self.put(of(client, RowKind::Session), change, existed),
            C::PutSubscription(client, subscription) => {
                let row = of(client, RowKind::Subscription(subscription.filter.clone()));
                self.put(row, change, existed);
            }
            C::RemoveSubscription(client, filter) => {
                self.remove(of(client, RowKind::Subscription(filter.clone())), change);
            }
            C::PutReceived(client, id) => {
                self.put(of(client, RowKind::Received(*id)), change, existed);
            }
            C::RemoveReceived(client, id) => {
                self.remove(of(client, RowKind::Received(*id)), change);
            }
            C::PutOutgoing(client, number, _) => {
                self.put(of(client, RowKind::Outgoing(*number)), change, existed);
            }
            C::RemoveOutgoing(client, number) => {
                self.remove(of(client, RowKind::Outgoing(*number)), change);
            }
            C::PutRetained(message) => {
                let kind = RowKind::Retained(message.topic.clone());
                self.put(Row { client: None, kind }, change, existed);
            }
            C::RemoveRetained(topic) => {
                let kind = RowKind::Retained(topic.clone());
                self.remove(Row { client: None, kind }, change);
            }
            C::PutMark(name, _) => {
                let kind = RowKind::Mark(name.clone());
                self.put(Row { client: None, kind }, change, existed);
            }
        }
    }

    fn remove_session(&mut self, client: ClientId) {
        self.changes += 1;
        let first = Row { client: Some(client.clone()), kind: RowKind::Session };
        let gone: Vec<Row> = self
            .rows
            .range(first..)
            .map(|(row, _)| row)
            .take_while(|row| row.client.as_ref() == Some(&client))
            .cloned()
            .collect();
        for row in gone {
            self.rows.remove(&row);
        }
        self.removed_sessions.insert(client);
    }

    /// The effects of this store are in (or it was refused and has none).
    pub(super) fn applied(&mut self, ticket: StoreTicket) {
        self.applied = Some(ticket);
        self.applied_since += 1;
        if self.applied_since >= MQTT_REPLAY_PUBLISHES {
            self.position_wanted = true;
        }
    }

    /// Makes the next batch leave even without rows, and so the current position durable.
    pub(super) fn want_position(&mut self) {
        if self.applied_since > 0 {
            self.position_wanted = true;
        }
    }

    fn dirty(&self) -> bool {
        self.position_wanted || !self.rows.is_empty() || !self.removed_sessions.is_empty()
    }

    /// The batch after which everything so far is durable; `None` if it is already.
    pub(super) fn barrier(&self) -> Option<PersistTicket> {
        if self.dirty() { Some(PersistTicket(self.next)) } else { self.in_flight }
    }

    /// The next batch, if there is one and none is under way.
    pub(super) fn take(&mut self) -> Option<Action> {
        if self.in_flight.is_some() || !self.dirty() {
            return None;
        }
        let ticket = PersistTicket(self.next);
        self.next += 1;
        self.in_flight = Some(ticket);
        self.position_wanted = false;
        self.applied_since = 0;
        let removed = std::mem::take(&mut self.removed_sessions);
        let rows = std::mem::take(&mut self.rows);
        let changes = removed
            .into_iter()
            .map(StateChange::RemoveSession)
            .chain(rows.into_values().map(|pending| pending.change))
            .collect();
        Some(Action::Persist { ticket, reflects: self.applied, changes })
    }

    /// The batch is durable. `false` for a ticket that is not under way.
    pub(super) fn done(&mut self, ticket: PersistTicket) -> bool {
        if self.in_flight != Some(ticket) {
            return false;
        }
        self.in_flight = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Existed, Journal};
    use crate::mqtt::packet::PacketId;
    use crate::mqtt::server::{Action, ClientId, StateChange, StoreTicket};

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not 0")
    }

    fn changes(journal: &mut Journal) -> Option<Vec<StateChange>> {
        match journal.take() {
            Some(Action::Persist { ticket, changes, .. }) => {
                assert!(journal.done(ticket));
                Some(changes)
            }
            _ => None,
        }
    }

    #[test]
    fn a_row_put_and_removed_in_one_batch_is_not_written() {
        let (mut journal, client) = (Journal::new(), ClientId::from("c"));
        journal.record(StateChange::PutReceived(client.clone(), id(1)), Existed::No);
        journal.record(StateChange::RemoveReceived(client, id(1)), Existed::Maybe);
        assert_eq!(changes(&mut journal), None);
    }

    #[test]
    fn a_row_on_disk_that_is_removed_put_and_removed_is_removed() {
        let (mut journal, client) = (Journal::new(), ClientId::from("c"));
        let remove = StateChange::RemoveReceived(client.clone(), id(1));
        journal.record(remove.clone(), Existed::Maybe);
        journal.record(StateChange::PutReceived(client, id(1)), Existed::No);
        journal.record(remove.clone(), Existed::Maybe);
        assert_eq!(changes(&mut journal), Some(vec![remove]));
    }

    #[test]
    fn removing_a_session_drops_its_pending_rows_and_comes_first() {
        let (mut journal, client) = (Journal::new(), ClientId::from("c"));
        let mark = StateChange::PutMark("m".into(), Bytes::from_static(b"1"));
        let new = StateChange::PutReceived(client.clone(), id(2));
        journal.record(mark.clone(), Existed::Maybe);
        journal.record(StateChange::PutReceived(client.clone(), id(1)), Existed::No);
        journal.record(StateChange::RemoveSession(client.clone()), Existed::Maybe);
        journal.record(new.clone(), Existed::No);
        assert_eq!(
            changes(&mut journal),
            Some(vec![StateChange::RemoveSession(client), mark, new])
        );
    }

    #[test]
    fn one_batch_is_under_way_and_barriers_name_the_batch_that_covers_all_changes() {
        let (mut journal, client) = (Journal::new(), ClientId::from("c"));
        assert_eq!(journal.barrier(), None);
        journal.record(StateChange::PutReceived(client.clone(), id(1)), Existed::No);
        let first = journal.barrier().expect("a change waits");
        assert!(journal.take().is_some());
        assert_eq!(journal.barrier(), Some(first));
        journal.record(StateChange::PutReceived(client, id(2)), Existed::No);
        assert!(journal.barrier() > Some(first));
        assert!(journal.take().is_none(), "the first is still under way");
        assert!(journal.done(first));
        assert!(!journal.done(first));
        assert!(journal.take().is_some());
    }

    #[test]
    fn the_position_alone_leaves_when_something_waits_for_it() {
        let mut journal = Journal::new();
        journal.applied(StoreTicket(7));
        assert!(journal.take().is_none());
        journal.want_position();
        match journal.take() {
            Some(Action::Persist { reflects, changes, .. }) => {
                assert_eq!(reflects, Some(StoreTicket(7)));
                assert!(changes.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
}
