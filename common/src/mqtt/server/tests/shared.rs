//! Shared subscriptions.

use super::check;

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
