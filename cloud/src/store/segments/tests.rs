//! The segment store on a simulated disk: the contract, crashes, damage, full disks, and giving space back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use robustmq_common::disk::Disk as _;
use robustmq_common::disk::sim::{Faults, SimDisk};

use super::memory_index::MemoryIndex;
use super::{OpenIndex, SegmentSettings, SegmentStore};
use crate::store::contract::contract;
use crate::store::{ScanLimit, Store, StoreError, WriteBatch, write};

const DIR: &str = "/store";

/// A machine: what is left of it is what its disk and its index keep.
struct Machine {
    disk: SimDisk,
    index: MemoryIndex,
    settings: SegmentSettings,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let settings = SegmentSettings {
            reserved_disk_bytes: 0,
            segment_bytes: 4096,
            separated_bytes: 64,
            dead_bytes: 0,
            recent_bytes: if seed.is_multiple_of(2) { 0 } else { 2048 },
        };
        Self { disk: SimDisk::new(seed), index: MemoryIndex::new(seed, 0.05), settings }
    }

    fn try_open(&self) -> Result<SegmentStore, StoreError> {
        self.try_open_noting(&mut false)
    }

    fn try_open_noting(&self, index_opened: &mut bool) -> Result<SegmentStore, StoreError> {
        let disk = Arc::new(self.disk.clone());
        SegmentStore::open_with(disk, Path::new(DIR), &self.settings, || {
            *index_opened = true;
            Ok(OpenIndex { index: Arc::new(self.index.clone()), hardware_crc32c: None })
        })
    }

    fn open(&self) -> SegmentStore {
        self.try_open().expect("it opens")
    }

    /// The power goes: what was not synced may be lost.
    fn crash(&self, store: SegmentStore) {
        self.disk.crash();
        drop(store);
        self.index.crash();
        // What the dying store's threads still tried came after the crash.
        self.disk.kill();
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.files("seg")
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let paths = self.disk.paths().into_iter();
        paths.filter(|path| path.extension().is_some_and(|end| end == ending)).collect()
    }
}

contract!(|| {
    let machine = Machine::new(1);
    let settings = SegmentSettings { segment_bytes: 16 * 1024 * 1024, ..machine.settings.clone() };
    let machine = Machine { settings, ..machine };
    let store = machine.open();
    (machine, store)
});

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

fn delete_range(from: &str, to: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete_range(
        Bytes::copy_from_slice(from.as_bytes())..Bytes::copy_from_slice(to.as_bytes()),
    );
    batch
}

fn everything() -> std::ops::Range<Bytes> {
    Bytes::new()..Bytes::from_static(&[0xf0])
}

async fn content(store: &SegmentStore) -> BTreeMap<Bytes, Bytes> {
    let page = store.scan(everything(), ScanLimit { items: usize::MAX, bytes: usize::MAX }).await;
    page.expect("readable").items.into_iter().collect()
}

#[tokio::test]
async fn what_was_answered_survives_a_crash_and_a_close() {
    let machine = Machine::new(2);
    let mut store = machine.open();
    for round in 0..20_u8 {
        write(&store, put(vec![round], vec![round; 500])).await.expect("written");
        write(&store, put(vec![round, 1], vec![round; 5])).await.expect("written");
        if round % 3 == 0 {
            store.close().await.expect("closed");
            drop(store);
        } else {
            machine.crash(store);
        }
        store = machine.open();
        let content = content(&store).await;
        assert_eq!(content.len(), 2 * (usize::from(round) + 1));
        assert!(content.iter().all(|(key, value)| value.iter().all(|byte| *byte == key[0])));
    }
}

#[tokio::test]
async fn dead_segments_are_removed_and_mostly_dead_ones_emptied() {
    let machine = Machine::new(3);
    let store = machine.open();
    for n in 0..200_u32 {
        // Every tenth value is to stay.
        let family = if n % 10 == 0 { "keep" } else { "drop" };
        write(&store, put(format!("{family}{n:04}"), vec![n.to_be_bytes()[3]; 400]))
            .await
            .expect("written");
    }
    let before = machine.disk.used_bytes();
    write(&store, delete_range("drop", "drop~")).await.expect("written");
    // The keeper waits for its turn; a full segment gives it one at once.
    store.collect_now().await;
    let after = machine.disk.used_bytes();
    assert!(after < before / 4, "{before} bytes became {after}");
    let kept = content(&store).await;
    assert_eq!(kept.len(), 20);
    assert!(kept.values().all(|value| value.len() == 400));
    machine.crash(store);
    assert_eq!(content(&machine.open()).await, kept);
}

#[tokio::test]
async fn a_value_that_is_deleted_while_it_is_moved_stays_deleted() {
    let machine = Machine::new(4);
    let store = machine.open();
    for n in 0..40_u32 {
        write(&store, put(format!("k{n:02}"), vec![1; 400])).await.expect("written");
    }
    write(&store, delete_range("k02", "k99")).await.expect("written");
    let mut batch = WriteBatch::new();
    batch.delete("k01").put("k00", vec![2; 400]);
    let (_, written) = tokio::join!(store.collect_now(), write(&store, batch));
    written.expect("written");
    store.collect_now().await;
    let expected = BTreeMap::from([(Bytes::from("k00"), Bytes::from(vec![2; 400]))]);
    assert_eq!(content(&store).await, expected);
    machine.crash(store);
    assert_eq!(content(&machine.open()).await, expected);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_takes_deletions_and_recovers() {
    let machine = Machine::new(5);
    let settings = SegmentSettings { reserved_disk_bytes: 8192, ..machine.settings.clone() };
    let machine = Machine { settings, ..machine };
    let store = machine.open();
    let capacity_bytes = Some(64 * 1024);
    machine.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    let mut written = 0;
    let refused = loop {
        match write(&store, put(format!("k{written:04}"), vec![3; 1000])).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace(_)), "{refused:?}");
    assert_eq!(content(&store).await.len(), written);
    write(&store, delete_range("k", "k0030")).await.expect("what makes room is taken");
    store.collect_now().await;
    write(&store, put("after", vec![4; 1000])).await.expect("there is room again");
    machine.crash(store);
    let content = content(&machine.open()).await;
    assert_eq!(content.len(), written - 30 + 1);
}

/// Dead bytes up to half a gigabyte were left alone even on a full disk: who deleted what filled it could not write again.
#[tokio::test]
async fn on_a_full_disk_whatever_was_deleted_makes_room() {
    let machine = Machine::new(5);
    let (reserved_disk_bytes, dead_bytes) = (128 * 1024, 1 << 30);
    let settings = SegmentSettings {
        reserved_disk_bytes,
        dead_bytes,
        segment_bytes: 1 << 30,
        ..machine.settings.clone()
    };
    let machine = Machine { settings, ..machine };
    let store = machine.open();
    let capacity_bytes = Some(512 * 1024);
    machine.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    let mut written = 0;
    while write(&store, put(format!("k{written:04}"), vec![3; 1000])).await.is_ok() {
        written += 1;
    }
    assert!(written > 200);
    write(&store, delete_range("k0010", "k9")).await.expect("what makes room is taken");
    let again = async {
        while write(&store, put("after", vec![4; 1000])).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let within = std::time::Duration::from_secs(60);
    tokio::time::timeout(within, again).await.expect("the keeper gives space back");
    assert_eq!(content(&store).await.len(), 11);
    machine.crash(store);
    assert_eq!(content(&machine.open()).await.len(), 11);
}

#[tokio::test]
async fn a_failed_sync_poisons_until_it_is_opened_again() {
    let machine = Machine::new(6);
    let store = machine.open();
    write(&store, put("a", "1")).await.expect("written");
    machine.disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
    let failed = write(&store, put("b", "1")).await;
    assert!(matches!(failed, Err(StoreError::Poisoned(_))), "{failed:?}");
    let refused = write(&store, put("c", "1")).await;
    assert!(matches!(refused, Err(StoreError::Poisoned(_))), "{refused:?}");
    assert_eq!(store.get(b"b").await, Ok(None));
    machine.crash(store);
    let store = machine.open();
    assert_eq!(store.get(b"a").await, Ok(Some(Bytes::from("1"))));
    assert_eq!(store.get(b"c").await, Ok(None));
    write(&store, put("c", "1")).await.expect("it takes writes again");
}

/// A group whose sync had failed was found whole at the next start, and the index heard of it and was made durable. The next power
/// cut took the group, which had never been on the disk, and the index pointed to nothing.
#[tokio::test]
async fn what_a_start_finds_unsynced_is_on_the_disk_before_the_index_hears_of_it() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        let store = machine.open();
        write(&store, put("a", vec![1; 900])).await.expect("written");
        machine.disk.set_faults(Faults { fail_sync_after: Some(0), ..Faults::default() });
        let failed = write(&store, put("b", vec![2; 900])).await;
        assert!(matches!(failed, Err(StoreError::Poisoned(_))), "{failed:?}");
        // The process ends; the machine runs on.
        store.close().await.expect("closed");
        drop(store);
        let store = machine.open();
        let found = content(&store).await;
        store.close().await.expect("closed: the index is durable");
        machine.crash(store);
        assert_eq!(content(&machine.open()).await, found);
    }
}

#[tokio::test]
async fn damage_before_the_last_group_is_not_taken_for_a_torn_end() {
    for same_segment in [true, false] {
        let machine = Machine::new(7);
        let machine = Machine { index: MemoryIndex::forgetful(), ..machine };
        let store = machine.open();
        let values = if same_segment { 4 } else { 20 };
        for n in 0..values {
            write(&store, put(format!("k{n}"), vec![5; 600])).await.expect("written");
        }
        machine.crash(store);
        let first = machine.segments().into_iter().next().expect("a segment");
        machine.disk.corrupt(&first, |bytes| bytes[40] ^= 1);
        let Err(StoreError::Open { reason, .. }) = machine.try_open() else { panic!("it opened") };
        assert!(reason.contains("damaged"), "{reason}");
    }
}

/// The store opened without the segments behind a gap, removed all kept values, since nothing pointed to them, and wrote over what was
/// behind the gap when it came there.
#[tokio::test]
async fn a_segment_that_is_missing_between_others_is_not_taken_for_the_end() {
    // (the index remembers, the number that goes) -> what is said
    for (forgets, gone) in [(true, 2), (true, 1), (false, 2)] {
        let machine = Machine::new(8);
        let index = if forgets { MemoryIndex::forgetful() } else { machine.index.clone() };
        let machine = Machine { index, ..machine };
        let store = machine.open();
        // The index of the last case knows of the first segment only.
        for n in 0..40 {
            write(&store, put(format!("k{n:02}"), vec![5; 600])).await.expect("written");
        }
        machine.crash(store);
        let segments = machine.segments();
        assert!(segments.len() > 4, "{segments:?}");
        let path = segments.get(gone - 1).expect("there are more");
        match gone {
            1 => machine.disk.corrupt(path, |bytes| bytes.truncate(10)),
            _ => drop(machine.disk.remove(path)),
        }
        let before = machine.disk.paths();
        match machine.try_open() {
            Err(StoreError::Open { reason, .. }) => {
                assert!(reason.contains("restore the directory from a backup"), "{reason}");
            }
            Err(error) => panic!("{error}"),
            // The index had been made durable behind the gap, and is told nothing of what is before it.
            Ok(store) => {
                assert!(!forgets, "it opened");
                assert!(store.get(b"k39").await.expect("readable").is_some());
                continue;
            }
        }
        assert_eq!(machine.disk.paths(), before);
    }
}

/// A last group that an older release could not read, though it was whole, was cut off as if it had never been acknowledged.
#[tokio::test]
async fn a_group_of_a_newer_release_is_not_cut_off() {
    let machine = Machine::new(12);
    let machine = Machine { index: MemoryIndex::forgetful(), ..machine };
    let store = machine.open();
    write(&store, put("k", "value")).await.expect("written");
    machine.crash(store);
    let path = machine.segments().into_iter().next().expect("a segment");
    machine.disk.corrupt(&path, |bytes| super::format::make_unknown(bytes));
    let mut before = Vec::new();
    machine.disk.corrupt(&path, |bytes| before.clone_from(bytes));
    let Err(StoreError::Open { reason, .. }) = machine.try_open() else { panic!("it opened") };
    assert!(reason.contains("written by a newer one"), "{reason}");
    machine.disk.corrupt(&path, |bytes| assert_eq!(*bytes, before));
}

/// A file that was removed by hand: the read looked the same place up again and again, for ever, on a thread that may block.
#[tokio::test]
async fn a_segment_file_that_is_missing_is_told_to_whoever_reads_from_it() {
    // Nothing is kept of recent writes.
    let machine = Machine::new(2);
    let store = machine.open();
    for n in 0..20 {
        write(&store, put(format!("k{n:02}"), vec![5; 600])).await.expect("written");
    }
    store.close().await.expect("a good disk");
    drop(store);
    let first = machine.segments().into_iter().next().expect("a segment");
    machine.disk.remove(&first).expect("it is there");
    let store = machine.open();
    let read = store.get(b"k00").await;
    assert!(matches!(&read, Err(StoreError::Read(why)) if why.contains("missing")), "{read:?}");
    let scanned = store.scan(everything(), ScanLimit::items(5)).await;
    assert!(matches!(scanned, Err(StoreError::Read(_))), "{scanned:?}");
    assert!(store.get(b"k19").await.expect("another segment").is_some());
}

/// What an earlier release had kept was taken for an empty directory: the broker started without a topic, beside all of them.
#[tokio::test]
async fn a_directory_of_an_earlier_release_is_refused_and_left_as_it_is() {
    let machine = Machine::new(9);
    machine.disk.create_dir(Path::new(DIR)).expect("a disk");
    for file in ["CURRENT", "MANIFEST-000005", "000011.sst"] {
        machine.disk.open(&Path::new(DIR).join(file), true).expect("a disk");
    }
    let before = machine.disk.paths();
    let mut index_opened = false;
    let refused = machine.try_open_noting(&mut index_opened);
    let Err(StoreError::Open { path, reason }) = refused else { panic!("it opened") };
    assert!(path == DIR && reason.contains("RocksDB"), "{path}: {reason}");
    assert!(!index_opened);
    assert_eq!(machine.disk.paths(), before);
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let machine = Machine::new(8);
    let store = machine.open();
    // The index was opened first: RocksDB, whose lock was taken as well, logged a warning with its own files' names.
    let mut index_opened = false;
    let refused = machine.try_open_noting(&mut index_opened);
    let Err(StoreError::Open { reason, .. }) = refused else { panic!("it opened") };
    assert!(reason.contains("lock"), "{reason}");
    assert!(!index_opened, "it belongs to the first");
    drop(store);
    machine.try_open_noting(&mut index_opened).expect("the lock went with the store");
    assert!(index_opened);
}

#[derive(Debug, Clone)]
enum Step {
    Write { key: u8, bytes: usize },
    Overwrite { key: u8, bytes: usize },
    Delete { key: u8 },
    DeleteRange { from: u8, to: u8 },
    Collect,
    Close,
    Crash,
    CrashAfter { calls: u32 },
    Full { bytes: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..24_u8;
    prop_oneof![
        8 => (key.clone(), 0..1500_usize).prop_map(|(key, bytes)| Step::Write { key, bytes }),
        2 => (key.clone(), 0..200_usize).prop_map(|(key, bytes)| Step::Overwrite { key, bytes }),
        2 => key.clone().prop_map(|key| Step::Delete { key }),
        2 => (key.clone(), key).prop_map(|(from, to)| Step::DeleteRange { from, to }),
        3 => Just(Step::Collect),
        1 => Just(Step::Close),
        2 => Just(Step::Crash),
        2 => (0..12_u32).prop_map(|calls| Step::CrashAfter { calls }),
        1 => (0..4096_u64).prop_map(|bytes| Step::Full { bytes }),
    ]
}

/// What the store should hold. A write that was not answered may have happened or not: both are kept in mind until the next read.
struct Model {
    known: BTreeMap<Bytes, Bytes>,
    open: Option<BTreeMap<Bytes, Bytes>>,
    written: u32,
}

impl Model {
    fn changed(&self, step: &Step) -> (WriteBatch, BTreeMap<Bytes, Bytes>) {
        let mut batch = WriteBatch::new();
        let mut next = self.known.clone();
        match *step {
            Step::Write { key, bytes } | Step::Overwrite { key, bytes } => {
                let mut value = vec![key; bytes];
                value.extend(self.written.to_be_bytes());
                batch.put(vec![key], value.clone());
                // One write of two keys: both or none.
                batch.put(vec![key, 1], self.written.to_be_bytes().to_vec());
                next.insert(vec![key].into(), value.into());
                next.insert(vec![key, 1].into(), self.written.to_be_bytes().to_vec().into());
            }
            Step::Delete { key } => {
                batch.delete(vec![key]);
                next.remove(&[key][..]);
            }
            Step::DeleteRange { from, to } => {
                batch.delete_range(vec![from].into()..vec![to].into());
                next.retain(|key, _| !(from..to).contains(&key[0]));
            }
            _ => {}
        }
        (batch, next)
    }

    fn settle(&mut self, found: BTreeMap<Bytes, Bytes>) {
        if let Some(open) = self.open.take()
            && found == open
        {
            self.known = open;
        }
        assert!(found == self.known, "found {:?}, expected {:?}", keys(&found), keys(&self.known));
    }
}

fn keys(content: &BTreeMap<Bytes, Bytes>) -> Vec<(&[u8], usize)> {
    content.iter().map(|(key, value)| (&key[..], value.len())).collect()
}

async fn run(machine: &Machine, steps: Vec<Step>) {
    let mut store = machine.open();
    let mut model = Model { known: BTreeMap::new(), open: None, written: 0 };
    for step in steps {
        match step {
            Step::Collect => store.collect_now().await,
            Step::Close => {
                store.close().await.expect("closed");
                drop(store);
                machine.disk.kill();
                store = machine.open();
            }
            Step::Crash => {
                machine.crash(store);
                store = machine.open();
            }
            Step::CrashAfter { calls } => {
                machine.disk.set_faults(Faults { stop_after: Some(calls), ..Faults::default() });
                continue;
            }
            Step::Full { bytes } => {
                let capacity_bytes = Some(machine.disk.used_bytes() + bytes);
                machine.disk.set_faults(Faults {
                    capacity_bytes,
                    short: true,
                    ..Faults::default()
                });
                continue;
            }
            _ => {
                let (batch, next) = model.changed(&step);
                model.written += 1;
                match write(&store, batch).await {
                    Ok(()) => model.known = next,
                    Err(StoreError::NoSpace(_)) => machine.disk.set_faults(Faults::default()),
                    Err(StoreError::Poisoned(_)) => {
                        model.open = Some(next);
                        machine.crash(store);
                        store = machine.open();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        model.settle(content(&store).await);
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_holds_what_was_answered(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(&Machine::new(seed), steps));
    }
}

mod moved;
#[cfg(feature = "rocksdb")]
mod over_rocksdb;
