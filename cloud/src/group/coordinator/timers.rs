//! One task that wakes for the group whose deadline comes first.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use super::{Coordinator, SlotState, Timers, now};
use crate::group::timers::is_due;

impl Coordinator {
    fn timers(&self) -> MutexGuard<'_, Timers<String>> {
        self.shared.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_timer(&self, id: &str, state: &mut SlotState, due: Option<Instant>) {
        if state.due == due {
            return;
        }
        match due {
            Some(due) => self.timers().set(id.to_owned(), &mut state.due, due),
            None => self.timers().remove(id.to_owned(), state.due.take()),
        }
    }

    pub(super) async fn run_timers(&self) {
        let changed = self.timers().changed();
        while is_due(|| self.timers().first(), &changed, &self.shared.shutdown).await {
            let due = self.timers().pop(now());
            if let Some(id) = due {
                self.tick(&id).await;
            }
        }
    }

    async fn tick(&self, id: &str) {
        let slot = {
            let slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.get(id).cloned()
        };
        let Some(slot) = slot else { return };
        let mut state = slot.inner.lock().await;
        // The entry that fired is used up, so that setting the same time again counts as a change.
        self.set_timer(id, &mut state, None);
        if let Some(active) = &mut state.active {
            active.group.tick(now());
            self.carry_out(id, active);
            self.settle(id, &mut state);
        }
    }
}
