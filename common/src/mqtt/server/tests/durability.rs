//! What survives a crash, and what waits for the disk.

use super::check;

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
