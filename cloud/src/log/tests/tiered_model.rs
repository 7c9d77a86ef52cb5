//! A `tiered` partition against a list of its batches, while archiving is interrupted between any two writes, the object store fails, and the
//! broker crashes.
//!
//! After each step everything is read and compared. At the end, when the janitor has had its time, every object in the bucket is one
//! that the store says holds records: no gap, no orphan.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};
use robustmq_common::ids::{Offset, TopicId};
use uuid::Uuid;

use super::check_totals;
use super::tiered::{AT_ONCE, World, append, read_all};
use crate::log::Partition;
use crate::objects::faulty::FaultyStore;
use crate::store::keys::Family;
use crate::store::keys::archive::Archived;
use crate::store::{MemoryStore, ScanLimit, Store as _};

#[derive(Debug, Clone)]
enum Step {
    Append {
        bytes: usize,
    },
    CloseChunk,
    Archive,
    /// The broker dies when so many of the archiving's writes are applied, and so many more survive.
    DieArchiving {
        applied: usize,
        survivors: usize,
    },
    Fail {
        of_thousand: u64,
    },
    Crash,
    DeleteRecords {
        back: i64,
    },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..2000_usize).prop_map(|bytes| Step::Append { bytes }),
        4 => Just(Step::CloseChunk),
        4 => Just(Step::Archive),
        3 => (0..4_usize, 0..2_usize)
            .prop_map(|(applied, survivors)| Step::DieArchiving { applied, survivors }),
        1 => prop_oneof![Just(0), Just(300), Just(700)].prop_map(|of_thousand| Step::Fail { of_thousand }),
        1 => Just(Step::Crash),
        1 => (0..5_i64).prop_map(|back| Step::DeleteRecords { back }),
        1 => Just(Step::Sweep),
    ]
}

struct Model {
    world: World,
    partition: Arc<Partition>,
    batches: Vec<Bytes>,
    log_start: i64,
    of_thousand: u64,
    now_ms: i64,
}

impl Model {
    async fn new() -> Self {
        let topic = TopicId(Uuid::from_bytes([3; 16]));
        let world = World::over(Arc::new(MemoryStore::new()), FaultyStore::new(5), topic);
        let partition = world.partition().await;
        Self { world, partition, batches: Vec::new(), log_start: 0, of_thousand: 0, now_ms: 1 }
    }

    async fn crash(&mut self, survivors: usize) {
        self.world = self.world.after_crash(survivors);
        self.partition = self.world.partition().await;
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { bytes } => self.batches.push(append(&self.partition, 0, bytes).await),
            Step::CloseChunk => {
                self.partition.ready().await.expect("nothing fails");
                self.partition.close_open_chunk(|_| true).await.expect("nothing fails");
            }
            Step::Archive => {
                self.world.objects.fail_of_thousand(self.of_thousand);
                // It may fail; what that means is seen by what is read.
                drop(self.partition.archive(&self.world.archive, &AT_ONCE, 1).await);
                self.world.objects.fail_of_thousand(0);
            }
            Step::DieArchiving { applied, survivors } => {
                self.world.objects.fail_of_thousand(self.of_thousand);
                self.world.store.hold();
                let (partition, archive) = (self.partition.clone(), self.world.archive.clone());
                {
                    let mut archiving = Box::pin(partition.archive(&archive, &AT_ONCE, 1));
                    let mut ended = (&mut archiving).now_or_never().is_some();
                    for _ in 0..applied {
                        self.world.store.apply_held(1);
                        ended = ended || (&mut archiving).now_or_never().is_some();
                    }
                    // Readers see all of it at any moment.
                    self.world.objects.fail_of_thousand(0);
                    self.check().await;
                }
                self.crash(survivors).await;
            }
            Step::Fail { of_thousand } => self.of_thousand = of_thousand,
            Step::Crash => self.crash(0).await,
            Step::DeleteRecords { back } => {
                let before = (i64::try_from(self.batches.len()).expect("few") - back).max(0);
                let start = self.partition.delete_records(Some(Offset(before))).await;
                self.log_start = start.expect("nothing fails").0;
            }
            Step::Sweep => {
                self.now_ms += 100_000;
                let mut janitor = self.world.janitor();
                for _ in 0..2 {
                    janitor.pass(self.now_ms).await.expect("nothing fails");
                    self.now_ms += 100_000;
                }
            }
        }
    }

    async fn check(&self) {
        let start = usize::try_from(self.log_start).expect("not negative");
        let all = read_all(&self.partition, self.log_start, 3000).await;
        assert_eq!(all, self.batches[start..]);
        let middle = start + (self.batches.len() - start) / 2;
        let half = read_all(&self.partition, i64::try_from(middle).expect("few"), 1).await;
        assert_eq!(half, self.batches[middle..]);
        check_totals(&self.partition).await;
    }

    /// Every object is archived, and every archived one is there.
    async fn check_objects(&self) {
        let mut janitor = self.world.janitor();
        for now_ms in [0, 100_000, 2_000_000] {
            janitor.pass(now_ms).await.expect("nothing fails");
        }
        let scan = |range| self.world.store.scan(range, ScanLimit::items(1000));
        assert_eq!(scan(Family::Doomed.range()).await.expect("readable").items.len(), 0);
        let archived = scan(Family::Archived.range()).await.expect("readable").items;
        let archived = archived.iter().map(|(key, value)| Archived::decode(key, value));
        let mut named: Vec<_> = archived
            .map(|archived| archived.expect("intact").1.object.simple().to_string())
            .collect();
        let names = self.world.names().await;
        let there = names.iter().map(|name| name.rsplit_once('-').expect("a name").1.to_owned());
        let mut there: Vec<_> = there.collect();
        named.sort();
        there.sort();
        assert_eq!(named, there);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_gap_and_no_orphan_whatever_fails(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut model = Model::new().await;
            for step in &steps {
                model.step(step).await;
                model.check().await;
            }
            model.check_objects().await;
        });
    }
}
