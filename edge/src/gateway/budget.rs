//! Memory for large packets on their way from sockets to the hub, of all connections together.
//!
//! It is charged as the bytes arrive, so that a packet which was only announced, or comes slowly, keeps no memory from others.
//! Charging in steps alone could come to a standstill: all memory taken by packets of which each waits for more. So one
//! packet at a time has the turn: it is read to its end beyond what the budget has left.
//!
//! **Invariant:** the packets together take no more than the budget and one packet.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT_BYTES: usize = 1024;

/// The budget; clones share it.
#[derive(Clone)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// What one packet has taken; dropping it gives it back.
#[derive(Default)]
pub(super) struct Charge {
    units: Option<OwnedSemaphorePermit>,
    turn: Option<OwnedSemaphorePermit>,
    covers: usize,
}

impl Charge {
    /// Bytes of the packet that may be read.
    pub(super) fn covers(&self) -> usize {
        self.covers
    }

    fn missing(&self, bytes: usize) -> u32 {
        let have = self.units.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(bytes.div_ceil(UNIT_BYTES).saturating_sub(have)).unwrap_or(u32::MAX)
    }

    fn add(&mut self, units: OwnedSemaphorePermit) {
        match &mut self.units {
            Some(have) => have.merge(units),
            none => *none = Some(units),
        }
    }
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let units = Arc::new(Semaphore::new(bytes / UNIT_BYTES));
        Self { units, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Lets the charge cover `bytes`, if that is possible at once.
    pub(super) fn try_grow(&self, charge: &mut Charge, bytes: usize) -> bool {
        if charge.turn.is_none() {
            let units = Arc::clone(&self.units).try_acquire_many_owned(charge.missing(bytes));
            let Ok(units) = units else { return false };
            charge.add(units);
        }
        charge.covers = charge.covers.max(bytes);
        true
    }

    /// As [`Budget::try_grow`], but waits: for others to give memory back, or for the turn.
    pub(super) async fn grow(&self, charge: &mut Charge, bytes: usize) {
        let units = Arc::clone(&self.units).acquire_many_owned(charge.missing(bytes));
        let turn = Arc::clone(&self.turn).acquire_owned();
        // Neither is ever closed.
        tokio::select! {
            biased;
            Ok(units) = units => charge.add(units),
            Ok(turn) = turn => charge.turn = Some(turn),
            else => return,
        }
        charge.covers = charge.covers.max(bytes);
    }
}
