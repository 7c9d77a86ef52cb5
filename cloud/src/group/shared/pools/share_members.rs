//! Members of share groups: they take part in a pool without a cursor, and settle what they have acquired record by record.

use std::ops::Range;
use std::sync::Arc;

use robustmq_common::ids::KafkaTopic;

use super::{PoolError, Pools, SharedPool};
use crate::group::shared::config::GroupConfig;
use crate::group::shared::cursor::Token;
use crate::group::shared::dead_letter;
use crate::group::shared::deliver::DeliverError;
use crate::group::shared::pool::{NotHeld, Offer, Verdict};
use crate::log::Partition;
use crate::store::keys::partition::PartitionKeys;

/// Why records cannot be settled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// They are not the member's, or no longer.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// What is rejected cannot be put where it should go.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// That they are settled cannot be stored: say it again.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Pools {
    /// A member of a share group takes part in a pool.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn enter(
        &self,
        group: &str,
        keys: PartitionKeys,
        token: Token,
        config: &Arc<GroupConfig>,
    ) -> Result<Arc<SharedPool>, PoolError> {
        let entered = self.take_part(group, keys, config, |_, shared, pool| {
            pool.enter(token);
            shared.clone()
        });
        entered.await
    }

    /// It no longer does: what it holds goes back.
    pub fn exit(self: &Arc<Self>, pool: &Arc<SharedPool>, token: Token) {
        self.part(pool, token);
    }

    /// Does what a member says of records that it has acquired, all or nothing, and waits until that is durable.
    ///
    /// # Errors
    /// [`SettleError`].
    pub async fn settle_records(
        &self,
        pool: &SharedPool,
        partition: &Partition,
        token: Token,
        verdicts: &[(Range<i64>, Verdict)],
    ) -> Result<(), SettleError> {
        let rejected = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Reject);
        if let Some(into) = dead_letter::topic_of(self, pool).await {
            for (offsets, _) in rejected {
                self.bury_rejected(pool, partition, token, offsets, &into).await?;
            }
        }
        let is_released = verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Release);
        {
            let held = |offsets: &Range<i64>| NotHeld(offsets.clone());
            let none = verdicts.first().map_or(NotHeld(0..1), |(offsets, _)| held(offsets));
            let mut state = pool.state().ok_or(none)?;
            state.pool.settle(token, verdicts)?;
            state.touch();
        }
        if is_released {
            pool.returned.notify_one();
        }
        Ok(self.persist(pool).await?)
    }

    /// Before it counts as rejected: if the broker dies in between, it is in the dead-letter topic twice.
    async fn bury_rejected(
        &self,
        pool: &SharedPool,
        partition: &Partition,
        token: Token,
        offsets: &Range<i64>,
        into: &KafkaTopic,
    ) -> Result<(), SettleError> {
        let mut from = offsets.start;
        while from < offsets.end {
            let rest = from..offsets.end;
            let deliveries = match pool.state() {
                Some(state) => {
                    state.pool.check_held(token, &rest)?;
                    state.pool.deliveries_at(from).saturating_add(1)
                }
                None => return Err(NotHeld(rest).into()),
            };
            let offer = Offer { offsets: rest, deliveries };
            let buried = dead_letter::bury(self, pool, partition, &offer, Some(into)).await?;
            from = buried.offsets.end;
        }
        Ok(())
    }
}
