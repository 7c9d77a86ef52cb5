//! The least that any cache would have had to fetch.

use std::collections::{BTreeSet, HashMap, VecDeque};

use robustmq_common::limits;

use super::users::UserId;

/// One read of an extent, however many Fetches it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    /// The extent's rank stands for it.
    pub extent: u64,
    pub bytes: u32,
    pub user: UserId,
    /// What came from the source for it.
    pub source_bytes: u32,
}

/// The last accesses.
#[derive(Debug, Default)]
pub(super) struct Trace(VecDeque<Access>);

impl Trace {
    pub(super) fn push(&mut self, access: Access) {
        if self.0.len() >= limits::dataset::TRACED_ACCESSES {
            self.0.pop_front();
        }
        self.0.push_back(access);
    }

    /// Those of one user, or all.
    pub(super) fn of(&self, user: Option<UserId>) -> Vec<Access> {
        let of_user = |access: &&Access| user.is_none_or(|user| user == access.user);
        self.0.iter().filter(of_user).copied().collect()
    }
}

/// What has to be fetched for these accesses by a cache of `budget_bytes` that is empty before them and knows the future: what is needed
/// last goes first, and what is needed later than all that is kept is not kept at all (L. A. Belady, 1966, with bypass).
///
/// Extents may be kept in part, as each byte were an extent of its own. For these the rule is known to be best, so that no cache of whole
/// extents can do with less.
pub(super) fn least_source_bytes(accesses: &[Access], budget_bytes: u64) -> u64 {
    let mut next_uses = vec![usize::MAX; accesses.len()];
    let mut last_seen = HashMap::new();
    for (at, access) in accesses.iter().enumerate().rev() {
        if let (Some(next), Some(place)) =
            (last_seen.insert(access.extent, at), next_uses.get_mut(at))
        {
            *place = next;
        }
    }
    // What is kept of each extent, and by its next use.
    let mut kept: HashMap<u64, u64> = HashMap::new();
    let mut order: BTreeSet<(usize, u64)> = BTreeSet::new();
    let (mut fetched, mut kept_bytes) = (0, 0);
    for (at, (access, next)) in accesses.iter().zip(next_uses).enumerate() {
        let bytes = u64::from(access.bytes);
        let was = kept.remove(&access.extent).unwrap_or(0);
        order.remove(&(at, access.extent));
        kept_bytes -= was;
        fetched += bytes.saturating_sub(was);
        if next == usize::MAX {
            continue;
        }
        kept.insert(access.extent, bytes);
        order.insert((next, access.extent));
        kept_bytes += bytes;
        while kept_bytes > budget_bytes {
            let Some((next, last)) = order.pop_last() else { break };
            let held = kept.remove(&last).unwrap_or(0);
            let over = kept_bytes - budget_bytes;
            kept_bytes -= held.min(over);
            if held > over {
                kept.insert(last, held - over);
                order.insert((next, last));
            }
        }
    }
    fetched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(extents: &[u64], budget_bytes: u64, expected: u64) {
        let access =
            |extent: &u64| Access { extent: *extent, bytes: 10, user: UserId(1), source_bytes: 10 };
        let accesses: Vec<_> = extents.iter().map(access).collect();
        assert_eq!(expected, least_source_bytes(&accesses, budget_bytes), "{extents:?}");
    }

    #[test]
    fn it_fetches_what_a_cache_that_knows_the_future_would() {
        check(&[], 100, 0);
        check(&[1, 1, 1], 10, 10);
        check(&[1, 1, 1], 0, 30);
        check(&[1, 2, 3, 1, 2, 3], 30, 30);
        // A scan that goes round hits what fits, and no more.
        check(&[1, 2, 3, 1, 2, 3], 20, 40);
        check(&[1, 2, 3, 1, 2, 3, 1, 2, 3], 20, 50);
        // Half an extent is kept.
        check(&[1, 2, 3, 1, 2, 3], 25, 35);
        // 9 is needed soon again and then never: it passes through the room of none of the others.
        check(&[1, 9, 9, 2, 1, 2], 20, 30);
        check(&[1, 2, 9, 1, 2], 20, 30);
    }

    #[test]
    fn only_the_last_accesses_are_kept() {
        let mut trace = Trace::default();
        for extent in 0..limits::dataset::TRACED_ACCESSES as u64 + 10 {
            trace.push(Access { extent, bytes: 1, user: UserId(1), source_bytes: 0 });
        }
        let accesses = trace.of(Some(UserId(1)));
        assert_eq!(limits::dataset::TRACED_ACCESSES, accesses.len());
        assert_eq!(Some(10), accesses.first().map(|access| access.extent));
        assert!(trace.of(Some(UserId(2))).is_empty());
    }
}
