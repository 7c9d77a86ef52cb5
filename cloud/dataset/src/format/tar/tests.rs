use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{Tar, has_checksum, number};
use crate::format::testing::{
    Style, TarFile, check_splits, limits, mutated, octal, read_waiting, tampering,
};

/// Names and sizes of the records, and the damage, of an archive whose members may have 2000 bytes.
fn check(content: &[u8], records: &[(&str, usize)], damage: &[(u64, &str)]) {
    let seen = check_splits(&Tar, content, &[100, 512, 900], limits(2000));
    let found: Vec<_> = seen
        .records
        .iter()
        .map(|record| (String::from_utf8_lossy(record.key.as_deref().unwrap()), record.value.len()))
        .collect();
    let found: Vec<_> = found.iter().map(|(name, bytes)| (name.as_ref(), *bytes)).collect();
    assert_eq!(found, records);
    let found: Vec<_> = seen.damage.iter().map(|(at, reason)| (*at, reason.as_str())).collect();
    assert_eq!(found, damage);
}

const STYLES: [Style; 5] = [Style::V7, Style::Ustar, Style::Prefix, Style::Gnu, Style::Pax];

fn archive(members: &[(&str, u8, usize)], style: Style) -> TarFile {
    let mut tar = TarFile::default();
    for (name, kind, bytes) in members {
        tar.member(name.as_bytes(), *kind, &vec![b'd'; *bytes], style);
    }
    tar
}

#[test]
fn regular_files_are_records() {
    let members = [
        ("a/one.txt", b'0', 3),
        ("../../etc/passwd", b'0', 0),
        ("/dev/x", b'7', 512),
        ("odd\x01 \u{e4}", b'0', 513),
        ("one.txt", b'0', 2000),
    ];
    let records: Vec<_> = members.iter().map(|(name, _, bytes)| (*name, *bytes)).collect();
    for style in STYLES {
        let tar = archive(&members, style);
        check(&tar.0, &records, &[]);
        check(&tar.end(), &records, &[]);
    }
    let mut long = TarFile::default();
    let name = "long/".repeat(60);
    long.member(name.as_bytes(), b'0', b"12", Style::Gnu);
    long.member(name.as_bytes(), b'0', b"3", Style::Pax);
    check(&long.end(), &[(&name, 2), (&name, 1)], &[]);
}

#[test]
fn what_is_no_file_is_passed_over() {
    let mut tar = TarFile::default();
    tar.pax(b'g', &[("path", b"for all"), ("size", b"7")]);
    // Whatever size is said of links, devices and directories, no data follows them.
    for kind in b'1'..=b'6' {
        tar.header(b"no data", b"", &octal(700), kind, b"ustar\x0000");
    }
    tar.header(b"old directory/", b"", &octal(0), 0, b"");
    tar.member(b"unknown", b'Z', &[7; 600], Style::Ustar);
    tar.pax(b'x', &[("GNU.sparse.major", b"1"), ("path", b"sparse")]);
    tar.member(b"sparse", b'0', &[7; 600], Style::Ustar);
    tar.header(b"sparse", b"", &octal(600), b'S', b"ustar  \0");
    let header = tar.0.len() - 512;
    tar.0[header + 482] = 1;
    let checksum = tar.0[header..].iter().map(|byte| u32::from(*byte)).sum::<u32>()
        - tar.0[header + 148..header + 156].iter().map(|byte| u32::from(*byte)).sum::<u32>()
        + 256;
    tar.0[header + 148..header + 156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    let mut more = [0; 512];
    more[504] = 1;
    tar.data(&more);
    tar.data(&[0; 512]);
    tar.data(&[7; 600]);
    tar.header(b"././@LongLink", b"", &octal(3), b'K', b"ustar  \0");
    tar.data(b"to\0");
    tar.member(b"file", b'0', b"data", Style::Ustar);
    check(&tar.end(), &[("file", 4)], &[]);
}

#[test]
fn names_are_taken_from_where_they_count() {
    let mut tar = TarFile::default();
    // GNU's own headers have times where others have a prefix.
    tar.header(b"gnu", b"12345670123", &octal(0), b'0', b"ustar  \0");
    tar.header(b"posix", b"12345670123", &octal(0), b'0', b"ustar\x0000");
    tar.header(&[b'n'; 100], &[b'p'; 155], &octal(0), b'0', b"ustar\x0000");
    tar.pax(b'x', &[("path", b"first"), ("path", b""), ("linkpath", b"nowhere"), ("size", b"")]);
    tar.header(b"taken back", b"", &octal(0), b'0', b"ustar\x0000");
    let longest = format!("{}/{}", "p".repeat(155), "n".repeat(100));
    let records = [("gnu", 0), ("12345670123/posix", 0), (&longest, 0), ("taken back", 0)];
    check(&tar.end(), &records, &[]);
}

#[test]
fn the_archive_ends_where_it_says() {
    let tar = || archive(&[("a", b'0', 10)], Style::Ustar);
    let record = [("a", 10)];
    check(b"", &[], &[]);
    check(&[0; 1024], &[], &[]);
    check(&[0; 100], &[], &[]);
    check(&[tar().0, vec![0; 512]].concat(), &record, &[]);
    check(&[tar().0, vec![0; 700]].concat(), &record, &[]);
    // Nothing fills up the last block.
    check(&tar().0[..522], &record, &[]);
    check(&[tar().end(), vec![7; 5000]].concat(), &record, &[]);
    let lone = "a block of zeros is not followed by another";
    check(
        &[tar().0, vec![0; 512], tar().end()].concat(),
        &[record, record].concat(),
        &[(1024, lone)],
    );
}

#[test]
fn damage_costs_what_it_hits() {
    let members = [("a", b'0', 10), ("b", b'0', 600), ("c", b'0', 10)];
    let good = archive(&members, Style::Ustar).end();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let checksum = "the checksum of a header does not match";
    check(&with(1024, b'B'), &[("a", 10), ("c", 10)], &[(1024, checksum)]);
    let last = "the checksum of a header does not match, and no other one is found after it";
    check(&with(2560, b'C'), &[("a", 10), ("b", 600)], &[(2560, last)]);
    let cut = "the archive is cut off here";
    check(&good[..2000], &[("a", 10)], &[(1024, cut)]);
    check(&good[..1100], &[("a", 10)], &[(1024, cut)]);
    for (size, reason) in [
        (b"0000000000z\0", "the size in a header is no number"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "the size in a header is no number"),
        (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "the size of a member is not possible"),
    ] {
        let mut tar = TarFile::default();
        tar.header(b"x", b"", size, b'0', b"ustar\x0000");
        tar.member(b"y", b'0', b"1", Style::Ustar);
        check(&tar.end(), &[("y", 1)], &[(0, reason)]);
    }
    for body in [&b"9999 path=x\n"[..], b"5 a\n", b"0 path=x\n", b"path=x\n", b"9 size=x\n"] {
        let mut tar = TarFile::default();
        tar.header(b"x", b"", &octal(body.len()), b'x', b"ustar\x0000");
        tar.data(body);
        tar.member(b"y", b'0', b"1", Style::Ustar);
        check(&tar.end(), &[("y", 1)], &[(0, "the pax header of a member is not readable")]);
    }
    let mut tar = TarFile::default();
    tar.header(b"x", b"", &octal(2 << 20), b'L', b"ustar  \0");
    tar.member(b"y", b'0', b"1", Style::Ustar);
    check(&tar.end(), &[("y", 1)], &[(0, "the extended header of a member is too large")]);
}

#[test]
fn large_members_are_skipped_unseen() {
    let mut tar = archive(&[("a", b'0', 1), ("b\n", b'0', 2001), ("c", b'0', 2)], Style::Ustar);
    tar.header(b"huge", b"", b"\x80\0\0\0\0\0\x00\xff\0\0\0\0", b'0', b"ustar\x0000");
    let records = [("a", 1), ("c", 2)];
    let huge = tar.0.len() as u64 - 512;
    check(
        &tar.0,
        &records,
        &[
            (1024, "\"b\\n\" is larger than 2000 bytes"),
            (huge, "\"huge\" is larger than 2000 bytes"),
        ],
    );
    // No more than a header has to be in sight for it.
    let (_, most) = read_waiting(&Tar, &tar.0[1024..], &[1], limits(2000));
    assert_eq!(most, 1023, "the header and what the last record is filled up with");
}

#[test]
fn headers_that_do_not_end_are_damage() {
    let mut tar = TarFile::default();
    for _ in 0..1100 {
        tar.pax(b'g', &[("comment", b"again")]);
    }
    let seen = check_splits(&Tar, &tar.end(), &[400_000], limits(2000));
    assert!(seen.records.is_empty());
    assert!(seen.damage[0].1.starts_with("the headers of a member do not end"), "{seen:?}");
}

#[test]
fn numbers_are_octal_or_binary() {
    for (field, expected) in [
        (&b"00000000017\0"[..], Some(15)),
        (b"       17 \0\0", Some(15)),
        (b"777777777777", Some(0o777_777_777_777)),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0)),
        (b"            ", Some(0)),
        (b"8           ", None),
        (b"-1          ", None),
        (b"\x80\0\0\0\0\0\0\x02\0\0\0\x01", Some((2 << 32) + 1)),
        (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", None),
        (b"", None),
    ] {
        assert_eq!(number(field), expected, "{}", field.escape_ascii());
    }
}

/// Historic ones on machines whose bytes were signed.
#[test]
fn a_checksum_of_signed_bytes_is_good() {
    let mut tar = TarFile::default();
    tar.header(b"\xe4", b"", &octal(0), b'0', b"ustar\x0000");
    let mut header: [u8; 512] = tar.0.try_into().unwrap();
    assert!(has_checksum(&header));
    let sum = number(&header[148..156]).unwrap() - 256;
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(has_checksum(&header));
    header[0] = 0xe5;
    assert!(!has_checksum(&header));
}

type Made = (Vec<u8>, u8, Vec<u8>, Style);

fn member() -> impl Strategy<Value = Made> {
    let name = prop_oneof![
        proptest::collection::vec(1..=255_u8, 1..80),
        "[a-c]{1,2}(/[a-c._]{1,4}){0,3}".prop_map(String::into_bytes),
    ];
    let kind = prop_oneof![4 => Just(b'0'), 1 => Just(b'Z'), 1 => Just(b'7')];
    let style = (0..STYLES.len()).prop_map(|style| STYLES[style]);
    (name, kind, proptest::collection::vec(any::<u8>(), 0..1200), style)
}

fn made(members: &[Made]) -> Vec<u8> {
    let mut tar = TarFile::default();
    for (name, kind, data, style) in members {
        tar.member(name, *kind, data, *style);
    }
    tar.end()
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn members_come_back_in_any_split(members in proptest::collection::vec(member(), 0..6), steps in proptest::collection::vec(1..2000_usize, 1..6)) {
        let seen = check_splits(&Tar, &made(&members), &steps, limits(1200));
        let found: Vec<_> = seen.records.into_iter().map(|record| (record.key.unwrap(), record.value)).collect();
        let is_directory = |name: &[u8], kind, style| name.ends_with(b"/") && kind == b'0' && style == Style::V7;
        let expected: Vec<_> = members
            .into_iter()
            .filter(|(name, kind, _, style)| *kind != b'Z' && !is_directory(name, *kind, *style))
            .map(|(name, _, data, _)| (name, data))
            .collect();
        // A directory of old has no data: what follows it is damage then.
        if seen.damage.is_empty() {
            assert_eq!(found, expected);
        } else {
            assert!(found.len() <= expected.len() + 1);
        }
    }

    #[test]
    fn any_bytes_in_any_split_give_the_same(members in proptest::collection::vec(member(), 0..6), steps in proptest::collection::vec(1..2000_usize, 1..6),
                                            tampering in tampering(), limit in 0..1500_usize) {
        check_splits(&Tar, &mutated(&made(&members), &tampering), &steps, limits(limit));
    }

    #[test]
    fn noise_is_damage(content in proptest::collection::vec(any::<u8>(), 0..3000), steps in proptest::collection::vec(1..2000_usize, 1..6)) {
        check_splits(&Tar, &content, &steps, limits(1200));
    }
}
