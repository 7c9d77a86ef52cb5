//! RocksDB: the contract, restarts, a full disk, and a process that is killed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::super::contract::contract;
use super::super::{ScanLimit, Store, StoreError, WriteBatch, write};
use super::{RocksOptions, RocksStore};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(directory: &TempDir) -> RocksStore {
    let settings = RocksOptions { reserved_disk_bytes: 0, ..RocksOptions::default() };
    RocksStore::open(directory.path(), &settings).expect("it opens")
}

contract!(|| {
    let directory = directory();
    let store = open(&directory);
    (directory, store)
});

fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let directory = directory();
    let store = open(&directory);
    write(&store, put("small", "s")).await.expect("written");
    write(&store, put("large", vec![1; 1_000_000])).await.expect("written");
    store.close().await.expect("closed");
    drop(store);
    let store = open(&directory);
    assert_eq!(store.get(b"small").await.expect("readable").as_deref(), Some(&b"s"[..]));
    assert_eq!(store.get(b"large").await.expect("readable").map(|v| v.len()), Some(1_000_000));
}

#[tokio::test]
async fn rocksdb_says_whether_crc32c_is_fast() {
    let directory = directory();
    let store = open(&directory);
    let support = store.stats().hardware_crc32c;
    // Whatever this machine and build have; not knowing it would mean that the log line has changed.
    assert!(support.is_some());
}

#[tokio::test]
async fn a_second_opener_is_refused_with_the_directory() {
    let directory = directory();
    let _store = open(&directory);
    let refused = RocksStore::open(directory.path(), &RocksOptions::default()).err();
    let Some(StoreError::Open { path, reason }) = refused else { panic!("{refused:?}") };
    assert_eq!(path, directory.path().display().to_string());
    assert!(reason.contains("stop that one first"), "{reason}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_when_space_returns() {
    let directory = directory();
    let store = open(&directory);
    write(&store, put("before", "1")).await.expect("written");
    let era = store.era();
    store.set_reserved_disk_bytes(u64::MAX);
    let refused = write(&store, put("a", "1")).await;
    assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    let after = store.era();
    assert_ne!(after, era);
    assert_eq!(store.get(b"a").await, Ok(None));
    // Refused before it is queued: only what was on its way when the disk filled up started a new era.
    let refused = write(&store, put("a", "1").in_era(after)).await;
    assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    assert_eq!(store.era(), after);
    assert!(store.stats().no_space.is_some());
    store.set_reserved_disk_bytes(0);
    write(&store, WriteBatch::new()).await.expect("an empty write shows that there is room");
    assert_eq!(store.stats().no_space, None);
    write(&store, put("b", "1")).await.expect("there is room again");
    assert!(store.get(b"before").await.expect("readable").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_many_tasks_share_syncs() {
    let directory = directory();
    let store = Arc::new(open(&directory));
    let tasks: Vec<_> = (0..64_u32)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..20_u32 {
                    write(&*store, put(format!("{task}-{n}"), "v")).await.expect("written");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let stats = store.stats();
    assert_eq!(stats.writes, 64 * 20);
    assert!(stats.groups < stats.writes, "{stats:?}");
}

/// The environment variable that makes [`a_killed_process_loses_nothing_acknowledged`] the process that is killed.
const CHILD: &str = "ROBUSTMQ_TEST_STORE_CHILD";

/// Writes numbered keys, each with its copy in one atomic write, and prints a number once it is durable. Never returns.
async fn write_until_killed(directory: &str) {
    let settings = RocksOptions { reserved_disk_bytes: 0, ..RocksOptions::default() };
    let store = RocksStore::open(std::path::Path::new(directory), &settings).expect("it opens");
    let page =
        store.scan(b"a".as_slice().into()..b"b".as_slice().into(), ScanLimit::items(usize::MAX));
    let mut next = page.await.expect("readable").items.len() as u64;
    loop {
        let mut pending = Vec::new();
        for number in next..next + 8 {
            let mut batch = put([&b"a"[..], &number.to_be_bytes()].concat(), vec![1; 6000]);
            batch.put([&b"c"[..], &number.to_be_bytes()].concat(), "copy");
            pending.push((number, store.submit(batch).expect("there is room")));
        }
        for (number, write) in pending {
            write.await.expect("written");
            println!("acknowledged {number}");
            std::io::stdout().flush().expect("the parent listens");
        }
        next += 8;
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    if let Ok(directory) = std::env::var(CHILD) {
        return write_until_killed(&directory).await;
    }
    let directory = directory();
    let mut acknowledged = None;
    for round in 0..5_u64 {
        let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
            .args(["--exact", "--nocapture"])
            .arg("store::rocks::tests::a_killed_process_loses_nothing_acknowledged")
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut heard = 0;
        while heard < 50 + round * 37 {
            let line = lines.next().expect("it goes on until it is killed").expect("text");
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = Some(number.parse::<u64>().expect("a number"));
                heard += 1;
            }
        }
        child.kill().expect("it runs");
        // What it said between the last line read and its death counts too.
        for line in lines.map_while(Result::ok) {
            let number = line.split_once("acknowledged ").and_then(|(_, n)| n.parse().ok());
            acknowledged = number.or(acknowledged);
        }
        child.wait().expect("it ended");

        let store = open(&directory);
        let numbers = |family: u8| {
            let range = vec![family].into()..vec![family + 1].into();
            let page = store.scan(range, ScanLimit { items: usize::MAX, bytes: usize::MAX });
            async move {
                let number = |key: &[u8]| key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                let items = page.await.expect("readable").items;
                items.iter().filter_map(|(key, _)| number(key)).collect::<Vec<_>>()
            }
        };
        let (found, copies) = (numbers(b'a').await, numbers(b'c').await);
        let expected: Vec<u64> = (0..found.len() as u64).collect();
        assert_eq!(found, expected, "a prefix of what was submitted");
        assert_eq!(found, copies, "each write is whole");
        assert!(found.last() >= acknowledged.as_ref(), "{found:?} {acknowledged:?}");
        store.close().await.expect("closed");
    }
}
