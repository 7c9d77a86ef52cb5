//! Start-up: sessions, retained messages and in-flight state from durable rows. [`Server::replay`] follows for queue
//! records that the rows do not reflect, then [`Server::restored`].

use std::sync::Arc;

use super::Server;
use super::api::{ClientId, Millis, SessionId};
use super::changes::{Outgoing, OutgoingPhase, SessionState, StateChange};
use super::journal::Existed;
use super::session::{Delivery, Received, Session};

impl Server {
    /// Takes in one durable row. A session's own row comes before its others, outgoing messages in the order of their
    /// numbers: the order of [`StateChange::to_row`]'s keys. A row of a session that does not exist is left out.
    pub fn restore(&mut self, _now: Millis, row: StateChange) {
        match row {
            StateChange::PutSession(client, state) => self.restore_session(client, state),
            StateChange::PutSubscription(client, subscription) => {
                let Some(id) = self.by_client.get(&client).copied() else { return };
                let Some(session) = self.sessions.get_mut(&id) else { return };
                let (filter, options, identifier) =
                    (subscription.filter, subscription.options, subscription.identifier);
                session.subscriptions.insert(filter.clone(), (options, identifier));
                self.index(id, &filter, options, identifier);
            }
            StateChange::PutReceived(client, packet_id) => {
                if let Some(session) = self.session_mut(&client) {
                    session.received.insert(packet_id, Received::Stored);
                }
            }
            StateChange::PutOutgoing(client, number, outgoing) => {
                if let Some(session) = self.session_mut(&client) {
                    restore_outgoing(session, number, outgoing);
                }
            }
            StateChange::PutRetained(message) => {
                // What was kept once is kept, also if the limits are lower now.
                self.retained.insert(Arc::new(message), usize::MAX, usize::MAX);
            }
            // Marks are the driver's own; removals are no rows.
            StateChange::PutMark(..)
            | StateChange::RemoveSession(_)
            | StateChange::RemoveSubscription(..)
            | StateChange::RemoveReceived(..)
            | StateChange::RemoveOutgoing(..)
            | StateChange::RemoveRetained(_) => {}
        }
    }

    /// All rows and records are in: what the crash or shutdown interrupted goes on from `now`. A session that was
    /// connected counts as disconnected now, and its will follows after its delay.
    pub fn restored(&mut self, now: Millis) {
        let mut ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.expires_at.is_none() && session.expiry_interval_secs != u32::MAX {
                session.expires_at = Some(now.after_secs(session.expiry_interval_secs));
            }
            if session.will_at.is_none() {
                session.will_at =
                    session.will.as_ref().map(|will| now.after_secs(will.delay_interval_secs));
            }
            let change = StateChange::PutSession(session.client.clone(), session.state());
            self.journal.record(change, Existed::Maybe);
            self.schedule_session(id);
        }
    }

    fn session_mut(&mut self, client: &ClientId) -> Option<&mut Session> {
        self.by_client.get(client).and_then(|id| self.sessions.get_mut(id))
    }

    fn restore_session(&mut self, client: ClientId, state: SessionState) {
        let mut session =
            Session::new(state.id, client.clone(), state.version, self.all_queued.clone());
        session.expiry_interval_secs = state.expiry_interval_secs;
        session.persistent = true;
        session.expires_at = state.expires_at;
        session.will = state.will.map(Box::new);
        session.will_at = state.will_at;
        self.last_session = self.last_session.max(state.id.0);
        self.by_client.insert(client, state.id);
        self.sessions.insert(state.id, session);
    }
}

fn restore_outgoing(session: &mut Session, number: u64, outgoing: Outgoing) {
    session.out.next_number = session.out.next_number.max(number.saturating_add(1));
    let delivery = Delivery {
        number,
        message: outgoing.message,
        qos: outgoing.qos,
        retain: outgoing.retain,
        identifiers: outgoing.subscription_identifiers,
        shared: outgoing.shared,
        phase: outgoing.phase,
    };
    match delivery.phase {
        OutgoingPhase::Queued => session.out.push(delivery),
        OutgoingPhase::Published(_) | OutgoingPhase::Released(_) => {
            session.out.push_inflight(delivery, false);
        }
    }
}
