//! Round trips, golden bytes, and refusal of what is not a frame.

use proptest::prelude::*;

use super::*;
use crate::ids::{ChainDigest, CloudGeneration, EdgeSeq, LaneId};
use crate::limits::{SYNC_BATCH_BYTES, SYNC_BATCH_ENTRIES, SYNC_FRAME_BYTES};

fn plain_record<'a>(payload: &'a [u8]) -> EdgeRecord<'a> {
    EdgeRecord {
        mqtt_topic: "plant/line-1/temp",
        client_id: "sensor-7",
        qos: 0,
        retain: false,
        payload_utf8: false,
        expiry_seconds: None,
        kafka_topic: None,
        key: RecordKey::ClientId,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        payload,
    }
}

fn full_record<'a>() -> EdgeRecord<'a> {
    EdgeRecord {
        qos: 2,
        retain: true,
        payload_utf8: true,
        expiry_seconds: Some(60),
        kafka_topic: Some("routed"),
        key: RecordKey::Bytes(b"k"),
        content_type: Some("t"),
        response_topic: Some("r"),
        correlation_data: Some(b"c"),
        user_properties: vec![("a", "1"), ("a", "2")],
        ..plain_record(b"21.5")
    }
}

fn encoded(record: &EdgeRecord<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(&mut out).expect("within the limits");
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn record_bytes_stay_as_they_are() {
    let check = |record: EdgeRecord<'_>, expected: &str| {
        assert_eq!(hex(&encoded(&record)), expected);
        assert_eq!(EdgeRecord::decode(&encoded(&record)).as_ref(), Ok(&record));
    };
    check(plain_record(b"x"), "0100000011706c616e742f6c696e652d312f74656d70000873656e736f722d3778");
    check(
        full_record(),
        "010f7e0000003c0011706c616e742f6c696e652d312f74656d70\
         000873656e736f722d370006726f7574656400016b000174000172000163000200016100013100016100013232312e35",
    );
}

#[test]
fn the_kafka_key_is_the_client_id_unless_a_route_says_otherwise() {
    assert_eq!(plain_record(b"").kafka_key(), Some(b"sensor-7".as_slice()));
    assert_eq!(full_record().kafka_key(), Some(b"k".as_slice()));
    let keyless = EdgeRecord { key: RecordKey::None, ..plain_record(b"") };
    assert_eq!(keyless.kafka_key(), None);
}

#[test]
fn a_record_with_unknown_flags_or_version_is_refused() {
    let mut other_version = encoded(&plain_record(b""));
    other_version[0] = 2;
    assert_eq!(
        EdgeRecord::decode(&other_version),
        Err(DecodeError::Version { found: 2, expected: 1 })
    );
    let mut other_flags = encoded(&plain_record(b""));
    other_flags[1] = 0x80;
    assert_eq!(
        EdgeRecord::decode(&other_flags),
        Err(DecodeError::Invalid { field: "record flags" })
    );
}

#[test]
fn a_record_with_too_many_user_properties_is_not_encoded() {
    let record = EdgeRecord { user_properties: vec![("a", "b"); 1_025], ..plain_record(b"") };
    let error = record.encode(&mut Vec::new()).expect_err("over the limit");
    assert_eq!((error.length, error.limit), (1_025, 1_024));
}

fn identity() -> BatchIdentity {
    BatchIdentity {
        incarnation: Incarnation(4),
        session: SessionId(3),
        lane: LaneId(2),
        digest_before: ChainDigest(76),
        digest_after: ChainDigest(77),
        acknowledged_through: EdgeSeq(4),
    }
}

fn build(bodies: &[&[u8]]) -> (BatchHeader, Vec<u8>) {
    let mut builder = BatchBuilder::new(EdgeSeq(5));
    for body in bodies {
        assert!(builder.push_record(Some(1_700_000_000_000), body));
    }
    assert!(builder.push_record(None, b""));
    assert!(builder.push_skip(3, SkipReason::Expired));
    builder.finish(&identity()).expect("compresses")
}

#[test]
fn a_batch_gives_back_what_was_put_in() {
    let (header, frame) = build(&[b"one", b"two"]);
    assert_eq!((header.from, header.to), (EdgeSeq(5), EdgeSeq(11)));
    let batch = Batch::decode(&frame).expect("whole");
    assert_eq!(batch.header(), &header);
    let entries: Vec<Entry<'_>> = batch.entries().collect();
    let wall_ms = Some(1_700_000_000_000);
    let expected = vec![
        Entry::Record { seq: EdgeSeq(5), wall_ms, body: b"one" },
        Entry::Record { seq: EdgeSeq(6), wall_ms, body: b"two" },
        Entry::Record { seq: EdgeSeq(7), wall_ms: None, body: b"" },
        Entry::Skip { first: EdgeSeq(8), count: 3, reason: SkipReason::Expired },
    ];
    assert_eq!(entries, expected);
}

#[test]
fn batch_bytes_stay_as_they_are() {
    let (_, frame) = build(&[b"one"]);
    assert_eq!(hex(&frame[..5]), "524d514201");
    assert_eq!(
        hex(&frame[9..78]),
        "00000000000000040000000000000000000000000000000302\
         0000000000000005000000000000000a000000000000004c000000000000004d0000000000000004\
         00000027"
    );
    let body = zstd::bulk::decompress(&frame[78..], 1_000).expect("whole");
    assert_eq!(
        hex(&body),
        "000000018bcfe5680000000003 6f6e65 00800000000000000000000000 01000000000000000301"
            .replace(' ', "")
    );
}

#[test]
fn a_flipped_bit_anywhere_in_a_batch_is_noticed() {
    let (_, frame) = build(&[b"one", b"two"]);
    for position in 0..frame.len() {
        let mut bent = frame.clone();
        bent[position] ^= 0x10;
        assert!(Batch::decode(&bent).is_err(), "byte {position}");
    }
}

#[test]
fn a_full_batch_takes_no_more() {
    let mut builder = BatchBuilder::new(EdgeSeq(1));
    assert!(!builder.push_record(None, &vec![0; SYNC_BATCH_BYTES]), "over the bytes");
    assert!(!builder.push_skip(0, SkipReason::Dropped), "nothing");
    assert!(!builder.push_skip(u64::MAX, SkipReason::Dropped), "past the last sequence");
    for _ in 0..SYNC_BATCH_ENTRIES {
        assert!(builder.push_skip(1, SkipReason::Dropped));
    }
    assert!(!builder.push_record(None, b""), "over the entries");
}

#[test]
fn a_batch_that_does_not_cover_its_range_is_refused() {
    let builder = BatchBuilder::new(EdgeSeq(5));
    let (_, frame) = builder.finish(&identity()).expect("compresses");
    assert_eq!(Batch::decode(&frame), Err(DecodeError::Invalid { field: "batch range" }));
    let mut builder = BatchBuilder::new(EdgeSeq(4));
    assert!(builder.push_record(None, b"x"));
    let (_, frame) = builder.finish(&identity()).expect("compresses");
    assert_eq!(Batch::decode(&frame), Err(DecodeError::Invalid { field: "acknowledged_through" }));
}

#[test]
fn the_largest_incompressible_batch_fits_its_frame() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..SYNC_BATCH_BYTES - 13)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect();
    let mut builder = BatchBuilder::new(EdgeSeq(5));
    assert!(builder.push_record(None, &noise));
    let (_, frame) = builder.finish(&identity()).expect("compresses");
    assert!(frame.len() <= SYNC_FRAME_BYTES, "{} bytes", frame.len());
    assert!(Batch::decode(&frame).is_ok());
}

#[test]
fn a_captive_portals_page_is_no_answer() {
    let page = b"<html><body>Welcome to the guest network</body></html>";
    assert_eq!(Answer::decode(page), Err(DecodeError::Magic));
    assert_eq!(Answer::decode(b""), Err(DecodeError::Magic));
    assert_eq!(Answer::decode(b"{}"), Err(DecodeError::Magic));
}

fn lane_state() -> LaneState {
    LaneState {
        lane: LaneId(1),
        acknowledged_through: EdgeSeq(10),
        digest: ChainDigest(11),
        open: Some(OpenBatch { through: EdgeSeq(12), digest: ChainDigest(13) }),
        rejected: vec![
            Rejected { seq: EdgeSeq(2), reason: RejectReason::IllegalTopic },
            Rejected { seq: EdgeSeq(9), reason: RejectReason::TooLarge },
        ],
    }
}

#[test]
fn answer_bytes_stay_as_they_are() {
    let answer = Answer { generation: CloudGeneration(3), outcome: Outcome::Lane(lane_state()) };
    assert_eq!(
        hex(&answer.encode()[9..]),
        "00000000000000030101000000000000000a000000000000000b01000000000000000c000000000000000d\
         000000020000000000000002020000000000000009\
         03"
    );
}

fn every_outcome() -> Vec<Outcome> {
    let mut outcomes = vec![
        Outcome::Hello { incarnation: Incarnation(2), lanes: vec![lane_state(), lane_state()] },
        Outcome::Lane(LaneState { open: None, rejected: Vec::new(), ..lane_state() }),
        Outcome::Heartbeat,
    ];
    outcomes.extend(
        [
            Refusal::Gap { expected: EdgeSeq(7) },
            Refusal::DigestMismatch { state: lane_state() },
            Refusal::Fenced { current: Incarnation(8), lanes: vec![lane_state()] },
            Refusal::Conflict { retry_after_ms: 5 },
            Refusal::Moved,
            Refusal::Unauthorised,
            Refusal::UnknownEdge,
            Refusal::TooLarge { limit_bytes: 6 },
            Refusal::Overloaded { retry_after_ms: 7 },
            Refusal::Malformed,
        ]
        .map(Outcome::Refused),
    );
    outcomes
}

#[test]
fn every_answer_comes_back_and_no_part_of_one_does() {
    for outcome in every_outcome() {
        let answer = Answer { generation: CloudGeneration(1), outcome };
        let frame = answer.encode();
        assert_eq!(Answer::decode(&frame), Ok(answer));
        for end in 0..frame.len() {
            assert!(Answer::decode(&frame[..end]).is_err());
        }
    }
}

#[test]
fn rejections_out_of_order_are_refused() {
    let mut state = lane_state();
    state.rejected.reverse();
    let answer = Answer { generation: CloudGeneration(1), outcome: Outcome::Lane(state) };
    assert_eq!(Answer::decode(&answer.encode()), Err(DecodeError::Invalid { field: "rejections" }));
}

fn position(lane: u8) -> LanePosition {
    LanePosition {
        lane: LaneId(lane),
        next_seq: EdgeSeq(20),
        acknowledged_through: EdgeSeq(10),
        digest: ChainDigest(5),
    }
}

#[test]
fn a_hello_comes_back_as_it_was() {
    let confirm = Intent::Confirm { incarnation: Incarnation(3) };
    let opens = OpenReason::ALL.map(|reason| Intent::Open {
        presented: Incarnation(3),
        reason,
        judged: vec![judged(0, true), judged(1, false)],
    });
    for intent in opens.into_iter().chain([confirm]) {
        let lanes = vec![position(0), position(1)];
        let hello = Hello { session: SessionId(1), store: StoreId(2), intent, lanes };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    let heartbeat =
        Heartbeat { session: SessionId(1), store: StoreId(2), incarnation: Incarnation(3) };
    assert_eq!(Heartbeat::decode(&heartbeat.encode()), Ok(heartbeat));
}

fn judged(lane: u8, continues: bool) -> JudgedLane {
    JudgedLane { lane: LaneId(lane), continues, begun_through: EdgeSeq(7) }
}

#[test]
fn a_hello_that_judges_a_lane_twice_is_refused() {
    let intent = Intent::Open {
        presented: Incarnation(3),
        reason: OpenReason::Fenced,
        judged: vec![judged(1, true), judged(1, false)],
    };
    let lanes = vec![position(1)];
    let hello = Hello { session: SessionId(1), store: StoreId(2), intent, lanes };
    assert_eq!(Hello::decode(&hello.encode()), Err(DecodeError::Invalid { field: "judged" }));
}

#[test]
fn a_hello_that_contradicts_itself_is_refused() {
    let check = |lanes: Vec<LanePosition>, field: &'static str| {
        let intent = Intent::Confirm { incarnation: Incarnation(3) };
        let hello = Hello { session: SessionId(1), store: StoreId(2), intent, lanes };
        assert_eq!(Hello::decode(&hello.encode()), Err(DecodeError::Invalid { field }));
    };
    check(vec![position(1), position(1)], "lanes");
    check(vec![LanePosition { next_seq: EdgeSeq(10), ..position(1) }], "lane position");
}

proptest! {
    #[test]
    fn any_record_comes_back(
        topic in ".{0,40}", client in ".{0,20}", qos in 0_u8..3, retain: bool,
        expiry_seconds: Option<u32>,
        correlation: Option<Vec<u8>>, properties in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..4),
        payload: Vec<u8>,
    ) {
        let record = EdgeRecord {
            mqtt_topic: &topic,
            client_id: &client,
            qos,
            retain,
            expiry_seconds,
            correlation_data: correlation.as_deref(),
            user_properties: properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            ..plain_record(&payload)
        };
        let bytes = encoded(&record);
        prop_assert_eq!(EdgeRecord::decode(&bytes), Ok(record));
    }

    #[test]
    fn nothing_makes_a_decoder_panic(bytes: Vec<u8>, kind in 0_usize..4) {
        let magic: [&[u8]; 4] = [b"RMQB", b"RMQA", b"RMQH", b"RMQP"];
        let mut frame = magic[kind].to_vec();
        frame.push(1);
        frame.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        frame.extend_from_slice(&bytes);
        let _ = Batch::decode(&frame);
        let _ = Answer::decode(&frame);
        let _ = Hello::decode(&frame);
        let _ = Heartbeat::decode(&frame);
        let _ = EdgeRecord::decode(&bytes);
    }
}
