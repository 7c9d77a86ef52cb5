use proptest::prelude::{Strategy, any, proptest};

use super::Mds;
use crate::format::testing::{Found, check_splits, limits, mutated, tampering};

/// A shard with a column of each of these sizes, `None` for those that vary.
fn shard(sizes: &[Option<u32>], samples: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let names: Vec<String> = (0..sizes.len()).map(|column| format!("c{column}")).collect();
    let config = serde_json::json!({
        "column_encodings": vec!["bytes"; sizes.len()], "column_names": names, "column_sizes": sizes,
        "compression": null, "format": "mds", "hashes": [], "size_limit": 67_108_864, "version": 2,
    });
    with_config(&config.to_string(), sizes, samples)
}

fn with_config(config: &str, sizes: &[Option<u32>], samples: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let mut offset = 8 + 4 * samples.len() + config.len();
    let mut table = [number(samples.len()), number(offset)].concat();
    let mut data = Vec::new();
    for sample in samples {
        let before = data.len();
        for (column, _) in sample.iter().zip(sizes).filter(|(_, size)| size.is_none()) {
            data.extend(number(column.len()));
        }
        data.extend(sample.concat());
        offset += data.len() - before;
        table.extend(number(offset));
    }
    [&table, config.as_bytes(), &data].concat()
}

fn described(record: &Found) -> String {
    let part =
        |(name, data): (&[u8], &[u8])| format!("{}={}", name.escape_ascii(), data.escape_ascii());
    let members = record.members.iter().map(|(name, data)| part((name, data)));
    let value = part((record.value_name.as_deref().unwrap(), &record.value));
    [value].into_iter().chain(members).collect::<Vec<_>>().join(" ")
}

fn check(content: &[u8], samples: &[&str], damage: &[&str]) {
    let seen = check_splits(&Mds, content, &[1, 30], limits(20));
    assert_eq!(seen.records.iter().map(described).collect::<Vec<_>>(), samples);
    let found: Vec<_> = seen.damage.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(found.len(), damage.len(), "{found:?}");
    assert!(found.iter().zip(damage).all(|(found, part)| found.contains(part)), "{found:?}");
}

fn texts(samples: &[&[&str]]) -> Vec<Vec<Vec<u8>>> {
    let sample =
        |columns: &&[&str]| columns.iter().map(|column| column.as_bytes().to_vec()).collect();
    samples.iter().map(sample).collect()
}

#[test]
fn the_largest_column_of_the_first_sample_is_the_value() {
    let sizes = [None, Some(2), None];
    let samples = texts(&[&["abc", "12", "de"], &["", "34", "defghi"], &["x", "56", ""]]);
    let records = ["c0=abc c1=12 c2=de", "c0= c1=34 c2=defghi", "c0=x c1=56 c2="];
    check(&shard(&sizes, &samples), &records, &[]);
    check(&shard(&[None, None], &texts(&[&["a", "b"]])), &["c0=a c1=b"], &[]);
    check(&shard(&[None, Some(3)], &texts(&[&["a", "bcd"]])), &["c1=bcd c0=a"], &[]);
    check(&shard(&[None], &[]), &[], &[]);
    check(b"", &[], &[]);
}

/// Written by the `MDSWriter` of mosaicml-streaming 0.13 with the columns `{"t": "str", "y": "uint8"}`.
#[test]
fn golden_bytes() {
    let config = br#"{"column_encodings": ["str", "uint8"], "column_names": ["t", "y"], "column_sizes": [null, 1], "compression": null, "format": "mds", "hashes": [], "size_limit": 67108864, "version": 2}"#;
    let content = [
        b"\x02\0\0\0\xc7\0\0\0\xce\0\0\0\xd4\0\0\0".as_slice(),
        config,
        b"\x02\0\0\0hi\x07",
        b"\x01\0\0\0!\x08",
    ]
    .concat();
    assert_eq!(16 + config.len(), 0xc7);
    check(&content, &["t=hi y=\\x07", "t=! y=\\x08"], &[]);
}

#[test]
fn damage_is_said() {
    let sizes = [None, Some(1)];
    let good = shard(&sizes, &texts(&[&["ab", "1"], &["cd", "2"]]));
    let header = good.len() - 14;
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let first = "c0=ab c1=1";
    check(&good[..good.len() - 1], &[first], &["the record is cut off"]);
    check(&good[..header + 9], &[first], &["the record is cut off"]);
    check(&good[..header - 1], &[], &["the shard's header is cut off"]);
    check(&good[..3], &[], &["the shard's header is cut off"]);
    check(&with(4, 0), &[], &["lies within the table"]);
    check(&with(7, 1), &[], &["the shard's columns take more than 65536 bytes"]);
    check(&with(12, 0), &[], &["the offset of sample 2 is not possible"]);
    check(&with(header, 1), &[], &["the first sample is not as long"]);
    check(&with(header + 7, 18), &[first], &["the record is cut off"]);
    check(&with(header + 10, 1), &[first], &["the sample is larger than 20 bytes"]);
    let table = [&u32::MAX.to_le_bytes()[..], &u32::MAX.to_le_bytes()].concat();
    check(&table, &[], &["lies within the table"]);
    let table = [&60_000_u32.to_le_bytes()[..], &240_100_u32.to_le_bytes()].concat();
    check(&table, &[], &["the table of 60000 offsets is too large"]);
}

#[test]
fn columns_have_to_be_possible() {
    for (config, damage) in [
        ("{}", "not readable"),
        (r#"{"version":1,"format":"mds","column_names":["a"],"column_sizes":[1]}"#, "of version 1"),
        (
            r#"{"version":2,"format":"x\n","column_names":["a"],"column_sizes":[1]}"#,
            "\"x\\n\" of version 2",
        ),
        (r#"{"version":2,"format":"mds","column_names":[],"column_sizes":[]}"#, "no columns"),
        (
            r#"{"version":2,"format":"mds","column_names":["a"],"column_sizes":[]}"#,
            "not a size for each",
        ),
        (r#"{"version":2,"format":"mds","column_names":["a"],"column_sizes":[0]}"#, "has no bytes"),
        (
            r#"{"version":2,"format":"mds","column_names":["a"],"column_sizes":[-1]}"#,
            "not readable",
        ),
    ] {
        check(&with_config(config, &[None], &texts(&[&["a"]])), &[], &[damage]);
    }
}

#[test]
fn samples_that_are_too_large_are_skipped() {
    let samples =
        texts(&[&["first sample, and too large"], &["b"], &["another that is too large"], &["d"]]);
    let large = "the sample is larger than 20 bytes";
    check(&shard(&[None], &samples), &["c0=b", "c0=d"], &[large, large]);
}

fn shards() -> impl Strategy<Value = (Vec<Option<u32>>, Vec<Vec<Vec<u8>>>)> {
    let sizes = proptest::collection::vec(proptest::option::of(1..6_u32), 1..4);
    sizes.prop_flat_map(|sizes| {
        let column = |size: &Option<u32>| {
            let range = size.map_or(0..=9_usize, |size| size as usize..=size as usize);
            proptest::collection::vec(any::<u8>(), range)
        };
        let sample: Vec<_> = sizes.iter().map(column).collect();
        let samples = proptest::collection::vec(sample, 0..10);
        samples.prop_map(move |samples| (sizes.clone(), samples))
    })
}

proptest! {
    #[test]
    fn samples_come_back_in_any_split((sizes, samples) in shards(), steps in proptest::collection::vec(1..90_usize, 1..6)) {
        let seen = check_splits(&Mds, &shard(&sizes, &samples), &steps, limits(100));
        assert_eq!((seen.records.len(), seen.damage), (samples.len(), vec![]));
        for (record, sample) in seen.records.iter().zip(&samples) {
            let mut columns: Vec<_> = record.members.clone();
            columns.push((record.value_name.clone().unwrap(), record.value.clone()));
            columns.sort();
            assert_eq!(columns.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), *sample);
        }
    }

    #[test]
    fn any_bytes_in_any_split_give_the_same((sizes, samples) in shards(), steps in proptest::collection::vec(1..90_usize, 1..6), tampering in tampering(), limit in 0..30_usize) {
        check_splits(&Mds, &mutated(&shard(&sizes, &samples), &tampering), &steps, limits(limit));
    }

    #[test]
    fn noise_is_damage(content: Vec<u8>, steps in proptest::collection::vec(1..90_usize, 1..6)) {
        check_splits(&Mds, &content, &steps, limits(20));
    }
}
