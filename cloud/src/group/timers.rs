//! What is due when: the coordinators of all kinds of groups wake for what comes first.
//!
//! The entries are part of a coordinator's state, under its lock. Whoever has one remembers its time (`armed`), and forgets it when the entry
//! fires.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Entries by time, each for a `K`.
#[derive(Debug)]
pub struct Timers<K> {
    entries: BTreeSet<(Instant, K)>,
    changed: Arc<Notify>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { entries: BTreeSet::new(), changed: Arc::default() }
    }
}

impl<K: Ord> Timers<K> {
    /// Has `key` fire at `due`. `armed` is its entry.
    pub fn set(&mut self, key: K, armed: &mut Option<Instant>, due: Instant) {
        let former = armed.replace(due);
        if former == Some(due) {
            return;
        }
        let key = self.take(key, former);
        if self.first().is_none_or(|first| due < first) {
            self.changed.notify_one();
        }
        self.entries.insert((due, key));
    }

    /// Nothing fires for `key` any more. `armed` was its entry.
    pub fn remove(&mut self, key: K, armed: Option<Instant>) {
        self.take(key, armed);
    }

    fn take(&mut self, key: K, armed: Option<Instant>) -> K {
        let Some(armed) = armed else { return key };
        let entry = (armed, key);
        self.entries.remove(&entry);
        entry.1
    }

    /// Has `key` fire at `due` at the latest: an entry that fires earlier stays, and is set again when it fires. So a session that is heard of
    /// again and again costs nothing here.
    pub fn arm(&mut self, key: K, armed: &mut Option<Instant>, due: Instant) {
        if armed.is_none_or(|armed| due < armed) {
            self.set(key, armed, due);
        }
    }

    /// Takes the first entry, if it is due.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        self.first().filter(|due| *due <= now)?;
        self.entries.pop_first().map(|(_, key)| key)
    }

    /// When the first entry is due.
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        self.entries.first().map(|(due, _)| *due)
    }

    /// Tells when an entry comes before all others.
    #[must_use]
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Waits until the first entry is due; `false` if `shutdown` comes before. `first` is [`Timers::first`], asked again whenever `changed` tells.
pub async fn is_due(
    first: impl Fn() -> Option<Instant>,
    changed: &Notify,
    shutdown: &CancellationToken,
) -> bool {
    loop {
        let first = first();
        let sleep = async {
            match first {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = changed.notified() => {}
            () = sleep => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_has_one_entry_which_fires_no_later_than_it_was_armed_for() {
        let start = Instant::now();
        let at = |seconds| start + SECOND * seconds;
        let mut timers = Timers::default();
        let (mut a, mut b) = (None, None);
        timers.arm("a", &mut a, at(5));
        timers.arm("b", &mut b, at(7));
        timers.arm("a", &mut a, at(9));
        assert_eq!((a, timers.first()), (Some(at(5)), Some(at(5))), "the earlier one stays");
        timers.arm("b", &mut b, at(3));
        assert_eq!((b, timers.pop(at(2))), (Some(at(3)), None));
        assert_eq!(timers.pop(at(4)), Some("b"));
        assert_eq!((timers.pop(at(4)), timers.first()), (None, Some(at(5))));
        timers.set("a", &mut a, at(9));
        assert_eq!((a, timers.pop(at(8))), (Some(at(9)), None), "a time that is set is exact");
        timers.remove("a", a);
        assert!(timers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_wakes_for_what_comes_first() {
        let timers = Mutex::new(Timers::default());
        let changed = timers.lock().expect("no panic").changed();
        let shutdown = CancellationToken::new();
        let first = || timers.lock().expect("no panic").first();
        let started = tokio::time::Instant::now();
        let wait = is_due(first, &changed, &shutdown);
        tokio::pin!(wait);
        assert!(futures_util::poll!(&mut wait).is_pending());
        for (name, seconds) in [("late", 60), ("early", 10)] {
            let due = started.into_std() + SECOND * seconds;
            timers.lock().expect("no panic").arm(name, &mut None, due);
            assert!(futures_util::poll!(&mut wait).is_pending());
        }
        assert!(wait.await);
        assert_eq!(started.elapsed(), SECOND * 10);
        timers.lock().expect("no panic").pop(tokio::time::Instant::now().into_std());
        shutdown.cancel();
        assert!(!is_due(first, &changed, &shutdown).await);
        assert_eq!(started.elapsed(), SECOND * 10);
    }
}
