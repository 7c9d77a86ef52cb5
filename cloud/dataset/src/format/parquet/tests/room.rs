//! Row groups share room, while their readers are slow.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::{
    Between, Bytes, Coding, Extent, Format, Kept, Memory, Mutex, Object, ObjectIndex, Pace,
    Reading, Reread, Source, as_json, batch, groups_of, in_memory, index, numbers, texts, values,
    written,
};
use crate::cache::Cache;
use crate::index::Found;

/// Two row groups of 18 MB, which do not fit into three quarters of 32 MiB together.
fn file() -> (Memory, Object) {
    let all = batch(&[("n", numbers(1200)), ("t", texts(1200, 30_000))]);
    let bytes = Bytes::from(written(&all, groups_of(600)));
    let size = bytes.len() as u64;
    let object = Object { path: "a.parquet".into(), etag: None, size, modified_ms: 0 };
    (Memory { bytes, asked: Mutex::default() }, object)
}

fn rows() -> Reading {
    Reading { rows_as: Some(as_json(&[])), ..Reading::plain(Format::Parquet, Coding::Plain) }
}

/// Of extents of 1 MiB.
fn pace() -> Pace {
    Pace::even(3).with_extents(1 << 20)
}

fn asked(source: &Memory) -> u64 {
    source.asked.lock().unwrap().iter().map(|range| range.end - range.start).sum()
}

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
/// cache. Then it was given up for those who need the room, and fetched again, for each extent if there were always some: 24 times. Now it is
/// read to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_group_whose_reader_is_slow_makes_room_for_others() {
    let (source, object) = file();
    let size = object.size;
    let cache = in_memory(32 << 20);
    let between = Between::new(&cache);
    let (begun, mut has_begun) = watch::channel(false);
    let (go_on, goes_on) = watch::channel(false);
    let mut slow = Slow { kept: Kept::default(), begun, goes_on };
    let mut quick = Kept::default();
    let slowly =
        async { index::index(&source, &object, rows(), pace(), &between, &mut slow).await };
    let quickly = async {
        has_begun.wait_for(|begun| *begun).await.unwrap();
        assert!(cache.working_bytes() > 17_000_000, "it is counted");
        let found = index::index(&source, &object, rows(), pace(), &between, &mut quick);
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
    assert!(all(&slow.kept) == all(&quick), "each row once");
    let asked = asked(&source);
    assert!(asked < size * 9 / 4, "{asked} of {size}: none was fetched again");
    assert_eq!(cache.working_bytes(), 0);
}

/// A file that was counted, of which nothing was asked since.
struct Counted {
    source: Arc<Memory>,
    object: Object,
    index: Arc<ObjectIndex>,
    between: Between,
    cache: Arc<Cache>,
}

/// With a cache of so many bytes.
async fn counted(memory_bytes: usize) -> Counted {
    let (source, object) = file();
    let cache = in_memory(memory_bytes);
    let (between, mut kept) = (Between::new(&cache), Kept::default());
    let index = index::index(&source, &object, rows(), pace(), &between, &mut kept).await;
    let (source, index) = (Arc::new(source), Arc::new(index.unwrap()));
    source.asked.lock().unwrap().clear();
    Counted { source, object, index, between, cache }
}

/// Reads extents, one after the other.
async fn read(
    (source, object): (&Arc<Memory>, &Object),
    index: &Arc<ObjectIndex>,
    id: u128,
    between: &Between,
    extents: impl Iterator<Item = usize>,
) {
    for extent in extents.map(|number| &index.extents[number]) {
        let source: Arc<dyn Source> = Arc::clone(source) as _;
        let reread = Reread { source, object, id, index };
        let content = index::fetch(&reread, extent, between, |_, _| {}).await.unwrap();
        assert_eq!(content.len(), extent.bytes as usize);
    }
}

/// Somebody always reads the row group that has the room, as readers do that jump about in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_group_that_is_always_read_makes_room_for_others() {
    let Counted { source, object, index, between, .. } = counted(32 << 20).await;
    let from = (&source, &object);
    let jumps = |first: usize| {
        let places = (0..).map(move |jump| (first + 7 * jump) % 15);
        read(from, &index, 1, &between, places)
    };
    let always = async { tokio::join!(jumps(0), jumps(3), jumps(5)) };
    let other = read(from, &index, 2, &between, 0..3);
    let other = tokio::time::timeout(Duration::from_secs(120), other);
    tokio::select! {
        other = other => other.expect("it is not kept waiting"),
        _ = always => unreachable!("it does not end"),
    }
}

/// Each of several readers had the others' row groups given up, though all went on with theirs: each was fetched once for each extent.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_go_on_do_not_have_each_others_row_groups_fetched_again() {
    let Counted { source, object, index, between, .. } = counted(32 << 20).await;
    assert!(index.extents.len() > 30, "{}", index.extents.len());
    let all = |id| read((&source, &object), &index, id, &between, 0..index.extents.len());
    tokio::join!(all(1), all(2), all(3));
    let asked = asked(&source);
    // Each once, and once more where the machine stood still in the middle.
    assert!(asked < object.size * 12, "{asked} of {}", object.size);
}

/// A row group that was read to its end stayed for 15 s: a scan of 1 GB filled three quarters of the memory with what nobody read any more, and
/// S3 gave 1.7 times what it should have.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_group_that_was_read_to_its_end_has_no_room_any_more() {
    let Counted { source, object, index, between, cache } = counted(64 << 20).await;
    let all = index.extents.len();
    let from = (&source, &object);
    read(from, &index, 1, &between, 0..all / 4).await;
    assert!(cache.working_bytes() > 17_000_000, "the first one stays while it is read");
    // Several at the same time, as read-ahead has them, the last one first: whoever comes out last lets go of it.
    let rest = (all / 4..all).rev().map(|number| read(from, &index, 1, &between, number..=number));
    join_all(rest).await;
    assert_eq!(cache.working_bytes(), 0);
    let asked = asked(&source);
    assert!(asked < object.size * 11 / 10, "{asked} of {}: each once", object.size);
}

/// A reader close behind counting had read all extents that were known, and not all that there were: the row group went, and was fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_group_stays_while_more_of_it_may_come_to_be_known() {
    let Counted { source, object, index: whole, between, cache } = counted(64 << 20).await;
    let mut growing = ObjectIndex { is_growing: true, ..ObjectIndex::clone(&whole) };
    growing.extents.truncate(3);
    growing.rows.truncate(3);
    let growing = Arc::new(growing);
    let from = (&source, &object);
    read(from, &growing, 1, &between, 0..3).await;
    assert!(cache.working_bytes() > 17_000_000, "the next extent is of it");
    let first = whole.rows.partition_point(|(number, _)| *number == 0);
    read(from, &whole, 1, &between, 3..first).await;
    assert_eq!(cache.working_bytes(), 0);
    let asked = asked(&source);
    assert!(asked < object.size * 6 / 10, "{asked} of {}: one of the two, once", object.size);
}
