//! The cache over a source that counts, waits and fails as it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::limits;
use tokio::sync::Semaphore;

use super::{Ahead, Cache, CacheError, CacheSettings, ExtentId, Load, SsdSettings, Tier, UserId};
use crate::fetch::FetchError;
use crate::layout::{Extent, Layout};

mod lent;
mod model;
mod room;
mod simulation;

pub(super) const MIB: u32 = 1024 * 1024;
pub(super) const READER: UserId = UserId(1);

pub(super) fn id(start: u64, bytes: u32) -> ExtentId {
    ExtentId { object: 7, start, bytes }
}

/// A source. Loads wait at its gate while that is closed.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) loads: AtomicUsize,
    running: Mutex<HashMap<ExtentId, usize>>,
    gate: Semaphore,
    fails: AtomicBool,
    damages: AtomicUsize,
    panics: AtomicBool,
}

impl Origin {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            loads: AtomicUsize::new(0),
            running: Mutex::default(),
            gate: Semaphore::new(1_000_000),
            fails: AtomicBool::new(false),
            damages: AtomicUsize::new(0),
            panics: AtomicBool::new(false),
        })
    }

    pub(super) fn closed() -> Arc<Self> {
        let origin = Self::new();
        origin.gate.forget_permits(1_000_000);
        origin
    }

    pub(super) fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    pub(super) fn load(self: &Arc<Self>, id: ExtentId) -> Arc<dyn Load> {
        Arc::new(OriginLoad { origin: Arc::clone(self), id })
    }
}

pub(super) fn content(id: ExtentId) -> Vec<u8> {
    let mut content = vec![u8::try_from(id.start % 251).expect("small"); id.bytes as usize];
    let name = id.start.to_le_bytes();
    let length = name.len().min(content.len());
    content[..length].copy_from_slice(&name[..length]);
    content
}

#[derive(Debug)]
struct OriginLoad {
    origin: Arc<Origin>,
    id: ExtentId,
}

#[async_trait]
impl Load for OriginLoad {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        let origin = &self.origin;
        origin.loads.fetch_add(1, Ordering::Relaxed);
        assert!(
            origin.running.lock().expect("no panic").insert(self.id, 1).is_none(),
            "{:?} is loaded twice at once",
            self.id
        );
        origin.gate.acquire().await.expect("never closed").forget();
        tokio::task::yield_now().await;
        origin.running.lock().expect("no panic").remove(&self.id);
        assert!(!origin.panics.load(Ordering::Relaxed), "as it was told");
        if origin.fails.load(Ordering::Relaxed) {
            return Err(FetchError::Gone("it".to_owned()));
        }
        let mut content = content(self.id);
        let damages = &origin.damages;
        if damages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
        {
            content[100] ^= 1;
        }
        Ok(content.into())
    }

    fn open(&self, content: Bytes) -> Result<Extent, FetchError> {
        if content != self::content(self.id) {
            let reason = "other bytes".to_owned();
            return Err(FetchError::Damaged { object: "it".to_owned(), reason });
        }
        Ok(Extent { content, layout: Layout::default() })
    }
}

pub(crate) fn in_memory(memory_bytes: usize) -> Arc<Cache> {
    Cache::open(CacheSettings { memory_bytes, ssd: None }).expect("large enough")
}

/// Lets the tasks that were begun go on until each of them waits for something.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn get(cache: &Arc<Cache>, origin: &Arc<Origin>, id: ExtentId) -> Result<Tier, FetchError> {
    let (extent, tier) = cache.get(id, READER, origin.load(id)).await?;
    assert_eq!(content(id), extent.content);
    Ok(tier)
}

#[tokio::test(start_paused = true)]
async fn an_extent_is_loaded_once_however_many_ask_and_whoever_gives_up() {
    let (cache, origin) = (in_memory(64 << 20), Origin::closed());
    let first = id(0, MIB);
    let mut readers: Vec<_> = (0..50)
        .map(|_| {
            let (cache, origin) = (cache.clone(), origin.clone());
            tokio::spawn(async move { get(&cache, &origin, first).await })
        })
        .collect();
    settle().await;
    readers.remove(0).abort();
    assert_eq!(Ahead::Here, cache.ahead(first, READER, origin.load(first)));
    assert_eq!(None, cache.contains(first));
    settle().await;
    origin.gate.add_permits(1);
    for reader in readers {
        assert_eq!(Ok(Tier::Source), reader.await.expect("no panic"));
    }
    assert_eq!(1, origin.loads());
    assert_eq!(Ok(Tier::Memory), get(&cache, &origin, first).await);
    let counts = cache.stats(Some(READER)).counts;
    assert_eq!((50, u64::from(MIB)), (counts.waited, counts.source_bytes));
    assert_eq!([0, 0, 1], [counts.memory_reads, counts.ssd_reads, counts.source_reads]);
    assert!(counts.waited_micros >= 50 * 1000, "two pauses for one, one for the other");
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_to_all_and_not_remembered() {
    let (cache, origin) = (in_memory(64 << 20), Origin::closed());
    origin.fails.store(true, Ordering::Relaxed);
    let first = id(0, MIB);
    let both = async { tokio::join!(get(&cache, &origin, first), get(&cache, &origin, first)) };
    let open = async {
        settle().await;
        origin.gate.add_permits(10);
    };
    let ((one, other), ()) = tokio::join!(both, open);
    assert_eq!(Err(FetchError::Gone("it".to_owned())), one);
    assert_eq!(one, other);
    assert_eq!((1, 0), (origin.loads(), cache.stats(None).memory_bytes));
    origin.fails.store(false, Ordering::Relaxed);
    assert_eq!(Ok(Tier::Source), get(&cache, &origin, first).await);
    assert_eq!(1, cache.stats(None).counts.failed_loads);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_ends_early_leaves_nothing_behind() {
    let (cache, origin) = (in_memory(64 << 20), Origin::new());
    origin.panics.store(true, Ordering::Relaxed);
    let error = get(&cache, &origin, id(0, MIB)).await.expect_err("its task is gone");
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    assert_eq!(0, cache.stats(None).memory_bytes);
    origin.panics.store(false, Ordering::Relaxed);
    assert_eq!(Ok(Tier::Source), get(&cache, &origin, id(0, MIB)).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_on_its_way_is_fetched_once_more() {
    let (cache, origin) = (in_memory(64 << 20), Origin::new());
    origin.damages.store(1, Ordering::Relaxed);
    assert_eq!(Ok(Tier::Source), get(&cache, &origin, id(0, MIB)).await);
    assert_eq!(2, origin.loads());
    origin.damages.store(2, Ordering::Relaxed);
    let error = get(&cache, &origin, id(1, MIB)).await.expect_err("it stays damaged");
    assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
}

/// The first epoch of a topic whose index is known waited for extent after extent: read-ahead had its own room only, beside an empty cache.
#[tokio::test(start_paused = true)]
async fn an_empty_cache_is_read_ahead_into_beyond_the_room_of_read_ahead() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    assert_eq!(42 << 20, cache.free_ahead_bytes());
    let begin = |from: u64| {
        let begun = (from..from + 100).take_while(|start| {
            let ahead = id(*start, MIB);
            cache.ahead(ahead, READER, origin.load(ahead)) == Ahead::Begun
        });
        begun.count()
    };
    assert_eq!(46, begin(0), "twice the room of read-ahead");
    settle().await;
    assert_eq!(23, cache.stats(None).resident_bytes / u64::from(MIB), "these stay at once");
    assert_eq!(0, begin(1000), "the cache is full, and nothing was read");
    for start in 0..46 {
        assert_eq!(Ok(Tier::Memory), get(&cache, &origin, id(start, MIB)).await);
        cache.passed(id(start, MIB), READER);
    }
    assert_eq!(23, begin(2000));
}

#[tokio::test(start_paused = true)]
async fn what_is_brought_for_somebody_who_is_no_reader_is_not_counted_as_read() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    for start in 0..100 {
        let id = id(start, MIB);
        let brought = cache.bring(id, READER, origin.load(id)).await.expect("it is there");
        assert_eq!(content(id), brought.content);
    }
    let stats = cache.stats(None);
    assert_eq!(23, stats.resident_bytes / u64::from(MIB), "as many as of a reader");
    let counts = stats.counts;
    assert_eq!(
        [0, 0, 0, 0],
        [counts.memory_reads, counts.ssd_reads, counts.source_reads, counts.waited]
    );
    assert_eq!(100 * u64::from(MIB), counts.source_bytes);
    assert_eq!(100, origin.loads());
    // The room of read-ahead is there for readers.
    let begun = (1000..1100).take_while(|start| {
        let ahead = id(*start, MIB);
        cache.ahead(ahead, READER, origin.load(ahead)) == Ahead::Begun
    });
    assert_eq!(23, begun.count());
    let resident = (0..100).map(|start| id(start, MIB)).find(|id| cache.contains(*id).is_some());
    let resident = resident.expect("some stay");
    assert_eq!(Ok(Tier::Memory), get(&cache, &origin, resident).await);
    assert_eq!(1, cache.stats(None).counts.memory_reads);
}

#[tokio::test(start_paused = true)]
async fn read_ahead_has_its_room_and_pushes_out_nothing_that_stays() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    for start in 0..100 {
        get(&cache, &origin, id(start, MIB)).await.expect("it is there");
        cache.passed(id(start, MIB), READER);
    }
    let there = || (0..100).filter(|s| cache.contains(id(*s, MIB)).is_some()).collect::<Vec<_>>();
    let residents = cache.stats(None).resident_bytes;
    assert_eq!(23, residents / u64::from(MIB), "half, with what the books take");
    assert_eq!(46, there().len(), "the room of read-ahead is not needed yet");
    let begun = (1000..1100)
        .take_while(|start| {
            let ahead = id(*start, MIB);
            cache.ahead(ahead, READER, origin.load(ahead)) == Ahead::Begun
        })
        .count();
    assert_eq!(23, begun, "half");
    settle().await;
    assert_eq!((23, residents), (there().len(), cache.stats(None).resident_bytes));
    // What was read ahead is there for its reader, and its room is free when that is past it.
    assert_eq!(Ok(Tier::Memory), get(&cache, &origin, id(1000, MIB)).await);
    let next = id(2000, MIB);
    assert_eq!(Ahead::NoRoom, cache.ahead(next, READER, origin.load(next)));
    cache.passed(id(1000, MIB), READER);
    assert_eq!(Ahead::Begun, cache.ahead(next, READER, origin.load(next)));
    settle().await;
    // What nobody came for makes room.
    tokio::time::advance(limits::dataset::AHEAD_KEPT + Duration::from_secs(1)).await;
    let later = id(3000, MIB);
    assert_eq!(Ahead::Begun, cache.ahead(later, READER, origin.load(later)));
    settle().await;
    assert!(cache.stats(None).memory_bytes <= 48 << 20);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_read_is_there_until_its_reader_is_past_it() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    // Fill what stays with extents, so that the next ones mostly do not rank.
    for start in 0..500 {
        get(&cache, &origin, id(start, MIB)).await.expect("it is there");
        cache.passed(id(start, MIB), READER);
    }
    let before = origin.loads();
    for start in 1000..1200 {
        for _ in 0..8 {
            get(&cache, &origin, id(start, MIB)).await.expect("it is there");
        }
        cache.passed(id(start, MIB), READER);
    }
    assert_eq!(200, origin.loads() - before, "eight Fetches take one load");
    assert_eq!(700, cache.stats(None).counts.source_reads, "and are one read");
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_little_behind_another_finds_what_that_one_is_past() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    for start in 0..500 {
        get(&cache, &origin, id(start, MIB)).await.expect("it is there");
        if let Some(behind) = start.checked_sub(3) {
            get(&cache, &origin, id(behind, MIB)).await.expect("it is there");
            cache.passed(id(behind, MIB), READER);
        }
        cache.passed(id(start, MIB), READER);
    }
    // One that has come to stay may go for one that ranks before it, though it is read once more.
    assert!((500..505).contains(&origin.loads()), "{} loads", origin.loads());
    // Another user's reader is not deprived of what it reads.
    let shared = id(1000, MIB);
    get(&cache, &origin, shared).await.expect("it is there");
    let other = UserId(2);
    cache.get(shared, other, origin.load(shared)).await.expect("it is there");
    cache.passed(shared, READER);
    for start in 1001..1006 {
        get(&cache, &origin, id(start, MIB)).await.expect("it is there");
    }
    assert_eq!(Some(Tier::Memory), cache.contains(shared));
}

#[tokio::test(start_paused = true)]
async fn a_new_reader_takes_the_place_of_one_that_is_idle_and_not_of_a_pinned_one() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    let scan = async |user: UserId, from: u64| {
        for start in from..from + 60 {
            let id = id(start, MIB);
            cache.get(id, user, origin.load(id)).await.expect("it is there");
            cache.passed(id, user);
        }
        cache.stats(Some(user)).resident_bytes / u64::from(MIB)
    };
    assert_eq!(23, scan(UserId(1), 0).await);
    let shared = scan(UserId(2), 1000).await;
    assert!((5..19).contains(&shared), "both read: each has about half, and not {shared} of 23");
    tokio::time::advance(limits::dataset::IDLE * 2).await;
    assert_eq!(23, scan(UserId(3), 2000).await, "nobody else reads any more");
    cache.pin(UserId(3));
    tokio::time::advance(limits::dataset::IDLE * 2).await;
    assert_eq!(0, scan(UserId(4), 3000).await);
    cache.unpin(UserId(3));
    assert_eq!(23, scan(UserId(4), 3000).await);
}

#[tokio::test(start_paused = true)]
async fn who_has_three_times_the_weight_has_three_times_the_share() {
    let (cache, origin) = (in_memory(160 << 20), Origin::new());
    let (light, heavy) = (UserId(1), UserId(2));
    let scan = async |user: UserId, from: u64| {
        for start in from..from + 300 {
            let id = id(start, MIB);
            cache.get(id, user, origin.load(id)).await.expect("it is there");
            cache.passed(id, user);
        }
    };
    // (weights) -> the heavy one's share over the light one's, in tenths
    for (weights, expected) in [((100, 300), 20..45), ((100, 100), 6..16), ((10_000, 100), 0..2)] {
        cache.set_weight(light, weights.0);
        cache.set_weight(heavy, weights.1);
        for _ in 0..2 {
            scan(light, 0).await;
            scan(heavy, 1000).await;
        }
        let share = |user| cache.stats(Some(user)).resident_bytes;
        let tenths = 10 * share(heavy) / share(light).max(1);
        assert!(expected.contains(&tenths), "{weights:?}: {tenths}");
        assert!(share(light) + share(heavy) > 80 << 20, "all of the room is used");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_indexer_downloaded_is_there_for_its_reader() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    let put = |start| {
        let id = id(start, MIB);
        let extent = origin.load(id).open(content(id).into()).expect("whole");
        cache.put(id, READER, Arc::new(extent), 0);
    };
    // Nobody reads this topic yet, so that nothing is pushed out for it.
    (0..60).for_each(put);
    let there = (0..60).filter(|start| cache.contains(id(*start, MIB)).is_some()).count();
    assert_eq!(46, there, "what stays, and what waits for its reader");
    assert!(cache.stats(None).memory_bytes <= 48 << 20);
    let mut tiers = HashMap::new();
    for start in 0..60 {
        *tiers.entry(get(&cache, &origin, id(start, MIB)).await.expect("there")).or_insert(0) += 1;
        cache.passed(id(start, MIB), READER);
    }
    assert!(tiers.get(&Tier::Memory) >= Some(&40), "{tiers:?}");
    let stats = cache.stats(None);
    assert_eq!(stats.counts.source_bytes, u64::from(MIB) * (60 + origin.loads() as u64));
}

#[tokio::test(start_paused = true)]
async fn less_memory_is_given_back_at_once_and_more_is_used() {
    let (cache, origin) = (in_memory(160 << 20), Origin::new());
    let scan = async || {
        for start in 0..200 {
            get(&cache, &origin, id(start, MIB)).await.expect("it is there");
            cache.passed(id(start, MIB), READER);
        }
        cache.stats(None).resident_bytes / u64::from(MIB)
    };
    assert_eq!(95, scan().await);
    cache.set_memory_bytes(96 << 20);
    assert_eq!(47, cache.stats(None).resident_bytes / u64::from(MIB));
    let before = origin.loads();
    assert_eq!(47, scan().await);
    assert_eq!(153, origin.loads() - before, "those that rank first have stayed");
    cache.set_memory_bytes(160 << 20);
    assert_eq!(95, scan().await);
}

/// With threads that really run at the same time. The source asserts that no extent is loaded twice at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_at_once_find_what_they_ask_for_within_the_budget() {
    const READERS: u64 = 16;
    let ssd = Some(SsdSettings { dir: "/cache".into(), bytes: 8 << 20 });
    let settings = CacheSettings { memory_bytes: 4 << 20, ssd };
    let disk = Arc::new(robustmq_common::disk::sim::SimDisk::new(1));
    let (cache, origin) = (Cache::open_on(settings, disk).expect("it opens"), Origin::new());
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (cache, origin) = (cache.clone(), origin.clone());
            let user = UserId(u128::from(reader % 3));
            tokio::spawn(async move {
                for step in 0..150 {
                    // Some read the same at about the same time, some elsewhere.
                    let at = |step: u64| id((reader / 4 * 37 + step) % 200, 100_000);
                    let _ = cache.ahead(at(step + 1), user, origin.load(at(step + 1)));
                    let (extent, _) = cache
                        .get(at(step), user, origin.load(at(step)))
                        .await
                        .expect("it is there");
                    assert_eq!(content(at(step)), extent.content);
                    cache.passed(at(step), user);
                    assert!(cache.stats(Some(UserId(99))).memory_bytes <= 4 << 20);
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.expect("no panic");
    }
    // What was read ahead last may still be on its way.
    let is_counted = || cache.stats(None).counts.source_bytes == origin.loads() as u64 * 100_000;
    let counted = async {
        while !is_counted() {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), counted).await;
    assert!(in_time.is_ok(), "{} loads, {:?}", origin.loads(), cache.stats(None));
    cache.close().await;
    let stats = cache.stats(None);
    assert!(stats.memory_bytes <= 4 << 20, "{stats:?}");
    assert!(stats.ssd_bytes <= 8 << 20, "{stats:?}");
    assert_eq!(0, stats.damaged_ssd_extents);
}

#[test]
fn a_cache_that_is_too_small_is_refused() {
    let settings = CacheSettings { memory_bytes: 1, ssd: None };
    let error = Cache::open(settings).expect_err("too small");
    assert!(matches!(error, CacheError::MemoryTooSmall(1)), "{error}");
    let ssd = Some(SsdSettings { dir: "/nowhere".into(), bytes: 5 });
    let error = Cache::open(CacheSettings { memory_bytes: 64 << 20, ssd }).expect_err("too small");
    assert_eq!("the cache's SSD is 5 bytes; at least 67108864 are needed", error.to_string());
}

/// A topic that was deleted had its share of the cache for five minutes, as one that reads.
#[tokio::test(start_paused = true)]
async fn who_will_not_read_any_more_has_no_share() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    let stays = UserId(2);
    let read = async |user: UserId, starts: std::ops::Range<u64>| {
        for id in starts.map(|start| id(start, MIB)) {
            cache.get(id, user, origin.load(id)).await.expect("it is there");
            cache.passed(id, user);
        }
    };
    read(READER, 0..500).await;
    read(stays, 500..1000).await;
    let bytes = |user| cache.stats(Some(user)).resident_bytes >> 20;
    assert!(
        bytes(READER) > 5 && bytes(stays) > 5,
        "about half each: {} {}",
        bytes(READER),
        bytes(stays)
    );
    cache.forget(READER);
    read(stays, 500..1000).await;
    assert_eq!((bytes(READER), bytes(stays)), (0, 23));
}
