//! Local publishes, and the end.

use super::check;

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
