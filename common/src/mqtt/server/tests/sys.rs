//! What the server says of itself.

use super::{check, check_with};
use crate::mqtt::server::ServerSettings;

#[test]
fn figures_reach_those_who_ask_for_them_now_and_later() {
    let kit = check(
        "
        * sys $SYS/broker/uptime=1
        s < connect v5
        s > CONNACK
        s < sub 1 $SYS/# id=7
        s > SUBACK 1 q2
        s > PUB $SYS/broker/uptime=1 retain id=7
        * sys $SYS/broker/uptime=2
        s > PUB $SYS/broker/uptime=2 id=7
        // The same again is no news.
        * sys $SYS/broker/uptime=2
        * sys $SYS/broker/version=x
        s > PUB $SYS/broker/version=x id=7
        t < connect
        t > CONNACK
        t < sub 1 $SYS/broker/+ $SYS/broker/uptime
        t > SUBACK 1 q2 q2
        t > PUB $SYS/broker/uptime=2 retain
        t > PUB $SYS/broker/version=x retain
        t > PUB $SYS/broker/uptime=2 retain
    ",
    );
    assert_eq!(kit.server.gauges().retained, 0, "they are not among the retained messages");
}

#[test]
fn wildcards_do_not_stand_for_sys() {
    check(
        "
        * sys $SYS/broker/uptime=1
        s < connect
        s > CONNACK
        s < sub 1 # +/broker/uptime +/# $SYS
        s > SUBACK 1 q2 q2 q2 q2
        * sys $SYS/broker/uptime=2
    ",
    );
}

/// A kept session that nobody came back to would have been filled with figures, and a disk worn out by them.
#[test]
fn figures_cost_no_disk_and_do_not_wait_for_a_session() {
    let mut kit = check(
        "
        s < connect v5 keep expiry=100
        s > CONNACK
        s < sub 1 $SYS/#
        s > SUBACK 1 q2
        s < drop
    ",
    );
    let written = kit.batches_written;
    kit.run("* sys $SYS/broker/uptime=1\n* sys $SYS/broker/uptime=2");
    assert_eq!(kit.batches_written, written);
    assert!(kit.queue.is_empty());
    kit.run("s < connect v5 keep expiry=100\ns > CONNACK present");
    // A new process begins anew.
    kit.run("* crash\nt < connect\nt > CONNACK\nt < sub 1 $SYS/#\nt > SUBACK 1 q2");
}

#[test]
fn clients_cannot_publish_there() {
    let kit = check(
        "
        * sys $SYS/broker/uptime=1
        s < connect
        s > CONNACK
        s < sub 1 $SYS/#
        s > SUBACK 1 q2
        s > PUB $SYS/broker/uptime=1 retain
        a < connect v5
        a > CONNACK
        a < pub $SYS/broker/uptime=9 q1 1 retain
        a > PUBACK 1 NotAuthorized
        b < connect
        b > CONNACK
        b < pub $SYS/broker/uptime=9 q1 1 retain
        b > PUBACK 1
        c < connect v5 will=$SYS/broker/uptime=9
        c > CONNACK NotAuthorized
        c > CLOSED NotAuthorized
    ",
    );
    assert!(kit.queue.is_empty());
}

#[test]
fn retained_messages_of_clients_do_not_crowd_them_out() {
    let settings = ServerSettings { max_retained: 1, ..Default::default() };
    check_with(
        settings,
        "
        a < connect
        a > CONNACK
        a < pub one=1 retain
        * sys $SYS/broker/uptime=1
        a < sub 1 $SYS/broker/uptime one
        a > SUBACK 1 q2 q2
        a > PUB $SYS/broker/uptime=1 retain
        a > PUB one=1 retain
    ",
    );
}
