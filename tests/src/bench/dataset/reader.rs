//! A stock consumer that checks what it is given, as fast as it can or at a rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::bench::dataset::{time_of, wait_until};
use crate::bench::kafka::{ANSWER, Kafka};
use crate::dataset::account::{Account, Catalogue, Place, Record};

/// How long it waits for a record before it looks how long it has waited.
const PATIENCE: Duration = Duration::from_millis(50);

/// A consumer of some partitions of a dataset topic, from their beginning.
pub struct Reader {
    consumer: BaseConsumer,
    catalogue: Arc<Catalogue>,
    topic: String,
    next_offsets: BTreeMap<i32, i64>,
    /// What has come.
    pub account: Account,
}

/// A record that has come.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Which it is.
    pub place: Place,
    /// Bytes of its value.
    pub bytes: usize,
    /// How long the reader waited for it.
    pub waited: Duration,
}

/// What a reader saw of one epoch.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// As headers say it.
    pub number: u64,
    /// When its first record was there.
    pub began: Instant,
    /// When its last record was used.
    pub ended: Instant,
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// How long the reader waited for records.
    pub waited: Duration,
    /// Its files by the order of their first records.
    pub files: Vec<usize>,
}

/// Which sample of which epoch a message is.
///
/// # Errors
/// When it is none.
pub fn place_of(catalogue: &Catalogue, message: &BorrowedMessage<'_>) -> anyhow::Result<Place> {
    let headers: Vec<(&str, &[u8])> = message
        .headers()
        .map(|headers| {
            headers.iter().map(|found| (found.key, found.value.unwrap_or_default())).collect()
        })
        .unwrap_or_default();
    let value = message.payload().unwrap_or_default();
    let record = Record { key: message.key(), value, headers: &headers };
    let named = || format!("{}-{}@{}", message.topic(), message.partition(), message.offset());
    catalogue.place(&record).with_context(named)
}

impl Reader {
    /// Assigns the partitions. Blocks.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn start(
        kafka: &Kafka,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
        catalogue: &Arc<Catalogue>,
    ) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = kafka.consumer_config().create()?;
        let next_offsets: BTreeMap<i32, i64> =
            partitions.into_iter().map(|partition| (partition, 0)).collect();
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in &next_offsets {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&assignment)?;
        let (catalogue, topic) = (Arc::clone(catalogue), topic.to_owned());
        Ok(Self { consumer, catalogue, topic, next_offsets, account: Account::default() })
    }

    /// The next record.
    ///
    /// # Errors
    /// When none comes for long, or it is not what was due.
    pub fn next_record(&mut self) -> anyhow::Result<Seen> {
        let began = Instant::now();
        let message = loop {
            match self.consumer.poll(PATIENCE) {
                // A broker that is started again: the client gets over it.
                None
                | Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                ))) => {}
                Some(message) => {
                    break message.with_context(|| format!("consume {}", self.topic))?;
                }
            }
            ensure!(
                began.elapsed() < ANSWER,
                "{}: no record for {ANSWER:?}; positions {:?}",
                self.topic,
                self.next_offsets
            );
        };
        let waited = began.elapsed();
        let (partition, offset) = (message.partition(), message.offset());
        let next = self.next_offsets.get_mut(&partition).context("a partition of the reader")?;
        ensure!(offset == *next, "{}-{partition}: {offset}, where {next} was due", self.topic);
        *next += 1;
        let place = place_of(&self.catalogue, &message)?;
        self.account.enter(&self.catalogue, place)?;
        Ok(Seen { place, bytes: message.payload_len(), waited })
    }

    /// Reads `records` and checks that they are `epochs` complete epochs. A rate is in bytes a second; time that was waited for a record is
    /// not made up for. `on_epoch` is told with the first record of each epoch how many have begun.
    ///
    /// # Errors
    /// When a record is missing, doubled or another.
    pub fn read(
        mut self,
        records: u64,
        epochs: u64,
        rate: Option<f64>,
        mut on_epoch: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Epoch>> {
        let mut seen: BTreeMap<u64, Epoch> = BTreeMap::new();
        let mut due = Instant::now();
        for _ in 0..records {
            let Seen { place, bytes, waited } = self.next_record()?;
            let now = Instant::now();
            if !seen.contains_key(&place.epoch) {
                on_epoch(seen.len() + 1)?;
            }
            let file = self.catalogue.dataset().samples.get(place.sample).map(|found| found.file);
            let epoch = seen.entry(place.epoch).or_insert_with(|| Epoch::new(place.epoch, now));
            epoch.add(file.context("a sample of the dataset")?, bytes, waited);
            if let Some(rate) = rate {
                due += waited + time_of(bytes, rate);
                wait_until(due);
            }
            epoch.ended = Instant::now();
        }
        self.account.check_complete(epochs)?;
        Ok(seen.into_values().collect())
    }
}

impl Epoch {
    fn new(number: u64, now: Instant) -> Self {
        let (waited, files) = (Duration::ZERO, Vec::new());
        Self { number, began: now, ended: now, records: 0, bytes: 0, waited, files }
    }

    fn add(&mut self, file: usize, bytes: usize, waited: Duration) {
        self.records += 1;
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.files.last() != Some(&file) && !self.files.contains(&file) {
            self.files.push(file);
        }
    }
}
