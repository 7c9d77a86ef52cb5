//! When a partition can be used: for appends, and for what looks after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use robustmq_common::ids::Offset;

use super::LogError;
use super::partition::Partition;
use super::sequencer::Sequencer;
use crate::store::StoreError;

/// Why an append would not be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// A write failed.
    Failure,
    /// The mode is being changed.
    Change,
    /// No offset is reserved.
    Reservation,
    /// `hybrid` holds as much as it may.
    Room,
}

impl Partition {
    /// Waits until [`Partition::append`] can be expected to be taken: there is room for it, a volatile mode has offsets to
    /// give, a change of the mode is over, and the state was read again if a write failed. Await it before each append.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn ready(self: &Arc<Self>) -> Result<(), LogError> {
        if !self.sequencer().is_volatile() {
            self.store().ready().await?;
        }
        loop {
            match self.obstacle()? {
                None => return Ok(()),
                Some(Obstacle::Failure) => self.read_again().await?,
                Some(Obstacle::Change) => drop(self.maintenance.lock().await),
                Some(Obstacle::Reservation) => self.reserve().await?,
                Some(Obstacle::Room) => self.wait_for_room().await?,
            }
        }
    }

    /// Waits until the state is true again after a failed write, and a change of the mode is over: what upkeep needs. It takes no room
    /// and no offset, and so waits for none, as [`Partition::ready`] does: a full disk has none to give until upkeep has deleted
    /// something.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn ready_for_upkeep(&self) -> Result<(), LogError> {
        loop {
            match self.obstacle()? {
                Some(Obstacle::Failure) => self.read_again().await?,
                Some(Obstacle::Change) => drop(self.maintenance.lock().await),
                Some(Obstacle::Reservation | Obstacle::Room) | None => return Ok(()),
            }
        }
    }

    async fn read_again(&self) -> Result<(), LogError> {
        self.store().ready().await?;
        let _one_at_a_time = self.maintenance.lock().await;
        self.reload().await
    }

    fn obstacle(&self) -> Result<Option<Obstacle>, LogError> {
        let sequencer = self.sequencer();
        if sequencer.closed {
            return Err(LogError::Dropped(self.keys().topic));
        }
        if self.shared.stopped.load(Ordering::SeqCst) {
            return Err(StoreError::Closed.into());
        }
        let reserved = Offset(self.reserved.load(Ordering::Acquire));
        let unreserved = reserved < sequencer.wanted || reserved <= sequencer.next_offset;
        Ok(if sequencer.era != self.store().era() {
            Some(Obstacle::Failure)
        } else if sequencer.changing {
            Some(Obstacle::Change)
        } else if !sequencer.is_volatile() {
            None
        } else if unreserved {
            Some(Obstacle::Reservation)
        } else if !self.has_room(&sequencer) {
            Some(Obstacle::Room)
        } else {
            None
        })
    }

    /// After a failed write: what the store says is true again. In a volatile mode the state in memory is, and stays. Call
    /// it under the maintenance lock.
    pub(super) async fn reload(&self) -> Result<(), LogError> {
        loop {
            {
                let mut sequencer = self.sequencer();
                if sequencer.closed {
                    return Err(LogError::Dropped(self.keys().topic));
                }
                let era = self.store().era();
                if sequencer.is_volatile() {
                    sequencer.era = era;
                }
                if sequencer.era == era {
                    return Ok(());
                }
            }
            let loaded = Sequencer::load(self.store(), self.keys()).await?.sequencer;
            let mut sequencer = self.sequencer();
            let Sequencer { closed, mode, changing, .. } = *sequencer;
            *sequencer = Sequencer { closed, mode, changing, ..loaded };
            self.measure(&sequencer);
        }
    }
}
