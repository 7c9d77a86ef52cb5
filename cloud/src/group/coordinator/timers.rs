//! One task that wakes for the group whose deadline comes first.

use std::sync::PoisonError;
use std::time::Instant;

use super::{Coordinator, SlotState, now};

impl Coordinator {
    pub(super) fn set_timer(&self, id: &str, state: &mut SlotState, due: Option<Instant>) {
        if state.due == due {
            return;
        }
        let mut timers = self.shared.timers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = state.due.take() {
            timers.remove(&(former, id.to_owned()));
        }
        if let Some(due) = due {
            timers.insert((due, id.to_owned()));
            if timers.first().is_some_and(|(first, _)| *first == due) {
                self.shared.timers_changed.notify_one();
            }
        }
        state.due = due;
    }

    pub(super) async fn run_timers(&self) {
        loop {
            let next = {
                let timers = self.shared.timers.lock().unwrap_or_else(PoisonError::into_inner);
                timers.first().cloned()
            };
            let sleep = async {
                match &next {
                    Some((due, _)) => tokio::time::sleep_until((*due).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.shutdown.cancelled() => return,
                () = self.shared.timers_changed.notified() => {}
                () = sleep => {
                    if let Some((_, id)) = next {
                        self.tick(&id).await;
                    }
                }
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
