//! The edge's queue against sled and redb: fill, drain, and what is left, each in a process of its own
#![expect(clippy::print_stdout, reason = "a command-line program reports on standard output")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use redb::ReadableDatabase;
use robustmq_common::ids::{EdgeSeq, LaneId};
use robustmq_edge::queue::{Append, Origin, Queue, QueueSettings};
use serde::{Deserialize, Serialize};

/// Bytes that a drain takes out before it makes that durable, about what the uplink sends in one batch.
const DRAIN_BYTES: usize = 256 * 1024;
const LANE: LaneId = LaneId(0);
const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("queue");

/// Fills and drains a store-and-forward queue as a gateway does: a group of records is made durable together, then
/// acknowledged; later they are read in batches, in order, and removed.
///
/// Example: scripts/bench queue --mebibytes 256 --group 1 --group 64
#[derive(Parser)]
struct Arguments {
    /// What to measure; all if left out
    #[arg(long, value_enum)]
    engine: Vec<Engine>,
    /// Payload in all
    #[arg(long, default_value_t = 128)]
    mebibytes: usize,
    /// Payload of one record, in bytes
    #[arg(long, default_value_t = 512)]
    record: usize,
    /// Records that share a sync; may be given several times
    #[arg(long, default_values_t = [8, 64, 512])]
    group: Vec<usize>,
    /// Rounds, in which the engines take turns; the fastest of each counts, since a busy machine only ever slows things
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where to write; has to be on the disk that is to be measured
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Run one engine in this process and print its figures as JSON
    #[arg(long, hide = true)]
    alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
enum Engine {
    Segments,
    Redb,
    Sled,
}

const ENGINES: [Engine; 3] = [Engine::Segments, Engine::Redb, Engine::Sled];

#[derive(Serialize, Deserialize)]
struct Figures {
    engine: Engine,
    group: usize,
    records: usize,
    payload_bytes: u64,
    fill: Cost,
    drain: Cost,
    full_bytes: u64,
    drained_bytes: u64,
    peak_rss_bytes: u64,
}

impl Figures {
    fn seconds(&self) -> f64 {
        self.fill.seconds + self.drain.seconds
    }
}

/// What one phase took.
#[derive(Serialize, Deserialize)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    /// Sent to the disk, by the kernel's count.
    written_bytes: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.alone {
        let engine = *arguments.engine.first().context("--alone needs --engine")?;
        let group = *arguments.group.first().context("--alone needs --group")?;
        println!("{}", serde_json::to_string(&run(engine, group, &arguments).await?)?);
        return Ok(());
    }
    let engines = match arguments.engine.is_empty() {
        true => &ENGINES[..],
        false => &arguments.engine[..],
    };
    println!(
        "{} MiB in records of {} bytes, on {}",
        arguments.mebibytes,
        arguments.record,
        arguments.dir.canonicalize()?.display()
    );
    println!(
        "{:<10}{:>6}{:>11}{:>11}{:>9}{:>9}{:>11}{:>11}{:>9}{:>10}{:>11}{:>10}",
        "engine",
        "group",
        "fill MB/s",
        "records/s",
        "CPU s/GB",
        "written",
        "drain MB/s",
        "CPU s/GB",
        "written",
        "full MiB",
        "left MiB",
        "RSS MiB"
    );
    for group in &arguments.group {
        let mut best: Vec<Option<Figures>> = engines.iter().map(|_| None).collect();
        for _ in 0..arguments.rounds.max(1) {
            for (engine, best) in engines.iter().zip(&mut best) {
                let figures = run_alone(*engine, *group, &arguments)?;
                if best.as_ref().is_none_or(|best| figures.seconds() < best.seconds()) {
                    *best = Some(figures);
                }
            }
        }
        best.iter().flatten().for_each(print);
    }
    println!("\nwritten: bytes sent to the disk per byte of payload, filling and draining");
    println!("left: on disk after the drain; redb was compacted first");
    println!(
        "sled syncs with sync_file_range, which does not flush a drive's cache; the others use fdatasync"
    );
    Ok(())
}

/// A process of its own, so that memory and bytes written are this engine's alone.
fn run_alone(engine: Engine, group: usize, arguments: &Arguments) -> anyhow::Result<Figures> {
    let name = engine.to_possible_value().context("every engine has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--alone", "--engine", name.get_name()])
        .args(["--group", &group.to_string()])
        .args(["--mebibytes", &arguments.mebibytes.to_string()])
        .args(["--record", &arguments.record.to_string()])
        .arg("--dir")
        .arg(&arguments.dir)
        .output()?;
    if !output.status.success() {
        bail!("{engine:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print(figures: &Figures) {
    let gigabytes = figures.payload_bytes as f64 / 1e9;
    let rate = |cost: &Cost| gigabytes * 1000.0 / cost.seconds;
    let written = |cost: &Cost| cost.written_bytes as f64 / figures.payload_bytes as f64;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{:<10}{:>6}{:>11.1}{:>11.0}{:>9.2}{:>9.2}{:>11.1}{:>11.2}{:>9.2}{:>10.1}{:>11.1}{:>10.1}",
        format!("{:?}", figures.engine).to_lowercase(),
        figures.group,
        rate(&figures.fill),
        figures.records as f64 / figures.fill.seconds,
        figures.fill.cpu_seconds / gigabytes,
        written(&figures.fill),
        rate(&figures.drain),
        figures.drain.cpu_seconds / gigabytes,
        written(&figures.drain),
        mebibytes(figures.full_bytes),
        mebibytes(figures.drained_bytes),
        mebibytes(figures.peak_rss_bytes)
    );
}

async fn run(engine: Engine, group: usize, arguments: &Arguments) -> anyhow::Result<Figures> {
    ensure!(arguments.record > 0 && group > 0, "records and groups cannot be empty");
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let path = dir.path().join("store");
    let records = arguments.mebibytes * (1 << 20) / arguments.record;
    let payload = Payload::new(arguments.record);
    let mut store = Store::open(engine, &path)?;

    let watch = Watch::start()?;
    let mut next = 0;
    while next < records {
        let end = records.min(next + group);
        store.append((next..end).map(|n| payload.record(n))).await?;
        next = end;
    }
    let fill = watch.stop()?;
    let full_bytes = size(&path)?;
    let watch = Watch::start()?;
    let mut drained = 0;
    while drained < records {
        let count = store.drain(DRAIN_BYTES, arguments.record).await?;
        ensure!(count > 0, "{drained} of {records} records came back");
        drained += count;
    }
    let drain = watch.stop()?;
    ensure!(drained == records, "{drained} records came back, not {records}");
    store.close().await?;
    Ok(Figures {
        engine,
        group,
        records,
        payload_bytes: (records * arguments.record) as u64,
        fill,
        drain,
        full_bytes,
        drained_bytes: size(&path)?,
        peak_rss_bytes: peak_rss_bytes()?,
    })
}

/// Bytes that do not compress, each record different.
struct Payload(Bytes, usize);

impl Payload {
    fn new(record: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let random = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let length = record + 64 * 1024;
        Self(random.flatten().take(length).collect::<Vec<u8>>().into(), record)
    }

    fn record(&self, n: usize) -> Bytes {
        let start = n.wrapping_mul(7919) % (64 * 1024);
        self.0.slice(start..start + self.1)
    }
}

enum Store {
    Segments { queue: Queue, next: EdgeSeq },
    Redb { db: redb::Database, first: u64, next: u64 },
    Sled { db: sled::Db, next: u64 },
}

impl Store {
    fn open(engine: Engine, path: &Path) -> anyhow::Result<Self> {
        Ok(match engine {
            Engine::Segments => {
                let settings =
                    QueueSettings { lanes: 1, max_bytes: 1 << 40, ..QueueSettings::default() };
                let (queue, _) = Queue::open(path, settings)?;
                Self::Segments { queue, next: EdgeSeq(1) }
            }
            Engine::Redb => {
                let mut builder = redb::Builder::new();
                builder.set_cache_size(4 << 20);
                Self::Redb { db: builder.create(path)?, first: 0, next: 0 }
            }
            Engine::Sled => {
                let config = sled::Config::new().path(path).cache_capacity(16 << 20);
                Self::Sled { db: config.flush_every_ms(None).open()?, next: 0 }
            }
        })
    }

    /// Returns once all of the group is durable.
    async fn append(&mut self, group: impl Iterator<Item = Bytes>) -> anyhow::Result<()> {
        match self {
            Self::Segments { queue, .. } => {
                let mut last = None;
                for body in group {
                    let origin = Origin::default();
                    last = Some(queue.append(&Append { lane: LANE, origin, ttl: None, body })?);
                }
                if let Some(last) = last {
                    last.await?;
                }
            }
            Self::Redb { db, next, .. } => {
                let transaction = db.begin_write()?;
                {
                    let mut table = transaction.open_table(TABLE)?;
                    for body in group {
                        table.insert(*next, &body[..])?;
                        *next += 1;
                    }
                }
                transaction.commit()?;
            }
            Self::Sled { db, next } => {
                for body in group {
                    db.insert(next.to_be_bytes(), &body[..])?;
                    *next += 1;
                }
                db.flush()?;
            }
        }
        Ok(())
    }

    /// Takes out about `bytes` of records, oldest first, durably; returns how many.
    async fn drain(&mut self, bytes: usize, record: usize) -> anyhow::Result<usize> {
        let most = (bytes / record).max(1);
        match self {
            Self::Segments { queue, next } => {
                let batch = queue.read(LANE, *next, bytes, most).await?;
                *next = batch.next;
                queue.acknowledge(LANE, EdgeSeq(batch.next.0 - 1))?;
                Ok(batch.entries.len())
            }
            Self::Redb { db, first, .. } => {
                let taken: Vec<(u64, Vec<u8>)> = {
                    let table = db.begin_read()?.open_table(TABLE)?;
                    let range = table.range(*first..)?.take(most);
                    range
                        .map(|found| {
                            found.map(|(key, value)| (key.value(), value.value().to_vec()))
                        })
                        .collect::<Result<_, _>>()?
                };
                let transaction = db.begin_write()?;
                {
                    let mut table = transaction.open_table(TABLE)?;
                    for (key, _) in &taken {
                        table.remove(key)?;
                        *first = key + 1;
                    }
                }
                transaction.commit()?;
                Ok(taken.len())
            }
            Self::Sled { db, .. } => {
                let taken: Vec<_> = db.iter().take(most).collect::<Result<_, _>>()?;
                let mut batch = sled::Batch::default();
                for (key, _) in &taken {
                    batch.remove(key);
                }
                db.apply_batch(batch)?;
                db.flush()?;
                Ok(taken.len())
            }
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Segments { queue, .. } => queue.close().await,
            Self::Redb { mut db, .. } => {
                db.compact()?;
            }
            Self::Sled { db, .. } => {
                db.flush()?;
            }
        }
        Ok(())
    }
}

/// The cost of a phase, this process only.
struct Watch {
    started: Instant,
    cpu: Duration,
    written: u64,
}

impl Watch {
    fn start() -> anyhow::Result<Self> {
        Ok(Self { started: Instant::now(), cpu: cpu()?, written: written_bytes()? })
    }

    fn stop(self) -> anyhow::Result<Cost> {
        Ok(Cost {
            seconds: self.started.elapsed().as_secs_f64(),
            cpu_seconds: cpu()?.saturating_sub(self.cpu).as_secs_f64(),
            written_bytes: written_bytes()?.saturating_sub(self.written),
        })
    }
}

/// Processor time of this process, user and system, from the scheduler's own count of each thread.
fn cpu() -> anyhow::Result<Duration> {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(clock.tv_sec)?, u32::try_from(clock.tv_nsec)?))
}

fn written_bytes() -> anyhow::Result<u64> {
    proc_number("/proc/self/io", "write_bytes:")
}

fn peak_rss_bytes() -> anyhow::Result<u64> {
    Ok(proc_number("/proc/self/status", "VmHWM:")? * 1024)
}

fn proc_number(path: &str, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {key} in {path}"))?.parse()?)
}

/// What the files below a path take on disk.
fn size(path: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;

    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Ok(found.blocks() * 512);
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}
