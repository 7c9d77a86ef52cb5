//! Queues, slow connections, and who is silent.

use super::{check, check_with};
use crate::mqtt::packet::ProtocolVersion;
use crate::mqtt::server::{Counters, ServerSettings};

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
