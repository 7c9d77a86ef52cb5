//! What happened to each record, so that whoever reads of a fault can tell whether the broker or the account is wrong.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Instant;

/// Records whose history is kept: those with the highest numbers that were given to anybody.
const KEPT: usize = 400_000;
/// Bit 52 alone is set above a sequence and a token of 20 bits: see `cloud/docs/shared-groups.md`.
const CURSOR_SHIFT: u32 = 52;
const TOKEN_SHIFT: u32 = 32;

/// Whether an offset is one on a member's cursor, and not one of the log.
#[must_use]
pub fn is_on_cursor(offset: i64) -> bool {
    offset >> CURSOR_SHIFT == 1
}

/// A member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A stock client: which of them, and the how many-th.
    Stock(u16, u32),
    /// One that speaks for itself, by its number.
    Brief(u64),
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stock(index, life) => write!(f, "stock client {index}.{life}"),
            Self::Brief(number) => write!(f, "member {number}"),
        }
    }
}

/// What became of a request that concerns a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A Fetch gave it.
    Given,
    /// A commit behind it was answered.
    Committed,
    /// A commit behind it was refused, or failed, with this error.
    NotCommitted(i32),
    /// The answer to a commit behind it was lost.
    Unanswered,
}

/// An answer, or the end of waiting for one.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// To whom.
    pub who: Who,
    /// What.
    pub what: What,
    /// Where the record was given, or the position that was committed.
    pub offset: i64,
    /// When it was asked for. Of a stock client's Fetch: not before.
    pub asked: Instant,
}

/// A death of the broker.
#[derive(Clone, Copy)]
struct Death {
    killed: Instant,
    back: Option<Instant>,
}

/// The history of all records.
pub struct History {
    started: Instant,
    deaths: Vec<Death>,
    records: BTreeMap<u64, Vec<(Instant, Event)>>,
}

impl Default for History {
    fn default() -> Self {
        Self { started: Instant::now(), deaths: Vec::new(), records: BTreeMap::new() }
    }
}

impl History {
    /// Something happened to a record just now.
    pub fn note(&mut self, number: u64, event: Event) {
        self.records.entry(number).or_default().push((Instant::now(), event));
        if self.records.len() > KEPT {
            self.records.pop_first();
        }
    }

    /// The broker is dead.
    pub fn killed(&mut self) {
        self.deaths.push(Death { killed: Instant::now(), back: None });
    }

    /// It is ready again.
    pub fn is_back(&mut self) {
        if let Some(death) = self.deaths.last_mut() {
            death.back = Some(Instant::now());
        }
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.started).as_secs_f64()
    }

    /// All that happened to a record, in order, with the deaths of the broker between.
    #[must_use]
    pub fn of(&self, number: u64) -> String {
        let Some(events) = self.records.get(&number) else {
            return "its history is not kept any more".to_owned();
        };
        let mut told: Vec<(Instant, String)> =
            events.iter().map(|(at, event)| (*at, self.told(event))).collect();
        let first = told.first().map_or(self.started, |(at, _)| *at);
        for death in self.deaths.iter().filter(|death| death.killed >= first) {
            told.push((death.killed, "the broker is killed".to_owned()));
            told.extend(death.back.map(|back| (back, "it is back".to_owned())));
        }
        told.sort_by_key(|(at, _)| *at);
        let told = told.iter().map(|(at, what)| format!("{:.3} s {what}", self.seconds(*at)));
        told.collect::<Vec<_>>().join("; ")
    }

    fn told(&self, event: &Event) -> String {
        let Event { who, what, offset, asked } = event;
        let place = match is_on_cursor(*offset) {
            true => {
                let token = offset >> TOKEN_SHIFT & 0xf_ffff;
                format!("{} of cursor {token}", offset & 0xffff_ffff)
            }
            false => format!("the log's offset {offset}"),
        };
        let asked = self.seconds(*asked);
        match what {
            What::Given => format!("given to {who} at {place}, asked {asked:.3} s"),
            What::Committed => format!("{who} has committed {place}, asked {asked:.3} s"),
            What::NotCommitted(code) => {
                format!("{who} is refused to commit {place} with {code}, asked {asked:.3} s")
            }
            What::Unanswered => format!("{who} hears nothing of {place}, asked {asked:.3} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_who_did_what_and_when_the_broker_died() {
        let mut history = History::default();
        let asked = history.started;
        let cursor = 1 << 52 | 7 << 32;
        let event = |who, what, offset| Event { who, what, offset, asked };
        history.note(3, event(Who::Stock(1, 2), What::Given, cursor | 90));
        history.note(3, event(Who::Stock(1, 2), What::NotCommitted(25), cursor | 91));
        history.killed();
        history.is_back();
        history.note(3, event(Who::Brief(8), What::Given, 90));
        history.note(3, event(Who::Brief(8), What::Unanswered, 91));
        history.note(3, event(Who::Brief(8), What::Committed, 91));
        let told = history.of(3);
        let parts: Vec<&str> = told.split("; ").collect();
        let expected = [
            "given to stock client 1.2 at 90 of cursor 7, asked 0.000 s",
            "stock client 1.2 is refused to commit 91 of cursor 7 with 25, asked 0.000 s",
            "the broker is killed",
            "it is back",
            "given to member 8 at the log's offset 90, asked 0.000 s",
            "member 8 hears nothing of the log's offset 91, asked 0.000 s",
            "member 8 has committed the log's offset 91, asked 0.000 s",
        ];
        assert_eq!(parts.len(), expected.len(), "{told}");
        for (part, expected) in parts.iter().zip(expected) {
            assert!(part.ends_with(expected), "{part:?} is not {expected:?}");
        }
        assert_eq!(history.of(4), "its history is not kept any more");
    }

    #[test]
    fn the_oldest_histories_go_first() {
        let mut history = History::default();
        let given =
            Event { who: Who::Brief(1), what: What::Given, offset: 0, asked: Instant::now() };
        for number in 0..=KEPT as u64 {
            history.note(number, given);
        }
        assert_eq!((history.records.len(), history.records.contains_key(&0)), (KEPT, false));
    }
}
