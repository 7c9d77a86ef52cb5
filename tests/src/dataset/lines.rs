//! JSON lines, plain and compressed.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Coding, Shape, Writing};

/// What zstd's own program takes if nothing is said.
const ZSTD_LEVEL: i32 = 3;

/// A file and its extension.
pub(super) fn json_lines(
    writing: &mut Writing,
    shape: &Shape,
    coding: Coding,
) -> (&'static str, Vec<u8>) {
    let (file, mut halves) = (writing.file, [Vec::new(), Vec::new()]);
    for number in 0..shape.samples {
        let text = writing.letters(shape.sample_bytes);
        let line = format!("{{\"file\": {file}, \"number\": {number}, \"text\": \"{text}\"}}");
        writing.sample(None, line.as_bytes(), Vec::new());
        let half = &mut halves[usize::from(number >= shape.samples / 2)];
        half.extend_from_slice(line.as_bytes());
        half.push(b'\n');
    }
    match coding {
        Coding::Plain => ("jsonl", halves.concat()),
        Coding::Gzip => ("jsonl.gz", halves.map(|half| gzip(&half)).concat()),
        Coding::Zstd => ("jsonl.zst", halves.map(|half| zstd(&half)).concat()),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, ZSTD_LEVEL).expect("writing to memory does not fail")
}
