use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{CompactBatch, Compacted};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::record::{BatchBuilder, Compression, NewRecord, Producer, Record, RecordBatch};

const HOW: CompactBatch =
    CompactBatch { max_bytes: 1 << 20, new_horizon_ms: 5000, keeps_empty: false };
const PRODUCER: Producer =
    Producer { id: ProducerId(7), epoch: ProducerEpoch(1), base_sequence: 40 };

/// A batch at offset 100 of records `(key, has a value, timestamp)`.
fn batch(compression: Compression, records: &[(u8, bool, i64)]) -> RecordBatch {
    let mut builder = BatchBuilder::new(compression).producer(PRODUCER);
    for (key, has_value, timestamp_ms) in records {
        let (key, value) = (&[*key][..], has_value.then_some(&b"value"[..]));
        let headers = [("header", Some(&b"x"[..]))];
        let record =
            NewRecord { timestamp_ms: *timestamp_ms, key: Some(key), value, headers: &headers };
        builder.push(&record).expect("it fits");
    }
    builder.build().expect("it fits").placed(Offset(100), LeaderEpoch(3))
}

fn records(batch: &RecordBatch) -> Vec<Record> {
    let parsed = RecordBatch::parse(batch.as_bytes().clone()).expect("an intact batch");
    let records = parsed.records(1 << 20).expect("readable");
    records.map(|record| record.expect("well-formed")).collect()
}

fn changed(outcome: Compacted) -> RecordBatch {
    match outcome {
        Compacted::Changed(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_stays_keeps_its_offset_and_the_batch_its_range() {
    let before = batch(Compression::Lz4, &[(1, true, 10), (2, true, 30), (1, true, 20)]);
    let (outcome, horizon) =
        before.compact(HOW, |record| record.offset != Offset(101)).expect("readable");
    let after = changed(outcome);
    assert_eq!((after.base_offset(), after.last_offset()), (Offset(100), Offset(102)));
    assert_eq!((after.records_count(), after.max_timestamp()), (2, 20));
    assert_eq!((after.compression(), after.producer()), (Compression::Lz4, Some(PRODUCER)));
    assert_eq!(after.last_sequence(), before.last_sequence());
    let kept: Vec<_> = records(&before).into_iter().filter(|r| r.offset != Offset(101)).collect();
    assert_eq!((records(&after), horizon, after.delete_horizon_ms()), (kept, None, None));
    assert_eq!(before.compact(HOW, |_| true), Ok((Compacted::Unchanged, None)));
}

#[test]
fn tombstones_get_their_horizon_once() {
    let before = batch(Compression::None, &[(1, true, 10), (2, false, 30), (3, false, 20)]);
    let (outcome, horizon) = before.compact(HOW, |_| true).expect("readable");
    let first = changed(outcome);
    assert_eq!((horizon, first.delete_horizon_ms()), (Some(5000), Some(5000)));
    assert_eq!(records(&first), records(&before), "timestamps are the same");
    assert_eq!(first.max_timestamp(), 30);
    let later = CompactBatch { new_horizon_ms: 9000, ..HOW };
    assert_eq!(first.compact(later, |_| true), Ok((Compacted::Unchanged, Some(5000))));
    let (outcome, horizon) = first.compact(later, |r| r.offset != Offset(101)).expect("readable");
    assert_eq!((horizon, changed(outcome).delete_horizon_ms()), (Some(5000), Some(5000)));
    let (outcome, horizon) = first.compact(later, |r| r.value.is_some()).expect("readable");
    assert_eq!((horizon, records(&changed(outcome))), (None, records(&before)[..1].to_vec()));
}

#[test]
fn a_batch_never_grows_beyond_what_may_be_read_again() {
    let tombstones = [(1, false, 0); 100];
    let before = batch(Compression::Gzip, &tombstones);
    // A record takes less than 20 bytes, and eight more when it is far from the time that it is relative to.
    let far = CompactBatch { max_bytes: 100 * 20, new_horizon_ms: 1 << 60, ..HOW };
    assert_eq!(before.compact(far, |_| true), Ok((Compacted::Unchanged, None)));
    let (outcome, horizon) = before.compact(far, |r| r.offset != Offset(100)).expect("readable");
    assert_eq!((changed(outcome).records_count(), horizon), (99, None));
}

#[test]
fn an_empty_batch_goes_unless_it_is_wanted() {
    let before = batch(Compression::Zstd, &[(1, true, 10), (2, true, 30)]);
    assert_eq!(before.compact(HOW, |_| false), Ok((Compacted::Gone, None)));
    let keeping = CompactBatch { keeps_empty: true, ..HOW };
    let empty = changed(before.compact(keeping, |_| false).expect("readable").0);
    assert_eq!((empty.base_offset(), empty.last_offset()), (Offset(100), Offset(101)));
    assert_eq!((empty.records_count(), empty.max_timestamp()), (0, -1));
    assert_eq!((empty.producer(), empty.last_sequence()), (Some(PRODUCER), Some(41)));
    assert!(records(&empty).is_empty());
    assert_eq!(empty.compact(keeping, |_| true), Ok((Compacted::Unchanged, None)));
    assert_eq!(empty.compact(HOW, |_| true), Ok((Compacted::Gone, None)));
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Gzip),
        Just(Compression::Snappy),
        Just(Compression::Lz4),
        Just(Compression::Zstd),
    ]
}

proptest! {
    #[test]
    fn exactly_what_is_kept_can_be_read_afterwards(
        compression in compression(),
        content in vec((0..4_u8, any::<bool>(), any::<i64>()), 1..20),
        kept in any::<u32>(),
        again in any::<u32>(),
    ) {
        let before = batch(compression, &content);
        let keep = |mask: u32| move |r: &Record| mask & (1 << (r.offset.0 - 100)) != 0;
        let mut now = before.clone();
        let mut expected = records(&before);
        for mask in [kept, again] {
            expected.retain(keep(mask));
            match now.compact(HOW, keep(mask)).expect("readable").0 {
                Compacted::Unchanged => {}
                Compacted::Changed(changed) => now = changed,
                Compacted::Gone => {
                    assert!(expected.is_empty());
                    return Ok(());
                }
            }
            assert_eq!(records(&now), expected);
            assert_eq!(now.last_offset(), before.last_offset());
        }
    }
}
