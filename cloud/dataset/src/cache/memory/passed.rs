//! What readers are past goes first, but for what another one will read soon.

use robustmq_common::limits;
use tokio::time::Instant;

use super::{Memory, Place};
use crate::cache::ExtentId;
use crate::cache::scene::{Changes, Scene};
use crate::cache::users::UserId;

impl Memory {
    /// Whether it is here for now; then this user, too, will read it.
    pub(in crate::cache) fn will_be_read(
        &mut self,
        id: ExtentId,
        user: UserId,
        now: Instant,
    ) -> bool {
        let Some(held) = self.held.get_mut(&id) else { return false };
        if held.user != user {
            held.next_user = Some((user, now));
        }
        true
    }

    /// A reader has read past it. Where another user reads it now, it is that one's to say so.
    pub(in crate::cache) fn passed(
        &mut self,
        id: ExtentId,
        user: UserId,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) {
        self.strain.take_gone(id);
        let Some(held) = self.held.get_mut(&id) else { return };
        if held.user != user && held.read.is_some() {
            return;
        }
        held.read = None;
        let Place::Pool { tick } = held.place else { return };
        let next = held
            .next_user
            .take()
            .filter(|(_, since)| scene.now.duration_since(*since) <= limits::dataset::AHEAD_KEPT);
        if let Some((next, _)) = next.filter(|(next, _)| *next != user) {
            // It was read ahead for that one.
            held.user = next;
            self.current.remove(&tick);
            self.ahead.insert(tick, (id, scene.now));
            return;
        }
        let ranks = self.held.get(&id).and_then(|held| self.pushed_out(id, held, scene)).is_some();
        if ranks {
            self.leave_pool(id, scene, changes);
        } else if self.current.remove(&tick).or_else(|| self.ahead.remove(&tick)).is_some() {
            self.passed.insert(tick, (id, scene.now));
        }
    }

    /// It was loaded for somebody who is no reader, and who will not say that it was read: it stays if it ranks, and goes otherwise when its
    /// room is needed.
    pub(in crate::cache) fn brought(
        &mut self,
        id: ExtentId,
        scene: Scene<'_>,
        changes: &mut Changes,
    ) {
        let user = self.held.get(&id).filter(|held| held.read.is_none()).map(|held| held.user);
        if let Some(user) = user {
            self.passed(id, user, scene, changes);
        }
    }
}
