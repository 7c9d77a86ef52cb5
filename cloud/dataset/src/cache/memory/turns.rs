//! Who waits for room in the pool: loads that somebody waits for, and what is fetched of objects to know what they hold.
//!
//! First come, first served, each for itself: readers do not wait for who counts ahead of them, and who needs much is not passed by those who
//! need little.
//!
//! **Invariant:** one load goes on however large it is, and one piece of an object however full the pool is.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{Loading, Memory, ahead_bytes};
use crate::cache::scene::{Changes, Scene};
use crate::cache::users::UserId;
use crate::cache::{ExtentId, Outcome};

/// Who waits for room.
#[derive(Debug)]
struct Waiting<T> {
    of: T,
    bytes: usize,
    turn: oneshot::Sender<()>,
}

/// Those who wait, and what was taken by who is not in the pool.
#[derive(Debug, Default)]
pub(super) struct Turns {
    loads: VecDeque<Waiting<ExtentId>>,
    pieces: VecDeque<Waiting<()>>,
    /// What is fetched of objects that are indexed.
    pub(super) pieces_bytes: usize,
}

impl Turns {
    /// Whether somebody waits for a load of theirs.
    pub(super) fn has_loads(&self) -> bool {
        !self.loads.is_empty()
    }

    pub(super) fn forget(&mut self, id: ExtentId) {
        self.loads.retain(|waiting| waiting.of != id);
    }
}

impl Memory {
    /// Begins a load that nobody waits for; whether there is room for it: in the pool, or among those that stay, as long as these are few.
    pub(in crate::cache) fn begin_ahead(
        &mut self,
        id: ExtentId,
        user: UserId,
        outcome: Outcome,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> bool {
        let bytes = self.estimate(id);
        let most = ahead_bytes(self.budget_bytes);
        let is_free = bytes as u64 <= self.free_bytes() && self.free_loading_bytes + bytes <= most;
        if !is_free && (self.turns.has_loads() || !self.has_room(bytes, scene, changes)) {
            return false;
        }
        let (free_bytes, pool_bytes) = if is_free { (bytes, 0) } else { (0, bytes) };
        self.pool_bytes += pool_bytes;
        self.free_loading_bytes += free_bytes;
        let loading = Loading { outcome, user, pool_bytes, free_bytes, is_waited_for: false };
        self.loads.insert(id, loading);
        true
    }

    /// Begins a load that somebody waits for, who `is_reader` or not. Where there is no room for it, it is told when there is.
    pub(in crate::cache) fn begin_waited(
        &mut self,
        id: ExtentId,
        (user, is_reader): (UserId, bool),
        outcome: Outcome,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> Option<oneshot::Receiver<()>> {
        let bytes = self.estimate(id);
        if is_reader {
            self.take_what_lacks(id, bytes, scene, changes);
        }
        let has_room =
            !self.turns.has_loads() && self.make_room(bytes, Some(scene.now), scene, changes);
        let pool_bytes = if has_room { bytes } else { 0 };
        self.pool_bytes += pool_bytes;
        let is_waited_for = is_reader;
        let loading = Loading { outcome, user, pool_bytes, free_bytes: 0, is_waited_for };
        self.loads.insert(id, loading);
        (!has_room).then(|| self.wait_for_load(id, bytes))
    }

    /// A load that there is no room for yet; it is told when it may go on.
    fn wait_for_load(&mut self, id: ExtentId, bytes: usize) -> oneshot::Receiver<()> {
        let (turn, mine) = oneshot::channel();
        self.turns.loads.push_back(Waiting { of: id, bytes, turn });
        mine
    }

    /// Takes room for a piece of an object, if there is some now and nobody waits for it.
    pub(in crate::cache) fn take_piece(
        &mut self,
        bytes: usize,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> bool {
        let has_room =
            self.turns.pieces.is_empty() && self.has_room_for_piece(bytes, scene, changes);
        if has_room {
            self.turns.pieces_bytes += bytes;
        }
        has_room
    }

    /// The same for who waits: told when it was taken.
    pub(in crate::cache) fn wait_for_piece(&mut self, bytes: usize) -> oneshot::Receiver<()> {
        let (turn, mine) = oneshot::channel();
        self.turns.pieces.push_back(Waiting { of: (), bytes, turn });
        mine
    }

    pub(in crate::cache) fn is_room_awaited(&self) -> bool {
        !self.turns.pieces.is_empty() || self.turns.has_loads()
    }

    /// Does something while so much of what pieces have taken counts as free: it takes their place.
    pub(in crate::cache) fn instead_of_pieces(
        &mut self,
        bytes: usize,
        then: impl FnOnce(&mut Self),
    ) {
        let bytes = bytes.min(self.turns.pieces_bytes);
        self.turns.pieces_bytes -= bytes;
        then(self);
        self.turns.pieces_bytes += bytes;
    }

    /// What is left of a piece takes room, whether there is some or not.
    pub(in crate::cache) fn keep_piece(&mut self, bytes: usize) {
        self.turns.pieces_bytes += bytes;
    }

    pub(in crate::cache) fn give_back_piece(&mut self, bytes: usize) {
        self.turns.pieces_bytes -= bytes;
    }

    pub(in crate::cache) fn pieces_bytes(&self) -> usize {
        self.turns.pieces_bytes
    }

    /// Half of read-ahead's room is for them, and half of what nothing has taken yet that stays.
    fn has_room_for_piece(
        &mut self,
        bytes: usize,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) -> bool {
        if self.turns.pieces_bytes == 0 {
            // Somebody goes on in any case. What was read ahead and goes for that is fetched once more.
            self.make_room(bytes, Some(scene.now), scene, changes);
            return true;
        }
        if self.turns.has_loads() {
            // Whoever reads comes before who counts ahead.
            return false;
        }
        let free = self.resident_room().saturating_sub(self.residents.bytes());
        let free = usize::try_from(free / 2).unwrap_or(usize::MAX);
        let most = self.own_pool_room() / 2;
        self.turns.pieces_bytes + bytes <= most.saturating_add(free)
            && (self.free_bytes() >= bytes as u64 || self.has_room(bytes, scene, changes))
    }

    /// What is being sent may take half of the room for long, and more where the room was larger before: who does not fit beside it goes on when no
    /// other load is under way. What is being sent may be the beginning of an answer that waits for just this load.
    fn may_go_beyond(&self, bytes: usize) -> bool {
        let half = self.own_pool_room() / 2;
        let is_alone = || self.loads.values().all(|loading| loading.pool_bytes == 0);
        let is_large = || bytes > half || self.lent.bytes_of(|id| !self.is_resident(id)) > half;
        self.pool_bytes == 0 || (is_alone() && is_large())
    }

    /// Lets those go on who wait and whom there is room for now.
    pub(in crate::cache) fn serve(&mut self, scene: Scene<'_>, changes: &mut Changes) {
        self.relax(scene, changes);
        while let Some(Waiting { of, bytes, turn }) = self.turns.loads.front() {
            let (id, bytes, is_gone) = (*of, *bytes, turn.is_closed());
            let most = self.pool_room();
            let fits = is_gone
                || self.make_room(bytes.min(most), Some(scene.now), scene, changes)
                || self.may_go_beyond(bytes);
            if !fits {
                break;
            }
            let Some(first) = self.turns.loads.pop_front() else { break };
            if let Some(loading) = self.loads.get_mut(&id).filter(|_| !is_gone) {
                loading.pool_bytes = bytes;
                self.pool_bytes += bytes;
                first.turn.send(()).ok();
            }
        }
        while let Some(Waiting { bytes, turn, .. }) = self.turns.pieces.front() {
            let (bytes, is_gone) = (*bytes, turn.is_closed());
            if !is_gone && !self.has_room_for_piece(bytes, scene, changes) {
                break;
            }
            let Some(first) = self.turns.pieces.pop_front() else { break };
            // Who is gone by now was not given anything.
            if first.turn.send(()).is_ok() {
                self.turns.pieces_bytes += bytes;
            }
        }
    }
}
