use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use rand::{RngExt as _, SeedableRng as _};

use crate::cache::in_memory;
use crate::fetch::{FetchError, Object, Source};
use crate::format::{Coding, Format};
use crate::index::{
    Between, ExtentIndex, Found, ObjectIndex, Pace, Reading, Reread, fetch, index, open,
};
use crate::layout::Extent;

struct Memory(Vec<u8>);

#[async_trait]
impl Source for Memory {
    async fn get(&self, _: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        let at = |at| usize::try_from(at).expect("small");
        Ok(Bytes::copy_from_slice(&self.0[at(range.start)..at(range.end)]))
    }
}

/// Records that may be read each time that more may.
#[derive(Default)]
struct Published {
    records: Vec<u64>,
    /// So much may wait.
    most: u64,
    /// What had offsets before.
    promised: u64,
    /// Nothing may be read any more once so many may.
    fails_at: Option<u64>,
}

impl Found for Published {
    fn extent(&mut self, _: &ObjectIndex, _: Arc<Extent>) {}

    async fn publish(&mut self, index: &ObjectIndex) -> bool {
        if self.fails_at.is_some_and(|most| index.records() > most) {
            return false;
        }
        self.records.push(index.records());
        true
    }

    fn promised(&self) -> u64 {
        self.records.last().copied().unwrap_or(0).max(self.promised)
    }

    fn wants(&self, on_their_way: u64) -> bool {
        on_their_way < self.most
    }

    async fn wanted(&mut self) -> bool {
        true
    }
}

/// Lines of 1,000 bytes that do not compress to much less than half.
fn lines(first: u64, count: u64) -> Vec<u8> {
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut noise = vec![0; 995 * 4211];
        rand::rngs::SmallRng::seed_from_u64(1).fill(&mut noise[..]);
        noise.iter_mut().for_each(|byte| *byte = b"0123456789abcdef"[usize::from(*byte % 16)]);
        noise
    });
    let mut lines = Vec::new();
    for line in first..first + count {
        let at = usize::try_from(line % 4211).expect("small") * 995;
        lines.extend_from_slice(b"[\"");
        lines.extend_from_slice(&NOISE[at..at + 995]);
        lines.extend_from_slice(b"\"]\n");
    }
    lines
}

fn member(coding: Coding, content: &[u8]) -> Vec<u8> {
    if coding == Coding::Gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("memory");
        return encoder.finish().expect("memory");
    }
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.include_checksum(true).expect("memory");
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// What is found of an object, and what could be read meanwhile.
async fn read(
    coding: Coding,
    raw: Vec<u8>,
    pace: Pace,
    mut published: Published,
) -> (Result<ObjectIndex, FetchError>, Vec<u64>) {
    let size = raw.len() as u64;
    let object = Object { path: Path::from("a.jsonl"), etag: None, size, modified_ms: 0 };
    let reading = Reading::plain(Format::Jsonl, coding);
    let cache = in_memory(256 << 20);
    let between = Between::new(&cache);
    let index = index(&Memory(raw), &object, reading, pace, &between, &mut published).await;
    (index, published.records)
}

const CODINGS: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

fn paces() -> [Pace; 2] {
    [Pace::urgent(2), Pace::even(3).with_extents(3 << 20)]
}

/// 2,000 lines that are good, and 8,000 whose checksum is wrong.
fn bad(coding: Coding) -> Vec<u8> {
    let mut bad = member(coding, &lines(2000, 8000));
    let checksum = bad.len() - if coding == Coding::Gzip { 8 } else { 4 };
    bad[checksum] ^= 1;
    [member(coding, &lines(0, 2000)), bad].concat()
}

/// Checks what is lost, that it is told, and that the rest can be read.
fn check_lost(index: &ObjectIndex, lost: Range<u64>) {
    assert_eq!(index.records(), lost.end);
    let readable: u64 = index.readable().map(|extent| u64::from(extent.records)).sum();
    assert_eq!(readable, lost.start);
    let object = Object { path: Path::from("a"), etag: None, size: 1, modified_ms: 0 };
    for record in [0, lost.start.saturating_sub(1), lost.start, lost.end - 1] {
        let checked = index.check(&object, record).map_err(|error| error.to_string());
        assert_eq!(checked.is_err(), lost.contains(&record), "{record}: {checked:?}");
    }
}

/// Everything behind the sound part was null records, though nobody had an offset of it.
#[tokio::test]
async fn what_a_wrong_checksum_is_of_is_left_out_where_it_has_no_offsets() {
    for (coding, pace) in CODINGS.into_iter().flat_map(|it| paces().map(|pace| (it, pace))) {
        let waits = Published { most: u64::MAX, ..Published::default() };
        let (index, published) = read(coding, bad(coding), pace, waits).await;
        let index = index.expect("it can be read");
        assert!(published.iter().all(|published| *published <= 2000), "{coding:?}: {published:?}");
        // The last line is a line only where the next one begins.
        assert!((1_999..=2_000).contains(&index.records()), "{coding:?}: {}", index.records());
        assert_eq!((&index.lost, index.damaged), (&None, 1));
        let reason = &index.damage[0].reason;
        assert!(reason.contains("is damaged") && reason.contains("cannot be read"), "{reason}");
        // All that is good is there, where no extent has both.
        let mut small = member(coding, &lines(30, 30));
        let checksum = small.len() - if coding == Coding::Gzip { 8 } else { 4 };
        small[checksum] ^= 1;
        let small = [member(coding, &lines(0, 30)), small].concat();
        let (index, _) = read(coding, small, pace, Published::default()).await;
        assert_eq!(index.expect("it can be read").records(), 30);
    }
}

#[tokio::test]
async fn what_has_offsets_when_a_checksum_turns_out_wrong_keeps_them_and_is_lost() {
    for (coding, pace) in CODINGS.into_iter().flat_map(|it| paces().map(|pace| (it, pace))) {
        for most in [100_000, 1] {
            let hurries = Published { most, ..Published::default() };
            let (index, published) = read(coding, bad(coding), pace, hurries).await;
            let index = index.expect("it can be read");
            let with_offsets = published.last().copied().expect("some may be read");
            assert!(with_offsets > 2_000, "{coding:?} {most}: {published:?}");
            let from = index.lost.as_ref().expect("some are").from;
            assert!((1_999..=2_000).contains(&from), "{coding:?} {most}: {from}");
            check_lost(&index, from..with_offsets);
        }
    }
}

/// Who begins anew after a restart cuts other extents.
#[tokio::test]
async fn what_had_offsets_before_a_restart_keeps_them() {
    for (coding, pace) in CODINGS.into_iter().flat_map(|it| paces().map(|pace| (it, pace))) {
        for promised in [1, 3_456, 9_990] {
            let waits = Published { most: u64::MAX, promised, ..Published::default() };
            let (index, _) = read(coding, bad(coding), pace, waits).await;
            let index = index.expect("it can be read");
            assert_eq!(index.damaged, 1);
            if promised < 2_000 {
                assert!((1_999..=2_000).contains(&index.records()), "{}", index.records());
                assert_eq!(index.lost, None);
                continue;
            }
            let from = index.lost.as_ref().expect("some are").from;
            assert!((1_999..=2_000).contains(&from), "{coding:?} {promised}: {from}");
            check_lost(&index, from..promised);
        }
        // There are no more than 10,000: what was promised is kept whatever comes of it.
        let waits = Published { most: u64::MAX, promised: 12_000, ..Published::default() };
        let (index, _) = read(coding, member(coding, &lines(0, 10)), pace, waits).await;
        check_lost(&index.expect("it can be read"), 10..12_000);
    }
}

#[tokio::test]
async fn what_is_good_is_read_again_up_to_where_the_rest_is_lost() {
    for coding in CODINGS {
        let promises = Published { most: u64::MAX, promised: 9_990, ..Published::default() };
        let (index, _) = read(coding, bad(coding), Pace::urgent(2), promises).await;
        let index = Arc::new(index.expect("it can be read"));
        let raw = bad(coding);
        let size = raw.len() as u64;
        let object = Object { path: Path::from("a.jsonl"), etag: None, size, modified_ms: 0 };
        let between = Between::new(&in_memory(256 << 20));
        let source: Arc<dyn Source> = Arc::new(Memory(raw));
        let reread = Reread { source, object: &object, id: 1, index: &index };
        assert!(index.readable().count() > 0);
        for extent in index.readable() {
            let content = fetch(&reread, extent, &between, |_, _| {}).await.expect("there");
            open(&object, &index, extent, content).expect("as it was");
        }
    }
}

#[tokio::test]
async fn what_may_not_be_read_ends_the_indexing() {
    for coding in [Coding::Plain, Coding::Gzip, Coding::Zstd] {
        let raw = match coding {
            Coding::Plain => lines(0, 10_000),
            _ => member(coding, &lines(0, 10_000)),
        };
        let fails = Published { most: 1, fails_at: Some(5_000), ..Published::default() };
        let (index, published) = read(coding, raw, Pace::urgent(2), fails).await;
        index.expect_err("nothing is known of it then");
        assert!(published.last().is_some_and(|last| *last <= 5_000), "{coding:?}: {published:?}");
    }
}

/// What is not there any more has no extents that could be read, however much of it had offsets.
#[test]
fn an_object_that_is_gone_has_the_records_that_were_promised() {
    let reading = || Reading::plain(Format::Jsonl, Coding::Plain);
    let gone = |known, promised| {
        ObjectIndex::left_out(reading(), known, promised, "it is gone".to_owned())
    };
    let none = gone(None, 0);
    assert_eq!((none.records(), none.damaged, &none.lost), (0, 1, &None));
    check_lost(&gone(None, 7), 0..7);
    let extent = ExtentIndex { start: 10, bytes: 90, first_record: 0, records: 5, crc: Some(1) };
    let known = ObjectIndex { extents: vec![extent], ..ObjectIndex::new(reading()) };
    let whole = gone(Some(&known), 5);
    assert_eq!((whole.records(), &whole.extents, &whole.lost), (5, &known.extents, &None));
    let part = gone(Some(&known), 9);
    check_lost(&part, 5..9);
    assert_eq!((part.extents[0], part.damage[0].at), (extent, 100));
    let many = gone(None, 3 * u64::from(u32::MAX) + 1);
    check_lost(&many, 0..3 * u64::from(u32::MAX) + 1);
    let starts: Vec<u64> = many.extents.iter().map(|extent| extent.start).collect();
    assert_eq!(starts, [0, 1, 2, 3], "each is another one");
    assert!(many.extents.iter().all(|extent| extent.bytes == 0));
    let first = u64::from(u32::MAX);
    assert_eq!(many.extent_of(first).map(|(at, _)| at), Some(1));
}

#[tokio::test]
async fn what_is_sound_is_published_as_it_comes_and_what_is_cut_off_up_to_there() {
    for coding in CODINGS {
        let members = (0..5).map(|part| member(coding, &lines(part * 3000, 3000)));
        let raw = members.collect::<Vec<_>>().concat();
        let waits = || Published { most: u64::MAX, ..Published::default() };
        let (index, published) = read(coding, raw.clone(), Pace::urgent(2), waits()).await;
        let index = index.expect("it can be read");
        assert_eq!((index.records(), index.damaged), (15_000, 0));
        assert!(published.len() > 1, "{coding:?}: {published:?}");
        let cut = raw[..raw.len() - 100_000].to_vec();
        let (index, _) = read(coding, cut, Pace::urgent(2), waits()).await;
        let index = index.expect("it can be read");
        assert!(index.records() > 14_000 && index.damaged > 0, "{coding:?}: {}", index.records());
        assert_eq!(index.lost, None);
    }
}
