//! What the log takes on this machine's disk, beside a plain file that is synced by each writer in turn.
//!
//! `cargo bench -p robustmq-cloud --bench log [-- DIRECTORY]`. Each row: so many writers, each appending batches of that size to a
//! partition of its own and waiting for each to be durable.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use robustmq_cloud::log::{AppendContext, Log};
use robustmq_cloud::store::{SegmentSettings, SegmentStore, Store};
use robustmq_common::ids::{Offset, PartitionIndex, TopicId};
use robustmq_common::record::{BatchBuilder, Compression, NewRecord, RecordBatch};
use tokio::task::JoinSet;

const ROW_TIME: Duration = Duration::from_secs(3);
const WRITERS: [i32; 3] = [1, 8, 64];
const BATCH_KB: [usize; 4] = [1, 16, 64, 256];

fn batch(bytes: usize) -> Result<RecordBatch> {
    // Not compressible, as what producers send.
    let mut state = 1_u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let value: Vec<u8> = (0..bytes).map(|_| random()).collect();
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { value: Some(&value), ..NewRecord::default() })?;
    Ok(builder.build()?)
}

/// Appends to the log; returns batches and bytes a second, and how many batches one sync carried.
async fn log_row(directory: &Path, writers: i32, batch: &RecordBatch) -> Result<(f64, f64, f64)> {
    let store = Arc::new(SegmentStore::open(directory, &SegmentSettings::default())?);
    let log = Arc::new(Log::new(Arc::clone(&store) as Arc<dyn Store>));
    let topic = TopicId::random();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (log, batch) = (Arc::clone(&log), batch.clone());
        tasks.spawn(async move {
            let partition = log.partition(topic, PartitionIndex(writer)).await?;
            let mut appended = 0_u32;
            while started.elapsed() < ROW_TIME {
                partition.ready().await?;
                partition.append(batch.clone(), &AppendContext::at(0))?.durable().await?;
                appended += 1;
            }
            anyhow::Ok(appended)
        });
    }
    let mut appended = 0;
    while let Some(task) = tasks.join_next().await {
        appended += task??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let stats = store.stats();
    let one = u32::try_from(batch.size())?;
    let rate = f64::from(appended) / seconds;
    #[expect(clippy::cast_precision_loss, reason = "a count of seconds' work")]
    let shared = stats.writes as f64 / stats.groups.max(1) as f64;
    read_back(&log, topic, appended, writers).await?;
    store.close().await?;
    Ok((rate, rate * f64::from(one), shared))
}

/// The partitions hold what was acknowledged.
async fn read_back(log: &Log, topic: TopicId, appended: u32, writers: i32) -> Result<()> {
    let mut found = 0;
    for writer in 0..writers {
        let partition = log.partition(topic, PartitionIndex(writer)).await?;
        found += partition.offsets().high_watermark.0;
        partition.read(Offset(0), 1).await?;
    }
    anyhow::ensure!(found == i64::from(appended), "{found} batches of {appended}");
    Ok(())
}

/// The same writers on one plain file, each write with its own fdatasync.
fn file_row(directory: &Path, writers: i32, bytes: &[u8]) -> Result<f64> {
    let file = Mutex::new(std::fs::File::create(directory.join("plain"))?);
    let started = Instant::now();
    let written = std::thread::scope(|scope| {
        let writer = || -> Result<u32> {
            let mut written = 0;
            while started.elapsed() < ROW_TIME {
                let mut file = file.lock().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
                file.write_all(bytes)?;
                file.sync_data()?;
                written += 1;
            }
            Ok(written)
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<u32>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?
        };
        threads.into_iter().map(join).sum::<Result<u32>>()
    })?;
    Ok(f64::from(written) / started.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let parent = parent.unwrap_or_else(|| ".".to_owned());
    println!(
        "{:>8} {:>9} | {:>21} {:>12} | {:>21}",
        "writers", "batch", "log", "batches/sync", "file, fdatasync each"
    );
    for kilobytes in BATCH_KB {
        let batch = batch(kilobytes * 1024)?;
        for writers in WRITERS {
            let directory = tempfile::tempdir_in(&parent).context("a directory to write in")?;
            let (rate, bytes, shared) = log_row(directory.path(), writers, &batch).await?;
            let plain = file_row(directory.path(), writers, batch.as_bytes())?;
            println!(
                "{writers:>8} {kilobytes:>6} KB | {rate:>8.0}/s {:>6.1} MB/s {shared:>12.1} | {plain:>8.0}/s {:>6.1} MB/s",
                bytes / 1e6,
                plain * f64::from(u32::try_from(batch.size())?) / 1e6,
            );
        }
    }
    Ok(())
}
