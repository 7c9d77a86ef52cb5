//! The bytes of objects, and the cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use robustmq_common::ids::{LeaderEpoch, Offset};
use robustmq_common::limits;
use robustmq_common::record::{BatchBuilder, Compression, NewRecord};
use uuid::Uuid;

use super::blocks::{BlockId, Blocks, Check, Source};
use super::format::{FormatError, ObjectBuilder, batches, parse_footer};
use crate::metrics::TierMetrics;
use crate::objects::faulty::FaultyStore;

fn batch(base: i64, records: usize, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        let value = vec![b'v'; bytes];
        builder.push(&NewRecord { value: Some(&value), ..NewRecord::default() }).expect("it fits");
    }
    let batch = builder.build().expect("it fits");
    batch.placed(Offset(base), LeaderEpoch(0)).as_bytes().clone()
}

#[test]
fn an_object_says_where_its_blocks_are_and_what_is_in_them() {
    let half = limits::tier::BLOCK_BYTES / 2;
    let all = [batch(5, 2, half / 2), batch(9, 1, half), batch(10, 3, 10), batch(20, 1, 3 * half)];
    let mut object = ObjectBuilder::default();
    for batch in &all {
        object.push(batch.clone()).expect("a batch");
    }
    let sealed = object.seal().expect("batches");
    assert_eq!((sealed.base_offset, sealed.last_offset), (Offset(5), Offset(20)));
    let footer = sealed.parts.last().expect("a footer");
    assert_eq!(footer.len(), sealed.footer_bytes as usize);
    let blocks = parse_footer(footer).expect("intact");
    let spans: Vec<_> = blocks.iter().map(|b| (b.base_offset.0, b.last_offset.0)).collect();
    assert_eq!(spans, [(5, 9), (10, 20)]);
    let bytes: Vec<u8> = sealed.parts.concat();
    assert_eq!(bytes.len() as u64, sealed.data_bytes + u64::from(sealed.footer_bytes));
    let cut = |index: usize| {
        let start = usize::try_from(blocks[index].position).expect("small");
        Bytes::copy_from_slice(&bytes[start..start + blocks[index].bytes as usize])
    };
    for (index, block) in blocks.iter().enumerate() {
        assert_eq!(crc32c::crc32c(&cut(index)), block.crc32c);
    }
    let read = |index, from, max, one| batches(&cut(index), Offset(from), max, one);
    assert_eq!(read(0, 0, usize::MAX, true), Ok((all[..2].to_vec(), true)));
    assert_eq!(read(0, 7, usize::MAX, true), Ok((all[1..2].to_vec(), true)));
    assert_eq!(read(1, 12, 0, true), Ok((all[2..3].to_vec(), false)));
    assert_eq!(read(1, 12, 0, false), Ok((Vec::new(), false)));
    assert_eq!(read(1, 13, usize::MAX, true), Ok((all[3..].to_vec(), true)));
}

#[test]
fn a_damaged_footer_is_refused_whatever_is_changed() {
    let mut object = ObjectBuilder::default();
    object.push(batch(0, 1, 10)).expect("a batch");
    let footer = object.seal().expect("a batch").parts.pop().expect("a footer");
    assert!(parse_footer(&footer).is_ok());
    for at in 0..footer.len() {
        let mut damaged = footer.to_vec();
        damaged[at] ^= 1;
        assert!(matches!(parse_footer(&damaged), Err(FormatError::Footer(_))), "byte {at}");
        assert!(parse_footer(&footer[at + 1..]).is_err(), "from byte {}", at + 1);
    }
    assert!(parse_footer(&[]).is_err());
    assert_eq!(ObjectBuilder::default().seal().map(|sealed| sealed.parts.len()), None);
}

fn id(number: usize) -> BlockId {
    BlockId { object: Uuid::from_bytes([1; 16]), number }
}

async fn cache(budget_bytes: usize) -> (Arc<FaultyStore>, Arc<Blocks>, impl Fn(usize) -> Source) {
    let objects = FaultyStore::new(1);
    let path = Path::from("object");
    objects.put(&path, vec![7; 1000].into()).await.expect("it is up");
    let seam = Arc::clone(&objects) as Arc<dyn ObjectStore>;
    let blocks = Arc::new(Blocks::new(seam, budget_bytes, TierMetrics::default()));
    let source = move |number: usize| {
        let start = number as u64 * 100;
        let check = Check::Crc32c(crc32c::crc32c(&[7; 100]));
        Source { path: path.clone(), range: start..start + 100, check }
    };
    (objects, blocks, source)
}

async fn fetch_ahead(blocks: &Arc<Blocks>, id: BlockId, source: Source) {
    if let Some(fetch) = blocks.get_ahead(id, source) {
        fetch.await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_is_fetched_once_however_many_ask() {
    let (objects, blocks, source) = cache(1000).await;
    objects.set_delay(Duration::from_millis(100));
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let (blocks, source) = (Arc::clone(&blocks), source(3));
            tokio::spawn(async move { blocks.get(id(3), &source).await })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.expect("no panic").map(|block| block.len()), Ok(100));
    }
    assert_eq!(blocks.metrics.fetched_bytes.get(), 100);
    // One who gives up takes it from nobody.
    let (fourth, moment) = (source(4), Duration::from_millis(1));
    let given_up = tokio::time::timeout(moment, blocks.get(id(4), &fourth));
    assert!(given_up.await.is_err());
    assert!(blocks.get(id(4), &source(4)).await.is_ok());
    // A failure is not remembered.
    objects.set_down(true);
    assert!(blocks.get(id(5), &source(5)).await.is_err());
    assert_eq!(blocks.bytes(), 200);
    objects.set_down(false);
    assert!(blocks.get(id(5), &source(5)).await.is_ok());
    assert_eq!(objects.puts.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_budget_holds_and_what_is_used_stays() {
    let (objects, blocks, source) = cache(300).await;
    for number in [0, 1, 2, 0, 3] {
        blocks.get(id(number), &source(number)).await.expect("it is up");
        assert!(blocks.bytes() <= 300);
    }
    let fetched = blocks.metrics.fetched_bytes.get();
    for (number, is_there) in [(0, true), (2, true), (3, true), (1, false)] {
        let before = blocks.metrics.fetched_bytes.get();
        blocks.get(id(number), &source(number)).await.expect("it is up");
        assert_eq!(blocks.metrics.fetched_bytes.get() == before, is_there, "{number}");
    }
    assert_eq!(blocks.metrics.fetched_bytes.get(), fetched + 100);
    // Nothing is fetched ahead where readers wait for all that there is room for.
    objects.set_delay(Duration::from_millis(100));
    let waiting: Vec<_> = (4..7)
        .map(|number| {
            let (blocks, source) = (Arc::clone(&blocks), source(number));
            tokio::spawn(async move { blocks.get(id(number), &source).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    fetch_ahead(&blocks, id(8), source(8)).await;
    assert_eq!(blocks.bytes(), 300);
    for answer in waiting {
        answer.await.expect("no panic").expect("it is up");
    }
    assert_eq!(blocks.metrics.fetched_bytes.get(), fetched + 400);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_shrinks_is_kept_at_once_and_one_that_grows_is_used() {
    let (_objects, blocks, source) = cache(300).await;
    for number in 0..3 {
        blocks.get(id(number), &source(number)).await.expect("it is up");
    }
    blocks.set_budget_bytes(150);
    assert_eq!(blocks.bytes(), 100);
    let fetched = blocks.metrics.fetched_bytes.get();
    blocks.get(id(2), &source(2)).await.expect("it is up");
    assert_eq!(blocks.metrics.fetched_bytes.get(), fetched, "what was used last stays");
    blocks.set_budget_bytes(500);
    for number in 3..7 {
        blocks.get(id(number), &source(number)).await.expect("it is up");
    }
    assert_eq!(blocks.bytes(), 500);
}

/// Ten readers pushed out each other's next blocks, and each block was fetched twenty times.
#[tokio::test(start_paused = true)]
async fn what_was_fetched_ahead_stays_until_it_is_read_or_forgotten() {
    let (_objects, blocks, source) = cache(400).await;
    for number in 0..3 {
        fetch_ahead(&blocks, id(number), source(number)).await;
    }
    // Half of the budget.
    assert_eq!(blocks.bytes(), 200);
    for number in 4..9 {
        blocks.get(id(number), &source(number)).await.expect("it is up");
        assert!(blocks.bytes() <= 400);
    }
    let fetched = blocks.metrics.fetched_bytes.get();
    for number in 0..2 {
        blocks.get(id(number), &source(number)).await.expect("it is up");
    }
    assert_eq!(blocks.metrics.fetched_bytes.get(), fetched);
    // Those who were read make room for the next, and those whom nobody came for as well, later.
    for number in [2, 3] {
        fetch_ahead(&blocks, id(number), source(number)).await;
    }
    fetch_ahead(&blocks, id(9), source(9)).await;
    assert_eq!(blocks.metrics.fetched_bytes.get(), fetched + 200);
    tokio::time::advance(limits::tier::AHEAD_KEPT * 2).await;
    fetch_ahead(&blocks, id(9), source(9)).await;
    assert_eq!(blocks.metrics.fetched_bytes.get(), fetched + 300);
}

/// When an object store hung, those who waited for a block tried one after the other, each for a minute and a half, and each Fetch added one.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_block_that_does_not_come_hears_so_with_all_others() {
    let (objects, blocks, source) = cache(1000).await;
    objects.set_delay(Duration::from_secs(3600));
    let began = tokio::time::Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let (blocks, source) = (Arc::clone(&blocks), source(3));
        waiting.push(tokio::spawn(async move { blocks.get(id(3), &source).await }));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for answer in waiting {
        answer.await.expect("no panic").expect_err("nothing comes");
    }
    let attempts = limits::tier::FETCH_ATTEMPTS;
    assert!(began.elapsed() < (attempts + 1) * limits::object::READ, "{:?}", began.elapsed());
    assert_eq!(objects.gets.load(Ordering::Relaxed), attempts as usize);
    assert_eq!(blocks.bytes(), 0);
    // Those who would be too many are refused at once.
    let most = limits::tier::FETCHES + limits::tier::WAITING_FETCHES;
    let range = source(0);
    let mut waiting = Vec::new();
    for number in 0..most {
        let (blocks, source) = (Arc::clone(&blocks), range.clone());
        waiting.push(tokio::spawn(async move { blocks.get(id(number), &source).await }));
        tokio::task::yield_now().await;
    }
    let began = tokio::time::Instant::now();
    let refused = blocks.get(id(most), &range).await.expect_err("too many").to_string();
    assert!(refused.contains("wait"), "{refused}");
    assert_eq!(began.elapsed(), Duration::ZERO);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}
