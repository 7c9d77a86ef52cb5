use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};
use tokio::time::advance;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Assignment, Beat, MemberError, SessionError, ShareError, ShareGroups};
use crate::entries::{ConfigChange, ConfigOp};
use crate::group::machine::Timing;
use crate::group::shared::acquire::Acquisition;
use crate::group::shared::coordinator::SharedGroups;
use crate::group::shared::members::ConnectionId;
use crate::group::shared::pool::Verdict;
use crate::group::shared::pools::SettleError;
use crate::log::{AppendContext, Log, Partition};
use crate::store::keys::partition::PartitionKeys;
use crate::store::{MemoryStore, Store};

const GROUP: &str = "sharers";
const KEYS: PartitionKeys =
    PartitionKeys { topic: TopicId(Uuid::from_u128(7)), partition: PartitionIndex(0) };
const AT: (TopicId, PartitionIndex) = (KEYS.topic, KEYS.partition);
const SECOND: Duration = Duration::from_secs(1);

struct Broker {
    groups: SharedGroups,
    partition: Arc<Partition>,
    store: Arc<dyn Store>,
    _running: tokio_util::sync::DropGuard,
}

impl Broker {
    /// Over a partition with batches of five records. The group begins with the first one.
    async fn start(batches: i64) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let broker = Self::over(store).await;
        for _ in 0..batches {
            broker.append().await;
        }
        let name = "share.auto.offset.reset".to_owned();
        let change = ConfigChange { name, op: ConfigOp::Set("earliest".to_owned()) };
        let altered = broker.groups.pools().alter_config(GROUP, &[change], false).await;
        altered.expect("a legal value");
        broker
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        let log = Arc::new(Log::new(store.clone()));
        let partition = log.partition(KEYS.topic, KEYS.partition).await.expect("a partition");
        partition.ready().await.expect("a store that works");
        let groups = SharedGroups::new(log, Timing::default(), None);
        let shutdown = CancellationToken::new();
        tokio::spawn({
            let (groups, shutdown) = (groups.clone(), shutdown.clone());
            async move { groups.run(shutdown).await }
        });
        Self { groups, partition, store, _running: shutdown.drop_guard() }
    }

    async fn append(&self) {
        let batch = records(5);
        let appended = self.partition.append(batch, &AppendContext::at(0)).expect("a good batch");
        appended.durable().await.expect("it is durable");
    }

    fn share(&self) -> &ShareGroups {
        self.groups.share()
    }

    async fn beat(&self, member_id: &str, epoch: i32) -> Result<i32, ShareError> {
        let subscribed = (epoch == 0).then(|| BTreeSet::from(["t".to_owned()]));
        let beat = Beat { member_id: member_id.to_owned(), epoch, subscribed, ..Beat::default() };
        let told = self.share().heartbeat(GROUP, beat, async |wanted| {
            assert_eq!(wanted, BTreeSet::from(["t".to_owned()]));
            Assignment::from([(KEYS.topic, 1)])
        });
        told.await.map(|told| told.epoch)
    }

    /// Joins, and begins a share session.
    async fn join(&self, member_id: &str, connection: u64) {
        self.beat(member_id, 0).await.expect("it may join");
        self.begin(member_id, connection);
    }

    fn begin(&self, member_id: &str, connection: u64) {
        let none = BTreeSet::new();
        let connection = ConnectionId(connection);
        let begun = self.share().advance_session(GROUP, member_id, 0, connection, [AT], &none);
        assert_eq!(begun, Ok(BTreeSet::from([AT])));
    }

    async fn take(&self, member_id: &str, most: u64) -> Acquisition {
        let acquirer = self.share().acquirer(GROUP, member_id, self.partition.clone()).await;
        let acquirer = acquirer.map_err(|error| error.to_string()).expect("a member");
        loop {
            let turn = acquirer.turn().await.expect("a log that can be read");
            let taken = turn.take(self.groups.pools(), 1 << 20, most).await;
            if let Some(taken) = taken.expect("a log that can be read") {
                return taken;
            }
        }
    }

    async fn settle(
        &self,
        member_id: &str,
        offsets: Range<i64>,
        verdict: Verdict,
    ) -> Result<(), SettleError> {
        self.share().settle(GROUP, member_id, &self.partition, &[(offsets, verdict)]).await
    }
}

fn records(count: i64) -> RecordBatch {
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        batch.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() }).expect("small");
    }
    batch.build().expect("a batch")
}

#[tokio::test(start_paused = true)]
async fn members_acquire_different_records_in_whole_batches() {
    let broker = Broker::start(2).await;
    broker.join("a", 1).await;
    broker.join("b", 2).await;
    let taken = broker.take("a", 3).await;
    assert_eq!((taken.acquired.clone(), taken.batches.len()), (vec![(0..3, 0)], 1));
    assert_eq!(taken.records(), 3);
    let taken = broker.take("b", 100).await;
    assert_eq!((taken.acquired, taken.batches.len()), (vec![(3..10, 0)], 2));
    broker.settle("a", 0..3, Verdict::Accept).await.expect("they are its own");
    let refused = broker.settle("a", 3..4, Verdict::Accept).await;
    assert!(matches!(refused, Err(SettleError::NotHeld(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_released_in_bits_goes_out_together_with_what_is_new() {
    let broker = Broker::start(2).await;
    broker.join("a", 1).await;
    broker.join("b", 2).await;
    broker.take("a", 8).await;
    for offset in [1, 3, 6] {
        broker.settle("a", offset..offset + 1, Verdict::Release).await.expect("its own");
    }
    let taken = broker.take("b", 4).await;
    assert_eq!(taken.acquired, vec![(1..2, 1), (3..4, 1), (6..7, 1), (8..9, 0)]);
    assert_eq!(taken.batches.len(), 2, "each batch once");
}

#[tokio::test(start_paused = true)]
async fn what_a_member_leaves_behind_goes_to_others_at_once() {
    let broker = Broker::start(1).await;
    broker.join("a", 1).await;
    broker.join("b", 2).await;
    broker.take("a", 5).await;
    let waits = broker.take("b", 5);
    tokio::pin!(waits);
    assert!(futures_util::poll!(&mut waits).is_pending());
    broker.share().connection_closed(ConnectionId(1));
    assert_eq!(waits.await.acquired, vec![(0..5, 1)]);
    // It may have another session, on another connection.
    broker.begin("a", 3);
    broker.append().await;
    assert_eq!(broker.take("a", 5).await.acquired, vec![(5..10, 0)]);
    // Told last of all what becomes of the last records, though the member has left.
    broker.share().leave(GROUP, "a").expect("a member");
    assert_eq!(broker.beat("a", 1).await, Err(ShareError::Member(MemberError::Unknown)));
    broker.settle("a", 5..7, Verdict::Accept).await.expect("its session goes on");
    broker.share().end_session(GROUP, "a");
    assert_eq!(broker.take("b", 5).await.acquired, vec![(7..10, 1)]);
    assert!(broker.settle("a", 7..8, Verdict::Accept).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn locks_run_out_and_silent_members_are_given_up() {
    let broker = Broker::start(1).await;
    broker.join("a", 1).await;
    broker.join("b", 2).await;
    broker.take("a", 5).await;
    let started = tokio::time::Instant::now();
    assert_eq!(broker.take("b", 5).await.acquired, vec![(0..5, 1)]);
    assert_eq!(started.elapsed(), SECOND * 30);
    let refused = broker.settle("a", 0..5, Verdict::Accept).await;
    assert!(refused.is_err(), "they are with another");
    broker.settle("b", 0..5, Verdict::Accept).await.expect("its own");
    advance(SECOND * 10).await;
    broker.beat("b", 2).await.expect("it lives");
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(broker.beat("a", 1).await, Err(ShareError::Member(MemberError::Unknown)));
    let none = BTreeSet::new();
    let session = broker.share().advance_session(GROUP, "a", 1, ConnectionId(1), [], &none);
    assert_eq!(session, Err(SessionError::UnknownMember));
    broker.beat("b", 2).await.expect("it lives on");
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_survives_a_restart_and_the_rest_is_counted() {
    let broker = Broker::start(2).await;
    broker.join("a", 1).await;
    broker.take("a", 10).await;
    broker.settle("a", 0..2, Verdict::Accept).await.expect("its own");
    broker.settle("a", 4..5, Verdict::Reject).await.expect("its own");
    broker.settle("a", 5..6, Verdict::Release).await.expect("its own");
    let store = broker.store.clone();
    drop(broker);
    let broker = Broker::over(store).await;
    assert!(broker.share().owns(GROUP).await.expect("a store that works"));
    broker.join("b", 1).await;
    let taken = broker.take("b", 10).await;
    // That 2 and others were with a member is not known any more.
    assert_eq!(taken.acquired, vec![(2..4, 0), (5..6, 1), (6..10, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_accepts_is_given_up_after_five_deliveries() {
    let broker = Broker::start(1).await;
    broker.join("a", 1).await;
    for deliveries in 0..5 {
        let acquired = broker.take("a", 1).await.acquired;
        assert_eq!(acquired, vec![(0..1, deliveries)]);
        broker.settle("a", 0..1, Verdict::Release).await.expect("its own");
    }
    assert_eq!(broker.take("a", 1).await.acquired, vec![(1..2, 0)]);
}

#[tokio::test(start_paused = true)]
async fn everything_is_forgotten_once_all_have_left() {
    let broker = Broker::start(1).await;
    for round in 0..3 {
        broker.join("a", round).await;
        broker.take("a", 1).await;
        broker.share().leave(GROUP, "a").expect("a member");
        broker.share().connection_closed(ConnectionId(round));
    }
    assert!(!broker.groups.is_active(GROUP));
    tokio::time::sleep(SECOND).await;
    assert!(broker.groups.pools().is_empty());
    let state = broker.share().state();
    assert_eq!((state.left.len(), state.sessions.len()), (0, 0));
    assert!(state.timers.is_empty());
    assert_eq!(state.bytes, 0);
}
