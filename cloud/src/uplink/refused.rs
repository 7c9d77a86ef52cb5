//! Edges that are not let in: each is logged once and shown to an operator, however often it tries.
//!
//! **Invariant:** at most [`limits::UPLINK_REFUSED_EDGES`] are kept, since whoever reaches the listener may make names up. What finds no
//! room is refused all the same, and counted, but neither logged nor shown.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use robustmq_common::ids::EdgeId;
use robustmq_common::limits;
use robustmq_common::sync::Refusal;
use tokio::time::Instant;

/// Why an edge is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(super) enum Why {
    #[error("it comes over plain HTTP from another machine; use TLS")]
    PlainHttp,
    #[error("it shows no token, and one is needed")]
    NoToken,
    #[error("it shows a token that is not its own")]
    WrongToken,
    #[error("it shows a token and is not registered")]
    NotRegistered,
}

impl Why {
    const ALL: [Self; 4] = [Self::PlainHttp, Self::NoToken, Self::WrongToken, Self::NotRegistered];

    /// What the edge is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::PlainHttp | Self::NoToken | Self::WrongToken => Refusal::Unauthorised,
            Self::NotRegistered => Refusal::UnknownEdge,
        }
    }
}

/// Who was refused lately, and when.
#[derive(Default)]
pub(super) struct RefusedEdges {
    refused: Mutex<HashMap<(EdgeId, Why), Times>>,
}

/// When an edge was refused for one reason.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// The first time of those that followed each other within [`limits::UPLINK_SESSION_TIMEOUT`].
    since: Instant,
    last: Instant,
}

impl RefusedEdges {
    /// Notes a refusal. True where it is news: the edge was not refused for this reason within [`limits::UPLINK_IDLE`].
    pub fn note(&self, edge: &EdgeId, why: Why, now: Instant) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |times: &Times| now.saturating_duration_since(times.last);
        if let Some(times) = refused.get_mut(&(edge.clone(), why)) {
            let quiet = quiet(times);
            times.last = now;
            if quiet >= limits::UPLINK_SESSION_TIMEOUT {
                times.since = now;
            }
            return quiet >= limits::UPLINK_IDLE;
        }
        if refused.len() >= limits::UPLINK_REFUSED_EDGES {
            refused.retain(|_, times| quiet(times) < limits::UPLINK_IDLE);
        }
        if refused.len() >= limits::UPLINK_REFUSED_EDGES {
            return false;
        }
        refused.insert((edge.clone(), why), Times { since: now, last: now });
        true
    }

    /// Since when it is refused, if it was within so long: whoever was heard of before that is not let in any more, and whoever was heard of
    /// after it is another that shows the same id.
    pub fn since(&self, edge: &EdgeId, past: Duration, now: Instant) -> Option<Instant> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |times: &&Times| now.saturating_duration_since(times.last) < past;
        let reasons = Why::ALL.into_iter().filter_map(|why| refused.get(&(edge.clone(), why)));
        reasons.filter(recent).map(|times| times.since).max()
    }

    /// Who was refused within so long, each with its last reason.
    pub fn within(&self, past: Duration, now: Instant) -> BTreeMap<EdgeId, Why> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest: BTreeMap<EdgeId, (Instant, Why)> = BTreeMap::new();
        for ((edge, why), Times { last, .. }) in refused.iter() {
            let recent = now.saturating_duration_since(*last) < past;
            if recent && latest.get(edge).is_none_or(|(other, _)| other < last) {
                latest.insert(edge.clone(), (*last, *why));
            }
        }
        latest.into_iter().map(|(edge, (_, why))| (edge, why)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use robustmq_common::ids::EdgeId;
    use robustmq_common::limits;
    use tokio::time::Instant;

    use super::{RefusedEdges, Why};

    fn edge(name: &str) -> EdgeId {
        EdgeId::new(name).expect("a legal name")
    }

    #[test]
    fn a_refusal_is_news_once_for_each_edge_and_reason() {
        let (refused, start) = (RefusedEdges::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(refused.note(&edge("a"), Why::NoToken, start));
        assert!(!refused.note(&edge("a"), Why::NoToken, after(2)));
        assert!(refused.note(&edge("b"), Why::NoToken, after(2)));
        assert!(refused.note(&edge("a"), Why::WrongToken, after(3)));
        assert!(!refused.note(&edge("a"), Why::NoToken, after(4)));
        let minute = Duration::from_secs(60);
        let shown: Vec<_> = refused.within(minute, after(5)).into_iter().collect();
        assert_eq!(shown, [(edge("a"), Why::NoToken), (edge("b"), Why::NoToken)]);
        assert!(refused.within(minute, after(100)).is_empty());
        let much_later = after(5) + limits::UPLINK_IDLE;
        assert!(refused.note(&edge("a"), Why::NoToken, much_later), "it comes back");
    }

    /// The listing said that an edge is connected beside the reason for which it is refused.
    #[test]
    fn it_is_known_since_when_an_edge_is_refused() {
        let (refused, start) = (RefusedEdges::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let past = limits::UPLINK_SESSION_TIMEOUT;
        let since = |seconds| refused.since(&edge("a"), past, after(seconds));
        assert_eq!(since(0), None);
        for seconds in [10, 20, 30] {
            refused.note(&edge("a"), Why::NoToken, after(seconds));
        }
        refused.note(&edge("b"), Why::NoToken, after(31));
        assert_eq!(since(31), Some(after(10)), "it was not let in meanwhile");
        refused.note(&edge("a"), Why::WrongToken, after(32));
        assert_eq!(since(32), Some(after(32)));
        assert_eq!(since(47), None, "that was long ago");
        refused.note(&edge("a"), Why::NoToken, after(50));
        assert_eq!(since(50), Some(after(50)), "it was let in between, perhaps");
    }

    #[test]
    fn invented_names_do_not_grow_without_a_bound() {
        let (refused, start) = (RefusedEdges::default(), Instant::now());
        for number in 0..limits::UPLINK_REFUSED_EDGES {
            assert!(refused.note(&edge(&format!("made-up-{number}")), Why::NoToken, start));
        }
        assert!(!refused.note(&edge("one-more"), Why::NoToken, start));
        let later = start + limits::UPLINK_IDLE;
        assert!(refused.note(&edge("one-more"), Why::NoToken, later));
        assert_eq!(refused.within(Duration::from_secs(1), later).len(), 1);
    }
}
