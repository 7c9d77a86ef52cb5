//! What the Kafka benchmarks can be told.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::bench::broker::Broker;
use crate::bench::produce::Limit;
use crate::bench::{Kafka, latency, produce};

/// Which brokers, and how much load.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// A running broker, HOST:PORT; without it target/release/robustmq-cloud (or what `ROBUSTMQ_CLOUD_BIN` names) is started
    #[arg(long)]
    pub bootstrap: Option<String>,
    /// Its process, for processor time, memory and open files
    #[arg(long, requires = "bootstrap")]
    pub pid: Option<u32>,
    /// Its admin listener, HOST:PORT, for its own histogram of latencies
    #[arg(long, requires = "bootstrap")]
    pub admin: Option<String>,
    /// A second broker, HOST:PORT, measured in turn with the first
    #[arg(long)]
    pub peer: Option<String>,
    /// Its process
    #[arg(long, requires = "peer")]
    pub peer_pid: Option<u32>,
    /// Configuration of the peer's topics, KEY=VALUE; may be given several times
    #[arg(long, requires = "peer", value_parser = key_value)]
    pub peer_topic_config: Vec<(String, String)>,
    /// Configuration of the first broker's topics, KEY=VALUE; may be given several times
    #[arg(long, value_parser = key_value)]
    pub topic_config: Vec<(String, String)>,
    /// Setting of the producers (librdkafka's names), KEY=VALUE; may be given several times
    #[arg(long, value_parser = key_value)]
    pub producer: Vec<(String, String)>,
    /// Setting of the consumers, KEY=VALUE; may be given several times
    #[arg(long, value_parser = key_value)]
    pub consumer: Vec<(String, String)>,
    /// Length of a phase
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// Produce this much, in GB, instead of for --seconds; latency is measured for --seconds as before
    #[arg(long, value_parser = seconds)]
    pub gigabytes: Option<f64>,
    /// Rounds, in which the brokers take turns; best and median are told
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Bytes of a value, for throughput
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// `batch.size`, for throughput
    #[arg(long, default_value_t = 65536)]
    pub batch_bytes: usize,
    /// `linger.ms`, for throughput
    #[arg(long, default_value_t = 5.0)]
    pub linger_ms: f64,
    /// Records a second, for latency
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Bytes of a value, for latency
    #[arg(long, default_value_t = 100)]
    pub latency_record_bytes: usize,
    /// `linger.ms`, for latency
    #[arg(long, default_value_t = 1.0)]
    pub latency_linger_ms: f64,
    /// Time at the fixed rate that does not count yet
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub warm_up_seconds: f64,
    /// The broker's histogram of how long it took over Produce requests, shown where it has one
    #[arg(long, default_value = "robustmq_cloud_kafka_produce_seconds")]
    pub broker_histogram: String,
    /// Where the broker that is started keeps its data, and where syncs are measured; has to be on the disk in question
    #[arg(long, default_value = "target")]
    pub dir: PathBuf,
    /// All figures of all rounds into this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has to be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it has to be a number")?;
    match number > 0.0 && number < 1e6 {
        true => Ok(number),
        false => Err("it has to be above 0 and below a million".to_owned()),
    }
}

impl Options {
    /// The brokers to measure: one that is started if none is named, and the peer.
    ///
    /// # Errors
    /// When it does not start, or an option makes no sense.
    pub async fn brokers(&self) -> anyhow::Result<Vec<Broker>> {
        ensure!(self.rounds > 0, "--rounds 0 measures nothing");
        let most = produce::PATTERN_BYTES / 2;
        for bytes in [self.record_bytes, self.latency_record_bytes] {
            ensure!((1..=most).contains(&bytes), "records have 1 to {most} bytes, not {bytes}");
        }
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("create {}", self.dir.display()))?;
        let dir = self.dir.canonicalize()?;
        let mut brokers = vec![match &self.bootstrap {
            Some(bootstrap) => {
                let kafka = self.kafka(bootstrap);
                Broker::running("robustmq", kafka, self.pid, self.admin.clone(), dir.clone())
            }
            None => Broker::start(&dir, |bootstrap| self.kafka(bootstrap)).await?,
        }];
        brokers[0].topic_config.clone_from(&self.topic_config);
        if let Some(peer) = &self.peer {
            let kafka = self.kafka(peer);
            let mut peer = Broker::running("peer", kafka, self.peer_pid, None, dir);
            peer.topic_config.clone_from(&self.peer_topic_config);
            brokers.push(peer);
        }
        for broker in &brokers {
            let kafka = broker.kafka.clone();
            tokio::task::spawn_blocking(move || kafka.reach()).await??;
        }
        Ok(brokers)
    }

    fn kafka(&self, bootstrap: &str) -> Kafka {
        Kafka {
            bootstrap: bootstrap.to_owned(),
            producer_settings: self.producer.clone(),
            consumer_settings: self.consumer.clone(),
        }
    }

    /// Length of a phase.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn produce_plan(&self, topic: &str, partitions: i32) -> produce::Plan {
        produce::Plan {
            topic: topic.to_owned(),
            partitions,
            record_bytes: self.record_bytes,
            batch_bytes: self.batch_bytes,
            linger_ms: self.linger_ms,
            limit: match self.gigabytes {
                Some(gigabytes) => Limit::Gigabytes(gigabytes),
                None => Limit::Time(self.length()),
            },
        }
    }

    pub(crate) fn latency_plan(&self, topic: &str) -> latency::Plan {
        latency::Plan {
            topic: topic.to_owned(),
            record_bytes: self.latency_record_bytes,
            rate: self.rate,
            linger_ms: self.latency_linger_ms,
            warm_up: Duration::from_secs_f64(self.warm_up_seconds),
            length: self.length(),
        }
    }

    /// What a reader of the tables has to know.
    #[must_use]
    pub fn describe(&self) -> String {
        let phase = match self.gigabytes {
            Some(gigabytes) => format!("{gigabytes} GB"),
            None => format!("{} s", self.seconds),
        };
        format!(
            "{} rounds; throughput: {phase} of {} B values, acks=all, batch.size={}, linger.ms={}, no compression\n\
             latency: {} records/s of {} B values, acks=all, linger.ms={}, 1 partition, {} s after {} s of warm-up\n\
             one librdkafka {} client at a time, on this machine too",
            self.rounds,
            self.record_bytes,
            self.batch_bytes,
            self.linger_ms,
            self.rate,
            self.latency_record_bytes,
            self.latency_linger_ms,
            self.seconds,
            self.warm_up_seconds,
            rdkafka::util::get_rdkafka_version().1,
        )
    }
}
