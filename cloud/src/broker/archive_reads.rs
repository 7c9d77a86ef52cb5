//! Tells a person that archived records cannot be read: their consumers wait, and hear only that they are to try again.

use std::collections::HashMap;
use std::sync::Arc;

use robustmq_common::limits;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::names::topic_name;
use crate::log::PartitionId;
use crate::tier::FailedRead;
use crate::topics::Catalogue;

pub(super) struct ArchiveReads {
    topics: Arc<Catalogue>,
    failed: mpsc::Receiver<FailedRead>,
    /// Partitions that the log has lately told of, and when.
    told: HashMap<PartitionId, Instant>,
}

impl ArchiveReads {
    pub(super) fn new(topics: Arc<Catalogue>, failed: mpsc::Receiver<FailedRead>) -> Self {
        Self { topics, failed, told: HashMap::new() }
    }

    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let work = async {
            while let Some(failed) = self.failed.recv().await {
                self.tell(&failed).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = work => {}
        }
    }

    async fn tell(&mut self, FailedRead { keys, error }: &FailedRead) {
        let now = Instant::now();
        self.told.retain(|_, told| now.duration_since(*told) < limits::tier::TOLD_AGAIN);
        let id = (keys.topic, keys.partition);
        if self.told.contains_key(&id) || self.told.len() >= limits::tier::TOLD_READS {
            return;
        }
        self.told.insert(id, now);
        let (topic, partition) = (topic_name(&self.topics, id.0).await, id.1);
        tracing::warn!(%topic, %partition, %error, "archived records cannot be read, and their consumers wait");
    }
}

#[cfg(test)]
mod tests {
    use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
    use robustmq_common::limits;
    use tokio_util::sync::CancellationToken;

    use super::ArchiveReads;
    use crate::broker::archiver::tests::World;
    use crate::broker::kept_log::KeptLog;
    use crate::store::keys::partition::PartitionKeys;
    use crate::tier::ArchiveError;

    /// The consumer hung, the log was empty, and no metric moved.
    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_is_counted_and_told_by_name_now_and_then() {
        let (log, _guard) = KeptLog::listen();
        let mut world = World::new();
        let partition = world.due("cold").await;
        assert!(world.offer(&partition).await.0);
        assert_eq!(partition.local_start(), Offset(1));
        let archive = world.log.archive().expect("there is one").clone();
        let failed = archive.failed_reads().expect("nobody else tells");
        let shutdown = CancellationToken::new();
        let reads = ArchiveReads::new(world.topics.clone(), failed);
        let task = tokio::spawn(reads.run(shutdown.clone()));

        world.objects.fail_with("503 Slow Down");
        for _ in 0..2 {
            for _ in 0..3 {
                partition.read(Offset(0), 1).await.expect_err("it is down");
                partition.warm(Offset(0)).await.expect_err("it is down");
            }
            tokio::time::sleep(limits::tier::TOLD_AGAIN).await;
        }
        let told = log.warnings("topic=cold partition=0");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("503 Slow Down"), "{told:?}");
        assert_eq!(world.metrics.failed_reads.get(), 12);

        for _ in 0..10 * limits::tier::TOLD_READS {
            let keys = PartitionKeys { topic: TopicId::random(), partition: PartitionIndex(0) };
            archive.read_failed(&keys, &ArchiveError::Closed);
            tokio::task::yield_now().await;
        }
        let told = log.warnings("").len();
        assert!(told <= 2 + limits::tier::TOLD_READS, "{told}");
        shutdown.cancel();
        task.await.expect("it ends");
    }
}
