//! From one message to all who get it: retained store, subscribers, members of shared subscriptions. Also what comes in
//! without a client: local publishes, and the replay at start-up.

use std::sync::Arc;

use bytes::Bytes;

use super::Server;
use super::api::{
    Action, LocalPublish, LocalTicket, Millis, PublishRecord, RecordSource, SessionId,
};
use super::changes::{Message, StateChange};
use super::journal::Existed;
use super::outbound::new_delivery;
use super::publish::Arrived;
use super::retained::Kept;
use super::session::{Delivery, Received};
use super::tree::{Matches, Subscriber};
use crate::mqtt::packet::QoS;

impl Server {
    /// Updates the retained message and queues the message for every session that subscribes.
    pub(super) fn distribute(
        &mut self,
        now: Millis,
        arrived: Arrived,
        publisher: Option<SessionId>,
    ) {
        let matches = self.tree.matches(arrived.topic.as_str());
        let keeps = arrived.retain && !arrived.payload.is_empty();
        if arrived.retain && !keeps && self.retained.remove(&arrived.topic) {
            // [MQTT-3.3.1-6], [MQTT-3.3.1-7]: an empty payload clears, and is not kept itself.
            let change = StateChange::RemoveRetained(arrived.topic.clone());
            self.journal.record(change, Existed::Maybe);
        }
        if !keeps && matches.subscribers.is_empty() && matches.groups.is_empty() {
            return;
        }
        let retain = arrived.retain;
        let message = Arc::new(kept_message(arrived));
        if keeps {
            self.retain(now, &message);
        }
        self.deliver(now, &message, retain, publisher, matches);
    }

    /// Queues a message for every session that it is for.
    pub(super) fn deliver(
        &mut self,
        now: Millis,
        message: &Arc<Message>,
        retain: bool,
        publisher: Option<SessionId>,
        matches: Matches,
    ) {
        for (session, delivery) in targets(message, retain, publisher, matches.subscribers) {
            self.enqueue(session, delivery);
            self.pump(now, session);
        }
        for group in matches.groups {
            let mut groups = std::mem::take(&mut self.shared);
            let picked = groups.pick(&group, None, |session| self.readiness(session));
            self.shared = groups;
            let Some((member, _)) = picked else { continue };
            let mut delivery = new_delivery(message, member.options.maximum_qos);
            delivery.retain = retain && member.options.retain_as_published;
            delivery.identifiers.extend(member.identifier);
            delivery.shared = Some(group);
            self.enqueue(member.session, delivery);
            self.pump(now, member.session);
        }
    }

    fn retain(&mut self, now: Millis, message: &Arc<Message>) {
        let (messages, bytes) = (self.settings.max_retained, self.settings.max_retained_bytes);
        let mut kept = self.retained.insert(message.clone(), messages, bytes);
        if kept == Kept::Full {
            for topic in self.retained.sweep(now) {
                self.journal.record(StateChange::RemoveRetained(topic), Existed::Maybe);
            }
            kept = self.retained.insert(message.clone(), messages, bytes);
        }
        match kept {
            Kept::Full => {
                // An older one of the topic is not left in its place.
                if self.retained.remove(&message.topic) {
                    let change = StateChange::RemoveRetained(message.topic.clone());
                    self.journal.record(change, Existed::Maybe);
                }
                self.counters.dropped_retained += 1;
            }
            Kept::New | Kept::Replaced => {
                let change = StateChange::PutRetained(Message::clone(message));
                self.journal.record(change, Existed::Maybe);
            }
        }
    }

    /// Publishes a message that comes from downlink or a bridge: to local subscribers and the retained store only.
    /// [`Action::LocalDone`] follows when its effects on durable state, and its mark, are durable.
    pub fn publish_local(&mut self, now: Millis, publish: LocalPublish) -> LocalTicket {
        let ticket = LocalTicket(self.next_local);
        self.next_local += 1;
        let before = self.journal.version();
        let message = Arrived {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
            received_at: now,
        };
        self.distribute(now, message, None);
        if let Some((name, value)) = publish.mark {
            self.journal.record(StateChange::PutMark(name, value), Existed::Maybe);
        }
        let changed = self.journal.version() != before;
        match self.journal.barrier() {
            Some(until) if changed => self.local_waiting.push_back((until, ticket)),
            _ => self.actions.push_back(Action::LocalDone { ticket }),
        }
        ticket
    }

    /// Start-up: takes in the effects on durable state of a queue record that the restored rows do not yet reflect.
    /// Records come in the order in which they were stored.
    pub fn replay(&mut self, now: Millis, record: PublishRecord) {
        let known = self.sessions.get_mut(&record.session);
        if let Some(session) = known.filter(|session| session.client == record.client_id) {
            match record.source {
                RecordSource::Will => {
                    // Not if the client has come back with another will since.
                    let same = session.will.as_ref().is_some_and(|will| {
                        will.topic == record.topic && will.payload == record.payload
                    });
                    if same {
                        session.will = None;
                        session.will_at = None;
                        self.will_settled(record.session);
                    }
                }
                RecordSource::Publish(Some(packet_id)) if record.qos == QoS::ExactlyOnce => {
                    session.received.insert(packet_id, Received::Stored);
                    let change = StateChange::PutReceived(session.client.clone(), packet_id);
                    self.journal.record(change, Existed::Maybe);
                }
                RecordSource::Publish(_) => {}
            }
        }
        let message = Arrived {
            topic: record.topic,
            payload: record.payload,
            qos: record.qos,
            retain: record.retain,
            properties: record.properties,
            received_at: record.received_at,
        };
        self.distribute(now, message, Some(record.session));
    }
}

/// The message as queues and the retained store keep it: copied out of the read buffer, so that a small message does
/// not hold a large buffer.
fn kept_message(arrived: Arrived) -> Message {
    let mut properties = arrived.properties;
    if let Some(data) = &mut properties.correlation_data {
        *data = Bytes::copy_from_slice(data);
    }
    Message {
        topic: arrived.topic,
        payload: Bytes::copy_from_slice(&arrived.payload),
        qos: arrived.qos,
        expires_at: properties
            .message_expiry_interval_secs
            .map(|secs| arrived.received_at.after_secs(secs)),
        properties,
    }
}

/// One delivery for each session, also where several of its subscriptions match: with the highest QoS of them, all their
/// identifiers, and the retain flag if any of them keeps it [MQTT-3.3.4-2 to -4].
fn targets(
    message: &Arc<Message>,
    retain: bool,
    publisher: Option<SessionId>,
    mut subscribers: Vec<Subscriber>,
) -> Vec<(SessionId, Delivery)> {
    // [MQTT-3.8.3-3]
    subscribers.retain(|s| !(s.options.no_local && Some(s.session) == publisher));
    subscribers.sort_by_key(|subscriber| subscriber.session);
    subscribers
        .chunk_by(|one, other| one.session == other.session)
        .filter_map(|group| {
            let session = group.first()?.session;
            let maximum = group.iter().map(|s| s.options.maximum_qos).max()?;
            let mut delivery = new_delivery(message, maximum);
            delivery.retain = retain && group.iter().any(|s| s.options.retain_as_published);
            delivery.identifiers = group.iter().filter_map(|s| s.identifier).collect();
            Some((session, delivery))
        })
        .collect()
}
