//! What a partition holds, in bytes, and what it costs to know it.

use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::{LeaderEpoch, Offset, TopicId};

use super::tiered::{AT_ONCE, World};
use super::{check_totals, tiered};
use crate::log::{Partition, Retention, TierRules};
use crate::objects::faulty::FaultyStore;
use crate::store::keys::partition::{Chunk, LogEnd, PartitionKeys};
use crate::store::{MemoryStore, StoreError, WriteBatch, write};

const CHUNKS: i64 = 2000;
const CHUNK_BYTES: u64 = 1 << 20;

/// A partition whose time index has many entries.
async fn world() -> (World, Arc<Partition>) {
    let (store, topic) = (Arc::new(MemoryStore::new()), TopicId::random());
    let keys = PartitionKeys { topic, partition: robustmq_common::ids::PartitionIndex(0) };
    let mut index = WriteBatch::new();
    for offset in 0..CHUNKS {
        let (base_offset, bytes) = (Offset(offset), CHUNK_BYTES);
        let chunk = Chunk { base_offset, bytes, max_timestamp: offset };
        index.put(keys.chunk(Offset(offset)), chunk.encode());
    }
    let open_chunk = Chunk::empty(Offset(CHUNKS));
    let end = LogEnd { next_offset: Offset(CHUNKS), leader_epoch: LeaderEpoch(0), open_chunk };
    index.put(keys.end(), end.encode());
    write(&*store, index).await.expect("written");
    let world = World::over(store, FaultyStore::new(7), topic);
    let partition = world.partition().await;
    (world, partition)
}

/// Retention by size went through the whole index at each look, and the archiver by what is not archived.
#[tokio::test]
async fn a_look_costs_what_has_changed() {
    let (world, partition) = world().await;
    let kept = |chunks: i64| {
        let bytes = chunks.unsigned_abs() * CHUNK_BYTES;
        Retention { age: None, bytes: Some(bytes) }
    };
    let local = TierRules { local_ms: i64::MAX, local_bytes: Some(u64::MAX), ..AT_ONCE };
    let look = async |chunks| {
        let before = world.store.scanned();
        let start = partition.enforce_retention(kept(chunks), 0).await.expect("nothing fails");
        partition.plan_archive(&local, 0).await.expect("nothing fails");
        (start, world.store.scanned() - before)
    };
    let (start, _) = look(CHUNKS).await;
    let all = CHUNKS.unsigned_abs() * CHUNK_BYTES;
    assert_eq!((start, partition.size_bytes().await), (Offset(0), Ok(all)));
    let (_, scanned) = look(CHUNKS).await;
    assert!(scanned < 200, "{scanned} of {CHUNKS} for nothing");
    tiered::append(&partition, 0, 1 << 20).await;
    let (start, scanned) = look(CHUNKS).await;
    assert!(start == Offset(1) && scanned < 200, "{scanned} for one that came and one that went");
    let (start, scanned) = look(CHUNKS / 2).await;
    assert!(start > Offset(CHUNKS / 2) && scanned > 1000, "what goes is looked at");
    let left = partition.size_bytes().await;
    let (again, scanned) = look(CHUNKS / 2).await;
    assert!(again == start && scanned < 200, "{scanned} for nothing");
    assert_eq!(partition.size_bytes().await, left);
    check_totals(&partition).await;
    // And after a restart.
    let partition = world.after_crash(0).partition().await;
    assert_eq!(partition.size_bytes().await, left);
}

#[tokio::test]
async fn totals_are_right_after_a_deletion_that_failed_and_one_that_worked() {
    let (world, partition) = world().await;
    check_totals(&partition).await;
    for before in [100, 500, CHUNKS] {
        let full = StoreError::NoSpace("no room".to_owned());
        world.store.fail_next(full.clone());
        assert!(partition.delete_records(Some(Offset(before))).await.is_err());
        check_totals(&partition).await;
        partition.ready().await.expect("the store goes on");
        partition.delete_records(Some(Offset(before))).await.expect("there is room");
        check_totals(&partition).await;
        tiered::append(&partition, 0, 1 << 20).await;
        check_totals(&partition).await;
    }
    let age = Retention { age: Some(Duration::from_millis(1)), bytes: None };
    partition.enforce_retention(age, 10_000).await.expect("nothing fails");
    check_totals(&partition).await;
    assert_eq!(partition.size_bytes().await, Ok(0));
}
