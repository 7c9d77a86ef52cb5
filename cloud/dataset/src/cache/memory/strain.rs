//! Whether the pool is too small for what is being read: an extent went while it was read, since another one needed its room, and is loaded again
//! for its reader. Then the pool takes room from what stays, which costs a scan a little, where readers would hardly get on: the extents of a
//! window are all read in turn, and each would be loaded for a few records.
//!
//! **Invariant:** no more than half of what stays makes room, and has it back when nothing was loaded again for a while.

use std::collections::VecDeque;

use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

use super::Memory;
use crate::cache::ExtentId;
use crate::cache::scene::{Changes, Scene};

/// What went while it was read, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Strain {
    /// The latest of them come last.
    went: VecDeque<ExtentId>,
    /// What the pool has beside its own room.
    room_bytes: usize,
    /// When an extent was loaded again.
    since: Option<Instant>,
}

impl Strain {
    /// What the pool has of the room of what stays, which would be so much.
    pub(super) fn room_bytes(&self, resident_room: usize) -> usize {
        self.room_bytes.min(resident_room / 2)
    }

    /// An extent that somebody reads has gone.
    pub(super) fn went(&mut self, id: ExtentId) {
        if self.went.len() == limits::STRAIN_NOTED {
            self.went.pop_front();
        }
        self.went.push_back(id);
    }

    /// Whether it went while it was read, and was not loaded since.
    fn is_again(&mut self, id: ExtentId) -> bool {
        let at = self.went.iter().rposition(|went| *went == id);
        at.and_then(|at| self.went.remove(at)).is_some()
    }
}

impl Memory {
    /// Somebody who reads waits for a load of so many bytes.
    pub(super) fn is_loaded_for_reader(
        &mut self,
        id: ExtentId,
        bytes: usize,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) {
        if !self.strain.is_again(id) {
            return;
        }
        self.strain.since = Some(scene.now);
        self.strain.room_bytes = self.strain.room_bytes(self.own_resident_room()) + bytes;
        self.fit_residents(scene, changes);
    }

    /// Gives back what the pool has of what stays, once nothing was loaded again for a while.
    pub(super) fn relax(&mut self, scene: Scene<'_>, changes: &mut Changes) {
        let is_over = |since| scene.now.duration_since(since) > limits::STRAIN_LASTS;
        if self.strain.since.is_some_and(is_over) {
            self.strain = Strain::default();
            self.fit_pool(scene, changes);
        }
    }
}
