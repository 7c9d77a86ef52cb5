//! Golden bytes from the specifications' examples, tables of what they forbid, round trips and mutations.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::arbitrary::{packet_v5, packet_v311};
use super::{DecodeError, EncodeError, decode, encode, encoded_len};
use crate::mqtt::packet::{
    Ack, Auth, AuthProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties,
    Packet, PacketId, Password, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    SubAck, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter, TopicName, UnsubAck,
    Unsubscribe, Will,
};
use ProtocolVersion::{V5, V311};

const LIMIT: usize = 1 << 20;

/// Bytes written as hex, with spaces where they help.
pub(in crate::mqtt) fn bytes_of(hex: &str) -> BytesMut {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let text = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(text, 16).expect("hex")
        })
        .collect()
}

fn read(hex: &str, version: Option<ProtocolVersion>) -> Result<Option<Packet>, DecodeError> {
    decode(&mut bytes_of(hex), version, LIMIT)
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("valid")
}

fn at_most(maximum_qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { maximum_qos, ..SubscriptionOptions::default() }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_specifications_examples_are_read_and_written() {
    let check = |version, hex: &str, packet: Packet| {
        assert_eq!(read(hex, Some(version)), Ok(Some(packet.clone())), "{hex}");
        let mut written = BytesMut::new();
        encode(&packet, version, &mut written).expect("valid");
        assert_eq!(written, bytes_of(hex), "{packet:?}");
        assert_eq!(encoded_len(&packet, version), Ok(written.len()));
    };
    let connect = |version, properties| {
        Packet::Connect(Box::new(Connect {
            version,
            clean_start: true,
            keep_alive_secs: 10,
            client_id: "c".into(),
            will: Some(Will {
                topic: TopicName::new("w").expect("valid"),
                payload: Bytes::from_static(b"x"),
                qos: QoS::AtLeastOnce,
                retain: false,
                delay_interval_secs: 0,
                properties: Default::default(),
            }),
            username: Some("u".into()),
            password: Some(Password(Bytes::from_static(b"p"))),
            properties,
        }))
    };
    // Section 3.1.2.10 of 3.1.1: flags CE, keep alive 10. Section 3.1.2.12: with a Session Expiry Interval of 10.
    check(
        V311,
        "10 19 0004 4D515454 04 CE 000A 0001 63 0001 77 0001 78 0001 75 0001 70",
        connect(V311, ConnectProperties::default()),
    );
    let expiry = ConnectProperties {
        session_expiry_interval_secs: Some(10),
        ..ConnectProperties::default()
    };
    check(
        V5,
        "10 20 0004 4D515454 05 CE 000A 05 11 0000000A 0001 63 00 0001 77 0001 78 0001 75 0001 70",
        connect(V5, expiry),
    );
    // Section 3.3.2.2: topic a/b, packet identifier 10.
    let publish = Packet::Publish(Box::new(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::new("a/b").ok(),
        packet_id: PacketId::new(10),
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"hi"),
    }));
    check(V311, "32 09 0003 612F62 000A 6869", publish.clone());
    check(V5, "32 0A 0003 612F62 000A 00 6869", publish);
    // Section 3.8.3: a/b with QoS 1, c/d with QoS 2.
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: id(10),
        properties: SubscribeProperties::default(),
        filters: vec![
            (filter("a/b"), at_most(QoS::AtLeastOnce)),
            (filter("c/d"), at_most(QoS::ExactlyOnce)),
        ],
    });
    check(V311, "82 0E 000A 0003 612F62 01 0003 632F64 02", subscribe.clone());
    check(V5, "82 0F 000A 00 0003 612F62 01 0003 632F64 02", subscribe);
    // Section 3.9.3 of 3.1.1: QoS 0, QoS 2, failure.
    let suback = Packet::SubAck(SubAck {
        packet_id: id(10),
        properties: Default::default(),
        reasons: vec![ReasonCode::Success, ReasonCode::GrantedQos2, ReasonCode::UnspecifiedError],
    });
    check(V311, "90 05 000A 00 02 80", suback.clone());
    check(V5, "90 06 000A 00 00 02 80", suback);
    // Section 3.10.3
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(10),
        user_properties: Vec::new(),
        filters: vec![filter("a/b"), filter("c/d")],
    });
    check(V311, "A2 0C 000A 0003 612F62 0003 632F64", unsubscribe.clone());
    check(V5, "A2 0D 000A 00 0003 612F62 0003 632F64", unsubscribe);
    let unsuback =
        |reasons| UnsubAck { packet_id: id(10), properties: Default::default(), reasons };
    check(V311, "B0 02 000A", Packet::UnsubAck(unsuback(Vec::new())));
    check(
        V5,
        "B0 04 000A 00 11",
        Packet::UnsubAck(unsuback(vec![ReasonCode::NoSubscriptionExisted])),
    );
    check(V311, "C0 00", Packet::PingReq);
    check(V5, "D0 00", Packet::PingResp);
    let disconnect = |reason| {
        Packet::Disconnect(Disconnect { reason, properties: DisconnectProperties::default() })
    };
    check(V311, "E0 00", disconnect(ReasonCode::Success));
    check(V5, "E0 00", disconnect(ReasonCode::Success));
    check(V5, "E0 01 04", disconnect(ReasonCode::DisconnectWithWillMessage));
    check(V5, "40 02 0001", Packet::PubAck(Ack::new(id(1), ReasonCode::Success)));
    check(V5, "50 03 0001 97", Packet::PubRec(Ack::new(id(1), ReasonCode::QuotaExceeded)));
    check(V311, "62 02 0001", Packet::PubRel(Ack::new(id(1), ReasonCode::Success)));
    check(V311, "70 02 0001", Packet::PubComp(Ack::new(id(1), ReasonCode::Success)));
    let auth =
        AuthProperties { authentication_method: Some("M".into()), ..AuthProperties::default() };
    let reason = ReasonCode::ReAuthenticate;
    check(V5, "F0 06 19 04 15 0001 4D", Packet::Auth(Auth { reason, properties: auth }));
}

#[test]
fn variable_byte_integers_have_the_lengths_of_section_1_5_5() {
    let check = |hex: &str, expected: Result<Option<(u32, usize)>, ()>| {
        let read = super::reader::variable_byte_integer(&bytes_of(hex)).map_err(|_| ());
        assert_eq!(read, expected, "{hex}");
    };
    check("00", Ok(Some((0, 1))));
    check("7F", Ok(Some((127, 1))));
    check("80 01", Ok(Some((128, 2))));
    check("FF 7F", Ok(Some((16_383, 2))));
    check("80 80 01", Ok(Some((16_384, 3))));
    check("FF FF 7F", Ok(Some((2_097_151, 3))));
    check("80 80 80 01", Ok(Some((2_097_152, 4))));
    check("FF FF FF 7F", Ok(Some((268_435_455, 4))));
    check("", Ok(None));
    check("FF FF FF", Ok(None));
    check("FF FF FF FF", Err(()));
    check("80 80 80 80", Err(()));
    check("80 00", Err(()));
    check("FF 80 00", Err(()));
}

/// A packet that breaks one rule, its connection's version (`None`: before CONNECT), and the reason that it gets.
fn check_refused(cases: &[(&str, Option<ProtocolVersion>, &str, ReasonCode)]) {
    for (rule, version, hex, expected) in cases {
        match read(hex, *version) {
            Err(error) => assert_eq!(error.reason(), *expected, "{rule}: {error}"),
            other => panic!("{rule}: {other:?}"),
        }
    }
}

const MALFORMED: ReasonCode = ReasonCode::MalformedPacket;
const PROTOCOL: ReasonCode = ReasonCode::ProtocolError;

#[test]
fn malformed_headers_and_strings_are_refused() {
    check_refused(&[
        ("type 0", Some(V5), "00 00", MALFORMED),
        ("AUTH in 3.1.1", Some(V311), "F0 00", MALFORMED),
        ("reserved flags of CONNECT [MQTT-2.1.3-1]", None, "11 00", MALFORMED),
        ("flags of CONNACK", Some(V5), "21 00", MALFORMED),
        ("flags of PUBACK", Some(V311), "41 02 0001", MALFORMED),
        ("flags of PUBREL [MQTT-3.6.1-1]", Some(V5), "60 02 0001", MALFORMED),
        ("flags of SUBSCRIBE [MQTT-3.8.1-1]", Some(V5), "80 02 0001", MALFORMED),
        ("flags of UNSUBSCRIBE [MQTT-3.10.1-1]", Some(V5), "A0 02 0001", MALFORMED),
        ("flags of PINGREQ", Some(V311), "C1 00", MALFORMED),
        ("flags of DISCONNECT [MQTT-3.14.1-1]", Some(V311), "E1 00", MALFORMED),
        ("flags of AUTH [MQTT-3.15.1-1]", Some(V5), "F1 00", MALFORMED),
        ("remaining length of five bytes", Some(V5), "C0 80 80 80 80", MALFORMED),
        ("remaining length longer than it need be [MQTT-1.5.5-1]", Some(V5), "C0 80 00", MALFORMED),
        ("a body of PINGREQ", Some(V311), "C0 01 00", MALFORMED),
        ("the first packet is not CONNECT [MQTT-3.1.0-1]", None, "C0 00", PROTOCOL),
        ("a topic that is not UTF-8 [MQTT-1.5.4-1]", Some(V311), "30 03 0001 FF", MALFORMED),
        ("a surrogate [MQTT-1.5.4-1]", Some(V311), "30 05 0003 EDA080", MALFORMED),
        ("U+0000 [MQTT-1.5.4-2]", Some(V5), "30 04 0001 00 00", MALFORMED),
        ("a string longer than the packet", Some(V311), "30 03 0005 61", MALFORMED),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn malformed_connects_are_refused() {
    check_refused(&[
        ("another protocol", None, "10 0C 0004 48545450 04 02 0000 0000", MALFORMED),
        ("reserved flag [MQTT-3.1.2-3]", None, "10 0C 0004 4D515454 04 03 0000 0000", MALFORMED),
        (
            "will QoS without will [MQTT-3.1.2-11]",
            None,
            "10 0C 0004 4D515454 04 0A 0000 0000",
            MALFORMED,
        ),
        (
            "will QoS 3 [MQTT-3.1.2-12]",
            None,
            "10 12 0004 4D515454 04 1E 0000 0000 0001 61 0001 62",
            MALFORMED,
        ),
        (
            "will retain without will [MQTT-3.1.2-13]",
            None,
            "10 0C 0004 4D515454 04 22 0000 0000",
            MALFORMED,
        ),
        (
            "password without user name in 3.1.1",
            None,
            "10 0F 0004 4D515454 04 42 0000 0000 0001 70",
            MALFORMED,
        ),
        ("user name missing", None, "10 0C 0004 4D515454 04 82 0000 0000", MALFORMED),
        ("bytes after the end", None, "10 0D 0004 4D515454 04 02 0000 0000 00", MALFORMED),
        (
            "wildcard in the will topic",
            None,
            "10 12 0004 4D515454 04 06 0000 0000 0001 23 0001 62",
            MALFORMED,
        ),
        ("receive maximum 0", None, "10 10 0004 4D515454 05 02 0000 03 21 0000 0000", PROTOCOL),
        (
            "maximum packet size 0",
            None,
            "10 12 0004 4D515454 05 02 0000 05 27 00000000 0000",
            PROTOCOL,
        ),
        (
            "request problem information 2",
            None,
            "10 0F 0004 4D515454 05 02 0000 02 17 02 0000",
            PROTOCOL,
        ),
        (
            "a property twice",
            None,
            "10 13 0004 4D515454 05 02 0000 06 21 0001 21 0001 0000",
            PROTOCOL,
        ),
        (
            "authentication data without method",
            None,
            "10 10 0004 4D515454 05 02 0000 03 16 0000 0000",
            PROTOCOL,
        ),
        (
            "a property of PUBLISH",
            None,
            "10 10 0004 4D515454 05 02 0000 03 23 0001 0000",
            MALFORMED,
        ),
        ("an unknown property", None, "10 0F 0004 4D515454 05 02 0000 02 7E 00 0000", MALFORMED),
        (
            "a property of two bytes that does not exist",
            None,
            "10 10 0004 4D515454 05 02 0000 03 80 01 00 0000",
            MALFORMED,
        ),
        (
            "properties longer than the packet",
            None,
            "10 0D 0004 4D515454 05 02 0000 7F 00 00",
            MALFORMED,
        ),
        (
            "a property that ends early",
            None,
            "10 0F 0004 4D515454 05 02 0000 02 21 00 0000",
            MALFORMED,
        ),
    ]);
}

#[test]
fn other_versions_are_told_apart() {
    let check = |hex: &str, level: u8, answer_in: ProtocolVersion| {
        let expected = Err(DecodeError::UnsupportedVersion { level, answer_in });
        assert_eq!(read(hex, None), expected, "{hex}");
    };
    check("10 0E 0006 4D5149736470 03 02 0000 0000", 3, V311);
    check("10 0E 0006 4D5149736470 04 02 0000 0000", 4, V311);
    check("10 0C 0004 4D515454 03 02 0000 0000", 3, V311);
    check("10 0C 0004 4D515454 06 02 0000 0000", 6, V5);
    // A bridge of some brokers sets the high bit of 3.1.1's level.
    check("10 0C 0004 4D515454 84 02 0000 0000", 0x84, V5);
}

#[test]
fn malformed_publishes_and_acknowledgements_are_refused() {
    check_refused(&[
        ("QoS 3 [MQTT-3.3.1-4]", Some(V311), "36 05 0001 61 0001", MALFORMED),
        ("DUP with QoS 0 [MQTT-3.3.1-2]", Some(V311), "38 03 0001 61", MALFORMED),
        ("packet id 0 [MQTT-2.2.1-3]", Some(V311), "32 05 0001 61 0000", PROTOCOL),
        ("wildcard [MQTT-3.3.2-2]", Some(V311), "30 03 0001 2B", MALFORMED),
        ("empty topic in 3.1.1 [MQTT-4.7.3-1]", Some(V311), "30 02 0000", MALFORMED),
        ("empty topic without alias", Some(V5), "30 03 0000 00", PROTOCOL),
        ("topic alias 0 [MQTT-3.3.2-8]", Some(V5), "30 06 0000 03 23 0000", PROTOCOL),
        ("topic alias twice", Some(V5), "30 09 0000 06 23 0001 23 0001", PROTOCOL),
        ("subscription identifier 0", Some(V5), "30 06 0001 61 02 0B 00", PROTOCOL),
        ("payload format 2", Some(V5), "30 06 0001 61 02 01 02", PROTOCOL),
        (
            "wildcard in the response topic [MQTT-3.3.2-14]",
            Some(V5),
            "30 08 0001 61 04 08 0001 23",
            MALFORMED,
        ),
        ("PUBACK without packet id", Some(V311), "40 00", MALFORMED),
        ("PUBACK with packet id 0", Some(V311), "40 02 0000", PROTOCOL),
        ("PUBACK with a reason in 3.1.1", Some(V311), "40 03 0001 00", MALFORMED),
        ("PUBACK with an unknown reason", Some(V5), "40 03 0001 01", PROTOCOL),
        ("PUBACK with a number that is no reason", Some(V5), "40 03 0001 05", MALFORMED),
        ("PUBREL with a reason of PUBACK", Some(V5), "62 03 0001 97", PROTOCOL),
        ("PUBCOMP with two reason strings", Some(V5), "70 0A 0001 00 06 1F 0000 1F 0000", PROTOCOL),
    ]);
}

#[test]
fn malformed_subscribes_and_the_rest_are_refused() {
    check_refused(&[
        ("no filter [MQTT-3.8.3-2]", Some(V311), "82 02 0001", PROTOCOL),
        ("no filter in 5.0", Some(V5), "82 03 0001 00", PROTOCOL),
        ("packet id 0", Some(V311), "82 06 0000 0001 61 00", PROTOCOL),
        ("QoS 3 in 3.1.1", Some(V311), "82 06 0001 0001 61 03", PROTOCOL),
        ("options in 3.1.1", Some(V311), "82 06 0001 0001 61 04", MALFORMED),
        ("reserved options [MQTT-3.8.3-5]", Some(V5), "82 07 0001 00 0001 61 40", MALFORMED),
        ("retain handling 3", Some(V5), "82 07 0001 00 0001 61 30", PROTOCOL),
        ("# in the middle [MQTT-4.7.1-1]", Some(V311), "82 08 0001 0003 232F61 00", MALFORMED),
        ("+ within a level [MQTT-4.7.1-2]", Some(V311), "82 07 0001 0002 612B 00", MALFORMED),
        (
            "$share without filter [MQTT-4.8.2-1]",
            Some(V5),
            "82 0E 0001 00 0008 247368617265 2F67 00",
            MALFORMED,
        ),
        (
            "no local on a shared one [MQTT-3.8.3-4]",
            Some(V5),
            "82 10 0001 00 000A 247368617265 2F672F61 04",
            PROTOCOL,
        ),
        ("subscription identifier 0", Some(V5), "82 09 0001 02 0B 00 0001 61 00", PROTOCOL),
        (
            "two subscription identifiers",
            Some(V5),
            "82 0B 0001 04 0B 01 0B 02 0001 61 00",
            PROTOCOL,
        ),
        ("a filter without options", Some(V311), "82 05 0001 0001 61", MALFORMED),
        ("UNSUBSCRIBE without filter [MQTT-3.10.3-2]", Some(V5), "A2 03 0001 00", PROTOCOL),
        ("UNSUBSCRIBE with packet id 0", Some(V311), "A2 05 0000 0001 61", PROTOCOL),
        ("SUBACK with 0x03 in 3.1.1", Some(V311), "90 03 0001 03", MALFORMED),
        ("SUBACK without reasons", Some(V311), "90 02 0001", PROTOCOL),
        ("CONNACK with reserved flags [MQTT-3.2.2-1]", Some(V5), "20 03 02 00 00", MALFORMED),
        (
            "CONNACK: session present in a refusal [MQTT-3.2.2-6]",
            Some(V5),
            "20 03 01 87 00",
            PROTOCOL,
        ),
        ("CONNACK with code 6 in 3.1.1", Some(V311), "20 02 00 06", MALFORMED),
        ("DISCONNECT with a body in 3.1.1", Some(V311), "E0 01 00", MALFORMED),
        ("DISCONNECT with a reason of CONNACK", Some(V5), "E0 01 84", PROTOCOL),
        ("AUTH without method", Some(V5), "F0 02 18 00", PROTOCOL),
        ("AUTH with a reason of DISCONNECT", Some(V5), "F0 02 04 00", PROTOCOL),
    ]);
}

#[test]
fn a_packet_over_the_limit_is_refused_before_it_is_there() {
    let limit = 100;
    let too_large = |hex: &str| decode(&mut bytes_of(hex), Some(V5), limit);
    assert_eq!(
        too_large("30 FF FF FF 7F"),
        Err(DecodeError::TooLarge { bytes: 268_435_460, limit })
    );
    assert_eq!(too_large("30 63"), Err(DecodeError::TooLarge { bytes: 101, limit }));
    assert_eq!(too_large("30 62"), Ok(None));
    assert_eq!(DecodeError::TooLarge { bytes: 101, limit }.reason(), ReasonCode::PacketTooLarge);
}

#[test]
fn a_topic_with_too_many_levels_is_refused_as_the_servers_limit() {
    let name = "/".repeat(200);
    let mut wire = BytesMut::new();
    wire.extend_from_slice(&[0x30, 0xCB, 0x01, 0x00, 200]);
    wire.extend_from_slice(name.as_bytes());
    wire.extend_from_slice(&[0]);
    let error = decode(&mut wire, Some(V5), LIMIT).expect_err("too many levels");
    assert_eq!(error.reason(), ReasonCode::TopicNameInvalid);
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut out = BytesMut::from("before");
    let auth = Packet::Auth(Auth { reason: ReasonCode::Success, properties: Default::default() });
    assert_eq!(encode(&auth, V311, &mut out), Err(EncodeError::NotInVersion("AUTH")));
    let publish = |response: usize| {
        let mut properties = PublishProperties::default();
        properties.message.correlation_data = Some(Bytes::from(vec![0; response]));
        Packet::Publish(Box::new(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: TopicName::new("a").ok(),
            packet_id: None,
            properties,
            payload: Bytes::new(),
        }))
    };
    assert_eq!(encode(&publish(65_536), V5, &mut out), Err(EncodeError::FieldTooLong(65_536)));
    assert_eq!(out, "before");
    assert_eq!(encode(&publish(65_535), V5, &mut out), Ok(()));
}

#[test]
fn a_payload_is_a_slice_of_what_was_read() {
    let mut buffer = bytes_of("30 07 0001 61 00 010203");
    let start = buffer.as_ptr() as usize;
    let Ok(Some(Packet::Publish(publish))) = decode(&mut buffer, Some(V5), LIMIT) else {
        panic!("a PUBLISH");
    };
    assert_eq!(publish.payload.as_ptr() as usize, start + 6);
}

fn round_trip(packet: &Packet, version: ProtocolVersion) {
    let mut wire = BytesMut::new();
    encode(packet, version, &mut wire).expect("a valid packet");
    assert_eq!(encoded_len(packet, version), Ok(wire.len()));
    // Every beginning of it is unfinished, or is already known to be wrong; none is a packet.
    for length in 0..wire.len() {
        let mut part = BytesMut::from(&wire[..length]);
        assert_eq!(decode(&mut part, Some(version), LIMIT), Ok(None), "{length} of {packet:?}");
        assert_eq!(part.len(), length, "an unfinished packet stays in the buffer");
    }
    wire.extend_from_slice(b"next");
    assert_eq!(decode(&mut wire, Some(version), LIMIT), Ok(Some(packet.clone())));
    assert_eq!(wire, "next");
}

proptest! {
    #[test]
    fn packets_of_5_0_come_back(packet in packet_v5()) {
        round_trip(&packet, V5);
    }

    #[test]
    fn packets_of_3_1_1_come_back(packet in packet_v311()) {
        round_trip(&packet, V311);
    }

    #[test]
    fn changed_bytes_never_panic_and_what_is_read_can_be_written(
        packet in packet_v5(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        version in prop_oneof![Just(None), Just(Some(V311)), Just(Some(V5))],
    ) {
        let mut wire = BytesMut::new();
        encode(&packet, V5, &mut wire).expect("a valid packet");
        for (index, byte) in changes {
            let at = index.index(wire.len());
            wire[at] = byte;
        }
        let Ok(Some(read)) = decode(&mut wire, version, LIMIT) else { return Ok(()) };
        let version = match &read {
            Packet::Connect(connect) => connect.version,
            _ => version.unwrap_or(V5),
        };
        let mut again = BytesMut::new();
        encode(&read, version, &mut again).expect("what was read can be written");
        prop_assert_eq!(decode(&mut again, Some(version), LIMIT), Ok(Some(read)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), v5 in any::<bool>()) {
        let version = if v5 { V5 } else { V311 };
        let _ = decode(&mut BytesMut::from(&bytes[..]), Some(version), LIMIT);
        let _ = decode(&mut BytesMut::from(&bytes[..]), None, LIMIT);
    }
}
