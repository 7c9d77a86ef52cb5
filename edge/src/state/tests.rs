use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use redb::StorageBackend;
use robustmq_common::ids::{EdgeSeq, LaneId};

use super::{Change, ChangeSet, CommitTicket, SavedClock, State, StateFile};

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.to_owned().into(), value: value.to_owned().into() }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.to_owned().into() }
}

fn set(changes: Vec<Change>, sequence: Option<u64>) -> ChangeSet {
    let reflects = sequence.map(|sequence| (LaneId(0), EdgeSeq(sequence))).into_iter().collect();
    ChangeSet { changes, reflects, ..ChangeSet::default() }
}

fn contents(file: &StateFile) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    file.for_each(|key, value| {
        found.insert(text(key), text(value));
    })
    .unwrap();
    found
}

async fn committed(state: &State, ticket: CommitTicket) {
    let mut progress = state.progress();
    let reached = progress.wait_for(|progress| progress.committed >= ticket);
    tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap().unwrap();
}

/// A disk in memory that forgets what was not synced when it "crashes", and can be full.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    written: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    pub(crate) full: AtomicBool,
}

impl Disk {
    fn crash(&self) -> Arc<Self> {
        let synced = self.synced.lock().unwrap().clone();
        Arc::new(Self {
            written: Mutex::new(synced.clone()),
            synced: Mutex::new(synced),
            ..Self::default()
        })
    }

    fn check(&self) -> Result<(), io::Error> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OnDisk(Arc<Disk>);

impl StorageBackend for OnDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.written.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.written.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.check()?;
        self.0.written.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.check()?;
        let written = self.0.written.lock().unwrap().clone();
        *self.0.synced.lock().unwrap() = written;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.check()?;
        let start = usize::try_from(offset).unwrap();
        self.0.written.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

pub(crate) fn open_on(disk: &Arc<Disk>) -> StateFile {
    let disk = Arc::clone(disk);
    StateFile::open_with("memory", move || Ok(OnDisk(Arc::clone(&disk)))).unwrap()
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let file = StateFile::open(&path).unwrap();
    assert!(file.is_fresh());
    let state = file.start().unwrap();
    state.submit(set(vec![put("a", "1"), put("b", "2")], Some(7)));
    state.submit(set(vec![delete("a"), put("c", "3")], Some(9)));
    state.submit(set(vec![put("d", "4")], None));
    state.close().unwrap();

    let file = StateFile::open(&path).unwrap();
    assert!(!file.is_fresh());
    let expected = [("b", "2"), ("c", "3"), ("d", "4")];
    assert_eq!(contents(&file), expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(file.positions().unwrap(), [(LaneId(0), EdgeSeq(9))].into());
}

#[tokio::test]
async fn the_latest_clock_and_queue_are_kept() {
    let disk = Arc::new(Disk::default());
    let file = open_on(&disk);
    assert_eq!(file.clock().unwrap(), SavedClock::default());
    assert_eq!(file.queue_store().unwrap(), None);
    let state = file.start().unwrap();
    let at = |server_ms, wall_ms| ChangeSet {
        clock: Some(SavedClock { server_ms, wall_ms }),
        ..ChangeSet::default()
    };
    state.submit(at(5, Some(1_800_000_000_000)));
    state.submit(at(9, None));
    state.submit(ChangeSet { queue_store: Some(u64::MAX), ..ChangeSet::default() });
    state.submit(ChangeSet::default());
    state.close().unwrap();
    assert_eq!(open_on(&disk).queue_store().unwrap(), Some(u64::MAX));
    assert_eq!(open_on(&disk).clock().unwrap(), SavedClock { server_ms: 9, wall_ms: None });
}

#[tokio::test]
async fn deleting_a_prefix_spares_its_neighbours() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let state = StateFile::open(&path).unwrap().start().unwrap();
    let raw = |key: &'static [u8]| Change::Put { key: key.into(), value: b"v".as_slice().into() };
    state.submit(set(
        vec![raw(b"s\xff"), raw(b"s\xff\xff"), raw(b"s\xff\x01"), raw(b"s"), raw(b"t")],
        None,
    ));
    state.submit(set(vec![Change::DeletePrefix { prefix: b"s\xff".as_slice().into() }], None));
    state.submit(set(vec![raw(b"\xff\xff1"), raw(b"\xff\xfe")], None));
    state.submit(set(vec![Change::DeletePrefix { prefix: b"\xff\xff".as_slice().into() }], None));
    state.close().unwrap();
    let mut keys = Vec::new();
    StateFile::open(&path).unwrap().for_each(|key, _| keys.push(key.to_vec())).unwrap();
    assert_eq!(keys, [b"s".to_vec(), b"t".to_vec(), b"\xff\xfe".to_vec()]);
}

#[tokio::test]
async fn a_crash_keeps_what_was_answered_and_never_half_a_change_set() {
    let disk = Arc::new(Disk::default());
    let mut state = open_on(&disk).start().unwrap();
    let mut disk = disk;
    for round in 1..=20_u64 {
        let answered = state.submit(set(
            vec![put("x", &round.to_string()), put("y", &round.to_string())],
            Some(round * 2),
        ));
        committed(&state, answered).await;
        state.submit(set(vec![put("x", "later"), put("y", "later")], Some(round * 2 + 1)));
        disk = disk.crash();
        drop(state);
        let file = open_on(&disk);
        let found = contents(&file);
        assert_eq!(found["x"], found["y"], "both keys were in one change set");
        let position = file.positions().unwrap()[&LaneId(0)].0;
        let expected = if found["x"] == "later" { round * 2 + 1 } else { round * 2 };
        assert_eq!(position, expected, "the position and the changes that it covers agree");
        assert!(found["x"] == "later" || found["x"] == round.to_string());
        state = file.start().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_recovers() {
    let disk = Arc::new(Disk::default());
    let state = open_on(&disk).start().unwrap();
    let first = state.submit(set(vec![put("a", "1")], Some(1)));
    committed(&state, first).await;

    disk.full.store(true, Ordering::SeqCst);
    let second = state.submit(set(vec![put("b", "2")], Some(2)));
    let third = state.submit(set(vec![put("c", "3")], Some(3)));
    let mut progress = state.progress();
    let failing = progress.wait_for(|progress| progress.failing.is_some());
    tokio::time::timeout(Duration::from_secs(20), failing).await.unwrap().unwrap();
    assert!(progress.borrow().committed < second);

    disk.full.store(false, Ordering::SeqCst);
    committed(&state, third).await;
    assert_eq!(state.progress().borrow().failing, None);
    state.close().unwrap();
    assert_eq!(contents(&open_on(&disk)).len(), 3);
}

#[tokio::test]
async fn closing_with_a_full_disk_says_why_and_ends() {
    let disk = Arc::new(Disk::default());
    let state = open_on(&disk).start().unwrap();
    disk.full.store(true, Ordering::SeqCst);
    state.submit(set(vec![put("a", "1")], None));
    let closed = tokio::task::spawn_blocking(move || state.close());
    assert!(tokio::time::timeout(Duration::from_secs(20), closed).await.unwrap().unwrap().is_err());
}

#[test]
fn a_file_of_rubbish_is_set_aside_and_the_gateway_starts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    for round in 1..=3 {
        std::fs::write(&path, vec![0x5a; 8192]).unwrap();
        let file = StateFile::open(&path).unwrap();
        let aside = file.quarantined().unwrap();
        assert!(aside.ends_with(format!("state.redb.damaged-{round}")));
        assert_eq!(std::fs::read(aside).unwrap(), vec![0x5a; 8192]);
        assert!(file.is_fresh());
        assert!(contents(&file).is_empty());
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = Arc::new(Disk::default());
    drop(open_on(&disk));
    {
        let database = redb::Builder::new().create_with_backend(OnDisk(Arc::clone(&disk))).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("format", 2).unwrap();
        transaction.commit().unwrap();
    }
    let refused = StateFile::open_with("memory", move || Ok(OnDisk(Arc::clone(&disk))));
    assert!(refused.err().unwrap().to_string().contains("format 2"));
}

fn any_change() -> impl Strategy<Value = Change> {
    let key = "[ab]{1,3}";
    prop_oneof![
        (key, any::<u8>()).prop_map(|(key, value)| put(&key, &value.to_string())),
        key.prop_map(|key| delete(&key)),
        "[ab]{1,2}".prop_map(|prefix| Change::DeletePrefix { prefix: prefix.into() }),
        Just(put("ab", "same")),
    ]
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    /// The file holds what a map would after the same changes.
    #[test]
    fn the_file_holds_what_a_map_would(sets in proptest::collection::vec(proptest::collection::vec(any_change(), 0..8), 0..12)) {
        let disk = Arc::new(Disk::default());
        let state = open_on(&disk).start().unwrap();
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        for changes in sets {
            for change in &changes {
                match change {
                    Change::Put { key, value } => { model.insert(text(key), text(value)); }
                    Change::Delete { key } => { model.remove(&text(key)); }
                    Change::DeletePrefix { prefix } => model.retain(|key, _| !key.starts_with(&text(prefix))),
                }
            }
            state.submit(set(changes, None));
        }
        state.close().unwrap();
        assert_eq!(contents(&open_on(&disk)), model);
    }
}
