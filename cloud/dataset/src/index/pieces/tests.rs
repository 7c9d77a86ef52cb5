use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use tokio::sync::Semaphore;

use super::{Bytes, FetchError, Object, Pieces, Source, limits};
use crate::format::{Coding, Format};
use crate::index::{Found, ObjectIndex, Pace, Reading, Room, index};
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
        let line = LINE.len() as u64;
        let byte = |at: u64| LINE[usize::try_from(at % line).expect("a short line")];
        Ok(range.map(byte).collect())
    }
}

/// Goes on when somebody else's GET has come through.
struct Waits<'a>(&'a Narrow, &'a Object);

impl Found for Waits<'_> {
    async fn extent(&mut self, _: &ObjectIndex, _: Arc<Extent>) -> bool {
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
    async fn extent(&mut self, _: &ObjectIndex, _: Arc<Extent>) -> bool {
        true
    }
}

#[tokio::test]
async fn who_waits_has_the_first_records_with_a_small_get_and_extents_grow() {
    let object = lines(30 * 1024 * 1024 / LINE.len() as u64);
    let source = Noted(Narrow(Semaphore::new(1)), Mutex::default());
    let reading = Reading::plain(Format::Jsonl, Coding::Plain);
    let room = Room::default();
    let index = index(&source, &object, reading, Pace::urgent(2), &room, &mut Nobody).await;
    let index = index.expect("it can be read");
    let megabytes = |bytes: u64| (bytes + 512 * 1024) / (1024 * 1024);
    let gets = source.1.into_inner().expect("nobody panics");
    let gets: Vec<_> = gets.iter().map(|get| megabytes(get.end - get.start)).collect();
    assert_eq!(gets, [1, 2, 4, 8, 8, 7]);
    let extents = index.extents.iter().map(|extent| megabytes(extent.bytes.into()));
    assert_eq!(extents.take(4).collect::<Vec<_>>(), [1, 2, 4, 8]);
    assert_eq!(index.content_bytes(), object.size);
}

/// Each object that was indexed had up to eight pieces of 8 MB on their way: memory grew with partitions, whatever the budget was.
#[tokio::test]
async fn what_is_fetched_ahead_shares_one_room_and_one_piece_of_each_needs_none() {
    let object = lines(60 * 1024 * 1024 / LINE.len() as u64);
    let source = Noted(Narrow(Semaphore::new(100)), Mutex::default());
    let room = Room::new(3 * limits::EXTENT_BYTES);
    let asked = || source.1.lock().expect("nobody panics").len();
    let mut first = Pieces::new(&source, &object, Pace::even(8), &room);
    first.next().await.expect("a piece").expect("it can be read");
    assert_eq!(asked(), 4);
    let mut second = Pieces::new(&source, &object, Pace::even(8), &room);
    second.next().await.expect("a piece").expect("it can be read");
    assert_eq!(asked(), 4 + 1, "there is no room");
    drop(first);
    while let Some(piece) = second.next().await {
        piece.expect("it can be read");
    }
    assert_eq!(room.0.available_permits(), 3 * limits::EXTENT_BYTES / super::PERMIT_BYTES);
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
    let room = Room::default();
    let found = index(&source, &object, reading, Pace::even(8), &room, &mut waits);
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    let found = found.expect("it goes on").expect("it can be read");
    assert_eq!(found.records(), count);
}
