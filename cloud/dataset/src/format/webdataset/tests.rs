use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{WebDataset, split};
use crate::format::testing::{
    Found, Style, TarFile, check_splits, limits, mutated, octal, read, read_waiting, tampering,
};

/// Each member as its name and how many bytes it has.
fn archive(members: &[(&str, usize)]) -> TarFile {
    let mut tar = TarFile::default();
    for (index, (name, bytes)) in members.iter().enumerate() {
        let style = [Style::Ustar, Style::Pax, Style::Gnu, Style::Prefix][index % 4];
        let kind = if name.ends_with('/') { b'5' } else { b'0' };
        tar.member(name.as_bytes(), kind, &vec![b'd'; *bytes], style);
    }
    tar
}

/// A sample as its key, what is its value, and its other members.
fn described(record: &Found) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let key = text(record.key.as_deref().unwrap());
    let name = text(record.value_name.as_deref().unwrap());
    let members = record.members.iter();
    let members: String =
        members.map(|(name, data)| format!(" {}:{}", text(name), data.len())).collect();
    format!("{key} {name}:{}{members}", record.value.len())
}

fn check(content: &[u8], samples: &[&str], damage: &[&str]) {
    let seen = check_splits(&WebDataset, content, &[100, 700, 5000], limits(2000));
    assert_eq!(seen.records.iter().map(described).collect::<Vec<_>>(), samples);
    assert_eq!(seen.damage.iter().map(|(_, reason)| reason).collect::<Vec<_>>(), damage);
}

#[test]
fn names_are_split_at_the_first_dot_of_the_last_part() {
    for (name, expected) in [
        ("a.jpg", Some(("a", "jpg"))),
        ("a/b.c/d.seg.PNG", Some(("a/b.c/d", "seg.PNG"))),
        ("./a.jpg", Some(("./a", "jpg"))),
        ("../a.jpg", Some(("../a", "jpg"))),
        ("a.", Some(("a", ""))),
        ("a..b", Some(("a", ".b"))),
        ("__a__.jpg", Some(("__a__", "jpg"))),
        ("x/__a__/b.jpg", Some(("x/__a__/b", "jpg"))),
        ("a", None),
        ("a.b/c", None),
        (".hidden", None),
        (".a.jpg", None),
        ("dir/.a.jpg", None),
        ("__meta__", None),
        ("____", None),
        ("__meta__/a.jpg", None),
        ("", None),
        ("/", None),
    ] {
        let found = split(name.as_bytes()).map(|(key, from)| (&name[..key], &name[from..]));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn members_of_a_name_are_a_sample() {
    let tar = archive(&[
        ("d/", 0),
        ("d/1.JPG", 5),
        ("d/1.json", 5),
        ("d/readme", 30),
        ("d/1.cls", 0),
        ("e/1.cls", 0),
        ("d/1.cls", 1),
        ("d/1.seg.png", 2),
        ("d/1.seg.png", 2),
        ("__meta__", 9),
    ]);
    let samples = ["d/1 jpg:5 json:5 cls:0", "e/1 cls:0", "d/1 seg.png:2 cls:1 seg.png:2"];
    check(&tar.0, &samples, &[]);
    check(&tar.end(), &samples, &[]);
    check(b"", &[], &[]);
    check(&archive(&[("none", 4)]).end(), &[], &[]);
}

#[test]
fn a_sample_waits_for_the_next_one() {
    let tar = archive(&[("1.a", 5), ("1.b", 5), ("2.a", 5)]);
    let pax = 1024;
    for (in_sight, samples) in [(1024, 0), (1024 + pax + 1024, 0), (1024 + pax + 1024 + 512, 0)] {
        let parsed = super::Parser::parse(
            &WebDataset,
            super::Input {
                bytes: &tar.0[..in_sight],
                is_first: true,
                is_last: false,
                prelude: &[],
                carry: &[],
                object: "",
            },
            limits(2000),
        );
        assert_eq!((parsed.layout.records.len(), parsed.consumed), (samples, 0), "{in_sight}");
    }
}

#[test]
fn large_samples_are_left_out_whole() {
    let tar = archive(&[
        ("1.a", 1),
        ("2.a", 10),
        ("2.b", 2001),
        ("readme", 600),
        ("2.c", 10),
        ("2.d", 10),
        ("3.a", 1),
        ("4.a", 1500),
        ("4.b", 501),
        ("5.a", 2000),
    ]);
    let large = ["\"2\" is larger than 2000 bytes", "\"4\" is larger than 2000 bytes"];
    check(&tar.end(), &["1 a:1", "3 a:1", "5 a:2000"], &large);
    // What is said to be huge does not have to be there.
    let mut tar = archive(&[("1.a", 1), ("2.a", 10)]);
    tar.header(b"2.b", b"", b"\x80\0\0\0\0\0\x00\xff\0\0\0\0", b'0', b"ustar\x0000");
    check(&tar.0, &["1 a:1"], &["\"2\" is larger than 2000 bytes"]);
}

#[test]
fn members_without_number_are_bounded() {
    let mut tar = archive(&[("1.a", 1)]);
    for _ in 0..9000 {
        tar.header(b"2.a", b"", &octal(0), b'0', b"ustar\x0000");
    }
    tar.member(b"3.a", b'0', b"3", Style::Ustar);
    let seen = read(&WebDataset, &tar.end(), &[], limits(2000));
    assert_eq!(seen.records.iter().map(described).collect::<Vec<_>>(), ["1 a:1", "3 a:1"]);
    assert_eq!(seen.damage.len(), 1);
}

#[test]
fn what_is_passed_over_is_not_waited_for() {
    let mut tar = archive(&[("1.a", 1)]);
    tar.member(b"huge", b'0', &vec![7; 5 << 20], Style::Ustar);
    tar.member(b"1.b", b'0', b"3", Style::Ustar);
    let content = tar.end();
    let seen = check_splits(&WebDataset, &content, &[3 << 20], limits(2000));
    let (_, most) = read_waiting(&WebDataset, &content, &[512], limits(2000));
    assert_eq!(most, 1024 + 512, "a sample and the first half of the end");
    assert_eq!(seen.records.iter().map(described).collect::<Vec<_>>(), ["1 a:1", "1 b:1"]);
    assert_eq!(seen.damage, []);
}

#[test]
fn samples_beside_damage_are_left_out() {
    let good = archive(&[("1.a", 1), ("2.a", 1), ("2.b", 1), ("2.c", 1), ("3.a", 1), ("4.a", 1)]);
    let starts: Vec<usize> = (0..good.0.len())
        .step_by(512)
        .filter(|at| good.0[at + 257..].starts_with(b"ustar"))
        .collect();
    let good = good.end();
    let broken = |index: usize| {
        let mut bad = good.clone();
        bad[starts[index]] ^= 1;
        bad
    };
    let checksum = "the checksum of a header does not match";
    check(&broken(0), &["3 a:1", "4 a:1"], &[checksum]);
    // The long name and the header of the second sample's second member: its third one comes after them.
    for index in 3..=4 {
        check(&broken(index), &["1 a:1", "3 a:1", "4 a:1"], &[checksum]);
    }
    // Its third one: another sample comes after it, of which it may have been as well.
    check(&broken(5), &["1 a:1", "4 a:1"], &[checksum]);
    // Whether the third one is whole cannot be known.
    let samples = ["1 a:1", "2 a:1 b:1 c:1", "3 a:1"];
    let last = "the checksum of a header does not match, and no other one is found after it";
    check(&broken(starts.len() - 1), &samples[..2], &[last]);
    check(&good[..good.len() - 1024 - 600], &samples[..2], &["the archive is cut off here"]);
    check(&good[..good.len() - 1024 - 512], &samples, &["the archive is cut off here"]);
}

fn member() -> impl Strategy<Value = (String, usize, Style)> {
    let name = prop_oneof![
        4 => "[ab]{1,2}\\.[a-cA]{0,2}",
        1 => "[ab]/(\\.)?[ab]\\.(txt|seg\\.png)",
        1 => Just("__meta__".to_owned()),
        1 => "[a-c]{1,3}",
    ];
    let style =
        prop_oneof![Just(Style::Ustar), Just(Style::Prefix), Just(Style::Gnu), Just(Style::Pax)];
    (name, 0..700_usize, style)
}

fn made(members: &[(String, usize, Style)]) -> Vec<u8> {
    let mut tar = TarFile::default();
    for (index, (name, bytes, style)) in members.iter().enumerate() {
        let data = vec![u8::try_from(index).unwrap(); *bytes];
        tar.member(name.as_bytes(), b'0', &data, *style);
    }
    tar.end()
}

/// The same with a list and a search.
fn expected(members: &[(String, usize, Style)]) -> Vec<String> {
    let mut samples: Vec<(&str, Vec<(String, usize)>)> = Vec::new();
    for (name, bytes, _) in members {
        let (directory, last) = name.rsplit_once('/').unwrap_or(("", name));
        let Some((base, extension)) = last.split_once('.').filter(|(base, _)| !base.is_empty())
        else {
            continue;
        };
        let key =
            if directory.is_empty() { base } else { &name[..directory.len() + 1 + base.len()] };
        let member = (extension.to_lowercase(), *bytes);
        match samples.last_mut() {
            Some((last, parts)) if *last == key => parts.push(member),
            _ => samples.push((key, vec![member])),
        }
    }
    let described = |(key, mut parts): (&str, Vec<(String, usize)>)| {
        let most = parts.iter().map(|(_, bytes)| *bytes).max().unwrap();
        let value = parts.iter().position(|(_, bytes)| *bytes == most).unwrap();
        let (name, bytes) = parts.remove(value);
        let parts: String = parts.iter().map(|(name, bytes)| format!(" {name}:{bytes}")).collect();
        format!("{key} {name}:{bytes}{parts}")
    };
    samples.into_iter().map(described).collect()
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn samples_come_back_in_any_split(members in proptest::collection::vec(member(), 0..8), steps in proptest::collection::vec(1..2000_usize, 1..6)) {
        let seen = check_splits(&WebDataset, &made(&members), &steps, limits(10_000));
        assert_eq!(seen.damage, []);
        assert_eq!(seen.records.iter().map(described).collect::<Vec<_>>(), expected(&members));
    }

    #[test]
    fn any_bytes_in_any_split_give_the_same(members in proptest::collection::vec(member(), 0..8), steps in proptest::collection::vec(1..2000_usize, 1..6),
                                            tampering in tampering(), limit in 0..1500_usize) {
        check_splits(&WebDataset, &mutated(&made(&members), &tampering), &steps, limits(limit));
    }

    #[test]
    fn noise_is_damage(content in proptest::collection::vec(any::<u8>(), 0..3000), steps in proptest::collection::vec(1..2000_usize, 1..6)) {
        check_splits(&WebDataset, &content, &steps, limits(1200));
    }
}
