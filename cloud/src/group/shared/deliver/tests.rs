use bytes::Bytes;
use robustmq_common::ids::{LeaderEpoch, Offset};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};

use super::{Cut, DeliverError, Wanted, cut, placed};

/// A batch of `count` records from `base` on.
fn batch(base: i64, count: i64) -> Bytes {
    batch_of(Compression::None, base, count)
}

fn batch_of(compression: Compression, base: i64, count: i64) -> Bytes {
    let mut batch = BatchBuilder::new(compression);
    for number in 0..count {
        let value = (base + number).to_string();
        let record = NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() };
        batch.push(&record).expect("small");
    }
    batch.build().expect("a batch").placed(Offset(base), LeaderEpoch(0)).into_bytes()
}

fn is_hole(cut: &Cut, from: i64, to: i64) -> bool {
    cut.batches.is_empty() && cut.hole == Some(from..to) && cut.offsets == (to..to)
}

/// The values of a batch, with the offset that a header says.
fn values(batch: &RecordBatch) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let records = batch.records(limits::DECOMPRESSED_BATCH_BYTES).expect("readable records");
    records
        .map(|record| {
            let record = record.expect("a good record");
            let value = text(&record.value.clone().expect("a value"));
            (value, record.header("robustmq.offset").map(|offset| text(offset)))
        })
        .collect()
}

fn plain(numbers: std::ops::Range<i64>) -> Vec<(String, Option<String>)> {
    numbers.map(|number| (number.to_string(), None)).collect()
}

/// The value of each is its offset.
fn named(numbers: std::ops::Range<i64>) -> Vec<(String, Option<String>)> {
    numbers.map(|number| (number.to_string(), Some(number.to_string()))).collect()
}

/// Records that came back and were compacted away meanwhile were offered again for ever, and nothing else was.
#[tokio::test]
async fn where_nothing_is_left_there_is_a_hole() {
    let whole = Wanted::WholeBatches;
    let behind = cut(vec![batch(20, 5)], &(3..10), 100, whole).await.expect("good batches");
    assert!(is_hole(&behind, 3, 10), "{behind:?}");
    let nothing = cut(Vec::new(), &(3..10), 100, whole).await.expect("no batches");
    assert!(is_hole(&nothing, 3, 10), "{nothing:?}");
    let later = cut(vec![batch(5, 5)], &(3..10), 100, whole).await.expect("good batches");
    assert_eq!((later.hole, later.offsets), (Some(3..5), 5..10));
}

#[tokio::test]
async fn a_batch_is_cut_behind_what_may_be_given() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        // What comes before 3 stays in front of the batch where its end is as far as the member may have.
        let one = vec![batch_of(compression, 0, 10)];
        let all = cut(one.clone(), &(3..10), 7, Wanted::Records).await.expect("a good batch");
        assert_eq!((all.offsets.clone(), all.hole.clone()), (3..10, None));
        assert_eq!(values(&all.batches[0]), plain(0..10), "{compression}");
        assert_eq!(all.batches[0].as_bytes(), &one[0], "{compression}: as it was stored");

        for wanted in [Wanted::WholeBatches, Wanted::Records] {
            let middle = cut(one.clone(), &(3..10), 4, wanted).await.expect("a good batch");
            assert_eq!((middle.offsets.clone(), middle.hole.clone()), (3..7, None));
            let batch = &middle.batches[0];
            assert_eq!(values(batch), named(3..7), "{compression}");
            assert_eq!((batch.base_offset(), batch.next_offset()), (Offset(0), Offset(7)));
            assert_eq!(batch.compression(), compression);
            // A client checks it where it is put.
            let [head, rest] = placed(batch.as_bytes(), 1 << 52);
            let placed = RecordBatch::parse(Bytes::from([head, rest].concat()));
            assert_eq!(placed.expect("a good checksum").base_offset(), Offset(1 << 52));
        }
        // The dead-letter topic was given whole batches, with records in front that had been acknowledged.
        let rest = cut(one.clone(), &(3..10), 7, Wanted::Everything).await.expect("a good batch");
        assert_eq!((rest.offsets.clone(), rest.hole.clone()), (3..10, None));
        assert_eq!(values(&rest.batches[0]), plain(3..10), "{compression}");
        let letters = cut(one, &(3..10), 4, Wanted::Everything).await.expect("a good batch");
        assert_eq!(values(&letters.batches[0]), plain(3..7), "{compression}");
    }
}

#[tokio::test]
async fn whole_batches_are_cut_only_where_it_has_to_be() {
    let two = || vec![batch(0, 5), batch(5, 5)];
    let whole = cut(two(), &(0..10), 7, Wanted::WholeBatches).await.expect("good batches");
    assert_eq!((whole.offsets, whole.batches.len()), (0..5, 1), "the second goes to another");
    let records = cut(two(), &(0..10), 7, Wanted::Records).await.expect("good batches");
    assert_eq!((records.offsets.clone(), records.batches.len()), (0..7, 2));
    let found: Vec<_> = records.batches.iter().flat_map(values).collect();
    assert_eq!(found, [plain(0..5), named(5..7)].concat());
    // The rest of the second is somebody else's.
    let needed = cut(two(), &(0..7), 100, Wanted::WholeBatches).await.expect("good batches");
    assert_eq!((needed.offsets.clone(), needed.batches.len()), (0..7, 2));
    assert_eq!(values(&needed.batches[1]), named(5..7));
}

/// Produce does not decompress, so what it takes may be anything. A group stopped at such a batch for good: it could not be cut to what a
/// member may have.
#[tokio::test]
async fn a_batch_that_cannot_be_read_is_given_whole_or_not_at_all() {
    let junk = || junk(5, 10);
    for wanted in [Wanted::WholeBatches, Wanted::Records, Wanted::Everything] {
        let alone = cut(vec![junk()], &(5..20), 3, wanted).await.expect("it is given whole");
        let to = if wanted == Wanted::Everything { 8 } else { 15 };
        assert_eq!((alone.offsets.clone(), alone.hole.clone()), (5..to, None), "{wanted:?}");
        assert_eq!(alone.batches[0].as_bytes(), &junk());
    }
    let behind = cut(vec![batch(0, 5), junk()], &(0..20), 8, Wanted::Records).await;
    let behind = behind.expect("what comes before it");
    assert_eq!((behind.offsets, behind.batches.len()), (0..5, 1));
    // Some of it is somebody else's.
    let part = cut(vec![junk()], &(5..9), 100, Wanted::Records).await;
    assert!(matches!(part, Err(DeliverError::Batch(_))), "{part:?}");
}

/// A batch with a good checksum and without a readable record.
fn junk(base: i64, count: i32) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    let value = [0xff; 40];
    for _ in 0..count {
        batch.push(&NewRecord { value: Some(&value), ..NewRecord::default() }).expect("small");
    }
    let built = batch.build().expect("a batch");
    let mut bytes = built.placed(Offset(base), LeaderEpoch(0)).into_bytes().to_vec();
    bytes[61..].fill(0xff);
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    Bytes::from(bytes)
}
