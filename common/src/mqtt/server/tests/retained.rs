//! Retained messages.

use super::{check, check_with};
use crate::limits::MQTT_RETAINED_STEPS;
use crate::mqtt::packet::{
    Packet, PacketId, QoS, Subscribe, SubscribeProperties, SubscriptionOptions, TopicFilter,
};
use crate::mqtt::server::{Action, ServerSettings};

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
