//! Changing a topic's storage mode while it is in use.
//!
//! **Invariant:** everything that was readable before stays readable: a ring is written with its offsets before the mode is one that
//! writes, and what the store has stays there until retention.
//! **Invariant:** between the last write of the old mode and the first append of the new one nothing is appended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use robustmq_common::ids::Offset;
use robustmq_common::limits;

use super::LogError;
use super::mode::StorageMode;
use super::partition::Partition;
use super::write_behind::Purpose;
use crate::store::keys::partition::{Chunk, LogEnd};
use crate::store::{self, StoreError, WriteBatch};

/// The most parts of a ring that are written before appends have to wait for the rest.
const PARTS: usize = 64;

/// While it lives, appends wait.
struct Gate<'a>(&'a Partition);

impl<'a> Gate<'a> {
    fn close(partition: &'a Partition) -> Self {
        partition.sequencer().changing = true;
        Self(partition)
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.0.sequencer().changing = false;
    }
}

impl Partition {
    /// Changes the mode; writes first what the old one holds in memory only and the new one promises to keep.
    ///
    /// # Errors
    /// [`LogError`]: the mode is the old one then.
    pub(super) async fn change_mode(self: &Arc<Self>, mode: StorageMode) -> Result<(), LogError> {
        let _one_at_a_time = self.maintenance.lock().await;
        let from = {
            let mut sequencer = self.sequencer();
            let from = sequencer.mode.filter(|from| from.durability() != mode.durability());
            match from {
                Some(_) if sequencer.closed => return Ok(()),
                Some(from) => from,
                None => {
                    self.set_mode(&mut sequencer, mode);
                    return Ok(());
                }
            }
        };
        for _ in 0..PARTS {
            if !from.is_volatile() || self.unstored.bytes() <= limits::WRITE_OUT_BYTES {
                break;
            }
            self.write_out(Purpose::Ahead).await?;
        }
        let _gate = Gate::close(self);
        match from.is_volatile() {
            true => self.write_out(Purpose::Leave(mode)).await?,
            false => self.leave_persistent(mode).await?,
        }
        let mut sequencer = self.sequencer();
        sequencer.writing = None;
        sequencer.changed = super::sequencer::Changed::default();
        sequencer.era = self.store().era();
        if !mode.is_volatile() {
            sequencer.has_reservation = false;
        }
        if !mode.is_volatile() || !from.is_volatile() {
            self.reserved.store(sequencer.next_offset.0, Ordering::Release);
        }
        self.set_mode(&mut sequencer, mode);
        Ok(())
    }

    /// Waits until everything that was submitted is durable, or has failed.
    async fn leave_persistent(&self, mode: StorageMode) -> Result<(), LogError> {
        let mut stored = self.stored.subscribe();
        loop {
            stored.mark_unchanged();
            self.reload().await?;
            let next_offset = self.sequencer().next_offset;
            if stored.borrow().through >= next_offset {
                break;
            }
            stored.changed().await.map_err(|_| StoreError::Closed)?;
        }
        let LogEnd { next_offset, open_chunk, .. } = self.sequencer().end;
        if matches!(mode, StorageMode::Memory { .. }) && open_chunk.bytes > 0 {
            // No more comes to it, and so it can go when it is old.
            let end = LogEnd { open_chunk: Chunk::empty(next_offset), ..self.sequencer().end };
            let mut write = WriteBatch::new();
            write.put(self.keys().chunk(Offset(next_offset.0 - 1)), open_chunk.encode());
            write.put(self.keys().end(), end.encode());
            self.sequencer().put_epoch(self.keys(), &mut write);
            store::write(self.store(), write).await?;
            self.sequencer().end = end;
        }
        Ok(())
    }
}
