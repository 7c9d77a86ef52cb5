//! An object's bytes in order, some of them ahead of what is looked at.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use robustmq_common::limits::dataset as limits;

use crate::cache::{Cache, Taken};
use crate::fetch::{FetchError, Object, Source};
use crate::format::Coding;

/// How an object is read that is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// GETs that are on their way at once.
    pub gets: usize,
    /// Bytes of the first one and of the first extent; each further one is twice as long, up to `extent_bytes`. Whoever waits for the first
    /// records has them sooner.
    pub first_bytes: usize,
    /// Bytes of an extent, about.
    pub extent_bytes: usize,
}

impl Pace {
    /// All extents have the usual size.
    #[must_use]
    pub const fn even(gets: usize) -> Self {
        Self { gets, first_bytes: limits::EXTENT_BYTES, extent_bytes: limits::EXTENT_BYTES }
    }

    /// For somebody who waits.
    #[must_use]
    pub const fn urgent(gets: usize) -> Self {
        Self { first_bytes: limits::FIRST_EXTENT_BYTES, ..Self::even(gets) }
    }

    /// With extents of that size.
    #[must_use]
    pub fn with_extents(self, extent_bytes: usize) -> Self {
        Self { extent_bytes, first_bytes: self.first_bytes.min(extent_bytes), ..self }
    }
}

/// A piece, which has its room until it is looked at.
#[derive(Debug)]
pub(super) struct Piece {
    pub content: Bytes,
    pub room: Taken,
}

/// An object in pieces, of which some are on their way ahead of the one that is looked at.
pub(super) struct Pieces<'a> {
    source: &'a dyn Source,
    object: &'a Object,
    ahead: usize,
    /// Where the next GET begins, and how much it asks for; and the most that one does.
    at: u64,
    bytes: u64,
    most_bytes: u64,
    /// Where the last piece ended that was looked at.
    end: u64,
    cache: Arc<Cache>,
    on_their_way: FuturesOrdered<BoxFuture<'a, Result<Piece, FetchError>>>,
    here: VecDeque<Result<Piece, FetchError>>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(
        source: &'a dyn Source,
        object: &'a Object,
        coding: Coding,
        pace: Pace,
        cache: &Arc<Cache>,
    ) -> Self {
        let most_bytes = match coding {
            Coding::Plain => pace.extent_bytes,
            Coding::Gzip | Coding::Zstd => pace.extent_bytes.min(limits::CODED_PIECE_BYTES),
        } as u64;
        Self {
            source,
            object,
            ahead: pace.gets,
            at: 0,
            bytes: most_bytes.min(pace.first_bytes as u64),
            most_bytes,
            end: 0,
            cache: Arc::clone(cache),
            on_their_way: FuturesOrdered::new(),
            here: VecDeque::new(),
        }
    }

    /// The next piece, with GETs for those after it as long as more is wanted than is on its way and there is room. Where there is none at all,
    /// what was kept of earlier pieces is let go of, and fetched again with the next: who waits for room has none.
    pub(super) async fn next(
        &mut self,
        wants: impl Fn(u64) -> bool,
        let_go: impl FnOnce() -> u64,
    ) -> Option<Result<Piece, FetchError>> {
        while !self.is_begun() && self.count() < self.ahead {
            let on_their_way = self.at - self.end;
            let next = (self.at + self.bytes).min(self.object.size);
            if on_their_way > 0 && !wants(on_their_way) {
                break;
            }
            let Some(room) = self.cache.try_take_room(bytes_of(self.at..next)) else { break };
            self.get(next, room);
        }
        if self.count() == 0 && !self.is_begun() {
            // At least as much more as is fetched again: else a record that grows would be fetched again with each piece.
            let kept = let_go();
            let next = (self.at + self.bytes.max(kept)).min(self.object.size);
            self.rewind(kept);
            let room = self.cache.take_room(bytes_of(self.at..next)).await;
            self.get(next, room);
        }
        let piece = match self.here.pop_front() {
            None => self.on_their_way.next().await,
            here => here,
        };
        if let Some(Ok(piece)) = &piece {
            self.end += piece.content.len() as u64;
        }
        piece
    }

    /// GETs that were begun and whose pieces were not looked at.
    fn count(&self) -> usize {
        self.on_their_way.len() + self.here.len()
    }

    /// Whether all GETs were.
    fn is_begun(&self) -> bool {
        self.at >= self.object.size
    }

    /// Whether all was looked at.
    pub(super) fn is_over(&self) -> bool {
        self.end >= self.object.size
    }

    fn get(&mut self, end: u64, room: Taken) {
        let content = self.source.get(self.object, self.at..end);
        let piece = content.map(|content| Ok(Piece { content: content?, room }));
        self.on_their_way.push_back(piece.boxed());
        self.at = end;
        self.bytes = (self.bytes * 2).min(self.most_bytes);
    }

    /// Gives up what was fetched and not looked at, and the last bytes of what was.
    pub(super) fn rewind(&mut self, bytes: u64) {
        self.on_their_way = FuturesOrdered::new();
        self.here.clear();
        self.end -= bytes;
        self.at = self.end;
    }

    /// Returns when others need the room of what was fetched. What is on its way comes meanwhile: a GET that nobody looks after keeps its turn,
    /// and whoever waits for readers here would have these wait for a turn.
    pub(super) async fn is_room_awaited(&mut self) {
        let cache = Arc::clone(&self.cache);
        let settled = async {
            while let Some(piece) = self.on_their_way.next().await {
                self.here.push_back(piece);
            }
            std::future::pending().await
        };
        tokio::select! {
            () = cache.is_room_awaited() => {}
            () = settled => {}
        }
    }
}

fn bytes_of(range: Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
