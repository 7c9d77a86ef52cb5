//! Golden rows, and damaged ones.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::Row;
use crate::mqtt::packet::{
    MessageProperties, PacketId, ProtocolVersion, QoS, SubscriptionOptions, TopicFilter, TopicName,
    Will,
};
use crate::mqtt::server::{ClientId, Millis, SessionId};
use crate::mqtt::server::{
    Message, Outgoing, OutgoingPhase, SessionState, StateChange, Subscription,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn message() -> Message {
    Message {
        topic: TopicName::new("a").expect("valid"),
        payload: Bytes::from_static(b"x"),
        qos: QoS::AtLeastOnce,
        properties: MessageProperties::default(),
        expires_at: Some(Millis(9)),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_bytes_on_disk_stay_what_they_are() {
    let check = |change: StateChange, key: &str, value: &str| match change.to_row() {
        Row::Put { key: k, value: v } => {
            assert_eq!((hex(&k).as_str(), hex(&v).as_str()), (key, value), "{change:?}");
            assert_eq!(StateChange::from_row(&k, &v), Ok(change));
        }
        Row::Delete { key: k } => assert_eq!((hex(&k).as_str(), ""), (key, value)),
        Row::DeletePrefix { prefix } => assert_eq!((hex(&prefix).as_str(), ""), (key, value)),
    };
    let client = || ClientId::from("c");
    let filter = TopicFilter::new("$share/g/f").expect("valid");
    let id = PacketId::new(7).expect("not 0");
    let will = Will {
        topic: TopicName::new("w").expect("valid"),
        payload: Bytes::from_static(b"x"),
        qos: QoS::AtMostOnce,
        retain: true,
        delay_interval_secs: 5,
        properties: MessageProperties::default(),
    };
    let state = SessionState {
        id: SessionId(1),
        version: ProtocolVersion::V5,
        expiry_interval_secs: 60,
        expires_at: None,
        will: Some(will),
        will_at: Some(Millis(2)),
    };
    check(
        StateChange::PutSession(client(), state),
        "7300016300",
        "010000000000000001050000003c000100000000000000020100000005003105000177\
         0078",
    );
    let subscription = Subscription {
        filter: filter.clone(),
        options: SubscriptionOptions::default(),
        identifier: NonZeroU32::new(3),
    };
    check(
        StateChange::PutSubscription(client(), subscription),
        "73000163012473686172652f672f66",
        "010000000003",
    );
    check(
        StateChange::RemoveSubscription(client(), filter.clone()),
        "73000163012473686172652f672f66",
        "",
    );
    check(StateChange::PutReceived(client(), id), "73000163020007", "01");
    let outgoing = Outgoing {
        message: Arc::new(message()),
        qos: QoS::AtMostOnce,
        retain: false,
        subscription_identifiers: Vec::new(),
        shared: Some(filter),
        phase: OutgoingPhase::Published(id),
    };
    check(
        StateChange::PutOutgoing(client(), 4, outgoing),
        "73000163030000000000000004",
        "010100070000000 00a2473686172652f672f66010000000000000009320700016100010078"
            .replace(' ', "")
            .as_str(),
    );
    check(StateChange::RemoveOutgoing(client(), 4), "73000163030000000000000004", "");
    check(StateChange::RemoveSession(client()), "73000163", "");
    check(
        StateChange::PutRetained(message()),
        "7261",
        "010100000000000000093307000161000100 78".replace(' ', "").as_str(),
    );
    check(StateChange::PutMark("m".into(), Bytes::from_static(b"v")), "6d6d", "0176");
}

proptest! {
    #[test]
    fn damaged_rows_are_refused_or_read_but_never_panic(
        key in prop::collection::vec(any::<u8>(), 0..20),
        kind in prop_oneof![Just(&b"s\0\x01c"[..]), Just(&b"r"[..]), Just(&b"m"[..])],
        value in prop::collection::vec(0..12_u8, 0..40),
    ) {
        let key = [kind, &key].concat();
        let value = [&[1], &value[..]].concat();
        let _ = StateChange::from_row(&key, &value);
    }
}
