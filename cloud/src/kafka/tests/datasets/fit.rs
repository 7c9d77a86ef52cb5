//! Topics that need more of the cache than it has.

use super::*;

/// The documentation had it, and nothing else: objects were downloaded again for each of their records.
#[tokio::test(flavor = "multi_thread")]
async fn windows_that_do_not_fit_the_cache_are_told_at_creation_and_in_the_status() {
    let directory = tempfile::tempdir().expect("a directory");
    for object in 0..100 {
        let file = std::fs::File::create(directory.path().join(format!("{object:02}.bin")));
        file.expect("a disk").set_len(1_000_000).expect("a disk");
    }
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    let source = format!("file://{}", directory.path().display());
    let configs = [
        ("robustmq.source", &source[..]),
        ("robustmq.source.format", "object"),
        ("robustmq.source.shuffle", "window:100"),
    ];
    let (error, note) = create(&mut client, "windows", 2, &configs).await;
    assert_eq!(error, 0, "{note}");
    let said = "windows of 100 records in 2 partitions are 100 MB together, more than the cache has for them, 25 MB: ";
    assert!(note.starts_with(said), "{note}");
    let warnings = status(&broker, "windows").await.warnings;
    assert!(warnings.len() == 1 && warnings[0] == note, "{warnings:?}");
    // As the cache is now.
    broker.kafka.datasets.set_memory_bytes(200 << 20);
    assert!(status(&broker, "windows").await.warnings.is_empty());
    let (error, note) = create(&mut client, "none", 2, &configs[..2]).await;
    assert_eq!((error, note), (0, String::new()));
}
