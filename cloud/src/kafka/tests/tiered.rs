//! What clients are told of a `tiered` topic's archive: ListOffsets with -4 (KIP-405) and -5 (KIP-1005).

use std::collections::BTreeMap;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ListOffsetsRequest, TopicName};
use robustmq_common::ids::{KafkaTopic, Offset, PartitionIndex};
use robustmq_common::limits;

use super::*;
use crate::log::{AppendContext, Budgets};
use crate::metrics::TierMetrics;
use crate::objects::Location;
use crate::objects::faulty::FaultyStore;
use crate::tier::{Archive, TierSettings};
use crate::topics::NewTopic;
use crate::traffic::report;

const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

async fn listed(client: &mut Client, version: i16, timestamp: i64) -> (i16, i64) {
    let partition =
        ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(text("t")))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let answer = client.call(version, &request).await;
    let answer = &answer.topics[0].partitions[0];
    assert_eq!(answer.timestamp, -1, "it is no record's");
    (answer.error_code, answer.offset)
}

#[tokio::test]
async fn list_offsets_tells_where_the_local_log_begins_and_the_archive_ends() {
    let memory = Arc::new(MemoryStore::new());
    let location = Location { objects: FaultyStore::new(5), path: "tier".to_owned() };
    let archive = Archive::new(location, TierSettings::default(), TierMetrics::default());
    let archive = Arc::new(archive);
    let seam = memory.clone() as Arc<dyn Store>;
    let log = Arc::new(Log::with_archive(seam, Budgets::default(), Some(archive.clone())));
    let broker = Broker::start_with_log(memory, log, KafkaSettings::default(), 1 << 30).await;
    let overrides = [("robustmq.storage.mode", "tiered"), ("robustmq.tier.local.ms", "0")];
    let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let name = KafkaTopic::new("t").expect("a legal name");
    let new = NewTopic::new(name, 1, BTreeMap::from(overrides));
    let topics = &broker.kafka.topics;
    let topic = topics.create(vec![new], false, 0).await.remove(0).expect("created");
    let partition = broker.kafka.log.partition(topic.id, PartitionIndex(0)).await.expect("there");
    let mut context = AppendContext { rules: topic.config.append_rules(), ..AppendContext::at(0) };
    context.rules.max_batch_bytes = usize::MAX;
    let value = "v".repeat(limits::LOG_CHUNK_BYTES);
    let fill = async || {
        let [batch] = &robustmq_common::record::split_batches(batch(&[&value]), usize::MAX)
            .expect("a batch")[..]
        else {
            panic!("one batch")
        };
        let pending = partition.append(batch.clone(), &context).expect("taken");
        pending.durable().await.expect("durable");
    };
    let mut client = broker.client().await;
    fill().await;
    fill().await;
    let check = async |client: &mut Client, earliest, local, tiered| {
        assert_eq!(listed(client, 9, EARLIEST).await, (0, earliest));
        assert_eq!(listed(client, 8, EARLIEST_LOCAL).await, (0, local));
        assert_eq!(listed(client, 9, EARLIEST_LOCAL).await, (0, local));
        assert_eq!(listed(client, 9, LATEST_TIERED).await, (0, tiered));
        let reported = report::partitions(&broker.kafka.log, &topic).await.expect("readable");
        let starts = (reported[0].log_start_offset, reported[0].local_start_offset);
        assert_eq!(starts, (earliest, local), "the admin listener tells the same");
    };
    // Nothing is archived: all of it is local, and there is no last archived offset.
    check(&mut client, 0, 0, -1).await;
    let rules = topic.config.tier.expect("it is tiered");
    assert!(partition.archive(&archive, &rules, 10_000).await.expect("both stores work") > 0);
    fill().await;
    check(&mut client, 0, 2, 1).await;
    partition.delete_records(Some(Offset(1))).await.expect("deleted");
    check(&mut client, 1, 2, 1).await;
    partition.delete_records(None).await.expect("deleted");
    check(&mut client, 3, 3, 1).await;
    // As by Apache Kafka: librdkafka, of which kcat is made, asks with version 7 at most, and said "Invalid request" to its user.
    let refused = code(ResponseError::UnsupportedVersion);
    for (version, timestamp) in [(7, EARLIEST_LOCAL), (8, LATEST_TIERED), (6, -3), (9, -6)] {
        assert_eq!(listed(&mut client, version, timestamp).await, (refused, -1), "{timestamp}");
    }
}
