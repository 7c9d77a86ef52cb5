//! What a topic holds, and how far its groups are behind: from the log and the groups, when it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use robustmq_common::ids::{PartitionIndex, TopicId};
use robustmq_common::limits;
use serde::Serialize;

use crate::group::coordinator::{Coordinator, CoordinatorError};
use crate::log::{Log, LogError};
use crate::store::keys::partition::PartitionKeys;
use crate::topics::Topic;

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// Which.
    pub partition: i32,
    /// The first readable offset.
    pub log_start_offset: i64,
    /// The first offset on the broker's own disk: what is before it, from the first readable one on, is archived.
    pub local_start_offset: i64,
    /// The offset after the last readable record.
    pub high_watermark: i64,
    /// The current leader epoch.
    pub leader_epoch: i32,
    /// Bytes of its batches, exact to about a chunk.
    pub bytes: u64,
    /// Records that went before retention asked for it, since memory was full (`memory`).
    pub pushed_out_records: u64,
}

impl PartitionReport {
    /// Offsets between start and end; compaction may have taken some of the records.
    #[must_use]
    pub fn records(&self) -> u64 {
        u64::try_from(self.high_watermark.saturating_sub(self.log_start_offset)).unwrap_or(0)
    }

    /// How many of them a group that committed `offset` has not read.
    fn lag(&self, offset: i64) -> u64 {
        let unread = self.high_watermark.saturating_sub(offset);
        u64::try_from(unread).unwrap_or(0).min(self.records())
    }
}

/// One group that has committed offsets of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupLag {
    /// The group.
    pub group: String,
    /// Partitions that it has committed offsets of.
    pub partitions: usize,
    /// Records in them that it has not read, or not acknowledged if it shares them.
    pub lag: u64,
}

/// The groups of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lags {
    /// Those that are furthest behind first.
    pub groups: Vec<GroupLag>,
    /// There are more groups than were looked at, or than are shown.
    pub more: bool,
}

impl Lags {
    /// Records that the group furthest behind has not read; `None` where no group reads.
    #[must_use]
    pub fn backlog(&self) -> Option<u64> {
        self.groups.first().map(|group| group.lag)
    }

    fn finish(&mut self, most: usize) {
        self.groups.sort_by(|a, b| b.lag.cmp(&a.lag).then_with(|| a.group.cmp(&b.group)));
        self.more |= self.groups.len() > most;
        self.groups.truncate(most);
    }
}

/// Every partition of a topic. Loads those that are not in memory.
///
/// # Errors
/// [`LogError`].
pub async fn partitions(log: &Log, topic: &Topic) -> Result<Vec<PartitionReport>, LogError> {
    let mut reports = Vec::new();
    for (index, bytes) in (0..).zip(log.topic_sizes(topic.id, topic.partitions).await?) {
        let partition = log.partition(topic.id, PartitionIndex(index)).await?;
        let offsets = partition.offsets();
        reports.push(PartitionReport {
            partition: index,
            log_start_offset: offsets.log_start_offset.0,
            local_start_offset: partition.local_start().0,
            high_watermark: offsets.high_watermark.0,
            leader_epoch: offsets.leader_epoch.0,
            bytes,
            pushed_out_records: partition.pushed_out(),
        });
    }
    Ok(reports)
}

/// Topics with their partitions.
pub type Partitions = [(Arc<Topic>, Vec<PartitionReport>)];

/// How far each group that reads one of `topics` is behind, by topic: at most `most` groups each, of the first
/// [`limits::REPORTED_GROUPS`] that there are.
///
/// # Errors
/// [`CoordinatorError`].
pub async fn lags(
    groups: &Coordinator,
    topics: &Partitions,
    most: usize,
) -> Result<BTreeMap<TopicId, Lags>, CoordinatorError> {
    let mut lags: BTreeMap<TopicId, Lags> =
        topics.iter().map(|(topic, _)| (topic.id, Lags::default())).collect();
    let mut after: Option<String> = None;
    for looked_at in 0.. {
        let Some(group) = groups.stored_after(after.as_deref()).await? else { break };
        if looked_at == limits::REPORTED_GROUPS {
            lags.values_mut().for_each(|lags| lags.more = true);
            break;
        }
        for (topic, partitions) in topics {
            let lag = lag_of(groups, &group, topic, partitions).await?;
            if let (Some(lag), Some(lags)) = (lag, lags.get_mut(&topic.id)) {
                lags.groups.push(lag);
            }
        }
        after = Some(group);
    }
    lags.values_mut().for_each(|lags| lags.finish(most));
    Ok(lags)
}

/// How far one group is behind on a topic; `None` if it has not read it.
async fn lag_of(
    groups: &Coordinator,
    group: &str,
    topic: &Topic,
    partitions: &[PartitionReport],
) -> Result<Option<GroupLag>, CoordinatorError> {
    let committed = groups.committed_of(group, topic.id).await?;
    if committed.is_empty() {
        return Ok(None);
    }
    let shares = groups.shares_records(group).await?;
    let mut lag = 0;
    for (index, offset) in &committed {
        let place = usize::try_from(index.0).ok();
        let Some(report) = place.and_then(|place| partitions.get(place)) else { continue };
        let keys = PartitionKeys { topic: topic.id, partition: *index };
        let progress = if shares { groups.progress(group, &keys).await? } else { None };
        // Its offset is that of the first record that is not acknowledged: many behind it may be.
        let shared_lag =
            progress.map(|progress| progress.lag(report.log_start_offset..report.high_watermark));
        lag += shared_lag.unwrap_or_else(|| report.lag(*offset));
    }
    Ok(Some(GroupLag { group: group.to_owned(), partitions: committed.len(), lag }))
}
