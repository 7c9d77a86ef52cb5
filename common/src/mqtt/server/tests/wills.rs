//! Wills.

use super::check;

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
