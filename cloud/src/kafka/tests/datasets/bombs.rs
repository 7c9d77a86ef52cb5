//! Objects that are good at their beginning, and become too large when they are decompressed.

use std::io::Write as _;

use super::unread::status_when;
use super::*;
use crate::dataset::{Damaged, Status};

/// Lines of ten kilobytes: all of them hardly take any room.
fn bomb(path: &Path, lines: usize) {
    let file = std::fs::File::create(path).expect("a disk");
    let mut write: Box<dyn std::io::Write> = match path.extension().is_some_and(|ext| ext == "gz") {
        true => Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::best())),
        false => Box::new(zstd::Encoder::new(file, 3).expect("memory").auto_finish()),
    };
    for line in 0..lines {
        writeln!(write, "{{\"line\":{line},\"zeros\":\"{}\"}}", "0".repeat(10_000))
            .expect("a disk");
    }
}

/// The last records before it were null when they were read again: that the rest is too large was found before they were looked at.
#[tokio::test(flavor = "multi_thread")]
async fn records_before_a_bomb_are_read_again_and_what_follows_has_no_offsets() {
    for name in ["a.jsonl.gz", "a.jsonl.zst"] {
        let directory = tempfile::tempdir().expect("a directory");
        bomb(&directory.path().join(name), 4_000);
        std::fs::write(directory.path().join("b.jsonl"), "{}\n").expect("a disk");
        let source = format!("file://{}", directory.path().display());
        let memory = Arc::new(MemoryStore::new());
        let broker = broker_on(&memory).await;
        let mut client = broker.client().await;
        create(&mut client, "lines", 1, &[("robustmq.source", &source)]).await;
        let counted = |status: &Status| status.is_index_complete;
        let told = status_when(&broker, "lines", counted).await;
        // The line that it breaks off in is damage too.
        assert_eq!((told.damaged, told.damaged_samples.len()), (2, 2), "{name}");
        let Damaged { object, reason, .. } = &told.damaged_samples[0];
        assert!(object == name && reason.contains("taken for a bomb"), "{reason}");
        let records = i64::try_from(told.records.expect("all are counted")).expect("few");
        assert!((800..2_000).contains(&records), "{name}: {records}");
        broker.shutdown.cancel();
        // Nothing is in the cache.
        let broker = broker_on(&memory).await;
        let mut client = broker.client().await;
        status_when(&broker, "lines", counted).await;
        let read = read_all(&mut client, "lines", 0, records - 8).await;
        assert_eq!(read.len(), 8, "{name}");
        assert!(read.iter().all(|record| record.value.is_some()), "{name}: some are lost");
        broker.shutdown.cancel();
    }
}

/// Its first megabytes were published all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_stops_at_what_is_damaged_ends_before_a_bomb() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.jsonl"), "{}\n{}\n").expect("a disk");
    bomb(&directory.path().join("b.jsonl.gz"), 4_000);
    let source = format!("file://{}", directory.path().display());
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let configs = [("robustmq.source", &source[..]), ("robustmq.source.on.corrupt", "stop")];
    create(&mut client, "lines", 1, &configs).await;
    let told = status_when(&broker, "lines", |status| !status.trouble.is_empty()).await;
    let said =
        "partition 0 ends at offset 2: b.jsonl.gz has samples that cannot be read, the first: ";
    assert!(told.trouble[0].starts_with(said), "{:?}", told.trouble);
    assert!(told.trouble[0].contains("taken for a bomb"), "{:?}", told.trouble);
    assert_eq!(read_all(&mut client, "lines", 0, 0).await.len(), 2);
}
