//! Work that goes on to its end though nobody waits for it any more.
//!
//! A future that is dropped stops where it is: a connection has broken, an edge has given its request up, a drain is over. Of a change
//! that takes several steps that would leave some: a storage mode that the store has and the partition has not, which gives offsets
//! twice after a crash; a deleted topic that the cache still has.

use std::future::Future;

use robustmq_common::limits;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::Log;

/// What was begun and has not ended. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Finisher(TaskTracker);

impl Finisher {
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.0.spawn(work.in_current_span()).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and whoever waits here with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Waits for what was begun, within bounds.
    pub(super) async fn finished(&self) {
        self.0.close();
        if self.0.is_empty() {
            return;
        }
        if tokio::time::timeout(limits::FINISH_AT_STOP, self.0.wait()).await.is_err() {
            tracing::warn!(changes = self.0.len(), "changes that were begun have not ended");
        }
    }
}

impl Log {
    /// Carries `work` out, also if the future that this returns is dropped. [`Log::stop`] waits for it.
    pub async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.shared.finisher.finish(work).await
    }
}
