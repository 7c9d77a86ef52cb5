//! The mode `tiered`, point by point: what goes to objects, what comes back, and what faults of the object store do to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::ObjectStore;
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::limits;

use super::build;
use crate::log::{
    AppendContext, AppendRules, ArchivePassError, Budgets, DeleteRecordsError, Log, Partition,
    ReadError, Retention, StorageMode, TierRules,
};
use crate::metrics::TierMetrics;
use crate::objects::Location;
use crate::objects::faulty::FaultyStore;
use crate::store::keys::Family;
use crate::store::{MemoryStore, ScanLimit, Store, StoreError};
use crate::tier::{Archive, Janitor, TierSettings};

pub(super) const AT_ONCE: TierRules = TierRules { local_ms: 0, local_bytes: None, hot_bytes: 0 };

pub(super) struct World {
    pub store: Arc<MemoryStore>,
    pub objects: Arc<FaultyStore>,
    pub archive: Arc<Archive>,
    pub log: Log,
    pub topic: TopicId,
}

impl World {
    pub fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()), FaultyStore::new(7), TopicId::random())
    }

    pub fn over(store: Arc<MemoryStore>, objects: Arc<FaultyStore>, topic: TopicId) -> Self {
        let location = Location { objects: objects.clone(), path: "tier".to_owned() };
        let settings = TierSettings { cache_bytes: 8 << 20, ..TierSettings::default() };
        let archive = Arc::new(Archive::new(location, settings, TierMetrics::default()));
        let (seam, archived) = (Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&archive));
        let log = Log::with_archive(seam, Budgets::default(), Some(archived));
        Self { store, objects, archive, log, topic }
    }

    pub fn after_crash(&self, survivors: usize) -> Self {
        Self::over(Arc::new(self.store.crash(survivors)), self.objects.clone(), self.topic)
    }

    pub async fn partition(&self) -> Arc<Partition> {
        self.log.partition(self.topic, PartitionIndex(0)).await.expect("an intact store")
    }

    pub fn janitor(&self) -> Janitor {
        Janitor::new(Arc::clone(&self.store) as Arc<dyn Store>, Arc::clone(&self.archive))
    }

    /// The names of all objects.
    pub async fn names(&self) -> Vec<String> {
        let listed: Vec<_> = self.objects.list(None).try_collect().await.expect("it is up");
        let mut names: Vec<_> = listed.iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    async fn keys(&self, range: std::ops::Range<Bytes>) -> usize {
        self.store.scan(range, ScanLimit::items(1000)).await.expect("readable").items.len()
    }
}

fn context() -> AppendContext {
    let storage = StorageMode::Tiered;
    let rules = AppendRules { storage, max_batch_bytes: usize::MAX, ..AppendRules::default() };
    AppendContext { rules, ..AppendContext::at(0) }
}

/// One record with this timestamp and so many bytes.
pub(super) async fn append(partition: &Arc<Partition>, time: i64, bytes: usize) -> Bytes {
    partition.ready().await.expect("the store goes on");
    let batch = build(&[time], None, &vec![b'x'; bytes]);
    let pending = partition.append(batch.clone(), &context()).expect("taken");
    let placed = pending.durable().await.expect("durable");
    let epoch = partition.offsets().leader_epoch;
    batch.placed(placed.base_offset, epoch).as_bytes().clone()
}

/// Appends a chunk for each of these times.
async fn fill(partition: &Arc<Partition>, times: &[i64]) -> Vec<Bytes> {
    let mut batches = Vec::new();
    for time in times {
        batches.push(append(partition, *time, limits::LOG_CHUNK_BYTES).await);
    }
    batches
}

/// Reads everything from `from` on, `max_bytes` at a time.
pub(super) async fn read_all(partition: &Partition, mut from: i64, max_bytes: usize) -> Vec<Bytes> {
    let mut all = Vec::new();
    while from < partition.offsets().high_watermark.0 {
        let read = partition.read(Offset(from), max_bytes).await.expect("readable");
        let Some(last) = read.batches.last() else { break };
        let header = robustmq_common::record::BatchHeader::parse(last).expect("a batch");
        from = header.base_offset.0 + i64::from(header.last_offset_delta) + 1;
        all.extend(read.batches);
    }
    all
}

async fn archive(world: &World, rules: &TierRules, now_ms: i64) -> u64 {
    let partition = world.partition().await;
    partition.archive(&world.archive, rules, now_ms).await.expect("both stores work")
}

#[tokio::test]
async fn what_is_archived_leaves_the_store_and_is_read_as_it_was() {
    let world = World::new();
    let partition = world.partition().await;
    let batches = fill(&partition, &[10, 30, 20, 40]).await;
    let newest = append(&partition, 50, 10).await;
    assert!(archive(&world, &AT_ONCE, 100).await > 4 << 20);
    assert_eq!(world.names().await.len(), 1);
    assert_eq!(world.keys(partition.keys().batches(Offset(0), Offset(4))).await, 0);
    assert_eq!(world.keys(Family::Doomed.range()).await, 0);
    assert_eq!(partition.local_start(), Offset(4));
    let all = [batches, vec![newest]].concat();
    for max_bytes in [0, 1 << 20, 3 << 20, usize::MAX] {
        assert_eq!(read_all(&partition, 0, max_bytes).await, all, "{max_bytes}");
    }
    assert_eq!(read_all(&partition, 2, 1).await, all[2..]);
    // Another broker's cache is empty, and it finds everything.
    let partition = world.after_crash(0).partition().await;
    assert_eq!(read_all(&partition, 0, 2 << 20).await, all);
    // Look-ups by time are as exact.
    for (time, offset) in [(0, 0), (11, 1), (31, 3), (41, 4)] {
        let looked_up = partition.offset_for_time(time).await.expect("readable");
        assert_eq!(looked_up.map(|found| found.offset), Some(Offset(offset)), "{time}");
    }
    let max = partition.offset_for_max_timestamp().await.expect("readable");
    assert_eq!(max.map(|found| (found.offset, found.timestamp_ms)), Some((Offset(4), 50)));
}

#[tokio::test]
async fn age_and_size_decide_what_is_archived() {
    let world = World::new();
    let partition = world.partition().await;
    fill(&partition, &[1000, 2000, 3000]).await;
    let rules = TierRules { local_ms: 100, ..AT_ONCE };
    let plan = |now_ms| partition.plan_archive(&rules, now_ms);
    let planned = plan(1150).await.expect("readable");
    // One chunk is old enough, but little: it waits until it is twice as old.
    assert_eq!((planned.is_due, planned.due_ms), (false, 1200));
    assert_eq!(archive(&world, &rules, 1150).await, 0);
    assert!(archive(&world, &rules, 1200).await > 0);
    assert_eq!(partition.local_start(), Offset(1));
    // By size, however young, when there is an object's worth of it or it has waited for that long enough.
    let one = limits::LOG_CHUNK_BYTES as u64 + 200;
    let gather = i64::try_from(limits::tier::GATHER.as_millis()).expect("minutes");
    let rules = TierRules { local_ms: i64::MAX, local_bytes: Some(one), hot_bytes: 0 };
    assert_eq!(archive(&world, &rules, 1200).await, 0);
    let planned = partition.plan_archive(&rules, 1200).await.expect("readable");
    assert_eq!((planned.is_due, planned.due_ms), (false, 1200 + gather));
    assert!(archive(&world, &rules, 1200 + gather).await > 0);
    assert_eq!(partition.local_start(), Offset(2));
    assert_eq!(archive(&world, &rules, 1200 + 2 * gather).await, 0);
    // An open chunk is closed when it is old enough.
    let late = 1_000_000;
    append(&partition, late, 10).await;
    let rules = TierRules { local_ms: 100, ..AT_ONCE };
    while archive(&world, &rules, late + 199).await > 0 {}
    assert_eq!(partition.local_start(), Offset(3));
    // What was left when an object was made waits for more from then on.
    assert_eq!(archive(&world, &rules, late + 298).await, 0);
    assert!(archive(&world, &rules, late + 299).await > 0);
    assert_eq!(partition.local_start(), Offset(4));
}

/// Old records that came now were archived as they came, each megabyte as an object of its own: a thousand PUTs for a gigabyte, and a
/// thousand objects to read it from.
#[tokio::test]
async fn a_backfill_is_gathered_into_whole_objects() {
    let world = World::new();
    let partition = world.partition().await;
    let rules = TierRules { local_ms: 3_600_000, ..AT_ONCE };
    let mut now_ms = 1_700_000_000_000;
    let append_now = async |now_ms: i64, bytes: usize| {
        let batch = build(&[1000], None, &vec![b'x'; bytes]);
        let context = AppendContext { now_ms, ..context() };
        let pending = partition.append(batch, &context).expect("taken");
        pending.durable().await.expect("durable");
    };
    for _ in 0..70 {
        append_now(now_ms, limits::LOG_CHUNK_BYTES).await;
        archive(&world, &rules, now_ms).await;
        now_ms += 1000;
    }
    assert_eq!(world.names().await.len(), 2);
    // The rest does not wait for ever, and neither does what trickles in.
    let gather = i64::try_from(limits::tier::GATHER.as_millis()).expect("minutes");
    now_ms += gather;
    assert!(archive(&world, &rules, now_ms).await > 0);
    assert_eq!((world.names().await.len(), partition.local_start()), (3, Offset(70)));
    for _ in 0..10 {
        append_now(now_ms, 10).await;
        assert_eq!(archive(&world, &rules, now_ms).await, 0);
        now_ms += gather / 10;
    }
    let planned = partition.plan_archive(&rules, now_ms - 1).await.expect("readable");
    assert_eq!((planned.is_due, planned.due_ms), (false, now_ms));
    assert!(archive(&world, &rules, now_ms).await > 0);
    assert_eq!((world.names().await.len(), partition.local_start()), (4, Offset(80)));
    // Nobody knows how long what is found at a start has waited: long enough.
    append_now(now_ms, limits::LOG_CHUNK_BYTES).await;
    let world = world.after_crash(0);
    assert!(archive(&world, &rules, now_ms).await > 0);
}

#[tokio::test]
async fn retention_and_deleted_records_take_the_objects_with_them() {
    let world = World::new();
    let partition = world.partition().await;
    for times in [[10, 20], [30, 40], [50, 60]] {
        fill(&partition, &times).await;
        archive(&world, &AT_ONCE, 100).await;
    }
    assert_eq!(world.names().await.len(), 3);
    let mut janitor = world.janitor();
    // In the middle of the second object: the first goes.
    assert_eq!(partition.delete_records(Some(Offset(3))).await, Ok(Offset(3)));
    janitor.pass(0).await.expect("nothing fails");
    assert_eq!(world.names().await.len(), 3, "somebody may be reading it");
    janitor.pass(70_000).await.expect("nothing fails");
    assert_eq!(world.names().await.len(), 2);
    assert!(matches!(partition.read(Offset(2), 1).await, Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_all(&partition, 3, usize::MAX).await.len(), 3);
    let age = Retention { age: Some(Duration::from_millis(100)), bytes: None };
    assert_eq!(partition.enforce_retention(age, 155).await, Ok(Offset(5)));
    for now_ms in [100_000, 200_000, 2_000_000] {
        janitor.pass(now_ms).await.expect("nothing fails");
    }
    assert_eq!(world.names().await.len(), 1);
    assert_eq!(world.keys(Family::Doomed.range()).await, 0);
    assert_eq!(read_all(&partition, 5, usize::MAX).await.len(), 1);
    // And after a restart.
    let partition = world.after_crash(0).partition().await;
    assert_eq!(read_all(&partition, 5, usize::MAX).await.len(), 1);
}

#[tokio::test]
async fn an_object_store_that_is_down_delays_and_loses_nothing() {
    let world = World::new();
    let partition = world.partition().await;
    let batches = fill(&partition, &[10, 20]).await;
    world.objects.set_down(true);
    let failed = partition.archive(&world.archive, &AT_ONCE, 100).await;
    assert!(matches!(failed, Err(ArchivePassError::Archive(_))), "{failed:?}");
    assert_eq!(read_all(&partition, 0, usize::MAX).await, batches);
    assert_eq!(world.keys(Family::Doomed.range()).await, 1);
    // Removing what may have been put is tried until it works.
    let mut janitor = world.janitor();
    janitor.pass(0).await.expect("nothing is due");
    assert!(janitor.pass(70_000).await.is_err());
    world.objects.set_down(false);
    assert!(archive(&world, &AT_ONCE, 100).await > 0);
    assert_eq!(read_all(&partition, 0, usize::MAX).await, batches);
    for now_ms in [80_000, 2_000_000] {
        janitor.pass(now_ms).await.expect("it is up");
    }
    assert_eq!((world.names().await.len(), world.keys(Family::Doomed.range()).await), (1, 0));
    // Down while it is read: an error, and then the records.
    let partition = world.after_crash(0).partition().await;
    world.objects.set_down(true);
    let refused = partition.read(Offset(0), 1).await;
    assert!(matches!(refused, Err(ReadError::Store(StoreError::Read(_)))), "{refused:?}");
    world.objects.set_down(false);
    assert_eq!(read_all(&partition, 0, usize::MAX).await, batches);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_cut_off_are_asked_for_again() {
    let world = World::new();
    let batches = fill(&world.partition().await, &[10, 20, 30]).await;
    archive(&world, &AT_ONCE, 100).await;
    let mut world = world;
    for truncated in 1..=2 {
        world = world.after_crash(0);
        let partition = world.partition().await;
        world.objects.truncate_reads(truncated);
        assert_eq!(read_all(&partition, 0, usize::MAX).await, batches);
        assert_eq!(world.objects.left_to_truncate(), 0);
        assert!(world.archive.metrics().damaged_answers.get() >= 1);
    }
    // Too often: an error that says so, and no wrong record.
    let world = world.after_crash(0);
    let partition = world.partition().await;
    world.objects.truncate_reads(usize::MAX);
    let refused = partition.read(Offset(0), 1).await;
    let Err(ReadError::Store(StoreError::Read(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("checksum") || why.contains("footer"), "{why}");
}

#[tokio::test]
async fn a_changed_mode_leaves_what_is_archived_readable() {
    let world = World::new();
    let partition = world.partition().await;
    let batches = fill(&partition, &[10, 20]).await;
    archive(&world, &AT_ONCE, 100).await;
    for mode in [StorageMode::Persistent, StorageMode::HYBRID, StorageMode::MEMORY] {
        world.log.change_mode(world.topic, mode).await.expect("there is room");
        assert_eq!(read_all(&partition, 0, usize::MAX).await, batches, "{mode:?}");
    }
    // Without an archive that is said, and what is in the store can be read.
    world.log.change_mode(world.topic, StorageMode::Tiered).await.expect("there is room");
    append(&partition, 30, 10).await;
    let log = Log::new(Arc::new(world.store.crash(0)));
    let partition = log.partition(world.topic, PartitionIndex(0)).await.expect("there");
    let refused = partition.read(Offset(0), 1).await.expect_err("it is elsewhere").to_string();
    assert!(refused.contains("[tier] object_store"), "{refused}");
    assert_eq!(read_all(&partition, 2, usize::MAX).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_reads_along_finds_blocks_in_memory_and_hot_ones_are_there_from_the_start() {
    let world = World::new();
    let partition = world.partition().await;
    fill(&partition, &[1; 12]).await;
    archive(&world, &AT_ONCE, 100).await;
    let world = world.after_crash(0);
    let partition = world.partition().await;
    world.objects.set_delay(Duration::from_millis(150));
    read_all(&partition, 0, 1).await;
    let misses = world.archive.metrics().cache_misses.get();
    assert!(misses < 8, "{misses} of 12 blocks and a footer were waited for");
    assert!(world.archive.cache_bytes() <= 8 << 20);

    let world = World::new();
    let partition = world.partition().await;
    fill(&partition, &[1; 4]).await;
    archive(&world, &TierRules { hot_bytes: 3 << 20, ..AT_ONCE }, 100).await;
    read_all(&partition, 2, 1).await;
    assert_eq!(world.archive.metrics().cache_misses.get(), 0);
    read_all(&partition, 0, 1).await;
    assert!(world.archive.metrics().cache_misses.get() > 0);
}

/// The start of the log was taken for a hole that a crash had left, since nothing of it was in the store any more.
#[tokio::test]
async fn what_is_archived_stays_readable_after_a_crash_in_a_volatile_mode() {
    for mode in [StorageMode::HYBRID, StorageMode::MEMORY] {
        let world = World::new();
        let partition = world.partition().await;
        let batches = fill(&partition, &[10, 20]).await;
        archive(&world, &AT_ONCE, 100).await;
        world.log.change_mode(world.topic, mode).await.expect("there is room");
        partition.ready().await.expect("offsets are reserved");
        let volatile = AppendRules { storage: mode, ..context().rules };
        let context = AppendContext { rules: volatile, ..context() };
        let lost = partition.append(build(&[30], None, b"lost"), &context).expect("taken");
        lost.durable().await.expect("acknowledged");
        let partition = world.after_crash(0).partition().await;
        assert_eq!(partition.offsets().log_start_offset, Offset(0), "{mode:?}");
        assert_eq!(read_all(&partition, 0, usize::MAX).await, batches, "{mode:?}");
    }
}

/// The store's queue was full for a moment when the object had been put: it was thrown away, and put again under another name.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_busy_for_a_moment_wastes_no_object() {
    let world = World::new();
    let partition = world.partition().await;
    fill(&partition, &[10, 20]).await;
    // Busy when it is noted; when it is put, it is busy again, a while longer.
    world.store.be_busy(2);
    world.objects.set_delay(Duration::from_millis(100));
    let archiving = async {
        let archived = partition.archive(&world.archive, &AT_ONCE, 100).await;
        archived.expect("both stores work, if not at once")
    };
    let busy = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.store.be_busy(10);
    };
    let (archived, ()) = tokio::join!(archiving, busy);
    assert!(archived > 2 << 20);
    assert_eq!(world.names().await.len(), 1);
    assert_eq!(world.keys(Family::Doomed.range()).await, 0);
    // Not for ever.
    world.store.be_busy(usize::MAX);
    let refused = partition.delete_records(None).await;
    assert!(matches!(refused, Err(DeleteRecordsError::Store(StoreError::Busy { .. }))));
}

/// A footer that came damaged was kept, and its object could not be read any more until it was pushed out of the cache.
#[tokio::test(start_paused = true)]
async fn what_comes_damaged_is_not_kept() {
    let world = World::new();
    let batches = fill(&world.partition().await, &[10, 20]).await;
    archive(&world, &AT_ONCE, 100).await;
    let world = world.after_crash(0);
    let partition = world.partition().await;
    world.objects.corrupt_reads(usize::MAX);
    let refused = partition.read(Offset(0), 1).await;
    let Err(ReadError::Store(StoreError::Read(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("footer"), "{why}");
    assert_eq!(world.archive.cache_bytes(), 0);
    // One that comes well is used; a block that comes damaged then is fetched again.
    world.objects.corrupt_reads(1);
    assert_eq!(read_all(&partition, 0, usize::MAX).await, batches);
}

/// Who waits for a client that is gone is gone soon, too, and an answer that has something waits for nothing.
#[tokio::test(start_paused = true)]
async fn an_object_store_that_hangs_holds_nobody_for_long() {
    let world = World::new();
    let partition = world.partition().await;
    for times in [[10, 20], [30, 40]] {
        fill(&partition, &times).await;
        archive(&world, &AT_ONCE, 100).await;
    }
    let world = world.after_crash(0);
    let partition = world.partition().await;
    assert_eq!(partition.read(Offset(1), 1).await.expect("it is up").batches.len(), 1);
    world.objects.set_delay(Duration::from_secs(3600));
    let began = tokio::time::Instant::now();
    partition.warm(Offset(2)).await.expect_err("nothing comes");
    assert_eq!(began.elapsed(), limits::tier::WARM_WAIT);
    let began = tokio::time::Instant::now();
    let read = partition.read(Offset(1), usize::MAX).await.expect("it is in memory");
    assert_eq!((read.batches.len(), began.elapsed()), (1, Duration::ZERO));
}
