//! What an object is, by its name and its first bytes.

use super::tar::{BLOCK, Next, next};
use super::{Coding, Format, Given, decode::Decoder, tfrecord};

/// So many of an object's first bytes are of use to [`detect`].
pub const DETECT_BYTES: usize = 4096;

const GZIP: &[u8] = b"\x1f\x8b\x08";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const PARQUET: &[u8] = b"PAR1";

/// The format and the coding of an object, if they are told by its name or by its first bytes (at least [`DETECT_BYTES`] of them, or all;
/// none if they are not known yet). Where the two say different things of the coding, its bytes are right: a `.tar` is often compressed, and a
/// `.gz` may have been decompressed on its way.
#[must_use]
pub fn detect(name: &str, first_bytes: &[u8]) -> Option<(Format, Coding)> {
    let (format, named) = by_name(name);
    if format == Some(Format::Parquet) || first_bytes.starts_with(PARQUET) {
        // What compresses it is within.
        return Some((Format::Parquet, Coding::Plain));
    }
    let coding = match coding_of(first_bytes) {
        _ if first_bytes.is_empty() => named,
        // Its first bytes are a length, which may be any.
        _ if is_tfrecord(first_bytes) => Coding::Plain,
        coding => coding,
    };
    let format = format.or_else(|| by_content(&beginning(first_bytes, coding)?))?;
    Some((format, coding))
}

/// Whether an object of that name can be read as `format`, as far as its name tells.
#[must_use]
pub fn may_be(format: Format, name: &str) -> bool {
    match by_name(name).0 {
        None => true,
        // Every object is a whole, and samples lie in a tar of members.
        Some(_) if format == Format::Object => true,
        Some(Format::WebDataset) => matches!(format, Format::WebDataset | Format::Tar),
        Some(named) => named == format,
    }
}

/// Not an object with records: an index or a marker of what wrote the others, a "directory", or something hidden (a name that begins with `.`
/// or `_`, of the object or of a directory on its way; except for those of Hive's partitions, `_column=value`).
#[must_use]
pub fn is_sidecar(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let is_hidden = |part: &str| part.starts_with(['.', '_']) && !part.contains('=');
    last.is_empty()
        || last == "index.json"
        || last.ends_with("_$folder$")
        || last.to_ascii_lowercase().ends_with(".idx")
        || name.split('/').any(is_hidden)
}

fn by_name(name: &str) -> (Option<Format>, Coding) {
    let name = name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let codings = [
        (".tgz", ".tar", Coding::Gzip),
        (".tzst", ".tar", Coding::Zstd),
        (".gz", "", Coding::Gzip),
        (".gzip", "", Coding::Gzip),
        (".zst", "", Coding::Zstd),
        (".zstd", "", Coding::Zstd),
    ];
    let found = codings.iter().find_map(|(ending, instead, coding)| {
        Some((format!("{}{instead}", name.strip_suffix(ending)?), *coding))
    });
    let (name, coding) = found.unwrap_or((name, Coding::Plain));
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let format = match extension {
        "tar" => Some(Format::WebDataset),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        "mds" => Some(Format::Mds),
        "tfrecord" | "tfrecords" => Some(Format::TfRecord),
        // TensorFlow's names of shards: train.tfrecord-00003-of-00128.
        shard if shard.starts_with("tfrecord-") || shard.starts_with("tfrecords-") => {
            Some(Format::TfRecord)
        }
        _ => None,
    };
    (format, coding)
}

fn coding_of(first_bytes: &[u8]) -> Coding {
    if first_bytes.starts_with(GZIP) {
        Coding::Gzip
    } else if first_bytes.starts_with(ZSTD) {
        Coding::Zstd
    } else {
        Coding::Plain
    }
}

/// The first bytes of the content.
fn beginning(first_bytes: &[u8], coding: Coding) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let mut decoder = Decoder::new(coding).ok()?;
    // Damage is found when it is read; what was decoded before it says enough.
    let _ = decoder.push(first_bytes, &mut content, DETECT_BYTES);
    Some(content)
}

fn is_tfrecord(content: &[u8]) -> bool {
    content.first_chunk().is_some_and(|head| tfrecord::length(head).is_some())
}

fn by_content(content: &[u8]) -> Option<Format> {
    if is_tfrecord(content) {
        return Some(Format::TfRecord);
    }
    // Of the first header alone: what follows it may not be in sight.
    let header = Given { bytes: &content[..content.len().min(BLOCK)], is_last: false };
    let is_tar = match next(header, 0) {
        Next::Entry(_) => true,
        Next::More => header.bytes.len() == BLOCK && header.bytes[0] != 0,
        Next::End(_) | Next::Cut | Next::Bad { .. } => false,
    };
    if is_tar {
        return Some(Format::WebDataset);
    }
    let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
    let line = content.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let is_object =
        line.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    is_object.then_some(Format::Jsonl)
}

#[cfg(test)]
mod tests;
