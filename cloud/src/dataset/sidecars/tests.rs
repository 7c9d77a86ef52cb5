use std::collections::BTreeMap;

use object_store::ObjectMeta;

use super::Sidecars;
use crate::dataset::manifest::Entry;
use crate::topics::TopicConfig;

/// Attaches `.idx` among `names` to the others: which have one, after what was left out.
fn attached(format: &str, names: &[&str]) -> Vec<(String, Option<String>)> {
    let overrides = [("robustmq.source", "s3://data/train"), ("robustmq.source.format", format)];
    let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = TopicConfig::parse(&BTreeMap::from(overrides)).expect("it is right");
    let config = config.source.expect("it has one");
    let mut sidecars = Sidecars::default();
    let mut entries = Vec::new();
    for name in names {
        let name = (*name).to_owned();
        let (location, last_modified) = (name.as_str().into(), std::time::UNIX_EPOCH.into());
        let (size, e_tag, version) = (1, None, None);
        sidecars.note(&name, &ObjectMeta { location, last_modified, size, e_tag, version });
        entries.push(Entry { name, etag: None, size: 1, modified_ms: 0, index: None });
    }
    let left = sidecars.attach(&config, entries).into_iter();
    left.map(|entry| (entry.name, entry.index.map(|index| index.name))).collect()
}

#[test]
fn index_files_are_of_the_objects_beside_them_and_no_records() {
    let check = |format: &str, names: &[&str], expected: &[(&str, Option<&str>)]| {
        let left = attached(format, names);
        let left: Vec<_> =
            left.iter().map(|(name, index)| (name.as_str(), index.as_deref())).collect();
        assert_eq!(left, expected, "{format} {names:?}");
    };
    check("auto", &["a.idx", "a.tar", "b.tar"], &[("a.tar", Some("a.idx")), ("b.tar", None)]);
    check(
        "webdataset",
        &["a.idx", "a.tar.idx", "a.tar"],
        // One that nobody uses is no shard all the same.
        &[("a.tar", Some("a.tar.idx"))],
    );
    check("tfrecord", &["x-1", "x-1.idx"], &[("x-1", Some("x-1.idx"))]);
    check("auto", &["d/a.idx", "a.tar"], &[("d/a.idx", None), ("a.tar", None)]);
    // Nothing that has no such index: whatever it is, it is data.
    check("object", &["a.idx", "a.tar"], &[("a.idx", None), ("a.tar", None)]);
    check("auto", &["a.tar.gz", "a.tar.gz.idx"], &[("a.tar.gz", None), ("a.tar.gz.idx", None)]);
}
