//! Offsets that nobody needs any more: of groups that have had no members for long, and of topics that are gone.

use std::collections::HashMap;
use std::time::Duration;

use robustmq_common::ids::TopicId;
use robustmq_common::limits;

use super::offsets::delete_offset;
use super::{Coordinator, CoordinatorError, WriteBatch, keys};

impl Coordinator {
    /// Goes through all stored groups once, at `now_ms` (milliseconds since 1970). Removes offsets of topics that `exists`
    /// denies, and, from groups without members, offsets older than `retention`; groups that are left with none go too.
    /// Returns how many offsets went.
    ///
    /// `exists` is asked after the offsets were read, and a topic exists before anybody can commit to it: what it denies has
    /// been deleted, and since an id is never given twice, the offset is of no use to anybody.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn expire<F>(
        &self,
        retention: Duration,
        now_ms: i64,
        exists: impl Fn(TopicId) -> F,
    ) -> Result<usize, CoordinatorError>
    where
        F: Future<Output = bool>,
    {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let oldest_kept_ms = now_ms.saturating_sub(retention_ms);
        let mut removed = 0;
        let mut after = None;
        // What `exists` said: many groups read the same topics.
        let mut there = HashMap::new();
        while let Some(id) = self.next_stored(after.as_deref()).await? {
            if there.len() >= limits::EXPIRY_TOPICS {
                there.clear();
            }
            removed += self.expire_group(&id, oldest_kept_ms, &exists, &mut there).await?;
            after = Some(id);
        }
        Ok(removed)
    }

    async fn expire_group<F>(
        &self,
        id: &str,
        oldest_kept_ms: i64,
        exists: &impl Fn(TopicId) -> F,
        there: &mut HashMap<TopicId, bool>,
    ) -> Result<usize, CoordinatorError>
    where
        F: Future<Output = bool>,
    {
        let offsets = self.all_committed(id).await?;
        for (topic, _, _) in &offsets {
            if !there.contains_key(topic) {
                there.insert(*topic, exists(*topic).await);
            }
        }
        let total = offsets.len();
        let is_old = |since_ms: i64| since_ms < oldest_kept_ms;
        let pending = self
            .with(id, |active, _| {
                let empty = active.group.may_delete().is_ok() && !self.is_in_use(id);
                let away = empty && is_old(active.changed_ms);
                let goes = |topic: TopicId, committed_ms: i64| {
                    there.get(&topic) == Some(&false) || (away && is_old(committed_ms))
                };
                let gone: Vec<_> = offsets
                    .iter()
                    .filter(|(topic, _, offset)| goes(*topic, offset.committed_ms))
                    .collect();
                let mut batch = WriteBatch::new();
                for (topic, partition, _) in &gone {
                    delete_offset(&mut batch, id, *topic, *partition);
                }
                if away && gone.len() == total {
                    batch.delete(keys::metadata_key(id));
                    batch.delete_range(keys::snapshots_range(id));
                    active.is_stored = false;
                }
                if batch.is_empty() {
                    return Ok(None);
                }
                let pending = self.shared.store.submit(batch)?;
                Ok::<_, CoordinatorError>(Some((pending, gone.len())))
            })
            .await??;
        match pending {
            Some((pending, count)) => {
                pending.await?;
                Ok(count)
            }
            None => Ok(0),
        }
    }
}
