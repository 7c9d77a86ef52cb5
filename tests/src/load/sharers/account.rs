//! What all members of the group know together, and which of it cannot be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::history::{Event, History, What, is_on_cursor};

/// How many of something that is wrong are named.
const SHOWN: usize = 10;

/// Members that came, and how they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Stock clients that joined.
    pub stock: u64,
    /// Brief members that joined.
    pub brief: u64,
    /// Of them, those that left with LeaveGroup.
    pub left: u64,
    /// Those whose connection just ended.
    pub vanished: u64,
    /// Those that said nothing more and were told that they are no members any more.
    pub expired: u64,
    /// Members that asked for their cursors after the broker had been killed.
    pub late: u64,
}

/// A brief member, in one life of the broker. See [`super::brief`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub member: u64,
    /// [`Account::life`] when it joined.
    pub life: u32,
}

/// A record's acknowledgement.
struct Commit {
    /// When the first one was answered.
    at: Instant,
    /// The brief member that held the record then.
    by: Option<u64>,
}

/// What all members know together.
#[derive(Default)]
pub struct Account {
    /// How often each record was given to somebody.
    given: BTreeMap<u64, u64>,
    committed: HashMap<u64, Commit>,
    /// Records in commits whose answer was lost.
    unanswered: HashSet<u64>,
    /// Which brief member has a record now: it has not acknowledged it, nor begun to go.
    held: HashMap<u64, u64>,
    /// How often the broker was killed.
    pub life: u32,
    /// Who came and went.
    pub counts: Counts,
    history: History,
    faults: Vec<String>,
}

/// The account, as all members have it.
pub type Shared = Arc<Mutex<Account>>;

/// The account, locked.
pub fn lock(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    /// Something is not as promised.
    pub fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// How many faults there are so far.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.faults.len()
    }

    /// How many records were given to somebody.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given.len() as u64
    }

    /// How many records have a commit that was answered.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.committed.len() as u64
    }

    /// How many records were given more than once.
    #[must_use]
    pub fn again(&self) -> u64 {
        self.given.values().filter(|times| **times > 1).count() as u64
    }

    /// The broker is dead: nobody holds anything.
    pub fn broker_was_killed(&mut self) {
        self.life += 1;
        self.held.clear();
        self.history.killed();
    }

    /// The broker is ready again.
    pub fn broker_is_back(&mut self) {
        self.history.is_back();
    }

    /// Something is wrong with a record.
    fn record_fault(&mut self, number: u64, what: &str) {
        let shown = match self.faults.len() < 2 * SHOWN {
            true => format!("record {number} {what}: {}", self.history.of(number)),
            false => format!("record {number} {what}"),
        };
        self.fault(shown);
    }

    /// A member was given a record.
    pub fn give(&mut self, number: u64, event: Event) {
        *self.given.entry(number).or_default() += 1;
        self.history.note(number, event);
        if self.committed.get(&number).is_some_and(|commit| commit.at < event.asked) {
            self.record_fault(number, "was committed, and given to a member that asked afterwards");
        }
        if !is_on_cursor(event.offset) {
            self.record_fault(number, "was given to a member that reads beside the group");
        }
    }

    /// A brief member was given a record: nobody else of its kind may have it.
    pub fn hold(&mut self, number: u64, event: Event, holder: Holder) {
        self.give(number, event);
        if holder.life != self.life {
            return;
        }
        if let Some(other) = self.held.insert(number, holder.member) {
            let member = holder.member;
            self.record_fault(
                number,
                &format!("was given to member {member}, and member {other} had it"),
            );
        }
    }

    /// A brief member has a record no longer.
    pub fn release(&mut self, number: u64, holder: Holder) {
        if self.held.get(&number) == Some(&holder.member) {
            self.held.remove(&number);
        }
    }

    /// What became of a commit. `holder` is told if it is that of a brief member that has had the records to itself.
    pub fn commit(
        &mut self,
        numbers: impl IntoIterator<Item = u64>,
        event: Event,
        holder: Option<Holder>,
    ) {
        for number in numbers {
            self.history.note(number, event);
            match event.what {
                What::Committed => self.committed(number, holder),
                // Whether it counts is not known.
                What::Unanswered => {
                    self.unanswered.insert(number);
                }
                What::Given | What::NotCommitted(_) => {}
            }
        }
    }

    fn committed(&mut self, number: u64, holder: Option<Holder>) {
        let by = holder.map(|holder| holder.member);
        let former = self.committed.get(&number).and_then(|commit| commit.by);
        if let (Some(by), Some(former)) = (by, former) {
            self.record_fault(number, &format!("was acknowledged by {former} and by {by}"));
        }
        let at = Instant::now();
        let commit = self.committed.entry(number).or_insert(Commit { at, by });
        commit.by = commit.by.or(by);
        if let Some(holder) = holder {
            self.release(number, holder);
        }
    }

    /// All faults, now that the group has nothing left of what was `produced`.
    #[must_use]
    pub fn close(&self, produced: u64) -> Vec<String> {
        let mut faults = Vec::new();
        let mut lost = |what: &str, is_there: &dyn Fn(&u64) -> bool| {
            let lost: BTreeSet<u64> = (0..produced).filter(|number| !is_there(number)).collect();
            let first: Vec<_> = lost.iter().take(SHOWN).collect();
            if !lost.is_empty() {
                faults.push(format!("{} records {what}: {first:?}", lost.len()));
            }
        };
        lost("were given to nobody", &|number| self.given.contains_key(number));
        lost("were acknowledged by nobody", &|number| {
            self.committed.contains_key(number) || self.unanswered.contains(number)
        });
        faults.extend(self.faults.iter().take(2 * SHOWN).cloned());
        let more = self.faults.len().saturating_sub(2 * SHOWN);
        if more > 0 {
            faults.push(format!("{more} more"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Who;
    use super::*;

    const A: Holder = Holder { member: 1, life: 0 };
    const B: Holder = Holder { member: 2, life: 0 };

    fn event(what: What, asked: Instant) -> Event {
        Event { who: Who::Brief(1), what, offset: 1 << 52, asked }
    }

    #[test]
    fn what_is_acknowledged_once_or_given_again_is_no_fault() {
        let mut account = Account::default();
        let asked = Instant::now();
        let given = event(What::Given, asked);
        account.hold(0, given, A);
        account.hold(1, given, A);
        account.commit([0], event(What::Committed, asked), Some(A));
        account.release(1, A);
        account.hold(1, given, B);
        account.broker_was_killed();
        let after = Holder { member: 3, life: 1 };
        account.hold(1, given, after);
        account.commit([1], event(What::NotCommitted(25), asked), Some(after));
        account.commit([1], event(What::Committed, asked), Some(after));
        account.give(2, given);
        account.commit([2], event(What::Unanswered, asked), None);
        assert_eq!(account.close(3), Vec::<String>::new());
        assert_eq!((account.given(), account.acknowledged(), account.again()), (3, 2, 1));
    }

    #[test]
    fn whatever_breaks_the_promise_is_found() {
        let faults = |act: &dyn Fn(&mut Account, Event)| {
            let mut account = Account::default();
            act(&mut account, event(What::Given, Instant::now()));
            account.close(1).join("; ")
        };
        let check = |act: &dyn Fn(&mut Account, Event), expected: &str| {
            let found = faults(act);
            assert!(found.contains(expected), "{found:?} says nothing of {expected:?}");
        };
        check(&|_, _| {}, "1 records were given to nobody: [0]");
        check(&|account, given| account.give(0, given), "acknowledged by nobody");
        let refused = |account: &mut Account, given: Event| {
            account.commit([0], event(What::NotCommitted(25), given.asked), None);
        };
        check(&refused, "acknowledged by nobody");
        let twice = |account: &mut Account, given| {
            account.hold(0, given, A);
            account.hold(0, given, B);
        };
        check(&twice, "record 0 was given to member 2, and member 1 had it: 0.000 s given to");
        let afterwards = |account: &mut Account, given: Event| {
            account.commit([0], event(What::Committed, given.asked), None);
            let asked = Instant::now() + std::time::Duration::from_secs(1);
            account.give(0, Event { asked, ..given });
        };
        check(&afterwards, "given to a member that asked afterwards");
        let beside = |account: &mut Account, given| account.give(0, Event { offset: 9, ..given });
        check(&beside, "given to a member that reads beside the group");
        let both = |account: &mut Account, given: Event| {
            account.commit([0], event(What::Committed, given.asked), Some(A));
            account.commit([0], event(What::Committed, given.asked), Some(B));
        };
        check(&both, "record 0 was acknowledged by 1 and by 2");
        let many = |account: &mut Account, given| {
            for _ in 0..=2 * SHOWN {
                account.give(0, Event { offset: 9, ..given });
            }
        };
        check(&many, "1 more");
    }
}
