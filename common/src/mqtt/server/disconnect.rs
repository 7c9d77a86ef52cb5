//! The end of connections and sessions (sections 3.14, 4.1 and 4.13): DISCONNECT, errors, takeover, expiry, hand-over.

use super::Server;
use super::api::{Action, ClientId, CloseReason, ConnId, Millis, SessionId};
use super::changes::StateChange;
use super::journal::Existed;
use super::outbound::session_of;
use super::session::Delivery;
use super::shared::Readiness;
use super::timers::TimerKey;
use crate::mqtt::packet::{
    Disconnect, DisconnectProperties, Packet, ProtocolVersion, QoS, ReasonCode,
};

impl Server {
    /// The connection ended without the server having closed it: its will is published.
    pub fn closed(&mut self, now: Millis, conn: ConnId, _reason: CloseReason) {
        self.connection_ended(now, conn);
    }

    /// An operator ends a client's connection. `false` if it has none.
    pub fn disconnect(&mut self, now: Millis, client: &ClientId, reason: ReasonCode) -> bool {
        let session = self.by_client.get(client).and_then(|id| self.sessions.get(id));
        let Some(conn) = session.and_then(|session| session.conn) else { return false };
        self.close(now, conn, reason);
        true
    }

    /// The server goes away: all connections end. Their wills are published, or stay in the durable state.
    pub fn shutdown(&mut self, now: Millis) {
        let mut conns: Vec<ConnId> = self.conns.keys().copied().collect();
        conns.sort_unstable();
        conns.into_iter().for_each(|conn| self.close(now, conn, ReasonCode::ServerShuttingDown));
    }

    pub(super) fn recv_disconnect(&mut self, now: Millis, conn: ConnId, disconnect: &Disconnect) {
        let Some(id) = session_of(self.conns.get(&conn)) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if disconnect.properties.server_reference.is_some() {
            return self.protocol_error(now, conn, ReasonCode::ProtocolError);
        }
        if let Some(expiry) = disconnect.properties.session_expiry_interval_secs {
            if session.expiry_interval_secs == 0 && expiry != 0 {
                // Section 3.14.2.2.2
                return self.protocol_error(now, conn, ReasonCode::ProtocolError);
            }
            let longest =
                u32::try_from(self.settings.max_session_expiry.as_secs()).unwrap_or(u32::MAX);
            session.expiry_interval_secs = expiry.min(longest);
        }
        if disconnect.reason == ReasonCode::Success {
            // [MQTT-3.14.4-3]
            session.will = None;
        }
        self.connection_ended(now, conn);
        self.actions.push_back(Action::Close { conn, reason: disconnect.reason });
    }

    /// Closes a connection because of what its client did.
    pub(super) fn protocol_error(&mut self, now: Millis, conn: ConnId, reason: ReasonCode) {
        self.counters.protocol_errors += 1;
        self.close(now, conn, reason);
    }

    /// Closes a connection; a 5.0 client is told why [MQTT-4.13.1-1].
    pub(super) fn close(&mut self, now: Millis, conn: ConnId, reason: ReasonCode) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let waits_for_connack =
            connection.held.iter().any(|held| matches!(held.packet, Packet::ConnAck(_)));
        let told = connection.version == ProtocolVersion::V5
            && connection.session.is_some()
            && !waits_for_connack;
        connection.held.clear();
        if told {
            let properties = DisconnectProperties::default();
            self.send(conn, Packet::Disconnect(Disconnect { reason, properties }), None);
        }
        self.connection_ended(now, conn);
        self.actions.push_back(Action::Close { conn, reason });
    }

    /// Drops a connection that has no session.
    pub(super) fn forget(&mut self, _now: Millis, conn: ConnId) {
        self.conns.remove(&conn);
        self.holding.remove(&conn);
        self.paused.remove(&conn);
        self.timers.set(TimerKey::Connection(conn), None);
    }

    fn connection_ended(&mut self, now: Millis, conn: ConnId) {
        let id = session_of(self.conns.get(&conn));
        self.forget(now, conn);
        let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) else { return };
        let id = session.id;
        session.conn = None;
        self.session_left(now, id);
    }

    /// The session has no connection any more: it ends, or waits for the next one.
    pub(super) fn session_left(&mut self, now: Millis, id: SessionId) {
        self.hand_over(now, id, Readiness::Busy);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // A QoS 0 message is not kept for later.
        self.counters.dropped_offline_qos0 += session.out.drop_qos0() as u64;
        if session.expiry_interval_secs == 0 {
            return self.end_session(now, id);
        }
        if session.expiry_interval_secs != u32::MAX {
            session.expires_at = Some(now.after_secs(session.expiry_interval_secs));
        }
        let delay = session.will.as_ref().map(|will| will.delay_interval_secs);
        match delay {
            Some(0) => self.publish_will(now, id),
            Some(secs) => session.will_at = Some(now.after_secs(secs)),
            None => {}
        }
        if let Some(session) = self.sessions.get(&id)
            && session.persistent
        {
            let change = StateChange::PutSession(session.client.clone(), session.state());
            self.journal.record(change, Existed::Maybe);
        }
        self.schedule_session(id);
    }

    /// Ends a session that is not connected: its will is published [MQTT-3.1.2-8], its state removed.
    pub(super) fn end_session(&mut self, now: Millis, id: SessionId) {
        self.publish_will(now, id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let filters: Vec<_> = std::mem::take(&mut session.subscriptions).into_keys().collect();
        for filter in &filters {
            self.unindex(id, filter);
        }
        self.hand_over(now, id, Readiness::Away);
        let Some(session) = self.sessions.remove(&id) else { return };
        self.by_client.remove(&session.client);
        self.timers.set(TimerKey::Session(id), None);
        if session.persistent {
            self.journal.record(StateChange::RemoveSession(session.client), Existed::Maybe);
        }
    }

    /// Gives what came through shared subscriptions and was not delivered to other members that are at least as ready
    /// as `least`: what was not sent, and QoS 1 that was not acknowledged. QoS 2 in flight stays with this session
    /// [MQTT-4.8.2-4], [MQTT-4.8.2-5].
    fn hand_over(&mut self, now: Millis, id: SessionId, least: Readiness) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let movable = |delivery: &Delivery| {
            let sent_qos2 = delivery.qos == QoS::ExactlyOnce && delivery.packet_id().is_some();
            delivery.shared.is_some() && !sent_qos2
        };
        let candidates: Vec<Delivery> = session
            .out
            .inflight()
            .iter()
            .chain(session.out.queued())
            .filter(|delivery| movable(delivery))
            .cloned()
            .collect();
        for delivery in candidates {
            let number = delivery.number;
            if self.give_to_another(now, id, delivery, least) {
                self.remove_outgoing(id, number);
            }
        }
    }

    fn give_to_another(
        &mut self,
        now: Millis,
        from: SessionId,
        mut delivery: Delivery,
        least: Readiness,
    ) -> bool {
        let Some(group) = delivery.shared.clone() else { return false };
        let mut groups = std::mem::take(&mut self.shared);
        let picked = groups.pick(&group, Some(from), |session| self.readiness(session));
        self.shared = groups;
        let Some((member, ready)) = picked.filter(|(_, ready)| *ready >= least) else {
            return false;
        };
        delivery.qos = delivery.message.qos.min(member.options.maximum_qos);
        if ready == Readiness::Away && delivery.qos == QoS::AtMostOnce {
            return false;
        }
        delivery.identifiers = member.identifier.into_iter().collect();
        delivery.retain = delivery.retain && member.options.retain_as_published;
        self.enqueue(member.session, delivery);
        self.pump(now, member.session);
        true
    }

    fn remove_outgoing(&mut self, id: SessionId, number: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.out.remove(number);
        if session.persistent {
            let change = StateChange::RemoveOutgoing(session.client.clone(), number);
            self.journal.record(change, Existed::Maybe);
        }
    }
}
