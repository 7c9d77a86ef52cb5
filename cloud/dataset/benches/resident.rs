//! What a read of something costs that the cache has, in memory or on SSD.
//!
//! `cargo bench -p robustmq-dataset --bench resident [-- DIRECTORY]`. Extents of 8 MB: memory holds 16, the SSD 32. The page cache is dropped
//! before each round of reads from SSD, where that is allowed (by root); the table says whether it was.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use robustmq_common::limits::dataset as limits;
use robustmq_dataset::cache::{Cache, CacheSettings, ExtentId, Load, SsdSettings, Tier, UserId};
use robustmq_dataset::fetch::FetchError;
use robustmq_dataset::layout::{Extent, Layout};

const MEMORY_EXTENTS: usize = 16;
const SSD_EXTENTS: usize = 32;
const EXTENTS: u64 = 64;
const READER: UserId = UserId(1);
const MEMORY_READS: usize = 100_000;
const SSD_ROUNDS: usize = 20;

/// Bytes that are made from the extent's number.
struct Made(u64);

#[async_trait]
impl Load for Made {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        let words = (0..limits::EXTENT_BYTES as u64 / 8)
            .flat_map(|word| (word ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Ok(words.collect())
    }

    fn open(&self, content: Bytes) -> Result<Extent, FetchError> {
        // As a real one does.
        std::hint::black_box(crc32c::crc32c(&content));
        Ok(Extent { content, layout: Layout::default() })
    }
}

fn id(number: u64) -> ExtentId {
    let bytes = u32::try_from(limits::EXTENT_BYTES).expect("8 MB");
    ExtentId { object: 7, start: number * u64::from(bytes), bytes }
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1000).copied().unwrap_or_default();
    let [p50, p99, p999] = [at(500), at(990), at(999)].map(|time| time.as_secs_f64() * 1e3);
    println!("{name:<24}{:>10}{p50:>12.4}{p99:>12.4}{p999:>12.4}", times.len());
}

/// Whether the page cache was dropped.
fn drop_page_cache() -> bool {
    std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

async fn get(cache: &Arc<Cache>, number: u64) -> (Tier, Duration) {
    let began = Instant::now();
    let found = cache.get(id(number), READER, Arc::new(Made(number))).await;
    let (_, tier) = found.expect("made from its number");
    (tier, began.elapsed())
}

#[tokio::main]
async fn main() {
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let temporary = tempfile::tempdir().expect("a folder");
    let directory = directory.map_or(temporary.path().to_owned(), PathBuf::from);
    // Half of so little memory stays.
    let memory_bytes = 2 * MEMORY_EXTENTS * (limits::EXTENT_BYTES + limits::EXTENT_COST_BYTES);
    let ssd = SsdSettings {
        dir: directory.join("cache"),
        bytes: (SSD_EXTENTS * limits::EXTENT_BYTES) as u64,
    };
    let cache = Cache::open(CacheSettings { memory_bytes, ssd: Some(ssd) }).expect("large enough");
    for _ in 0..3 {
        for number in 0..EXTENTS {
            get(&cache, number).await;
            cache.passed(id(number), READER);
        }
    }
    // What is to be on SSD is written beside the reads.
    let mut written = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = cache.stats(None).ssd_written_bytes;
        if std::mem::replace(&mut written, now) == now {
            break;
        }
    }
    let (memory, on_ssd) = (in_tier(&cache, Tier::Memory), in_tier(&cache, Tier::Ssd));
    println!("{:<24}{:>10}{:>12}{:>12}{:>12}", "", "reads", "p50 ms", "p99 ms", "p99.9 ms");
    let mut times = Vec::with_capacity(MEMORY_READS);
    for number in memory.iter().cycle().take(MEMORY_READS) {
        times.push(get(&cache, *number).await.1);
    }
    print("from memory", times);
    let (mut times, mut is_cold) = (Vec::new(), true);
    for _ in 0..SSD_ROUNDS {
        is_cold &= drop_page_cache();
        for number in &on_ssd {
            let (tier, took) = get(&cache, *number).await;
            if tier == Tier::Ssd {
                times.push(took);
            }
            cache.passed(id(*number), READER);
        }
    }
    print(if is_cold { "from SSD, cold" } else { "from SSD, page cache" }, times);
}

fn in_tier(cache: &Cache, tier: Tier) -> Vec<u64> {
    (0..EXTENTS).filter(|number| cache.contains(id(*number)) == Some(tier)).collect()
}
