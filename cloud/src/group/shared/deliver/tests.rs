use bytes::Bytes;
use robustmq_common::ids::{LeaderEpoch, Offset};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};

use super::{Cut, cut};

/// A batch of `count` records from `base` on.
fn batch(base: i64, count: i64) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        batch.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("small");
    }
    batch.build().expect("a batch").placed(Offset(base), LeaderEpoch(0)).into_bytes()
}

fn is_hole(cut: &Cut, from: i64, to: i64) -> bool {
    cut.batches.is_empty() && cut.hole == Some(from..to) && cut.offsets == (to..to)
}

/// Records that came back and were compacted away meanwhile were offered again for ever, and nothing else was.
#[tokio::test]
async fn where_nothing_is_left_there_is_a_hole() {
    let behind = cut(vec![batch(20, 5)], &(3..10), 100, true).await.expect("good batches");
    assert!(is_hole(&behind, 3, 10), "{behind:?}");
    let nothing = cut(Vec::new(), &(3..10), 100, true).await.expect("no batches");
    assert!(is_hole(&nothing, 3, 10), "{nothing:?}");
    let later = cut(vec![batch(5, 5)], &(3..10), 100, true).await.expect("good batches");
    assert_eq!((later.hole, later.offsets), (Some(3..5), 5..10));
}
