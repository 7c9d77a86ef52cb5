//! Fetches what readers will want next, across the boundaries of objects and epochs.

use std::sync::{Arc, Weak};

use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::Ahead;
use robustmq_dataset::epochs::Part;
use robustmq_dataset::index::extent_id;
use tokio::time::Instant;

use super::partition::{DatasetPartition, PartitionError, guarded};
use super::readers::Reader;

/// Fetches ahead until the partition is not used any more.
pub(super) async fn run(partition: Weak<DatasetPartition>) {
    loop {
        let Some(this) = partition.upgrade() else { return };
        let (read, cancel) = (Arc::clone(&this.read), this.dataset.cancel.clone());
        let readers = this.readers().active(Instant::now());
        let mut is_over = false;
        for reader in readers {
            match guarded(this.fetch_ahead(&reader)).await {
                Ok(true) => {}
                Ok(false) => {
                    is_over = true;
                    break;
                }
                // Whoever reads it will be told.
                Err(error) => tracing::debug!(%error, "nothing is fetched ahead"),
            }
        }
        drop(this);
        // Where there was no room, some comes as extents are read past, which nobody tells.
        let pause = if is_over { limits::AHEAD_PAUSE } else { limits::RETRY_MOST };
        tokio::select! {
            () = read.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return,
        }
    }
}

impl DatasetPartition {
    /// Has fetched what one reader will want. Whether there was room.
    async fn fetch_ahead(self: &Arc<Self>, reader: &Reader) -> Result<bool, PartitionError> {
        // What stays in memory takes no room, and is passed over: but not without end.
        let mut steps = reader.ahead_bytes.saturating_mul(limits::AHEAD_DISTANCE);
        let (mut at, mut left) = (reader.next, reader.ahead_bytes);
        while left > 0 && steps > 0 {
            let stretch = self.state().stretch(at);
            let Some(stretch) = stretch else { return Ok(true) };
            for Part { object, record: first, records } in stretch.parts {
                let opened = self.opened(object).await?;
                let begin = opened.index.extents.partition_point(|extent| {
                    extent.first_record + u64::from(extent.records) <= first
                });
                for extent in opened.index.readable().skip(begin) {
                    if extent.first_record >= first + records {
                        break;
                    }
                    let id = extent_id(opened.id, extent);
                    let load = self.load(&opened, extent, reader.ahead_bytes - left);
                    match self.dataset.cache.ahead(id, self.dataset.user(), load) {
                        Ahead::NoRoom => return Ok(false),
                        Ahead::Here | Ahead::Begun => {
                            left = left.saturating_sub(extent.bytes.into())
                        }
                        Ahead::Resident => {}
                    }
                    steps = steps.saturating_sub(extent.bytes.into());
                    if left == 0 || steps == 0 {
                        return Ok(true);
                    }
                }
            }
            at = stretch.end;
        }
        Ok(true)
    }
}
