//! Against `mqttbytes` 0.6, an independent codec: both have to read valid packets alike, and what it refuses is refused
//! here too. It is lax and has faults of its own; those that matter are listed as data.

use std::panic::catch_unwind;

use bytes::BytesMut;
use mqttbytes::{Error, v4, v5};
use proptest::prelude::*;

use super::arbitrary::{packet_v5, packet_v311};
use super::tests::bytes_of;
use super::{decode, encode};
use crate::mqtt::packet::{Packet, ProtocolVersion};

const LIMIT: usize = 1 << 20;

fn wire(packet: &Packet, version: ProtocolVersion) -> BytesMut {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).expect("a valid packet");
    out
}

/// What both codecs can say about a packet, in the same words.
fn ours(packet: &Packet) -> String {
    match packet {
        Packet::Connect(p) => {
            let will = p
                .will
                .as_ref()
                .map(|w| (w.topic.as_str().to_owned(), w.payload.clone(), w.qos.as_u8(), w.retain));
            format!("connect {:?} {} {} {will:?}", p.client_id, p.clean_start, p.keep_alive_secs)
        }
        Packet::ConnAck(p) => format!("connack {}", p.session_present),
        Packet::Publish(p) => format!(
            "publish {} {} {} {:?} {} {:?}",
            p.dup,
            p.qos.as_u8(),
            p.retain,
            p.topic.as_ref().map_or("", |topic| topic.as_str()),
            p.packet_id.map_or(0, |id| id.get()),
            p.payload,
        ),
        Packet::PubAck(p) => format!("puback {}", p.packet_id),
        Packet::PubRec(p) => format!("pubrec {}", p.packet_id),
        Packet::PubRel(p) => format!("pubrel {}", p.packet_id),
        Packet::PubComp(p) => format!("pubcomp {}", p.packet_id),
        Packet::Subscribe(p) => {
            let filters: Vec<_> = p
                .filters
                .iter()
                .map(|(f, o)| (f.as_str().to_owned(), o.maximum_qos.as_u8()))
                .collect();
            format!("subscribe {} {filters:?}", p.packet_id)
        }
        Packet::SubAck(p) => format!("suback {} {}", p.packet_id, p.reasons.len()),
        Packet::Unsubscribe(p) => {
            let filters: Vec<_> = p.filters.iter().map(|f| f.as_str()).collect();
            format!("unsubscribe {} {filters:?}", p.packet_id)
        }
        Packet::UnsubAck(p) => format!("unsuback {}", p.packet_id),
        Packet::PingReq => "pingreq".into(),
        Packet::PingResp => "pingresp".into(),
        Packet::Disconnect(_) => "disconnect".into(),
        Packet::Auth(_) => "auth".into(),
    }
}

macro_rules! theirs {
    ($name:ident, $module:ident, $filters:ident, $disconnect:pat) => {
        fn $name(packet: &$module::Packet) -> String {
            use $module::Packet as P;
            match packet {
                P::Connect(p) => {
                    let will = p
                        .last_will
                        .as_ref()
                        .map(|w| (w.topic.clone(), w.message.clone(), w.qos as u8, w.retain));
                    format!(
                        "connect {:?} {} {} {will:?}",
                        p.client_id, p.clean_session, p.keep_alive
                    )
                }
                P::ConnAck(p) => format!("connack {}", p.session_present),
                P::Publish(p) => format!(
                    "publish {} {} {} {:?} {} {:?}",
                    p.dup, p.qos as u8, p.retain, p.topic, p.pkid, p.payload,
                ),
                P::PubAck(p) => format!("puback {}", p.pkid),
                P::PubRec(p) => format!("pubrec {}", p.pkid),
                P::PubRel(p) => format!("pubrel {}", p.pkid),
                P::PubComp(p) => format!("pubcomp {}", p.pkid),
                P::Subscribe(p) => {
                    let filters: Vec<_> =
                        p.filters.iter().map(|f| (f.path.clone(), f.qos as u8)).collect();
                    format!("subscribe {} {filters:?}", p.pkid)
                }
                P::SubAck(p) => format!("suback {} {}", p.pkid, p.return_codes.len()),
                P::Unsubscribe(p) => format!("unsubscribe {} {:?}", p.pkid, $filters(p)),
                P::UnsubAck(p) => format!("unsuback {}", p.pkid),
                P::PingReq => "pingreq".into(),
                P::PingResp => "pingresp".into(),
                $disconnect => "disconnect".into(),
            }
        }
    };
}

fn filters_v4(p: &v4::Unsubscribe) -> &[String] {
    &p.topics
}

fn filters_v5(p: &v5::Unsubscribe) -> &[String] {
    &p.filters
}

theirs!(theirs_v4, v4, filters_v4, P::Disconnect);
theirs!(theirs_v5, v5, filters_v5, P::Disconnect(_));

/// Valid packets that `mqttbytes` 0.6 refuses or misreads, by the name of what it lacks.
fn known_difference(packet: &Packet, version: ProtocolVersion) -> Option<&'static str> {
    let v5 = version == ProtocolVersion::V5;
    match packet {
        Packet::Auth(_) => Some("it has no AUTH"),
        Packet::Disconnect(_) if v5 && wire(packet, version).len() <= 3 => {
            Some("it refuses a v5 DISCONNECT without properties, also E0 00")
        }
        Packet::Connect(p) if p.password.is_some() && p.username.is_none() => {
            Some("it reads no password without a user name")
        }
        Packet::Connect(p)
            if p.password.as_ref().is_some_and(|word| std::str::from_utf8(&word.0).is_err()) =>
        {
            Some("it takes a password for text")
        }
        _ => None,
    }
}

proptest! {
    #[test]
    fn valid_packets_of_3_1_1_are_read_alike(packet in packet_v311()) {
        prop_assume!(known_difference(&packet, ProtocolVersion::V311).is_none());
        let read = v4::read(&mut wire(&packet, ProtocolVersion::V311), LIMIT);
        prop_assert_eq!(read.map(|p| theirs_v4(&p)), Ok(ours(&packet)));
    }

    #[test]
    fn valid_packets_of_5_0_are_read_alike(packet in packet_v5()) {
        prop_assume!(known_difference(&packet, ProtocolVersion::V5).is_none());
        let read = v5::read(&mut wire(&packet, ProtocolVersion::V5), LIMIT);
        prop_assert_eq!(read.map(|p| theirs_v5(&p)), Ok(ours(&packet)));
    }

    #[test]
    fn what_the_other_codec_refuses_in_3_1_1_is_refused_here(
        packet in packet_v311(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        prop_assume!(known_difference(&packet, ProtocolVersion::V311).is_none());
        let mut bytes = wire(&packet, ProtocolVersion::V311);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let theirs = catch_unwind(|| v4::read(&mut bytes.clone(), LIMIT));
        let ours = decode(&mut bytes.clone(), Some(ProtocolVersion::V311), LIMIT);
        if let (Ok(Err(refusal)), Ok(Some(read))) = (theirs, ours) {
            let known = matches!(refusal, Error::InsufficientBytes(_))
                || known_difference(&read, ProtocolVersion::V311).is_some();
            prop_assert!(known, "{:?} refused as {:?}, read here as {:?}", bytes, refusal, read);
        }
    }
}

#[test]
fn known_faults_of_the_other_codec_are_none_of_ours() {
    use ProtocolVersion::{V5, V311};
    // (what, version, bytes, whether it is valid)
    let cases = [
        ("a normal v5 DISCONNECT", V5, "E0 00", true),
        ("AUTH", V5, "F0 00", true),
        ("a reserved flag in CONNECT", V311, "10 0C 00 04 4D 51 54 54 04 03 00 00 00 00", false),
        ("DUP with QoS 0", V311, "38 03 00 01 61", false),
        ("a wildcard in a topic name", V311, "30 03 00 01 23", false),
        ("U+0000 in a topic name", V311, "30 03 00 01 00", false),
        ("a bad filter", V311, "82 07 00 01 00 02 61 23 00", false),
        ("wrong flags of PUBREL", V311, "60 02 00 01", false),
        ("bytes after the end of PUBACK", V311, "40 03 00 01 00", false),
    ];
    for (what, version, hex, valid) in cases {
        let bytes = bytes_of(hex);
        let ours = decode(&mut bytes.clone(), Some(version), LIMIT);
        assert_eq!(ours.is_ok(), valid, "{what}");
        let theirs = match version {
            V311 => v4::read(&mut bytes.clone(), LIMIT).is_ok(),
            V5 => v5::read(&mut bytes.clone(), LIMIT).is_ok(),
        };
        assert_eq!(theirs, !valid, "the other codec has changed its mind about {what}");
    }
}

#[test]
fn the_other_codec_takes_properties_for_payload_after_two_subscription_identifiers() {
    let bytes = bytes_of("30 0B 0001 61 06 0B05 0B06 0100 78");
    let Ok(Some(Packet::Publish(ours))) =
        decode(&mut bytes.clone(), Some(ProtocolVersion::V5), LIMIT)
    else {
        panic!("a PUBLISH");
    };
    assert_eq!(ours.payload, "x");
    assert_eq!(ours.properties.subscription_identifiers.len(), 2);
    let Ok(v5::Packet::Publish(theirs)) = v5::read(&mut bytes.clone(), LIMIT) else {
        panic!("a PUBLISH");
    };
    assert_eq!(theirs.payload, &b"\x01\x00x"[..], "the other codec has changed");
}
