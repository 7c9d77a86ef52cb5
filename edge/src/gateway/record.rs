//! A publish as a queue record, and back at start-up replay.
//!
//! The record's body is the sync record that the uplink sends as it is; what only this gateway needs (session, packet id,
//! what made it) stands beside it in [`Origin`], whose client id is `session(8, big-endian) client id(the rest)`.

use std::time::Duration;

use bytes::Bytes;
use robustmq_common::mqtt::packet::{MessageProperties, PacketId, QoS, TopicName};
use robustmq_common::mqtt::server::{ClientId, Millis, PublishRecord, RecordSource, SessionId};
use robustmq_common::sync::{EdgeRecord, RecordKey};

use super::route::Route;
use crate::queue::{Append, Entry, Origin};
use crate::settings::RouteKey;

/// Stands as the packet id of a will: no PUBLISH has packet id 0.
const WILL: u16 = 0;

/// Why a publish cannot be a record, or a record is no publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// A part does not fit.
    #[error("cannot be encoded: {0}")]
    Encode(String),
    /// The body cannot be read.
    #[error("cannot be decoded: {0}")]
    Decode(String),
    /// A part is not what the gateway writes.
    #[error("has an illegal {0}")]
    Illegal(&'static str),
}

/// The queue record of a publish, as its route says.
pub(super) fn to_append(record: &PublishRecord, route: &Route) -> Result<Append, RecordError> {
    let packet_id = match record.source {
        RecordSource::Publish(id) => id.map(PacketId::get),
        RecordSource::Will => Some(WILL),
    };
    let properties = &record.properties;
    let expiry_seconds = match (properties.message_expiry_interval_secs, route.ttl) {
        (Some(expiry), Some(ttl)) => Some(expiry.min(whole_secs(ttl))),
        (Some(expiry), None) => Some(expiry),
        (None, ttl) => ttl.map(whole_secs),
    };
    let user_properties: Vec<(&str, &str)> =
        properties.user_properties.iter().map(|(name, value)| (&**name, &**value)).collect();
    let edge_record = EdgeRecord {
        mqtt_topic: record.topic.as_str(),
        client_id: record.client_id.as_str(),
        qos: record.qos.as_u8(),
        retain: record.retain,
        payload_utf8: properties.payload_is_utf8 == Some(true),
        expiry_seconds,
        kafka_topic: route.kafka_topic.as_deref(),
        key: match route.key {
            RouteKey::ClientId => RecordKey::ClientId,
            RouteKey::MqttTopic => RecordKey::Bytes(record.topic.as_str().as_bytes()),
            RouteKey::None => RecordKey::None,
        },
        content_type: properties.content_type.as_deref(),
        response_topic: properties.response_topic.as_ref().map(TopicName::as_str),
        correlation_data: properties.correlation_data.as_deref(),
        user_properties,
        payload: &record.payload,
    };
    let mut body = Vec::with_capacity(record.payload.len() + 128);
    edge_record.encode(&mut body).map_err(|error| RecordError::Encode(error.to_string()))?;
    let origin = Origin {
        client_id: origin_client(record),
        packet_id,
        qos: record.qos.as_u8(),
        retain: record.retain,
    };
    let ttl = expiry_seconds.map(|secs| Duration::from_secs(secs.into()));
    Ok(Append { lane: route.lane, origin, ttl, body: body.into() })
}

/// The publish that a queue record was made from; `received_at` is its stamp in server time.
///
/// What the body does not keep (that a payload was declared *not* to be text) is left out.
pub(super) fn to_publish(entry: &Entry, received_at: Millis) -> Result<PublishRecord, RecordError> {
    let body =
        EdgeRecord::decode(&entry.body).map_err(|error| RecordError::Decode(error.to_string()))?;
    let source = match entry.origin.packet_id {
        Some(WILL) => RecordSource::Will,
        id => RecordSource::Publish(id.and_then(PacketId::new)),
    };
    let (session, client_id) =
        entry.origin.client_id.split_first_chunk().ok_or(RecordError::Illegal("session"))?;
    let client_id =
        std::str::from_utf8(client_id).map_err(|_| RecordError::Illegal("client id"))?;
    let topic = TopicName::new(body.mqtt_topic).map_err(|_| RecordError::Illegal("topic"))?;
    let response_topic = body
        .response_topic
        .map(TopicName::new)
        .transpose()
        .map_err(|_| RecordError::Illegal("response topic"))?;
    let properties = MessageProperties {
        payload_is_utf8: body.payload_utf8.then_some(true),
        message_expiry_interval_secs: body.expiry_seconds,
        content_type: body.content_type.map(Into::into),
        response_topic,
        correlation_data: body.correlation_data.map(Bytes::copy_from_slice),
        user_properties: body
            .user_properties
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    };
    Ok(PublishRecord {
        client_id: ClientId::from(client_id),
        session: SessionId(u64::from_be_bytes(*session)),
        source,
        qos: QoS::from_u8(entry.origin.qos).ok_or(RecordError::Illegal("QoS"))?,
        retain: entry.origin.retain,
        topic,
        payload: Bytes::copy_from_slice(body.payload),
        properties,
        received_at,
    })
}

fn origin_client(record: &PublishRecord) -> Bytes {
    let client_id = record.client_id.as_str().as_bytes();
    let mut origin = Vec::with_capacity(8 + client_id.len());
    origin.extend_from_slice(&record.session.0.to_be_bytes());
    origin.extend_from_slice(client_id);
    origin.into()
}

/// Whole seconds, rounded up.
fn whole_secs(duration: Duration) -> u32 {
    let up = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs().saturating_add(up)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use robustmq_common::ids::{ChainDigest, EdgeSeq, LaneId};
    use robustmq_common::mqtt::packet::{MessageProperties, PacketId, QoS, TopicName};
    use robustmq_common::mqtt::server::{ClientId, Millis, PublishRecord, RecordSource, SessionId};
    use robustmq_common::sync::EdgeRecord;

    use super::{Route, to_append, to_publish};
    use crate::queue::{Append, BootId, Entry, Stamp};
    use crate::settings::RouteKey;

    fn record(source: RecordSource, qos: QoS) -> PublishRecord {
        PublishRecord {
            client_id: ClientId::from("press-1"),
            session: SessionId(u64::MAX - 1),
            source,
            qos,
            retain: true,
            topic: TopicName::new("plant/press/1").unwrap(),
            payload: Bytes::from_static(b"\x00\xff payload"),
            properties: MessageProperties {
                payload_is_utf8: Some(true),
                message_expiry_interval_secs: Some(90),
                content_type: Some("application/octet-stream".into()),
                response_topic: Some(TopicName::new("answers/1").unwrap()),
                correlation_data: Some(Bytes::from_static(b"\x01")),
                user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            },
            received_at: Millis(77),
        }
    }

    fn entry(append: Append) -> Entry {
        Entry {
            seq: EdgeSeq(1),
            digest: ChainDigest(0),
            stamp: Stamp { boot: BootId([0; 16]), uptime_ms: 0, wall_ms: None },
            ttl: append.ttl,
            origin: append.origin,
            body: append.body,
        }
    }

    #[test]
    fn a_record_comes_back_as_the_publish_that_it_was() {
        let sources = [
            (RecordSource::Publish(None), QoS::AtMostOnce),
            (RecordSource::Publish(PacketId::new(1)), QoS::AtLeastOnce),
            (RecordSource::Publish(PacketId::new(65_535)), QoS::ExactlyOnce),
            (RecordSource::Will, QoS::AtMostOnce),
            (RecordSource::Will, QoS::ExactlyOnce),
        ];
        for (source, qos) in sources {
            let published = record(source, qos);
            let append = to_append(&published, &Route::default()).unwrap();
            assert_eq!(to_publish(&entry(append), Millis(77)).unwrap(), published);
        }
    }

    #[test]
    fn the_route_sets_lane_topic_key_and_the_shorter_time_to_live() {
        let published = record(RecordSource::Publish(None), QoS::AtMostOnce);
        let check = |ttl: Option<u64>, expected: u64| {
            let route = Route {
                lane: LaneId(2),
                kafka_topic: Some("presses".to_owned()),
                key: RouteKey::MqttTopic,
                ttl: ttl.map(Duration::from_secs),
                local: false,
            };
            let append = to_append(&published, &route).unwrap();
            assert_eq!((append.lane, append.ttl), (LaneId(2), Some(Duration::from_secs(expected))));
            let body = EdgeRecord::decode(&append.body).unwrap();
            assert_eq!(body.kafka_topic, Some("presses"));
            assert_eq!(body.kafka_key(), Some(b"plant/press/1".as_slice()));
        };
        check(None, 90);
        check(Some(60), 60);
        check(Some(600), 90);
    }

    #[test]
    fn a_body_of_rubbish_is_an_error() {
        let append =
            to_append(&record(RecordSource::Will, QoS::AtMostOnce), &Route::default()).unwrap();
        for length in 0..append.body.len().min(60) {
            let mut cut = entry(append.clone());
            cut.body.truncate(length);
            assert!(to_publish(&cut, Millis(0)).is_err(), "{length}");
        }
        let mut changed = entry(append);
        changed.origin.qos = 3;
        assert!(to_publish(&changed, Millis(0)).is_err());
    }
}
