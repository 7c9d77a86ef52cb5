//! An object's bytes in order, some of them ahead of what is looked at.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use robustmq_common::limits::dataset as limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fetch::{FetchError, Object, Source};

/// How an object is read that is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// GETs that are on their way at once.
    pub gets: usize,
    /// Bytes of the first one and of the first extent; each further one is twice as long, up to [`limits::EXTENT_BYTES`]. Whoever waits for
    /// the first records has them sooner.
    pub first_bytes: usize,
}

impl Pace {
    /// All extents have the usual size.
    #[must_use]
    pub const fn even(gets: usize) -> Self {
        Self { gets, first_bytes: limits::EXTENT_BYTES }
    }

    /// For somebody who waits.
    #[must_use]
    pub const fn urgent(gets: usize) -> Self {
        Self { gets, first_bytes: limits::FIRST_EXTENT_BYTES }
    }
}

/// Room for what is fetched ahead of what is looked at, of all objects that are indexed. The first piece of each needs none, so that all go on.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

/// Permits are for so many bytes each.
const PERMIT_BYTES: usize = 64 * 1024;

impl Room {
    /// Beside a cache of so many bytes.
    #[must_use]
    pub fn beside(cache_bytes: usize) -> Self {
        let (least, most) = limits::PIECES_AHEAD_BYTES.into_inner();
        Self::new((cache_bytes / limits::PIECES_AHEAD_SHARE).clamp(least, most))
    }

    /// For so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / PERMIT_BYTES)))
    }

    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = usize::try_from(bytes).ok()?.div_ceil(PERMIT_BYTES);
        let permits = u32::try_from(permits).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(permits).ok()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(*limits::PIECES_AHEAD_BYTES.start())
    }
}

/// A piece, which has its room until it is looked at.
type Piece = (Result<Bytes, FetchError>, Option<OwnedSemaphorePermit>);

/// An object in pieces, of which some are on their way ahead of the one that is looked at.
pub(super) struct Pieces<'a> {
    source: &'a dyn Source,
    object: &'a Object,
    ahead: usize,
    /// Where the next GET begins, and how much it asks for.
    at: u64,
    bytes: u64,
    room: Room,
    on_their_way: FuturesOrdered<BoxFuture<'a, Piece>>,
    here: VecDeque<Piece>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(source: &'a dyn Source, object: &'a Object, pace: Pace, room: &Room) -> Self {
        let (on_their_way, here) = (FuturesOrdered::new(), VecDeque::new());
        let (ahead, bytes) = (pace.gets, pace.first_bytes as u64);
        Self { source, object, ahead, at: 0, bytes, room: room.clone(), on_their_way, here }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        while self.at < self.object.size && self.on_their_way.len() + self.here.len() < self.ahead {
            let end = (self.at + self.bytes).min(self.object.size);
            let is_first = self.on_their_way.is_empty() && self.here.is_empty();
            let permit = if is_first { None } else { self.room.take(end - self.at) };
            if permit.is_none() && !is_first {
                break;
            }
            self.bytes = (self.bytes * 2).min(limits::EXTENT_BYTES as u64);
            let piece = self.source.get(self.object, self.at..end);
            self.on_their_way.push_back(piece.map(move |piece| (piece, permit)).boxed());
            self.at = end;
        }
        let piece = match self.here.pop_front() {
            None => self.on_their_way.next().await,
            here => here,
        };
        piece.map(|(piece, _)| piece)
    }

    /// Lets what is on its way come, for as long as nobody asks for the next: a GET that nobody looks after keeps its turn, and whoever waits
    /// for readers here would have these wait for a turn.
    pub(super) async fn settle(&mut self) -> Infallible {
        loop {
            match self.on_their_way.next().await {
                Some(piece) => self.here.push_back(piece),
                None => return std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
