//! The same over RocksDB on a real disk: the contract, and restarts.

use bytes::Bytes;
use tempfile::TempDir;

use super::{content, put};
use crate::store::contract::contract;
use crate::store::{SegmentSettings, SegmentStore, Store, write};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(directory: &TempDir) -> SegmentStore {
    let settings = SegmentSettings { reserved_disk_bytes: 0, ..SegmentSettings::default() };
    SegmentStore::open(directory.path(), &settings).expect("it opens")
}

contract!(|| {
    let directory = directory();
    let store = open(&directory);
    (directory, store)
});

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_after_a_kill() {
    let directory = directory();
    for round in 0..6_u8 {
        let store = open(&directory);
        assert_eq!(content(&store).await.len(), 2 * usize::from(round));
        write(&store, put(vec![b's', round], "small")).await.expect("written");
        write(&store, put(vec![b'l', round], vec![round; 1_000_000])).await.expect("written");
        if round % 2 == 0 {
            store.close().await.expect("closed");
        }
        // Dropped without closing, the index forgets what it did not flush: as after a kill.
        drop(store);
    }
    let store = open(&directory);
    let large = store.get(&[b'l', 3]).await.expect("readable");
    assert_eq!(large, Some(Bytes::from(vec![3; 1_000_000])));
}

#[tokio::test]
async fn the_index_says_whether_crc32c_is_fast() {
    let directory = directory();
    // Whatever this machine and build have; not knowing it would mean that RocksDB's log line has changed.
    assert!(open(&directory).stats().hardware_crc32c.is_some());
}
