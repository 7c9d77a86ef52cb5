//! What an operator asks about pools.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Pools, SharedPool};
use crate::group::shared::cursor::Token;
use crate::group::shared::pool::Ledger;
use crate::store::keys::partition::PartitionKeys;
use robustmq_common::ids::{PartitionIndex, TopicId};

/// How a pool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which partition.
    pub keys: PartitionKeys,
    /// The first offset that is not acknowledged.
    pub start: i64,
    /// What was done.
    pub ledger: Ledger,
    /// Records that are leased now, by member.
    pub in_flight: BTreeMap<Token, u64>,
    /// Fetches that wait for records.
    pub waiting: usize,
}

/// How a whole group stands, since the broker started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupStanding {
    /// What was done.
    pub ledger: Ledger,
    /// Records that members hold.
    pub in_flight: u64,
    /// Partitions that it works on.
    pub partitions: usize,
}

impl Pools {
    /// How the groups stand that work now, or have since the start: at most `most`, those that were given most first.
    #[must_use]
    pub fn busiest(&self, most: usize) -> Vec<(String, GroupStanding)> {
        let (pools, past) = {
            let map = self.map();
            (map.pools.values().cloned().collect::<Vec<_>>(), map.past.clone())
        };
        let mut groups: HashMap<String, GroupStanding> = HashMap::new();
        for (group, ledger) in past {
            groups.entry(group).or_default().ledger = ledger;
        }
        for pool in pools {
            let Some(state) = pool.state() else { continue };
            let group = groups.entry(pool.group.clone()).or_default();
            group.ledger += state.pool.ledger();
            group.in_flight += state.pool.in_flight().values().sum::<u64>();
            group.partitions += 1;
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(name, group)| {
            let given = group.ledger.delivered + group.ledger.redelivered;
            (std::cmp::Reverse(given), name.clone())
        });
        groups.truncate(most);
        groups
    }

    /// Whether a member has fetched at one of its cursors since it was told them.
    pub(in crate::group::shared) fn is_read(
        &self,
        token: Token,
        partitions: impl IntoIterator<Item = (TopicId, PartitionIndex)>,
    ) -> bool {
        let map = self.map();
        partitions.into_iter().any(|(topic, partition)| {
            let cursor = map.cursors.get(&(token, topic, partition));
            cursor.is_some_and(|cursor| cursor.is_read.load(Ordering::Relaxed))
        })
    }

    /// How the loaded pools of a group stand.
    #[must_use]
    pub fn standings(&self, group: &str) -> Vec<Standing> {
        let pools: Vec<Arc<SharedPool>> = {
            let map = self.map();
            map.pools.values().filter(|pool| pool.group == group).cloned().collect()
        };
        let standing = |pool: Arc<SharedPool>| {
            let state = pool.state()?;
            Some(Standing {
                keys: pool.keys,
                start: state.pool.start(),
                ledger: state.pool.ledger(),
                in_flight: state.pool.in_flight(),
                waiting: pool.waiting.load(Ordering::Relaxed),
            })
        };
        let mut standings: Vec<Standing> = pools.into_iter().filter_map(standing).collect();
        standings.sort_by_key(|standing| (standing.keys.topic, standing.keys.partition));
        standings
    }
}
