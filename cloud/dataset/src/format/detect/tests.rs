use std::io::Write;

use super::{Coding, Format, detect, is_sidecar, may_be};
use crate::format::testing::{Style, TarFile};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn names_tell_formats() {
    use Coding::{Gzip, Plain, Zstd};
    for (name, expected) in [
        ("a/b.tar", Some((Format::WebDataset, Plain))),
        ("B.TAR", Some((Format::WebDataset, Plain))),
        ("b.tar.gz", Some((Format::WebDataset, Gzip))),
        ("b.tgz", Some((Format::WebDataset, Gzip))),
        ("b.tar.zst", Some((Format::WebDataset, Zstd))),
        ("b.jsonl", Some((Format::Jsonl, Plain))),
        ("b.ndjson", Some((Format::Jsonl, Plain))),
        ("b.jsonl.gz", Some((Format::Jsonl, Gzip))),
        ("b.jsonl.zst", Some((Format::Jsonl, Zstd))),
        ("b.tfrecord", Some((Format::TfRecord, Plain))),
        ("b.tfrecords", Some((Format::TfRecord, Plain))),
        ("b.tfrecord-00001-of-00002", Some((Format::TfRecord, Plain))),
        ("b.tfrecord.gz", Some((Format::TfRecord, Gzip))),
        ("b.parquet", Some((Format::Parquet, Plain))),
        ("b.mds", Some((Format::Mds, Plain))),
        ("shard.00000.mds.zstd", Some((Format::Mds, Zstd))),
        ("b.tar/c", None),
        ("b.jpg", None),
        ("b.gz", None),
        ("tar", None),
        ("", None),
    ] {
        assert_eq!(detect(name, b""), expected, "{name}");
    }
}

#[test]
fn a_name_that_tells_another_format_rules_one_out() {
    for (format, name, expected) in [
        (Format::Parquet, "a.parquet", true),
        (Format::Parquet, "a.tar", false),
        (Format::Parquet, "part-00000", true),
        (Format::Tar, "a.tar.gz", true),
        (Format::WebDataset, "a.tgz", true),
        (Format::Jsonl, "a.mds", false),
        (Format::Object, "a.mds", true),
    ] {
        assert_eq!(may_be(format, name), expected, "{format:?} {name}");
    }
}

#[test]
fn bytes_tell_formats_and_are_right_about_codings() {
    use Coding::{Gzip, Plain, Zstd};
    let tar = |style| {
        let mut tar = TarFile::default();
        tar.member(&[b'n'; 90], b'0', b"{}", style);
        tar.end()
    };
    let json = b"{\"a\": [1, 2]}\n{}\n";
    let zstd = zstd::encode_all(&json[..], 1).unwrap();
    // A length that begins like gzip.
    let length = 0x0008_8b1f_u64.to_le_bytes();
    let checksum = crc32c::crc32c(&length).rotate_right(15).wrapping_add(0xa282_ead8);
    let record = [&length[..], &checksum.to_le_bytes(), b"data"].concat();
    for (name, bytes, expected) in [
        ("x", tar(Style::V7), Some((Format::WebDataset, Plain))),
        ("x", tar(Style::Pax), Some((Format::WebDataset, Plain))),
        ("x", tar(Style::Gnu), Some((Format::WebDataset, Plain))),
        ("x.tar", gzip(&tar(Style::Ustar)), Some((Format::WebDataset, Gzip))),
        ("x", gzip(&tar(Style::Ustar)), Some((Format::WebDataset, Gzip))),
        ("x.gz", gzip(json), Some((Format::Jsonl, Gzip))),
        ("x.jsonl.gz", json.to_vec(), Some((Format::Jsonl, Plain))),
        ("x.json", zstd, Some((Format::Jsonl, Zstd))),
        ("x.json", b"{\n  \"a\": 1\n}".to_vec(), None),
        ("x", record.clone(), Some((Format::TfRecord, Plain))),
        ("x.tfrecord", record, Some((Format::TfRecord, Plain))),
        ("x", b"PAR1\x15\x04".to_vec(), Some((Format::Parquet, Plain))),
        ("x.jpg", b"\xff\xd8\xff\xe0".to_vec(), None),
        ("x", gzip(b"text"), None),
        ("x", vec![0; 4096], None),
        ("x", b"\x1f\x8b\x08\xff".to_vec(), None),
    ] {
        assert_eq!(detect(name, &bytes), expected, "{name} {}", bytes.escape_ascii());
    }
}

#[test]
fn sidecars_are_told_from_data() {
    for name in [
        "a.idx",
        "a/index.json",
        "_SUCCESS",
        "a/.b",
        "_temporary/0/a",
        "a/",
        "",
        "a_$folder$",
        ".x.tar",
    ] {
        assert!(is_sidecar(name), "{name}");
    }
    for name in ["a.tar", "a/index.jsonl", "_year=1/a.parquet", "a_b/c", "a.b/c.d"] {
        assert!(!is_sidecar(name), "{name}");
    }
}
