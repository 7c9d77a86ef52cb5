//! Where the fuzzer starts from: valid inputs of each target, made by the product's own encoders where it has them.

use robustmq_common::ids::{ChainDigest, CloudGeneration, EdgeSeq, Incarnation, LaneId};
use robustmq_common::record::{BatchBuilder as RecordBatchBuilder, Compression, NewRecord};
use robustmq_common::sync::{
    Answer, BatchBuilder, BatchIdentity, EdgeRecord, Heartbeat, Hello, Intent, JudgedLane,
    LanePosition, LaneState, OpenBatch, OpenReason, Outcome, RecordKey, Refusal, RejectReason,
    Rejected, SessionId, SkipReason, StoreId,
};

/// Inputs by target.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("record_batch", record_batches()),
        ("mqtt_codec", mqtt()),
        #[cfg(feature = "cloud")]
        ("kafka_frame", crate::kafka::seeds()),
        ("sync_frame", sync()),
        #[cfg(feature = "edge")]
        ("queue_segments", crate::queue::seeds()),
    ]
}

fn record_batches() -> Vec<Vec<u8>> {
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut seeds = Vec::new();
    for codec in codecs {
        let mut builder = RecordBatchBuilder::new(codec);
        for index in 0..5 {
            let headers = [("mqtt.topic", Some(b"plant/line".as_slice())), ("null", None)];
            let value = (index % 2 == 0).then_some(b"0123456789012345678901234567".as_slice());
            let record = NewRecord {
                timestamp_ms: 1000 + index,
                key: Some(b"key"),
                value,
                headers: &headers,
            };
            builder.push(&record).expect("a small batch");
        }
        let batch = builder.build().expect("a batch with records");
        for mode in [0, 1] {
            seeds.push([&[mode], batch.as_bytes().as_ref()].concat());
        }
        seeds.push([&[0], batch.as_bytes().as_ref(), batch.as_bytes()].concat());
    }
    seeds
}

/// One connection for each version, and every packet by itself.
fn mqtt() -> Vec<Vec<u8>> {
    let connect_v5 = b"\x10\x3e\0\x04MQTT\x05\xee\0\x3c\x05\x11\0\0\0\x0a\0\x01c\x10\x18\0\0\0\x05\x03\0\x01j\x26\0\x01k\0\x01v\
        \0\x03a/b\0\x02hi\0\x01u\0\x01p";
    let connect_v311 = b"\x10\x17\0\x04MQTT\x04\xc2\0\x3c\0\x03cli\0\x02us\0\x02pw";
    let v5: [&[u8]; 14] = [
        b"\x20\x06\0\0\x03\x21\0\x0a",
        b"\x32\x0c\0\x03a/b\0\x01\x03\x23\0\x01x",
        b"\x35\x09\0\x03a/b\0\x07\0x",
        b"\x40\x02\0\x01",
        b"\x50\x04\0\x01\x10\0",
        b"\x62\x03\0\x01\x92",
        b"\x70\x02\0\x01",
        b"\x82\x0a\0\x02\x02\x0b\x05\0\x01#\x2d",
        b"\x90\x05\0\x02\0\x01\x80",
        b"\xa2\x0c\0\x03\0\0\x07a/+/\xc3\xa4/",
        b"\xb0\x04\0\x03\0\x11",
        b"\xc0\0",
        b"\xe0\x02\x04\0",
        b"\xf0\x06\x18\x04\x15\0\x01m",
    ];
    let v311: [&[u8]; 9] = [
        b"\x20\x02\x01\0",
        b"\x30\x06\0\x03a/bx",
        b"\x3d\x08\0\x03a/b\0\x09x",
        b"\x40\x02\0\x01",
        b"\x82\x0e\0\x02\0\x09$share/g/#\x01",
        b"\x90\x04\0\x02\x01\x80",
        b"\xa2\x05\0\x03\0\x01+",
        b"\xb0\x02\0\x03",
        b"\xe0\0",
    ];
    let mut seeds = Vec::new();
    for (mode, connect, packets) in
        [(1, connect_v311.as_slice(), v311.as_slice()), (2, connect_v5.as_slice(), v5.as_slice())]
    {
        seeds.push([&[0, 3], connect].concat());
        seeds.push([&[0, 255], connect, &packets.concat()].concat());
        seeds.extend(packets.iter().map(|packet| [&[mode, 1], *packet].concat()));
    }
    seeds
}

fn sync() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    let mut seed = |mode: u8, frame: &[u8]| {
        seeds.push([&[mode], frame].concat());
    };
    let record = edge_record();
    seed(5, &record);
    for frame in batches(&record) {
        seed(0, &frame);
    }
    seed(0x81, &uncompressed_batch(&record));
    let lanes = vec![LanePosition {
        lane: LaneId(0),
        next_seq: EdgeSeq(9),
        acknowledged_through: EdgeSeq(4),
        digest: ChainDigest(77),
    }];
    let open = Intent::Open {
        presented: Incarnation(1),
        reason: OpenReason::HistoryMismatch,
        judged: vec![JudgedLane { lane: LaneId(0), continues: true, begun_through: EdgeSeq(7) }],
    };
    for intent in [Intent::Confirm { incarnation: Incarnation(3) }, open] {
        let (session, store) = (SessionId(1), StoreId(2));
        seed(0x82, &Hello { session, store, intent, lanes: lanes.clone() }.encode());
        seed(0x83, &Heartbeat { session, store, incarnation: Incarnation(3) }.encode());
    }
    for outcome in outcomes() {
        seed(0x84, &Answer { generation: CloudGeneration(8), outcome }.encode());
    }
    seeds
}

fn edge_record() -> Vec<u8> {
    let mut out = Vec::new();
    let record = EdgeRecord {
        mqtt_topic: "plant/line",
        client_id: "sensor",
        qos: 2,
        retain: true,
        payload_utf8: true,
        expiry_seconds: Some(60),
        kafka_topic: Some("alarms"),
        key: RecordKey::Bytes(b"key"),
        content_type: Some("text/plain"),
        response_topic: Some("re"),
        correlation_data: Some(b"c"),
        user_properties: vec![("name", "value")],
        payload: b"23.5",
    };
    record.encode(&mut out).expect("short fields");
    out
}

fn batches(record: &[u8]) -> Vec<Vec<u8>> {
    let mut builder = BatchBuilder::new(EdgeSeq(5));
    assert!(builder.push_record(Some(1_700_000_000_000), record));
    assert!(builder.push_skip(3, SkipReason::ALL[0]));
    assert!(builder.push_record(None, record));
    let identity = BatchIdentity {
        incarnation: Incarnation(3),
        session: SessionId(1),
        lane: LaneId(0),
        digest_before: ChainDigest(1),
        digest_after: ChainDigest(2),
        acknowledged_through: EdgeSeq(4),
    };
    let (_, frame) = builder.finish(&identity).expect("a small batch");
    vec![frame]
}

/// A batch as mode 1 wants it: the frame's head and header, then the body as it is before compression.
fn uncompressed_batch(record: &[u8]) -> Vec<u8> {
    let frame = batches(record).remove(0);
    let mut out = frame[..crate::sync::HEAD_BYTES + crate::sync::BATCH_HEADER_BYTES].to_vec();
    for _ in 0..2 {
        out.push(0);
        out.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
        out.extend_from_slice(&u32::try_from(record.len()).expect("a short record").to_be_bytes());
        out.extend_from_slice(record);
    }
    out.push(1);
    out.extend_from_slice(&3_u64.to_be_bytes());
    out.push(SkipReason::ALL[0].code());
    out
}

fn outcomes() -> Vec<Outcome> {
    let state = LaneState {
        lane: LaneId(0),
        acknowledged_through: EdgeSeq(4),
        digest: ChainDigest(77),
        open: Some(OpenBatch { through: EdgeSeq(9), digest: ChainDigest(78) }),
        rejected: vec![Rejected { seq: EdgeSeq(3), reason: RejectReason::ALL[0] }],
    };
    let lanes = vec![state.clone(), LaneState { lane: LaneId(1), open: None, ..state.clone() }];
    vec![
        Outcome::Hello { incarnation: Incarnation(3), lanes: lanes.clone() },
        Outcome::Lane(state.clone()),
        Outcome::Heartbeat,
        Outcome::Refused(Refusal::Gap { expected: EdgeSeq(5) }),
        Outcome::Refused(Refusal::DigestMismatch { state }),
        Outcome::Refused(Refusal::Fenced { current: Incarnation(4), lanes }),
        Outcome::Refused(Refusal::Conflict { retry_after_ms: 5 }),
        Outcome::Refused(Refusal::TooLarge { limit_bytes: 5 }),
        Outcome::Refused(Refusal::Malformed),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_seed_passes_its_check() {
        for (target, seeds) in super::all() {
            let check = match target {
                "record_batch" => crate::record::check,
                "mqtt_codec" => crate::mqtt::check,
                #[cfg(feature = "cloud")]
                "kafka_frame" => crate::kafka::check,
                "sync_frame" => crate::sync::check,
                other => panic!("no check for {other}"),
            };
            seeds.iter().for_each(|seed| check(seed));
        }
    }
}
