//! Which extents stay.
//!
//! Each extent has a rank, a hash of what it is. Those that rank first stay: a sample of all that was seen, spread evenly over it,
//! that is the same in each epoch whatever the order. Of a cyclic or a reshuffled scan it hits as much as any cache could.

use std::collections::{BTreeSet, BinaryHeap, HashMap};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ExtentId;
use super::users::{Class, Standing, UserId};

/// Ranks are the same after a restart, and on each broker.
const SEED: u64 = 0x6461_7461_7365_7473;

/// A place in the order of those that stay: the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub u64);

impl Rank {
    pub(super) fn of(id: ExtentId) -> Self {
        match id.is_together() {
            true => Self(xxh3_64_with_seed(&id.object.to_le_bytes(), SEED)),
            false => Self(hash_of(id)),
        }
    }
}

/// Of what an extent is.
pub(super) fn hash_of(id: ExtentId) -> u64 {
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(&id.object.to_le_bytes());
    bytes[16..24].copy_from_slice(&id.start.to_le_bytes());
    bytes[24..].copy_from_slice(&id.bytes.to_le_bytes());
    xxh3_64_with_seed(&bytes, SEED)
}

/// The extents that stay in one tier.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    of_users: HashMap<UserId, OfUser>,
    users: HashMap<ExtentId, (UserId, u64)>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct OfUser {
    ranks: BTreeSet<(Rank, ExtentId)>,
    bytes: u64,
}

impl Ranks {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn bytes_of(&self, user: UserId) -> u64 {
        self.of_users.get(&user).map_or(0, |of_user| of_user.bytes)
    }

    pub(super) fn insert(&mut self, id: ExtentId, user: UserId, bytes: u64) {
        self.remove(id);
        let of_user = self.of_users.entry(user).or_default();
        of_user.ranks.insert((Rank::of(id), id));
        of_user.bytes += bytes;
        self.users.insert(id, (user, bytes));
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, id: ExtentId) {
        let Some((user, bytes)) = self.users.remove(&id) else { return };
        self.bytes -= bytes;
        if let Some(of_user) = self.of_users.get_mut(&user) {
            of_user.ranks.remove(&(Rank::of(id), id));
            of_user.bytes -= bytes;
            if of_user.ranks.is_empty() {
                self.of_users.remove(&user);
            }
        }
    }

    pub(super) fn user_of(&self, id: ExtentId) -> Option<UserId> {
        self.users.get(&id).map(|(user, _)| *user)
    }

    /// From now on it is this user's, who has read it.
    pub(super) fn is_of(&mut self, id: ExtentId, user: UserId) {
        if let Some((owner, bytes)) = self.users.get(&id).copied()
            && owner != user
        {
            self.insert(id, user, bytes);
        }
    }

    /// Of those that rank after `candidate`, the last ones, as many as have `needed` bytes together; `None` if they have fewer.
    pub(super) fn last(
        &self,
        candidate: (Class, Rank),
        needed: u64,
        standing_of: impl Fn(UserId) -> Standing,
    ) -> Option<Vec<ExtentId>> {
        if needed == 0 {
            return Some(Vec::new());
        }
        // The last one of each user, the very last on top.
        let mut tops = BinaryHeap::new();
        for (user, of_user) in &self.of_users {
            let standing = standing_of(*user);
            if let Some((rank, id)) = of_user.ranks.last() {
                tops.push((standing.place(*rank), *rank, *id, *user));
            }
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some((place, rank, id, user)) = tops.pop() {
            if place <= candidate {
                return None;
            }
            bytes += self.users.get(&id).map_or(0, |(_, bytes)| *bytes);
            found.push(id);
            if bytes >= needed {
                return Some(found);
            }
            let before = self.of_users.get(&user).map(|of_user| of_user.ranks.range(..(rank, id)));
            if let Some((rank, id)) = before.and_then(|mut before| before.next_back()) {
                tops.push((standing_of(user).place(*rank), *rank, *id, user));
            }
        }
        None
    }

    /// All of them, those that rank first at the front, without regard to users.
    pub(super) fn in_order(&self) -> Vec<ExtentId> {
        let mut ids: Vec<_> = self.users.keys().copied().collect();
        ids.sort_by_cached_key(|id| (Rank::of(*id), *id));
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtentId, Rank, hash_of};

    #[test]
    fn extents_of_an_object_rank_each_for_itself_or_all_alike() {
        let at = |object, start| ExtentId { object, start, bytes: 8 };
        assert_ne!(Rank::of(at(7, 0)), Rank::of(at(7, 8)));
        let (one, other) = (ExtentId::together(7), ExtentId::together(8));
        assert_eq!(Rank::of(at(one, 0)), Rank::of(at(one, 8)));
        assert_ne!(Rank::of(at(one, 0)), Rank::of(at(other, 0)));
        assert_ne!(hash_of(at(one, 0)), hash_of(at(one, 8)), "what is counted is each for itself");
    }
}
