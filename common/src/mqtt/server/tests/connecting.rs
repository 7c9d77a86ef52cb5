//! CONNECT, keep alive, takeover, the end of connections.

use super::{check, check_with};
use crate::mqtt::codec::{decode, tests::bytes_of};
use crate::mqtt::packet::{Packet, ProtocolVersion};
use crate::mqtt::server::ServerSettings;
use crate::mqtt::server::kit::{Kit, show};

#[test]
fn a_client_connects_and_pings() {
    check(
        "
        a < connect
        a > CONNACK
        a < ping
        a > PINGRESP
        b < connect v5
        b > CONNACK
    ",
    );
}

#[test]
fn anything_before_connect_closes_the_connection() {
    let mut kit = Kit::new(ServerSettings::default());
    let conn = kit.open(ProtocolVersion::V5);
    kit.recv(conn, Packet::PingReq);
    assert!(!kit.open.contains(&conn));
    assert!(!kit.packets.contains_key(&conn), "its version is not known, so nothing is sent");
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    check(
        "
        a < connect v5
        a > CONNACK
        a < again v5
        a > DISCONNECT ProtocolError
        a > CLOSED ProtocolError
    ",
    );
}

#[test]
fn connect_is_refused_with_the_reason_that_the_version_has() {
    check(
        "
        stranger < connect v5
        stranger > CONNACK NotAuthorized
        stranger > CLOSED NotAuthorized
        stranger < connect
        stranger > CONNACK NotAuthorized
        stranger > CLOSED NotAuthorized
        a < connect v5 method=SCRAM
        a > CONNACK BadAuthenticationMethod
        a > CLOSED BadAuthenticationMethod
        a < connect keep id=
        a > CONNACK ClientIdentifierNotValid
        a > CLOSED ClientIdentifierNotValid
        a < connect v5 will=denied/x=1
        a > CONNACK NotAuthorized
        a > CLOSED NotAuthorized
    ",
    );
    let settings = ServerSettings { max_sessions: 1, max_client_id_bytes: 4, ..Default::default() };
    check_with(
        settings,
        "
        a < connect v5
        a > CONNACK
        b < connect v5
        b > CONNACK QuotaExceeded
        b > CLOSED QuotaExceeded
        b < connect
        b > CONNACK ServerUnavailable
        b > CLOSED QuotaExceeded
        toolong < connect v5
        toolong > CONNACK ClientIdentifierNotValid
        toolong > CLOSED ClientIdentifierNotValid
    ",
    );
}

#[test]
fn an_empty_client_id_is_replaced() {
    check(
        "
        a < connect v5 id=
        a > CONNACK assigned=auto-
        b < connect id=
        b > CONNACK
    ",
    );
}

#[test]
fn assigned_ids_begin_as_the_driver_says_and_differ() {
    let assigned = |prefix: &str| {
        let settings = ServerSettings { assigned_id_prefix: prefix.into(), ..Default::default() };
        let mut kit = Kit::new(settings);
        kit.run("a < connect v5 id=\na > CONNACK assigned=auto-\nb < connect v5 id=\nb > CONNACK assigned=auto-");
        let acks = kit.packets.values().filter_map(|packets| match packets.first() {
            Some(Packet::ConnAck(ack)) => ack.properties.assigned_client_identifier.clone(),
            _ => None,
        });
        acks.collect::<Vec<_>>()
    };
    let (one, other) = (assigned("auto-one-"), assigned("auto-other-"));
    assert!(one.iter().all(|id| id.starts_with("auto-one-")), "{one:?}");
    let mut all = [one, other].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn a_connect_that_cannot_be_decoded_is_refused_in_words_that_the_client_understands() {
    let check = |hex: &str, version, expected: &[&str]| {
        let mut kit = Kit::new(ServerSettings::default());
        let conn = kit.open(version);
        let error = decode(&mut bytes_of(hex), None, 1000).expect_err("refused");
        kit.server.malformed(kit.now, conn, &error);
        kit.settle();
        let packets = kit.packets.get(&conn).cloned().unwrap_or_default();
        assert_eq!(packets.iter().map(show).collect::<Vec<_>>(), expected);
        assert!(!kit.open.contains(&conn));
    };
    let unsupported = "CONNACK UnsupportedProtocolVersion";
    check("10 0E 0006 4D5149736470 03 02 0000 0000", ProtocolVersion::V311, &[unsupported]);
    check("10 0C 0004 4D515454 06 02 0000 0000", ProtocolVersion::V5, &[unsupported]);
    let receive_maximum_0 = "10 10 0004 4D515454 05 02 0000 03 21 0000 0000";
    check(receive_maximum_0, ProtocolVersion::V5, &["CONNACK ProtocolError"]);
    let reserved_flag = "10 0D 0004 4D515454 05 03 0000 00 0000";
    check(reserved_flag, ProtocolVersion::V5, &["CONNACK MalformedPacket"]);
    check("10 0C 0004 4D515454 04 03 0000 0000", ProtocolVersion::V311, &[]);
    check("C0 00", ProtocolVersion::V5, &[]);
}

#[test]
fn limits_of_the_server_are_told_in_connack() {
    let settings = ServerSettings { max_keep_alive_secs: 60, ..Default::default() };
    check_with(
        settings,
        "
        a < connect v5 ka=0
        a > CONNACK ka=60
        b < connect v5 ka=61
        b > CONNACK ka=60
        c < connect v5 ka=30 expiry=4294967295
        c > CONNACK expiry=604800
    ",
    );
}

#[test]
fn a_second_connection_takes_the_session_over() {
    check(
        "
        a < connect v5 expiry=60
        a > CONNACK
        a < sub 1 x
        a > SUBACK 1 q2
        a < as old
        a < connect v5 keep expiry=60
        old > DISCONNECT SessionTakenOver
        old > CLOSED SessionTakenOver
        a > CONNACK present
        b < connect
        b > CONNACK
        b < pub x=1
        a > PUB x=1
    ",
    );
}

#[test]
fn clean_start_and_an_expired_session_begin_anew() {
    check(
        "
        a < connect v5 expiry=60
        a > CONNACK
        a < drop
        * after 59999
        a < connect v5 keep expiry=60
        a > CONNACK present
        a < drop
        * after 60000
        a < connect v5 keep expiry=60
        a > CONNACK
        a < drop
        a < connect v5 expiry=60
        a > CONNACK
        b < connect keep
        b > CONNACK
        b < disconnect
        b > CLOSED Success
        b < connect keep
        b > CONNACK present
        b < disconnect
        b > CLOSED Success
        b < connect
        b > CONNACK
        b < drop
        b < connect keep
        b > CONNACK
    ",
    );
}

#[test]
fn disconnect_can_change_the_expiry_but_not_from_zero() {
    check(
        "
        a < connect v5 expiry=60
        a > CONNACK
        a < disconnect expiry=5
        a > CLOSED Success
        * after 5000
        a < connect v5 keep
        a > CONNACK
        a < disconnect expiry=5
        a > DISCONNECT ProtocolError
        a > CLOSED ProtocolError
        a < connect v5 keep expiry=9
        a > CONNACK
        a < disconnect expiry=0
        a > CLOSED Success
        a < connect v5 keep
        a > CONNACK
    ",
    );
}

#[test]
fn silence_closes_the_connection() {
    let mut kit = check(
        "
        a < connect v5 ka=10
        a > CONNACK
        * after 14000
        a < ping
        a > PINGRESP
        * after 14999
        * after 1
        a > DISCONNECT KeepAliveTimeout
        a > CLOSED KeepAliveTimeout
        b < connect ka=0
        b > CONNACK
        * after 100000000
    ",
    );
    assert_eq!(kit.server.counters().keep_alive_timeouts, 1);
    let conn = kit.open(ProtocolVersion::V5);
    kit.after(9_999);
    assert!(kit.open.contains(&conn));
    kit.after(1);
    assert!(!kit.open.contains(&conn), "no CONNECT came");
}

#[test]
fn what_only_a_server_sends_and_auth_are_protocol_errors() {
    check(
        "
        a < connect v5
        a > CONNACK
        a < auth
        a > DISCONNECT ProtocolError
        a > CLOSED ProtocolError
    ",
    );
}
