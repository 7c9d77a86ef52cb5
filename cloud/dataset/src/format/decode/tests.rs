use std::io::Write;

use flate2::{Compression, GzBuilder};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use robustmq_common::limits::dataset::EXTENT_BYTES;

use super::{DecodeError, Decoder};
use crate::format::Coding;

fn gzip(content: &[u8]) -> Vec<u8> {
    let header = GzBuilder::new().filename("name").comment("comment").extra(vec![1, 2, 3]);
    let mut encoder = header.write(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn coded(coding: Coding, content: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Plain => content.to_vec(),
        Coding::Gzip => gzip(content),
        Coding::Zstd => zstd(content),
    }
}

/// Decodes it in pieces of so many bytes, with so much room for each.
fn decode(coding: Coding, raw: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(coding)?;
    let mut content = Vec::new();
    for mut piece in raw.chunks(piece) {
        loop {
            let before = content.len();
            let taken = decoder.push(piece, &mut content, room)?;
            let given = content.len() - before;
            assert!(given <= room);
            piece = &piece[taken..];
            if given < room {
                assert!(piece.is_empty(), "there is room, but {} bytes are left", piece.len());
                break;
            }
        }
    }
    decoder.finish().map(|()| content)
}

fn check(coding: Coding, raw: &[u8], expected: Result<&[u8], &str>) {
    for (piece, room) in [(1, 1), (1, 1000), (7, 3), (raw.len().max(1), 1 << 20)] {
        let found = decode(coding, raw, piece, room).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(part)) if found.contains(part) => {}
            _ => panic!("{found:?} is not {expected:?}, {piece} bytes each with room for {room}"),
        }
    }
}

const CODINGS: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

#[test]
fn members_and_frames_follow_each_other() {
    for coding in CODINGS {
        let parts = [coded(coding, b"one "), coded(coding, b""), coded(coding, b"two")];
        check(coding, &parts.concat(), Ok(b"one two"));
        check(coding, &[parts.concat(), vec![0; 70]].concat(), Ok(b"one two"));
        check(coding, &coded(coding, b""), Ok(b""));
    }
    check(Coding::Plain, b"as it is", Ok(b"as it is"));
    check(Coding::Plain, b"", Ok(b""));
    let skipped =
        [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(b"one"), b"\x5f\x2a\x4d\x18\0\0\0\0"];
    check(Coding::Zstd, &skipped.concat(), Ok(b"one"));
}

#[test]
fn what_is_not_whole_is_an_error() {
    for coding in CODINGS {
        let good = coded(coding, b"some content, some content");
        for bytes in 0..good.len() {
            check(coding, &good[..bytes], Err("is cut off after"));
        }
        check(coding, &[&good, &good[..5]].concat(), Err("is cut off after"));
        check(coding, &[&good[..], b"more"].concat(), Err("something else follows"));
        check(coding, &[&good[..], b"\0\0more"].concat(), Err("something else follows"));
        check(coding, b"not compressed", Err("is damaged"));
        check(coding, &[0; 20], Err("is damaged"));
        for at in (good.len() - 4)..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            check(coding, &bad, Err("is damaged"));
        }
    }
    check(Coding::Gzip, b"\x1f\x8b\x08\xff", Err("flags that are not known"));
    check(Coding::Gzip, b"\x1f\x8b\x07\0", Err("no gzip member"));
    let endless = [&b"\x1f\x8b\x08\x08\0\0\0\0\0\0"[..], &[b'n'; 200_000]].concat();
    let found = decode(Coding::Gzip, &endless, 4096, 4096).unwrap_err().to_string();
    assert!(found.contains("header is too large"), "{found}");
    // A frame whose window would take 2 GiB.
    let window = b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0";
    check(Coding::Zstd, window, Err("is damaged"));
}

#[test]
fn what_expands_beyond_reason_is_a_bomb() {
    for coding in CODINGS {
        let fits = vec![0; EXTENT_BYTES];
        let found = decode(coding, &coded(coding, &fits), 1 << 16, 1 << 16);
        assert_eq!(found.map(|content| content.len()), Ok(fits.len()));
        let bomb = coded(coding, &vec![0; 4 * EXTENT_BYTES]);
        let found = decode(coding, &bomb, 1 << 16, 1 << 16).unwrap_err();
        assert!(
            matches!(found, DecodeError::Bomb { .. }) && found.to_string().contains("bomb"),
            "{found}"
        );
    }
}

fn any_coding() -> impl Strategy<Value = Coding> {
    prop_oneof![Just(Coding::Plain), Just(Coding::Gzip), Just(Coding::Zstd)]
}

proptest! {
    #[test]
    fn content_comes_back(coding in any_coding(), parts in proptest::collection::vec(proptest::collection::vec(0..4_u8, 0..500), 1..4), piece in 1..300_usize, room in 1..300_usize) {
        let raw: Vec<u8> = parts.iter().flat_map(|part| coded(coding, part)).collect();
        assert_eq!(decode(coding, &raw, piece, room), Ok(parts.concat()));
    }

    #[test]
    fn noise_is_an_error_or_content(coding in any_coding(), content: Vec<u8>, changes in proptest::collection::vec(any::<(u16, u8)>(), 0..4), piece in 1..300_usize, room in 1..300_usize) {
        let raw = crate::format::testing::mutated(&coded(coding, &content), &(changes, None));
        let whole = decode(coding, &raw, raw.len().max(1), 1 << 20);
        let pieces = decode(coding, &raw, piece, room);
        assert_eq!(whole.clone().ok(), pieces.ok(), "{whole:?}");
    }
}
