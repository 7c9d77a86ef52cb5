//! Towards clients: queues with bounds, windows, packets that wait for durability, slow connections.

use std::sync::Arc;

use super::Server;
use super::api::{Action, ConnId, Millis, PersistTicket, SessionId};
use super::changes::{Message, OutgoingPhase, StateChange};
use super::journal::Existed;
use super::session::{Connection, Delivery, Held, Session};
use super::shared::Readiness;
use crate::limits;
use crate::mqtt::codec::encoded_len;
use crate::mqtt::packet::{
    Ack, Packet, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
};

impl Server {
    /// The driver has written so many bytes of what it was given for this connection.
    pub fn written(&mut self, now: Millis, conn: ConnId, bytes: usize) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        if connection.paused {
            // While it is not read, that it takes what it is sent is its sign of life.
            connection.last_received = now;
        }
        let limit = self.settings.connection_backlog_bytes;
        let was_full = connection.unwritten_bytes >= limit;
        connection.unwritten_bytes = connection.unwritten_bytes.saturating_sub(bytes);
        let now_free = connection.unwritten_bytes < limit;
        let session = connection.session;
        self.update_flow(conn);
        if was_full
            && now_free
            && let Some(session) = session
        {
            self.pump(now, session);
        }
    }

    /// A batch of changes is durable: what waited for it goes out.
    pub fn persisted(&mut self, _now: Millis, ticket: PersistTicket) {
        if !self.journal.done(ticket) {
            return;
        }
        let waiting: Vec<ConnId> = self.holding.iter().copied().collect();
        for conn in waiting {
            self.release_held(conn, ticket);
        }
        while let Some(&(until, local)) = self.local_waiting.front()
            && until <= ticket
        {
            self.local_waiting.pop_front();
            self.actions.push_back(Action::LocalDone { ticket: local });
        }
    }

    fn release_held(&mut self, conn: ConnId, durable: PersistTicket) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            self.holding.remove(&conn);
            return;
        };
        while let Some(held) = connection.held.front() {
            if held.until.is_some_and(|until| until > durable) {
                return;
            }
            if let Some(Held { packet, bytes, .. }) = connection.held.pop_front() {
                self.counters.packets_sent += 1;
                self.actions.push_back(Action::Send { conn, packet, bytes });
            }
        }
        self.holding.remove(&conn);
    }

    /// Sends a packet, after `until` is durable and after everything sent before. A packet that is larger than the
    /// client takes is dropped [MQTT-3.1.2-24].
    pub(super) fn send(&mut self, conn: ConnId, packet: Packet, until: Option<PersistTicket>) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let bytes = match encoded_len(&packet, connection.version) {
            Ok(bytes) if bytes <= connection.max_packet_bytes => bytes,
            Ok(_) | Err(_) => {
                self.counters.dropped_too_large += 1;
                return;
            }
        };
        connection.unwritten_bytes = connection.unwritten_bytes.saturating_add(bytes);
        if until.is_none() && connection.held.is_empty() {
            self.counters.packets_sent += 1;
            self.actions.push_back(Action::Send { conn, packet, bytes });
        } else {
            connection.held.push_back(Held { until, packet, bytes });
            self.holding.insert(conn);
        }
        self.update_flow(conn);
    }

    /// Decides whether a connection is read. It is not while too much is unwritten, or too much waits for the store.
    pub(super) fn update_flow(&mut self, conn: ConnId) {
        let (settings, total) = (&self.settings, self.intake.bytes());
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        // Read again at half of each limit, so that it does not change with every packet.
        let above = |divisor: usize| {
            let reached = |value: usize, limit: usize| value >= (limit / divisor).max(1);
            reached(connection.unwritten_bytes, settings.connection_backlog_bytes)
                || reached(connection.pending, settings.pending_publishes)
                || reached(total, settings.pending_bytes)
        };
        if !connection.paused && above(1) {
            connection.paused = true;
            self.paused.insert(conn);
            self.actions.push_back(Action::Pause { conn });
        } else if connection.paused && !above(2) {
            connection.paused = false;
            connection.was_unread = true;
            self.paused.remove(&conn);
            self.actions.push_back(Action::Resume { conn });
        }
    }

    /// How ready a session is to take a message of a shared subscription.
    pub(super) fn readiness(&self, id: SessionId) -> Readiness {
        let session = self.sessions.get(&id);
        let connection =
            session.and_then(|session| session.conn).and_then(|conn| self.conns.get(&conn));
        let (Some(session), Some(connection)) = (session, connection) else {
            return Readiness::Away;
        };
        let room = session.out.queued().is_empty()
            && session.out.inflight().len() < connection.window
            && connection.unwritten_bytes < self.settings.connection_backlog_bytes;
        if room { Readiness::Waiting } else { Readiness::Busy }
    }

    /// Queues a message for a session, within its bounds. It is sent by the next [`Server::pump`].
    pub(super) fn enqueue(&mut self, id: SessionId, mut delivery: Delivery) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.conn.is_none() && delivery.qos == QoS::AtMostOnce {
            self.counters.dropped_offline_qos0 += 1;
            return;
        }
        delivery.number = session.out.take_number();
        delivery.phase = OutgoingPhase::Queued;
        if session.persistent && delivery.qos > QoS::AtMostOnce {
            let change = StateChange::PutOutgoing(
                session.client.clone(),
                delivery.number,
                delivery.to_outgoing(),
            );
            self.journal.record(change, Existed::No);
        }
        session.out.push(delivery);
        self.enforce_bounds(id);
    }

    /// Drops what is too much: the oldest QoS 0 message first, then the oldest of all.
    fn enforce_bounds(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let settings = &self.settings;
        loop {
            // One message for a client that is there is always taken: else those that are away, with all the memory that
            // there is, would keep everybody from theirs.
            let idle = session.out.queued().len() <= 1 && session.out.inflight().is_empty();
            let spared = session.conn.is_some() && idle;
            let too_much = session.out.queued().len() > settings.session_queue_messages
                || session.out.queued_bytes() > settings.session_queue_bytes
                || (!spared && self.all_queued.get() > settings.all_sessions_queue_bytes);
            if !too_much {
                return;
            }
            let Some(dropped) = session.out.pop_least() else { return };
            if dropped.qos == QoS::AtMostOnce {
                self.counters.dropped_queue_full_qos0 += 1;
            } else {
                self.counters.dropped_queue_full_qos12 += 1;
                if session.persistent {
                    let change =
                        StateChange::RemoveOutgoing(session.client.clone(), dropped.number);
                    self.journal.record(change, Existed::Maybe);
                }
            }
        }
    }

    /// Sends a session what its window and its connection have room for: first what was in flight on an earlier
    /// connection, in the original order [MQTT-4.4.0-1], [MQTT-4.6.0-1], then what waits.
    pub(super) fn pump(&mut self, now: Millis, id: SessionId) {
        let mut steps = limits::MQTT_RETAINED_STEPS;
        loop {
            self.feed_retained(now, id, &mut steps);
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let Some(conn) = session.conn else { return };
            let Some(connection) = self.conns.get(&conn) else { return };
            if connection.unwritten_bytes >= self.settings.connection_backlog_bytes {
                return;
            }
            if session.out.unsent_from < session.out.inflight().len() {
                if session.out.unsent_from >= connection.window {
                    return;
                }
                self.resend_next(now, conn, id);
                continue;
            }
            let Some(next) = session.out.queued().front() else { return };
            let needs_window = next.qos > QoS::AtMostOnce;
            if needs_window && session.out.inflight().len() >= connection.window {
                return;
            }
            if let Some(delivery) = session.out.pop() {
                self.send_first(now, conn, id, delivery);
            }
        }
    }

    fn resend_next(&mut self, now: Millis, conn: ConnId, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(connection) = self.conns.get(&conn) else { return };
        let Some(delivery) = session.out.inflight().get(session.out.unsent_from) else { return };
        let packet = match delivery.phase {
            OutgoingPhase::Released(packet_id) => {
                Packet::PubRel(Ack::new(packet_id, ReasonCode::Success))
            }
            OutgoingPhase::Queued | OutgoingPhase::Published(_) => {
                publish_packet(now, delivery, connection.version, true)
            }
        };
        session.out.unsent_from += 1;
        // It is durable, since CONNACK waited for all that was changed before.
        self.send(conn, packet, None);
    }

    fn send_first(&mut self, now: Millis, conn: ConnId, id: SessionId, mut delivery: Delivery) {
        let (Some(session), Some(connection)) = (self.sessions.get_mut(&id), self.conns.get(&conn))
        else {
            return;
        };
        let tracked = delivery.qos > QoS::AtMostOnce;
        if tracked {
            // The window is smaller than the number of packet ids.
            let Some(packet_id) = session.out.take_packet_id() else { return };
            delivery.phase = OutgoingPhase::Published(packet_id);
        }
        let expired = delivery.message.expires_at.is_some_and(|at| at <= now);
        let packet = publish_packet(now, &delivery, connection.version, false);
        let fits = encoded_len(&packet, connection.version)
            .is_ok_and(|bytes| bytes <= connection.max_packet_bytes);
        if expired || !fits {
            // [MQTT-3.3.2-5]; [MQTT-3.1.2-25]: as if it had been delivered.
            let counter = if expired {
                &mut self.counters.dropped_expired
            } else {
                &mut self.counters.dropped_too_large
            };
            *counter += 1;
            if tracked && session.persistent {
                let change = StateChange::RemoveOutgoing(session.client.clone(), delivery.number);
                self.journal.record(change, Existed::Maybe);
            }
            return;
        }
        self.counters.publishes_sent[usize::from(delivery.qos.as_u8())] += 1;
        let mut until = None;
        if tracked {
            if session.persistent {
                record_outgoing(&mut self.journal, session, &delivery);
                // Were it sent before its packet id is durable, it could come again under another one after a crash.
                if delivery.qos == QoS::ExactlyOnce {
                    until = self.journal.barrier();
                }
            }
            session.out.push_inflight(delivery, true);
        }
        self.send(conn, packet, until);
    }
}

/// A delivery that is not yet queued, without retain flag and identifiers.
pub(super) fn new_delivery(message: &Arc<Message>, maximum_qos: QoS) -> Delivery {
    Delivery {
        number: 0,
        message: message.clone(),
        // [MQTT-3.8.4-8]
        qos: message.qos.min(maximum_qos),
        retain: false,
        identifiers: Vec::new(),
        shared: None,
        phase: OutgoingPhase::Queued,
    }
}

/// Records where an outgoing message of a persistent session stands now.
pub(super) fn record_outgoing(
    journal: &mut super::journal::Journal,
    session: &Session,
    delivery: &Delivery,
) {
    let change =
        StateChange::PutOutgoing(session.client.clone(), delivery.number, delivery.to_outgoing());
    journal.record(change, Existed::Maybe);
}

fn publish_packet(now: Millis, delivery: &Delivery, version: ProtocolVersion, dup: bool) -> Packet {
    let message = &delivery.message;
    let mut properties = PublishProperties::default();
    if version == ProtocolVersion::V5 {
        properties.message = message.properties.clone();
        // [MQTT-3.3.2-6]: what is left of it, rounded up so that it is not 0.
        properties.message.message_expiry_interval_secs = message.expires_at.map(|at| {
            let left = at.0.saturating_sub(now.0).div_ceil(1000);
            u32::try_from(left).unwrap_or(u32::MAX)
        });
        properties.subscription_identifiers.clone_from(&delivery.identifiers);
    }
    Packet::Publish(Box::new(Publish {
        dup: dup && delivery.qos > QoS::AtMostOnce,
        qos: delivery.qos,
        retain: delivery.retain,
        topic: Some(message.topic.clone()),
        packet_id: delivery.packet_id(),
        properties,
        payload: message.payload.clone(),
    }))
}

/// The session of a connection, if it has one.
pub(super) fn session_of(connection: Option<&Connection>) -> Option<SessionId> {
    connection.and_then(|connection| connection.session)
}
