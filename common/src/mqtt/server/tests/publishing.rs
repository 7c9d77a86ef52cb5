//! PUBLISH, SUBSCRIBE and UNSUBSCRIBE: who gets what.

use super::{check, check_with};
use crate::mqtt::server::ServerSettings;

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
