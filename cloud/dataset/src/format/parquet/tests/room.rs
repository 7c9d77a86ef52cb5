//! Row groups share room, while their readers are slow.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{
    Between, Bytes, Coding, Extent, Format, Kept, Memory, Mutex, Object, ObjectIndex, Pace,
    Reading, as_json, batch, groups_of, in_memory, index, numbers, texts, values, written,
};
use crate::index::Found;

/// Nothing more is wanted until it is told so.
struct Slow {
    kept: Kept,
    begun: watch::Sender<bool>,
    goes_on: watch::Receiver<bool>,
}

impl Found for Slow {
    fn extent(&mut self, index: &ObjectIndex, extent: Arc<Extent>) {
        self.kept.extent(index, extent);
    }

    async fn publish(&mut self, _: &ObjectIndex) -> bool {
        true
    }

    fn promised(&self) -> u64 {
        0
    }

    fn wants(&self, _: u64) -> bool {
        true
    }

    async fn wanted(&mut self) -> bool {
        self.begun.send_replace(true);
        self.goes_on.wait_for(|goes_on| *goes_on).await.is_ok()
    }
}

/// A row group that waited for its reader was held for as long as that: 16 partitions of files with row groups of 128 MB took 2 GB beside the
/// cache. Now it is given up for those who need the room, and fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_group_whose_reader_is_slow_makes_room_for_others() {
    // Two of 18 MB do not fit into three quarters of 32 MiB.
    let all = batch(&[("n", numbers(1200)), ("t", texts(1200, 30_000))]);
    let file = Bytes::from(written(&all, groups_of(600)));
    let size = file.len() as u64;
    let source = Memory { bytes: file, asked: Mutex::default() };
    let object = Object { path: "a.parquet".into(), etag: None, size, modified_ms: 0 };
    let reading = || Reading {
        rows_as: Some(as_json(&[])),
        ..Reading::plain(Format::Parquet, Coding::Plain)
    };
    let cache = in_memory(32 << 20);
    let between = Between::new(&cache);
    let pace = Pace::even(3).with_extents(1 << 20);
    let (begun, mut has_begun) = watch::channel(false);
    let (go_on, goes_on) = watch::channel(false);
    let mut slow = Slow { kept: Kept::default(), begun, goes_on };
    let mut quick = Kept::default();
    let slowly =
        async { index::index(&source, &object, reading(), pace, &between, &mut slow).await };
    let quickly = async {
        has_begun.wait_for(|begun| *begun).await.unwrap();
        assert!(cache.working_bytes() > 17_000_000, "it is counted");
        let found = index::index(&source, &object, reading(), pace, &between, &mut quick);
        let found = tokio::time::timeout(Duration::from_secs(120), found).await;
        go_on.send_replace(true);
        found.expect("it is not kept waiting")
    };
    let (slowly, quickly) = tokio::join!(slowly, quickly);
    assert_eq!(slowly.unwrap(), quickly.unwrap());
    let all = |kept: &Kept| {
        kept.0.iter().flat_map(|extent| values(extent).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(all(&slow.kept).len(), 1200);
    assert!(all(&slow.kept) == all(&quick), "each row once, wherever it was given up");
    let asked: u64 = source.asked.lock().unwrap().iter().map(|range| range.end - range.start).sum();
    assert!(asked > size * 5 / 2, "{asked} of {size}: one row group was fetched again");
    assert_eq!(cache.working_bytes(), 0);
}
