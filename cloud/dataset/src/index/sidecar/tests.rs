use bytes::Bytes;
use object_store::path::Path;
use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use super::{Implausible, index, may_have, names};
use crate::fetch::Object;
use crate::format::testing::{Style, TarFile};
use crate::format::{Coding, Format};
use crate::index::{ObjectIndex, Pace, Reading, open};

const EVEN: Pace = Pace::even(1);
const EXTENT: u64 = robustmq_common::limits::dataset::EXTENT_BYTES as u64;

fn read_as(format: Format) -> Reading {
    Reading::plain(format, Coding::Plain)
}

/// Extents as (start, bytes, first record, records).
fn extents(index: &ObjectIndex) -> Vec<(u64, u32, u64, u32)> {
    let extents = index.extents.iter();
    extents
        .map(|extent| (extent.start, extent.bytes, extent.first_record, extent.records))
        .collect()
}

/// The first GET was for a whole extent, which who waits for the first records waited for.
#[test]
fn who_waits_has_small_extents_first() {
    let lines = (0..40).map(|line| format!("{} {}\n", line << 20, 1 << 20));
    let text = lines.collect::<String>();
    let pace = Pace::urgent(1).with_extents(4 << 20);
    let found = index(text.as_bytes(), read_as(Format::TfRecord), 40 << 20, pace);
    let found = found.expect("plausible").extents;
    let sizes: Vec<_> = found.iter().take(5).map(|extent| extent.bytes >> 20).collect();
    assert_eq!(sizes, [1, 2, 4, 4, 4]);
}

#[test]
fn index_files_of_tars_are_taken_where_they_can_be_true() {
    use Implausible::{Count, End, Line, Place, Sample, TooLarge, Unknown};
    const SIZE: u64 = 10_240;
    let one = "v1.2 1\njpg 512 4000 a.jpg cls 5120 1 a.cls\n";
    let two = "v1.2 2\njpg 512 100 a.jpg\njpg 1536 100 b.jpg";
    let header_more = "v1.1 1\njpg 1536 100\n";
    for (text, format, size, expected) in [
        (one, Format::WebDataset, SIZE, Ok((1, SIZE))),
        (one, Format::Tar, SIZE, Ok((2, SIZE))),
        (two, Format::WebDataset, SIZE, Ok((2, SIZE))),
        ("v1.1 1\r\njpg 512 4000 cls 5120 1\r\n", Format::WebDataset, SIZE, Ok((1, SIZE))),
        (header_more, Format::WebDataset, SIZE, Ok((1, SIZE))),
        // A file that the index leaves out would be a record.
        (header_more, Format::Tar, SIZE, Err(Place { line: 2 })),
        // Not filled up.
        (one, Format::WebDataset, 5121, Ok((1, 5121))),
        (one, Format::WebDataset, 5120, Err(Place { line: 2 })),
        (one, Format::WebDataset, 5632 + 11_265, Err(End { end: 5632, size: 16_897 })),
        (one, Format::TfRecord, SIZE, Err(Line { line: 1 })),
        ("", Format::WebDataset, SIZE, Err(Unknown)),
        ("v1.3 1\njpg 512 1 a.jpg", Format::WebDataset, SIZE, Err(Unknown)),
        ("v1.2", Format::WebDataset, SIZE, Err(Line { line: 1 })),
        ("v1.2 0\n", Format::WebDataset, SIZE, Err(Count { said: 0, found: 0 })),
        ("v1.2 2\njpg 512 1 a.jpg", Format::WebDataset, SIZE, Err(Count { said: 2, found: 1 })),
        ("v1.2 1\njpg 512 1", Format::WebDataset, SIZE, Err(Line { line: 2 })),
        ("v1.2 1\njpg x 1 a.jpg", Format::WebDataset, SIZE, Err(Line { line: 2 })),
        ("v1.2 1\njpg 513 1 a.jpg", Format::WebDataset, SIZE, Err(Place { line: 2 })),
        ("v1.2 1\njpg 0 1 a.jpg", Format::WebDataset, SIZE, Err(Place { line: 2 })),
        ("v1.2 1\nb 512 1 a.b c 512 1 a.c", Format::WebDataset, SIZE, Err(Place { line: 2 })),
        ("v1.2 1\nb 512 1 a.b c 1536 1 d.c", Format::WebDataset, SIZE, Err(Sample { line: 2 })),
        ("v1.2 2\nb 512 1 a.b\nc 1536 1 a.c", Format::WebDataset, SIZE, Err(Sample { line: 3 })),
        ("v1.2 1\na 512 1 a", Format::WebDataset, SIZE, Err(Sample { line: 2 })),
        ("v1.2 1\nb 512 1 __a__/a.b", Format::WebDataset, SIZE, Err(Sample { line: 2 })),
        ("v1.2 1\nb 512 67108865 a.b", Format::WebDataset, 1 << 30, Err(TooLarge { line: 2 })),
        ("v1.2 1\nb 512 18446744073709551615 a.b", Format::Tar, SIZE, Err(Place { line: 2 })),
    ] {
        let found = index(text.as_bytes(), read_as(format), size, EVEN);
        let found = found.map(|index| (index.records(), index.content_bytes()));
        assert_eq!(found, expected, "{text} {format:?} {size}");
    }
}

#[test]
fn index_files_of_tfrecords_are_taken_where_they_account_for_each_byte() {
    use Implausible::{End, Line, Place, TooLarge};
    for (text, size, expected) in [
        ("0 20\n20 16\n", 36, Ok(vec![(0, 36, 0, 2)])),
        ("0 20\n20 16", 36, Ok(vec![(0, 36, 0, 2)])),
        ("0 20\n20 16\n", 37, Err(End { end: 36, size: 37 })),
        ("0 20\n20 16\n", 35, Err(Place { line: 2 })),
        ("0 20\n21 16\n", 37, Err(Place { line: 2 })),
        ("4 20\n", 24, Err(Place { line: 1 })),
        ("0 15\n", 15, Err(Place { line: 1 })),
        ("0 20 1\n", 20, Err(Line { line: 1 })),
        ("", 20, Err(Line { line: 1 })),
        ("0 67108881\n", 67_108_881, Err(TooLarge { line: 1 })),
    ] {
        let found = index(text.as_bytes(), read_as(Format::TfRecord), size, EVEN);
        assert_eq!(found.map(|index| extents(&index)), expected, "{text} {size}");
    }
}

#[test]
fn extents_are_about_as_large_as_those_that_are_read() {
    let most = u32::try_from(EXTENT).expect("small");
    let half = EXTENT / 2;
    let text = format!("0 {half}\n{half} {half}\n{EXTENT} 16\n{} {}\n", EXTENT + 16, 3 * EXTENT);
    let found = index(text.as_bytes(), read_as(Format::TfRecord), 4 * EXTENT + 16, EVEN);
    let expected = vec![(0, most, 0, 2), (EXTENT, 16, 2, 1), (EXTENT + 16, 3 * most, 3, 1)];
    assert_eq!(found.map(|index| extents(&index)), Ok(expected));
    // Many small ones.
    let text: String = (0..70_000).map(|record| format!("{} 16\n", record * 16)).collect();
    let found = index(text.as_bytes(), read_as(Format::TfRecord), 70_000 * 16, EVEN);
    let expected = vec![(0, 65_536 * 16, 0, 65_536), (65_536 * 16, 4_464 * 16, 65_536, 4_464)];
    assert_eq!(found.map(|index| extents(&index)), Ok(expected));
}

#[test]
fn an_index_file_lies_beside_its_object() {
    for (object, expected) in [
        ("a/b.tar", vec!["a/b.tar.idx", "a/b.idx"]),
        ("b.tfrecord", vec!["b.tfrecord.idx", "b.idx"]),
        ("train.tfrecord-00001-of-00002", vec!["train.tfrecord-00001-of-00002.idx"]),
        ("train-00001-of-00002", vec!["train-00001-of-00002.idx"]),
        ("a/.tar", vec!["a/.tar.idx"]),
    ] {
        assert_eq!(names(object), expected, "{object}");
    }
    assert!(!may_have(&Reading::plain(Format::WebDataset, Coding::Gzip)));
    assert!(!may_have(&read_as(Format::Jsonl)));
}

/// A tar of samples, and the index file of it. Of each member: bytes, and how it is written.
fn made(samples: &[Vec<(usize, u8)>], version: &str) -> (Vec<u8>, String) {
    let mut tar = TarFile(Vec::new());
    let mut text = format!("{version} {}\n", samples.len());
    for (number, members) in samples.iter().enumerate() {
        let mut words = Vec::new();
        for (part, (bytes, style)) in members.iter().enumerate() {
            let (name, data) = (format!("dir/k{number}.e{part}"), vec![1; *bytes]);
            let style = match style % 3 {
                0 => Style::Ustar,
                1 => Style::Gnu,
                _ => Style::Pax,
            };
            tar.member(name.as_bytes(), b'0', &data, style);
            let offset = tar.0.len() - bytes.next_multiple_of(512);
            words.push(format!("e{part} {offset} {bytes}"));
            if version == "v1.2" {
                words.push(name);
            }
        }
        text += &(words.join(" ") + "\n");
    }
    (tar.end(), text)
}

fn object(content: &[u8]) -> Object {
    let (path, size) = (Path::from("a.tar"), content.len() as u64);
    Object { path, etag: None, size, modified_ms: 0 }
}

/// Reads all extents as readers would: an error where one is damaged. How many records there are.
fn read_all(content: &[u8], index: &ObjectIndex) -> Result<usize, String> {
    let mut records = 0;
    let mut at = 0;
    for extent in &index.extents {
        assert_eq!(extent.start, at, "a gap");
        let start = usize::try_from(at).expect("small");
        at += u64::from(extent.bytes);
        let content = Bytes::copy_from_slice(&content[start..start + extent.bytes as usize]);
        let found =
            open(&object(&[]), index, extent, content).map_err(|error| error.to_string())?;
        records += found.layout.records.len();
    }
    assert_eq!(at, content.len() as u64, "extents end where the object does");
    Ok(records)
}

#[test]
fn what_an_index_file_says_wrongly_is_damage_where_it_is_read() {
    let large = vec![(6 << 20, 0)];
    let (content, text) = made(&[large.clone(), large.clone(), large], "v1.2");
    let said = index(text.as_bytes(), read_as(Format::WebDataset), content.len() as u64, EVEN);
    let said = said.expect("plausible");
    assert_eq!((said.extents.len(), read_all(&content, &said)), (3, Ok(3)));
    // As many bytes, but another tar.
    let (other, _) = made(&[vec![(6 << 20, 0)], vec![(5 << 20, 0)], vec![(7 << 20, 0)]], "v1.2");
    assert_eq!(other.len(), content.len());
    assert!(read_all(&other, &said).is_err());
    // A file that the index does not know of.
    let (two, _) = made(&[vec![(100, 0)], vec![(100, 0)]], "v1.2");
    let one = index(
        b"v1.2 1\ne0 512 100 dir/k0.e0\n",
        read_as(Format::WebDataset),
        two.len() as u64,
        EVEN,
    );
    assert!(read_all(&two, &one.expect("plausible")).is_err());
}

proptest! {
    #[test]
    fn tars_are_counted_by_their_index_files_as_by_reading_them(
        samples in vec(vec((0..2_000_usize, any::<u8>()), 1..4), 1..20),
        has_names in any::<bool>(),
    ) {
        let (content, text) = made(&samples, if has_names { "v1.2" } else { "v1.1" });
        let size = content.len() as u64;
        let said = index(text.as_bytes(), read_as(Format::WebDataset), size, EVEN).expect("it is true");
        assert_eq!(said.records(), samples.len() as u64);
        assert_eq!(read_all(&content, &said), Ok(samples.len()));
    }

    #[test]
    fn no_index_file_makes_extents_that_are_not_of_the_object(
        samples in vec(vec((0..2_000_usize, any::<u8>()), 1..4), 1..20),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        format in proptest::sample::select(vec![Format::WebDataset, Format::Tar, Format::TfRecord]),
    ) {
        let (content, text) = made(&samples, "v1.2");
        let mut text = text.into_bytes();
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(said) = index(&text, read_as(format), content.len() as u64, EVEN) {
            assert_eq!(said.content_bytes(), content.len() as u64);
            // It may be damaged, but is read to its end.
            let _ = read_all(&content, &said);
        }
    }
}
