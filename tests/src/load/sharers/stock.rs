//! The producer, and the members that are stock clients (librdkafka).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::account::{Shared, lock};
use super::history::{Event, What, Who};
use super::{GROUP, PARTITIONS, PATIENCE, TOPIC};

const MEMBERS: u16 = 6;
const POLL: Duration = Duration::from_millis(50);

fn config(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.max.ms", "200");
    config
}

/// Writes numbered records until it is told to stop; returns how many were acknowledged.
pub fn produce(kafka: &str, stop: &CancellationToken, made: &AtomicU64) -> anyhow::Result<u64> {
    let producer: BaseProducer = config(kafka)
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("message.timeout.ms", PATIENCE.as_millis().to_string())
        .create()?;
    let mut next = 0_u64;
    while !stop.is_cancelled() {
        // As many as are not acknowledged yet.
        if producer.in_flight_count() > 500 {
            producer.poll(POLL);
            continue;
        }
        let value = next.to_string();
        let partition = i32::try_from(next % u64::try_from(PARTITIONS)?)?;
        let record: BaseRecord<'_, (), str> =
            BaseRecord::to(TOPIC).partition(partition).payload(&value);
        match producer.send(record) {
            Ok(()) => next += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
            Err((error, _)) => return Err(error.into()),
        }
        producer.poll(Duration::from_millis(u64::from(next.is_multiple_of(8))));
        made.store(next, Ordering::Release);
    }
    producer.flush(PATIENCE).context("the last records are not acknowledged")?;
    Ok(next)
}

/// What a member was given of a partition and has not committed: where, and which numbers.
#[derive(Default)]
struct Open(Vec<(i64, u64)>);

impl Open {
    /// It is given a record. On another cursor, what was open on the last one is lost; what comes again is open once.
    fn give(&mut self, offset: i64, number: u64) {
        self.0.retain(|(at, _)| at >> 32 == offset >> 32 && *at < offset);
        self.0.push((offset, number));
    }
}

/// One life of a member: it joins, works, commits after a few records each time, and leaves.
fn be_a_member(
    kafka: &str,
    account: &Shared,
    stop: &CancellationToken,
    seed: u64,
    who: Who,
) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let life = Duration::from_millis(rng.random_range(300..8_000));
    let each = rng.random_range(1..200_usize);
    let joined = Instant::now();
    lock(account).counts.stock += 1;
    let consumer: BaseConsumer = config(kafka)
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .create()?;
    consumer.subscribe(&[TOPIC])?;
    let mut open: BTreeMap<i32, Open> = BTreeMap::new();
    while !stop.is_cancelled() && joined.elapsed() < life {
        // What goes wrong with a broker that is killed passes.
        let Some(Ok(message)) = consumer.poll(POLL) else { continue };
        let number: u64 = std::str::from_utf8(message.payload().unwrap_or_default())?.parse()?;
        let offset = message.offset();
        // When it was asked for is not known, but that was not before.
        lock(account).give(number, Event { who, what: What::Given, offset, asked: joined });
        open.entry(message.partition()).or_default().give(offset, number);
        if open.values().map(|open| open.0.len()).sum::<usize>() >= each {
            commit(&consumer, account, &mut open, who)?;
        }
    }
    commit(&consumer, account, &mut open, who)
}

/// Commits what is open. Of a commit that fails the client does not tell whether the broker had it, and a later one on the same cursor covers
/// it.
fn commit(
    consumer: &BaseConsumer,
    account: &Shared,
    open: &mut BTreeMap<i32, Open>,
    who: Who,
) -> anyhow::Result<()> {
    // Each partition by itself, so that the answer is about it.
    for (partition, Open(records)) in std::mem::take(open) {
        let Some((last, _)) = records.last() else { continue };
        let offset = last + 1;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, partition, Offset::Offset(offset))?;
        let asked = Instant::now();
        let committed = consumer.commit(&list, CommitMode::Sync);
        let numbers = records.into_iter().map(|(_, number)| number);
        let mut account = lock(account);
        let event = |what| Event { who, what, offset, asked };
        if let Err(error) = committed {
            // Which error it is, is for whoever reads of a fault.
            let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
            account.commit(numbers.clone(), event(What::NotCommitted(code)), None);
            account.commit(numbers, event(What::Unanswered), None);
        } else {
            account.commit(numbers, event(What::Committed), None);
        }
    }
    Ok(())
}

/// Members, each of which is followed by another one, until `stop`.
pub struct Crew {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Crew {
    /// Starts them.
    #[must_use]
    pub fn start(kafka: &str, account: &Shared, seed: u64, stop: &CancellationToken) -> Self {
        let start = |index: u16| {
            let (kafka, account, stop) = (kafka.to_owned(), Arc::clone(account), stop.clone());
            std::thread::spawn(move || {
                let mut life = 0;
                while !stop.is_cancelled() {
                    let seed = seed ^ u64::from(index) << 32 ^ u64::from(life);
                    be_a_member(&kafka, &account, &stop, seed, Who::Stock(index, life))?;
                    life += 1;
                }
                Ok(())
            })
        };
        Self { threads: (0..MEMBERS).map(start).collect() }
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// That of a member.
    pub async fn join(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                thread.join().map_err(|_| anyhow::anyhow!("a member panicked"))??;
            }
            Ok(())
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::Open;

    /// A member that is assigned its partitions anew goes on where it has committed. What it had been given beyond was taken for committed with
    /// what came again first.
    #[test]
    fn what_comes_again_is_open_once_and_nothing_of_another_cursor_is() {
        let mut open = Open::default();
        for (offset, number) in [(10, 1), (11, 2), (12, 3), (11, 2)] {
            open.give(offset, number);
        }
        assert_eq!(open.0, [(10, 1), (11, 2)]);
        let other = 1 << 32 | 20;
        open.give(other, 7);
        assert_eq!(open.0, [(other, 7)]);
    }
}
