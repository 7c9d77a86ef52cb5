use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use tokio::sync::Semaphore;

use super::{Bytes, FetchError, Object, Pieces, Source, limits};
use crate::cache::in_memory;
use crate::format::{Coding, Format};
use crate::index::{Between, Found, ObjectIndex, Pace, Reading, index};
use crate::layout::Extent;

const LINE: [u8; 1000] = {
    let mut line = [b'1'; 1000];
    line[999] = b'\n';
    line
};

/// Lets one GET through at a time.
struct Narrow(Semaphore);

#[async_trait]
impl Source for Narrow {
    async fn get(&self, _: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        let _turn = self.0.acquire().await.expect("never closed");
        tokio::task::yield_now().await;
        let place = |at: u64| usize::try_from(at).expect("small");
        let skip = place(range.start % LINE.len() as u64);
        let bytes = place(range.end - range.start);
        let mut content = LINE.repeat((skip + bytes).div_ceil(LINE.len()));
        content.truncate(skip + bytes);
        Ok(Bytes::from(content).slice(skip..))
    }
}

/// Wants more when somebody else's GET has come through.
struct Waits<'a>(&'a Narrow, &'a Object);

impl Found for Waits<'_> {
    fn extent(&mut self, _: &ObjectIndex, _: Arc<Extent>) {}

    async fn publish(&mut self, _: &ObjectIndex) -> bool {
        true
    }

    fn promised(&self) -> u64 {
        0
    }

    fn wants(&self, _: u64) -> bool {
        true
    }

    async fn wanted(&mut self) -> bool {
        self.0.get(self.1, 0..10).await.is_ok()
    }
}

fn lines(count: u64) -> Object {
    let size = count * LINE.len() as u64;
    Object { path: Path::from("lines.jsonl"), etag: None, size, modified_ms: 0 }
}

/// Notes which ranges are asked for.
struct Noted(Narrow, Mutex<Vec<Range<u64>>>);

#[async_trait]
impl Source for Noted {
    async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
        self.1.lock().expect("nobody panics").push(range.clone());
        self.0.get(object, range).await
    }
}

struct Nobody;

impl Found for Nobody {
    fn extent(&mut self, _: &ObjectIndex, _: Arc<Extent>) {}

    async fn publish(&mut self, _: &ObjectIndex) -> bool {
        true
    }

    fn promised(&self) -> u64 {
        0
    }

    fn wants(&self, _: u64) -> bool {
        true
    }

    async fn wanted(&mut self) -> bool {
        true
    }
}

/// Wants more as long as it is told so, and keeps what was found.
struct Told {
    found: Vec<Arc<Extent>>,
    /// How much is wanted beside what is on its way; and how often.
    most: u64,
    wanted: Arc<Semaphore>,
}

impl Told {
    fn new(most: u64) -> Self {
        Self { found: Vec::new(), most, wanted: Arc::new(Semaphore::new(0)) }
    }
}

impl Found for Told {
    fn extent(&mut self, _: &ObjectIndex, extent: Arc<Extent>) {
        self.found.push(extent);
    }

    async fn publish(&mut self, _: &ObjectIndex) -> bool {
        true
    }

    fn promised(&self) -> u64 {
        0
    }

    fn wants(&self, on_their_way: u64) -> bool {
        on_their_way < self.most
    }

    async fn wanted(&mut self) -> bool {
        self.wanted.acquire().await.expect("never closed").forget();
        true
    }
}

async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_waits_has_the_first_records_with_a_small_get_and_extents_grow() {
    let object = lines(30 * 1024 * 1024 / LINE.len() as u64);
    let source = Noted(Narrow(Semaphore::new(1)), Mutex::default());
    let reading = Reading::plain(Format::Jsonl, Coding::Plain);
    let cache = in_memory(256 << 20);
    let between = Between::new(&cache);
    let index = index(&source, &object, reading, Pace::urgent(2), &between, &mut Nobody).await;
    let index = index.expect("it can be read");
    let megabytes = |bytes: u64| (bytes + 512 * 1024) / (1024 * 1024);
    let gets = source.1.into_inner().expect("nobody panics");
    let gets: Vec<_> = gets.iter().map(|get| megabytes(get.end - get.start)).collect();
    assert_eq!(gets, [1, 2, 4, 8, 8, 7]);
    let extents = index.extents.iter().map(|extent| megabytes(extent.bytes.into()));
    assert_eq!(extents.take(4).collect::<Vec<_>>(), [1, 2, 4, 8]);
    assert_eq!(index.content_bytes(), object.size);
}

/// Each object that was indexed had up to eight pieces of 8 MB on their way, and a buffer of 16 MB: memory grew with partitions, whatever the
/// budget was.
#[tokio::test]
async fn what_is_fetched_shares_the_room_of_the_cache_and_one_goes_on_in_any_case() {
    let object = lines(60 * 1024 * 1024 / LINE.len() as u64);
    let source = Noted(Narrow(Semaphore::new(100)), Mutex::default());
    let cache = in_memory(64 << 20);
    let asked = || source.1.lock().expect("nobody panics").len();
    let pieces = || Pieces::new(&source, &object, Coding::Plain, Pace::even(8), &cache);
    let (mut first, mut second) = (pieces(), pieces());
    let held = first.next(|_| true, || 0).await.expect("a piece").expect("it can be read");
    assert_eq!(asked(), 4, "half of the pool's 32 MiB, and half of what stays, in pieces of 8");
    let other = async { second.next(|_| true, || 0).await.expect("a piece") };
    let mut other = Box::pin(other);
    tokio::select! {
        biased;
        piece = &mut other => panic!("there is no room for {piece:?}"),
        () = settle() => {}
    }
    assert_eq!(cache.room_bytes(), 4 * limits::EXTENT_BYTES);
    drop(held);
    (&mut other).await.expect("it can be read");
    drop(other);
    assert_eq!(asked(), 5);
    drop((first, second));
    assert_eq!(cache.room_bytes(), 0);
}

/// Fifty partitions that were ahead of their readers kept what they had fetched, until there was no room for the one that somebody read.
#[tokio::test(start_paused = true)]
async fn who_is_ahead_of_readers_gives_up_what_was_fetched_for_who_is_not() {
    let object = lines(50 * 1024 * 1024 / LINE.len() as u64);
    let source = Noted(Narrow(Semaphore::new(100)), Mutex::default());
    let cache = in_memory(64 << 20);
    let between = Between::new(&cache);
    let reading = Reading::plain(Format::Jsonl, Coding::Plain);
    let mut ahead = Told::new(u64::MAX);
    let wanted = Arc::clone(&ahead.wanted);
    let slow = index(&source, &object, reading.clone(), Pace::even(8), &between, &mut ahead);
    let mut slow = Box::pin(slow);
    tokio::select! {
        biased;
        _ = &mut slow => panic!("it waits for its readers"),
        () = settle() => {}
    }
    assert!(cache.room_bytes() >= 2 * limits::EXTENT_BYTES, "{}", cache.room_bytes());
    let mut nobody = Nobody;
    let quick = index(&source, &object, reading, Pace::even(8), &between, &mut nobody);
    let quick = async { tokio::time::timeout(Duration::from_secs(60), quick).await };
    let found = tokio::select! {
        biased;
        _ = &mut slow => panic!("it waits for its readers"),
        found = quick => found,
    };
    assert_eq!(found.expect("it goes on").expect("it can be read").content_bytes(), object.size);
    assert_eq!(cache.room_bytes(), 0, "what waits has given up all");
    wanted.add_permits(1000);
    let index = (&mut slow).await.expect("it can be read");
    drop(slow);
    assert_eq!(index.content_bytes(), object.size);
    let content: Vec<u8> = ahead.found.iter().flat_map(|extent| extent.content.to_vec()).collect();
    assert!(content == LINE.repeat(content.len() / LINE.len()), "nothing twice, nothing left out");
    assert_eq!(content.len() as u64, object.size);
}

/// What readers do not want yet is not fetched: it would have been, eight pieces of each object.
#[tokio::test]
async fn no_more_is_on_its_way_than_is_wanted() {
    let object = lines(50 * 1024 * 1024 / LINE.len() as u64);
    let source = Noted(Narrow(Semaphore::new(100)), Mutex::default());
    let cache = in_memory(64 << 20);
    let between = Between::new(&cache);
    let reading = Reading::plain(Format::Jsonl, Coding::Plain);
    let mut told = Told::new(limits::EXTENT_BYTES as u64 + 1);
    let found = index(&source, &object, reading, Pace::even(8), &between, &mut told);
    tokio::pin!(found);
    tokio::select! {
        biased;
        _ = &mut found => panic!("it waits for its readers"),
        () = settle() => {}
    }
    assert_eq!(source.1.lock().expect("nobody panics").len(), 2);
}

/// Records of 12 MB, which no piece holds: what is there of one is given up too, and had again.
#[tokio::test(start_paused = true)]
async fn the_part_of_a_large_record_is_given_up_and_had_again() {
    const RECORD: usize = 12 * 1024 * 1024;
    struct Large(Narrow);
    #[async_trait]
    impl Source for Large {
        async fn get(&self, object: &Object, range: Range<u64>) -> Result<Bytes, FetchError> {
            self.0.get(object, 0..1).await?;
            let mut content = Vec::new();
            for digit in b"123" {
                content.resize(content.len() + RECORD - 1, *digit);
                content.push(b'\n');
            }
            let place = |at: u64| usize::try_from(at).expect("small");
            Ok(Bytes::from(content).slice(place(range.start)..place(range.end)))
        }
    }
    let size = 3 * RECORD as u64;
    let object = Object { path: Path::from("a.jsonl"), etag: None, size, modified_ms: 0 };
    let source = Large(Narrow(Semaphore::new(100)));
    let cache = in_memory(32 << 20);
    let between = Between::new(&cache);
    let reading = Reading::plain(Format::Jsonl, Coding::Plain);
    let read = || async {
        let mut told = Told::new(u64::MAX);
        told.wanted.add_permits(1000);
        let index = index(&source, &object, reading.clone(), Pace::even(8), &between, &mut told);
        (index.await.expect("it can be read"), told.found)
    };
    let all = async { tokio::join!(read(), read(), read(), read()) };
    let all = tokio::time::timeout(Duration::from_secs(60), all).await.expect("all go on");
    for (index, found) in [all.0, all.1, all.2, all.3] {
        assert_eq!(index.damaged, 0, "{:?}", index.damage);
        let records = found.iter().flat_map(|extent| {
            let spans = extent.layout.records.iter();
            spans.map(|record| record.value.slice(&extent.content)).collect::<Vec<_>>()
        });
        let records: Vec<_> = records.map(|record| (record.len(), record[5])).collect();
        assert_eq!(records, [(RECORD - 1, b'1'), (RECORD - 1, b'2'), (RECORD - 1, b'3')]);
    }
    assert_eq!(cache.room_bytes(), 0);
}

/// Whoever counted ahead of its readers waited for them with GETs begun, which kept their turns while nobody looked after them; the readers
/// waited for a turn. All partitions of a source stood still for good.
#[tokio::test(start_paused = true)]
async fn who_waits_for_readers_takes_no_turn_from_them() {
    let count = 2 * limits::EXTENT_BYTES as u64 / LINE.len() as u64;
    let object = lines(count);
    let source = Narrow(Semaphore::new(1));
    let reading = Reading::plain(Format::Jsonl, Coding::Plain);
    let mut waits = Waits(&source, &object);
    let cache = in_memory(256 << 20);
    let between = Between::new(&cache);
    let found = index(&source, &object, reading, Pace::even(8), &between, &mut waits);
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    let found = found.expect("it goes on").expect("it can be read");
    assert_eq!(found.records(), count);
}
