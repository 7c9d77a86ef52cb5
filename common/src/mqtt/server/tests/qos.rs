//! QoS 1 and 2: acknowledgements, duplicates, windows.

use super::{check, check_with};
use crate::mqtt::server::ServerSettings;

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
