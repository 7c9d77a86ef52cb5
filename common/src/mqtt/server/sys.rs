//! `$SYS/...`: what the server says of itself (section 4.7.2 leaves these topics to the server).
//!
//! **Invariant:** nobody else publishes there.
//! **Invariant:** it costs no disk: it is not stored, not kept durably, and QoS 0 whatever was subscribed to. A session that is not
//! connected misses it: figures of last week would only push out what it waits for.
//! **Invariant:** it is not counted among the retained messages, nor bounded with them: clients cannot crowd it out.

use std::sync::Arc;

use bytes::Bytes;

use super::Server;
use super::api::{ClientId, Millis};
use super::changes::Message;
use super::retained::Kept;
use crate::limits;
use crate::mqtt::packet::{MessageProperties, QoS, TopicName};

const PREFIX: &str = "$SYS/";

/// Whether all topics that `filter` matches are the server's own: a wildcard never stands for `$SYS` [MQTT-4.7.2-1].
pub(super) fn is_own(filter: &str) -> bool {
    filter.starts_with(PREFIX)
}

impl Server {
    /// Says something of the server at `topic`, which begins with `$SYS/`: to those who subscribe, now and later. What is the same as
    /// before is not said again.
    pub fn publish_sys(&mut self, now: Millis, topic: TopicName, payload: Bytes) {
        if !is_own(topic.as_str()) || self.sys.get(&topic).is_some_and(|m| m.payload == payload) {
            return;
        }
        let message = Arc::new(Message {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            properties: MessageProperties::default(),
            expires_at: None,
        });
        let (messages, bytes) = (limits::MQTT_SYS_TOPICS, limits::MQTT_SYS_BYTES);
        if self.sys.insert(message.clone(), messages, bytes) == Kept::Full {
            return;
        }
        let matches = self.tree.matches(message.topic.as_str());
        self.deliver(now, &message, true, None, matches);
    }

    /// Whether a client may publish to a topic.
    pub(super) fn may_publish(&self, client: &ClientId, topic: &TopicName) -> bool {
        !is_own(topic.as_str()) && self.policy.may_publish(client, topic)
    }
}
