//! Records that are larger than a topic's readers can take.

use super::*;
use crate::dataset::Wanted;

const MIB: usize = 1024 * 1024;

fn data(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| at.to_le_bytes()[1].wrapping_mul(31) ^ seed).collect()
}

/// What a reader makes of records: keys and values, those in chunks put together, each of which begins at an offset.
fn put_together(records: &[Record]) -> Vec<(i64, String, Vec<u8>)> {
    let mut found: Vec<(i64, String, Vec<u8>)> = Vec::new();
    let mut next = 0;
    for record in records {
        let value = record.value.as_ref().expect("a value");
        assert!(value.len() <= MIB);
        if record.header("robustmq.chunk").is_none() {
            found.push((record.offset.0, key(record), value.to_vec()));
            continue;
        }
        assert_eq!(header(record, "robustmq.chunk"), next.to_string());
        if next == 0 {
            found.push((record.offset.0, key(record), Vec::new()));
        }
        let (_, name, whole) = found.last_mut().expect("the first chunk came before");
        assert_eq!(*name, key(record));
        whole.extend(value.iter());
        next += 1;
        if header(record, "robustmq.chunks") == next.to_string() {
            assert_eq!(header(record, "robustmq.chunked.bytes"), whole.len().to_string());
            next = 0;
        }
    }
    assert_eq!(next, 0, "all chunks came");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_readers_is_left_out_or_comes_in_chunks() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = [("a", 10), ("b", 2 * MIB + MIB / 2), ("c", MIB), ("d", MIB + 1), ("e", 0)];
    let files: Vec<(String, Vec<u8>)> = (0..)
        .zip(files)
        .map(|(seed, (name, bytes))| (name.to_owned(), data(seed, bytes)))
        .collect();
    for (name, data) in &files {
        std::fs::write(directory.path().join(name), data).expect("a disk");
    }
    std::fs::write(directory.path().join("all.tar"), tar(&files)).expect("a disk");
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = |format, include, on_large| {
        [
            ("robustmq.source", source.as_str()),
            ("robustmq.source.format", format),
            ("robustmq.source.include", include),
            ("robustmq.source.epochs", "2"),
            ("robustmq.source.record.max.bytes", "1048576"),
            ("robustmq.source.on.large", on_large),
        ]
    };
    for (format, include) in [("object", "?"), ("tar", "*.tar")] {
        let topic = |on_large| format!("{format}-{on_large}");
        for on_large in ["skip", "chunk"] {
            let created =
                create(&mut client, &topic(on_large), 1, &configs(format, include, on_large)).await;
            assert_eq!(created, (0, String::new()));
        }
        let whole = read_all(&mut client, &topic("chunk"), 0, 0).await;
        assert_eq!(whole.len(), 2 * 8, "{format}");
        let whole = put_together(&whole);
        for (found, expected) in whole.iter().zip(files.iter().chain(&files)) {
            assert!((&found.1, &found.2) == (&expected.0, &expected.1), "{format} {}", found.1);
        }
        assert_eq!(whole.len(), 2 * files.len());
        let wanted = Wanted { key: "d".into(), epoch: 1, ..Wanted::default() };
        let found = broker.find(&topic("chunk"), wanted).await.expect("it is searched");
        let offsets: Vec<_> = found.matches.iter().map(|found| found.offset).collect();
        assert_eq!(offsets, [Some(whole[8].0)], "{format}");
        let rest = put_together(&read_all(&mut client, &topic("chunk"), 0, whole[8].0).await);
        assert!(rest[..] == whole[8..]);
        // What the other topic has counted is not mistaken for this one's.
        let left = put_together(&read_all(&mut client, &topic("skip"), 0, 0).await);
        let left: Vec<_> = left.iter().map(|found| found.1.as_str()).collect();
        assert_eq!(left, ["a", "c", "e", "a", "c", "e"], "{format}");
    }
    for (entry, said) in [
        (("robustmq.source.shuffle", "window:10"), "none or shards"),
        (("robustmq.source.format", "webdataset"), "object, tar or auto"),
        (("robustmq.source.record.max.bytes", "1000"), "1048576"),
        (("robustmq.source.on.large", "split"), "chunk"),
    ] {
        let configs = configs("object", "?", "chunk");
        let configs = configs.into_iter().filter(|(name, _)| *name != entry.0);
        let configs: Vec<_> = configs.chain([entry]).collect();
        let (code, message) = create(&mut client, "refused", 1, &configs).await;
        assert!(code == 40 && message.contains(said), "{code} {message}");
    }
}
