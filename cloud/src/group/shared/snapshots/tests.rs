use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Progress, Rewound, Snapshot, SnapshotError, Taken};
use crate::group::coordinator::{Commit, Coordinator};
use crate::group::machine::{Caller, Join, Sync, Timing};
use crate::group::shared::coordinator::{Client, SharedGroups};
use crate::group::shared::cursor::{CursorOffset, Sequence};
use crate::group::shared::members::ConnectionId;
use crate::log::{AppendContext, Log, Partition};
use crate::store::keys::group::snapshot_key;
use crate::store::keys::partition::PartitionKeys;
use crate::store::{MemoryStore, Store, WriteBatch};

const GROUP: &str = "$shared/g";
const KEYS: PartitionKeys =
    PartitionKeys { topic: TopicId(Uuid::from_u128(7)), partition: PartitionIndex(0) };
const HERE: ConnectionId = ConnectionId(1);

struct World {
    groups: SharedGroups,
    partition: Arc<Partition>,
}

impl World {
    /// Over a partition of 20 records.
    async fn over(store: Arc<dyn Store>) -> Self {
        let log = Arc::new(Log::new(store));
        let partition = log.partition(KEYS.topic, KEYS.partition).await.expect("a partition");
        partition.ready().await.expect("a store that works");
        if partition.offsets().high_watermark == Offset(0) {
            let mut batch = BatchBuilder::new(Compression::None);
            for _ in 0..20 {
                batch
                    .push(&NewRecord { value: Some(b"v"), ..NewRecord::default() })
                    .expect("small");
            }
            let batch = batch.build().expect("a batch");
            let appended = partition.append(batch, &AppendContext::at(0)).expect("a good batch");
            appended.durable().await.expect("it is durable");
        }
        Self { groups: SharedGroups::new(log, Timing::default(), None), partition }
    }

    /// Joins on a connection of its own: returns where it is.
    async fn join(&self) -> (Caller, CursorOffset) {
        let join = Join {
            member_id: String::new(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::new())],
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            fresh_member_id: Uuid::new_v4().to_string(),
            knows_member_id_required: true,
            knows_skip_assignment: true,
        };
        let joined = self.groups.join(GROUP, &join, HERE).await.expect("it joins");
        let caller = Caller {
            member_id: joined.member_id,
            instance_id: None,
            generation: joined.generation,
        };
        let sync = Sync {
            who: caller.clone(),
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        };
        self.groups.sync(GROUP, sync, None, HERE).expect("a member");
        let client = Client {
            connection: HERE,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            member: None,
        };
        let at = [(KEYS.topic, KEYS.partition)];
        let cursors = self.groups.cursors(GROUP, &client, &at, 0).await.expect("a member");
        (caller, cursors.expect("it has joined")[0])
    }

    /// Is given what there is at a place on a cursor; returns how many records that was.
    async fn fetch(&self, at: CursorOffset) -> u64 {
        let pools = self.groups.pools();
        let claim = pools.claim(at, self.partition.clone());
        let turn = pools.turn(&claim, true).await.expect("records");
        turn.take(pools, &claim, 1 << 20).await.expect("records").expect("records").records
    }

    async fn commit(&self, at: CursorOffset, records: u32) -> bool {
        let position = CursorOffset { sequence: Sequence(at.sequence.0 + records), ..at };
        self.groups.commit(at.token, &KEYS, position.encode()).await.is_ok()
    }

    async fn take(&self, name: &str, replace: bool) -> Result<Taken, SnapshotError> {
        self.groups.take_snapshot(GROUP, name, replace, &[KEYS], 5).await
    }

    async fn rewind(
        &self,
        name: &str,
        partitions: &[PartitionKeys],
    ) -> Result<Rewound, SnapshotError> {
        self.groups.rewind(GROUP, name, partitions, &BTreeSet::new()).await
    }
}

#[test]
fn golden_bytes() {
    let progress = Progress::at(3);
    let snapshot = Snapshot { taken_ms: 5, partitions: vec![(KEYS, progress.clone())] };
    let value = snapshot.encode();
    let expected = [
        &[1][..],
        &5_i64.to_be_bytes(),
        &1_u32.to_be_bytes(),
        KEYS.topic.as_bytes(),
        &0_i32.to_be_bytes(),
        &17_u32.to_be_bytes(),
        &progress.encode(),
    ]
    .concat();
    assert_eq!(&value[..], &expected[..]);
    assert_eq!(Snapshot::decode(&value), Ok(snapshot));
    for length in 0..value.len() {
        assert!(Snapshot::decode(&value[..length]).is_err(), "{length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_back_to_a_snapshot_and_its_members_join_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = World::over(store.clone()).await;
    let (caller, at) = world.join().await;
    assert_eq!(world.fetch(at).await, 20);
    assert!(world.commit(at, 5).await);
    let taken = world.take("epoch-1", false).await.expect("the group has begun");
    assert_eq!((taken.name.as_str(), taken.partitions), ("epoch-1", 1));
    assert!(world.commit(at, 20).await);
    let rewound = world.rewind("epoch-1", &[KEYS]).await;
    assert_eq!(rewound, Ok(Rewound { partitions: 1, begun_anew: 0, deleted: 0, gone: 0 }));
    assert!(!world.commit(at, 20).await, "its cursor is gone");
    assert!(world.groups.heartbeat(GROUP, &caller, HERE).is_err(), "it has to join again");
    let (_, again) = world.join().await;
    assert_eq!(world.fetch(again).await, 15, "what was in flight then, and what came after");
    // Also after a crash.
    drop(world);
    let world = World::over(store).await;
    assert_eq!(world.groups.snapshots(GROUP).await.expect("a store that works"), [taken]);
    let (_, at) = world.join().await;
    assert_eq!(world.fetch(at).await, 15);
}

#[tokio::test(start_paused = true)]
async fn what_retention_has_removed_cannot_come_back_and_is_told() {
    let world = World::over(Arc::new(MemoryStore::new())).await;
    let (_, at) = world.join().await;
    world.fetch(at).await;
    assert!(world.commit(at, 5).await);
    world.take("then", false).await.expect("the group has begun");
    world.partition.delete_records(Some(Offset(12))).await.expect("a store that works");
    let rewound = world.rewind("then", &[KEYS]).await.expect("it is there");
    assert_eq!(rewound.gone, 7);
    let (_, at) = world.join().await;
    assert_eq!(world.fetch(at).await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_a_snapshot_does_not_have_begins_anew() {
    let world = World::over(Arc::new(MemoryStore::new())).await;
    let other = PartitionKeys { partition: PartitionIndex(1), ..KEYS };
    world.groups.reset(GROUP, &[(KEYS, 4)]).await.expect("nobody is there");
    world.take("then", false).await.expect("the group has begun");
    world.groups.reset(GROUP, &[(KEYS, 9), (other, 9)]).await.expect("nobody is there");
    let rewound = world.rewind("then", &[KEYS, other]).await;
    assert_eq!(rewound, Ok(Rewound { partitions: 1, begun_anew: 1, deleted: 0, gone: 0 }));
    let pools = world.groups.pools();
    assert_eq!(pools.progress(GROUP, &KEYS).await, Ok(Some(Progress::at(4))));
    assert_eq!(pools.progress(GROUP, &other).await, Ok(None));
}

/// A snapshot that had a topic which was deleted since could not be gone back to at all.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_gone_back_to_without_the_topics_that_were_deleted_since() {
    let world = World::over(Arc::new(MemoryStore::new())).await;
    let other = PartitionKeys { topic: TopicId(Uuid::from_u128(8)), ..KEYS };
    world.groups.reset(GROUP, &[(KEYS, 4), (other, 0)]).await.expect("nobody is there");
    let taken = world.groups.take_snapshot(GROUP, "then", false, &[KEYS, other], 5).await;
    assert_eq!(taken.expect("the group has begun").partitions, 2);
    let topics = world.groups.snapshot_topics(GROUP, "then").await.expect("it is there");
    assert_eq!(topics, BTreeSet::from([KEYS.topic, other.topic]));
    world.groups.reset(GROUP, &[(KEYS, 9)]).await.expect("nobody is there");
    world.groups.pools().log().close_topics([other.topic]);
    let deleted = BTreeSet::from([other.topic]);
    let rewound = world.groups.rewind(GROUP, "then", &[KEYS], &deleted).await;
    assert_eq!(rewound, Ok(Rewound { partitions: 1, begun_anew: 0, deleted: 1, gone: 0 }));
    let pools = world.groups.pools();
    assert_eq!(pools.progress(GROUP, &KEYS).await, Ok(Some(Progress::at(4))));
    assert_eq!(pools.progress(GROUP, &other).await, Ok(Some(Progress::at(0))), "left alone");
}

/// A snapshot of an ordinary group had no partitions, and going back to it took all of the group's offsets away.
#[tokio::test(start_paused = true)]
async fn only_groups_that_share_records_have_snapshots() {
    const ORDINARY: &str = "ord";
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = World::over(store.clone()).await;
    let groups = Coordinator::start(store.clone(), Timing::default(), CancellationToken::new());
    let commit = Commit {
        topic: KEYS.topic,
        partition: KEYS.partition,
        offset: 7,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let nobody = Caller { member_id: String::new(), instance_id: None, generation: -1 };
    groups.commit(ORDINARY, &nobody, &[commit]).await.expect("no members");
    // As one was stored by an earlier release.
    let mut batch = WriteBatch::new();
    batch.put(snapshot_key(ORDINARY, "old"), Snapshot::default().encode());
    crate::store::write(&*store, batch).await.expect("a store that works");
    let refused = SnapshotError::NotSharing(ORDINARY.to_owned());
    let taken = world.groups.take_snapshot(ORDINARY, "new", false, &[KEYS], 5).await;
    assert_eq!(taken, Err(refused.clone()));
    let rewound = world.groups.rewind(ORDINARY, "old", &[KEYS], &BTreeSet::new()).await;
    assert_eq!(rewound, Err(refused));
    let left = groups.committed_of(ORDINARY, KEYS.topic).await;
    assert_eq!(left, Ok(vec![(KEYS.partition, 7)]));
    assert_eq!(world.groups.delete_snapshot(ORDINARY, "old").await, Ok(()), "it can be removed");
    // Share groups have them, and who is unknown is said to be.
    world.groups.pools().reset("share", &[(KEYS, 4)]).await.expect("nobody is there");
    let taken = world.groups.take_snapshot("share", "new", false, &[KEYS], 5).await;
    assert_eq!(taken.expect("the group has begun").partitions, 1);
    let unknown = world.groups.rewind("nobody", "old", &[], &BTreeSet::new()).await;
    assert_eq!(unknown, Err(SnapshotError::NoGroup("nobody".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn names_are_kept_in_bounds_and_nothing_is_replaced_unasked() {
    let world = World::over(Arc::new(MemoryStore::new())).await;
    assert_eq!(
        world.groups.take_snapshot(GROUP, "a", false, &[], 5).await,
        Err(SnapshotError::NoGroup(GROUP.to_owned()))
    );
    world.groups.reset(GROUP, &[(KEYS, 4)]).await.expect("nobody is there");
    for name in ["", "a b", "a/b", &"a".repeat(129)] {
        assert_eq!(world.take(name, false).await, Err(SnapshotError::Name), "{name}");
    }
    for number in 0..64 {
        world.take(&format!("s{number}"), false).await.expect("there is room");
    }
    let (group, name) = (GROUP.to_owned(), "s3".to_owned());
    assert_eq!(world.take("s64", false).await, Err(SnapshotError::TooMany(group.clone())));
    let exists = SnapshotError::Exists { group: group.clone(), name: name.clone() };
    assert_eq!(exists.to_string(), "group $shared/g has a snapshot s3 already");
    assert_eq!(world.take("s3", false).await, Err(exists));
    world.take("s3", true).await.expect("it is replaced");
    assert_eq!(world.groups.delete_snapshot(GROUP, "s3").await, Ok(()));
    let unknown = SnapshotError::Unknown { group, name };
    assert_eq!(unknown.to_string(), "group $shared/g has no snapshot s3");
    assert_eq!(world.groups.delete_snapshot(GROUP, "s3").await, Err(unknown.clone()));
    assert_eq!(world.rewind("s3", &[KEYS]).await, Err(unknown));
    assert_eq!(world.groups.snapshots(GROUP).await.expect("a store that works").len(), 63);
}
