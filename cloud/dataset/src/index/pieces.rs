//! An object's bytes in order, some of them ahead of what is looked at.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use robustmq_common::limits::dataset as limits;

use crate::fetch::{FetchError, Object, Source};

/// An object in pieces, of which some are on their way ahead of the one that is looked at.
pub(super) struct Pieces<'a> {
    source: &'a dyn Source,
    object: &'a Object,
    ahead: usize,
    /// Where the next GET begins.
    at: u64,
    on_their_way: FuturesOrdered<BoxFuture<'a, Result<Bytes, FetchError>>>,
    here: VecDeque<Result<Bytes, FetchError>>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(source: &'a dyn Source, object: &'a Object, ahead: usize) -> Self {
        let (on_their_way, here) = (FuturesOrdered::new(), VecDeque::new());
        Self { source, object, ahead, at: 0, on_their_way, here }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        while self.at < self.object.size && self.on_their_way.len() + self.here.len() < self.ahead {
            let end = (self.at + limits::EXTENT_BYTES as u64).min(self.object.size);
            self.on_their_way.push_back(self.source.get(self.object, self.at..end));
            self.at = end;
        }
        match self.here.pop_front() {
            None => self.on_their_way.next().await,
            here => here,
        }
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
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use object_store::path::Path;
    use tokio::sync::Semaphore;

    use super::{Bytes, FetchError, Object, Source, limits};
    use crate::format::{Coding, Format};
    use crate::index::{Found, ObjectIndex, Reading, index};
    use crate::layout::Extent;

    const LINE: &[u8] = b"{\"a\": 12345}\n";

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

    /// Whoever counted ahead of its readers waited for them with GETs begun, which kept their turns while nobody looked after them; the readers
    /// waited for a turn. All partitions of a source stood still for good.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_readers_takes_no_turn_from_them() {
        let lines = 2 * limits::EXTENT_BYTES as u64 / LINE.len() as u64;
        let object = Object {
            path: Path::from("lines.jsonl"),
            etag: None,
            size: lines * LINE.len() as u64,
            modified_ms: 0,
        };
        let source = Narrow(Semaphore::new(1));
        let reading = Reading::plain(Format::Jsonl, Coding::Plain);
        let mut waits = Waits(&source, &object);
        let found = index(&source, &object, reading, 8, &mut waits);
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        let found = found.expect("it goes on").expect("it can be read");
        assert_eq!(found.records(), lines);
    }
}
