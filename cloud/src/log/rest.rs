//! Bringing partitions of volatile modes to rest: idle ones, so that they can be given back, and all of them at the end.
//!
//! Many at once, so that they share syncs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use robustmq_common::limits;

use super::write_behind::Purpose;
use super::{Log, Partition};
use crate::store::StoreError;

impl Log {
    /// Brings partitions of volatile modes that nobody used for `idle` to rest, so that they can be given back: not those that
    /// hold records in memory only for good.
    pub async fn settle_idle(&self, idle: Duration) {
        let idle = self.registry.lock().to_settle(idle, Instant::now(), usize::MAX);
        for some in idle.chunks(limits::SETTLED_AT_ONCE) {
            let _one_at_a_time = self.settling.lock().await;
            settle(some).await;
        }
    }

    /// Gives back partitions that nobody uses when those in memory take nearly all that there is for them, before somebody who needs one
    /// more has to wait for it. Returns whether that was enough; if not, it is time for [`Log::settle_idle`].
    pub fn make_room(&self) -> bool {
        let mut registry = self.registry.lock();
        if registry.is_nearly_full() {
            registry.make_room();
        }
        !registry.is_nearly_full()
    }

    /// As [`Log::settle_idle`], when there is no room for one more: those that were not used for longest, in as many writes as share a
    /// sync or two.
    pub(super) async fn settle_for_room(&self) {
        let _one_at_a_time = self.settling.lock().await;
        let some = {
            let mut registry = self.registry.lock();
            if registry.has_room() {
                return;
            }
            let idle = limits::PARTITION_IDLE_WHEN_FULL;
            registry.to_settle(idle, Instant::now(), limits::SETTLED_AT_ONCE)
        };
        settle(&some).await;
    }

    /// Ends the use of all partitions: what was begun ([`Log::finish`]) ends, what `hybrid` holds is written, and volatile modes
    /// waste no offsets. Of `memory` the records are lost. Appends are refused from then on.
    ///
    /// # Errors
    /// [`StoreError`]: something is not written, because the disk stayed full or the store failed.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.shared.finisher.finished().await;
        // Whoever holds a sequencer's lock now is done before that partition is stopped.
        self.shared.stopped.store(true, Ordering::SeqCst);
        let mut partitions = self.registry.lock().to_settle_all();
        let deadline = tokio::time::Instant::now() + limits::WRITE_OUT_AT_STOP;
        loop {
            let stops = std::mem::take(&mut partitions).into_iter().map(|partition| async move {
                let stopped = partition.stop(Purpose::Stop).await;
                (partition, stopped)
            });
            let mut stops = stream::iter(stops).buffer_unordered(limits::WRITE_OUTS_AT_ONCE);
            let mut failure = None;
            while let Some((partition, stopped)) = stops.next().await {
                if let Err(error) = stopped {
                    partitions.push(partition);
                    failure = Some(error);
                }
            }
            let Some(error) = failure else { return Ok(()) };
            let transient = matches!(error, StoreError::NoSpace(_) | StoreError::StaleEra);
            if !transient || tokio::time::Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(limits::WRITE_BEHIND_RETRY).await;
        }
    }
}

async fn settle(partitions: &[Arc<Partition>]) {
    let outcomes = join_all(partitions.iter().map(|partition| partition.stop(Purpose::Rest))).await;
    for error in outcomes.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "an idle partition stays in memory");
    }
}
