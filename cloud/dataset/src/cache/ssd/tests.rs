//! The SSD, on a disk that loses what a real one may.

use proptest::prelude::*;
use robustmq_common::disk::sim::{Faults, SimDisk};

use super::index::Run;
use super::*;
use crate::cache::ranks::Rank;
use crate::cache::tests::{MIB, Origin, READER, content, id};
use crate::cache::{Cache, CacheSettings, Tier};

const EXTENTS: u64 = 120;
/// More than one block.
const BYTES: u32 = 300_000;
/// 20 extents stay in memory, beside what waits to be written,
const MEMORY_BYTES: usize = 14_130_000;
/// and 64 on SSD.
const SSD_BYTES: u64 = 64 * 2 * 256 * 1024;

fn settings() -> CacheSettings {
    let ssd = SsdSettings { dir: "/cache".into(), bytes: SSD_BYTES };
    CacheSettings { memory_bytes: MEMORY_BYTES, ssd: Some(ssd) }
}

fn open(disk: &SimDisk) -> Arc<Cache> {
    Cache::open_on(settings(), Arc::new(disk.clone())).expect("it opens whatever was there")
}

/// Reads every extent once, all of them right. How many came from each tier.
async fn scan(cache: &Arc<Cache>, origin: &Arc<Origin>) -> HashMap<Tier, u64> {
    scan_of(cache, origin, EXTENTS).await
}

/// The same with the first `count` alone.
async fn scan_of(cache: &Arc<Cache>, origin: &Arc<Origin>, count: u64) -> HashMap<Tier, u64> {
    let mut tiers = HashMap::new();
    for start in 0..count {
        let id = id(start, BYTES);
        let (extent, tier) = cache.get(id, READER, origin.load(id)).await.expect("never an error");
        assert_eq!(content(id), extent.content);
        *tiers.entry(tier).or_insert(0) += 1;
        cache.passed(id, READER);
        if let Some(ssd) = &cache.ssd {
            ssd.is_idle().await;
        }
    }
    tiers
}

fn journal_bytes(disk: &SimDisk) -> u64 {
    let file = disk.open(std::path::Path::new("/cache/journal"), false).expect("it is there");
    file.byte_len().expect("readable")
}

#[tokio::test(start_paused = true)]
async fn the_next_that_rank_are_on_ssd_and_nothing_is_rewritten() {
    let (disk, origin) = (SimDisk::new(1), Origin::new());
    let cache = open(&disk);
    scan(&cache, &origin).await;
    scan(&cache, &origin).await;
    let written = || (journal_bytes(&disk), cache.stats(None).ssd_written_bytes);
    let (before, loads) = (written(), origin.loads() as u64);
    assert!(before.1 <= EXTENTS * u64::from(BYTES), "{before:?}: each at most once");
    for _ in 0..3 {
        let tiers = scan(&cache, &origin).await;
        assert_eq!(Some(&64), tiers.get(&Tier::Ssd), "all of its blocks");
        assert_eq!(Some(&20), tiers.get(&Tier::Memory));
    }
    assert_eq!(3 * (EXTENTS - 84), origin.loads() as u64 - loads);
    assert_eq!(before, written());
}

#[tokio::test(start_paused = true)]
async fn it_is_warm_after_a_restart_with_what_was_in_memory() {
    let (disk, origin) = (SimDisk::new(1), Origin::new());
    let cache = open(&disk);
    assert!(matches!(
        Cache::open_on(settings(), Arc::new(disk.clone())),
        Err(CacheError::Locked(_))
    ));
    scan(&cache, &origin).await;
    let mut residents: Vec<_> = (0..EXTENTS).map(|start| id(start, BYTES)).collect();
    residents.sort_by_key(|id| Rank::of(*id));
    residents.truncate(20);
    assert!(residents.iter().all(|id| cache.contains(*id) == Some(Tier::Memory)));
    cache.close().await;
    drop(cache);
    // The power fails after that: all was synced.
    tokio::task::yield_now().await;
    disk.crash();

    let cache = open(&disk);
    assert_eq!(SSD_BYTES, cache.stats(None).ssd_bytes);
    assert!(residents.iter().all(|id| cache.contains(*id) == Some(Tier::Ssd)));
    let before = origin.loads() as u64;
    scan(&cache, &origin).await;
    let loads = origin.loads() as u64 - before;
    assert!(loads <= EXTENTS - 64, "{loads} were not there any more");
    // Memory has its own again, and the SSD those that it had not written.
    scan(&cache, &origin).await;
    let before = origin.loads() as u64;
    scan(&cache, &origin).await;
    assert_eq!(EXTENTS - 84, origin.loads() as u64 - before);
    assert_eq!(0, cache.stats(None).damaged_ssd_extents);
}

#[tokio::test]
async fn a_real_disk_is_warm_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::new();
    let settings = CacheSettings {
        memory_bytes: limits::dataset::CACHE_BYTES_MIN,
        ssd: Some(SsdSettings {
            dir: dir.path().join("made/here"),
            bytes: limits::dataset::SSD_BYTES_MIN,
        }),
    };
    let ids: Vec<_> = (0..40).map(|start| id(start, MIB)).collect();
    let cache = Cache::open(settings.clone()).expect("it is empty");
    for id in &ids {
        cache.get(*id, READER, origin.load(*id)).await.expect("never an error");
        cache.passed(*id, READER);
        cache.ssd.as_ref().expect("it has one").is_idle().await;
    }
    cache.close().await;
    // Its last owner may be the task that writes.
    let ssd = Arc::downgrade(cache.ssd.as_ref().expect("it has one"));
    drop(cache);
    while ssd.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let cache = Cache::open(settings).expect("nobody has it open");
    for id in &ids {
        let (extent, _) = cache.get(*id, READER, origin.load(*id)).await.expect("never an error");
        assert_eq!(content(*id), extent.content);
    }
    let again = origin.loads() - ids.len();
    assert!(again <= 7, "{again} were being read when it was closed, and were not there");
    assert_eq!(0, cache.stats(None).damaged_ssd_extents);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_found_counted_and_fetched_again() {
    let (disk, origin) = (SimDisk::new(1), Origin::new());
    let cache = open(&disk);
    scan(&cache, &origin).await;
    scan(&cache, &origin).await;
    disk.corrupt(std::path::Path::new("/cache/slab"), |bytes| bytes[5_000_000] ^= 4);
    let before = origin.loads() as u64;
    scan(&cache, &origin).await;
    assert_eq!(EXTENTS - 84 + 1, origin.loads() as u64 - before);
    assert_eq!(1, cache.stats(None).damaged_ssd_extents);
    let before = origin.loads() as u64;
    scan(&cache, &origin).await;
    assert_eq!(EXTENTS - 84, origin.loads() as u64 - before, "it was written again");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_written_no_more_and_read_still() {
    let (disk, origin) = (SimDisk::new(1), Origin::new());
    let cache = open(&disk);
    disk.set_faults(Faults { capacity_bytes: Some(5_250_000), ..Faults::default() });
    scan(&cache, &origin).await;
    let stats = cache.stats(None);
    assert_eq!((true, false), (stats.reads_ssd, stats.writes_ssd));
    let tiers = scan(&cache, &origin).await;
    assert!((5..=10).contains(tiers.get(&Tier::Ssd).unwrap_or(&0)), "{tiers:?}");
    cache.close().await;
}

/// A broker whose cache had filled its disk did not start again, with all its topics.
#[tokio::test(start_paused = true)]
async fn a_full_disk_is_no_reason_not_to_open() {
    let (disk, origin) = (SimDisk::new(1), Origin::new());
    let cache = open(&disk);
    scan(&cache, &origin).await;
    cache.close().await;
    drop(cache);
    disk.kill();
    let capacity_bytes = Some(disk.used_bytes());
    disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    let cache = open(&disk);
    assert!(cache.ssd.is_none(), "there is no room for another journal");
    assert!(scan(&cache, &origin).await.contains_key(&Tier::Source));
    drop(cache);
    disk.kill();
    assert!(open(&disk).ssd.is_some(), "what was there is there");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_read_is_not_used_any_more() {
    let (disk, origin) = (SimDisk::new(1), Origin::new());
    let cache = open(&disk);
    scan(&cache, &origin).await;
    disk.make_unreadable(std::path::Path::new("/cache/slab"), 0..30_000_000);
    scan(&cache, &origin).await;
    let stats = cache.stats(None);
    assert_eq!((false, false), (stats.reads_ssd, stats.writes_ssd));
    let tiers = scan(&cache, &origin).await;
    assert_eq!(None, tiers.get(&Tier::Ssd));
}

#[tokio::test(start_paused = true)]
async fn whatever_moment_it_is_killed_at_it_serves_what_was_written() {
    let origin = Origin::new();
    let mut found = 0;
    // With 45 the SSD has room for all that it is given; with 120 others make room.
    let few = (0..24).map(|stop_after| (stop_after, 45));
    for (stop_after, count) in few.chain((200..400).step_by(39).map(|stop| (stop, EXTENTS))) {
        let disk = SimDisk::new(u64::from(stop_after));
        let cache = open(&disk);
        disk.set_faults(Faults { stop_after: Some(stop_after), ..Faults::default() });
        scan_of(&cache, &origin, count).await;
        drop(cache);
        tokio::task::yield_now().await;
        disk.kill();

        let cache = open(&disk);
        found += scan_of(&cache, &origin, count).await.get(&Tier::Ssd).copied().unwrap_or(0);
        let damaged = cache.stats(None).damaged_ssd_extents;
        assert_eq!(0, damaged, "killed after {stop_after} writes: the journal lies");
    }
    assert!(found > 200, "{found} were found on SSD: the kills come too early");
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_it_serves_no_wrong_bytes() {
    let origin = Origin::new();
    let (mut found, mut damaged) = (0, 0);
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let cache = open(&disk);
        scan(&cache, &origin).await;
        if let Some(ssd) = cache.ssd.as_ref().filter(|_| seed % 2 == 0) {
            // The worst: the journal is all there, and says of blocks what never came to the disk.
            ssd.writer.lock().await.sync().expect("no fault");
        }
        drop(cache);
        tokio::task::yield_now().await;
        disk.crash();

        let cache = open(&disk);
        // It asserts that each is right.
        found += scan(&cache, &origin).await.get(&Tier::Ssd).copied().unwrap_or(0);
        damaged += cache.stats(None).damaged_ssd_extents;
    }
    assert!(found > 0 && damaged > 20, "{found} were whole and {damaged} were not");
}

fn record() -> impl Strategy<Value = Record> {
    let ids = (any::<u128>(), any::<u64>(), any::<u32>())
        .prop_map(|(object, start, bytes)| ExtentId { object, start, bytes });
    let run = (any::<u32>(), any::<u32>()).prop_map(|(first, count)| Run { first, count });
    let runs = prop::collection::vec(run, 0..20);
    let slot = (any::<u128>(), any::<u32>(), runs).prop_map(|(user, crc, runs)| Slot {
        user: UserId(user),
        crc,
        runs,
    });
    prop_oneof![
        (ids.clone(), slot).prop_map(|(id, slot)| Record::Put(id, slot)),
        ids.prop_map(Record::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn records_are_read_as_they_were_written(record in record()) {
        let mut bytes = Vec::new();
        journal::encode(&record, &mut bytes);
        prop_assert_eq!(Some((record, bytes.len())), journal::decode(&bytes));
        for length in 0..bytes.len() {
            prop_assert_eq!(None, journal::decode(&bytes[..length]));
        }
    }

    #[test]
    fn a_journal_with_other_bytes_is_read_up_to_them(
        records in prop::collection::vec(record(), 1..20),
        at in any::<prop::sample::Index>(),
    ) {
        let disk = SimDisk::new(1);
        let path = std::path::Path::new("/journal");
        let arc: Arc<dyn Disk> = Arc::new(disk.clone());
        Journal::rewrite(arc, path.into(), records.iter().cloned()).expect("written");
        disk.corrupt(path, |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= 0x40;
        });
        let mut read = Vec::new();
        journal::replay(&disk, path, |record| read.push(record)).expect("readable");
        prop_assert!(read.len() < records.len(), "one of them is not whole");
        prop_assert_eq!(&records[..read.len()], &read[..]);
    }
}

#[test]
fn the_journal_is_written_as_it_always_was() {
    let slot = Slot { user: UserId(2), crc: 0x0403_0201, runs: vec![Run { first: 5, count: 6 }] };
    let mut bytes = Vec::new();
    journal::encode(&Record::Put(ExtentId { object: 1, start: 3, bytes: 4 }, slot), &mut bytes);
    let mut body = vec![1, 1];
    body.extend([0; 15]);
    body.extend([3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2]);
    body.extend([0; 15]);
    body.extend([1, 2, 3, 4, 5, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(vec![57, 0, 0, 0], bytes[..4]);
    assert_eq!(crc32c::crc32c(&body).to_le_bytes(), bytes[4..8]);
    assert_eq!(body, bytes[8..]);
}

#[test]
fn a_journal_that_has_grown_long_is_written_anew() {
    let disk = SimDisk::new(1);
    let path = PathBuf::from("/journal");
    let mut journal =
        Journal::rewrite(Arc::new(disk.clone()), path.clone(), std::iter::empty()).expect("new");
    let removals: Vec<_> = (0..1000).map(|start| Record::Remove(id(start, 1))).collect();
    let mut appended = 0;
    while !journal.is_long() {
        journal.append(&removals).expect("there is room");
        appended += removals.len();
    }
    assert!(appended > 100_000, "not before it is worth it");
    journal.compact(removals.iter().take(3).cloned()).expect("there is room");
    assert!(!journal.is_long());
    journal.append(&removals[5..6]).expect("there is room");
    let mut read = Vec::new();
    journal::replay(&disk, &path, |record| read.push(record)).expect("readable");
    let expected: Vec<_> = [0, 1, 2, 5].map(|start| Record::Remove(id(start, 1))).into();
    assert_eq!(expected, read);
}

#[test]
fn an_index_gives_no_block_away_twice() {
    let mut index = Index::new(256);
    let slot = |runs: &[(u32, u32)]| Slot {
        user: READER,
        crc: 0,
        runs: runs.iter().map(|(first, count)| Run { first: *first, count: *count }).collect(),
    };
    index.recover(id(0, MIB), slot(&[(2, 3), (10, 1)]), 256);
    // Blocks of another, twice the same, beyond the slab, beyond its file, too few of them.
    index.recover(id(1, MIB), slot(&[(4, 4)]), 256);
    index.recover(id(2, MIB), slot(&[(20, 2), (21, 2)]), 256);
    index.recover(id(3, MIB), slot(&[(254, 4)]), 256);
    index.recover(id(4, MIB), slot(&[(u32::MAX - 1, 4)]), u64::MAX);
    index.recover(id(5, MIB), slot(&[(100, 4)]), 103);
    index.recover(id(6, MIB), slot(&[(100, 3)]), 256);
    assert_eq!(vec![id(0, MIB)], index.all().iter().map(|(id, _)| *id).collect::<Vec<_>>());
    let free = index.take_blocks(5 << 18).expect("there are");
    assert_eq!(slot(&[(0, 2), (5, 3)]).runs, free);
    index.give_back(&free);
    assert_eq!(None, index.take_blocks(253 << 18));
    assert_eq!(
        252,
        index.take_blocks(252 << 18).expect("the others").iter().map(|r| r.count).sum::<u32>()
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_being_read_is_not_overwritten() {
    let users = Users::default();
    users.reads(READER, Instant::now());
    let mut index = Index::new(4);
    let runs = index.take_blocks(MIB as usize).expect("it is empty");
    index.insert(id(0, MIB), Slot { user: UserId(9), crc: 0, runs });
    let reader = index.get(id(0, MIB));
    let victims = |index: &Index| index.victims(id(1, MIB), READER, &users.lock(), Instant::now());
    assert_eq!(None, victims(&index));
    drop(reader);
    assert_eq!(Some(vec![id(0, MIB)]), victims(&index), "its user is idle");
}
