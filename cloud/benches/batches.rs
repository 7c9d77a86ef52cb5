//! Where record batches lie: values of RocksDB (blob files, with garbage collection) beside the segment store, in one run.
//!
//! `cargo bench -p robustmq-cloud --bench batches [-- DIRECTORY [GIGABYTES [ENGINE]]]`. The first table: each row writes groups of that size,
//! one sync each, of 16 KB batches spread over so many partitions, and reads them all back. The second: GIGABYTES (50) through 1,000
//! partitions of which nine in ten keep little and one keeps everything; what the disk holds in the end, beside what is retained.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use robustmq_cloud::store::keys::partition::{Kind, LogEnd, PartitionKeys};
use robustmq_cloud::store::{
    RocksOptions, RocksStore, ScanLimit, SegmentSettings, SegmentStore, Store, WriteBatch, write,
};
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};

const BATCH_BYTES: usize = 16 * 1024;
const ROW_BYTES: usize = 128 * 1024 * 1024;

#[derive(Clone, Copy)]
enum Engine {
    Inline,
    Segments,
}

impl Engine {
    const ALL: [Self; 2] = [Self::Inline, Self::Segments];

    fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Segments => "segments",
        }
    }

    fn open(self, directory: &Path) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Self::Inline => Arc::new(RocksStore::open(directory, &RocksOptions::default())?),
            Self::Segments => Arc::new(SegmentStore::open(directory, &SegmentSettings::default())?),
        })
    }
}

/// Processor time of this process so far.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
    let ticks = |n: usize| -> Result<f64> { Ok(fields.get(n).context("a field")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let Ok(entry) = entry else { continue };
        // Files come and go meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += match metadata.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}

/// Bytes that nothing compresses.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

struct Partition {
    keys: PartitionKeys,
    next: i64,
}

impl Partition {
    fn all(count: i32) -> Vec<Self> {
        let topic = TopicId::random();
        let keys = |n| PartitionKeys { topic, partition: PartitionIndex(n) };
        (0..count).map(|n| Self { keys: keys(n), next: 0 }).collect()
    }

    fn append(&mut self, batch: &mut WriteBatch, value: Bytes) {
        batch.put(self.keys.batch(Offset(self.next)), value);
        self.next += 1;
        batch.put(
            self.keys.end(),
            LogEnd { next_offset: Offset(self.next), ..LogEnd::EMPTY }.encode(),
        );
    }
}

async fn speed_row(parent: &str, engine: Engine, kilobytes: usize, partitions: i32) -> Result<()> {
    let directory = tempfile::tempdir_in(parent).context("a directory to write in")?;
    let store = engine.open(directory.path())?;
    let value = Bytes::from(noise(BATCH_BYTES));
    let mut logs = Partition::all(partitions);
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let mut took = Vec::new();
    let mut turn = 0;
    for _ in 0..ROW_BYTES / (kilobytes * 1024) {
        let mut batch = WriteBatch::new();
        for _ in 0..kilobytes * 1024 / BATCH_BYTES {
            turn = (turn + 7) % logs.len();
            logs[turn].append(&mut batch, value.clone());
        }
        let begun = Instant::now();
        write(&*store, batch).await?;
        took.push(begun.elapsed());
    }
    let (seconds, spent) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let mut read = 0;
    for log in &logs {
        let mut range = log.keys.kind_range(Kind::Batch);
        loop {
            let page = store.scan(range.clone(), ScanLimit::bytes(1024 * 1024)).await?;
            read += page.items.iter().map(|(_, value)| value.len()).sum::<usize>();
            let Some(resume) = page.resume else { break };
            range.start = resume;
        }
    }
    let (read_seconds, read_cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let gigabytes = ROW_BYTES as f64 / 1e9;
    println!(
        "{:>10} {kilobytes:>6} KB {partitions:>10} | {:>8.0} {:>9.2} {:>8.2} {:>8.2} | {:>8.0} {:>9.2}",
        engine.name(),
        gigabytes * 1e3 / seconds,
        spent / gigabytes,
        at(0.5),
        at(0.99),
        read as f64 / 1e6 / read_seconds,
        read_cpu / (read as f64 / 1e9),
    );
    store.close().await?;
    Ok(())
}

/// A partition that keeps its last `keeps` batches, in chunks of a megabyte as the log does.
struct Retained {
    partition: Partition,
    keeps: Option<i64>,
    start: i64,
}

async fn retention_row(parent: &str, engine: Engine, gigabytes: usize) -> Result<()> {
    const CHUNK: i64 = 64;
    let directory = tempfile::tempdir_in(parent).context("a directory to write in")?;
    let store = engine.open(directory.path())?;
    let value = Bytes::from(noise(BATCH_BYTES));
    let mut logs: Vec<_> = Partition::all(1000)
        .into_iter()
        .enumerate()
        .map(|(n, partition)| Retained {
            partition,
            keeps: (n % 10 > 0).then_some(i64::try_from(n % 7).unwrap_or(0) * CHUNK + CHUNK),
            start: 0,
        })
        .collect();
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    let mut under_way = VecDeque::new();
    let mut most = 0;
    for round in 0..gigabytes * 1_000_000_000 / (8 * BATCH_BYTES) {
        let mut batch = WriteBatch::new();
        for n in 0..8 {
            let turn = (round * 8 + n) * 7 % logs.len();
            logs[turn].partition.append(&mut batch, value.clone());
        }
        let log = &mut logs[round % 1000];
        if let Some(keeps) = log.keeps
            && log.partition.next - log.start >= keeps + CHUNK
        {
            let to = log.start + CHUNK;
            batch.delete_range(log.partition.keys.batches(Offset(log.start), Offset(to)));
            log.start = to;
        }
        store.ready().await?;
        under_way.push_back(store.submit(batch)?);
        if under_way.len() >= 8
            && let Some(write) = under_way.pop_front()
        {
            write.await?;
        }
        if round % 10_000 == 0 {
            most = most.max(disk_bytes(directory.path())?);
        }
    }
    for write in under_way {
        write.await?;
    }
    let (seconds, spent) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let retained: i64 = logs.iter().map(|log| log.partition.next - log.start).sum();
    let retained = retained as f64 * BATCH_BYTES as f64 / 1e9;
    let held = disk_bytes(directory.path())? as f64 / 1e9;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let settled = disk_bytes(directory.path())? as f64 / 1e9;
    println!(
        "{:>10} {gigabytes:>6} GB | {:>8.0} {:>9.2} | {retained:>9.1} {:>9.1} {held:>9.1} {settled:>9.1}",
        engine.name(),
        gigabytes as f64 * 1e3 / seconds,
        spent / gigabytes as f64,
        most as f64 / 1e9,
    );
    store.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    let gigabytes = arguments.next().map_or(Ok(50), |gigabytes| gigabytes.parse())?;
    let only = arguments.next();
    let engines = || {
        Engine::ALL
            .into_iter()
            .filter(|engine| only.as_deref().is_none_or(|only| only == engine.name()))
    };
    println!(
        "{:>10} {:>9} {:>10} | {:>8} {:>9} {:>8} {:>8} | {:>8} {:>9}",
        "engine",
        "a sync",
        "partitions",
        "MB/s",
        "CPU s/GB",
        "p50 ms",
        "p99 ms",
        "read MB/s",
        "CPU s/GB"
    );
    for kilobytes in [16, 64, 256] {
        for partitions in [1, 10, 1000] {
            for engine in engines() {
                speed_row(&parent, engine, kilobytes, partitions).await?;
            }
        }
    }
    println!(
        "\n{:>10} {:>9} | {:>8} {:>9} | {:>9} {:>9} {:>9} {:>9}",
        "engine", "written", "MB/s", "CPU s/GB", "retained", "most GB", "held GB", "after 60s"
    );
    for engine in engines() {
        retention_row(&parent, engine, gigabytes).await?;
    }
    Ok(())
}
