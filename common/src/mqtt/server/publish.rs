//! PUBLISH from clients, wills and local publishes: admission, store, and then effects.
//!
//! What goes upstream waits in [`Intake`] until the store has answered; effects are applied in the order of arrival. A
//! topic that stays local does not wait for the store, except behind earlier publishes of its own session, so that
//! acknowledgements leave in order [MQTT-4.6.0-2].

use std::collections::VecDeque;

use bytes::Bytes;

use super::Server;
use super::api::{
    Action, ClientId, ConnId, Millis, PublishRecord, RecordSource, SessionId, StoreRefusal,
    StoreTicket,
};
use super::changes::StateChange;
use super::journal::Existed;
use super::outbound::session_of;
use super::session::Received;
use crate::limits::MQTT_TOPIC_ALIAS_BYTES;
use crate::mqtt::packet::{
    Ack, MessageProperties, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, TopicName,
    Will,
};

/// What is to become of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It takes effect.
    Accepted,
    /// It does not, and a 5.0 client is told why.
    Refused(ReasonCode),
    /// It does not, and the client is told that all is well: 3.1.1 has no other way [MQTT-3.3.5-2 of 3.1.1].
    Ignored,
}

/// Where a publish came from.
struct Origin {
    client: ClientId,
    session: SessionId,
    conn: Option<ConnId>,
    source: RecordSource,
}

/// A message before it is applied. Its payload is a slice of the read buffer.
pub(super) struct Arrived {
    pub topic: TopicName,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
    pub properties: MessageProperties,
    pub received_at: Millis,
}

struct Waiting {
    ticket: StoreTicket,
    outcome: Option<Outcome>,
    /// It went to the store.
    stored: bool,
    origin: Origin,
    message: Arrived,
}

/// Publishes that are not yet applied, in the order of arrival.
#[derive(Default)]
pub(super) struct Intake {
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
    bytes: usize,
}

impl Intake {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Payload bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, outcome: Option<Outcome>, origin: Origin, message: Arrived) -> StoreTicket {
        let ticket = StoreTicket(self.next_ticket);
        self.next_ticket += 1;
        self.bytes += message.payload.len();
        let stored = outcome.is_none();
        self.waiting.push_back(Waiting { ticket, outcome, stored, origin, message });
        ticket
    }

    fn answer(&mut self, ticket: StoreTicket, outcome: Outcome) {
        let found = self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket);
        if let Some(waiting) = found.ok().and_then(|index| self.waiting.get_mut(index))
            && waiting.outcome.is_none()
        {
            waiting.outcome = Some(outcome);
        }
    }

    fn pop_answered(&mut self) -> Option<(Waiting, Outcome)> {
        let outcome = self.waiting.front()?.outcome?;
        let waiting = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(waiting.message.payload.len());
        Some((waiting, outcome))
    }
}

impl Server {
    pub(super) fn recv_publish(&mut self, now: Millis, conn: ConnId, publish: Publish) {
        let topic = match self.resolve_topic(conn, &publish) {
            Ok(topic) => topic,
            Err(reason) => return self.protocol_error(now, conn, reason),
        };
        if !publish.properties.subscription_identifiers.is_empty() {
            // [MQTT-3.3.4-6]
            return self.protocol_error(now, conn, ReasonCode::ProtocolError);
        }
        if self.is_duplicate(conn, &publish) {
            return;
        }
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let Some(session) = connection.session.and_then(|id| self.sessions.get_mut(&id)) else {
            return;
        };
        if publish.qos > QoS::AtMostOnce
            && connection.version == ProtocolVersion::V5
            && connection.pending_qos1 + session.received.len()
                >= usize::from(self.settings.receive_maximum)
        {
            // [MQTT-3.3.4-9]
            return self.protocol_error(now, conn, ReasonCode::ReceiveMaximumExceeded);
        }
        self.counters.publishes_received[usize::from(publish.qos.as_u8())] += 1;
        connection.pending += 1;
        connection.pending_qos1 += usize::from(publish.qos == QoS::AtLeastOnce);
        if publish.qos == QoS::ExactlyOnce
            && let Some(id) = publish.packet_id
        {
            session.received.insert(id, Received::Storing(conn));
        }
        let origin = Origin {
            client: session.client.clone(),
            session: session.id,
            conn: Some(conn),
            source: RecordSource::Publish(publish.packet_id),
        };
        let version = connection.version;
        let message = Arrived {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties.message,
            received_at: now,
        };
        let denied = !self.may_publish(&origin.client, &message.topic);
        let outcome = denied.then(|| {
            self.counters.publish_not_authorized += 1;
            match version {
                ProtocolVersion::V5 => Outcome::Refused(ReasonCode::NotAuthorized),
                ProtocolVersion::V311 => Outcome::Ignored,
            }
        });
        self.admit(now, origin, message, outcome);
        self.update_flow(conn);
    }

    /// Whether a QoS 2 packet id is already received (section 4.3.3: it is kept until PUBREL, whatever DUP says). What is
    /// stored is acknowledged again; what is on its way to the store, when it is there.
    fn is_duplicate(&mut self, conn: ConnId, publish: &Publish) -> bool {
        if publish.qos != QoS::ExactlyOnce {
            return false;
        }
        let Some(id) = session_of(self.conns.get(&conn)) else { return false };
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let known = publish.packet_id.and_then(|packet_id| session.received.get_mut(&packet_id));
        match known {
            None => return false,
            Some(Received::Storing(latest)) => *latest = conn,
            Some(Received::Stored) => {
                let until = if session.persistent { self.journal.barrier() } else { None };
                let reason = ReasonCode::Success;
                self.acknowledge(conn, publish.qos, publish.packet_id, reason, until);
            }
        }
        self.counters.duplicates_received += 1;
        true
    }

    /// The topic that a PUBLISH is for; its alias is resolved, or set (section 3.3.2.3.4).
    fn resolve_topic(&mut self, conn: ConnId, publish: &Publish) -> Result<TopicName, ReasonCode> {
        let connection = self.conns.get_mut(&conn).ok_or(ReasonCode::UnspecifiedError)?;
        let Some(alias) = publish.properties.topic_alias else {
            return publish.topic.clone().ok_or(ReasonCode::ProtocolError);
        };
        if alias.get() > self.settings.topic_alias_maximum {
            return Err(ReasonCode::TopicAliasInvalid); // [MQTT-3.3.2-9]
        }
        match &publish.topic {
            Some(topic) => {
                connection.aliases.insert(alias, topic.clone());
                let bytes: usize = connection.aliases.values().map(|t| t.as_str().len()).sum();
                if bytes > MQTT_TOPIC_ALIAS_BYTES {
                    return Err(ReasonCode::QuotaExceeded);
                }
                Ok(topic.clone())
            }
            None => connection.aliases.get(&alias).cloned().ok_or(ReasonCode::ProtocolError),
        }
    }

    /// Takes a message in: to the store, behind what waits, or into effect at once. `outcome`: already decided.
    fn admit(&mut self, now: Millis, origin: Origin, message: Arrived, outcome: Option<Outcome>) {
        let upstream = outcome.is_none() && self.policy.route(&message.topic).upstream;
        let behind = self.sessions.get(&origin.session).is_some_and(|session| session.pending > 0);
        if let Some(session) = self.sessions.get_mut(&origin.session) {
            session.pending += 1;
        }
        if upstream {
            let record = PublishRecord {
                client_id: origin.client.clone(),
                session: origin.session,
                source: origin.source,
                qos: message.qos,
                retain: message.retain,
                topic: message.topic.clone(),
                payload: message.payload.clone(),
                properties: message.properties.clone(),
                received_at: message.received_at,
            };
            let ticket = self.intake.push(None, origin, message);
            self.actions.push_back(Action::Store { ticket, record });
            return;
        }
        let outcome = outcome.unwrap_or(Outcome::Accepted);
        if behind {
            self.intake.push(Some(outcome), origin, message);
        } else {
            self.apply(now, origin, message, outcome, false);
        }
    }

    /// The store's answer. Effects follow in the order of the tickets.
    pub fn stored(&mut self, now: Millis, ticket: StoreTicket, result: Result<(), StoreRefusal>) {
        let outcome = match result {
            Ok(()) => Outcome::Accepted,
            Err(StoreRefusal::Full | StoreRefusal::Failed) => {
                Outcome::Refused(ReasonCode::QuotaExceeded)
            }
        };
        self.intake.answer(ticket, outcome);
        while let Some((waiting, outcome)) = self.intake.pop_answered() {
            let Waiting { ticket, stored, origin, message, .. } = waiting;
            if stored && outcome != Outcome::Accepted {
                self.counters.store_refused += 1;
            }
            self.apply(now, origin, message, outcome, stored);
            if stored {
                self.journal.applied(ticket);
            }
        }
        if self.intake.bytes() < self.settings.pending_bytes {
            let paused: Vec<ConnId> = self.paused.iter().copied().collect();
            paused.into_iter().for_each(|conn| self.update_flow(conn));
        }
    }

    fn apply(
        &mut self,
        now: Millis,
        origin: Origin,
        message: Arrived,
        outcome: Outcome,
        stored: bool,
    ) {
        let qos = message.qos;
        if let Some(connection) = origin.conn.and_then(|conn| self.conns.get_mut(&conn)) {
            connection.pending = connection.pending.saturating_sub(1);
            if qos == QoS::AtLeastOnce {
                connection.pending_qos1 = connection.pending_qos1.saturating_sub(1);
            }
        }
        if let Some(session) = self.sessions.get_mut(&origin.session) {
            session.pending = session.pending.saturating_sub(1);
        }
        let before = self.journal.version();
        if outcome == Outcome::Accepted {
            self.distribute(now, message, Some(origin.session));
        }
        match origin.source {
            RecordSource::Publish(Some(packet_id)) => {
                let to = self.acknowledged_on(&origin, qos, packet_id);
                self.settle(&origin, qos, packet_id, outcome);
                let changed = self.journal.version() != before;
                if let Some(conn) = to {
                    self.answer(now, conn, qos, packet_id, outcome, !stored && changed);
                }
            }
            RecordSource::Publish(None) => {}
            RecordSource::Will => self.will_settled(origin.session),
        }
        if let Some(conn) = origin.conn {
            self.update_flow(conn);
        }
    }

    /// Acknowledges a QoS 1 or 2 publish. `when_durable`: after its effects are. What was stored is replayed after a
    /// crash, and need not wait.
    fn answer(
        &mut self,
        now: Millis,
        conn: ConnId,
        qos: QoS,
        packet_id: PacketId,
        outcome: Outcome,
        when_durable: bool,
    ) {
        let reason = match outcome {
            Outcome::Accepted | Outcome::Ignored => ReasonCode::Success,
            Outcome::Refused(reason) => reason,
        };
        let version = self.conns.get(&conn).map(|connection| connection.version);
        if reason.is_error() && version == Some(ProtocolVersion::V311) {
            // 3.1.1 cannot say no: the client connects again and resends.
            return self.close(now, conn, reason);
        }
        let until = if when_durable { self.journal.barrier() } else { None };
        self.acknowledge(conn, qos, Some(packet_id), reason, until);
    }

    /// QoS 2: keeps, or forgets, the packet id.
    fn settle(&mut self, origin: &Origin, qos: QoS, packet_id: PacketId, outcome: Outcome) {
        if qos != QoS::ExactlyOnce {
            return;
        }
        let Some(session) = self.sessions.get_mut(&origin.session) else { return };
        if matches!(outcome, Outcome::Refused(_)) {
            // [MQTT-4.3.3-9]: after a PUBREC with an error, the id is free.
            session.received.remove(&packet_id);
            return;
        }
        session.received.insert(packet_id, Received::Stored);
        if session.persistent {
            let change = StateChange::PutReceived(session.client.clone(), packet_id);
            self.journal.record(change, Existed::No);
        }
    }

    /// The connection that the acknowledgement goes to: the one on which the PUBLISH, or for QoS 2 its latest resend,
    /// came, if it is still there. One that came on an earlier connection is sent again, and answered then.
    fn acknowledged_on(&self, origin: &Origin, qos: QoS, packet_id: PacketId) -> Option<ConnId> {
        let session = self.sessions.get(&origin.session)?;
        let latest = match session.received.get(&packet_id) {
            Some(Received::Storing(latest)) if qos == QoS::ExactlyOnce => Some(*latest),
            Some(Received::Storing(_) | Received::Stored) | None => origin.conn,
        };
        session.conn.filter(|current| latest == Some(*current))
    }

    fn acknowledge(
        &mut self,
        conn: ConnId,
        qos: QoS,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        until: Option<super::api::PersistTicket>,
    ) {
        let Some(packet_id) = packet_id else { return };
        let ack = Ack::new(packet_id, reason);
        let packet = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => Packet::PubAck(ack),
            QoS::ExactlyOnce => Packet::PubRec(ack),
        };
        self.send(conn, packet, until);
    }

    /// Publishes a session's will, if it has one that is not yet under way.
    pub(super) fn publish_will(&mut self, now: Millis, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.will_at = None;
        let Some(boxed) = session.will.take() else { return };
        let will = Will::clone(&boxed);
        session.publishing_will = Some(boxed);
        let origin = Origin {
            client: session.client.clone(),
            session: id,
            conn: None,
            source: RecordSource::Will,
        };
        self.counters.wills_published += 1;
        let message = Arrived {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties,
            received_at: now,
        };
        self.admit(now, origin, message, None);
        self.schedule_session(id);
    }

    /// A will has been applied or refused: only now does it leave the durable state.
    pub(super) fn will_settled(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.publishing_will = None;
        if session.persistent {
            let change = StateChange::PutSession(session.client.clone(), session.state());
            self.journal.record(change, Existed::Maybe);
        }
    }
}
