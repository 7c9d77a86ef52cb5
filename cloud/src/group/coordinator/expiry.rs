//! Offsets that nobody needs any more: of groups that have had no members for long, and of topics that are gone.

use std::time::Duration;

use robustmq_common::ids::TopicId;

use super::{Coordinator, CoordinatorError, WriteBatch, keys, wall_ms};

impl Coordinator {
    /// Goes through all stored groups once. Removes offsets of topics that `exists` denies, and, from groups without
    /// members, offsets older than `retention`; groups that are left with none go too. Returns how many offsets went.
    ///
    /// `exists` knows the topics that there were at `listed_ms` (milliseconds since 1970): what was committed since then may
    /// be of a newer topic, and stays.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn expire(
        &self,
        retention: Duration,
        listed_ms: i64,
        exists: impl Fn(TopicId) -> bool,
    ) -> Result<usize, CoordinatorError> {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let mut removed = 0;
        let mut after = None;
        while let Some(id) = self.next_stored(after.as_deref()).await? {
            removed += self.expire_group(&id, retention_ms, listed_ms, &exists).await?;
            after = Some(id);
        }
        Ok(removed)
    }

    async fn expire_group(
        &self,
        id: &str,
        retention_ms: i64,
        listed_ms: i64,
        exists: &impl Fn(TopicId) -> bool,
    ) -> Result<usize, CoordinatorError> {
        let offsets = self.all_committed(id).await?;
        let total = offsets.len();
        let now_ms = wall_ms();
        let is_old = |since_ms: i64| now_ms.saturating_sub(since_ms) > retention_ms;
        let pending = self
            .with(id, |active, _| {
                let empty = active.group.may_delete().is_ok();
                let away = empty && is_old(active.changed_ms);
                let goes = |topic: TopicId, committed_ms: i64| {
                    let topic_is_gone = committed_ms < listed_ms && !exists(topic);
                    topic_is_gone || (away && is_old(committed_ms))
                };
                let gone: Vec<_> = offsets
                    .iter()
                    .filter(|(topic, _, offset)| goes(*topic, offset.committed_ms))
                    .collect();
                let mut batch = WriteBatch::new();
                for (topic, partition, _) in &gone {
                    batch.delete(keys::offset_key(id, *topic, *partition));
                }
                if away && gone.len() == total {
                    batch.delete(keys::metadata_key(id));
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
