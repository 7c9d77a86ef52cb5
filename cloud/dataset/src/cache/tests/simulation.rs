//! Epochs over more data than the cache holds, beside what a cache that knows the future would fetch, and what one that keeps what was
//! used last would.

use std::collections::VecDeque;

use robustmq_common::disk::sim::SimDisk;

use super::*;
use crate::order::Permutation;

const EPOCHS: u64 = 5;

#[derive(Clone, Copy)]
struct Scene {
    extents: u64,
    extent_bytes: u32,
    ssd_bytes: Option<u64>,
    is_shuffled: bool,
}

impl Scene {
    /// The extents in the order that they are read in.
    fn order(self) -> Vec<ExtentId> {
        let epochs = (0..EPOCHS).flat_map(|epoch| {
            let permutation = Permutation::new(self.extents, 5, epoch, 0);
            (0..self.extents).map(
                move |place| {
                    if self.is_shuffled { permutation.at(place) } else { place }
                },
            )
        });
        epochs.map(|start| id(start, self.extent_bytes)).collect()
    }

    /// What a cache of so many bytes fetches that keeps what was used last.
    fn lru_bytes(self, holds: u64) -> u64 {
        let mut kept = VecDeque::new();
        let mut fetched = 0;
        for extent in self.order() {
            match kept.iter().position(|other| *other == extent) {
                Some(at) => drop(kept.remove(at)),
                None => fetched += u64::from(self.extent_bytes),
            }
            kept.push_back(extent);
            if kept.len() as u64 * u64::from(self.extent_bytes) > holds {
                kept.pop_front();
            }
        }
        fetched
    }
}

/// Reads it with two Fetches an extent and four extents read ahead.
async fn check(name: &str, scene: Scene) {
    let memory_bytes = 48 << 20;
    let ssd = scene.ssd_bytes.map(|bytes| SsdSettings { dir: "/cache".into(), bytes });
    let disk = Arc::new(SimDisk::new(1));
    let cache = Cache::open_on(CacheSettings { memory_bytes, ssd }, disk).expect("large enough");
    let origin = Origin::new();
    let order = scene.order();
    for (at, extent) in order.iter().enumerate() {
        for next in order.iter().skip(at + 1).take(4) {
            cache.ahead(*next, READER, origin.load(*next));
        }
        get(&cache, &origin, *extent).await.expect("it is there");
        get(&cache, &origin, *extent).await.expect("it is there");
        cache.passed(*extent, READER);
        if let Some(ssd) = &cache.ssd {
            ssd.is_idle().await;
        }
        let stats = cache.stats(Some(UserId(9)));
        assert!(stats.memory_bytes <= memory_bytes as u64, "{stats:?}");
    }
    let stats = cache.stats(Some(READER));
    let first_epoch = scene.extents * u64::from(scene.extent_bytes);
    let (ours, least) = (stats.traced_source_bytes - first_epoch, stats.belady_bytes - first_epoch);
    let holds = memory_bytes as u64 / 2 + scene.ssd_bytes.unwrap_or(0);
    let lru = scene.lru_bytes(holds) - first_epoch;
    let per_epoch = |bytes: u64| bytes / u64::from(scene.extent_bytes) / (EPOCHS - 1);
    println!(
        "{name}: of {} extents an epoch fetches {}, the least is {}, LRU would fetch {}",
        scene.extents,
        per_epoch(ours),
        per_epoch(least),
        per_epoch(lru)
    );
    assert_eq!(order.len() as u64, {
        let counts = stats.counts;
        counts.memory_reads + counts.ssd_reads + counts.source_reads
    });
    assert_eq!(stats.traced_source_bytes, stats.counts.source_bytes, "each byte is read");
    assert!(ours * 100 <= least * 105, "{name}: {ours} is more than 1.05 times {least}");
}

/// 140 of 200 extents fit.
const SMALL: Scene =
    Scene { extents: 200, extent_bytes: 179_000, ssd_bytes: None, is_shuffled: false };
/// 95 and 256 of 500.
const WITH_SSD: Scene =
    Scene { extents: 500, extent_bytes: 256 * 1024, ssd_bytes: Some(64 << 20), is_shuffled: false };

#[tokio::test(start_paused = true)]
async fn a_scan_that_goes_round_fetches_the_least_that_any_cache_could() {
    check("cyclic", SMALL).await;
}

#[tokio::test(start_paused = true)]
async fn a_reshuffled_scan_fetches_the_least_that_any_cache_could() {
    check("reshuffled", Scene { is_shuffled: true, ..SMALL }).await;
}

#[tokio::test(start_paused = true)]
async fn memory_and_ssd_together_fetch_the_least_that_any_cache_could() {
    check("cyclic, with SSD", WITH_SSD).await;
    check("reshuffled, with SSD", Scene { is_shuffled: true, ..WITH_SSD }).await;
}
