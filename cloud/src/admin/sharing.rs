//! What a group that shares records does: by partition and by member.

use robustmq_common::ids::{KafkaTopic, TopicId};
use serde::Serialize;

use super::State;
use crate::group::shared::pool::Ledger;
use crate::store::keys::partition::PartitionKeys;

#[derive(Serialize)]
pub(super) struct Shown {
    partitions: Vec<ShownPartition>,
    members: Vec<ShownMember>,
}

#[derive(Serialize)]
struct ShownPartition {
    topic: Option<KafkaTopic>,
    topic_id: TopicId,
    partition: i32,
    /// The first offset that is not acknowledged.
    start: i64,
    /// Records that are not acknowledged; null if the log cannot be read.
    lag: Option<u64>,
    /// Since the group's members last began on it.
    #[serde(flatten)]
    ledger: Ledger,
    in_flight: u64,
    /// Fetches that wait for records.
    waiting: usize,
}

#[derive(Serialize)]
struct ShownMember {
    member_id: String,
    in_flight: u64,
}

/// What a group does now; `None` if it shares no records, or has no members.
pub(super) async fn of(state: &State, group: &str) -> Option<Shown> {
    let (names, standings) = state.groups.sharing()?.standings(group);
    if standings.is_empty() {
        return None;
    }
    let mut by_member: std::collections::BTreeMap<String, u64> = Default::default();
    let mut partitions = Vec::with_capacity(standings.len());
    for standing in standings {
        for (token, records) in &standing.in_flight {
            if let Some(name) = names.get(token) {
                *by_member.entry(name.clone()).or_default() += records;
            }
        }
        let topic = state.topics.get_by_id(standing.keys.topic).await.ok().flatten();
        partitions.push(ShownPartition {
            topic: topic.map(|topic| topic.name.clone()),
            topic_id: standing.keys.topic,
            partition: standing.keys.partition.0,
            start: standing.start,
            lag: lag(state, group, &standing.keys).await,
            ledger: standing.ledger,
            in_flight: standing.in_flight.values().sum(),
            waiting: standing.waiting,
        });
    }
    let member = |(member_id, in_flight)| ShownMember { member_id, in_flight };
    Some(Shown { partitions, members: by_member.into_iter().map(member).collect() })
}

async fn lag(state: &State, group: &str, keys: &PartitionKeys) -> Option<u64> {
    let progress = state.groups.progress(group, keys).await.ok().flatten()?;
    let offsets = state.log.partition(keys.topic, keys.partition).await.ok()?.offsets();
    Some(progress.lag(offsets.log_start_offset.0..offsets.high_watermark.0))
}
