//! Golden bytes and order of a partition's keys and values.

use proptest::prelude::{any, proptest};
use robustmq_common::ids::{
    EdgeId, EdgeSeq, Incarnation, LaneId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch,
    ProducerId, TopicId,
};
use uuid::Uuid;

use super::{
    Chunk, Cleaned, Kind, LogEnd, PartitionKeys, ProducedBatch, ProducerEntry, decode_offset,
    decode_origin, encode_offset, encode_origin, topic_range, trailing_epoch, trailing_number,
};

fn keys(topic: u8, partition: i32) -> PartitionKeys {
    let topic = TopicId(Uuid::from_bytes([topic; 16]));
    PartitionKeys { topic, partition: PartitionIndex(partition) }
}

fn golden(rest: &[u8]) -> Vec<u8> {
    [&[0x80][..], &[7; 16], &[0, 0, 0, 3], rest].concat()
}

#[test]
fn golden_key_bytes() {
    let keys = keys(7, 3);
    let edge = EdgeId::new("gw").expect("a legal name");
    assert_eq!(keys.batch(Offset(258)), golden(&[0x10, 0, 0, 0, 0, 0, 0, 1, 2]));
    assert_eq!(keys.chunk(Offset(1)), golden(&[0x20, 0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(keys.end(), golden(&[0x30]));
    assert_eq!(keys.log_start(), golden(&[0x31]));
    assert_eq!(keys.cleaned(), golden(&[0x32]));
    assert_eq!(keys.reserved(), golden(&[0x33]));
    assert_eq!(keys.archived_to(), golden(&[0x34]));
    assert_eq!(keys.epoch(LeaderEpoch(5)), golden(&[0x40, 0, 0, 0, 5]));
    assert_eq!(keys.producer(ProducerId(9)), golden(&[0x50, 0, 0, 0, 0, 0, 0, 0, 9]));
    assert_eq!(
        keys.origin(&edge, Incarnation(2), LaneId(1)),
        golden(b"\x60gw\0\0\0\0\0\0\0\0\0\x02\x01")
    );
}

#[test]
fn golden_value_bytes() {
    let open_chunk = Chunk { base_offset: Offset(1), bytes: 2, max_timestamp: -1 };
    let end = LogEnd { next_offset: Offset(3), leader_epoch: LeaderEpoch(4), open_chunk };
    let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4];
    expected.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    expected.extend([0xff; 8]);
    assert_eq!(&end.encode()[..], expected);
    assert_eq!(LogEnd::decode(&end.encode()), Ok(end));
    assert_eq!(Chunk::decode(&open_chunk.encode()), Ok(open_chunk));
    let cleaned = Cleaned {
        first_dirty: Offset(1),
        pass_end: Offset(2),
        next: Offset(3),
        horizon_ms: i64::MAX,
    };
    let mut expected = vec![1];
    expected.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
    expected.extend(i64::MAX.to_be_bytes());
    assert_eq!(&cleaned.encode()[..], expected);
    assert_eq!(Cleaned::decode(&cleaned.encode()), Ok(cleaned));
    assert_eq!(decode_offset(&encode_offset(Offset(5))), Ok(Offset(5)));
    assert_eq!(decode_origin(&encode_origin(EdgeSeq(5))), Ok(EdgeSeq(5)));
}

#[test]
fn a_producer_entry_keeps_its_last_five_batches() {
    let batch = |n: i32| ProducedBatch {
        first_sequence: n,
        last_offset: Offset(i64::from(n) * 2),
        last_offset_delta: 1,
        log_append_time: -1,
    };
    let entry = ProducerEntry {
        epoch: ProducerEpoch(1),
        last_write_ms: 9,
        batches: (0..7).map(batch).collect(),
    };
    let decoded = ProducerEntry::decode(&entry.encode()).expect("what was encoded");
    assert_eq!(decoded.batches, (2..7).map(batch).collect::<Vec<_>>());
    assert_eq!((decoded.epoch, decoded.last_write_ms), (entry.epoch, 9));
}

#[test]
fn damaged_values_are_errors() {
    let end = LogEnd::EMPTY.encode();
    assert!(LogEnd::decode(&end[..end.len() - 1]).is_err());
    assert!(LogEnd::decode(&[&end[..], &[0]].concat()).is_err());
    assert!(LogEnd::decode(&[&[9], &end[1..]].concat()).is_err());
    let backwards = Cleaned { first_dirty: Offset(2), pass_end: Offset(1), ..Cleaned::NEVER };
    assert!(Cleaned::decode(&backwards.encode()).is_err());
    assert!(decode_offset(&encode_offset(Offset(-1))).is_err());
    assert!(ProducerEntry::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6]).is_err());
    assert!(Chunk::decode(b"").is_err());
}

proptest! {
    #[test]
    fn keys_sort_as_what_they_stand_for(
        a in (any::<u8>(), 0..i32::MAX, 0..i64::MAX),
        b in (any::<u8>(), 0..i32::MAX, 0..i64::MAX),
    ) {
        let key = |(topic, partition, offset): (u8, i32, i64)| keys(topic, partition).batch(Offset(offset));
        assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        assert_eq!(trailing_number(&key(a)), Ok(a.2));
        let epochs = (keys(1, 1).epoch(LeaderEpoch(a.1)), keys(1, 1).epoch(LeaderEpoch(b.1)));
        assert_eq!(epochs.0.cmp(&epochs.1), a.1.cmp(&b.1));
        assert_eq!(trailing_epoch(&epochs.0), Ok(LeaderEpoch(a.1)));
    }

    #[test]
    fn ranges_hold_exactly_what_is_theirs(topic in any::<u8>(), partition in 0..i32::MAX, offset in 0..i64::MAX) {
        let mine = keys(topic, partition);
        let other = keys(topic, partition ^ 1);
        assert!(topic_range(mine.topic).contains(&mine.batch(Offset(offset))));
        assert!(topic_range(mine.topic).contains(&other.log_start()));
        assert!(!topic_range(mine.topic).contains(&keys(topic ^ 1, partition).end()));
        assert!(mine.kind_range(Kind::Batch).contains(&mine.batch(Offset(offset))));
        assert!(!mine.kind_range(Kind::Batch).contains(&mine.chunk(Offset(offset))));
        assert!(!mine.kind_range(Kind::Batch).contains(&other.batch(Offset(offset))));
    }
}
