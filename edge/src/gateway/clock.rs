//! The MQTT server's time: milliseconds that never go back, over restarts too.

use std::time::Duration;

use robustmq_common::mqtt::server::Millis;

use crate::queue::{Clock, Now};
use crate::state::SavedClock;

/// Server time. It advances with the time since boot (suspended time included), and goes on after a restart from what was
/// saved plus the wall time that has passed since, where both wall clocks can be believed.
pub(super) struct ServerClock<C> {
    source: C,
    /// Server time at `started`.
    base: Millis,
    started: Duration,
}

impl<C: Clock> ServerClock<C> {
    pub(super) fn resume(source: C, saved: SavedClock) -> Self {
        let now = source.now();
        let passed = match (saved.wall_ms, now.wall_ms) {
            (Some(then), Some(now)) => u64::try_from(now.saturating_sub(then)).unwrap_or(0),
            _ => 0,
        };
        let base = Millis(saved.server_ms.saturating_add(passed));
        Self { source, base, started: now.uptime }
    }

    /// Server time now.
    pub(super) fn now(&self) -> Millis {
        self.at(&self.source.now())
    }

    /// The machine's own idea of now.
    pub(super) fn machine_now(&self) -> Now {
        self.source.now()
    }

    /// What to save, so that a later start goes on from here.
    pub(super) fn save(&self) -> SavedClock {
        let now = self.source.now();
        SavedClock { server_ms: self.at(&now).0, wall_ms: now.wall_ms }
    }

    fn at(&self, now: &Now) -> Millis {
        self.base.after(now.uptime.saturating_sub(self.started))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;
    use std::time::Duration;

    use robustmq_common::mqtt::server::Millis;

    use super::ServerClock;
    use crate::queue::{BootId, Clock, Now};
    use crate::state::SavedClock;

    struct At(Mutex<Cell<Now>>);

    impl At {
        fn new(uptime_ms: u64, wall_ms: Option<i64>) -> Self {
            let now =
                Now { boot: BootId([1; 16]), uptime: Duration::from_millis(uptime_ms), wall_ms };
            Self(Mutex::new(Cell::new(now)))
        }
    }

    impl Clock for &At {
        fn now(&self) -> Now {
            self.0.lock().unwrap().get()
        }
    }

    #[test]
    fn time_goes_on_after_a_restart() {
        const WALL: i64 = 1_800_000_000_000;
        let check = |saved: (u64, Option<i64>), wall_now: Option<i64>, expected: u64| {
            let saved = SavedClock { server_ms: saved.0, wall_ms: saved.1 };
            let source = At::new(5_000, wall_now);
            let clock = ServerClock::resume(&source, saved);
            assert_eq!(clock.now(), Millis(expected), "{saved:?} {wall_now:?}");
        };
        check((0, None), Some(WALL), 0);
        check((100, Some(WALL)), Some(WALL + 250), 350);
        check((100, Some(WALL)), Some(WALL - 250), 100);
        check((100, None), Some(WALL), 100);
        check((100, Some(WALL)), None, 100);
    }

    #[test]
    fn time_follows_the_time_since_boot() {
        let source = At::new(5_000, None);
        let clock = ServerClock::resume(&source, SavedClock { server_ms: 7, wall_ms: None });
        let later = Now { uptime: Duration::from_millis(6_500), ..(&source).now() };
        source.0.lock().unwrap().set(later);
        assert_eq!(clock.now(), Millis(1_507));
        assert_eq!(clock.save(), SavedClock { server_ms: 1_507, wall_ms: None });
    }
}
