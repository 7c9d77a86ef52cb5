//! Who has room in memory, and what goes for whom.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use robustmq_common::limits::dataset as limits;

use super::{
    Ahead, Cache, Extent, ExtentId, Layout, MIB, Origin, READER, Tier, UserId, content, get, id,
    in_memory, settle,
};

/// Reads extents of a MiB, one after the other.
async fn scan(cache: &Arc<Cache>, origin: &Arc<Origin>, starts: Range<u64>) {
    for start in starts {
        get(cache, origin, id(start, MIB)).await.expect("it is there");
        cache.passed(id(start, MIB), READER);
    }
}

/// A cache of 48 MiB that is full: hardly anything ranks before what stays.
async fn full() -> (Arc<Cache>, Arc<Origin>) {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    scan(&cache, &origin, 0..500).await;
    (cache, origin)
}

#[tokio::test(start_paused = true)]
async fn loads_that_readers_wait_for_wait_for_room_where_there_is_none() {
    let (cache, origin) = (in_memory(48 << 20), Origin::closed());
    let readers: Vec<_> = (0..300)
        .map(|start| {
            let (cache, origin) = (cache.clone(), origin.clone());
            tokio::spawn(async move { get(&cache, &origin, id(start, MIB)).await })
        })
        .collect();
    settle().await;
    let under_way = origin.loads();
    assert_eq!(23, under_way, "half of the memory, with what the books take");
    // Whoever reads ahead does not come before those who wait.
    let ahead = id(1000, MIB);
    assert_eq!(Ahead::Begun, cache.ahead(ahead, READER, origin.load(ahead)), "among what stays");
    for _ in 0..300 {
        origin.gate.add_permits(1);
        settle().await;
        assert!(cache.stats(None).memory_bytes <= 48 << 20);
    }
    origin.gate.add_permits(1);
    for reader in readers {
        assert_eq!(Ok(Tier::Source), reader.await.expect("no panic"));
    }
    assert!(cache.stats(None).memory_bytes <= 48 << 20);
    assert_eq!(301, origin.loads());
}

/// What was fetched and indexed had room twice for a moment, as a piece and as an extent: where there was not, it was thrown away, and its reader
/// had it fetched again.
#[tokio::test(start_paused = true)]
async fn what_was_fetched_to_be_indexed_takes_the_place_of_its_piece() {
    let (cache, origin) = full().await;
    let room = cache.try_take_room(8 << 20).expect("a third of the pool");
    let ahead = (1000..1100).map(|start| id(start, MIB));
    let begun = ahead.filter(|id| cache.ahead(*id, READER, origin.load(*id)) == Ahead::Begun);
    assert_eq!(16, begun.count());
    settle().await;
    let put = |id: ExtentId, taken_bytes| {
        let extent = Extent { content: content(id).into(), layout: Layout::default() };
        cache.put(id, READER, Arc::new(extent), taken_bytes);
        cache.contains(id).is_some()
    };
    // Those that do not rank.
    let others: Vec<_> =
        (2000..2100).map(|start| id(start, MIB)).filter(|id| !put(*id, 0)).collect();
    assert!(!put(others[0], 0) && put(others[0], MIB as usize + 512));
    drop(room);
    assert!(cache.stats(None).memory_bytes <= 48 << 20);
}

/// Where there were more readers than extents that the cache could hold, each had its own fetched anew for each of its Fetches, and pushed out
/// that of another: nobody got on, and the source sent eight times the data.
#[tokio::test(start_paused = true)]
async fn more_readers_than_there_is_room_for_wait_for_each_other_and_load_once() {
    let (cache, origin) = (in_memory(48 << 20), Origin::new());
    let readers = (0..100).map(|reader| {
        let (cache, origin) = (cache.clone(), origin.clone());
        tokio::spawn(async move {
            for extent in 0..3 {
                let id = id(reader * 10 + extent, MIB);
                for _ in 0..8 {
                    get(&cache, &origin, id).await.expect("it is there");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                cache.passed(id, READER);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for reader in readers {
        reader.await.expect("no panic");
    }
    assert_eq!(300, origin.loads());
}

/// A load that there was not enough room for threw out what was read ahead, and waited all the same: that was fetched twice.
#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_stays_where_its_going_is_not_enough() {
    let (cache, origin) = full().await;
    let ahead: Vec<_> = (1000..1006).map(|start| id(start, MIB / 2)).collect();
    for id in &ahead {
        assert_eq!(Ahead::Begun, cache.ahead(*id, READER, origin.load(*id)));
    }
    for start in 2000..2004 {
        get(&cache, &origin, id(start, 5 * MIB)).await.expect("it is there");
    }
    let large = id(3000, 8 * MIB);
    let (waits, from) = (cache.clone(), origin.clone());
    let waits = tokio::spawn(async move { get(&waits, &from, large).await });
    settle().await;
    assert_eq!(None, cache.contains(large), "others are being read");
    assert!(ahead.iter().all(|id| cache.contains(*id) == Some(Tier::Memory)));
    assert_eq!(Ok(Tier::Source), waits.await.expect("no panic"), "when they are not any more");
}

/// What is being sent may grow after a piece got its room: its extent was thrown away then, and fetched again for its reader.
#[tokio::test(start_paused = true)]
async fn what_was_fetched_to_be_indexed_is_kept_however_full_it_has_become() {
    let (cache, _) = full().await;
    let _piece = cache.try_take_room(8 << 20).expect("a third of the pool");
    let _others = cache.keep_room(30 << 20);
    for start in 2000..2100 {
        let extent = Extent { content: content(id(start, MIB)).into(), layout: Layout::default() };
        let before = cache.stats(None).memory_bytes;
        cache.put(id(start, MIB), READER, Arc::new(extent), MIB as usize);
        assert_eq!(cache.contains(id(start, MIB)), Some(Tier::Memory));
        cache.passed(id(start, MIB), READER);
        assert!(cache.stats(None).memory_bytes <= before + 2 * MIB as u64);
    }
}

/// Two topics over the same objects: what the first was past went for what it read next, and was fetched again for the second, a little behind it.
#[tokio::test(start_paused = true)]
async fn what_another_user_will_read_soon_stays_until_then() {
    let (cache, origin) = full().await;
    let behind = UserId(2);
    let both: Vec<_> = (1000..1008).map(|start| id(start, MIB)).collect();
    for id in &both {
        get(&cache, &origin, *id).await.expect("it is there");
        let found = cache.ahead(*id, behind, origin.load(*id));
        assert!(matches!(found, Ahead::Here | Ahead::Resident), "{found:?}");
        cache.passed(*id, READER);
    }
    scan(&cache, &origin, 2000..2100).await;
    let before = origin.loads();
    for id in &both {
        let found = cache.get(*id, behind, origin.load(*id)).await.expect("it is there");
        assert_eq!(found.1, Tier::Memory);
        cache.passed(*id, behind);
    }
    assert_eq!(origin.loads(), before);
    // Then they go.
    scan(&cache, &origin, 3000..3100).await;
    let left = both.iter().filter(|id| cache.contains(**id).is_some()).count();
    assert!(left < both.len(), "{left} have stayed");
}

/// Row groups came and went: read-ahead had twice the room between two of them, and what it had brought went when the next one came. One reader
/// in order had each byte fetched four times.
#[tokio::test(start_paused = true)]
async fn read_ahead_leaves_room_for_what_is_worked_in_for_a_while_after() {
    let (cache, origin) = full().await;
    cache.work().set(1 << 20);
    assert_eq!(cache.working_bytes(), 0, "it has ended");
    let begin = |starts: Range<u64>| {
        let ahead = starts.map(|start| id(start, MIB));
        ahead.filter(|id| cache.ahead(*id, READER, origin.load(*id)) == Ahead::Begun).count()
    };
    assert_eq!(begin(1000..1100), 11, "half of read-ahead's room");
    tokio::time::advance(limits::WORK_GOES_ON).await;
    assert_eq!(begin(1100..1200), 12, "all of it");
}

/// What one answer had been lent took all the room that decoding had left, and the rest of the answer waited for room: until nothing had been
/// decoded for a while, 15 to 22 seconds.
#[tokio::test(start_paused = true)]
async fn what_an_answer_waits_for_does_not_wait_for_the_answer() {
    let (cache, origin) = full().await;
    let lent = super::lent::lend(&cache, &origin, 1000..1020).await;
    assert_eq!(lent.len(), 11, "half of the room");
    let mut working = cache.work();
    working.set(1 << 20);
    let loads = origin.loads();
    for start in (2000..2004).chain(2000..2004).chain(2000..2004) {
        let rest = get(&cache, &origin, id(start, MIB));
        let rest = tokio::time::timeout(limits::WORK_GOES_ON / 4, rest).await;
        assert!(rest.expect("it is not worked in less").is_ok());
    }
    // Who is sent nothing more for a while does not have the others load the same again and again.
    assert!(origin.loads() - loads <= 8, "{}", origin.loads() - loads);
    drop(lent);
    // From now on less is lent.
    let lent = super::lent::lend(&cache, &origin, 3000..3020).await;
    assert_eq!(lent.len(), 5, "half of what is left");
}

/// Two windows were a little more than the pool: each of their extents was loaded again for a few records, while what was not read stayed.
#[tokio::test(start_paused = true)]
async fn what_is_read_in_turn_has_room_of_what_stays_as_long_as_it_needs_it() {
    let (cache, origin) = full().await;
    let residents = || cache.stats(None).resident_bytes;
    let before = residents();
    for window in 1..=10 {
        let (starts, loads) = (window * 1000..window * 1000 + 30, origin.loads());
        for round in 0..20 {
            for start in starts.clone() {
                get(&cache, &origin, id(start, MIB)).await.expect("it is there");
                assert!(cache.stats(None).memory_bytes <= 48 << 20, "{window}, {round}");
                tokio::time::advance(Duration::from_millis(20)).await;
            }
        }
        let loads = origin.loads() - loads;
        assert!((25..90).contains(&loads), "{loads} loads of 30 extents in 20 rounds");
        assert!(residents() >= before / 2, "no more than half of what stays");
        starts.for_each(|start| cache.passed(id(start, MIB), READER));
    }
    // What is lent or read ahead has nothing of it.
    assert!(residents() < before);
    assert!(super::lent::lend(&cache, &origin, 20_000..20_030).await.len() <= 11);
    for _ in 0..10 {
        tokio::time::advance(limits::STRAIN_HALVES * 2).await;
        get(&cache, &origin, id(0, MIB)).await.expect("it is there");
        cache.passed(id(0, MIB), READER);
    }
    scan(&cache, &origin, 0..500).await;
    assert!(residents() > before - 2 * u64::from(MIB), "all is given back");
}

/// Now and then an extent went while a slow reader read it: that is not to take the room of what stays, half of it in the end.
#[tokio::test(start_paused = true)]
async fn what_has_room_when_it_is_loaded_again_takes_none_of_what_stays() {
    let (cache, origin) = full().await;
    let before = cache.stats(None).resident_bytes;
    for slow in 0..40 {
        let slow = id(10_000 + slow, MIB);
        get(&cache, &origin, slow).await.expect("it is there");
        tokio::time::advance(limits::BEING_READ).await;
        // Many others want room at the same time, and are read to their ends at once.
        for other in 0..40 {
            let other = id(20_000 + slow.start * 100 + other, MIB);
            get(&cache, &origin, other).await.expect("it is there");
        }
        for other in 0..40 {
            cache.passed(id(20_000 + slow.start * 100 + other, MIB), READER);
        }
        get(&cache, &origin, slow).await.expect("it is there");
        cache.passed(slow, READER);
        assert!(cache.stats(None).resident_bytes >= before - 2 * u64::from(MIB));
    }
}

/// What does not fit had half of what stays go for it with each read, and did not fit all the same.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_at_all_takes_none_of_what_stays() {
    let (cache, origin) = full().await;
    let before = cache.stats(None).resident_bytes;
    let large = id(70_000, 40 * MIB);
    for _ in 0..5 {
        get(&cache, &origin, large).await.expect("one load goes on however large it is");
    }
    assert_eq!(cache.stats(None).resident_bytes, before);
}
