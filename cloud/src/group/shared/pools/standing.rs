//! What an operator asks about pools.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Pools, SharedPool};
use crate::group::shared::cursor::Token;
use crate::group::shared::pool::Ledger;
use crate::store::keys::partition::PartitionKeys;

/// How a pool stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which partition.
    pub keys: PartitionKeys,
    /// The first offset that is not acknowledged.
    pub start: i64,
    /// What was done.
    pub ledger: Ledger,
    /// Records in flight by member.
    pub in_flight: Vec<(Token, u32)>,
    /// Fetches that wait for records.
    pub waiting: usize,
}

impl Pools {
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
                in_flight: state.pool.in_flight().collect(),
                waiting: pool.waiting.load(Ordering::Relaxed),
            })
        };
        let mut standings: Vec<Standing> = pools.into_iter().filter_map(standing).collect();
        standings.sort_by_key(|standing| (standing.keys.topic, standing.keys.partition));
        standings
    }
}
