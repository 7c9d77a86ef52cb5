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
    /// What the edge is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::PlainHttp | Self::NoToken | Self::WrongToken => Refusal::Unauthorised,
            Self::NotRegistered => Refusal::UnknownEdge,
        }
    }
}

/// Who was refused lately, and when it was last.
#[derive(Default)]
pub(super) struct RefusedEdges {
    refused: Mutex<HashMap<(EdgeId, Why), Instant>>,
}

impl RefusedEdges {
    /// Notes a refusal. True where it is news: the edge was not refused for this reason within [`limits::UPLINK_IDLE`].
    pub fn note(&self, edge: &EdgeId, why: Why, now: Instant) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |last: &Instant| now.saturating_duration_since(*last) < limits::UPLINK_IDLE;
        if let Some(last) = refused.get_mut(&(edge.clone(), why)) {
            let news = !recent(last);
            *last = now;
            return news;
        }
        if refused.len() >= limits::UPLINK_REFUSED_EDGES {
            refused.retain(|_, last| recent(last));
        }
        if refused.len() >= limits::UPLINK_REFUSED_EDGES {
            return false;
        }
        refused.insert((edge.clone(), why), now);
        true
    }

    /// Who was refused within so long, each with its last reason.
    pub fn within(&self, past: Duration, now: Instant) -> BTreeMap<EdgeId, Why> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest: BTreeMap<EdgeId, (Instant, Why)> = BTreeMap::new();
        for ((edge, why), last) in refused.iter() {
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
