//! While nothing can be made durable.

use super::{check, check_with};
use crate::mqtt::server::ServerSettings;

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
