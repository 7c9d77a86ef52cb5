//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

use std::num::NonZeroU32;

use super::Server;
use super::api::{ConnId, Millis, SessionId};
use super::changes::StateChange;
use super::journal::Existed;
use super::outbound::session_of;
use super::session::RetainedCursor;
use super::shared::Member;
use super::tree::Subscriber;
use crate::limits::MQTT_FILTER_BYTES;
use crate::mqtt::packet::{
    AckProperties, Packet, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
    TopicFilter, UnsubAck, Unsubscribe,
};

impl Server {
    pub(super) fn recv_subscribe(&mut self, now: Millis, conn: ConnId, subscribe: Subscribe) {
        let Some(id) = session_of(self.conns.get(&conn)) else { return };
        let identifier = subscribe.properties.subscription_identifier;
        let before = self.journal.version();
        // [MQTT-3.8.4-5], [MQTT-3.8.4-6]: as if the filters had come one by one, but one SUBACK for all.
        let reasons = subscribe
            .filters
            .into_iter()
            .map(|(filter, options)| self.subscribe(id, filter, options, identifier))
            .collect();
        let changed = self.journal.version() != before;
        let until = if changed { self.durable_for(id) } else { None };
        let packet_id = subscribe.packet_id;
        let ack = SubAck { packet_id, properties: AckProperties::default(), reasons };
        self.send(conn, Packet::SubAck(ack), until);
        self.pump(now, id);
    }

    /// What an answer about a session's state has to wait for.
    fn durable_for(&self, id: SessionId) -> Option<super::api::PersistTicket> {
        let persistent = self.sessions.get(&id).is_some_and(|session| session.persistent);
        if persistent { self.journal.barrier() } else { None }
    }

    fn subscribe(
        &mut self,
        id: SessionId,
        filter: TopicFilter,
        options: SubscriptionOptions,
        identifier: Option<NonZeroU32>,
    ) -> ReasonCode {
        let Some(session) = self.sessions.get_mut(&id) else {
            return ReasonCode::UnspecifiedError;
        };
        if !self.policy.may_subscribe(&session.client, filter.matched()) {
            return ReasonCode::NotAuthorized;
        }
        if filter.as_str().len() > MQTT_FILTER_BYTES {
            return ReasonCode::TopicFilterInvalid;
        }
        if self.failing && session.persistent {
            return ReasonCode::QuotaExceeded;
        }
        let is_new = !session.subscriptions.contains_key(&filter);
        if is_new && session.subscriptions.len() >= self.settings.max_subscriptions {
            return ReasonCode::QuotaExceeded;
        }
        session.subscriptions.insert(filter.clone(), (options, identifier));
        if session.persistent
            && let Some(subscription) = session.subscription(&filter)
        {
            let change = StateChange::PutSubscription(session.client.clone(), subscription);
            self.journal.record(change, Existed::Maybe);
        }
        let wants_retained = match options.retain_handling {
            RetainHandling::SendAlways => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // A shared subscription gets no retained messages (section 4.8.2).
        if wants_retained && filter.shared().is_none() {
            let cursor = RetainedCursor { options, identifier, after: None };
            session.retained.insert(filter.clone(), cursor);
        }
        self.index(id, &filter, options, identifier);
        match options.maximum_qos.as_u8() {
            0 => ReasonCode::Success,
            1 => ReasonCode::GrantedQos1,
            _ => ReasonCode::GrantedQos2,
        }
    }

    /// Makes a subscription findable by topic.
    pub(super) fn index(
        &mut self,
        session: SessionId,
        filter: &TopicFilter,
        options: SubscriptionOptions,
        identifier: Option<NonZeroU32>,
    ) {
        if filter.shared().is_some() {
            if self.shared.join(filter, Member { session, options, identifier }) {
                self.tree.insert_group(filter);
            }
        } else {
            self.tree.insert(filter.as_str(), Subscriber { session, options, identifier });
        }
    }

    /// The opposite of [`Server::index`].
    pub(super) fn unindex(&mut self, session: SessionId, filter: &TopicFilter) {
        if filter.shared().is_some() {
            if self.shared.leave(filter, session) {
                self.tree.remove_group(filter);
            }
        } else {
            self.tree.remove(filter.as_str(), session);
        }
    }

    pub(super) fn recv_unsubscribe(&mut self, conn: ConnId, unsubscribe: Unsubscribe) {
        let Some(id) = session_of(self.conns.get(&conn)) else { return };
        let reasons =
            unsubscribe.filters.iter().map(|filter| self.unsubscribe(id, filter)).collect();
        let until = self.durable_for(id);
        let packet_id = unsubscribe.packet_id;
        let ack = UnsubAck { packet_id, properties: AckProperties::default(), reasons };
        self.send(conn, Packet::UnsubAck(ack), until);
    }

    fn unsubscribe(&mut self, id: SessionId, filter: &TopicFilter) -> ReasonCode {
        let Some(session) = self.sessions.get_mut(&id) else {
            return ReasonCode::UnspecifiedError;
        };
        // What is already queued is still delivered (section 3.10.4).
        session.retained.remove(filter);
        if session.subscriptions.remove(filter).is_none() {
            return ReasonCode::NoSubscriptionExisted;
        }
        if session.persistent {
            let change = StateChange::RemoveSubscription(session.client.clone(), filter.clone());
            self.journal.record(change, Existed::Maybe);
        }
        self.unindex(id, filter);
        ReasonCode::Success
    }
}
