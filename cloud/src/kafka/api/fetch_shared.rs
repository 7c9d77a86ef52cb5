//! Fetch at the cursors of shared groups (see [`crate::group::shared`]).
//!
//! Answered as soon as there is something for the member on one of its partitions, with whatever the others have at that moment:
//! leased records are not held back for `min_bytes`. A partition without records is answered with a high watermark in the cursor's own
//! space. A cursor that is not known is answered with nothing, after the wait, and never with OFFSET_OUT_OF_RANGE, which would send
//! the client to real offsets.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::FutureExt as _;
use futures_util::stream::FuturesUnordered;
use robustmq_common::limits;
use tokio::time::Instant;

use super::fetch::share_bytes;
use super::fetch_answer::PartitionAnswer;
use super::{Kafka, resolve};
use crate::group::shared::cursor::CursorOffset;
use crate::group::shared::deliver::{Claim, DeliverError, Delivery};
use crate::kafka::errors::KafkaCode as _;
use crate::kafka::memory::Charge;
use crate::log::Partition;
use crate::store::keys::partition::PartitionKeys;

/// One partition at a cursor.
pub(super) struct Target {
    claim: Claim,
    partition: Arc<Partition>,
    /// What is read at once: as much as the client takes, but at least one batch.
    max_bytes: usize,
    outcome: Option<Result<Delivery, DeliverError>>,
    memory: Charge,
}

impl Target {
    pub fn new(
        kafka: &Kafka,
        at: CursorOffset,
        partition: Arc<Partition>,
        max_bytes: usize,
    ) -> Self {
        let claim = kafka.shared.pools().claim(at, partition.clone());
        let max_bytes = max_bytes.clamp(1, limits::FETCH_RESPONSE_BYTES);
        Self { claim, partition, max_bytes, outcome: None, memory: Charge::default() }
    }

    /// Waits for records, and for memory once there are some. Returns their bytes.
    async fn wait(&mut self, kafka: &Kafka) -> usize {
        let outcome = self.deliver(kafka).await;
        if let Err(error) = &outcome {
            let PartitionKeys { topic, partition } = *self.partition.keys();
            let topic = resolve::shown_name(kafka, topic).await;
            let (group, partition) = (self.claim.group(), partition.0);
            tracing::warn!(group, topic, partition, %error, "a shared group's partition could not be read");
        }
        let bytes = outcome.as_ref().map_or(0, |delivery| delivery.bytes);
        self.memory.shrink_to(bytes);
        self.outcome = Some(outcome);
        bytes
    }

    async fn deliver(&mut self, kafka: &Kafka) -> Result<Delivery, DeliverError> {
        let mut again = true;
        loop {
            let turn = kafka.shared.pools().turn(&self.claim, again).await?;
            let want = self.max_bytes.min(share_bytes(&kafka.answer_memory));
            let room = want.max(limits::MAX_MESSAGE_BYTES);
            match kafka.answer_memory.charge(room, limits::KAFKA_MEMORY_WAIT).await {
                Ok(charge) => self.memory = charge,
                Err(error) => {
                    tracing::warn!(%error, "a Fetch found no memory for its answer");
                    return Ok(Delivery::default());
                }
            }
            if let Some(delivery) = turn.take(kafka.shared.pools(), &self.claim, want).await? {
                return Ok(delivery);
            }
            self.memory = Charge::default();
            again = false;
        }
    }

    /// What the answer says of it.
    pub fn answer(
        self,
        kafka: &Kafka,
        index: i32,
        read_committed: bool,
        memory: &mut Charge,
    ) -> PartitionAnswer {
        memory.merge(self.memory);
        let delivery = match self.outcome {
            None => Delivery::default(),
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return PartitionAnswer::failed(index, error.kafka()),
        };
        if delivery.records > 0 {
            kafka.traffic.fetched(self.partition.keys().topic, delivery.records, delivery.bytes);
        }
        let high_watermark = self.claim.high_watermark();
        PartitionAnswer {
            index,
            error_code: 0,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: 0,
            read_committed,
            pieces: delivery.pieces,
        }
    }
}

/// Waits until `deadline` for records for any of `targets`; says how many bytes came.
pub(super) async fn deliver(
    kafka: &Kafka,
    targets: Vec<&mut Target>,
    max_bytes: usize,
    deadline: Instant,
) -> usize {
    let mut waiting: FuturesUnordered<_> =
        targets.into_iter().map(|target| target.wait(kafka)).collect();
    let first = tokio::select! {
        biased;
        first = waiting.next() => first,
        () = tokio::time::sleep_until(deadline) => None,
        () = kafka.shutdown.cancelled() => None,
    };
    let Some(mut total) = first else { return 0 };
    // Whatever else is there at once.
    while total < max_bytes
        && let Some(Some(more)) = waiting.next().now_or_never()
    {
        total += more;
    }
    kafka.metrics.fetched_bytes.inc_by(total as u64);
    total
}
