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
use crate::index::{Between, Found, ObjectIndex, Pace, Reading, index};
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
struct Published {
    records: Vec<u64>,
    /// So much may wait.
    most: u64,
}

impl Found for Published {
    fn extent(&mut self, _: &ObjectIndex, _: Arc<Extent>) {}

    fn publish(&mut self, index: &ObjectIndex) {
        self.records.push(index.records());
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

async fn read(coding: Coding, raw: Vec<u8>, most: u64) -> (ObjectIndex, Vec<u64>) {
    read_at(coding, raw, most, Pace::urgent(2)).await
}

async fn read_at(coding: Coding, raw: Vec<u8>, most: u64, pace: Pace) -> (ObjectIndex, Vec<u64>) {
    let size = raw.len() as u64;
    let object = Object { path: Path::from("a.jsonl"), etag: None, size, modified_ms: 0 };
    let mut published = Published { records: Vec::new(), most };
    let reading = Reading::plain(Format::Jsonl, coding);
    let cache = in_memory(256 << 20);
    let between = Between::new(&cache);
    let index = index(&Memory(raw), &object, reading, pace, &between, &mut published).await;
    (index.expect("it can be read"), published.records)
}

const CODINGS: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

/// A wrong checksum was found when all that it is of had been read. Whoever had read the object before, to wherever, has offsets of the same
/// records: how many there are is not to depend on how far that was.
#[tokio::test]
async fn what_a_wrong_checksum_is_of_is_lost_and_keeps_its_offsets() {
    for coding in CODINGS {
        let mut bad = member(coding, &lines(2000, 8000));
        let checksum = bad.len() - if coding == Coding::Gzip { 8 } else { 4 };
        bad[checksum] ^= 1;
        let raw = [member(coding, &lines(0, 2000)), bad].concat();
        let even = Pace::even(3).with_extents(3 << 20);
        let (expected, _) = read_at(coding, raw.clone(), u64::MAX, even).await;
        assert!(expected.records() > 9_900, "{coding:?}: {}", expected.records());
        for most in [u64::MAX, 5_000_000, 1] {
            let (index, published) = read(coding, raw.clone(), most).await;
            assert_eq!(index.records(), expected.records(), "{coding:?} {most}");
            let waits = published.iter().all(|published| *published <= 2000);
            assert!(waits || most < u64::MAX, "{coding:?} {most}: {published:?}");
            // Extents do not end where members do.
            let lost_from = index.lost.as_ref().expect("some").from;
            assert!((900..=2000).contains(&lost_from), "{coding:?}: {lost_from}");
            let readable: u64 = index.readable().map(|extent| u64::from(extent.records)).sum();
            assert_eq!(readable, lost_from);
            let object = Object { path: Path::from("a"), etag: None, size: 1, modified_ms: 0 };
            index.check(&object, lost_from - 1).expect("it is good");
            let error = index.check(&object, lost_from).expect_err("it is lost").to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_sound_is_published_as_it_comes_and_what_is_cut_off_up_to_there() {
    for coding in CODINGS {
        let members = (0..5).map(|part| member(coding, &lines(part * 3000, 3000)));
        let raw = members.collect::<Vec<_>>().concat();
        let (index, published) = read(coding, raw.clone(), u64::MAX).await;
        assert_eq!((index.records(), index.damaged), (15_000, 0));
        assert!(published.len() > 1, "{coding:?}: {published:?}");
        let cut = raw[..raw.len() - 100_000].to_vec();
        let (index, _) = read(coding, cut, u64::MAX).await;
        assert!(index.records() > 14_000 && index.damaged > 0, "{coding:?}: {}", index.records());
        assert_eq!(index.lost, None);
    }
}
