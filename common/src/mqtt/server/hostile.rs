//! Clients that send anything that can be decoded, in any order: nothing panics, and nothing outgrows its bounds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::kit::{Kit, Mode};
use super::{ConnId, LocalPublish, ServerSettings, StoreRefusal};
use crate::mqtt::codec::arbitrary::{packet_v5, packet_v311};
use crate::mqtt::packet::{MessageProperties, Packet, ProtocolVersion, QoS, TopicName};

#[derive(Clone, Debug)]
enum Step {
    Open(bool),
    Send(usize, Packet),
    Drop(usize),
    Store(Mode),
    Disk(Mode),
    Time(u64),
    Crash,
    Local(QoS),
}

fn step() -> impl Strategy<Value = Step> {
    let store = prop_oneof![
        Just(Mode::Ok),
        Just(Mode::Hold),
        Just(Mode::Refuse(StoreRefusal::Full)),
        Just(Mode::Refuse(StoreRefusal::Failed)),
    ];
    let packet = prop_oneof![packet_v5(), packet_v311()].prop_map(|mut packet| {
        // Few client ids, so that sessions meet.
        if let Packet::Connect(connect) = &mut packet {
            let id = connect.client_id.chars().count() % 3;
            connect.client_id = format!("c{id}").into();
            connect.properties.authentication_method = None;
            connect.properties.authentication_data = None;
            connect.properties.maximum_packet_size = None;
        }
        packet
    });
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Open),
        20 => (0..4_usize, packet).prop_map(|(conn, packet)| Step::Send(conn, packet)),
        1 => (0..4_usize).prop_map(Step::Drop),
        1 => store.prop_map(Step::Store),
        1 => prop_oneof![Just(Mode::Ok), Just(Mode::Hold)].prop_map(Step::Disk),
        1 => (1..100_000_u64).prop_map(Step::Time),
        1 => Just(Step::Crash),
        1 => prop_oneof![Just(QoS::AtMostOnce), Just(QoS::ExactlyOnce)].prop_map(Step::Local),
    ]
}

fn take(kit: &mut Kit, open: &mut Vec<(ConnId, ProtocolVersion)>, step: Step) {
    match step {
        Step::Open(v5) => {
            let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
            open.push((kit.open(version), version));
        }
        Step::Send(index, packet) => {
            let Some(&(conn, version)) = open.get(index) else { return };
            // A connection speaks the version of its CONNECT.
            match &packet {
                Packet::Connect(connect) if connect.version != version => {}
                _ => kit.recv(conn, packet),
            }
        }
        Step::Drop(index) => {
            if let Some(&(conn, _)) = open.get(index) {
                kit.drop_connection(conn);
            }
        }
        Step::Store(mode) => {
            kit.store = mode;
            if mode != Mode::Hold {
                kit.answer_stores();
                kit.settle();
            }
        }
        Step::Disk(mode) => {
            kit.disk = mode;
            if mode == Mode::Ok {
                kit.answer_batches();
                kit.settle();
            }
        }
        Step::Time(ms) => kit.after(ms),
        Step::Crash => kit.crash(),
        Step::Local(qos) => {
            let publish = LocalPublish {
                topic: TopicName::new("a/b").expect("valid"),
                payload: "x".into(),
                qos,
                retain: true,
                properties: MessageProperties::default(),
                mark: Some(("m".into(), "1".into())),
            };
            kit.server.publish_local(kit.now, publish);
            kit.settle();
        }
    }
    open.retain(|(conn, _)| kit.open.contains(conn));
}

proptest! {
    #[test]
    fn nothing_that_clients_send_breaks_the_server(steps in vec(step(), 1..120)) {
        let settings = ServerSettings {
            max_sessions: 2,
            max_subscriptions: 3,
            session_queue_messages: 4,
            all_sessions_queue_bytes: 1500,
            max_retained: 3,
            max_inflight: 2,
            pending_publishes: 3,
            connection_backlog_bytes: 500,
            ..ServerSettings::default()
        };
        let mut kit = Kit::new(settings.clone());
        let mut open = Vec::new();
        for step in steps {
            take(&mut kit, &mut open, step);
            let gauges = kit.server.gauges();
            prop_assert!(gauges.retained <= settings.max_retained);
            prop_assert!(gauges.sessions <= settings.max_sessions);
            prop_assert!(gauges.subscriptions <= 2 * settings.max_subscriptions);
        }
    }
}
