use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use object_store::path::Path;

use super::{FetchError, Object, ObjectIndex, Reread, Source, limits};
use crate::cache::{Cache, in_memory};
use crate::format::{Coding, Format};
use crate::index::testing::Kept;
use crate::index::{Between, ExtentIndex, Pace, Reading, fetch, index};
use crate::layout::Extent;

/// An object in memory, that notes which bytes are asked for.
struct Asked {
    bytes: Bytes,
    ranges: Mutex<Vec<Range<u64>>>,
}

impl Asked {
    fn take(&self) -> u64 {
        let ranges = std::mem::take(&mut *self.ranges.lock().expect("no panic"));
        ranges.iter().map(|range| range.end - range.start).sum()
    }
}

#[async_trait]
impl Source for Asked {
    async fn get(&self, _: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        self.ranges.lock().expect("no panic").push(range.clone());
        tokio::task::yield_now().await;
        let place = |at: u64| usize::try_from(at).expect("small");
        Ok(self.bytes.slice(place(range.start)..place(range.end)))
    }
}

/// A line that does not compress well, so that an object has several pieces.
fn line(number: u32) -> Vec<u8> {
    let mut line: Vec<u8> = (0..500)
        .flat_map(|at: u32| {
            let mixed = (number * 500 + at).wrapping_mul(2_654_435_761) ^ (number << 7);
            format!("{:08x}", mixed.wrapping_mul(0x9e37_79b9)).into_bytes()
        })
        .collect();
    line.splice(0..0, *b"\"");
    line.extend(b"\"\n");
    line
}

/// 8 MB of lines.
fn lines() -> Vec<u8> {
    (0..2000).flat_map(line).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

struct Stage {
    cache: Arc<Cache>,
    source: Arc<Asked>,
    object: Object,
    index: Arc<ObjectIndex>,
    extents: Vec<Arc<Extent>>,
    between: Between,
}

impl Stage {
    async fn of(bytes: Vec<u8>, coding: Coding) -> Self {
        let cache = in_memory(64 << 20);
        let size = bytes.len() as u64;
        let source = Arc::new(Asked { bytes: bytes.into(), ranges: Mutex::default() });
        let object = Object { path: Path::from("a"), etag: None, size, modified_ms: 0 };
        let reading = Reading::plain(Format::Jsonl, coding);
        let mut kept = Kept::default();
        let pace = Pace::even(3).with_extents(256 << 10);
        let between = Between::new(&cache);
        let index = index(&*source, &object, reading, pace, &between, &mut kept).await;
        source.take();
        let (index, extents) = (Arc::new(index.expect("good")), kept.0);
        assert!(index.extents.len() > 15, "{} extents", index.extents.len());
        Self { cache, source, object, index, extents, between }
    }

    /// An extent again, by its number, and what came beside it.
    async fn fetch(&self, number: usize) -> (Result<Bytes, FetchError>, Vec<u64>) {
        let source: Arc<dyn Source> = Arc::clone(&self.source) as _;
        let (object, index) = (&self.object, &self.index);
        let reread = Reread { source, object, id: 7, index };
        let mut beside = Vec::new();
        let passed = |extent: &ExtentIndex, _| beside.push(extent.start);
        let content = fetch(&reread, &index.extents[number], &self.between, passed).await;
        (content, beside)
    }

    async fn check(&self, number: usize) -> usize {
        let (content, beside) = self.fetch(number).await;
        assert_eq!(content.expect("there"), self.extents[number].content, "extent {number}");
        beside.len()
    }
}

/// Each extent was read from the object's beginning: an object of 1 GB cost 60 GB an epoch.
#[tokio::test]
async fn extents_that_are_read_again_in_order_cost_each_byte_once() {
    for (bytes, coding) in [
        (gzip(&lines()), Coding::Gzip),
        (zstd::encode_all(&lines()[..], 1).expect("memory"), Coding::Zstd),
    ] {
        let stage = Stage::of(bytes, coding).await;
        for number in 0..stage.extents.len() {
            assert_eq!(stage.check(number).await, 0, "nothing lies between");
        }
        assert_eq!(stage.source.take(), stage.object.size, "{coding:?}");
    }
}

#[tokio::test]
async fn what_is_asked_for_at_once_is_decoded_once() {
    let stage = Stage::of(gzip(&lines()), Coding::Gzip).await;
    let all = (0..stage.extents.len()).rev().map(|number| stage.check(number));
    let beside: usize = join_all(all).await.into_iter().sum();
    assert_eq!(beside, 0, "what was passed by went to who waited for it");
    assert_eq!(stage.source.take(), stage.object.size);
}

#[tokio::test]
async fn two_readers_at_two_places_both_go_on() {
    let stage = Stage::of(gzip(&lines()), Coding::Gzip).await;
    let half = stage.extents.len() / 2;
    assert_eq!(stage.check(half).await, half, "those before it come beside it");
    let begun = stage.source.take();
    for number in 0..half {
        assert_eq!(stage.check(number).await, 0);
        if half + 1 + number < stage.extents.len() {
            assert_eq!(stage.check(half + 1 + number).await, 0);
        }
    }
    assert!(begun + stage.source.take() < stage.object.size * 2);
}

/// `bgzip` and `pzstd` write such: a reader somewhere in the middle does not read what is before.
#[tokio::test]
async fn reading_begins_at_the_nearest_member_or_frame() {
    let lines = lines();
    let parts = || lines.chunks(256 << 10);
    let gzip: Vec<u8> = parts().flat_map(gzip).collect();
    let zstd = parts().flat_map(|part| zstd::encode_all(part, 1).expect("memory")).collect();
    for (bytes, coding) in [(gzip, Coding::Gzip), (zstd, Coding::Zstd)] {
        let stage = Stage::of(bytes, coding).await;
        let last = stage.extents.len() - 1;
        // A decoder that waits far before it would read more.
        stage.check(0).await;
        stage.source.take();
        assert!(stage.check(last).await <= 2);
        assert!(stage.source.take() < stage.object.size / 5, "{coding:?}");
    }
}

/// Many readers, each with a decoder that waits for it.
#[tokio::test]
async fn idle_decoders_hold_a_part_of_the_cache_at_most() {
    let stage = Stage::of(gzip(&lines()), Coding::Gzip).await;
    let most = stage.cache.memory_bytes() / limits::CODED_IDLE_SHARE;
    let mut decoders = BTreeMap::new();
    for id in 0..100 {
        let source: Arc<dyn Source> = Arc::clone(&stage.source) as _;
        let (object, index) = (&stage.object, &stage.index);
        let reread = Reread { source, object, id, index };
        fetch(&reread, &index.extents[0], &stage.between, |_, _| {}).await.expect("there");
        decoders.insert(id, stage.cache.working_bytes());
        assert!(stage.cache.working_bytes() <= most, "with decoder {id}");
    }
    assert!(decoders[&99] > most / 2, "they are counted");
    stage.source.take();
    // The one that was used last goes on from where it was.
    let source: Arc<dyn Source> = Arc::clone(&stage.source) as _;
    let reread = Reread { source, object: &stage.object, id: 99, index: &stage.index };
    let next = fetch(&reread, &stage.index.extents[1], &stage.between, |_, _| {}).await;
    assert_eq!(next.expect("there"), stage.extents[1].content);
    assert!(stage.source.take() < stage.object.size / 2);
}

/// With `zstd --long` one takes more than all idle ones may: it began anew for each extent.
#[tokio::test]
async fn one_decoder_goes_on_however_large_it_is() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.window_log(27).expect("as large as the limit");
    encoder.write_all(&lines()).expect("memory");
    let stage = Stage::of(encoder.finish().expect("memory"), Coding::Zstd).await;
    for number in 0..stage.extents.len() {
        assert_eq!(stage.check(number).await, 0);
        let is_over = number + 1 == stage.extents.len();
        assert_eq!(stage.cache.working_bytes() > 64 << 20, !is_over, "the window is counted");
    }
    assert_eq!(stage.source.take(), stage.object.size);
}

/// An object that is counted once more may be cut in other places, while loads of the first count go on.
#[tokio::test]
async fn extents_that_begin_at_one_place_are_not_taken_for_each_other() {
    let stage = Stage::of(gzip(&lines()), Coding::Gzip).await;
    let joined = {
        let mut index = ObjectIndex::clone(&stage.index);
        let second = index.extents.remove(1);
        index.extents[0].bytes += second.bytes;
        index.extents[0].records += second.records;
        Arc::new(index)
    };
    let other = async {
        let source: Arc<dyn Source> = Arc::clone(&stage.source) as _;
        let reread = Reread { source, object: &stage.object, id: 7, index: &joined };
        fetch(&reread, &joined.extents[0], &stage.between, |_, _| {}).await.expect("there")
    };
    let (other, _) = tokio::join!(other, stage.check(0));
    assert_eq!(other.len(), joined.extents[0].bytes as usize);
}

#[tokio::test(start_paused = true)]
async fn decoders_that_nobody_uses_go() {
    let stage = Stage::of(gzip(&lines()), Coding::Gzip).await;
    stage.check(0).await;
    assert!(stage.cache.working_bytes() > 0);
    tokio::time::sleep(limits::CODED_IDLE * 2).await;
    assert_eq!(stage.cache.working_bytes(), 0);
}

#[tokio::test]
async fn damage_is_told_and_the_next_one_begins_anew() {
    let stage = Stage::of(gzip(&lines()), Coding::Gzip).await;
    let whole = stage.source.bytes.clone();
    let mut stage = stage;
    let mut bytes = whole.to_vec();
    let half = bytes.len() / 2;
    bytes[half..half + 1000].fill(0xff);
    stage.source = Arc::new(Asked { bytes: bytes.into(), ranges: Mutex::default() });
    let last = stage.extents.len() - 1;
    let told = stage.fetch(last).await.0;
    assert!(matches!(told, Err(FetchError::Damaged { .. })), "{told:?}");
    stage.source = Arc::new(Asked { bytes: whole, ranges: Mutex::default() });
    stage.check(last).await;
}
