//! Arbitrary valid packets, for round trips, mutations and the comparison with another codec.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use crate::mqtt::packet::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, MessageProperties, Packet, PacketId,
    Password, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck,
    Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter, TopicName, UnsubAck,
    Unsubscribe, UserProperties, Will,
};

fn text() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,6}".prop_map(Into::into)
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Into::into)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![binary(), vec(any::<u8>(), 100..200).prop_map(Into::into)]
}

fn topic() -> impl Strategy<Value = TopicName> {
    "[a-zé /$]{1,9}".prop_map(|name| TopicName::new(&name).expect("valid"))
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    "([$]share/g/)?([a-z]{0,3}/|[+]/){0,3}([a-z]{1,3}|[+]|#)"
        .prop_map(|filter| TopicFilter::new(&filter).expect("valid"))
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn nonzero_u16() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|n| NonZeroU16::new(n).expect("not 0"))
}

fn nonzero_u32(limit: u32) -> impl Strategy<Value = NonZeroU32> {
    (1..=limit).prop_map(|n| NonZeroU32::new(n).expect("not 0"))
}

const SUBSCRIPTION_IDENTIFIERS: u32 = 268_435_455;

fn message() -> impl Strategy<Value = MessageProperties> {
    (of(any::<bool>()), of(any::<u32>()), of(text()), of(topic()), of(binary()), user()).prop_map(
        |(utf8, expiry, content_type, response_topic, correlation_data, user_properties)| {
            MessageProperties {
                payload_is_utf8: utf8,
                message_expiry_interval_secs: expiry,
                content_type,
                response_topic,
                correlation_data,
                user_properties,
            }
        },
    )
}

fn publish() -> impl Strategy<Value = Packet> {
    let identifiers = vec(nonzero_u32(SUBSCRIPTION_IDENTIFIERS), 0..3);
    let properties = (message(), of(nonzero_u16()), identifiers);
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic(),
        any::<bool>(),
        packet_id(),
        properties,
        payload(),
    )
        .prop_map(|(dup, qos, retain, topic, named, id, properties, payload)| {
            let (message, topic_alias, subscription_identifiers) = properties;
            Packet::Publish(Box::new(Publish {
                dup: dup && qos > QoS::AtMostOnce,
                qos,
                retain,
                topic: (named || topic_alias.is_none()).then_some(topic),
                packet_id: (qos > QoS::AtMostOnce).then_some(id),
                properties: PublishProperties { message, topic_alias, subscription_identifiers },
                payload,
            }))
        })
}

fn will() -> impl Strategy<Value = Will> {
    (topic(), binary(), qos(), any::<bool>(), 0..9_u32, message()).prop_map(
        |(topic, payload, qos, retain, delay_interval_secs, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            delay_interval_secs,
            properties,
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    let numbers = (
        of(any::<u32>()),
        of(nonzero_u16()),
        of(nonzero_u32(u32::MAX)),
        of(any::<u16>()),
        of(any::<bool>()),
        of(any::<bool>()),
    );
    (numbers, of(text()), of(binary()), user()).prop_map(|(numbers, method, data, user)| {
        ConnectProperties {
            session_expiry_interval_secs: numbers.0,
            receive_maximum: numbers.1,
            maximum_packet_size: numbers.2,
            topic_alias_maximum: numbers.3,
            request_response_information: numbers.4,
            request_problem_information: numbers.5,
            authentication_data: data.filter(|_| method.is_some()),
            authentication_method: method,
            user_properties: user,
        }
    })
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    let identity = (text(), of(text()), of(binary()));
    (any::<bool>(), any::<u16>(), of(will()), identity, connect_properties()).prop_map(
        move |(clean_start, keep_alive_secs, will, identity, properties)| {
            let (client_id, username, password) = identity;
            let v311 = version == ProtocolVersion::V311;
            let password = password.filter(|_| !v311 || username.is_some()).map(Password);
            let connect = Connect {
                version,
                clean_start,
                keep_alive_secs,
                client_id,
                will,
                username,
                password,
                properties,
            };
            Packet::Connect(Box::new(connect))
        },
    )
}

fn connack() -> impl Strategy<Value = Packet> {
    let numbers =
        (of(any::<u32>()), of(nonzero_u16()), of(nonzero_u32(u32::MAX)), of(any::<u16>()));
    let flags = (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let texts = (of(text()), of(text()), of(text()), of(text()), of(text()), of(binary()));
    let reason = prop_oneof![
        Just(ReasonCode::Success),
        Just(ReasonCode::UnsupportedProtocolVersion),
        Just(ReasonCode::ServerUnavailable),
        Just(ReasonCode::NotAuthorized),
    ];
    let maximum_qos = of(prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]);
    (any::<bool>(), reason, numbers, flags, texts, maximum_qos, of(any::<u16>()), user()).prop_map(
        |(present, reason, numbers, flags, texts, maximum_qos, keep_alive, user_properties)| {
            let properties = ConnAckProperties {
                session_expiry_interval_secs: numbers.0,
                receive_maximum: numbers.1,
                maximum_qos,
                retain_available: flags.0,
                maximum_packet_size: numbers.2,
                assigned_client_identifier: texts.0,
                topic_alias_maximum: numbers.3,
                reason_string: texts.1,
                user_properties,
                wildcard_subscription_available: flags.1,
                subscription_identifiers_available: flags.2,
                shared_subscription_available: flags.3,
                server_keep_alive_secs: keep_alive,
                response_information: texts.2,
                server_reference: texts.3,
                authentication_method: texts.4,
                authentication_data: texts.5,
            };
            let session_present = present && reason == ReasonCode::Success;
            Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))
        },
    )
}

fn ack_properties() -> impl Strategy<Value = AckProperties> {
    (of(text()), user()).prop_map(|(reason_string, user_properties)| AckProperties {
        reason_string,
        user_properties,
    })
}

fn ack(error: ReasonCode) -> impl Strategy<Value = Ack> {
    let reason = prop_oneof![Just(ReasonCode::Success), Just(error)];
    (packet_id(), reason, ack_properties()).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

fn subscribe() -> impl Strategy<Value = Packet> {
    let handling = prop_oneof![
        Just(RetainHandling::SendAlways),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend),
    ];
    let one = (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(filter, maximum_qos, no_local, retain_as_published, retain_handling)| {
            let no_local = no_local && filter.shared().is_none();
            let options =
                SubscriptionOptions { maximum_qos, no_local, retain_as_published, retain_handling };
            (filter, options)
        },
    );
    (packet_id(), of(nonzero_u32(SUBSCRIPTION_IDENTIFIERS)), user(), vec(one, 1..4)).prop_map(
        |(packet_id, subscription_identifier, user_properties, filters)| {
            let properties = SubscribeProperties { subscription_identifier, user_properties };
            Packet::Subscribe(Subscribe { packet_id, properties, filters })
        },
    )
}

fn suback() -> impl Strategy<Value = Packet> {
    let reason = prop_oneof![
        Just(ReasonCode::Success),
        Just(ReasonCode::GrantedQos1),
        Just(ReasonCode::GrantedQos2),
        Just(ReasonCode::UnspecifiedError),
    ];
    (packet_id(), ack_properties(), vec(reason, 1..4)).prop_map(
        |(packet_id, properties, reasons)| {
            Packet::SubAck(SubAck { packet_id, properties, reasons })
        },
    )
}

fn unsubscribe() -> impl Strategy<Value = Packet> {
    (packet_id(), user(), vec(filter(), 1..4)).prop_map(|(packet_id, user_properties, filters)| {
        Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })
    })
}

fn unsuback() -> impl Strategy<Value = Packet> {
    let reason = prop_oneof![Just(ReasonCode::Success), Just(ReasonCode::NoSubscriptionExisted)];
    (packet_id(), ack_properties(), vec(reason, 1..4)).prop_map(
        |(packet_id, properties, reasons)| {
            Packet::UnsubAck(UnsubAck { packet_id, properties, reasons })
        },
    )
}

fn disconnect() -> impl Strategy<Value = Packet> {
    let reason = prop_oneof![Just(ReasonCode::Success), Just(ReasonCode::QuotaExceeded)];
    (reason, of(any::<u32>()), of(text()), user(), of(text())).prop_map(
        |(reason, session_expiry_interval_secs, reason_string, user_properties, reference)| {
            Packet::Disconnect(Disconnect {
                reason,
                properties: DisconnectProperties {
                    session_expiry_interval_secs,
                    reason_string,
                    user_properties,
                    server_reference: reference,
                },
            })
        },
    )
}

fn auth() -> impl Strategy<Value = Packet> {
    (text(), of(binary()), of(text()), user()).prop_map(
        |(method, authentication_data, reason_string, user_properties)| {
            Packet::Auth(Auth {
                reason: ReasonCode::ContinueAuthentication,
                properties: AuthProperties {
                    authentication_method: Some(method),
                    authentication_data,
                    reason_string,
                    user_properties,
                },
            })
        },
    )
}

/// Any packet of MQTT 5.0.
pub(in crate::mqtt) fn packet_v5() -> BoxedStrategy<Packet> {
    prop_oneof![
        connect(ProtocolVersion::V5),
        connack(),
        publish(),
        ack(ReasonCode::QuotaExceeded).prop_map(Packet::PubAck),
        ack(ReasonCode::QuotaExceeded).prop_map(Packet::PubRec),
        ack(ReasonCode::PacketIdentifierNotFound).prop_map(Packet::PubRel),
        ack(ReasonCode::PacketIdentifierNotFound).prop_map(Packet::PubComp),
        subscribe(),
        suback(),
        unsubscribe(),
        unsuback(),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect(),
        auth(),
    ]
    .boxed()
}

/// Any packet of MQTT 3.1.1: one of 5.0 without what 3.1.1 does not have.
pub(in crate::mqtt) fn packet_v311() -> BoxedStrategy<Packet> {
    let packet = prop_oneof![
        1 => connect(ProtocolVersion::V311),
        9 => packet_v5(),
    ];
    packet.prop_filter_map("it has no form in 3.1.1", strip).boxed()
}

fn strip(packet: Packet) -> Option<Packet> {
    Some(match packet {
        Packet::Connect(mut p) => {
            p.version = ProtocolVersion::V311;
            p.properties = ConnectProperties::default();
            p.password = p.password.filter(|_| p.username.is_some());
            if let Some(will) = &mut p.will {
                will.delay_interval_secs = 0;
                will.properties = MessageProperties::default();
            }
            Packet::Connect(p)
        }
        Packet::ConnAck(mut p) => {
            p.properties = ConnAckProperties::default();
            Packet::ConnAck(p)
        }
        Packet::Publish(mut p) => {
            p.properties = PublishProperties::default();
            p.topic.as_ref()?;
            Packet::Publish(p)
        }
        Packet::PubAck(p) => Packet::PubAck(Ack::new(p.packet_id, ReasonCode::Success)),
        Packet::PubRec(p) => Packet::PubRec(Ack::new(p.packet_id, ReasonCode::Success)),
        Packet::PubRel(p) => Packet::PubRel(Ack::new(p.packet_id, ReasonCode::Success)),
        Packet::PubComp(p) => Packet::PubComp(Ack::new(p.packet_id, ReasonCode::Success)),
        Packet::Subscribe(mut p) => {
            p.properties = SubscribeProperties::default();
            for (_, options) in &mut p.filters {
                *options = SubscriptionOptions {
                    maximum_qos: options.maximum_qos,
                    ..SubscriptionOptions::default()
                };
            }
            Packet::Subscribe(p)
        }
        Packet::SubAck(mut p) => {
            p.properties = AckProperties::default();
            Packet::SubAck(p)
        }
        Packet::Unsubscribe(mut p) => {
            p.user_properties.clear();
            Packet::Unsubscribe(p)
        }
        Packet::UnsubAck(mut p) => {
            p.properties = AckProperties::default();
            p.reasons.clear();
            Packet::UnsubAck(p)
        }
        Packet::Disconnect(_) => Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        }),
        Packet::Auth(_) => return None,
        Packet::PingReq | Packet::PingResp => packet,
    })
}
