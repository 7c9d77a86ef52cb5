//! What clients see, as scripts for the [`kit`](super::kit).

use super::kit::Kit;
use super::{Action, Counters, ServerSettings};
use crate::limits::MQTT_RETAINED_STEPS;
use crate::mqtt::codec::{decode, tests::bytes_of};
use crate::mqtt::packet::{
    Packet, PacketId, ProtocolVersion, QoS, Subscribe, SubscribeProperties, SubscriptionOptions,
    TopicFilter,
};

fn check(script: &str) -> Kit {
    check_with(ServerSettings::default(), script)
}

fn check_with(settings: ServerSettings, script: &str) -> Kit {
    let mut kit = Kit::new(settings);
    kit.run(script);
    kit
}

// Connecting.

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
    kit.recv(conn, crate::mqtt::packet::Packet::PingReq);
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
fn a_connect_that_cannot_be_decoded_is_refused_in_words_that_the_client_understands() {
    let check = |hex: &str, version, expected: &[&str]| {
        let mut kit = Kit::new(ServerSettings::default());
        let conn = kit.open(version);
        let error = decode(&mut bytes_of(hex), None, 1000).expect_err("refused");
        kit.server.malformed(kit.now, conn, &error);
        kit.settle();
        let packets = kit.packets.get(&conn).cloned().unwrap_or_default();
        assert_eq!(packets.iter().map(super::kit::show).collect::<Vec<_>>(), expected);
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

// Publishing and subscribing.

#[test]
fn messages_reach_subscribers_with_the_lower_qos() {
    check(
        "
        s < connect v5
        s > CONNACK
        s < sub 1 a/+:q1 b
        s > SUBACK 1 q1 q2
        p < connect
        p > CONNACK
        p < pub a/1=x
        p < pub a/1=y q1 1
        p < pub a/2=z q2 2
        p < pub b=w q2 3
        s > PUB a/1=x
        s > PUB a/1=y q1 1
        s > PUB a/2=z q1 2
        s > PUB b=w q2 3
        p > PUBACK 1
        p > PUBREC 2
        p > PUBREC 3
        s < puback 1
        s < puback 2
        s < pubrec 3
        s > PUBREL 3
        s < pubcomp 3
        p < pubrel 2
        p > PUBCOMP 2
        p < pubrel 2
        p > PUBCOMP 2
        p < disconnect
        p > CLOSED Success
        * STORED a/1=x q0 from p
        * STORED a/1=y q1 from p 1
        * STORED a/2=z q2 from p 2
        * STORED b=w q2 from p 3
    ",
    );
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_qos_and_all_identifiers() {
    check(
        "
        s < connect v5
        s > CONNACK
        s < sub 1 a/#:q0 id=5
        s > SUBACK 1 q0
        s < sub 2 a/+:q1 id=6
        s > SUBACK 2 q1
        s < sub 3 a/b:q0
        s > SUBACK 3 q0
        s < pub a/b=x q2 1
        s > PUB a/b=x q1 1 id=5 id=6
        s > PUBREC 1
    ",
    );
}

#[test]
fn no_local_and_retain_as_published() {
    check(
        "
        s < connect v5
        s > CONNACK
        s < sub 1 a:nl b:rap c
        s > SUBACK 1 q2 q2 q2
        s < pub a=x
        s < pub b=y retain
        s > PUB b=y retain
        s < pub c=z retain
        s > PUB c=z
        p < connect
        p > CONNACK
        p < pub a=x
        s > PUB a=x
    ",
    );
}

#[test]
fn unsubscribing_ends_delivery() {
    check(
        "
        s < connect v5
        s > CONNACK
        s < sub 1 a b
        s > SUBACK 1 q2 q2
        s < unsub 2 a c
        s > UNSUBACK 2 NoSubscriptionExisted
        s < pub a=x
        s < pub b=y
        s > PUB b=y
    ",
    );
}

#[test]
fn what_the_policy_forbids_is_refused() {
    let kit = check(
        "
        a < connect v5
        a > CONNACK
        a < sub 1 denied/x ok
        a > SUBACK 1 NotAuthorized q2
        a < sub 2 $share/g/denied/x
        a > SUBACK 2 NotAuthorized
        a < pub denied/x=1 q1 1
        a > PUBACK 1 NotAuthorized
        a < pub denied/x=1 q2 2
        a > PUBREC 2 NotAuthorized
        a < pub ok=1 q2 2
        a > PUB ok=1 q2 1
        a > PUBREC 2
        b < connect
        b > CONNACK
        b < sub 1 denied/x
        b > SUBACK 1 UnspecifiedError
        b < pub denied/x=1 q1 1
        b > PUBACK 1
        b < pub denied/x=1 q2 2
        b > PUBREC 2
        b < pubrel 2
        b > PUBCOMP 2
    ",
    );
    assert_eq!(kit.server.counters().publish_not_authorized, 4);
}

#[test]
fn subscriptions_of_a_session_are_bounded() {
    let settings = ServerSettings { max_subscriptions: 2, ..Default::default() };
    check_with(
        settings,
        "
        a < connect v5
        a > CONNACK
        a < sub 1 a b c a
        a > SUBACK 1 q2 q2 QuotaExceeded q2
    ",
    );
}

#[test]
fn topic_aliases_are_resolved_and_bounded() {
    check(
        "
        a < connect v5
        a > CONNACK
        a < sub 1 #
        a > SUBACK 1 q2
        a < pub x=1 alias=1
        a > PUB x=1
        a < pub =2 alias=1
        a > PUB x=2
        a < pub y=3 alias=1
        a > PUB y=3
        a < pub =4 alias=1
        a > PUB y=4
        a < pub =5 alias=2
        a > DISCONNECT ProtocolError
        a > CLOSED ProtocolError
        a < connect v5
        a > CONNACK
        a < pub x=1 alias=65
        a > DISCONNECT TopicAliasInvalid
        a > CLOSED TopicAliasInvalid
        a < connect v5
        a > CONNACK
        a < pub =1 alias=1
        a > DISCONNECT ProtocolError
        a > CLOSED ProtocolError
    ",
    );
}

#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    check(
        "
        a < connect v5
        a > CONNACK
        a < pub x=1 id=3
        a > DISCONNECT ProtocolError
        a > CLOSED ProtocolError
    ",
    );
}

// QoS.

#[test]
fn a_duplicate_of_a_received_qos_2_publish_is_not_stored_again() {
    let kit = check(
        "
        s < connect
        s > CONNACK
        s < sub 1 a:q0
        s > SUBACK 1 q0
        p < connect v5 expiry=100
        p > CONNACK
        p < pub a=1 q2 7
        s > PUB a=1
        p > PUBREC 7
        p < pub a=1 q2 7 dup
        p > PUBREC 7
        p < drop
        p < connect v5 keep expiry=100
        p > CONNACK present
        p < pub a=1 q2 7 dup
        p > PUBREC 7
        p < pubrel 7
        p > PUBCOMP 7
        p < pub a=2 q2 7
        s > PUB a=2
        p > PUBREC 7
        p < pubrel 8
        p > PUBCOMP 8 PacketIdentifierNotFound
    ",
    );
    assert_eq!(kit.queue.len(), 2);
    assert_eq!(kit.server.counters().duplicates_received, 2);
}

#[test]
fn a_duplicate_while_the_store_works_is_answered_once_on_the_new_connection() {
    let kit = check(
        "
        p < connect v5 expiry=100
        p > CONNACK
        * store hold
        p < pub a=1 q2 7
        p < pub b=1 q1 8
        p < drop
        p < connect v5 keep expiry=100
        p > CONNACK present
        p < pub a=1 q2 7 dup
        p > nothing
        * store release
        p > PUBREC 7
    ",
    );
    assert_eq!(kit.queue.len(), 2);
}

#[test]
fn an_acknowledgement_does_not_cross_over_to_another_connection() {
    // The client sends again what was not acknowledged, and gets one PUBREC for it; a second one would lead to a second
    // PUBCOMP, which could end a later message with the same packet id.
    check(
        "
        p < connect v5 expiry=100
        p > CONNACK
        * store hold
        p < pub a=1 q2 7
        p < drop
        p < connect v5 keep expiry=100
        p > CONNACK present
        * store release
        p > nothing
        p < pub a=1 q2 7 dup
        p > PUBREC 7
    ",
    );
}

#[test]
fn the_store_comes_before_the_acknowledgement_and_before_subscribers() {
    check(
        "
        s < connect
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        p < connect
        p > CONNACK
        * store hold
        p < pub a=1 q1 1
        p < pub local/b=2 q1 2
        p < pub c=3 q2 3
        s > nothing
        p > nothing
        * store release
        s > PUB a=1 q1 1
        s > PUB local/b=2 q1 2
        s > PUB c=3 q2 3
        p > PUBACK 1
        p > PUBACK 2
        p > PUBREC 3
    ",
    );
}

#[test]
fn a_refused_store_reaches_nobody() {
    let kit = check(
        "
        s < connect
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        * store full
        p < connect v5
        p > CONNACK
        p < pub a=1 q1 1
        p > PUBACK 1 QuotaExceeded
        p < pub a=1 q2 2 retain
        p > PUBREC 2 QuotaExceeded
        p < pub a=1
        o < connect
        o > CONNACK
        o < pub a=1
        o < pub a=1 q1 1
        o > CLOSED QuotaExceeded
        t < connect
        t > CONNACK
        t < sub 1 a
        t > SUBACK 1 q2
        * store ok
        p < pub a=2 q2 2
        s > PUB a=2 q2 1
        t > PUB a=2 q2 1
        p > PUBREC 2
    ",
    );
    assert_eq!(kit.server.counters().store_refused, 5);
}

#[test]
fn local_topics_work_while_the_queue_has_failed() {
    check(
        "
        s < connect keep
        s > CONNACK
        s < sub 1 local/#
        s > SUBACK 1 q2
        * store failed
        p < connect
        p > CONNACK
        p < pub local/a=1 q1 1
        s > PUB local/a=1 q1 1
        p > PUBACK 1
        p < pub local/a=2 q2 2
        s > PUB local/a=2 q2 2
        p > PUBREC 2
        p < pubrel 2
        p > PUBCOMP 2
    ",
    );
}

#[test]
fn more_in_flight_than_receive_maximum_is_an_error_in_5_0() {
    let settings = ServerSettings { receive_maximum: 2, ..Default::default() };
    check_with(
        settings,
        "
        a < connect v5
        a > CONNACK
        a < pub x=1 q2 1
        a > PUBREC 1
        a < pub x=1 q2 2
        a > PUBREC 2
        a < pub x=0
        a < pubrel 1
        a > PUBCOMP 1
        a < pub x=1 q1 3
        a > PUBACK 3
        a < pub x=1 q2 4
        a > PUBREC 4
        a < pub x=1 q1 5
        a > DISCONNECT ReceiveMaximumExceeded
        a > CLOSED ReceiveMaximumExceeded
    ",
    );
}

#[test]
fn the_clients_receive_maximum_bounds_what_is_in_flight() {
    check(
        "
        s < connect v5 rm=2
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        p < connect
        p > CONNACK
        p < pub a=1 q1 1
        p < pub a=2 q2 2
        p < pub a=3 q1 3
        p < pub a=4
        p > PUBACK 1
        p > PUBREC 2
        p > PUBACK 3
        s > PUB a=1 q1 1
        s > PUB a=2 q2 2
        s < pubrec 2
        s > PUBREL 2
        s > nothing
        s < pubcomp 2
        s > PUB a=3 q1 3
        s > PUB a=4
    ",
    );
}

#[test]
fn what_was_in_flight_is_sent_again_in_order_with_dup() {
    check(
        "
        s < connect v5 expiry=60 rm=3
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        p < connect
        p > CONNACK
        p < pub a=1 q1 1
        p < pub a=2 q2 2
        p < pub a=3 q2 3
        p < pub a=4 q1 4
        p < pub a=0
        p > PUBACK 1
        p > PUBREC 2
        p > PUBREC 3
        p > PUBACK 4
        s > PUB a=1 q1 1
        s > PUB a=2 q2 2
        s > PUB a=3 q2 3
        s < pubrec 2
        s > PUBREL 2
        s < drop
        p < pub a=5 q1 5
        p > PUBACK 5
        s < connect v5 keep expiry=60 rm=2
        s > CONNACK present
        s > PUB a=1 q1 1 dup
        s > PUBREL 2
        s < puback 1
        s > PUB a=3 q2 3 dup
        s < pubcomp 2
        s > PUB a=4 q1 4
        s < pubrec 3 refused
        s > PUB a=5 q1 5
    ",
    );
}

#[test]
fn acknowledgements_that_do_not_fit_are_protocol_errors() {
    let setup = "
        s < connect v5
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        s < pub a=1 q1 1
        s > PUB a=1 q1 1
        s > PUBACK 1
        s < pub a=2 q2 2
        s > PUB a=2 q2 2
        s > PUBREC 2
    ";
    for step in ["s < puback 2", "s < pubrec 1", "s < pubcomp 2"] {
        let end = "s > DISCONNECT ProtocolError\ns > CLOSED ProtocolError";
        check(&format!("{setup}\n{step}\n{end}"));
    }
    check(&format!(
        "{setup}\ns < puback 9\ns < pubcomp 9\ns < pubrec 9\ns > PUBREL 9 PacketIdentifierNotFound"
    ));
}

#[test]
fn a_pubrel_before_pubrec_is_a_protocol_error() {
    check(
        "
        p < connect v5
        p > CONNACK
        * store hold
        p < pub a=1 q2 1
        p < pubrel 1
        p > DISCONNECT ProtocolError
        p > CLOSED ProtocolError
        * store release
    ",
    );
}

// Retained messages.

#[test]
fn retained_messages_follow_retain_handling() {
    check(
        "
        p < connect
        p > CONNACK
        p < pub a/1=x retain q1 1
        p > PUBACK 1
        p < pub a/2=y retain
        p < pub a/3=z
        s < connect v5
        s > CONNACK
        s < sub 1 a/+:q0:rh1 id=9
        s > SUBACK 1 q0
        s > PUB a/1=x retain id=9
        s > PUB a/2=y retain id=9
        s < sub 2 a/+:rh1
        s > SUBACK 2 q2
        s < sub 3 a/+
        s > SUBACK 3 q2
        s > PUB a/1=x q1 1 retain
        s > PUB a/2=y retain
        s < sub 4 a/#:rh2
        s > SUBACK 4 q2
        s < sub 5 $share/g/a/+
        s > SUBACK 5 q2
    ",
    );
}

#[test]
fn an_empty_retained_message_clears() {
    let kit = check(
        "
        p < connect
        p > CONNACK
        p < pub a=x retain
        p < pub a= retain
        s < connect
        s > CONNACK
        s < sub 1 a
        s > SUBACK 1 q2
        p < pub a= retain
        s > PUB a=
    ",
    );
    assert_eq!(kit.server.gauges().retained, 0);
}

#[test]
fn more_retained_messages_than_the_session_queue_all_arrive() {
    let settings = ServerSettings { session_queue_messages: 40, ..Default::default() };
    let mut kit = check_with(settings, "p < connect\np > CONNACK");
    let mut script = String::new();
    for index in 0..200 {
        script += &format!("p < pub a/{index:03}=x retain q1 1\np > PUBACK 1\n");
    }
    script += "s < connect v5 rm=1\ns > CONNACK\ns < sub 1 a/#\ns > SUBACK 1 q2\n";
    for index in 0..200 {
        let id = index + 1;
        script += &format!("s > PUB a/{index:03}=x q1 {id} retain\ns < puback {id}\n");
    }
    kit.run(&script);
    assert_eq!(kit.server.counters().dropped_queue_full_qos12, 0);
}

#[test]
fn retained_messages_are_bounded() {
    let settings = ServerSettings { max_retained: 1, ..Default::default() };
    let kit = check_with(
        settings,
        "
        p < connect v5
        p > CONNACK
        p < pub a=x retain exp=10
        p < pub b=y retain
        * after 10000
        p < pub c=z retain
        s < connect
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        s > PUB c=z retain
    ",
    );
    assert_eq!(kit.server.counters().dropped_retained, 1);
}

// Message expiry and sizes.

#[test]
fn message_expiry_counts_down_and_ends() {
    let kit = check(
        "
        s < connect v5 expiry=600
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        s < drop
        p < connect v5
        p > CONNACK
        p < pub a=1 q1 1 exp=10
        p < pub a=2 q1 2 exp=20
        p < pub a=3 q1 3
        p > PUBACK 1
        p > PUBACK 2
        p > PUBACK 3
        * after 10000
        s < connect v5 keep expiry=600
        s > CONNACK present
        s > PUB a=2 q1 2 exp=10
        s > PUB a=3 q1 3
    ",
    );
    assert_eq!(kit.server.counters().dropped_expired, 1);
}

#[test]
fn a_message_larger_than_the_client_takes_is_dropped() {
    let kit = check(
        "
        s < connect v5 max=40
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        p < connect
        p > CONNACK
        p < pub a=123456789012345678901234567890123456789012345678901234567890 q1 1
        p > PUBACK 1
        p < pub a=1 q1 2
        s > PUB a=1 q1 2
        p > PUBACK 2
    ",
    );
    assert_eq!(kit.server.counters().dropped_too_large, 1);
}

// Queues and slow connections.

#[test]
fn a_full_queue_drops_the_oldest_qos_0_first() {
    let settings = ServerSettings { session_queue_messages: 2, ..Default::default() };
    let kit = check_with(
        settings,
        "
        s < connect v5 rm=1 expiry=60
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        p < connect
        p > CONNACK
        p < pub a=1 q1 1
        s > PUB a=1 q1 1
        p < pub a=2 q1 2
        p < pub a=3
        p < pub a=4 q1 4
        p < pub a=5 q1 5
        p > PUBACK 1
        p > PUBACK 2
        p > PUBACK 4
        p > PUBACK 5
        s < puback 1
        s > PUB a=4 q1 2
        s < puback 2
        s > PUB a=5 q1 3
    ",
    );
    let Counters { dropped_queue_full_qos0, dropped_queue_full_qos12, .. } = kit.server.counters();
    assert_eq!((dropped_queue_full_qos0, dropped_queue_full_qos12), (1, 1));
}

#[test]
fn a_slow_connection_is_not_read_and_gets_no_more_until_it_is_written() {
    let settings = ServerSettings { connection_backlog_bytes: 20, ..Default::default() };
    check_with(
        settings,
        "
        s < connect
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        s < slow
        p < connect
        p > CONNACK
        p < pub a=1234567890
        p < pub b=1234567890
        p < pub c=1234567890
        s > PUB a=1234567890
        s > PUB b=1234567890
        s > PAUSE
        s < written
        s > RESUME
        s > PUB c=1234567890
    ",
    );
}

#[test]
fn a_connection_with_too_many_unanswered_publishes_is_not_read() {
    let settings = ServerSettings { pending_publishes: 2, ..Default::default() };
    check_with(
        settings,
        "
        p < connect
        p > CONNACK
        * store hold
        p < pub a=1 q1 1
        p < pub a=1 q1 2
        p > PAUSE
        * store release
        p > PUBACK 1
        p > PUBACK 2
        p > RESUME
    ",
    );
    let settings = ServerSettings { pending_bytes: 10, ..Default::default() };
    check_with(
        settings,
        "
        p < connect
        p > CONNACK
        * store hold
        p < pub a=1234567890 q1 1
        p > PAUSE
        q < connect
        q > CONNACK
        q > PAUSE
        * store release
        p > PUBACK 1
        p > RESUME
        q > RESUME
    ",
    );
}

#[test]
fn the_queues_of_all_sessions_are_bounded_together() {
    let settings = ServerSettings { all_sessions_queue_bytes: 1000, ..Default::default() };
    let mut kit = check_with(
        settings,
        "
        a < connect keep
        a > CONNACK
        a < sub 1 a
        a > SUBACK 1 q2
        a < drop
        b < connect keep
        b > CONNACK
        b < sub 1 b
        b > SUBACK 1 q2
        b < drop
        p < connect
        p > CONNACK
    ",
    );
    for topic in ["a", "b", "a"] {
        for _ in 0..7 {
            kit.run(&format!("p < pub {topic}=x q1 1\np > PUBACK 1"));
        }
    }
    assert_eq!(kit.server.counters().dropped_queue_full_qos12, 14);
    let mut script = "a < connect keep\na > CONNACK present\n".to_owned();
    for id in 1..=7 {
        script += &format!("a > PUB a=x q1 {id}\na < puback {id}\n");
    }
    script +=
        "p < pub b=y q1 1\np > PUBACK 1\nb < connect keep\nb > CONNACK present\nb > PUB b=y q1 1";
    kit.run(&script);
}

#[test]
fn sessions_that_are_away_do_not_keep_others_from_their_messages() {
    let settings = ServerSettings { all_sessions_queue_bytes: 1000, ..Default::default() };
    let mut kit = check_with(
        settings,
        "
        a < connect keep
        a > CONNACK
        a < sub 1 a
        a > SUBACK 1 q2
        a < drop
        b < connect
        b > CONNACK
        b < sub 1 b
        b > SUBACK 1 q2
        p < connect
        p > CONNACK
    ",
    );
    for _ in 0..7 {
        kit.run("p < pub a=x q1 1\np > PUBACK 1");
    }
    kit.run("p < pub b=y q1 1\nb > PUB b=y q1 1\np > PUBACK 1");
    assert_eq!(kit.server.counters().dropped_queue_full_qos12, 0);
}

#[test]
fn a_client_that_is_not_read_because_the_store_is_behind_is_not_silent() {
    let settings = ServerSettings { pending_publishes: 1, ..Default::default() };
    check_with(
        settings,
        "
        p < connect ka=10
        p > CONNACK
        * store hold
        p < pub a=1 q1 1
        p > PAUSE
        * after 100000
        p > nothing
        * store release
        p > PUBACK 1
        p > RESUME
        * after 29999
        p > CLOSED KeepAliveTimeout
    ",
    );
}

/// While a disk stalled, the driver took nothing from any connection, but keep alives ran on: clients whose packets waited in
/// their sockets were disconnected for silence, and came back to send all of it again.
#[test]
fn nobody_is_silent_while_the_driver_takes_nothing() {
    let mut kit = check_with(
        ServerSettings::default(),
        "
        p < connect ka=10
        p > CONNACK
    ",
    );
    let waiting = kit.open(ProtocolVersion::V5);
    kit.server.set_listening(kit.now, false);
    kit.run("* after 100000\n p > nothing");
    assert!(kit.open.contains(&waiting), "its CONNECT may lie unread");
    kit.server.set_listening(kit.now, true);
    kit.run("* after 14999\n p > nothing");
    kit.run("* after 1\n p > CLOSED KeepAliveTimeout");
    assert!(!kit.open.contains(&waiting), "and its time begins again too");
}

#[test]
fn a_client_that_was_not_read_until_shortly_before_its_deadline_is_not_silent() {
    let settings = ServerSettings { pending_publishes: 1, ..Default::default() };
    check_with(
        settings,
        "
        p < connect ka=10
        p > CONNACK
        * store hold
        p < pub a=1 q1 1
        p > PAUSE
        * after 29000
        * store release
        p > PUBACK 1
        p > RESUME
        * after 2000
        p > nothing
        * after 28000
        p > CLOSED KeepAliveTimeout
    ",
    );
}

#[test]
fn a_client_that_waits_for_memory_is_not_silent() {
    let mut kit = check_with(
        ServerSettings::default(),
        "
        p < connect ka=10
        p > CONNACK
    ",
    );
    let conn = *kit.open.first().expect("it is connected");
    kit.server.set_unread(conn, true);
    kit.run("* after 29000\n p > nothing");
    kit.server.set_unread(conn, false);
    kit.run("* after 2000\n p > nothing\n * after 28000\n p > CLOSED KeepAliveTimeout");
}

/// One SUBSCRIBE with a thousand wildcard filters looked at every retained message for each of them, in one go: the task that
/// owns all sessions stood still for seconds, and with it everybody else.
#[test]
fn a_search_through_many_retained_messages_lets_others_go_on() {
    const RETAINED: usize = 3000;
    const FILTERS: usize = 300;
    let mut kit = check(
        "
        p < connect
        p > CONNACK
        s < connect
        s > CONNACK
    ",
    );
    let [other, subscriber] = [0, 1].map(|n| *kit.open.iter().nth(n).expect("both are there"));
    for n in 0..RETAINED {
        kit.run(&format!("p < pub local/{n}=1 retain"));
    }
    // One of them finds them all, the others nothing.
    let filters = (0..FILTERS).map(|n| format!("+/+/{n}")).chain(["local/+".to_owned()]);
    let options = SubscriptionOptions { maximum_qos: QoS::AtMostOnce, ..Default::default() };
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).expect("not 0"),
        properties: SubscribeProperties::default(),
        filters: filters
            .map(|filter| (TopicFilter::new(&filter).expect("a filter"), options))
            .collect(),
    });
    kit.server.recv(kit.now, subscriber, subscribe);
    kit.server.recv(kit.now, other, Packet::PingReq);
    let mut answers = Vec::new();
    while let Some(action) = kit.server.poll() {
        match action {
            Action::Send { conn, packet, .. } => answers.push((conn, packet.name())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [(subscriber, "SUBACK"), (other, "PINGRESP")]);
    let mut turns = 0;
    while kit.server.has_work() {
        kit.server.work(kit.now);
        turns += 1;
        while let Some(action) = kit.server.poll() {
            let Action::Send { conn, packet, bytes } = action else { panic!("{action:?}") };
            answers.push((conn, packet.name()));
            kit.server.written(kit.now, conn, bytes);
        }
    }
    assert!(turns >= FILTERS * RETAINED / MQTT_RETAINED_STEPS, "{turns} turns");
    assert_eq!(answers.len() - 2, RETAINED, "all are delivered in the end");
}

/// On a full disk the CONNECT of a kept session got no answer until there was space again: its client waited, gave up, came
/// back, and left one more change behind that waited for the disk.
#[test]
fn while_nothing_can_be_made_durable_kept_sessions_are_refused_and_others_served() {
    let mut kit = check_with(
        ServerSettings::default(),
        "
        known < connect v5 expiry=100
        known > CONNACK
        known < drop
        * disk hold
        new < connect v5 expiry=100
        new > nothing
        known < connect v5 expiry=100 keep
        known > nothing
        * disk full
        new > CONNACK ServerUnavailable
        new > CLOSED ServerUnavailable
        known > CONNACK ServerUnavailable
        known > CLOSED ServerUnavailable
        more < connect v5 expiry=100
        more > CONNACK ServerUnavailable
        more > CLOSED ServerUnavailable
        clean < connect
        clean > CONNACK
        clean < sub 1 local/#
        clean > SUBACK 1 q2
        clean < pub local/a=1 q1 1
        clean > PUB local/a=1 q1 1
        clean > PUBACK 1
    ",
    );
    assert_eq!(kit.server.gauges().sessions, 2, "the one that was there before, and the clean one");
    kit.run(
        "
        * disk release
        new < connect v5 expiry=100 keep
        new > CONNACK
        known < connect v5 expiry=100 keep
        known > CONNACK present
    ",
    );
}

#[test]
fn while_nothing_can_be_made_durable_a_3_1_1_client_hears_that_the_server_is_unavailable() {
    check(
        "
        * disk hold
        old < connect keep
        old > nothing
        * disk full
        old > CONNACK ServerUnavailable
        old > CLOSED ServerUnavailable
        old < connect
        old > CONNACK
    ",
    );
}

#[test]
fn while_nothing_can_be_made_durable_a_kept_session_s_subscribe_is_refused_at_once() {
    let kit = check(
        "
        s < connect v5 expiry=100
        s > CONNACK
        * disk full
        s < sub 1 a
        s > SUBACK 1 QuotaExceeded
    ",
    );
    assert_eq!(kit.server.gauges().subscriptions, 0);
}

#[test]
fn a_client_that_takes_nothing_is_closed_after_its_keep_alive() {
    let settings = ServerSettings { connection_backlog_bytes: 10, ..Default::default() };
    check_with(
        settings,
        "
        s < connect ka=10
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        s < slow
        p < connect
        p > CONNACK
        p < pub a=1234567890
        s > PUB a=1234567890
        s > PAUSE
        * after 14999
        * after 1
        s > CLOSED KeepAliveTimeout
    ",
    );
}

#[test]
fn long_filters_and_too_many_aliased_bytes_are_refused() {
    let filter = "f".repeat(1025);
    let topic = "t".repeat(40_000);
    check(&format!(
        "
        a < connect v5
        a > CONNACK
        a < sub 1 {filter} ok
        a > SUBACK 1 TopicFilterInvalid q2
        a < pub {topic}=x alias=1
        a < pub {topic}=x alias=2
        a > DISCONNECT QuotaExceeded
        a > CLOSED QuotaExceeded
    "
    ));
}

// Wills.

#[test]
fn a_will_is_published_unless_the_client_says_goodbye() {
    let kit = check(
        "
        s < connect
        s > CONNACK
        s < sub 1 will/#
        s > SUBACK 1 q2
        a < connect will=will/a=x wq=1
        a > CONNACK
        a < drop
        s > PUB will/a=x q1 1
        b < connect will=will/b=x
        b > CONNACK
        b < disconnect
        b > CLOSED Success
        c < connect v5 will=will/c=x wretain
        c > CONNACK
        c < disconnect will
        c > CLOSED DisconnectWithWillMessage
        s > PUB will/c=x
        d < connect ka=10 will=will/d=x
        d > CONNACK
        * after 15000
        d > CLOSED KeepAliveTimeout
        s > PUB will/d=x
        * STORED will/a=x q1 from a will
        * STORED will/c=x q0 from c will
        * STORED will/d=x q0 from d will
    ",
    );
    assert_eq!(kit.server.counters().wills_published, 3);
}

#[test]
fn a_will_delay_ends_with_the_session_and_is_cancelled_by_a_reconnect() {
    check(
        "
        s < connect
        s > CONNACK
        s < sub 1 will/#
        s > SUBACK 1 q2
        a < connect v5 expiry=100 will=will/a=x wdelay=10
        a > CONNACK
        a < drop
        * after 9999
        a < connect v5 keep expiry=100 will=will/a=y wdelay=10
        a > CONNACK present
        * after 20000
        a < drop
        * after 10000
        s > PUB will/a=y
        b < connect v5 expiry=5 will=will/b=x wdelay=10
        b > CONNACK
        b < drop
        * after 4999
        s > nothing
        * after 1
        s > PUB will/b=x
        c < connect v5 will=will/c=x wdelay=10
        c > CONNACK
        c < drop
        s > PUB will/c=x
        d < connect v5 expiry=100 will=will/d=x wdelay=10
        d > CONNACK
        d < drop
        d < connect v5 expiry=100
        s > PUB will/d=x
        d > CONNACK
    ",
    );
}

#[test]
fn a_takeover_publishes_a_will_without_delay() {
    check(
        "
        s < connect
        s > CONNACK
        s < sub 1 will/#
        s > SUBACK 1 q2
        a < connect v5 expiry=100 will=will/a=x
        a > CONNACK
        a < as old
        a < connect v5 keep expiry=100
        old > DISCONNECT SessionTakenOver
        old > CLOSED SessionTakenOver
        s > PUB will/a=x
        a > CONNACK present
    ",
    );
}

// Shared subscriptions.

#[test]
fn members_of_a_shared_subscription_take_turns() {
    check(
        "
        a < connect
        a > CONNACK
        a < sub 1 $share/g/x
        a > SUBACK 1 q2
        b < connect
        b > CONNACK
        b < sub 1 $share/g/x x
        b > SUBACK 1 q2 q2
        p < connect
        p > CONNACK
        p < pub x=1
        b > PUB x=1
        a > PUB x=1
        p < pub x=2
        b > PUB x=2
        b > PUB x=2
        p < pub x=3
        b > PUB x=3
        a > PUB x=3
    ",
    );
}

#[test]
fn a_member_that_leaves_hands_its_messages_over() {
    check(
        "
        a < connect v5 keep expiry=60 rm=2
        a > CONNACK
        a < sub 1 $share/g/x
        a > SUBACK 1 q2
        p < connect
        p > CONNACK
        p < pub x=1 q1 1
        p < pub x=2 q2 2
        p < pub x=3 q2 3
        p < pub x=4
        p > PUBACK 1
        p > PUBREC 2
        p > PUBREC 3
        a > PUB x=1 q1 1
        a > PUB x=2 q2 2
        b < connect
        b > CONNACK
        b < sub 1 $share/g/x
        b > SUBACK 1 q2
        a < drop
        b > PUB x=1 q1 1
        b > PUB x=3 q2 2
        b > PUB x=4
        a < connect v5 keep expiry=60
        a > CONNACK present
        a > PUB x=2 q2 2 dup
    ",
    );
}

#[test]
fn a_message_for_a_group_that_is_away_waits_for_the_member_that_comes_back() {
    check(
        "
        a < connect keep
        a > CONNACK
        a < sub 1 $share/g/x
        a > SUBACK 1 q2
        a < drop
        p < connect
        p > CONNACK
        p < pub x=1 q1 1
        p > PUBACK 1
        a < connect keep
        a > CONNACK present
        a > PUB x=1 q1 1
    ",
    );
}

// Durability.

#[test]
fn a_session_that_ends_with_its_connection_costs_no_write() {
    let kit = check(
        "
        a < connect
        a > CONNACK
        a < sub 1 x
        a > SUBACK 1 q2
        a < pub x=1 q2 1
        a > PUB x=1 q2 1
        a > PUBREC 1
        a < pubrel 1
        a > PUBCOMP 1
        a < pubrec 1
        a > PUBREL 1
        a < pubcomp 1
        a < pub local/x=1 q2 1
        a > PUBREC 1
        a < drop
    ",
    );
    assert_eq!(kit.batches_written, 0);
}

#[test]
fn answers_about_a_persistent_session_wait_for_the_disk() {
    check(
        "
        * disk hold
        a < connect v5 expiry=60
        a < ping
        a > nothing
        * disk release
        a > CONNACK
        a > PINGRESP
        * disk hold
        a < sub 1 x
        a > nothing
        * disk release
        a > SUBACK 1 q2
        * disk hold
        a < pub x=1 q2 5
        a > nothing
        * disk release
        a > PUB x=1 q2 1
        a > PUBREC 5
        * disk hold
        a < pubrec 1
        a > nothing
        * disk release
        a > PUBREL 1
        * disk hold
        a < pubrel 5
        a > nothing
        * disk release
        a > PUBCOMP 5
        * disk hold
        a < pub local/x=1 q1 5
        a > PUBACK 5
        a < pub local/x=1 q1 5 retain
        a > nothing
        * disk release
        a > PUBACK 5
    ",
    );
}

#[test]
fn a_stored_publish_is_acknowledged_without_waiting_for_the_disk() {
    check(
        "
        a < connect v5 expiry=60
        a > CONNACK
        * disk hold
        a < pub x=1 q2 5 retain
        a > PUBREC 5
        a < pub x=1 q1 6 retain
        a > PUBACK 6
        * disk release
    ",
    );
}

#[test]
fn sessions_survive_a_crash() {
    check(
        "
        s < connect v5 expiry=100
        s > CONNACK
        s < sub 1 a/#:q1 id=3
        s > SUBACK 1 q1
        p < connect keep
        p > CONNACK
        p < pub a/1=x q1 1 retain
        s > PUB a/1=x q1 1 id=3
        p > PUBACK 1
        p < pub a/2=y q2 2
        s > PUB a/2=y q1 2 id=3
        p > PUBREC 2
        s < puback 1
        * crash
        s < connect v5 keep expiry=100
        s > CONNACK present
        s > PUB a/2=y q1 2 dup id=3
        s < sub 2 a/1:q0
        s > SUBACK 2 q0
        s > PUB a/1=x retain
        p < connect keep
        p > CONNACK present
        p < pub a/2=y q2 2 dup
        p > PUBREC 2
        p < pubrel 2
        p > PUBCOMP 2
        p < pub a/3=z q1 3
        s > PUB a/3=z q1 1 id=3
        p > PUBACK 3
    ",
    );
}

#[test]
fn a_crash_between_store_and_disk_is_made_good_by_the_replay() {
    let kit = check(
        "
        s < connect keep
        s > CONNACK
        s < sub 1 #
        s > SUBACK 1 q2
        s < drop
        p < connect keep
        p > CONNACK
        * disk hold
        p < pub a=1 q2 1 retain
        p > PUBREC 1
        * crash
        p < connect keep
        p > CONNACK present
        p < pub a=1 q2 1 dup retain
        p > PUBREC 1
        t < connect
        t > CONNACK
        t < sub 1 a
        t > SUBACK 1 q2
        t > PUB a=1 q2 1 retain
        s < connect keep
        s > CONNACK present
        s > PUB a=1 q2 1
    ",
    );
    assert_eq!(kit.queue.len(), 1);
}

#[test]
fn a_packet_id_used_again_after_a_crash_is_a_new_message() {
    // The received id is never written, because its release cancels it; but the queue's record would bring it back.
    // So PUBCOMP waits for a batch that has nothing but the queue's position.
    let kit = check(
        "
        o < connect keep
        o > CONNACK
        p < connect keep
        p > CONNACK
        * disk hold
        o < sub 1 x
        p < pub a=1 q2 1
        p > PUBREC 1
        p < pubrel 1
        * disk once
        o > SUBACK 1 q2
        p > nothing
        * disk once
        p > PUBCOMP 1
        * crash
        p < connect keep
        p > CONNACK present
        p < pub a=2 q2 1
        p > PUBREC 1
    ",
    );
    assert_eq!(kit.queue.len(), 2);
}

#[test]
fn a_record_of_an_ended_session_means_nothing_to_its_successor() {
    let kit = check(
        "
        p < connect keep
        p > CONNACK
        * store hold
        p < pub a=1 q2 1
        p < drop
        p < connect
        p > CONNACK
        p < drop
        p < connect keep
        p > CONNACK
        * disk hold
        * store release
        * crash
        p < connect keep
        p > CONNACK present
        p < pub a=2 q2 1
        p > PUBREC 1
    ",
    );
    assert_eq!(kit.queue.len(), 2);
}

#[test]
fn a_crash_publishes_the_wills_of_kept_sessions() {
    check(
        "
        s < connect keep
        s > CONNACK
        s < sub 1 will/#
        s > SUBACK 1 q2
        a < connect v5 expiry=100 will=will/a=x wdelay=10 wq=1
        a > CONNACK
        * crash
        s < connect keep
        s > CONNACK present
        * after 9999
        s > nothing
        * after 1
        s > PUB will/a=x q1 1
        * crash
        * after 20000
        s < connect keep
        s > CONNACK present
        s > PUB will/a=x q1 1 dup
    ",
    );
}

#[test]
fn a_published_will_that_was_not_yet_stored_survives_a_crash() {
    let kit = check(
        "
        a < connect v5 expiry=100 will=x=bye
        a > CONNACK
        * store hold
        a < drop
        * crash
        * after 1
        * STORED x=bye q0 from a will
        * crash
        * after 1000
    ",
    );
    assert_eq!(kit.queue.len(), 1);
}

#[test]
fn session_expiry_goes_on_over_a_crash() {
    check(
        "
        a < connect v5 expiry=100
        a > CONNACK
        a < drop
        * after 50000
        * crash
        * after 50000
        a < connect v5 keep
        a > CONNACK
        b < connect v5 expiry=100
        b > CONNACK
        * crash
        * after 99999
        b < connect v5 keep expiry=100
        b > CONNACK present
    ",
    );
}

#[test]
fn a_session_made_to_end_with_its_connection_is_gone_after_a_crash() {
    check(
        "
        a < connect v5 expiry=100
        a > CONNACK
        a < drop
        a < connect v5 keep
        a > CONNACK present
        * crash
        a < connect v5 keep
        a > CONNACK
    ",
    );
}

// Local publishes.

#[test]
fn a_local_publish_is_never_stored_and_done_when_durable() {
    let kit = check(
        "
        s < connect
        s > CONNACK
        s < sub 1 cmd
        s > SUBACK 1 q2
        * local cmd=go q1
        s > PUB cmd=go q1 1
        * LOCALDONE
        * disk hold
        * local cmd=go q1 mark
        s > PUB cmd=go q1 2
        * disk release
        * LOCALDONE
        * disk hold
        * local state=on q1 retain
        * disk release
        * LOCALDONE
    ",
    );
    assert!(kit.queue.is_empty());
}

#[test]
fn shutdown_tells_every_client() {
    check(
        "
        a < connect v5
        a > CONNACK
        b < connect
        b > CONNACK
        * shutdown
        a > DISCONNECT ServerShuttingDown
        a > CLOSED ServerShuttingDown
        b > CLOSED ServerShuttingDown
    ",
    );
}
