//! Extents of which parts are being sent.

use std::sync::atomic::Ordering;

use super::*;

/// Loads extents and lends each: what was lent.
pub(super) async fn lend(
    cache: &Arc<Cache>,
    origin: &Arc<Origin>,
    starts: std::ops::Range<u64>,
) -> Vec<Bytes> {
    let mut lent = Vec::new();
    for start in starts {
        let id = id(start, MIB);
        let (extent, _) = cache.get(id, READER, origin.load(id)).await.expect("it is there");
        lent.extend(cache.lend(id, &extent));
        cache.passed(id, READER);
    }
    lent
}

#[tokio::test(start_paused = true)]
async fn half_of_the_room_of_read_ahead_is_lent_and_the_rest_is_copied() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    let lent = lend(&cache, &origin, 0..30).await;
    assert_eq!(lent.len(), 11, "12 MiB, with what the books take");
    for (start, content) in (0..).zip(&lent) {
        assert!(*content == super::content(id(start, MIB)));
    }
    // Once more of the same ones costs nothing.
    assert_eq!(lend(&cache, &origin, 0..11).await, lent);
    drop(lent);
    assert_eq!(lend(&cache, &origin, 20..50).await.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn what_has_left_the_cache_counts_until_it_was_sent() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    let lent = lend(&cache, &origin, 0..10).await;
    let mut parts: Vec<Bytes> = lent.iter().map(|content| content.slice(10..20)).collect();
    drop(lent);
    // Others come, and those that are lent do not rank among them.
    let within = |stats: super::super::CacheStats| {
        assert!(stats.memory_bytes <= stats.budget_bytes, "{stats:?}");
        stats.ahead_bytes / u64::from(MIB)
    };
    for start in 1000..2000 {
        get(&cache, &origin, id(start, MIB)).await.expect("it is there");
        cache.passed(id(start, MIB), READER);
        within(cache.stats(None));
    }
    let held = within(cache.stats(None));
    let loads = origin.loads.load(Ordering::Relaxed);
    assert_eq!(loads, 1010);
    // What is read ahead finds less room.
    let begin = |from: u64| {
        let ids = (from..from + 100).map(|start| id(start, MIB));
        ids.take_while(|id| cache.ahead(*id, READER, origin.load(*id)) == Ahead::Begun).count()
    };
    let begun = begin(3000);
    assert!((13..=14).contains(&begun), "{begun} beside 10 that are lent of {held}");
    settle().await;
    within(cache.stats(None));
    parts.truncate(2);
    assert!(parts.iter().all(|part| part.len() == 10));
    let begun = begin(4000);
    assert!((7..=8).contains(&begun), "{begun} where 8 were sent");
}
