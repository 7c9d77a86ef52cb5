use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use super::{Chunk, Large};
use crate::cache::in_memory;
use crate::fetch::{FetchError, Object, Source};
use crate::format::testing::{Style, TarFile};
use crate::format::{Coding, Format};
use crate::index::testing::Kept;
use crate::index::{Between, ObjectIndex, Pace, Reading, index, open};
use crate::layout::Extent;

struct Memory(Vec<u8>);

#[async_trait]
impl Source for Memory {
    async fn get(&self, _: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        let range = place(range.start)..place(range.end);
        Ok(Bytes::copy_from_slice(&self.0[range]))
    }
}

fn place(bytes: u64) -> usize {
    usize::try_from(bytes).expect("small")
}

fn object(size: usize) -> Object {
    Object { path: Path::from("a.tar"), etag: None, size: size as u64, modified_ms: 0 }
}

fn in_chunks(bytes: u32) -> Large {
    Large { bytes, has_chunks: true }
}

/// A tar of files with these sizes; the content of each is its own.
fn tar(sizes: &[usize]) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let mut tar = TarFile(Vec::new());
    let mut files = Vec::new();
    for (number, bytes) in sizes.iter().enumerate() {
        let name = format!("dir/file{number}");
        let data: Vec<u8> = (0..*bytes).map(|at| (at * 7 + number).to_le_bytes()[0]).collect();
        let style = if number % 3 == 2 { Style::Pax } else { Style::Ustar };
        tar.member(name.as_bytes(), b'0', &data, style);
        files.push((name, data));
    }
    (tar.end(), files)
}

/// Indexes content, and has each extent opened again: what it holds.
async fn read(
    content: Vec<u8>,
    size: usize,
    coding: Coding,
    large: Large,
    pace: Pace,
) -> (ObjectIndex, Vec<Arc<Extent>>) {
    let object = object(size);
    let reading = Reading { large, ..Reading::plain(Format::Tar, coding) };
    let source = Memory(content);
    let mut kept = Kept::default();
    let index =
        index(&source, &object, reading, pace, &Between::new(&in_memory(64 << 20)), &mut kept)
            .await
            .expect("readable");
    assert_eq!(index.extents.len(), kept.0.len());
    let stored = serde_json::to_vec(&index).expect("plain");
    assert_eq!(serde_json::from_slice::<ObjectIndex>(&stored).expect("the same"), index);
    if coding == Coding::Plain {
        for (extent, found) in index.extents.iter().zip(&kept.0) {
            let range = place(extent.start)..place(extent.start) + extent.bytes as usize;
            let again = Bytes::copy_from_slice(&source.0[range]);
            let again = open(&object, &index, extent, again).expect("the same");
            assert_eq!(again.layout, found.layout);
            assert_eq!(again.content, found.content);
        }
    }
    (index, kept.0)
}

/// The files that a reader makes of records: an error if chunks are not one after another.
fn put_together(
    index: &ObjectIndex,
    extents: &[Arc<Extent>],
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let (mut number, mut open) = (0, None);
    for extent in extents {
        for record in &extent.layout.records {
            let key = record.key.as_ref().expect("a file has a name").of(&extent.content);
            let key = String::from_utf8(key.to_vec()).expect("plain");
            let value = record.value.of(&extent.content);
            match (index.chunk(number), &mut open) {
                (None, None) => files.push((key, value.to_vec())),
                (Some(Chunk { number: 0, of }), None) => {
                    files.push((key, value.to_vec()));
                    open = Some((1, of));
                }
                (Some(chunk), Some((next, of))) if chunk.number == *next && chunk.of == *of => {
                    let last = files.last_mut().filter(|last| last.0 == key);
                    last.ok_or("another key")?.1.extend(value);
                    *next += 1;
                }
                other => return Err(format!("{other:?}")),
            }
            if open.is_some_and(|(next, of)| next == of.chunks) {
                assert_eq!(
                    files.last().map(|last| last.1.len() as u64),
                    open.map(|(_, of)| of.bytes)
                );
                open = None;
            }
            number += 1;
        }
    }
    match open {
        Some(_) => Err("a chunk is missing".into()),
        None => Ok(files),
    }
}

#[tokio::test]
async fn an_object_that_is_a_record_comes_in_chunks() {
    for (size, expected) in [
        (0, vec![(0, 0)]),
        (10, vec![(0, 10)]),
        (11, vec![(0, 10), (10, 1)]),
        (30, vec![(0, 10), (10, 10), (20, 10)]),
    ] {
        let object = object(size);
        let index = ObjectIndex::whole(&object, in_chunks(10));
        let extents: Vec<_> =
            index.extents.iter().map(|extent| (extent.start, extent.bytes)).collect();
        assert_eq!(extents, expected, "{size}");
        assert_eq!(index.records(), expected.len() as u64);
        let last = index.chunk(index.records() - 1).map(|chunk| (chunk.number, chunk.of.bytes));
        let is_chunked = expected.len() > 1;
        assert_eq!(
            last,
            is_chunked.then(|| (
                index
                    .extents
                    .last()
                    .map_or(0, |last| u32::try_from(last.first_record).expect("few")),
                size as u64
            ))
        );
        assert_eq!(index.chunk(index.records()), None);
        let last = index.extents.last().expect("one at least");
        let opened = open(&object, &index, last, vec![1; last.bytes as usize].into());
        let opened = opened.expect("as long as it was said");
        assert_eq!(opened.layout.records[0].value.bytes, last.bytes);
        assert!(open(&object, &index, last, vec![1; last.bytes as usize + 1].into()).is_err());
    }
    // Without chunks, and with too many.
    for large in [Large { bytes: 10, has_chunks: false }, in_chunks(1)] {
        let index = ObjectIndex::whole(&object(65_537), large);
        assert_eq!((index.records(), index.damaged), (0, 1), "{:?}", index.damage);
    }
}

#[tokio::test]
async fn a_file_that_is_cut_off_gives_no_chunk() {
    let (content, files) = tar(&[100, 5000, 100]);
    let cut = content[..4096].to_vec();
    let (index, extents) = read(cut, 4096, Coding::Plain, in_chunks(1000), Pace::even(2)).await;
    assert_eq!(put_together(&index, &extents), Ok(files[..1].to_vec()));
    assert_eq!(index.damaged, 1);
    assert!(index.damage[0].reason.contains("cut off"), "{:?}", index.damage);
}

/// It could end before the record does, of which some would be published.
#[tokio::test]
async fn what_is_compressed_comes_in_no_chunks() {
    let (content, mut files) = tar(&[100, 5000, 100]);
    let content = zstd::encode_all(&content[..], 1).expect("memory");
    let size = content.len();
    let (index, extents) = read(content, size, Coding::Zstd, in_chunks(1000), Pace::even(2)).await;
    files.remove(1);
    assert_eq!(put_together(&index, &extents), Ok(files));
    assert!(index.damage[0].reason.contains("larger than 1000 bytes"), "{:?}", index.damage);
}

proptest! {
    #[test]
    fn files_of_any_size_are_put_together_again(
        sizes in vec(0..6_000_usize, 1..8),
        chunk in 1..4_000_u32,
        piece in 1..3_000_usize,
        gets in 1..4_usize,
        is_longer in any::<bool>(),
    ) {
        let (mut content, files) = tar(&sizes);
        if is_longer {
            content.extend([0; 1000]);
        }
        let size = content.len();
        let pace = Pace { first_bytes: piece, ..Pace::even(gets) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let read = read(content, size, Coding::Plain, in_chunks(chunk), pace);
        let (index, extents) = runtime.block_on(read);
        assert_eq!(index.damage, []);
        assert_eq!(put_together(&index, &extents), Ok(files));
    }
}
