//! From a batch to appends: which records go to which partition, and which never will.

use std::collections::btree_map;
use std::collections::{BTreeMap, HashMap};

use robustmq_common::ids::{EdgeSeq, Incarnation, KafkaTopic, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};
use robustmq_common::sync::{Batch, EdgeRecord, Entry, RejectReason, Rejected, SkipReason};

use super::edges::EdgeState;
use super::ingest::{IngestError, Shared};
use super::lane::{Route, RouteMap};
use super::log::{AppendLimits, IngestTopic, LogFailure, PartitionId};
use super::mapping::{Headers, partition_of, topic_of};
use super::rights::Rights;
use crate::log::OriginKey;

/// Where records go whose topic an edge may not bring into being any more.
pub const OVERFLOW_TOPIC: &str = "robustmq.overflow";

/// One record of a batch that can be read.
pub(super) struct Item<'a> {
    seq: EdgeSeq,
    wall_ms: Option<i64>,
    record: EdgeRecord<'a>,
    topic: KafkaTopic,
}

/// What a batch holds.
pub(super) struct Items<'a> {
    items: Vec<Item<'a>>,
    unreadable: Vec<Rejected>,
    /// What the edge did not send.
    pub skipped: BTreeMap<SkipReason, u64>,
}

impl<'a> Items<'a> {
    pub fn read(batch: &'a Batch) -> Self {
        let mut all = Self { items: Vec::new(), unreadable: Vec::new(), skipped: BTreeMap::new() };
        for entry in batch.entries() {
            match entry {
                Entry::Skip { count, reason, .. } => {
                    let total = all.skipped.entry(reason).or_default();
                    *total = total.saturating_add(count);
                }
                Entry::Record { seq, wall_ms, body } => match readable(body) {
                    Ok((record, topic)) => {
                        all.items.push(Item { seq, wall_ms, record, topic });
                    }
                    Err(reason) => all.unreadable.push(Rejected { seq, reason }),
                },
            }
        }
        all
    }

    /// How many records the batch holds, whether they can be read or not.
    pub fn records(&self) -> u64 {
        (self.items.len() + self.unreadable.len()) as u64
    }
}

fn readable(body: &[u8]) -> Result<(EdgeRecord<'_>, KafkaTopic), RejectReason> {
    let record = EdgeRecord::decode(body).map_err(|_| RejectReason::Malformed)?;
    let topic = topic_of(&record)?;
    Ok((record, topic))
}

/// The partition map of a new batch.
pub(super) struct Routed {
    pub routes: RouteMap,
    /// Topics were created on the way, which counts against the edge's limit.
    pub created_topics: bool,
}

/// One append to one partition.
pub(super) struct Append {
    pub batch: RecordBatch,
    pub limits: AppendLimits,
    /// Its sequences, ascending, at least one.
    pub seqs: Vec<EdgeSeq>,
}

/// What has to be done for a batch.
pub(super) struct Plan {
    /// By partition, in order.
    pub appends: Vec<(PartitionId, Vec<Append>)>,
    /// What never will be applied.
    pub rejected: Vec<Rejected>,
    /// Records that an earlier attempt left in the log.
    pub deduplicated: u64,
}

impl Shared {
    /// Where the records of each topic name go, creating topics within the edge's limit.
    pub(super) async fn route(
        &self,
        items: &Items<'_>,
        rights: &Rights,
        state: &EdgeState,
    ) -> Result<Routed, IngestError> {
        let mut routed = Routed { routes: RouteMap::new(), created_topics: false };
        for item in &items.items {
            if routed.routes.contains_key(&item.topic) {
                continue;
            }
            let route = if !rights.may_write(&item.topic) {
                Route::Rejected(RejectReason::NotAuthorised)
            } else {
                match self.find_or_create(item, state, &mut routed.created_topics).await {
                    Ok(topic) if topic.writable => {
                        Route::To { topic: topic.id, partitions: topic.partitions }
                    }
                    Ok(_) => Route::Rejected(RejectReason::ReadOnlyTopic),
                    Err(LogFailure::IllegalTopic(_)) => Route::Rejected(RejectReason::IllegalTopic),
                    Err(LogFailure::TopicGone) => Route::Rejected(RejectReason::TopicDeleted),
                    Err(failure @ (LogFailure::TooLarge | LogFailure::Unavailable(_))) => {
                        return Err(IngestError::Log(failure.to_string()));
                    }
                }
            };
            routed.routes.insert(item.topic.clone(), route);
        }
        Ok(routed)
    }

    async fn find_or_create(
        &self,
        item: &Item<'_>,
        state: &EdgeState,
        created: &mut bool,
    ) -> Result<IngestTopic, LogFailure> {
        if let Some(topic) = self.log.topic(&item.topic).await? {
            return Ok(topic);
        }
        let mqtt_topic = item.record.kafka_topic.is_none().then_some(item.record.mqtt_topic);
        if state.may_create_topic(self.settings.topics_per_edge) {
            let topic = self.log.create(&item.topic, mqtt_topic).await;
            match topic {
                Ok(_) => *created = true,
                Err(_) => state.topic_not_created(),
            }
            return topic;
        }
        self.metrics.overflowed();
        let overflow = KafkaTopic::new(OVERFLOW_TOPIC)
            .map_err(|error| LogFailure::IllegalTopic(error.to_string()))?;
        match self.log.topic(&overflow).await? {
            Some(topic) => Ok(topic),
            None => self.log.create(&overflow, None).await,
        }
    }

    /// What has to be done. `known_rejected` is that of the first attempt, if there was one; `predecessors` are the other
    /// incarnations that attempts were made under.
    pub(super) async fn plan(
        &self,
        items: &Items<'_>,
        routes: &RouteMap,
        known_rejected: &[Rejected],
        origin: &OriginKey,
        predecessors: &[Incarnation],
        now_ms: i64,
    ) -> Result<Plan, IngestError> {
        let mut planner = Planner {
            origin,
            now_ms,
            known_rejected: known_rejected.iter().map(|known| (known.seq, known.reason)).collect(),
            partitions: BTreeMap::new(),
            plan: Plan { appends: Vec::new(), rejected: items.unreadable.clone(), deduplicated: 0 },
        };
        let topics = self.topics(routes).await?;
        for item in &items.items {
            let (topic, partitions) = match routes.get(&item.topic) {
                Some(Route::To { topic, partitions }) => (*topic, *partitions),
                Some(Route::Rejected(reason)) => {
                    planner.reject(item.seq, *reason);
                    continue;
                }
                // The attempt before did not have this record's topic: its history was another one, which the digest excludes.
                None => {
                    planner.reject(item.seq, RejectReason::Malformed);
                    continue;
                }
            };
            let Some(found) = topics.get(&topic) else {
                planner.reject(item.seq, RejectReason::TopicDeleted);
                continue;
            };
            let partition = partition_of(&item.record, item.seq, partitions);
            let partition = PartitionId { topic, partition };
            if let btree_map::Entry::Vacant(place) = planner.partitions.entry(partition) {
                let applied = self.applied(partition, origin, predecessors).await?;
                place.insert(Filling::new(applied, found, now_ms));
            }
            planner.place(partition, item)?;
        }
        planner.finish()
    }

    /// The topics that are still there: one that was deleted since the batch was begun is not among them.
    async fn topics(
        &self,
        routes: &RouteMap,
    ) -> Result<HashMap<TopicId, IngestTopic>, IngestError> {
        let mut topics = HashMap::new();
        let overflow = KafkaTopic::new(OVERFLOW_TOPIC).ok();
        for (name, route) in routes {
            let Route::To { topic, .. } = route else { continue };
            for name in std::iter::once(name).chain(&overflow) {
                if topics.contains_key(topic) {
                    break;
                }
                let found = self.log.topic(name).await;
                let found = found.map_err(|failure| IngestError::Log(failure.to_string()))?;
                if let Some(found) = found.filter(|found| found.id == *topic) {
                    topics.insert(*topic, found);
                }
            }
        }
        Ok(topics)
    }

    /// What the partition has of this lane; nothing of a topic that is gone.
    async fn applied(
        &self,
        partition: PartitionId,
        origin: &OriginKey,
        predecessors: &[Incarnation],
    ) -> Result<Option<EdgeSeq>, IngestError> {
        let mut applied = None;
        for incarnation in std::iter::once(&origin.incarnation).chain(predecessors) {
            let origin = OriginKey { incarnation: *incarnation, ..origin.clone() };
            match self.log.applied(partition, &origin).await {
                Ok(seq) => applied = applied.max(seq),
                Err(LogFailure::TopicGone) => {}
                Err(failure) => return Err(IngestError::Log(failure.to_string())),
            }
        }
        Ok(applied)
    }
}

/// The appends of one partition while they are put together.
struct Filling {
    applied: Option<EdgeSeq>,
    limits: AppendLimits,
    /// Each record needs a key.
    compacted: bool,
    builder: BatchBuilder,
    seqs: Vec<EdgeSeq>,
    done: Vec<Append>,
}

impl Filling {
    fn new(applied: Option<EdgeSeq>, topic: &IngestTopic, now_ms: i64) -> Self {
        let IngestTopic { max_message_bytes, log_append_time, compacted, storage, .. } = *topic;
        let limits = AppendLimits { max_message_bytes, log_append_time, storage, now_ms };
        let builder = BatchBuilder::new(Compression::None);
        Self { applied, limits, compacted, builder, seqs: Vec::new(), done: Vec::new() }
    }

    /// Ends the present batch.
    fn seal(&mut self) -> Result<(), IngestError> {
        let builder = std::mem::replace(&mut self.builder, BatchBuilder::new(Compression::None));
        let seqs = std::mem::take(&mut self.seqs);
        if seqs.is_empty() {
            return Ok(());
        }
        let batch = builder.build().map_err(|error| IngestError::Log(error.to_string()))?;
        self.done.push(Append { batch, limits: self.limits, seqs });
        Ok(())
    }
}

struct Planner<'a> {
    origin: &'a OriginKey,
    now_ms: i64,
    known_rejected: HashMap<EdgeSeq, RejectReason>,
    partitions: BTreeMap<PartitionId, Filling>,
    plan: Plan,
}

impl Planner<'_> {
    fn reject(&mut self, seq: EdgeSeq, reason: RejectReason) {
        self.plan.rejected.push(Rejected { seq, reason });
    }

    fn place(&mut self, partition: PartitionId, item: &Item<'_>) -> Result<(), IngestError> {
        if let Some(reason) = self.known_rejected.get(&item.seq) {
            self.reject(item.seq, *reason);
            return Ok(());
        }
        let Some(filling) = self.partitions.get_mut(&partition) else { return Ok(()) };
        if filling.applied.is_some_and(|applied| item.seq <= applied) {
            self.plan.deduplicated += 1;
            return Ok(());
        }
        let headers = Headers::of(&item.record, item.seq, self.origin, item.wall_ms.is_some());
        let headers = headers.list();
        let record = NewRecord {
            timestamp_ms: item.wall_ms.unwrap_or(self.now_ms),
            key: item.record.kafka_key(),
            value: Some(item.record.payload),
            headers: &headers,
        };
        if filling.compacted && record.key.is_none() {
            self.reject(item.seq, RejectReason::NoKey);
            return Ok(());
        }
        let mut alone = BatchBuilder::new(Compression::None);
        if alone.push(&record).is_err() || alone.size() > filling.limits.max_message_bytes {
            self.reject(item.seq, RejectReason::TooLarge);
            return Ok(());
        }
        // A record takes a few bytes less or more beside others: the offset and the time are differences.
        let together = filling.builder.size().saturating_add(alone.size());
        if !filling.seqs.is_empty() && together > filling.limits.max_message_bytes {
            filling.seal()?;
        }
        filling.builder.push(&record).map_err(|error| IngestError::Log(error.to_string()))?;
        filling.seqs.push(item.seq);
        Ok(())
    }

    fn finish(mut self) -> Result<Plan, IngestError> {
        for (partition, mut filling) in self.partitions {
            filling.seal()?;
            if !filling.done.is_empty() {
                self.plan.appends.push((partition, filling.done));
            }
        }
        Ok(self.plan)
    }
}
