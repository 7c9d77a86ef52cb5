//! A cloud that can crash and be restored: real ingest and log on the store in memory, and a catalogue that is only a map.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use robustmq_cloud::log::{Log, StorageMode};
use robustmq_cloud::store::MemoryStore;
use robustmq_cloud::uplink::{
    Ingest, IngestLog, IngestSettings, IngestTopic, LogFailure, UplinkMetrics,
};
use robustmq_common::ids::{CloudGeneration, KafkaTopic, Offset, PartitionIndex, TopicId};
use robustmq_common::record::RecordBatch;

type Topics = Arc<Mutex<BTreeMap<KafkaTopic, IngestTopic>>>;

/// What survives of a cloud when its process does not.
pub struct Cloud {
    store: Mutex<Arc<MemoryStore>>,
    topics: Topics,
    partitions: i32,
    pub settings: IngestSettings,
    pub metrics: UplinkMetrics,
}

/// A record as it stands in the log: who it says it is, and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub incarnation: u64,
    pub lane: u8,
    pub seq: u64,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, String)>,
    pub timestamp_ms: i64,
}

impl Cloud {
    pub fn new(partitions: i32) -> Self {
        let settings =
            IngestSettings { wall_clock: Arc::new(|| 1_800_000_000_000), ..Default::default() };
        Self {
            store: Mutex::new(Arc::new(MemoryStore::new())),
            topics: Topics::default(),
            partitions,
            settings,
            metrics: UplinkMetrics::default(),
        }
    }

    pub fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.lock().expect("not poisoned"))
    }

    /// The process starts.
    pub fn start(&self) -> Ingest {
        let store = self.store();
        let log = SimLog {
            log: Log::new(store.clone()),
            topics: Arc::clone(&self.topics),
            partitions: self.partitions,
        };
        let generation = CloudGeneration(1);
        Ingest::new(store, Arc::new(log), generation, self.settings.clone(), self.metrics.clone())
    }

    /// The power goes: of the writes that were on their way, the first `survivors` are there afterwards.
    pub fn crash(&self, survivors: usize) {
        let mut store = self.store.lock().expect("not poisoned");
        *store = Arc::new(store.crash(survivors));
    }

    /// A backup. It closes the store: start again afterwards.
    pub fn back_up(&self) -> Backup {
        let mut store = self.store.lock().expect("not poisoned");
        *store = Arc::new(store.crash(usize::MAX));
        let copy = Arc::new(store.crash(usize::MAX));
        *store = Arc::new(copy.crash(usize::MAX));
        Backup(copy)
    }

    /// Restores an earlier state.
    pub fn restore(&self, backup: &Backup) {
        *self.store.lock().expect("not poisoned") = Arc::new(backup.0.crash(usize::MAX));
    }

    pub fn set_topic(&self, name: &str, change: impl FnOnce(&mut IngestTopic)) {
        let name = KafkaTopic::new(name).expect("a legal name");
        let mut topics = self.topics.lock().expect("not poisoned");
        let id = topics.len();
        change(topics.entry(name).or_insert_with(|| fresh_topic(id, self.partitions)));
    }

    /// Everything in the log, by topic and partition, in offset order.
    pub async fn logged(&self) -> BTreeMap<(String, i32), Vec<Logged>> {
        let log = Log::new(self.store());
        let topics = self.topics.lock().expect("not poisoned").clone();
        let mut all = BTreeMap::new();
        for (name, topic) in topics {
            for partition in 0..topic.partitions {
                let records = read_all(&log, topic.id, PartitionIndex(partition)).await;
                all.insert((name.as_str().to_owned(), partition), records);
            }
        }
        all
    }
}

/// A copy of a cloud's store.
pub struct Backup(Arc<MemoryStore>);

async fn read_all(log: &Log, topic: TopicId, partition: PartitionIndex) -> Vec<Logged> {
    let partition = log.partition(topic, partition).await.expect("loads");
    let mut records = Vec::new();
    let mut from = Offset(0);
    loop {
        let read = partition.read(from, 1 << 20).await.expect("reads");
        let Some(last) = read.batches.last() else { return records };
        from = RecordBatch::parse(last.clone()).expect("valid").next_offset();
        for batch in read.batches {
            let batch = RecordBatch::parse(batch).expect("valid");
            let batch = batch.records(1 << 26).expect("readable");
            records.extend(batch.map(|record| logged(&record.expect("readable"))));
        }
    }
}

fn logged(record: &robustmq_common::record::Record) -> Logged {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(String, String)> = record
        .headers
        .iter()
        .map(|header| (text(&header.key), text(header.value.as_deref().unwrap_or_default())))
        .collect();
    let seq = headers.iter().find(|(name, _)| name == "robustmq.edge.seq").expect("every record");
    let numbers: Vec<u64> = seq.1.split(':').map(|part| part.parse().expect("a number")).collect();
    Logged {
        incarnation: numbers[0],
        lane: u8::try_from(numbers[1]).expect("a lane"),
        seq: numbers[2],
        payload: record.value.as_deref().unwrap_or_default().to_vec(),
        headers,
        timestamp_ms: record.timestamp_ms,
    }
}

/// Topics are never removed here, so their number is an id, and a simulation repeats.
fn fresh_topic(id: usize, partitions: i32) -> IngestTopic {
    IngestTopic {
        id: TopicId(uuid::Uuid::from_u128(id as u128 + 1)),
        partitions,
        max_message_bytes: 1_000,
        log_append_time: false,
        compacted: false,
        storage: StorageMode::Persistent,
        writable: true,
    }
}

struct SimLog {
    log: Log,
    topics: Topics,
    partitions: i32,
}

#[async_trait]
impl IngestLog for SimLog {
    async fn topic(&self, name: &KafkaTopic) -> Result<Option<IngestTopic>, LogFailure> {
        Ok(self.topics.lock().expect("not poisoned").get(name).copied())
    }

    async fn create(
        &self,
        name: &KafkaTopic,
        _mqtt_topic: Option<&str>,
    ) -> Result<IngestTopic, LogFailure> {
        let mut topics = self.topics.lock().expect("not poisoned");
        let id = topics.len();
        Ok(*topics.entry(name.clone()).or_insert_with(|| fresh_topic(id, self.partitions)))
    }

    fn log(&self) -> &Log {
        &self.log
    }
}
