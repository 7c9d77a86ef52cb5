//! Whether the pool is too small for what is being read: an extent went while it was read, since another one needed its room, and is loaded again
//! for its reader. Then the pool takes what it lacks from what stays, which costs a scan a little, where readers would hardly get on: the extents of
//! a window are all read in turn, and each would be loaded for a few records.
//!
//! **Invariant:** no more than half of what stays makes room, nothing of what is pinned, and for what somebody waits for alone: not for what is read
//! ahead, lent or counted. Half of it is given back every [`limits::STRAIN_HALVES`], as soon as what is in it can go.

use std::collections::VecDeque;

use robustmq_common::limits::dataset as limits;
use tokio::time::Instant;

use super::{Memory, Rank};
use crate::cache::ExtentId;
use crate::cache::scene::{Changes, Scene};
use crate::cache::users::Class;

/// What went while it was read, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Strain {
    /// Each with the time; the latest come last.
    gone: VecDeque<(ExtentId, Instant)>,
    /// What the pool has beside its own room, where what stays has as much.
    bytes: usize,
    /// When it began to have it, or gave back a half.
    since: Option<Instant>,
}

impl Strain {
    /// What the pool has of the room of what stays, which would be so much.
    pub(super) fn room_bytes(&self, resident_room: usize) -> usize {
        self.bytes.min(resident_room / 2)
    }

    /// It was read to its end, or is loaded again: whether it went before.
    pub(super) fn take_gone(&mut self, id: ExtentId) -> Option<Instant> {
        let at = self.gone.iter().position(|(gone, _)| *gone == id)?;
        self.gone.remove(at).map(|(_, when)| when)
    }
}

impl Memory {
    /// An extent that somebody reads has gone, unless it has its place among those that stay.
    pub(super) fn note_gone(&mut self, id: ExtentId, now: Instant) {
        self.strain.take_gone(id);
        if self.contains(id) {
            return;
        }
        if self.strain.gone.len() == limits::STRAIN_NOTED {
            self.strain.gone.pop_front();
        }
        self.strain.gone.push_back((id, now));
    }

    /// A reader waits for a load of so many bytes. Where it is one that went while it was read, the pool takes what it lacks.
    pub(super) fn take_what_lacks(
        &mut self,
        id: ExtentId,
        bytes: usize,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) {
        let is_recent = |when| scene.now.duration_since(when) <= limits::STRAIN_HALVES;
        let is_again = self.strain.take_gone(id).is_some_and(is_recent);
        let (own, room) = (self.own_resident_room(), self.pool_room());
        let before = self.strain.room_bytes(own);
        // What does not fit however much is taken has nothing taken for it.
        let may_fit = bytes <= (room - before).saturating_add(own / 2);
        if !is_again || !may_fit || self.has_room_in(room, bytes, scene, changes) {
            return;
        }
        let lacks = (self.pool_bytes + self.beside_bytes() + bytes).saturating_sub(room);
        let after = (before + lacks.min(bytes)).min(own / 2);
        let over = self.residents.bytes().saturating_sub((own - after) as u64);
        let standing_of = |user| scene.users.standing(user, scene.now);
        let not_pinned = (Class::Pinned, Rank(u64::MAX));
        if let Some(last) = self.residents.last(not_pinned, over, standing_of) {
            self.strain.bytes = after;
            self.strain.since.get_or_insert(scene.now);
            last.into_iter().for_each(|id| self.evict(id, changes));
        }
    }

    /// There is more memory, or less: what is more is not taken at once.
    pub(super) fn clamp_strain(&mut self) {
        self.strain.bytes = self.strain.room_bytes(self.own_resident_room());
    }

    /// Gives back a half when it is time; not what is still taken by what cannot go.
    pub(super) fn relax(&mut self, scene: Scene<'_>, changes: &mut Changes) {
        let is_time = |since| scene.now.duration_since(since) > limits::STRAIN_HALVES;
        if !self.strain.since.is_some_and(is_time) {
            return;
        }
        let before = self.strain.room_bytes(self.own_resident_room());
        let half = before / 2;
        self.strain.bytes = if half < limits::EXTENT_BYTES_RANGE.start() / 2 { 0 } else { half };
        self.fit_pool(scene, changes);
        let taken = self.pool_bytes + self.beside_bytes();
        let over = taken.saturating_sub(self.own_pool_room()).min(before);
        self.strain.bytes = self.strain.bytes.max(over);
        self.strain.since = (self.strain.bytes > 0).then_some(scene.now);
    }
}
